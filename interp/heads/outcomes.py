"""The sweep over pairs as a stream: one outcome per pair, which can be kept and need never be computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.edits import Edit, Replace
from interp.heads.direct import direct_changes
from interp.heads.ids import Heads, Unit, expand_heads, unit_name
from interp.heads.kinds import Donors, Kind, Patch, Resample, Values, record_z
from interp.heads.pairs import TokenPair, Where, pairs_sha256, where_of
from interp.heads.readout import METRICS, Metric, Prob, Readout, read_values, reader
from interp.model import Model
from interp.positions import Positions
from interp.sweep import Change, Intervention, sweep
from interp.sweep.read import read_out

Effect = Literal["total", "direct"]
PATCHES = ("patch", "resample:twin")
FIELDS = ("clean_margin", "margin", "clean_p", "p", "clean_right", "right", "flipped", "clean_mass")


@dataclass(frozen=True)
class Plan:
    """Everything that an effect depends on besides the pair; the digest names the effects it made.

    Attributes:
        units: head sets that were changed together, by name.
        weights: digest of the loaded weights and the active adapter, or "unknown" for a module wrapped by hand.
    """

    model: str
    adapter: str | None
    weights: str
    dtype: str
    kind: str
    effect: str
    positions: str
    metrics: tuple[str, ...]
    units: tuple[str, ...]
    pairs_sha256: str

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def key(self, pair: TokenPair) -> str:
        """The name under which the outcome of a pair is kept."""
        return hashlib.sha256(f"{self.sha256}{pair.id}{pair.sha256}".encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What every unit did to one pair.

    Attributes:
        key: digest of plan and pair: an outcome is kept under it.
        values: by name of `FIELDS`, [unit]; means over draws. `clean_*` are of the un-edited row that rode in the
            same chunk, so that differences cancel the rounding of a batch.
        base_margin: by how much the base run prefers its own right answer, logits; NaN where it was not run.
        base_right: whether it does.
    """

    key: str
    values: Mapping[str, Float[np.ndarray, "unit"]]
    base_margin: float = float("nan")
    base_right: float = float("nan")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """All outcomes of a sweep as arrays, no statistics: by name of `FIELDS` [example, unit], and of the base runs."""

    values: dict[str, Float[np.ndarray, "example unit"]]
    base_margin: Float[np.ndarray, "example"]
    base_right: Float[np.ndarray, "example"]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Outcomes:
        """In the order of the outcomes; `clean_mass` only where all have it."""
        known = [name for name in FIELDS if name != "clean_mass" or all(name in one.values for one in outcomes)]
        values = {name: np.stack([np.asarray(one.values[name], float) for one in outcomes]) for name in known}
        margins, right = (np.array([getattr(o, name) for o in outcomes]) for name in ("base_margin", "base_right"))
        return cls(values, margins, right)

    def solved(self, *, min_p: float = 0.0) -> Bool[np.ndarray, "example"]:
        """True for pairs that the model answers right with at least this probability, the base run's answer too."""
        keep = self.values["clean_right"][:, 0] > 0
        if min_p:
            keep &= self.values["clean_p"][:, 0] >= min_p
        if not np.isnan(self.base_margin).all():
            keep &= self.base_right > 0
        return keep

    @property
    def logit_effects(self) -> Float[np.ndarray, "example unit"]:
        """m_clean - m_changed of every pair and unit."""
        return self.values["clean_margin"] - self.values["margin"]


def main_of(plan: Plan) -> Literal["direct_effect", "cma", "abl_logit"]:
    """The named definition of the logit effect under a plan's kind."""
    if plan.effect.startswith("direct"):
        return "direct_effect"
    return "cma" if plan.kind in PATCHES else "abl_logit"


@dataclass
class HeadSweep:
    """One sweep: pairs, what is done to which heads where, and what is read.

    Attributes:
        positions: tokens that are changed. None, when it is made: the pairs' own where any carries some, else the slot.
        verify: share of rows of every pair that the reference engine recomputes.
        engine: "reference" computes each row by a forward pass of its own.
    """

    model: Model
    pairs: Sequence[TokenPair]
    kind: Kind = field(default_factory=Patch)
    positions: Where | None = None
    heads: Heads = "all"
    metrics: Sequence[Metric] = METRICS
    effect: Effect = "total"
    freeze_norm: bool = False
    verify: float = 0.0
    engine: Literal["auto", "reference"] = "auto"
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        if len({pair.id for pair in self.pairs}) < len(self.pairs) or not self.pairs:
            raise ValueError(f"pairs: expected at least one pair, each with an id of its own; got {len(self.pairs)}.")
        self.model = Model.wrap(self.model)
        self.where: Where = where_of(self.positions, self.pairs)
        self.units: tuple[Unit, ...] = expand_heads(self.heads, self.model.layout)
        layers = tuple(sorted({head.layer for unit in self.units for head in unit}))
        self.donors = Donors(self.model, self.pairs, self.kind, self.where, layers)
        for pair in self.pairs:  # unequal lengths and missing spans are found before anything is computed
            pair.exp_tokens(self.where)
            if self.needs_base:
                pair.base_tokens(self.where)

    @property
    def needs_base(self) -> bool:
        return isinstance(self.kind, Patch) or (isinstance(self.kind, Resample) and self.kind.pairing == "twin")

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
            ValueError: donors that do not correspond. RuntimeError: a verified row disagrees.
        """
        keys = self.keys()
        wanted = [index for index, key in enumerate(keys) if key not in done]
        if wanted:
            self.donors.prepare()
        for index in wanted:
            yield index, self.outcome(index, keys[index])

    def keys(self) -> list[str]:
        """The name under which each pair's outcome is kept."""
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
        runs = [self._rows(pair, tokens, values) for values in draws]
        arrays = [_arrays(*run) for run in runs]
        mean = {name: np.mean([array[name] for array in arrays], axis=0) for name in FIELDS}
        if base is None:
            return Outcome(key, mean)
        own = float(base.margin[0]) * (-1.0 if pair.flips else 1.0)
        return Outcome(key, mean, own, float(own > 0))

    def _base(self, pair: TokenPair) -> tuple[Values, Readout]:
        """z of the base prompt, and how it answers, from one pass."""
        assert pair.base_ids is not None
        end = len(pair.base_ids) - 1
        tokens = pair.base_tokens(self.where)
        values, resid = record_z(self.model, pair.base_ids, tokens, self.donors.layers, extra=[end])
        read = read_out(self.model, resid[None], reader(self.model, pair, vocabulary=False), pair.options)
        return values, read_values(pair, read[0])

    def _rows(self, pair: TokenPair, tokens: tuple[int, ...], values: Values | None) -> tuple[Readout, Readout]:
        """(un-edited row of each unit's chunk, row of each unit)."""
        read = reader(self.model, pair, vocabulary=self.needs_vocabulary)
        if self.effect == "direct":
            if tokens[-1] != len(pair.exp_ids) - 1:
                raise ValueError(f"pair {pair.id!r}: the direct effect is of the answer slot; positions leave it out.")
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
    """The head's values on the token axis of the whole prompt, which `Replace` broadcasts to."""
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
