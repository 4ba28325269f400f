"""Log-probabilities of a task's labels: whole strings, or one token each from one forward per item."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp import rope
from interp.hooks import record
from interp.model import Model
from interp.prompt import Example, joined, render


def context_length(model: Model) -> int | None:
    """The model's context length in tokens; None if its configuration does not say."""
    return rope.context_length(model.layout.config)


def letter_scores(
    model: Model,
    asked: Sequence[tuple[tuple[int, ...], Sequence[str]]],
    spellings: Callable[[str], Sequence[str]],
    *,
    units: Sequence[Hashable] | None = None,
) -> list[dict[str, float]]:
    """log p of every label of every item from the next-token distribution alone: one forward per item.

        log p(label) = logsumexp over its spellings that are one token of log softmax(logits at the last token)   nats

    Args:
        asked: (token ids up to the label, labels).
        spellings: label -> strings that count as it; those of several tokens are left out.
        units: items with equal keys have a common beginning, which is computed once if the model allows it.
    Raises:
        ValueError: a label none of whose spellings is one token, or two labels that share one.
    """
    tokens = spelling_tokens(model, sorted({label for _, labels in asked for label in labels}), spellings)
    rows = [ids for ids, _ in asked]
    share = units is not None and len(set(units)) < len(rows) and can_share(model)
    logp = shared_prefix_logp(model, rows, units) if share and units else next_token_logp(model, rows)
    return [
        {label: float(logp[row, tokens[label]].logsumexp(-1)) for label in labels}
        for row, (_, labels) in enumerate(asked)
    ]


@torch.no_grad()
def next_token_logp(model: Model, rows: Sequence[tuple[int, ...]]) -> Float[Tensor, "row vocab"]:
    """Log softmax in float32 of the logits after each row of token ids; equal rows are computed once."""
    order = list(dict.fromkeys(rows))
    with record(model, ["logits"], positions=[[len(ids) - 1] for ids in order]) as acts:
        model(order)
    logp = acts["logits"].float().log_softmax(-1)
    at = {order[item]: row for row, (item, _) in enumerate(acts.rows or [])}
    return logp[[at[ids] for ids in rows]]


def spelling_tokens(
    model: Model, labels: Sequence[str], spellings: Callable[[str], Sequence[str]]
) -> dict[str, list[int]]:
    """The one-token spellings of each label, as tokens.

    Raises:
        ValueError: a label none of whose spellings is one token, or two labels that share one.
    """
    encoded = {
        label: [model.tokenizer.encode(s, add_special_tokens=False) for s in spellings(label)] for label in labels
    }
    tokens = {label: sorted({ids[0] for ids in spelled if len(ids) == 1}) for label, spelled in encoded.items()}
    for label, ids in tokens.items():
        if not ids:
            what = (
                f"label {label!r}: the tokenizer splits each of {', '.join(map(repr, spellings(label)))}, so the label "
            )
            raise ValueError(
                what + "has no one-token spelling. Name others in the task's `spellings`, or leave it out."
            )
    if len({t for ids in tokens.values() for t in ids}) != sum(map(len, tokens.values())):
        raise ValueError(f"labels {', '.join(labels)}: two of them share a one-token spelling. Give each its own.")
    return tokens


def label_log_probabilities(
    model: Model, cases: Sequence[tuple[Example, str, str]], *, thinking: bool | None = None, delimiter: str = " "
) -> list[tuple[float, int]]:
    """log p(label | prompt, text before it) of whole label strings.

        log p = sum_j log softmax(logits at the token before label token j)[label token j]      nats, in float32

    Args:
        cases: (example, assistant text before the label, label); the text follows `example.answer`, if any, and
            the label follows after `delimiter` if any text precedes it, also a raw prompt; see
            `interp.prompt.joined`.
    Returns:
        (log-probability, number of label tokens) per case. Cases that share their context share one row.
    Raises:
        ValueError: a label without tokens of its own, or a text longer than the context, named with its example.
    """
    requested = [_label_tokens(model, example, before, label, thinking, delimiter) for example, before, label in cases]
    rows: dict[tuple[int, ...], set[int]] = {}
    for ids, start in requested:
        rows.setdefault(ids[:-1], set()).update(range(start - 1, len(ids) - 1))
    order = list(rows)
    positions = [sorted(rows[ids]) for ids in order]
    with record(model, ["logits"], positions=positions) as acts:
        model(order)
    logp = acts["logits"].float().log_softmax(-1)
    at = {(order[item], token): row for row, (item, token) in enumerate(acts.rows or [])}
    return [(_sum(logp, at, ids, start), len(ids) - start) for ids, start in requested]


def _sum(logp: Tensor, at: Mapping[tuple[tuple[int, ...], int], int], ids: tuple[int, ...], start: int) -> float:
    return float(sum(logp[at[ids[:-1], j - 1], ids[j]] for j in range(start, len(ids))))


