"""The report of a run: one HTML file that needs no network, no script and no model."""

from study.report.claims import Claim, Control, Verdict, claims, judge
from study.report.page import render, write_report
from study.report.published import Published, parse_published

__all__ = ["Claim", "Control", "Published", "Verdict", "claims", "judge", "parse_published", "render", "write_report"]
