"""Log-probabilities of a task's labels: whole strings, or one token each from one forward per item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp import rope
from interp.evaluate.prefix import (
    Ids,
    can_share,
    is_hooked,
    is_worth_sharing,
    shared_logp,
    shared_prefix_logp,
    tokens_per_pass,
)
from interp.evaluate.writing import Written
from interp.hooks import record
from interp.model import Model
from interp.progress import stage
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
    finals: Sequence[Tensor | None] | None = None,
) -> list[dict[str, float]]:
    """log p of every label of every item from the next-token distribution alone: one forward per item.

        log p(label) = logsumexp over its spellings that are one token of log softmax(logits at the last token)   nats

    Args:
        asked: (token ids up to the label, labels).
        spellings: label -> strings that count as it; those of several tokens are left out.
        units: items with equal keys have a common beginning, which is computed once if the model allows it.
        finals: final hidden state of each item's last token where it is known, so that no forward is needed.
    Raises:
        ValueError: a label none of whose spellings is one token, or two labels that share one.
    """
    tokens = spelling_tokens(model, sorted({label for _, labels in asked for label in labels}), spellings)
    rows = [ids for ids, _ in asked]
    logp = _logp_after(model, rows, finals or [None] * len(rows), units)
    return [
        {label: float(logp[row, tokens[label]].logsumexp(-1)) for label in labels}
        for row, (_, labels) in enumerate(asked)
    ]


def _logp_after(
    model: Model, rows: Sequence[Ids], finals: Sequence[Tensor | None], units: Sequence[Hashable] | None
) -> Float[Tensor, "row vocab"]:
    """Log softmax of the logits after each row: of its final state if that is known, else of a forward."""
    parts: dict[int, Tensor] = {}
    if known := {k: final for k, final in enumerate(finals) if final is not None}:
        parts |= zip(known, model.unembed(torch.stack([*known.values()])).float().log_softmax(-1), strict=True)
    if rest := [k for k in range(len(rows)) if k not in known]:
        some, keys = [rows[k] for k in rest], None if units is None else [units[k] for k in rest]
        share = keys is not None and len(set(keys)) < len(some) and can_share(model) and not is_hooked(model)
        logp = shared_prefix_logp(model, some, keys) if share and keys else next_token_logp(model, some)
        parts |= zip(rest, logp, strict=True)
    return torch.stack([parts[k] for k in range(len(rows))])


@torch.no_grad()
def next_token_logp(model: Model, rows: Sequence[tuple[int, ...]]) -> Float[Tensor, "row vocab"]:
    """Log softmax in float32 of the logits after each row of token ids; equal rows are computed once."""
    order = list(dict.fromkeys(rows))
    logp = _plain_logp(model, {ids: {len(ids) - 1} for ids in order})
    return torch.stack([logp[ids, len(ids) - 1] for ids in rows])


def _plain_logp(model: Model, places: Mapping[Ids, Collection[int]]) -> dict[tuple[Ids, int], Tensor]:
    """(text, place) -> log softmax in float32 of the logits after the token at this place; texts of similar length run
    together."""
    order, logp = sorted(places, key=len), {}
    n, n_done = len(order), 0
    while order:
        sizes = (len(ids) * (k + 1) for k, ids in enumerate(order))  # with padding
        some = order[: max(1, sum(size <= tokens_per_pass(model) for size in sizes))]
        ends = [sorted(places[ids]) for ids in some]
        with stage(n_done / n, (n_done + len(some)) / n), record(model, ["logits"], positions=ends) as acts:
            model(some)
        n_done += len(some)
        rows = acts["logits"].float().log_softmax(-1)
        logp |= {(some[item], token): row for (item, token), row in zip(acts.rows or [], rows, strict=True)}
        order = order[len(some) :]
    return logp


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
    model: Model,
    cases: Sequence[tuple[Example, str, str]],
    *,
    thinking: bool | None = None,
    delimiter: str = " ",
    written: Sequence[Written | None] | None = None,
) -> list[tuple[float, int]]:
    """log p(label | prompt, text before it) of whole label strings.

        log p = sum_j log softmax(logits at the token before label token j)[label token j]      nats, in float32

    Args:
        cases: (example, assistant text before the label, label); the text follows `example.answer`, if any, and
            the label follows after `delimiter` if any text precedes it, also a raw prompt; see
            `interp.prompt.joined`.
        written: the reply that each case is read in, if the model has just written it: tokens that it read while it
            wrote are not read again.
    Returns:
        (log-probability, number of label tokens) per case. Cases that share their context share one row.
    Raises:
        ValueError: a label without tokens of its own, or a text longer than the context, named with its example.
    """
    requested = [_label_tokens(model, example, before, label, thinking, delimiter) for example, before, label in cases]
    finals = _finals_of(cases, requested, written or [None] * len(cases))
    texts = {text: None for ids, start in requested for text in _contexts(ids, start)}
    logp: dict[Ids, Tensor] = {}
    if known := [text for text in texts if text in finals]:
        scores = model.unembed(torch.stack([finals[text] for text in known])).float().log_softmax(-1)
        logp |= zip(known, scores, strict=True)
    if rest := [(ids, start) for ids, start in requested if not logp.keys() >= set(_contexts(ids, start))]:
        logp |= _logp_of_contexts(model, rest)
    return [
        (float(sum(logp[text][ids[len(text)]] for text in _contexts(ids, start))), len(ids) - start)
        for ids, start in requested
    ]


def _contexts(ids: Ids, start: int) -> list[Ids]:
    """The text before each token of a label that begins at `start`."""
    return [ids[:j] for j in range(start, len(ids))]


def _finals_of(
    cases: Sequence[tuple[Example, str, str]], requested: Sequence[tuple[Ids, int]], written: Sequence[Written | None]
) -> dict[Ids, Tensor]:
    """Final hidden states before each label token, of the places where the model read all labels while it wrote.

    All or none of a place: in half precision, two engines would differ by more than two labels of one forward.
    """
    found: dict[tuple[str, str], dict[Ids, Tensor | None]] = {}
    for (example, before, _), (ids, start), one in zip(cases, requested, written, strict=True):
        states = found.setdefault((example.id, before), {})
        states |= {text: one and one.final_after(text) for text in _contexts(ids, start)}
    places = [states for states in found.values() if all(state is not None for state in states.values())]
    return {text: state for states in places for text, state in states.items() if state is not None}


@torch.no_grad()
def _logp_of_contexts(model: Model, requested: Sequence[tuple[Ids, int]]) -> dict[Ids, Tensor]:
    """Text -> log softmax of the logits after it, for the text before each label token; what texts share is read once
    if the model allows it."""
    texts = list(dict.fromkeys(text for ids, start in requested for text in _contexts(ids, start)))
    if can_share(model) and not is_hooked(model) and min(map(len, texts)) > 1 and is_worth_sharing(texts):
        return dict(zip(texts, shared_logp(model, texts), strict=True))
    places: dict[Ids, set[int]] = {}
    for ids, start in requested:
        places.setdefault(ids[:-1], set()).update(range(start - 1, len(ids) - 1))
    return {ids[: at + 1]: logp for (ids, at), logp in _plain_logp(model, places).items()}


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
            "probability of its own. End the prompt with a line break or a space."
        )
    return prompt.ids[:stop], start
