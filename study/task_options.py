"""Which items of a task: the section `task` of a study file, and the options of every command that asks a task."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from interp.remedy import remedy
from study.option_types import Count, Where
from study.options import STRICT, option

if TYPE_CHECKING:
    from interp.prompt import Example

_CHOICES = ("per_cell", "sizes", "seed", "split", "rendering")
PATH = "Import path of a task, e.g. interp.tasks.procedural."
WHERE = (
    "Keep only rows that meet a condition: COLUMN (has a value), COLUMN=A,B, COLUMN!=A, COLUMN<3 (<=, >, >=). If "
    "repeated, all conditions must hold."
)
_READ: ContextVar[dict[object, list[Example]] | None] = ContextVar("_READ", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, a task reads or makes equal items once: a plan asks for them at every step and every claim."""
    token = None if _READ.get() is not None else _READ.set({})
    try:
        yield
    finally:
        if token is not None:
            _READ.reset(token)


def _read(read: Callable[..., Sequence[Example]], data: str | None, arguments: Mapping[str, object]) -> list[Example]:
    kept = _READ.get()
    if kept is None:
        return list(read(data, **arguments))
    key = (read, data, repr(sorted(arguments.items())))
    if key not in kept:
        kept[key] = list(read(data, **arguments))
    return list(kept[key])


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ItemOptions:
    """Which items; without a task they are read from `data` as `interp.tasks.read_examples` reads them.

    Attributes:
        path: import path of the task.
        data: file or folder of its data, relative to a study file; none where the task generates its items.
        per_cell, sizes, seed, split, rendering: passed to the task where given, an error where it has none.
        sizes: cell -> items of it instead of `per_cell`; a section's own `per_cell` replaces both.
        where: conditions on id, label, group or another key; items that meet them are kept, as in `ProbesOptions`.
        limit: use at most N items, spread over cells and groups.
        options: what else the task's `examples` takes, by name; KEY=VALUE words on the command line.
    """

    path: str | None = option(None, PATH, flag="--task", param="task")
    data: str | None = option(None, "Data of the task; not needed if the task generates its items.")
    limit: Count | None = option(None, "Use at most N items, spread over cells and groups.")
    per_cell: Count | None = option(None, "Number of items per cell of a generated grid.")
    sizes: Mapping[str, Count] | None = option(None, "Number of items of single cells.", is_command=False)
    seed: int | None = option(None, "Seed of generated items and sampled replies.")
    split: str | None = option(None, "Split whose items are used: train, validation or test.")
    rendering: str | None = option(None, "Rendering of generated items: plain, or log (for the embedded pair).")
    where: Where = option({}, WHERE)
    options: Mapping[str, Any] | tuple[str, ...] = option(
        {},
        "Option of the task itself, e.g. categories=Age,Religion, condition=ambig, permute=cyclic, side=test, "
        "templates=FOLDER; can be repeated.",
        flag="--task-option",
        metavar="KEY=VALUE",
    )

    def examples(
        self,
        *,
        default_seed: int | None = None,
        is_embedded: bool = False,
        chains: bool = False,
        says_rest: bool = False,
    ) -> list[Example]:
        """The examples that `where` keeps, in order; at most `limit` of them.

        Args:
            default_seed: of a task that takes one, where none is given.
            is_embedded: whether the embedded pair is asked, which reads one rendering alone.
            chains: with the chain of thought after the question, of a task that has them (`chain_examples`).
            says_rest: warn where `limit` leaves some out.
        Raises:
            ValueError: an option that the task does not take; a rendering that the embedded pair cannot read; no data.
        """
        from interp.tasks.protocol import load_task
        from interp.tasks.records import read_examples, spread
        from interp.where import examples_where

        if self.path is None:
            found = read_examples(self._only_data(), split=self.split or "train")
        else:
            task: Any = load_task(self.path)
            read = getattr(task, "chain_examples", task.examples) if chains else task.examples
            arguments = self.arguments(read, default_seed=default_seed, is_embedded=is_embedded)
            found = _read(read, self.data, arguments)
        kept = examples_where(found, self.where, option=remedy("{task.where}"))
        taken = spread(kept, self.limit)
        if says_rest and len(taken) < len(kept):
            warnings.warn(
                f"{len(taken)} of {len(kept)} items are taken, spread over cells and groups; "
                f"{remedy('{limit}', '{n}')} takes more.",
                stacklevel=2,
            )
        return taken

    def arguments(
        self, function: Callable[..., object], *, default_seed: int | None = None, is_embedded: bool = False
    ) -> dict[str, object]:
        """What is passed to a function of the task: choices that were made, its seed, the embedded pair's rendering.

        Raises:
            ValueError: a choice that the function does not take, or a rendering that the embedded pair cannot read.
        """
        known = inspect.signature(function).parameters
        wanted = {key: value for key in _CHOICES if (value := getattr(self, key)) is not None} | self.further(function)
        if "seed" in known and default_seed is not None:
            wanted.setdefault("seed", default_seed)
        is_ours = is_embedded and "rendering" in known and self.data is None
        if is_ours and (rendering := wanted.setdefault("rendering", "log")) != "log":
            raise ValueError(
                f"{remedy(f'{{task.rendering:{rendering}}}')}: the embedded pair knows only the words of the log "
                f"rendering. {remedy('Omit {task.rendering}')}, or name a model of your own."
            )
        if strange := [remedy(f"{{task.{key}}}") if key in _CHOICES else key for key in wanted if key not in known]:
            raise ValueError(f"{self.path} does not take {', '.join(strange)}; it takes {', '.join(known)}.")
        return wanted

    def further(self, function: Callable[..., object]) -> dict[str, object]:
        """`options` as the function takes them."""
        return dict(self.options) if isinstance(self.options, Mapping) else given_to_task(function, self.options)

    def _only_data(self) -> str:
        """The file of items that are read without a task."""
        if self.data is None:
            raise ValueError(remedy("{data} is missing: name a file of items, or a {path} that generates them."))
        stray = [remedy(f"{{{key}}}") for key in ("per_cell", "seed", "rendering") if getattr(self, key) is not None]
        stray += [remedy("{options}")] if self.options else []
        if stray:
            named = remedy("Name one with {path}, or leave them out.")
            raise ValueError(f"{', '.join(stray)}: options of a task. {named}")
        return self.data


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TaskOptions(ItemOptions):
    """Which items of which task."""

    path: str = option(help=PATH, flag="--task", param="task")


def given_to_task(function: Callable[..., object], words: Collection[str]) -> dict[str, object]:
    """What `--task-option KEY=VALUE` passes to a task's function: numbers, true, null and text as in YAML; commas part
    the entries of an option that takes several.

    Raises:
        ValueError: no KEY=VALUE, or a key that is given twice.
    """
    from interp.io.yaml_text import parse_yaml

    known, found = inspect.signature(function).parameters, {}
    for word in words:
        key, sign, text = word.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key or key in found:
            raise ValueError(f"{remedy('{options}')} {word!r}: expected KEY=VALUE, each key once.")
        several = key in known and "Sequence" in str(known[key].annotation)
        try:
            found[key] = (
                [part for one in text.split(",") if (part := one.strip())] if several else parse_yaml(text, word)
            )
        except ValueError:  # text that only looks like YAML: "[a", "x: y: z"
            found[key] = text
    return found
