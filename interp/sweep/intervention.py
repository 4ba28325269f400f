"""Interventions as rows of a sweep: what each changes, where it first differs from the clean run, and the changes of
many rows applied together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp.edits import Add, Edit, Replace
from interp.family import Layout
from interp.passes import Pass
from interp.positions import Positions
from interp.prompt import Prompt
from interp.site import Site, expand_sites

Tokens = Literal["all"] | Positions | Sequence[int]
Stage = tuple[int, int]  # (layer, 0: entry of the block | 1: between attention and output projection)

_AT_ENTRY = ("embed", "resid_pre", "q", "k", "v")
_AFTER_HEADS = ("z", "attn_out", "resid_mid", "mlp_out")


@dataclass(frozen=True, eq=False)
class Change:
    """One edit of one site at chosen tokens; the same meaning as `edit(model, {site: edit}, positions=[positions])`.

    Args:
        site: a site, or a glob for several sites.
        edit: a pure function of the activation. `Add` and `Replace` take a tensor that broadcasts to acts[1, pos, ...]
            of the whole prompt, as in `edit`; a custom edit must treat all rows and tokens alike.
        positions: "all", a rule, or token numbers.
    """

    site: str | Site
    edit: Edit
    positions: Tokens = "all"


@dataclass(frozen=True, eq=False)
class Intervention:
    """One row of a sweep: changes that act together in one run of the prompt. Without changes it is the clean run."""

    changes: tuple[Change, ...] = ()
    name: str = ""

    @classmethod
    def at(cls, site: str | Site, edit: Edit, positions: Tokens = "all", *, name: str = "") -> Intervention:
        """An intervention of a single change."""
        return cls((Change(site, edit, positions),), name)


@dataclass(frozen=True, eq=False)
class Op:
    """A change of one concrete site at concrete tokens."""

    site: Site
    edit: Edit
    tokens: tuple[int, ...]

    @property
    def stage(self) -> Stage:
        """Where a row with this change leaves the clean run. The output of a block is the input of the next one."""
        layer = self.site.layer or 0
        if self.site.kind == "resid_post":
            return (layer + 1, 0)
        return (layer, 0 if self.site.kind in _AT_ENTRY else 1)


@dataclass(frozen=True, eq=False)
class Row:
    """One intervention on a given prompt: its operations, and the stage at which the row joins the batch."""

    index: int
    ops: tuple[Op, ...]
    join: Stage


class Planner:
    """Turns interventions into rows for one prompt of one model.

    Raises:
        ValueError: a site that the model does not have or that a sweep cannot change, or a token outside the prompt.
    """

    def __init__(self, layout: Layout, prompt: Prompt | Sequence[int]) -> None:
        self.layout, self.prompt = layout, prompt
        self.n_tokens = len(prompt.ids if isinstance(prompt, Prompt) else prompt)
        self._sites: dict[str | Site, tuple[Site, ...]] = {}
        self._tokens: dict[Tokens, tuple[int, ...]] = {}

    def rows(self, interventions: Sequence[Intervention]) -> list[Row]:
        return [self._row(index, one) for index, one in enumerate(interventions)]

    def _row(self, index: int, one: Intervention) -> Row:
        ops = tuple(
            Op(site, change.edit, tokens)
            for change in one.changes
            if (tokens := self.tokens(change.positions))
            for site in self._expand(change.site)
        )
        return Row(index, ops, min((op.stage for op in ops), default=(self.layout.n_layers, 0)))

    def _expand(self, word: str | Site) -> tuple[Site, ...]:
        if word not in self._sites:
            sites = expand_sites(word, self.layout)
            for site in sites:
                if site.kind not in (*_AT_ENTRY, *_AFTER_HEADS, "resid_post"):
                    raise ValueError(
                        f"site '{site}' cannot be changed in a sweep; expected one of "
                        f"{', '.join((*_AT_ENTRY, *_AFTER_HEADS, 'resid_post'))}."
                    )
            self._sites[word] = sites
        return self._sites[word]

    def tokens(self, where: Tokens) -> tuple[int, ...]:
        """Token indices in ascending order, without repeats."""
        key = tuple(where) if isinstance(where, Sequence) and not isinstance(where, str) else where
        if key not in self._tokens:
            self._tokens[key] = self._resolve(key)
        return self._tokens[key]

    def _resolve(self, where: Tokens) -> tuple[int, ...]:
        if where == "all":
            return tuple(range(self.n_tokens))
        if isinstance(where, Positions):
            if isinstance(self.prompt, Prompt):
                return tuple(sorted(set(where.resolve(self.prompt))))
            return tuple(sorted(set(Pass(1, self.n_tokens).tokens(where)[0])))
        outside = [token for token in where if not 0 <= token < self.n_tokens]
        if outside:
            raise ValueError(f"positions: expected tokens 0-{self.n_tokens - 1} of the prompt, got {outside[0]}.")
        return tuple(sorted(set(where)))


Slotted = tuple[int, Op]  # (index of the row in the batch, its change)
Columns = Callable[[tuple[int, ...]], list[int]]


def apply_ops(acts: Tensor, ops: Sequence[Slotted], *, column: dict[int, int], n_tokens: int) -> None:
    """Write the changed values into `acts[row, column, (head,) width]`, in place: `acts` must be the caller's own copy.

    Several operations on one row act in their order. A token without a column is not computed here and is skipped.
    Rows with the same kind of edit at the same tokens are changed together.

    Args:
        column: column of each computed token.
        n_tokens: length of the whole prompt, the token axis of edits' values.
    Raises:
        ValueError: a value does not broadcast to the site, or an edit changes shapes or its input.
    """
    for wave in _waves(ops):
        groups: dict[tuple, list[Slotted]] = {}
        for slot, op in wave:
            # Add and Replace of any value are computed together; a custom edit only with itself
            kind = type(op.edit) if type(op.edit) in (Add, Replace) else id(op.edit)
            groups.setdefault((kind, op.tokens, op.site.head is None), []).append((slot, op))
        for group in groups.values():
            _apply_group(acts, group, column, n_tokens)


def _waves(ops: Sequence[Slotted]) -> Iterable[list[Slotted]]:
    """The first operation of every row, then every second one, ...: operations of one row must not be merged."""
    waves: list[list[Slotted]] = []
    count: dict[int, int] = {}
    for slot, op in ops:
        at = count[slot] = count.get(slot, -1) + 1
        if at == len(waves):
            waves.append([])
        waves[at].append((slot, op))
    return waves


def _apply_group(acts: Tensor, group: Sequence[Slotted], column: dict[int, int], n_tokens: int) -> None:
    first = group[0][1]
    tokens = [token for token in first.tokens if token in column]
    if not tokens:
        return
    rows = torch.tensor([slot for slot, _ in group], device=acts.device)[:, None]
    columns = torch.tensor([column[token] for token in tokens], device=acts.device)[None, :]
    where: tuple[Tensor, ...] = (rows, columns)
    if first.site.head is not None:
        where = (*where, torch.tensor([op.site.head for _, op in group], device=acts.device)[:, None])
    old = acts[where]
    edits = [op.edit for _, op in group]
    acts[where] = _changed(old, edits, first, tokens, n_tokens)


def _changed(old: Tensor, edits: Sequence[Edit], op: Op, tokens: list[int], n_tokens: int) -> Tensor:
    """New values of old[row, token, ...] under one edit per row; all edits have one kind."""
    shape = old.shape[2:]
    if isinstance(op.edit, Replace):
        numbers = [edit.value for edit in edits if isinstance(edit, Replace)]
        if not any(isinstance(number, Tensor) for number in numbers):
            same = all(number == numbers[0] for number in numbers)
            return (
                op.edit(old) if same else torch.cat([edit(row) for edit, row in zip(edits, old.split(1), strict=True)])
            )
        return _stack(numbers, old, shape, tokens, n_tokens, op)
    if isinstance(op.edit, Add):
        return old + _stack(
            [edit.alpha * edit.vector.to(old) for edit in edits if isinstance(edit, Add)],
            old,
            shape,
            tokens,
            n_tokens,
            op,
        )
    version = old._version
    new = op.edit(old)
    if old._version != version:
        raise ValueError(f"the edit of '{op.site}' changed its input in place; an edit must return a new tensor.")
    if new.shape != old.shape:
        raise ValueError(f"the edit of '{op.site}' returned {tuple(new.shape)}, expected {tuple(old.shape)}.")
    return new.to(old.dtype)


def _stack(values: list, old: Tensor, shape: Sequence[int], tokens: list[int], n_tokens: int, op: Op) -> Tensor:
    """values[row] at the chosen tokens, as one tensor that broadcasts to old[row, token, *shape]."""
    if all(value is values[0] for value in values):
        values = values[:1]
    parts = [_at_tokens(value, shape, tokens, n_tokens, op) for value in values]
    if any(len(part) != len(parts[0]) for part in parts):
        parts = [part.expand(len(tokens), *shape) for part in parts]
    return torch.stack(parts).to(old).expand_as(old)


def _at_tokens(value: Tensor | float, shape: Sequence[int], tokens: list[int], n_tokens: int, op: Op) -> Tensor:
    """A value that broadcasts to acts[1, pos, *shape] of the prompt, at the chosen tokens: [token or 1, *shape]."""
    whole = value if isinstance(value, Tensor) else torch.tensor(float(value))
    part = whole[0] if whole.ndim == len(shape) + 2 and whole.shape[0] == 1 else whole
    part = part.view(*[1] * (len(shape) + 1 - part.ndim), *part.shape)
    fits = all(size in (1, full) for size, full in zip(part.shape, (n_tokens, *shape), strict=False))
    if part.ndim != len(shape) + 1 or not fits:
        raise ValueError(
            f"site '{op.site}': a value of shape {tuple(whole.shape)} does not broadcast to "
            f"[1, {n_tokens} tokens, {', '.join(map(str, shape))}]."
        )
    return (part if len(part) == 1 else part[tokens]).expand(-1, *shape)
