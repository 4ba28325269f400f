"""Decodable-at: the place in a reply at which the AUROC of a probe first exceeds the level of the null."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.stats import Sampling, resample_weights
from probes.along import Axis, Curve
from probes.metrics import quiet


@dataclass(frozen=True)
class DecodableAt:
    """Where the AUROC first exceeds the level, with its interval over groups.

    Attributes:
        level:  95 % point of the maximum of the null over all places.
        value, lo, hi: places; inf for "at no place". value is NaN where nothing was compared.
    """

    axis: Axis
    level: float
    value: float
    lo: float
    hi: float
    n: int
    n_groups: int

    @property
    def is_reached(self) -> bool:
        return bool(np.isfinite(self.value))


def decodable_at(curve: Curve, *, sampling: Sampling = Sampling()) -> DecodableAt:
    """The first place of a curve whose AUROC is above the null's, whatever the place.

        level = 95 % point over permutations of max over places of AUROC;   value = min{ place : AUROC(place) > level }

    Under the null some place exceeds the level in 5 % of studies. Interval: percentiles over resampled groups, with the
    level and the choice of the pooling fixed; a resample in which no place exceeds it counts as beyond the last place.

    Raises:
        ValueError: a curve without a null, or whose AUROC is not defined at some place; as `resample_weights`.
    Source: first passage of a level; percentile interval, Efron & Tibshirani (1993) §13.3. Coverage is simulated in
        tests/test_along.py.

    Example:
        >>> from probes.along import Split, Traces, curves
        >>> rng, labels = np.random.default_rng(0), np.arange(80) % 2
        >>> replies = [rng.normal(size=(1, 6)) + 3 * y * (np.arange(6) > 3) for y in labels]
        >>> split = Split(np.where(np.arange(80) < 20, 0, -1), np.arange(80), 1)
        >>> null = np.stack([rng.permutation(labels) for _ in range(99)])
        >>> axis = Axis("tokens", (0, 1, 2, 3, 4, 5))
        >>> decodable_at(curves(Traces(replies, labels, split, null), axis, pools=["last"])["last"]).value
        4.0
    """
    if curve.null is None:
        raise ValueError(
            "decodable-at: the curve has no null, so there is no level to exceed. Use 19 permutations or more."
        )
    names, codes = np.unique(curve.groups, return_inverse=True)
    crossing = _Crossing.of(curve, codes.reshape(-1), len(names))
    lo, value, hi = _limits(crossing, len(names), sampling)
    places = [*curve.axis.at, np.inf]
    first, low, high = (float(places[int(k)]) for k in (value, lo, hi))
    return DecodableAt(curve.axis, curve.null.max_hi, first, low, high, len(curve.labels), len(names))


@dataclass(frozen=True)
class Later:
    """How much later one member is decodable than another, in places of the axis."""

    value: float
    lo: float
    hi: float
    n: int
    n_groups: int


def later_by(a: Curve, b: Curve, *, sampling: Sampling = Sampling()) -> Later:
    """decodable-at of a minus decodable-at of b; both members' groups are resampled together.

    A resample in which one is decodable nowhere counts as its last place, so the difference is then too small in size.
    The value is NaN where this is so of the data.

    Args:
        a, b: curves on the same axis, whose groups have the same codes.
    Raises:
        ValueError: other axes; a curve without a null.
    """
    if a.axis != b.axis or a.null is None or b.null is None:
        raise ValueError(f"later_by: expected two curves with nulls on one axis, got {a.axis} and {b.axis}.")
    names = np.unique(np.concatenate([a.groups, b.groups]))
    both = [_Crossing.of(one, np.searchsorted(names, one.groups), len(names)) for one in (a, b)]
    at = np.array([*a.axis.at, a.axis.at[-1]])
    last = len(at) - 1

    def statistic(weights: np.ndarray) -> np.ndarray:
        first, second = (at[one(weights).astype(int)] for one in both)
        return first - second

    lo, value, hi = _limits(statistic, len(names), sampling)
    ones = np.ones((1, len(names)))
    is_defined = all(int(one(ones)[0]) < last for one in both)
    n = min(len(a.labels), len(b.labels))
    if not is_defined:
        value = lo = hi = float("nan")
    return Later(value, lo, hi, n, len(names))


def _limits(
    statistic: Callable[[np.ndarray], np.ndarray], n_groups: int, sampling: Sampling
) -> tuple[float, float, float]:
    """(lo, value, hi) by percentiles over resampled groups."""
    with warnings.catch_warnings():
        quiet()
        drawn = resample_weights(statistic, n=n_groups, groups=np.arange(n_groups), sampling=sampling)
        # the ends are places: quantiles between two draws are no place
        low, high = np.quantile(drawn.resampled, _tails(sampling), method="closest_observation")
    return float(low), float(drawn.value), float(high)


def _tails(sampling: Sampling) -> tuple[float, float]:
    half = sampling.confidence / 2
    return 0.5 - half, 0.5 + half


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Index of the first place above the level, the number of places for none, of weights of groups [resample, group].

    Attributes:
        won, pairs: pairs of a positive of one group and a negative of another, in one stratum [place, group, group].
    """

    won: Float[np.ndarray, "place group group"]
    pairs: Float[np.ndarray, "group group"]
    level: float

    @classmethod
    def of(cls, curve: Curve, codes: Int[np.ndarray, " tested"], n_groups: int) -> _Crossing:
        assert curve.null is not None
        won, pairs = np.zeros((len(curve.scores), n_groups, n_groups)), np.zeros((n_groups, n_groups))
        one_hot = np.eye(n_groups)[codes]
        for stratum in np.unique(curve.strata):
            inside = curve.strata == stratum
            pos, neg = (np.flatnonzero(inside & (curve.labels == side)) for side in (1, 0))
            pairs += np.outer(one_hot[pos].sum(axis=0), one_hot[neg].sum(axis=0))
            for p, scores in enumerate(curve.scores):
                above = scores[pos][:, None] - scores[neg][None, :]
                won[p] += one_hot[pos].T @ ((np.sign(above) + 1) / 2) @ one_hot[neg]
        return cls(won, pairs, curve.null.max_hi)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            total = ((weights @ self.pairs) * weights).sum(axis=1)
            areas = np.stack([((weights @ won) * weights).sum(axis=1) / total for won in self.won], axis=1)
        above = areas > self.level
        return np.where(above.any(axis=1), above.argmax(axis=1), len(self.won)).astype(float)
