"""What a study names of its models, checked for every step before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable

from interp.remedy import entered
from study.analyses.base import Step
from study.analyses.shapes import Fault, layout_of
from study.config.sections import Study
from study.doors import study_door


def check_models(study: Study, steps: Iterable[Step]) -> None:
    """Refuse a study that names layers, heads, sites or positions which its models do not have.

    Raises:
        ValueError: one line per fault, with the key of the study file; a checkpoint that cannot be read.
    """
    layouts = {role: layout_of(study, checkpoint) for role, checkpoint in study.members.items()}
    faults: list[Fault] = []
    for step in steps:
        with entered(study_door(step.name)):
            faults += step.fits(study, layouts) if step.fits is not None else ()
    if faults:
        raise ValueError("\n".join(_lines(faults)))


def _lines(faults: Iterable[Fault]) -> list[str]:
    """One line per fault; members that share it are named together."""
    merged: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        merged.setdefault((fault.key, fault.text), []).append(fault.member)
    return [f"{key}: {_of(members)}{text}" for (key, text), members in merged.items()]


def _of(members: Iterable[str]) -> str:
    named = " and ".join(dict.fromkeys(filter(None, members)))
    return f"{named}: " if named else ""
