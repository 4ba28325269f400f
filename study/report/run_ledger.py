"""The ledger of a run folder, and what it comes to as lines for a terminal."""

from __future__ import annotations

import textwrap

from study.analyses.registry import analyses
from study.config.sections import SmallestEffects
from study.report.claims import Claim, claims
from study.report.findings import Finding, findings
from study.report.groups import tally_of
from study.report.mass import floor_of
from study.report.run_folder import RunFolder

_WIDTH, _LABEL = 100, 14


def failed_steps(run: RunFolder) -> dict[str, str]:
    """Step -> why it did not run to the end; the report itself is left out, because it is being written."""
    steps = run.state.steps.items()
    return {name: step.cause for name, step in steps if step.status != "done" and step.cause and name != "report"}


def empty_steps(run: RunFolder) -> dict[str, str]:
    """Step -> why it measured nothing, of steps that ended without a table of their own."""
    measured = {
        str(name) for table in run.tables.values() if "analysis" in table for name in table["analysis"].unique()
    }
    steps = run.state.steps.items()
    return {
        name: "; ".join(step.notes)
        for name, step in steps
        if step.status == "done" and step.notes and name not in measured and name in analyses()
    }


def ledger_of(run: RunFolder, problems: list[str]) -> tuple[Claim, ...]:
    """Every claim of a run, with the margins of its study; what of them cannot be read is added to `problems`."""
    try:
        smallest = SmallestEffects(**(run.study.get("smallest_effects") or {}))
    except (TypeError, ValueError) as error:
        problems.append(f"smallest_effects: {str(error).splitlines()[0]}; the defaults are used")
        smallest = SmallestEffects()
    floor = floor_of(run.study.get("min_label_mass"))
    return claims(run.tables, failed=failed_steps(run), empty=empty_steps(run), smallest=smallest, min_label_mass=floor)


def found_lines(run: RunFolder, *, top: int = 5) -> list[str]:
    """The first sentences of the report and the counts of its verdicts, for a terminal.

    Args:
        top: sentences at most; the others are counted.
    """
    ledger = ledger_of(run, [])
    found = findings(ledger, run.tables, failed=failed_steps(run))
    lines = [] if found.has_supported else ["No claim of this run is supported."]
    lines += [line for one in found.sentences[:top] for line in _wrapped(one)]
    n_left = len(found.sentences) - top
    lines += [f"{'':{_LABEL}}and {n_left} more in the report"] if n_left > 0 else []
    lines += [line for text in found.why[:top] for line in textwrap.wrap(text, _WIDTH)]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in tally_of(ledger))
    return [*lines, f"{'claims':{_LABEL}}{counts}"]


def _wrapped(one: Finding) -> list[str]:
    text = one.text.removesuffix(".") + (f" ({one.detail})." if one.detail else ".")
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{one.kind:{_LABEL}}", subsequent_indent=" " * _LABEL,
                         break_on_hyphens=False)  # fmt: skip
