"""Activations for an oracle: from the base, from adapters and from their differences, in one pass of mixed rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interp.adapters.rows import adapter_rows, rows_can_differ
from interp.hooks import record
from interp.model import Model
from interp.oracle.features import Features, Slot
from interp.positions import Positions, SentenceEnds, parse_positions
from interp.prompt import Example, Prompt, render
from interp.sentences import sentence_records
from interp.site import layer_index

BASE = "base"
TOKENS_PER_BATCH = 16_384
MAX_DRIFT = 0.05  # rounding of bfloat16 stays below 1 %; another adapter's activations are far beyond
Per = Literal["example", "token"] | int


@dataclass(frozen=True)
class Wanted:
    """One reading before its vectors: an example cut after its last chosen token, and the tokens."""

    item: str
    example: Example
    prompt: Prompt
    tokens: tuple[int, ...]
    position: str
    sentences: Mapping[int, int] = field(default_factory=dict)


def collect(
    model: Model | nn.Module,
    examples: Sequence[Example],
    *,
    layers: Sequence[int | str] = ("50%",),
    positions: str | Positions = "last",
    per: Per = "example",
    sources: Sequence[str] = (BASE,),
    group: str | None = None,
    thinking: bool | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> dict[str, Features]:
    """Residual-stream activations of examples as an oracle reads them, per source, with the same readings in each.

        collect(model, examples, layers=["50%"], positions="sentence_ends", per="token",
                sources=["base", "engaged", "heuristic", "engaged - heuristic"])

    Every source that is needed is one row of the same batch (adapters row by row where they are plain LoRA), texts are
    run up to their last chosen token and only to the highest layer. Vectors stay in the model's dtype; a difference is
    taken in float32 and rounded to it. What no row names is off, an oracle's own adapter too.

    Args:
        layers: block indices or percents of depth.
        positions: one rule, see `interp.positions`.
        per: one reading per "example", per "token", or per run of that many consecutive chosen tokens.
        sources: "base", a role of `model.adapters`, or "a - b" of two of these.
        group: key of `Example.groups` that names the problem; default: the example itself.
        thinking: given to the chat template of the text that is read.
        tokens_per_batch: of all rows of a pass together.
    Raises:
        ValueError: unknown sources or layers, several position rules, a rule that an example cannot resolve.
    """
    model = Model.wrap(model)
    (rule,) = _one(parse_positions(positions))
    at = tuple(layer_index(layer, model.n_layers) for layer in layers)
    terms = {source: _terms(model, source) for source in sources}
    wanted = [w for example in examples for w in readings(model, example, rule, per, thinking=thinking)]
    roles = list(dict.fromkeys(role for pair in terms.values() for role in pair))
    if len(roles) > 1 and rows_can_differ(model, roles):
        _check_rows(model, min(wanted, key=lambda w: max(w.tokens)), roles, at)
    taken = take(model, wanted, roles, at, tokens_per_batch)
    return {
        source: features_of(
            wanted, _subtract(taken, pair), at, source=source, group=group, provenance=_about(model, rule)
        )
        for source, pair in terms.items()
    }


def readings(
    model: Model, example: Example, rule: Positions, per: Per, *, thinking: bool | None = None
) -> Iterator[Wanted]:
    """The readings of one example under one position rule."""
    prompt = render(example, model.tokenizer, thinking=thinking)
    tokens = rule.resolve(prompt)
    sentences = {}
    if isinstance(rule, SentenceEnds):
        span = rule.span or ("answer" if "answer" in prompt.spans else "prompt")
        records = sentence_records(prompt, span=span, style=rule.style)
        sentences = {record.boundary: record.index for record in records}
    for name, chosen in runs(example.id, tokens, per):
        run = tuple(tokens[i] for i in chosen)
        yield Wanted(name, example, prompt, run, rule.name, {t: sentences[t] for t in run if t in sentences})


def features_of(
    wanted: Sequence[Wanted],
    vectors: Sequence[Tensor],
    layers: Sequence[int],
    *,
    source: str,
    group: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Features:
    """Features of readings whose vectors are [layer, token, d_model] each."""
    slots = tuple(
        Slot(w.item, layer, token, w.prompt.tokens[token], w.sentences.get(token), w.position, source)
        for w in wanted
        for layer in layers
        for token in w.tokens
    )
    for w in wanted:
        if group is not None and group not in w.example.groups:
            raise ValueError(f"example {w.example.id!r} has no group {group!r}; its groups: {list(w.example.groups)}.")
    return Features(
        torch.cat([v.flatten(0, 1) for v in vectors]),
        slots,
        groups={w.item: w.example.groups[group] if group else w.example.id for w in wanted},
        texts={w.item: w.prompt.text[: w.prompt.offsets[max(w.tokens)][1]] for w in wanted},
        provenance={**(provenance or {}), "source": source, "layers": list(layers)},
    )


def _one(rules: list[Positions]) -> list[Positions]:
    if len(rules) != 1:
        raise ValueError(f"an oracle reads one position rule at a time, got {', '.join(r.name for r in rules)}.")
    return rules


def runs(example_id: str, tokens: Sequence[int], per: Per) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, places in `tokens`) of the readings of one example."""
    n = len(tokens)
    if per == "example":
        yield example_id, tuple(range(n))
        return
    size = 1 if per == "token" else per
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"per: expected 'example', 'token' or a count of at least 1, got {per!r}.")
    for start in range(0, n, size):
        run = tuple(range(start, min(start + size, n)))
        if len(run) == size or start == 0:  # a shorter tail would be another kind of reading than the rest
            yield f"{example_id}@{tokens[run[0]]}" + (f"-{tokens[run[-1]]}" if len(run) > 1 else ""), run


