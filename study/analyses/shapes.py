"""What a study names of its models, checked against their configurations: no weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.family import Layout
    from interp.loading import Skeleton
    from study.analyses.base import Step
    from study.config import Study

Layouts = Mapping[str, "Layout"]


@dataclass(frozen=True)
class Fault:
    """One thing that a study asks for and a member does not have.

    Attributes:
        key: of the study file, e.g. steering.layers.
        member: role that lacks it; "" where it is no member's fault.
        text: what lacks, and what can be written instead.
    """

    key: str
    member: str
    text: str


def skeleton_of(study: Study, checkpoint: Checkpoint) -> Skeleton:
    """Configuration, empty modules and tokenizer of a checkpoint, opened once per process.

    Raises:
        ValueError: as `interp.loading.open_skeleton`.
    """
    return _skeleton(checkpoint, tuple(sorted(asdict(study.load).items())))


@cache
def _skeleton(checkpoint: Checkpoint, options: tuple[tuple[str, Any], ...]) -> Skeleton:
    from interp.loading import open_skeleton

    return open_skeleton(checkpoint, **dict(options))


@cache
def _layout(checkpoint: Checkpoint, options: tuple[tuple[str, Any], ...]) -> Layout:
    from interp.family import Layout

    return Layout(_skeleton(checkpoint, options).module.get_decoder())


def layout_of(study: Study, checkpoint: Checkpoint) -> Layout:
    """Layers and heads of a checkpoint. Raises as `skeleton_of`, and for a family that is not known."""
    return _layout(checkpoint, tuple(sorted(asdict(study.load).items())))


def check_models(study: Study, steps: Iterable[Step]) -> None:
    """Refuse a study that names layers, heads, sites or positions which its models do not have.

    Raises:
        ValueError: one line per fault, with the key of the study file; a checkpoint that cannot be read.
    """
    from interp.remedy import entered
    from study.doors import study_door

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


def tried(key: str, members: Mapping[str, Any], check: Callable[[Any], object], remedy: str = "") -> Iterator[Fault]:
    """A fault for every member at which `check` raises a ValueError.

    Args:
        members: role -> what is handed to `check`.
        remedy: said after the error.
    """
    for member, what in members.items():
        try:
            check(what)
        except ValueError as error:
            yield Fault(key, member, f"{error} {remedy}".strip())
