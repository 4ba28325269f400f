"""The steps of a study, one file each; a file defines `STEP`. Named here in the order in which they run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.config import Study
    from study.run.step import Step

MODULES = {
    name: f"study.steps.{name}"
    for name in ("eval", "cache", "probes", "heads", "steering", "oracle", "figures", "report")
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
