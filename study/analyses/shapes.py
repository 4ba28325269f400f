"""What a study names of its models, checked against their configurations: no weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.family import Layout
    from interp.loading import Skeleton
    from study.config.sections import Study

Layouts = Mapping[str, "Layout"]
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """One thing that a study asks for and a member does not have.

    Attributes:
        key: key of the study file, e.g. steering.layers.
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
def _skeleton(checkpoint: Checkpoint, options: tuple[tuple[str, object], ...]) -> Skeleton:
    from interp.loading import open_skeleton

    return open_skeleton(checkpoint, **dict(options))


@cache
def _layout(checkpoint: Checkpoint, options: tuple[tuple[str, object], ...]) -> Layout:
    from interp.family import Layout

    return Layout(_skeleton(checkpoint, options).module.get_decoder())


def layout_of(study: Study, checkpoint: Checkpoint) -> Layout:
    """Layers and heads of a checkpoint. Raises as `skeleton_of`, and for a family that is not known."""
    return _layout(checkpoint, tuple(sorted(asdict(study.load).items())))


def tried(key: str, members: Mapping[str, T], check: Callable[[T], object], remedy: str = "") -> Iterator[Fault]:
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
