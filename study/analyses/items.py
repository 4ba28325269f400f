"""The items of a step: those of the study's task, with what the step's own section says otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from interp.tasks.protocol import hook, load_task
from interp.where import twins_where

if TYPE_CHECKING:
    from interp.prompt import Example
    from study.config.sections import Study


def examples_of(study: Study, section: object = None, *, chains: bool = False) -> list[Example]:
    """The examples that a step sees, in order.

    Args:
        section: of the step; its `per_cell` and `limit` come before those of the task, `per_cell` before `sizes` too.
        chains: with the chain of thought after the question, of a task that has them (`chain_examples`).
    Raises:
        ValueError: an option that the task does not take, by its name in the study file; no items.
    """
    own = {key: value for key in ("per_cell", "limit") if (value := getattr(section, key, None)) is not None}
    sizes = study.task.sizes if "per_cell" not in own else None
    chosen = replace(study.task, sizes=sizes, **own)
    found = chosen.examples(default_seed=study.seed, is_embedded=study.is_embedded, chains=chains)
    if not found:
        raise ValueError(f"task {study.task.path}: no items are left of {study.task.data or 'what it generates'}.")
    return found


def makes_twins(study: Study) -> bool:
    """Whether the task of a study makes twins, and no data are given."""
    return study.task.data is None and hook(load_task(study.task.path), "twin_examples") is not None


def twins_of(study: Study, n: int) -> list[tuple[Example, Example]] | None:
    """(original, twin) examples of a task that makes them, of `n` procedures; None of one that does not."""
    make = hook(load_task(study.task.path), "twin_examples")
    if make is None or not makes_twins(study):
        return None
    chosen = replace(study.task, per_cell=None, sizes=None, options={})
    arguments = chosen.arguments(make, default_seed=study.seed, is_embedded=study.is_embedded)
    return twins_where(list(make(n, **arguments)), study.task.where, option="task.where")
