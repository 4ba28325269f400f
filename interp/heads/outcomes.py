"""Outcomes of a sweep over pairs: one per pair, stored under a key, so that none is computed twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from interp.heads.metrics import FIELDS, main_metric, sort_of
from interp.heads.pairs import TokenPair


@dataclass(frozen=True)
class Plan:
    """Everything besides the pair that an effect depends on; outcomes are stored under its digest.

    Attributes:
        units: names of the heads, or sets of heads changed together.
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
        """Key under which the outcome of a pair is stored."""
        return hashlib.sha256(f"{self.sha256}{pair.id}{pair.sha256}".encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Effect of every unit on one pair.

    Attributes:
        key: digest of plan and pair, under which the outcome is stored.
        values: by name of `FIELDS`, [unit]; means over draws. `clean_*` are of the unedited row of the same chunk, so
            that rounding, which depends on the batch, cancels in differences.
        base_margin: margin of the base run's own right answer, logits; NaN if it was not run.
        base_right: whether that margin is above 0.
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
        """Stack outcomes, in their order; `clean_mass` only if all have it (older stores do not)."""
        names = [name for name in FIELDS if name != "clean_mass" or all(name in one.values for one in outcomes)]
        values = {name: np.stack([np.asarray(one.values[name], float) for one in outcomes]) for name in names}
        margins, right = (np.array([getattr(o, name) for o in outcomes]) for name in ("base_margin", "base_right"))
        return cls(values, margins, right)

    def solved(self, *, min_p: float = 0.0) -> Bool[np.ndarray, "example"]:
        """True for pairs answered right with at least this probability, in the base run as well if there is one."""
        keep = self.values["clean_right"][:, 0] > 0
        if min_p:
            keep &= self.values["clean_p"][:, 0] >= min_p
        if not np.isnan(self.base_margin).all():
            keep &= self.base_right > 0
        return keep

    @property
    def logit_effects(self) -> Float[np.ndarray, "example unit"]:
        """m_clean - m_changed of every pair and unit, in logits."""
        return self.values["clean_margin"] - self.values["margin"]


def main_of(plan: Plan) -> str:
    """The metric of a plan that is in logits."""
    return main_metric(sort_of(plan.kind, plan.effect))