def _terms(model: Model, source: str) -> tuple[str | None, ...]:
    """Roles of a source: one, or minuend and subtrahend of a difference."""
    parts = [source] if source in model.adapters.names else [part.strip() for part in source.split(" - ")]
    known = (BASE, *model.adapters.names)
    for part in parts:
        if part not in known or len(parts) > 2:
            raise ValueError(f"source {source!r}: expected one of {', '.join(known)}, or a difference 'a - b' of two.")
    return tuple(None if part == BASE and BASE not in model.adapters.names else part for part in parts)


def take(
    model: Model, wanted: Sequence[Wanted], roles: list[str | None], layers: Sequence[int], budget: int
) -> dict[str | None, list[Tensor]]:
    """role -> per reading [layer, token, d_model]; every text once per role, however many readings it has."""
    texts: dict[tuple[int, ...], list[int]] = {}
    for number, w in enumerate(wanted):
        texts.setdefault(w.prompt.ids, []).append(number)
    ends = {ids: max(max(wanted[n].tokens) for n in of) + 1 for ids, of in texts.items()}
    order = sorted(texts, key=lambda ids: -ends[ids])
    out: dict[str | None, list[Tensor]] = {role: [torch.empty(0)] * len(wanted) for role in roles}
    mixed = len(roles) > 1 and rows_can_differ(model, roles)
    while order:
        size = max(1, budget // (ends[order[0]] * (len(roles) if mixed else 1)))
        batch, order = order[:size], order[size:]
        for group in [roles] if mixed else [[role] for role in roles]:
            _take(model, batch, ends, texts, wanted, group, layers, out)
    return out


@torch.no_grad()
def _take(model: Model, batch: Any, ends: Any, texts: Any, wanted: Any, roles: Any, layers: Any, out: Any) -> None:
    """One pass: rows are role-major, so that each adapter's rows stand together."""
    sites = [f"resid_post.{layer}" for layer in layers]
    ids = [tokens[: ends[tokens]] for _ in roles for tokens in batch]
    chosen = [sorted({t for n in texts[tokens] for t in wanted[n].tokens}) for tokens in batch]
    with (
        _active(model, [role for role in roles for _ in batch]),
        model.layout.rope.of_texts([len(tokens) for _ in roles for tokens in batch]),
        record(model, sites, positions=chosen * len(roles)) as got,
    ):
        model(ids)
    row = {label: i for i, label in enumerate(got.rows or [])}
    acts = torch.stack([got[site] for site in sites])
    for r, role in enumerate(roles):
        for b, tokens in enumerate(batch):
            for n in texts[tokens]:
                at = [row[r * len(batch) + b, t] for t in wanted[n].tokens]
                out[role][n] = acts[:, at]


@contextmanager
def _active(model: Model, rows: Sequence[str | None]) -> Iterator[None]:
    """The adapters of a pass; with one role for all rows the plain switch, which works for every kind of adapter."""
    if len(set(rows)) > 1:
        with adapter_rows(model, rows):
            yield
    else:
        with model.adapters.use(rows[0]):
            yield


def _check_rows(model: Model, shortest: Wanted, roles: list[str | None], layers: Sequence[int]) -> None:
    """One text once in mixed rows and once adapter by adapter: an adapter that leaks into another's row shows here."""
    mixed = take(model, [shortest], roles, layers, TOKENS_PER_BATCH)
    for role in roles:
        (alone,) = take(model, [shortest], [role], layers, TOKENS_PER_BATCH)[role]
        (beside,) = mixed[role]
        error = float((alone.float() - beside.float()).norm() / alone.float().norm())
        if not error <= MAX_DRIFT:
            raise RuntimeError(
                f"collect: activations of {role or BASE!r} differ by {error:.1%} between mixed rows and a pass of its "
                f"own; per-row adapters do not work for this model. Collect the sources one by one."
            )


def _subtract(taken: Mapping[str | None, list[Tensor]], pair: tuple[str | None, ...]) -> list[Tensor]:
    if len(pair) == 1:
        return taken[pair[0]]
    both = zip(taken[pair[0]], taken[pair[1]], strict=True)
    return [(a.float() - b.float()).to(a.dtype) for a, b in both]


def _about(model: Model, rule: Positions) -> dict[str, Any]:
    return {"model": model.name, "dtype": str(model.dtype).removeprefix("torch."), "positions": rule.name}
