"""Log-probabilities of a task's labels: whole strings, or one token each from one forward per item."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp import rope
from interp.hooks import record
from interp.model import Model
from interp.prompt import Example, joined, render
from interp.shared_prefix import can_share, shared_prefix_logp


def context_length(model: Model) -> int | None:
    """Positions that the model was made for; None where its configuration does not say."""
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
        spellings: label -> strings that count as it; those that the tokenizer splits are left out.
        units: items with equal keys begin alike; what they share is computed once where the model allows it.
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
    tokens = {label: sorted({ids[0] for ids in found if len(ids) == 1}) for label, found in encoded.items()}
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
        cases: (example, assistant text before the label, label); the text follows `example.answer` where there is one,
            and the label follows after `delimiter` where any text precedes it, a raw prompt too; see
            `interp.prompt.joined`.
    Returns:
        (log-probability, number of label tokens) per case. Cases that share their context share one row.
    Raises:
        ValueError: a label without tokens of its own, or a text longer than the context, named with its example.
    """
    wanted = [_label_tokens(model, example, before, label, thinking, delimiter) for example, before, label in cases]
    rows: dict[tuple[int, ...], set[int]] = {}
    for ids, start in wanted:
        rows.setdefault(ids[:-1], set()).update(range(start - 1, len(ids) - 1))
    order = list(rows)
    positions = [sorted(rows[ids]) for ids in order]
    with record(model, ["logits"], positions=positions) as acts:
        model(order)
    logp = acts["logits"].float().log_softmax(-1)
    at = {(order[item], token): row for row, (item, token) in enumerate(acts.rows or [])}
    return [(_sum(logp, at, ids, start), len(ids) - start) for ids, start in wanted]


def _sum(logp: Tensor, at: Mapping[tuple[tuple[int, ...], int], int], ids: tuple[int, ...], start: int) -> float:
    return float(sum(logp[at[ids[:-1], j - 1], ids[j]] for j in range(start, len(ids))))


def _label_tokens(
    model: Model, example: Example, before: str, label: str, thinking: bool | None, delimiter: str
) -> tuple[tuple[int, ...], int]:
    """(token ids up to the end of the label, index of its first token)."""
    text = joined(example, before, label, delimiter)
    whole = render(replace(example, answer=text), model.tokenizer, thinking=thinking, max_length=context_length(model))
    at = whole.text.rindex(label)
    start = next(i for i, (_, end) in enumerate(whole.offsets) if end > at)
    stop = next(i for i in range(len(whole.ids) - 1, -1, -1) if whole.offsets[i][0] < at + len(label)) + 1
    if start == 0 or whole.offsets[start][0] < at - 1:
        raise ValueError(
            f"example {example.id!r}: the tokenizer joins label {label!r} with the text before it, so it has no "
            f"probability of its own. End the prompt with a line break or a blank."
        )
    return whole.ids[:stop], start