def _label_tokens(
    model: Model, example: Example, before: str, label: str, thinking: bool | None, delimiter: str
) -> tuple[tuple[int, ...], int]:
    """(token ids up to the end of the label, index of its first token)."""
    text = joined(example, before, label, delimiter)
    prompt = render(replace(example, answer=text), model.tokenizer, thinking=thinking, max_length=context_length(model))
    at = prompt.text.rindex(label)
    start = next(i for i, (_, end) in enumerate(prompt.offsets) if end > at)
    stop = next(i for i in range(len(prompt.ids) - 1, -1, -1) if prompt.offsets[i][0] < at + len(label)) + 1
    if start == 0 or prompt.offsets[start][0] < at - 1:
        raise ValueError(
            f"example {example.id!r}: the tokenizer joins label {label!r} with the text before it, so it has no "
            f"probability of its own. End the prompt with a line break or a blank."
        )
    return prompt.ids[:stop], start


Ids = tuple[int, ...]


def can_share(model: Model) -> bool:
    """Whether every layer keeps plain keys and values: no window that drops them, no recurrent state to fork, no rope
    in which the keys of a prefix depend on the length of the rest."""
    return all(layer.kind == "full_attention" for layer in model.layout.layers) and not model.layout.rope.varies


def why_not_shared(model: Model) -> str:
    """Why a model cannot share a prefix, in terms of its configuration; "" if it can."""
    if model.layout.rope.varies:
        return f"rope_type {', '.join(sorted(model.layout.rope.types))} depends on the length of the text"
    kinds = sorted({layer.kind for layer in model.layout.layers} - {"full_attention"})
    return f"layers of kind {', '.join(kinds)}" if kinds else ""


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
        raise ValueError(f"a shared prefix needs full attention in every layer, got {why_not_shared(model)}.")
    if len(units) != len(rows):
        raise ValueError(f"units: expected one key per row ({len(rows)}), got {len(units)}.")
    if min(map(len, rows)) < 2:
        raise ValueError("rows: expected at least 2 tokens each, got a row with fewer. Use next_token_logp.")
    finals: list[Tensor | None] = [None] * len(rows)
    _run(_Prefix.empty(model), _levels(rows, units), rows, dict.fromkeys(range(len(rows)), (0, 0)), finals)
    return model.unembed(torch.stack([row for row in finals if row is not None])).float().log_softmax(-1)


def _run(
    state: _Prefix,
    levels: Sequence[_Level],
    rows: Sequence[Ids],
    at: dict[int, tuple[int, int]],
    out: list[Tensor | None],
) -> None:
    """Read the next level, lines of similar length together, and what follows each of them.

    Args:
        at:  row -> (its line of `state`, tokens of it that have been read).
        out: final hidden state of every row, filled in.
    """
    level, rest = levels[0], levels[1:]
    leaders: dict[Hashable, int] = {}  # line -> its first row
    for i in at:
        leaders.setdefault(level.keys[i], i)
    for keys in _similar({key: level.cuts[i] - at[i][1] for key, i in leaders.items()}):
        firsts = [leaders[key] for key in keys]
        child = state.fork([at[i][0] for i in firsts])
        last = child.extend([rows[i][at[i][1] : level.cuts[i]] for i in firsts])
        line = {key: k for k, key in enumerate(keys)}
        mine = {i: (line[level.keys[i]], level.cuts[i]) for i in at if level.keys[i] in line}
        if rest:
            _run(child, rest, rows, mine, out)
        else:
            for i, (k, _) in mine.items():
                out[i] = last[k]


def _similar(widths: dict[Hashable, int]) -> list[list[Hashable]]:
    """Lines in groups whose widths differ by less than half of the widest, or by 8 tokens."""
    groups: list[list[Hashable]] = []
    for key in sorted(widths, key=lambda k: -widths[k]):
        widest = widths[groups[-1][0]] if groups else 0
        if groups and widest - widths[key] <= max(8, widest // 2):
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
    """Length of the longest common beginning, short of the last token of the shortest row."""
    first, last = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


class _Prefix:
    """Keys and values of the lines that have been read so far, with a mask of their real columns."""

    def __init__(self, model: Model, cache: Any, mask: Tensor, lengths: Tensor) -> None:
        self.model, self.cache, self.mask, self.lengths = model, cache, mask, lengths

    @classmethod
    def empty(cls, model: Model) -> _Prefix:
        """One line of no tokens."""
        from transformers import DynamicCache

        ones = torch.ones(1, 0, dtype=torch.long, device=model.device)
        return cls(model, DynamicCache(config=model.layout.config), ones, ones.sum(dim=1))

    def fork(self, lines: Sequence[int]) -> _Prefix:
        """The given lines, in that order and with repeats; this prefix is not changed."""
        at, cache = torch.tensor(lines, device=self.model.device), copy.deepcopy(self.cache)
        if self.mask.shape[1]:
            cache.batch_select_indices(at)
        return _Prefix(self.model, cache, self.mask[at], self.lengths[at])

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
