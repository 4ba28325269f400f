"""The steps of a study, one file each; a file defines `STEP`. Named here in the order in which they run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.analyses.base import Step
    from study.config import Study

MODULES = {
    "eval": "study.analyses.eval.step",
    "cache": "study.analyses.cache.step",
    "probes": "study.analyses.probes.step",
    "heads": "study.analyses.heads.step",
    "steering": "study.analyses.steering.step",
    "oracle": "study.analyses.oracle.step",
    "figures": "study.report.figures_step",
    "report": "study.report.step",
}


def steps_of(study: Study) -> dict[str, Step]:
    """The steps that a study asks for, in order.

    Raises:
        ValueError: a step without one that it needs.
    """
    chosen = {name: _step(name) for name in MODULES if getattr(study, name, None) is not None}
    for step in chosen.values():
        missing = [name for name in (step.needs if step.after else step.inputs(study)) if name not in chosen]
        if missing:
            raise ValueError(f"step {step.name!r} needs {', '.join(missing)}: add the section(s) to the study.")
    return chosen


def _step(name: str) -> Step:
    return importlib.import_module(MODULES[name]).STEP
