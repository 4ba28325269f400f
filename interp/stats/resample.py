"""Resampling of whole groups: leave one out for the interval, draw with replacement for what needs a distribution.

A statistic that depends on the data through sums over examples (a mean, a ratio of means, a kappa, a
calibration error) never needs the resampled rows: with S[group, column] the sums inside each group and
W[resample, group] how often each group was drawn, all resamples are one product W @ S.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from interp.stats.check import (
    CHECKED_GROUPS,
    FEW_GROUPS,
    FewGroupsWarning,
    GroupCodes,
    Groups,
    NoWidthWarning,
    UndefinedDrawsWarning,
    Values,
    generator,
    group_codes,
    numbers,
    same_length,
)
from interp.stats.estimate import Estimate, Estimates, Sampling
from interp.stats.jackknife import ANY, BUDGET, Bounds, effective_groups, group_weights, jackknife_limits

SumStatistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""sums[..., column] -> value[...]: must work on any leading axes and give NaN, not an error, for 0/0."""
WeightStatistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""weights[resample, example] -> value[resample, ...]."""


@dataclass(frozen=True, eq=False)
class Draws:
    """A statistic, its values with one group left out, and under resampling.

    Attributes:
        value:      on the data [...].
        left_out:   without each group [group, ...]: the interval of method `auto`.
        draw:       gives the values on each resample [resample, ...]; called once, and only where they are needed.
        effective:  effective number of groups behind each component [...], or one number.
        sampling:   confidence and method of the intervals.
        bounds:     smallest and largest possible value of the statistic.
    """

    value: np.ndarray
    left_out: np.ndarray
    draw: Callable[[], np.ndarray]
    n: int
    n_groups: int
    effective: np.ndarray | float
    sampling: Sampling = Sampling()
    bounds: Bounds = ANY

    @cached_property
    def resampled(self) -> np.ndarray:
        """The statistic on each resample [resample, ...]; NaN where undefined."""
        draws = self.draw()
        return np.where(np.isfinite(draws), draws, np.nan)

    @property
    def n_undefined(self) -> int:
        """Resamples in which some component is NaN."""
        return int(np.isnan(self.resampled.reshape(len(self.resampled), -1)).any(axis=1).sum())

    def estimates(self) -> Estimates:
        """Intervals of every component by the method of `sampling`: the rule of `jackknife_limits`, or the bootstrap.

        BCa: quantiles at Phi(z0 + (z0 + z)/(1 - a(z0 + z))), z0 from the share of draws below the value,
        a = sum(d³) / 6(sum d²)^1.5 with d the jackknife deviations. Both bootstrap intervals are too narrow with fewer
        than 20 groups and collapse to a point where all groups agree; they are here for comparison.

        Raises:
            ValueError: BCa where every draw lies on one side of the value.
        Source: `interp.stats.jackknife`; Efron & Tibshirani, *An Introduction to the Bootstrap* (1993) §13.3, §14.3.
        """
        self._warn()
        if self.sampling.method == "auto":
            confidence, bounds = self.sampling.confidence, self.bounds
            lo, hi = jackknife_limits(
                self.value, self.left_out, effective=self.effective, confidence=confidence, bounds=bounds
            )
        else:
            lo, hi = self._quantiles()
        return Estimates(self.value, lo, hi, self.n, self.n_groups)

    def estimate(self) -> Estimate:
        """The interval of a statistic that is one number; undefined where the value is."""
        if np.isnan(self.value):
            return Estimate.undefined(self.n, self.n_groups)
        estimate = self.estimates().at()
        if estimate.lo == estimate.hi or not estimate.has_interval:
            warnings.warn(
                f"all groups have the same value, {float(self.value):g}: the data show no spread, which does not mean "
                "that the value is certain. For a rate, report wilson_clustered(); for a number with a known range, "
                "give its bounds.",
                NoWidthWarning,
                stacklevel=3,
            )
        return estimate

    def _warn(self) -> None:
        method = self.sampling.method
        if method == "auto" and self.n_groups < CHECKED_GROUPS:
            warnings.warn(
                f"interval from {self.n_groups} independent units; coverage was verified for {CHECKED_GROUPS} or more.",
                FewGroupsWarning,
                stacklevel=4,
            )
        if method != "auto" and self.n_groups < FEW_GROUPS:
            warnings.warn(
                f"interval from {self.n_groups} independent units (fewer than {FEW_GROUPS}): a {method} interval over "
                "so few is too narrow. Use Sampling(method='auto').",
                FewGroupsWarning,
                stacklevel=4,
            )
        lost = np.isnan(self.left_out).any(axis=0) & ~np.isnan(self.value)
        if method == "auto" and lost.any():
            warnings.warn(
                "without one of the groups there is no value (0/0): a single group holds all the examples that count. "
                "The interval is the whole range.",
                UndefinedDrawsWarning,
                stacklevel=4,
            )
        if method != "auto" and self.n_undefined:
            warnings.warn(
                f"{self.n_undefined} of {len(self.resampled)} resamples gave no value (0/0) and were left out.",
                UndefinedDrawsWarning,
                stacklevel=4,
            )

    def _quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        half = self.sampling.confidence / 2
        tails = np.array([0.5 - half, 0.5 + half])
        shape, flat = self.value.shape, self.resampled.reshape(len(self.resampled), -1)
        if self.sampling.method == "percentile":
            lo, hi = _nan_quantile(flat, tails)
        else:
            levels = self._bca_levels(flat, tails)
            ends = [_nan_quantile(flat[:, [j]], levels[j])[:, 0] for j in range(flat.shape[1])]
            lo, hi = np.array(ends).reshape(-1, 2).T
        return lo.reshape(shape), hi.reshape(shape)

    def _bca_levels(self, flat: np.ndarray, tails: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr, ndtri

        value, is_defined = self.value.reshape(-1), ~np.isnan(flat)
        tied = np.isclose(flat, value, rtol=1e-12, atol=0.0)
        below = ((flat < value) & ~tied).sum(axis=0) + 0.5 * tied.sum(axis=0)
        below = below / is_defined.sum(axis=0)
        if ((below == 0) | (below == 1)).any():
            raise ValueError(
                "method 'bca': every resample lies on one side of the value, so no bias correction exists. "
                "Use Sampling(method='auto')."
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
    counts: Values | None = None,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Draws:
    """Interval, or bootstrap, of any statistic of the sums of some columns over examples.

    Args:
        columns: [example, column]; put a column of ones to count examples.
        statistic: sums[..., column] -> value[...], e.g. `lambda s: s[..., 0] / s[..., 1]`; it may return more
            trailing axes, and all of them share the draws.
        groups: independent unit of each example [example]; None: each example is independent.
        counts: how much each example counts in the statistic [example], or in each component [example, ...]: 0 for
            those that a conditional rate leaves out. All count alike where None.
        bounds: smallest and largest possible value of the statistic; their effect: `jackknife_limits`.
    Raises:
        ValueError: NaN, one group, lengths differ.
    Source: Davison & Hinkley, *Bootstrap Methods* (1997) §3.8; Field & Welsh, JRSS B 69 (2007) 369.
    """
    array = numbers("columns", columns, ndim=2)
    codes = group_codes(groups, len(array))
    sums = codes.sums(array)
    total = sums.sum(axis=0)

    def draw() -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            chunks = group_weights(codes.n_groups, n_resamples=sampling.n_resamples, seed=sampling.seed)
            return np.concatenate([statistic(w @ sums) for w in chunks])

    with np.errstate(divide="ignore", invalid="ignore"):
        value, left_out = np.asarray(statistic(total)), _finite(statistic(total - sums))
    return Draws(value, left_out, draw, len(array), codes.n_groups, _effective(codes, counts), sampling, bounds)


MAX_LEFT_OUT = 200
"""Groups that are left out one by one; more of them are dealt at random into this many blocks."""


def resample_weights(
    statistic: WeightStatistic,
    *,
    n: int,
    groups: Groups,
    counts: Values | None = None,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Draws:
    """Interval, or bootstrap, of a statistic that needs weights of single examples (ranks, a fit), chunk by chunk.

    More than 200 groups are dealt at random into 200 blocks of whole groups, and the blocks are left out: the same
    standard error at a fixed cost.

    Args:
        statistic: weights[resample, example] -> value[resample]; an example's weight is how often its group
            was drawn, or 0 where it is left out.
        n: number of examples.
        counts, bounds: as `resample_sums`.
    Raises:
        ValueError: one group, lengths differ.
    Source: Shao & Tu, *The Jackknife and Bootstrap* (1995) §2.3 (grouped jackknife).
    """
    codes = group_codes(groups, n)
    rows = max(1, BUDGET // (16 * n))
    seed = sampling.seed
    deal, draws = generator(seed).spawn(2) if isinstance(seed, np.random.Generator) else (generator(seed), seed)
    blocks = codes
    if codes.n_groups > MAX_LEFT_OUT:
        blocks = GroupCodes((deal.permutation(codes.n_groups) % MAX_LEFT_OUT)[codes.code], MAX_LEFT_OUT)

    def draw() -> np.ndarray:
        weights = group_weights(
            codes.n_groups, n_resamples=sampling.n_resamples, seed=draws, budget=rows * 16 * codes.n_groups
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.concatenate([statistic(w[:, codes.code]) for w in weights])

    weights_left = [
        (blocks.code[None, :] != np.arange(start, min(start + rows, blocks.n_groups))[:, None]).astype(np.float64)
        for start in range(0, blocks.n_groups, rows)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.asarray(statistic(np.ones((1, n))))[0]
        left_out = _finite(np.concatenate([statistic(part) for part in weights_left]))
    return Draws(np.asarray(value), left_out, draw, n, codes.n_groups, _effective(blocks, counts), sampling, bounds)


def _effective(codes: GroupCodes, counts: Values | None) -> np.ndarray | float:
    if counts is None:
        return float(effective_groups(codes.sizes))
    array = numbers("counts", counts, ndim=None)
    same_length(counts=array, columns=codes.code)
    return effective_groups(codes.sums(array))


def _finite(values: np.ndarray) -> np.ndarray:
    """x/0 marked undefined like 0/0."""
    return np.asarray(np.where(np.isfinite(values), values, np.nan))


def _nan_quantile(flat: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return (np.nanquantile if np.isnan(flat).any() else np.quantile)(flat, levels, axis=0)
