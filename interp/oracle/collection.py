"""Activations for an oracle: from models (base, adapters and their differences, in one pass) or an activation cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from interp.adapters.rows import adapter_rows, rows_can_differ
from interp.cache.activation_cache import ActivationCache
from interp.hooks import record
from interp.model import Model
from interp.oracle.features import Features, Slot
from interp.positions import Positions, SentenceEnds, parse_positions
from interp.progress import reached, track
from interp.prompt import Example, Prompt, render
from interp.sentences import sentence_records
from interp.site import Site, layer_index

BASE = "base"
TOKENS_PER_BATCH = 16_384
MAX_DRIFT = 0.05  # relative; bfloat16 rounding stays below 1 %, another adapter differs by far more
Per = Literal["example", "token"] | int


@dataclass(frozen=True)
class Reading:
    """Where one reading is taken: an example, its prompt, and the chosen tokens."""

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

    All adapters run in the same batch, row by row, if they are plain LoRA. Texts are cut after their last chosen token,
    and the pass ends at the highest layer. Vectors keep the model's dtype; a difference is taken in float32 and rounded
    to it. Adapters that no source names are off, the oracle's own too.

    Args:
        layers: block indices or percents of depth.
        positions: one rule, see `interp.positions`.
        per: one reading per "example", per "token", or per run of that many consecutive chosen tokens.
        sources: "base", a role of `model.adapters`, or "a - b" of two of these.
        group: key of `Example.groups` that names the problem; default: the example itself.
        thinking: given to the chat template of the text that is read.
        tokens_per_batch: most tokens of a pass, over all its rows.
    Raises:
        ValueError: unknown source or layer, several position rules, or a rule that an example cannot resolve.
    """
    model = Model.wrap(model)
    (rule,) = _one(parse_positions(positions))
    at = tuple(layer_index(layer, model.n_layers) for layer in layers)
    terms = {source: _terms(model, source) for source in sources}
    readings = [
        reading for example in examples for reading in readings_of(model, example, rule, per, thinking=thinking)
    ]
    roles = list(dict.fromkeys(role for pair in terms.values() for role in pair))
    if len(roles) > 1 and rows_can_differ(model, roles):
        _check_rows(model, min(readings, key=lambda reading: max(reading.tokens)), roles, at)
    with track("activations", 1, unit="collections") as bar, bar.step():
        taken = read_activations(model, readings, roles, at, tokens_per_batch)
    return {
        source: features_of(
            readings, _subtract(taken, pair), at, source=source, group=group, provenance=_about(model, rule)
        )
        for source, pair in terms.items()
    }


def readings_of(
    model: Model, example: Example, rule: Positions, per: Per, *, thinking: bool | None = None
) -> Iterator[Reading]:
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
        yield Reading(name, example, prompt, run, rule.name, {t: sentences[t] for t in run if t in sentences})


