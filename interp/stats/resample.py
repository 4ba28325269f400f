"""The cluster bootstrap: whole groups are drawn with replacement, and every statistic sees the same draws.

A statistic that depends on the data through sums over examples (a mean, a ratio of means, a kappa, a
calibration error) never needs the resampled rows: with S[group, column] the sums inside each group and
W[resample, group] how often each group was drawn, all resamples are one product W @ S.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from interp.stats._check import (
    FEW_GROUPS,
    FewGroupsWarning,
    Groups,
    NoWidthWarning,
    Seed,
    UndefinedDrawsWarning,
    Values,
    choice,
    generator,
    group_codes,
    level,
    numbers,
)
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates

N_RESAMPLES = 2000
BUDGET = 32 * 2**20
"""Bytes of the largest temporary array of weights."""

SumStatistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""sums[..., column] -> value[...]: must work on any leading axes and give NaN, not an error, for 0/0."""
WeightStatistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""weights[resample, example] -> value[resample, ...]."""


def group_weights(n_groups: int, *, n_resamples: int, seed: Seed, budget: int = BUDGET) -> Iterator[np.ndarray]:
    """How often each group is drawn, in chunks [resample, group] of float64; every row sums to n_groups.

    The same seed gives the same draws whatever the budget.
    """
    rng, rows = generator(seed), max(1, budget // (16 * n_groups))
    for start in range(0, n_resamples, rows):
        n_rows = min(rows, n_resamples - start)
        drawn = rng.integers(0, n_groups, size=(n_rows, n_groups))
        drawn += np.arange(n_rows)[:, None] * n_groups
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_groups)
        yield counts.reshape(n_rows, n_groups).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Draws:
    """A statistic, its values under resampling, and with one group left out.

    Attributes:
        value:      on the data [...].
        resampled:  on each resample [resample, ...]; NaN where undefined.
        left_out:   without each group [group, ...]; what BCa needs for its acceleration.
    """

    value: np.ndarray
    resampled: np.ndarray
    left_out: np.ndarray | None
    n: int
    n_groups: int

    @property
    def n_undefined(self) -> int:
        """Resamples in which some component is NaN."""
        return int(np.isnan(self.resampled.reshape(len(self.resampled), -1)).any(axis=1).sum())

    def estimates(self, *, method: str = "percentile", confidence: float = CONFIDENCE) -> Estimates:
        """Intervals of every component: `percentile`, or `bca` (bias-corrected and accelerated).

        BCa: quantiles at Phi(z0 + (z0 + z)/(1 - a(z0 + z))), z0 from the share of draws below the value,
        a = sum(d³) / 6(sum d²)^1.5 with d the jackknife deviations.

        Raises:
            ValueError: unknown method; BCa where every draw lies on one side of the value.
        Source: Efron & Tibshirani, *An Introduction to the Bootstrap* (1993) §13.3, §14.3.
        """
        choice("method", method, ("percentile", "bca"))
        tails = np.array([0.5 - level("confidence", confidence) / 2, 0.5 + confidence / 2])
        self._warn()
        shape, flat = self.value.shape, self.resampled.reshape(len(self.resampled), -1)
        if method == "percentile":
            lo, hi = _nan_quantile(flat, tails)
        else:
            levels = self._bca_levels(flat, tails)
            ends = [_nan_quantile(flat[:, [j]], levels[j])[:, 0] for j in range(flat.shape[1])]
            lo, hi = np.array(ends).reshape(-1, 2).T
        return Estimates(self.value, lo.reshape(shape), hi.reshape(shape), self.n, self.n_groups)

    def estimate(self, *, method: str = "percentile", confidence: float = CONFIDENCE) -> Estimate:
        """The interval of a statistic that is one number; undefined where the value is."""
        if np.isnan(self.value):
            return Estimate.undefined(self.n, self.n_groups)
        if self.resampled.min() == self.resampled.max():
            warnings.warn(
                f"every resample gave {float(self.value):g}: the interval has no width, which is not certainty. "
                "For a rate report wilson_clustered() or clopper_pearson().",
                NoWidthWarning,
                stacklevel=3,
            )
        return self.estimates(method=method, confidence=confidence).at()

    def _warn(self) -> None:
        if self.n_groups < FEW_GROUPS:
            warnings.warn(
                f"interval from {self.n_groups} independent units (fewer than {FEW_GROUPS}): a bootstrap over so few "
                "is too narrow. Report cluster_t() or method='t' instead.",
                FewGroupsWarning,
                stacklevel=4,
            )
        if self.n_undefined:
            warnings.warn(
                f"{self.n_undefined} of {len(self.resampled)} resamples gave no value (0/0) and were left out.",
                UndefinedDrawsWarning,
                stacklevel=4,
            )

    def _bca_levels(self, flat: np.ndarray, tails: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr, ndtri

        if self.left_out is None:
            raise ValueError("method 'bca': not offered for statistics of example weights. Use method='percentile'.")
        value, is_defined = self.value.reshape(-1), ~np.isnan(flat)
        tied = np.isclose(flat, value, rtol=1e-12, atol=0.0)
        below = ((flat < value) & ~tied).sum(axis=0) + 0.5 * tied.sum(axis=0)
        below = below / is_defined.sum(axis=0)
        if ((below == 0) | (below == 1)).any():
            raise ValueError(
                "method 'bca': every resample lies on one side of the value, so no bias correction exists. "
                "Use method='percentile', or more resamples."
            )
        z0, deviation = ndtri(below), self.left_out.reshape(len(self.left_out), -1)
        deviation = np.nanmean(deviation, axis=0) - deviation
        spread = np.nansum(deviation**2, axis=0) ** 1.5
        a = np.divide(np.nansum(deviation**3, axis=0), 6 * spread, out=np.zeros_like(spread), where=spread > 0)
        shifted = z0[:, None] + ndtri(tails)
        return ndtr(z0[:, None] + shifted / (1 - a[:, None] * shifted))


def resample_sums(
    columns: Values,
    statistic: SumStatistic,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
) -> Draws:
    """Bootstrap any statistic of the sums of some columns over examples.

    Args:
        columns: [example, column]; put a column of ones to count examples.
        statistic: sums[..., column] -> value[...], e.g. `lambda s: s[..., 0] / s[..., 1]`; it may return more
            trailing axes, and all of them share the draws.
        groups: independent unit of each example [example]; None says each example is independent.
        seed: integer or numpy generator.
    Raises:
        ValueError: NaN, one group, lengths differ.
    Source: Davison & Hinkley, *Bootstrap Methods* (1997) §3.8; Field & Welsh, JRSS B 69 (2007) 369.
    """
    array = numbers("columns", columns, ndim=2)
    codes = group_codes(groups, len(array))
    sums = codes.sums(array)
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        chunks = [statistic(w @ sums) for w in group_weights(codes.n_groups, n_resamples=n_resamples, seed=seed)]
        value, left_out = np.asarray(statistic(total)), statistic(total - sums)
    return Draws(value, _finite(chunks), left_out, len(array), codes.n_groups)


def resample_weights(
    statistic: WeightStatistic,
    *,
    n: int,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
) -> Draws:
    """Bootstrap a statistic that needs weights of single examples (ranks, a fit), chunk by chunk.

    Args:
        statistic: weights[resample, example] -> value[resample]; an example's weight is how often its group
            was drawn.
        n: number of examples.
    Raises:
        ValueError: one group, lengths differ.
    """
    codes = group_codes(groups, n)
    budget = max(1, BUDGET * codes.n_groups // (2 * n))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.asarray(statistic(np.ones((1, n))))[0]
        draws = group_weights(codes.n_groups, n_resamples=n_resamples, seed=seed, budget=budget)
        chunks = [statistic(w[:, codes.code]) for w in draws]
    return Draws(np.asarray(value), _finite(chunks), None, n, codes.n_groups)


def _finite(chunks: list[np.ndarray]) -> np.ndarray:
    """Chunks as one array, x/0 marked undefined like 0/0."""
    draws = np.concatenate(chunks)
    return np.where(np.isfinite(draws), draws, np.nan)


def _nan_quantile(flat: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return (np.nanquantile if np.isnan(flat).any() else np.quantile)(flat, levels, axis=0)
