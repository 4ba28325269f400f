"""`head_sweep`: the effect of every head on every pair, as a stream of outcomes per pair, then with its statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from interp.edits import Edit, Replace
from interp.heads.direct import direct_changes, write_norms
from interp.heads.effects import HeadEffects
from interp.heads.ids import HeadId, Heads, Unit, expand_heads, unit_name
from interp.heads.kinds import Donors, Kind, Patch, Values, record_z
from interp.heads.metrics import FIELDS, MEASURES, Measure, Prob, Readout, read_values, reader
from interp.heads.outcomes import Outcome, Plan
from interp.heads.pairs import TokenPair, Where, pairs_sha256, where_of
from interp.model import Model
from interp.positions import Positions
from interp.progress import parts, stage
from interp.stats import Sampling
from interp.sweep import Change, Intervention, sweep
from interp.sweep.read import read_out

Effect = Literal["total", "direct"]
NORM_PAIRS = 8


def head_sweep(
    model: Model | nn.Module,
    pairs: Sequence[TokenPair],
    *,
    kind: Kind = Patch(),  # noqa: B008  (a frozen value)
    positions: Where | None = None,
    heads: Heads = "all",
    metrics: Sequence[Measure] = MEASURES,
    effect: Effect = "total",
    freeze_norm: bool = False,
    named: Sequence[str | HeadId] = (),
    sampling: Sampling = Sampling(),
    verify: float = 0.0,
    engine: Literal["auto", "reference"] = "auto",
    chunk_bytes: int | None = None,
) -> HeadEffects:
    """Change the output of every head, one at a time (or in sets), and measure the change of the answer.

    z of a query head (its slice of the output projection's input) is replaced at `positions` of the exp prompt; with
    grouped keys and values the other heads of the group are left alone. Exact, by the sweep engine: about
    1 + N H T / (2 S) clean forwards for N H heads at T of S tokens, plus the recordings that `kind` needs.

    Args:
        kind: what replaces z, see `interp.heads.kinds.KINDS`.
        positions: tokens of exp; Answer() is the slot, "pairs" each pair's own. None: the pairs' own if any has some,
            else the slot.
        heads: "all", or heads ("L19.H17") and sets of heads.
        metrics: what is read of every run; `Prob` costs the whole unembedding of every row.
        effect: "direct" freezes everything after the head but the final norm (frozen too with `freeze_norm`).
        named: heads that a hypothesis named before this sweep; figures mark them.
        sampling: seed, resamples and confidence of the statistics.
        verify: share of the rows of every pair that hooked forward passes recompute and compare.
    Raises:
        ValueError: a head, position or donor that does not exist; the error lists those that do.
        RuntimeError: a submodule is in training mode, or a verified row disagrees.
    Source: Yang et al., arXiv 2502.20332 (`cma`); equality with their code on shared/vectors/heads.json.

    Example:
        >>> from interp.heads import Zero
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()
        >>> prompts = [[5, 6, n] for n in range(10, 18)]
        >>> pairs = [TokenPair(None, tuple(ids), 20, 30, id=f"p{i}") for i, ids in enumerate(prompts)]
        >>> effects = head_sweep(model, pairs, kind=Zero(), heads=["L0.H0", "L1.H3"])
        >>> effects.table(["abl_logit"])[["head", "metric"]].head(2).values.tolist()
        [['L0.H0', 'abl_logit'], ['L1.H3', 'abl_logit']]
    """
    model = Model.wrap(model)
    job = HeadSweep(model, tuple(pairs), kind, positions, heads, tuple(metrics), effect, freeze_norm, verify, engine,
                    chunk_bytes)  # fmt: skip
    outcomes = [outcome for _, outcome in job.run()]
    named_units = expand_heads(list(named), model.layout) if named else ()
    return HeadEffects.of(job.plan, job.pairs, outcomes, write_norms=unit_norms(model, pairs, job.units),
                          named=named_units, sampling=sampling)  # fmt: skip


def unit_norms(model: Model, pairs: Sequence[TokenPair], units: Sequence[Unit]) -> np.ndarray:
    """Mean norm of each unit's write at the answer slot, over up to eight of the pairs; of a set, the sum."""
    step = max(1, len(pairs) // NORM_PAIRS)
    norms = write_norms(model, [(pair.exp_ids, len(pair.exp_ids) - 1) for pair in pairs[::step][:NORM_PAIRS]])
    return np.array([sum(norms[head.layer, head.head] for head in unit) for unit in units])


@dataclass
class HeadSweep:
    """One sweep: pairs, heads, their replacement and positions, and what is read.

    Attributes:
        positions: tokens to change. None: the pairs' own if any has some, else the slot.
        verify: share of the rows of every pair that the reference engine recomputes.
        engine: "reference" computes each row by its own forward pass.
    """

    model: Model
    pairs: Sequence[TokenPair]
    kind: Kind = field(default_factory=Patch)
    positions: Where | None = None
    heads: Heads = "all"
    metrics: Sequence[Measure] = MEASURES
    effect: Effect = "total"
    freeze_norm: bool = False
    verify: float = 0.0
    engine: Literal["auto", "reference"] = "auto"
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        if len({pair.id for pair in self.pairs}) < len(self.pairs) or not self.pairs:
            raise ValueError(f"pairs: expected at least one pair, with different ids; got {len(self.pairs)}.")
        self.model = Model.wrap(self.model)
        self.where: Where = where_of(self.positions, self.pairs)
        self.units: tuple[Unit, ...] = expand_heads(self.heads, self.model.layout)
        layers = tuple(sorted({head.layer for unit in self.units for head in unit}))
        self.donors = Donors(self.model, self.pairs, self.kind, self.where, layers)
        for pair in self.pairs:  # raises for unequal lengths and missing spans before any forward pass
            pair.exp_tokens(self.where)
            if self.needs_base:
                pair.base_tokens(self.where)

    @property
    def needs_base(self) -> bool:
        return self.kind.needs_base

    @property
    def needs_vocabulary(self) -> bool:
        return any(isinstance(metric, Prob) for metric in self.metrics)

    @property
    def plan(self) -> Plan:
        effect = self.effect + (":frozen_norm" if self.effect == "direct" and self.freeze_norm else "")
        where = self.where.name if isinstance(self.where, Positions) else self.where
        adapter = self.model.adapters.active
        return Plan(
            self.model.name,
            adapter,
            _weights(self.model, adapter),
            str(self.model.dtype).removeprefix("torch."),
            self.kind.name,
            effect,
            where,
            tuple(sorted(type(metric).__name__ for metric in self.metrics)),
            tuple(map(unit_name, self.units)),
            pairs_sha256(self.pairs),
        )

    def run(self, *, done: Collection[str] = ()) -> Iterator[tuple[int, Outcome]]:
        """(index of the pair, outcome) of every pair whose key is not in `done`, in order.

        Raises:
            ValueError: donors that do not correspond.
            RuntimeError: a verified row disagrees.
        """
        keys = self.keys()
        todo = [index for index, key in enumerate(keys) if key not in done]
        with stage(0, 0.5):  # of the first pair: what the kind needs of all pairs
            if todo:
                self.donors.prepare()
        for index in todo:
            yield index, self.outcome(index, keys[index])

    def keys(self) -> list[str]:
        """Key under which each pair's outcome is stored."""
        plan = self.plan
        return [plan.key(pair) for pair in self.pairs]

    @torch.no_grad()
    def outcome(self, index: int, key: str = "") -> Outcome:
        """The outcome of one pair; `donors.prepare()` must have run."""
        pair = self.pairs[index]
        tokens = pair.exp_tokens(self.where)
        base = None
        if self.needs_base:
            values, base = self._base(pair)
            draws: list[Values | None] = [values]
        else:
            draws = self.donors.values(index)
        runs = [self._rows(pair, tokens, values) for values in parts(draws)]
        arrays = [_arrays(*run) for run in runs]
        mean = {name: np.mean([array[name] for array in arrays], axis=0) for name in FIELDS}
        if base is None:
            return Outcome(key, mean)
        own = float(base.margin[0]) * (-1.0 if pair.flips else 1.0)
        return Outcome(key, mean, own, float(own > 0))

    def _base(self, pair: TokenPair) -> tuple[Values, Readout]:
        """z of the base prompt and its readout, from one pass."""
        assert pair.base_ids is not None
        end = len(pair.base_ids) - 1
        tokens = pair.base_tokens(self.where)
        values, resid = record_z(self.model, pair.base_ids, tokens, self.donors.layers, extra=[end])
        read = read_out(self.model, resid[None], reader(self.model, pair, vocabulary=False), pair.options)
        return values, read_values(pair, read[0])

    def _rows(self, pair: TokenPair, tokens: tuple[int, ...], values: Values | None) -> tuple[Readout, Readout]:
        """(unedited row of each unit's chunk, row of each unit)."""
        read = reader(self.model, pair, vocabulary=self.needs_vocabulary)
        if self.effect == "direct":
            if tokens[-1] != len(pair.exp_ids) - 1:
                raise ValueError(f"pair {pair.id!r}: the direct effect needs the answer slot among the positions.")
            clean, rows = direct_changes(
                self.model, pair.exp_ids, self.units, self._at_end(values), read, freeze_norm=self.freeze_norm
            )
            return read_values(pair, clean), read_values(pair, rows)
        interventions = [self._intervention(unit, tokens, values, len(pair.exp_ids)) for unit in self.units]
        result = sweep(
            self.model,
            pair.exp_ids,
            interventions,
            read=read,
            verify=self.verify,
            engine=self.engine,
            chunk_bytes=self.chunk_bytes,
        )
        return read_values(pair, result.clean[:, 0]), read_values(pair, result.rows[:, 0])

    @staticmethod
    def _at_end(values: Values | None) -> Values | None:
        return None if values is None else {layer: z[-1:] for layer, z in values.items()}

    def _intervention(self, unit: Unit, tokens: tuple[int, ...], values: Values | None, n_tokens: int) -> Intervention:
        changes = tuple(
            Change(head.site, Replace(0.0) if values is None else _replace(values, unit, i, tokens, n_tokens), tokens)
            for i, head in enumerate(unit)
        )
        return Intervention(changes, unit_name(unit))


def _replace(values: Values, unit: Unit, index: int, tokens: tuple[int, ...], n_tokens: int) -> Edit:
    """Replacement of one head, on the token axis of the whole prompt, as `Replace` needs it."""
    z = values[unit[index].layer][:, unit[index].head]
    if len(tokens) == 1:
        return Replace(z)
    whole = z.new_zeros(n_tokens, z.shape[-1])
    whole[list(tokens)] = z
    return Replace(whole)


def _arrays(clean: Readout, rows: Readout) -> dict[str, np.ndarray]:
    pairs: list[tuple[str, Tensor]] = [
        ("clean_margin", clean.margin),
        ("margin", rows.margin),
        ("clean_p", clean.p),
        ("p", rows.p),
        ("clean_right", clean.right),
        ("right", rows.right),
        ("flipped", (clean.choice != rows.choice).double()),
        ("clean_mass", clean.mass),
    ]
    return {name: value.numpy() for name, value in pairs}


def _weights(model: Model, adapter: str | None) -> str:
    if model.fingerprint is None:
        return "unknown"
    whole = model.fingerprint
    return (whole if whole.merged else whole.select(adapter)).sha256