def features_of(
    readings: Sequence[Reading],
    vectors: Sequence[Tensor],
    layers: Sequence[int],
    *,
    source: str,
    group: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Features:
    """Features of readings whose vectors are [layer, token, d_model] each."""
    slots = tuple(
        Slot(
            reading.item,
            layer,
            token,
            reading.prompt.tokens[token],
            reading.sentences.get(token),
            reading.position,
            source,
        )
        for reading in readings
        for layer in layers
        for token in reading.tokens
    )
    for reading in readings:
        if group is not None and group not in reading.example.groups:
            raise ValueError(
                f"example {reading.example.id!r} has no group {group!r}; its groups: {list(reading.example.groups)}."
            )
    return Features(
        torch.cat([v.flatten(0, 1) for v in vectors]),
        slots,
        groups={reading.item: reading.example.groups[group] if group else reading.example.id for reading in readings},
        texts={
            reading.item: reading.prompt.text[: reading.prompt.offsets[max(reading.tokens)][1]] for reading in readings
        },
        provenance={**(provenance or {}), "source": source, "layers": list(layers)},
    )


def _one(rules: list[Positions]) -> list[Positions]:
    if len(rules) != 1:
        raise ValueError(
            f"positions: an oracle uses one position rule at a time, got {', '.join(r.name for r in rules)}."
        )
    return rules


def runs(example_id: str, tokens: Sequence[int], per: Per) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, indices into `tokens`) of the readings of one example."""
    n = len(tokens)
    if per == "example":
        yield example_id, tuple(range(n))
        return
    size = 1 if per == "token" else per
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"per: expected 'example', 'token' or a count of at least 1, got {per!r}.")
    for start in range(0, n, size):
        run = tuple(range(start, min(start + size, n)))
        if len(run) == size or start == 0:  # a shorter last run would have no partner of its length among the controls
            yield f"{example_id}@{tokens[run[0]]}" + (f"-{tokens[run[-1]]}" if len(run) > 1 else ""), run


def _terms(model: Model, source: str) -> tuple[str | None, ...]:
    """Roles of a source: one, or the two of a difference."""
    parts = [source] if source in model.adapters.names else [part.strip() for part in source.split(" - ")]
    roles = (BASE, *model.adapters.names)
    for part in parts:
        if part not in roles or len(parts) > 2:
            raise ValueError(f"source {source!r}: expected one of {', '.join(roles)}, or a difference 'a - b' of two.")
    return tuple(None if part == BASE and BASE not in model.adapters.names else part for part in parts)


def read_activations(
    model: Model, readings: Sequence[Reading], roles: list[str | None], layers: Sequence[int], budget: int
) -> dict[str | None, list[Tensor]]:
    """role -> [layer, token, d_model] of each reading; a text runs once per role, however many readings it has."""
    texts: dict[tuple[int, ...], list[int]] = {}
    for number, reading in enumerate(readings):
        texts.setdefault(reading.prompt.ids, []).append(number)
    ends = {ids: max(max(readings[n].tokens) for n in of) + 1 for ids, of in texts.items()}
    order = sorted(texts, key=lambda ids: -ends[ids])
    out: dict[str | None, list[Tensor]] = {role: [torch.empty(0)] * len(readings) for role in roles}
    mixed = len(roles) > 1 and rows_can_differ(model, roles)
    while order:
        size = max(1, budget // (ends[order[0]] * (len(roles) if mixed else 1)))
        reached(1 - len(order) / len(texts))
        batch, order = order[:size], order[size:]
        cut = [ids[: ends[ids]] for ids in batch]
        tokens = [sorted({t for n in texts[ids] for t in readings[n].tokens}) for ids in batch]
        for group in [roles] if mixed else [[role] for role in roles]:
            acts, row = _one_pass(model, cut, tokens, group, layers)
            for (r, role), (b, ids) in product(enumerate(group), enumerate(batch)):
                for n in texts[ids]:
                    out[role][n] = acts[:, [row[r * len(batch) + b, t] for t in readings[n].tokens]]
    return out


@torch.no_grad()
def _one_pass(
    model: Model,
    texts: Sequence[tuple[int, ...]],
    tokens: Sequence[list[int]],
    roles: Sequence[str | None],
    layers: Sequence[int],
) -> tuple[Tensor, dict[tuple[int, int], int]]:
    """(activations [layer, row, d_model], row of each (item, token)); items are role-major: adapters are contiguous."""
    sites = [f"resid_post.{layer}" for layer in layers]
    with (
        _active(model, [role for role in roles for _ in texts]),
        model.layout.rope.of_texts([len(ids) for _ in roles for ids in texts]),
        record(model, sites, positions=[*tokens] * len(roles)) as recording,
    ):
        model([*texts] * len(roles))
    rows = {label: i for i, label in enumerate(recording.rows or [])}
    return torch.stack([recording[site] for site in sites]), rows


@contextmanager
def _active(model: Model, rows: Sequence[str | None]) -> Iterator[None]:
    """The adapters of a pass. A single role for all rows is set by the plain switch, which works for any adapter."""
    if len(set(rows)) > 1:
        with adapter_rows(model, rows):
            yield
    else:
        with model.adapters.use(rows[0]):
            yield


def _check_rows(model: Model, shortest: Reading, roles: list[str | None], layers: Sequence[int]) -> None:
    """Compare mixed rows with single-adapter passes on one text, to find an adapter that leaks into other rows."""
    mixed = read_activations(model, [shortest], roles, layers, TOKENS_PER_BATCH)
    for role in roles:
        (alone,) = read_activations(model, [shortest], [role], layers, TOKENS_PER_BATCH)[role]
        (in_mixed,) = mixed[role]
        error = float((alone.float() - in_mixed.float()).norm() / alone.float().norm())
        if not error <= MAX_DRIFT:  # "not <=" also catches NaN
            raise RuntimeError(
                f"collect: activations of {role or BASE!r} differ by {error:.1%} between mixed rows and a pass of one "
                f"adapter; per-row adapters do not work for this model. Collect the sources one by one."
            )


def _subtract(taken: Mapping[str | None, list[Tensor]], pair: tuple[str | None, ...]) -> list[Tensor]:
    if len(pair) == 1:
        return taken[pair[0]]
    both = zip(taken[pair[0]], taken[pair[1]], strict=True)
    return [(a.float() - b.float()).to(a.dtype) for a, b in both]


def _about(model: Model, rule: Positions) -> dict[str, Any]:
    return {"model": model.name, "dtype": str(model.dtype).removeprefix("torch."), "positions": rule.name}


def features_from_cache(
    cache: ActivationCache,
    *,
    position: str,
    layers: Sequence[int | str],
    per: Per = "example",
    group: str | None = None,
    source: str | None = None,
    n_layers: int | None = None,
) -> Features:
    """The readings of an activation cache at one position rule, in the order of its examples; runs no model.

    Args:
        position: a position rule of the cache, e.g. "sentence_ends".
        layers: block indices or percents of depth, each cached as `resid_post.<layer>`.
        per: one reading per "example", per "token", or per run of that many consecutive chosen tokens.
        group: group column that names the problem; default: the example.
        source: name of the source; default: the cache's checkpoint.
        n_layers: number of blocks of the model, needed for percents.
    Raises:
        ValueError: the cache has no such layer, rule or group.
    """
    at = tuple(_layer(layer, n_layers) for layer in layers)
    rows = cache.rows[cache.rows.position_name == position]
    if not len(rows):
        raise ValueError(f"position {position!r} is not in {cache.root}, which has: {', '.join(cache.positions)}.")
    groups = _groups(cache, group)
    ids, tokens = rows.example_id.astype(str).to_numpy(), rows.position.to_numpy()
    texts, numbers = rows.token_text.to_numpy(), rows.row.to_numpy()
    plan: list[tuple[str, str, np.ndarray]] = []
    for example in dict.fromkeys(cache.examples["id"].astype(str)):
        mine = np.flatnonzero(ids == example)
        for name, run in runs(example, [int(t) for t in tokens[mine]], per):
            plan.append((name, example, mine[list(run)]))
    order = np.concatenate([mine for _, _, mine in plan])
    per_layer = torch.stack([cache.rows_at(numbers[order], Site("resid_post", layer)) for layer in at])
    vectors, slots, start = [], [], 0
    checkpoint = cache.manifest["environment"]["checkpoint"]  # None for a module that was wrapped by hand
    origin = source or (str(checkpoint["name"]) if checkpoint else cache.root.name)
    for name, _, mine in plan:
        vectors.append(per_layer[:, start : start + len(mine)].flatten(0, 1))
        start += len(mine)
        slots += [
            Slot(name, layer, int(tokens[i]), str(texts[i]), None, position, origin) for layer in at for i in mine
        ]
    return Features(
        torch.cat(vectors),
        tuple(slots),
        groups={name: groups[example] for name, example, _ in plan},
        provenance={
            "cache": cache.plan_id,
            "source": origin,
            "layers": list(at),
            "positions": position,
            "base_sha256": cache.manifest["identity"]["model"]["weights_sha256"],
        },
    )


def _groups(cache: ActivationCache, group: str | None) -> dict[str, str]:
    table = cache.examples
    if group is None:
        return {str(i): str(i) for i in table["id"]}
    if group not in table.columns:
        raise ValueError(f"group {group!r} is not a column of {cache.root}, which has: {', '.join(table.columns)}.")
    return {str(i): str(g) for i, g in zip(table["id"], table[group], strict=True)}


def _layer(layer: int | str, n_layers: int | None) -> int:
    if isinstance(layer, int):
        return layer
    if n_layers is None:
        raise ValueError(f"layer {layer!r}: a percent needs n_layers=, the number of blocks of the model.")
    return layer_index(layer, n_layers)
