"""The items of a step: those of the study's task, with what the step's own section says otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from interp.tasks.protocol import load_task
from interp.tasks.records import spread
from interp.where import examples_where, twins_where

if TYPE_CHECKING:
    from interp.prompt import Example
    from study.config.sections import Study

_CHOICES = ("per_cell", "seed", "split", "rendering")


def examples_of(study: Study, section: Any = None, *, chains: bool = False) -> list[Example]:
    """The examples that a step sees, in order.

    Args:
        section: of the step; its `per_cell` and `limit` come before those of the task.
        chains: with the chain of thought after the question, of a task that has them (`chain_examples`).
    Raises:
        ValueError: an option that the task does not take, by its name in the study file; no items.
    """
    task: Any = load_task(study.task.path)
    chosen = asdict(study.task)
    own = {key: getattr(section, key, None) for key in ("per_cell", "limit")}
    chosen |= {key: value for key, value in own.items() if value is not None}
    read = getattr(task, "chain_examples", task.examples) if chains else task.examples
    wanted = options_for(study, read, chosen)
    found = list(read(study.task.data, **wanted))
    found = spread(examples_where(found, study.task.where, option="task.where"), chosen["limit"])
    if not found:
        raise ValueError(f"task {study.task.path}: no items are left of {study.task.data or 'what it generates'}.")
    return found


def twins_of(study: Study, n: int) -> list[tuple[Example, Example]] | None:
    """(original, twin) examples of a task that makes them, of `n` procedures; None of one that does not."""
    task: Any = load_task(study.task.path)
    if study.task.data is not None or not callable(getattr(task, "twin_examples", None)):
        return None
    chosen = {**asdict(study.task), "per_cell": None, "options": {}}
    made = list(task.twin_examples(n, **options_for(study, task.twin_examples, chosen)))
    return twins_where(made, study.task.where, option="task.where")


def options_for(study: Study, function: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What is passed to a task's function: choices that were made, its seed, and the embedded pair's rendering."""
    known = inspect.signature(function).parameters
    wanted = {key: chosen[key] for key in _CHOICES if chosen.get(key) is not None} | dict(chosen["options"])
    if "seed" in known:
        wanted.setdefault("seed", study.seed)
    is_ours = study.is_embedded and "rendering" in known and study.task.data is None
    if is_ours and wanted.setdefault("rendering", "log") != "log":
        raise ValueError(f"task.rendering: {wanted['rendering']!r}: the embedded pair reads only 'log'. Leave it out.")
    strange = [key for key in wanted if key not in known]
    if strange:
        raise ValueError(
            f"task: {study.task.path} does not take {', '.join(strange)}; it takes {', '.join(list(known)[1:])}."
        )
    return wanted
