"""Many edits of one activation in few operations: rows that are changed alike are changed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from interp.edits import Add, Edit, Replace
from interp.sweep.intervention import Op

Slotted = tuple[int, Op]  # (place of the row in the batch, what is changed in it)
Columns = Callable[[tuple[int, ...]], list[int]]


def apply_ops(acts: Tensor, ops: Sequence[Slotted], *, column: dict[int, int], n_tokens: int) -> None:
    """Write the changed values into `acts[row, column, (head,) width]`, which must be a copy of the caller's own.

    Several operations on one row act in their order. A token without a column is not computed here and is left out.

    Args:
        column: column of each computed token.
        n_tokens: length of the whole prompt, to which a value with a token axis belongs.
    Raises:
        ValueError: a value that does not broadcast to the site, or an edit that changes shapes or its input.
    """
    for wave in _waves(ops):
        groups: dict[tuple, list[Slotted]] = {}
        for slot, op in wave:
            kind = type(op.edit) if type(op.edit) in (Add, Replace) else id(op.edit)
            groups.setdefault((kind, op.tokens, op.site.head is None), []).append((slot, op))
        for group in groups.values():
            _apply_group(acts, group, column, n_tokens)


def _waves(ops: Sequence[Slotted]) -> Iterable[list[Slotted]]:
    """The first operation of every row, then the second ones, ..."""
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
    """New values of old[row, token, ...] under one edit per row, all of one kind."""
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
    given = value if isinstance(value, Tensor) else torch.tensor(float(value))
    part = given[0] if given.ndim == len(shape) + 2 and given.shape[0] == 1 else given
    part = part.view(*[1] * (len(shape) + 1 - part.ndim), *part.shape)
    fits = all(size in (1, wanted) for size, wanted in zip(part.shape, (n_tokens, *shape), strict=False))
    if part.ndim != len(shape) + 1 or not fits:
        raise ValueError(
            f"site '{op.site}': a value of shape {tuple(given.shape)} does not broadcast to "
            f"[1, {n_tokens} tokens, {', '.join(map(str, shape))}]."
        )
    return (part if len(part) == 1 else part[tokens]).expand(-1, *shape)
