"""Token rows with a common beginning, which is read once: where rows branch, keys and values are forked."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model import Model
from interp.progress import parts, stage

Ids = tuple[int, ...]
_CPU_TOKENS, _GPU_TOKENS = 2_048, 16_384
_WORTH = 0.5
"""Share of the tokens below which sharing is faster than plain passes, which need no mask and no cache."""


def can_share(model: Model) -> bool:
    """Whether every layer keeps plain keys and values: no window that drops them, no recurrent state to fork, no rope
    in which the keys of a prefix depend on the length of the rest; and all of them on one device."""
    return why_not_shared(model) == ""


def is_hooked(model: Model) -> bool:
    """Whether a module has hooks: they may count rows and tokens, so that every text must be one row of one pass."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())


def is_spread(model: Model) -> bool:
    """Whether the weights are on several devices (`device_map`), so that keys and values are too."""
    return len({weights.device for weights in model.module.parameters()}) > 1


def why_not_shared(model: Model) -> str:
    """Why a model cannot share a prefix, in terms of its configuration; "" if it can."""
    if model.layout.rope.varies:
        return f"rope_type {', '.join(sorted(model.layout.rope.types))} depends on the length of the text"
    kinds = sorted({layer.kind for layer in model.layout.layers} - {"full_attention"})
    if kinds:
        return f"layers of kind {', '.join(kinds)}"
    return "weights on several devices" if is_spread(model) else ""


@torch.no_grad()
def shared_prefix_logp(model: Model, rows: Sequence[Ids], units: Sequence[Hashable]) -> Float[Tensor, "row vocab"]:
    """Log softmax in float32 of the logits after each row, equal to a pass over the full rows.

    Four passes: the common beginning of all rows; that of each unit; within a unit, that of rows with the same next
    token; the rest of each row. Each pass attends to the keys and values of the previous ones, at the tokens' positions
    in the row.

    Args:
        rows:  token ids, two or more each.
        units: one key per row; rows with the same key are expected to share more than all rows do.
    Raises:
        ValueError: a model with layers that cannot share (see `can_share`), a row of one token, or not one key per row.
    """
    if not can_share(model):
        raise ValueError(
            f"a shared prefix needs full attention in every layer on one device, got {why_not_shared(model)}."
        )
    if len(units) != len(rows):
        raise ValueError(f"units: expected one key per row ({len(rows)}), got {len(units)}.")
    if min(map(len, rows)) < 2:
        raise ValueError("rows: expected at least 2 tokens each, got a row with fewer. Use next_token_logp.")
    finals = read_rows(model, rows, units, lambda state, lines: None)
    return model.unembed(finals).float().log_softmax(-1)


def tokens_per_pass(model: Model) -> int:
    """Tokens of one pass: on a CPU as many as keep what a layer computes near the processor."""
    return _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS


def is_worth_sharing(rows: Sequence[Ids]) -> bool:
    """Whether rows share so many tokens that `shared_logp` is faster than plain passes."""
    levels = _levels(rows, units_of(rows))
    n_read, before = 0, [0] * len(rows)
    for level in levels:
        lines = dict(zip(level.keys, zip(level.cuts, before, strict=True), strict=True))
        n_read += sum(cut - read for cut, read in lines.values())
        before = level.cuts
    return n_read < _WORTH * sum(map(len, rows))


@torch.no_grad()
def shared_logp(model: Model, rows: Sequence[Ids]) -> Float[Tensor, "row vocab"]:
    """As `shared_prefix_logp`; rows that begin alike are found by their tokens. Some thousand tokens at a time."""
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    finals: dict[int, Tensor] = {}
    while order:
        sizes = itertools.accumulate(len(rows[i]) for i in order)
        chunk = order[: max(1, sum(size <= _GPU_TOKENS for size in sizes))]
        some = [rows[i] for i in chunk]
        with stage(len(finals) / len(rows), (len(finals) + len(chunk)) / len(rows)):
            finals |= zip(chunk, read_rows(model, some, units_of(some), lambda state, lines: None), strict=True)
        order = order[len(chunk) :]
    return model.unembed(torch.stack([finals[i] for i in range(len(rows))])).float().log_softmax(-1)


Leaf = Callable[["Prefix", Sequence[tuple[int, int]]], None]


def read_rows(model: Model, rows: Sequence[Ids], units: Sequence[Hashable], leaf: Leaf) -> Float[Tensor, "row d_model"]:
    """Final hidden state of the last token of each row, what rows share read once.

    Args:
        leaf: called once per group of rows that end together, with their keys and values and (row, line of it) of
            each; keys and values are freed afterwards.
    """
    finals: list[Tensor | None] = [None] * len(rows)
    at: dict[int, tuple[int, int]] = dict.fromkeys(range(len(rows)), (0, 0))
    _run(Prefix.empty(model), _levels(rows, units), rows, at, finals, leaf)
    return torch.stack([row for row in finals if row is not None])


