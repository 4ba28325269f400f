"""Standardised sizes of an effect: Cohen's d_z of paired effects, Cliff's delta between two sets."""

from __future__ import annotations

from math import sqrt

import numpy as np

from interp.stats._check import Groups, Values, group_codes, numbers
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.intervals import z_value
from interp.stats.ranking import auroc
from interp.stats.resample import resample_sums


def cohen_dz(
    effects: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Mean of paired effects in units of their standard deviation: d_z = mean / sd (n - 1 in the sd).

    Interval: with groups=None exact under normality, by inverting the noncentral t (d_z·sqrt(n) is a t
    statistic); with groups, the rule of `interp.stats.jackknife`.

    Args:
        effects: one difference per example [example], the same unit throughout.
    Raises:
        ValueError: fewer than 2 examples, all effects equal (no spread to divide by), NaN, one group.
    Source: Lakens, Front. Psychol. 4 (2013) 863; Cumming & Finch, Educ. Psychol. Meas. 61 (2001) 532.
    """
    array = numbers("effects", effects, at_least=2)
    n, spread = len(array), float(array.std(ddof=1))
    if spread == 0 or np.ptp(array) <= 1e-12 * np.abs(array).max():
        raise ValueError(f"effects: expected effects that vary, all {n} are {array[0]:g}. Report the mean alone.")
    if groups is None:
        d = float(array.mean()) / spread
        lo, hi = _noncentral_limits(d * sqrt(n), n - 1, sampling.confidence)
        return Estimate(d, lo / sqrt(n), hi / sqrt(n), n, n)
    columns = np.column_stack([np.ones(n), array, array**2])
    draws = resample_sums(columns, _dz, groups=groups, sampling=sampling)
    return draws.estimate()


def cliffs_delta(
    x: Values,
    y: Values,
    *,
    groups_x: Groups,
    groups_y: Groups,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """How much oftener x is above y than below it: delta = P(x > y) - P(x < y) = 2·AUROC - 1, in [-1, 1].

    Args:
        x: per-example effects of the head under study [example].
        y: effects of control heads, or of items on which nothing should happen [example].
        groups_x, groups_y: independent unit of each; a name in both is one group, drawn together. Both None:
            every value is independent.
    Raises:
        ValueError: an empty side, NaN, groups given for one side only.
    Source: Cliff, Psychol. Bull. 114 (1993) 494.
    """
    x, y = numbers("x", x), numbers("y", y)
    if (groups_x is None) != (groups_y is None):
        raise ValueError("groups_x, groups_y: expected both or neither. Give the independent unit of each side.")
    groups = None
    if groups_x is not None and groups_y is not None:
        group_codes(groups_x, len(x), at_least=1)
        group_codes(groups_y, len(y), at_least=1)
        groups = np.concatenate([np.asarray(groups_x), np.asarray(groups_y)])
    is_x = np.arange(len(x) + len(y)) < len(x)
    area = auroc(np.concatenate([x, y]), is_x, groups=groups, confidence=confidence).estimate
    return Estimate(2 * area.value - 1, 2 * area.lo - 1, 2 * area.hi - 1, area.n, area.n_groups)


def _dz(sums: np.ndarray) -> np.ndarray:
    n, first, second = np.moveaxis(sums, -1, 0)
    variance = (second - first**2 / n) / (n - 1)
    return np.where(variance > 0, first / n / np.sqrt(np.maximum(variance, 1e-300)), np.nan)


def _noncentral_limits(t: float, df: int, confidence: float) -> tuple[float, float]:
    """Noncentralities at which the observed t is the upper, then the lower, (1 - confidence)/2 quantile."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    tail, spread = (1 - confidence) / 2, sqrt(1 + t * t / (2 * df))
    if abs(t) > 30:
        # nct.cdf loses its digits far out in the tail; spread is the standard error of t to first order there
        half = z_value(confidence) * spread
        return t - half, t + half

    def solve(share: float) -> float:
        side = 1.0 if share < 0.5 else -1.0
        reach = 2 * spread
        while side * (nct.cdf(t, df, t + side * reach) - share) > 0:
            reach += spread
        root = brentq(lambda d: nct.cdf(t, df, d) - share, t, t + side * reach, xtol=1e-10)
        assert isinstance(root, float)
        return root

    return solve(1 - tail), solve(tail)
