"""A task of two labels for the attacks: a handful of short texts in eight stories, no data."""

from __future__ import annotations

from pathlib import Path

from interp.prompt import Example
from tests import steer_task
from tests.steer_task import GROUP, labels, parse, score

__all__ = ["GROUP", "examples", "labels", "parse", "score"]


def examples(data: str | Path | None = None, *, seed: int = 0, n: int = 16) -> list[Example]:
    """`n` questions; the seed changes which."""
    return [Example(e.id, text=e.text, label=e.label, groups={"story": f"story{k % 8}"}, metadata={"answer": e.label})
            for k, e in enumerate(steer_task.examples(seed=seed)[:n])]  # fmt: skip