def units_of(rows: Sequence[Ids], *, share: float = 0.25) -> list[int]:
    """A key per row: equal for neighbours in lexicographic order that have `share` of the shorter row in common.

    Tokens that all rows have in common do not count, as they are read once in any case.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    everywhere = common(rows)
    units = [0] * len(rows)
    for a, b in itertools.pairwise(order):
        own = min(len(rows[a]), len(rows[b])) - everywhere
        is_new = common([rows[a], rows[b]]) - everywhere < share * own
        units[b] = units[a] + int(is_new)
    return units


def _run(
    state: Prefix,
    levels: Sequence[_Level],
    rows: Sequence[Ids],
    at: dict[int, tuple[int, int]],
    out: list[Tensor | None],
    leaf: Leaf,
) -> None:
    """Read the next level, lines of similar length together, and what follows each of them.

    Args:
        at:   row -> (its line of `state`, tokens of it that have been read).
        out:  final hidden state of every row, filled in.
        leaf: see `read_rows`.
    """
    level, rest = levels[0], levels[1:]
    leaders: dict[Hashable, int] = {}  # line -> its first row
    for i in at:
        leaders.setdefault(level.keys[i], i)
    widths = {key: level.cuts[i] - at[i][1] for key, i in leaders.items()}
    groups = _similar(widths, tokens_per_pass(state.model))
    for keys in parts(groups, work=[sum(widths[key] for key in keys) + 1.0 for keys in groups]):
        firsts = [leaders[key] for key in keys]
        child = state.fork([at[i][0] for i in firsts])
        last = child.extend([rows[i][at[i][1] : level.cuts[i]] for i in firsts])
        line = {key: k for k, key in enumerate(keys)}
        mine = {i: (line[level.keys[i]], level.cuts[i]) for i in at if level.keys[i] in line}
        if rest:
            _run(child, rest, rows, mine, out, leaf)
        else:
            leaf(child, [(i, k) for i, (k, _) in mine.items()])
            for i, (k, _) in mine.items():
                out[i] = last[k]


def _similar(widths: dict[Hashable, int], n_tokens: int) -> list[list[Hashable]]:
    """Lines in groups whose widths differ by less than half of the widest, or by 8 tokens, `n_tokens` at most."""
    groups: list[list[Hashable]] = []
    for key in sorted(widths, key=lambda k: -widths[k]):
        widest = widths[groups[-1][0]] if groups else 0
        is_full = bool(groups) and (len(groups[-1]) + 1) * widest > n_tokens
        if groups and not is_full and widest - widths[key] <= max(8, widest // 2):
            groups[-1].append(key)
        else:
            groups.append([key])
    return groups


class _Level(NamedTuple):
    """Lines of one pass: rows with equal keys are one line, read up to token `cuts[row]`."""

    keys: list[Hashable]
    cuts: list[int]


def _levels(rows: Sequence[Ids], units: Sequence[Hashable]) -> list[_Level]:
    """All rows; units; in a unit, rows with the same next token; each row by itself, to its end."""
    levels = [_level(rows, [0] * len(rows), [0] * len(rows))]
    levels.append(_level(rows, list(units), levels[-1].cuts))
    goes_on = [(unit, ids[cut]) for unit, ids, cut in zip(units, rows, levels[-1].cuts, strict=True)]
    levels.append(_level(rows, goes_on, levels[-1].cuts))
    return [*levels, _Level(list(range(len(rows))), [len(ids) for ids in rows])]


def _level(rows: Sequence[Ids], keys: list[Any], before: Sequence[int]) -> _Level:
    """Cuts at the common beginning of the rows of a key; a row alone waits for its own pass."""
    members: dict[Hashable, list[Ids]] = {}
    for ids, key in zip(rows, keys, strict=True):
        members.setdefault(key, []).append(ids)
    shared = {key: common(some) if len(some) > 1 else 0 for key, some in members.items()}
    return _Level(keys, [max(cut, shared[key]) for key, cut in zip(keys, before, strict=True)])


def common(rows: Sequence[Ids]) -> int:
    """Length of the longest common prefix, excluding the last token of the shortest row."""
    first, last = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


class Prefix:
    """Keys and values of the lines that have been read so far, with a mask of their real columns."""

    def __init__(self, model: Model, cache: Any, mask: Tensor, lengths: Tensor) -> None:
        self.model, self.cache, self.mask, self.lengths = model, cache, mask, lengths

    @classmethod
    def empty(cls, model: Model) -> Prefix:
        """One line of no tokens."""
        from transformers import DynamicCache

        ones = torch.ones(1, 0, dtype=torch.long, device=model.device)
        return cls(model, DynamicCache(config=model.layout.config), ones, ones.sum(dim=1))

    def fork(self, lines: Sequence[int]) -> Prefix:
        """The given lines, in that order and with repeats; this prefix is not changed."""
        at, cache = torch.tensor(lines, device=self.model.device), copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]  # growing replaces tensors, never edits them
        if self.mask.shape[1]:
            cache.batch_select_indices(at)
        return Prefix(self.model, cache, self.mask[at], self.lengths[at])

    def extend(self, rows: Sequence[Ids]) -> Float[Tensor, "row d_model"]:
        """Append tokens to every line, and return the final hidden state of the last of each.

        A line without new tokens is not changed; its returned state is undefined.
        """
        device, width = self.model.device, max(map(len, rows))
        if width == 0:
            return torch.zeros(len(rows), self.model.d_model, device=device)
        ids = torch.full((len(rows), width), self.model.pad_id, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        added = torch.tensor([len(row) for row in rows], device=device)
        steps = torch.arange(width, device=device)
        is_token = steps < added[:, None]
        self.mask = torch.cat([self.mask, is_token.long()], dim=1)
        decoder: Any = self.model.decoder
        out = decoder(
            input_ids=ids.to(device),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            position_ids=(self.lengths[:, None] + steps) * is_token,
        )
        self.lengths = self.lengths + added
        return out.last_hidden_state[torch.arange(len(rows), device=device), (added - 1).clamp(min=0)]
