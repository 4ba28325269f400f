"""The steps of a study: one for each analysis that it asks for, then known truths, figures and report."""

from __future__ import annotations

import importlib

from study.analyses.base import Step
from study.analyses.registry import analysis, names
from study.config.sections import Study

AFTER = {"known_truth": "study.known_truth.step", "figures": "study.report.draw", "report": "study.report.step"}
"""Steps that run when every analysis has ended."""


def steps_of(study: Study) -> dict[str, Step]:
    """The steps that a study asks for, in order.

    Raises:
        ValueError: a step without one that it needs.
    """
    chosen = {name: _step(name) for name in (*names(), *AFTER) if study.section(name) is not None}
    for step in chosen.values():
        missing = [name for name in (step.needs if step.after else step.inputs(study)) if name not in chosen]
        if missing:
            raise ValueError(f"step {step.name!r} needs {', '.join(missing)}: add the section(s) to the study.")
    return chosen


def _step(name: str) -> Step:
    return importlib.import_module(AFTER[name]).STEP if name in AFTER else analysis(name).step
