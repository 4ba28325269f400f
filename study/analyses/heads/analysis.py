"""The analysis `heads`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.heads.claims import heads as claims
from study.analyses.heads.step import STEP
from study.config.sections import HeadsSection

ANALYSIS = Analysis(
    name="heads",
    options=HeadsSection,
    step=STEP,
    help="Effects of every attention head: sweep, then show one.",
    title="Heads",
    question="Which heads carry the answer, and does what they carry transfer?",
    claims=claims,
)
