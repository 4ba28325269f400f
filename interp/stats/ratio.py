"""Ratios of means over groups: Fieller's interval, and differences of two conditional rates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from interp.stats._check import Groups, UnstableRatioWarning, Values, group_codes, numbers, same_length
from interp.stats.clustered import mean_estimates
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.jackknife import ANY, Bounds, Jackknife, effective_groups
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with the two means it was made from; undefined where the denominator may be 0.

    Attributes:
        ratio:    with Fieller's interval; undefined where `refused`.
        refused:  the denominator's interval includes 0, so the set of ratios that fit the data is not an interval.
        excluded: of a refused ratio, the open range that the data do exclude (all others fit, up to infinity); None
            where they exclude nothing.
    """

    ratio: Estimate
    numerator: Estimate
    denominator: Estimate
    refused: bool
    excluded: tuple[float, float] | None = None


def ratio_of_means(numerator: Values, denominator: Values, *, groups: Groups, confidence: float = CONFIDENCE) -> Ratio:
    """mean(numerator) / mean(denominator) over the same examples: never the mean of per-example ratios.

        the interval holds every r at which the mean of numerator - r·denominator is not distinguishable from 0:
        |mean(u_r)| <= c · se(u_r),  u_r = numerator - r · denominator      Fieller
        se and c are those of the rule for means over groups (`cluster_t`); the skewness is that of u at the estimate

    Refused, NaN with a warning, where |mean denominator| <= max(2, c) · its standard error: then the set is all
    numbers, or all but a range.

    Args:
        numerator, denominator: the same examples in the same order [example].
    Raises:
        ValueError: lengths differ, NaN, one group.
    Warns:
        UnstableRatioWarning: refused.
    Source: Fieller, JRSS B 16 (1954) 175; Franz, arXiv 0710.2024.
    """
    top, bottom = numbers("numerator", numerator, at_least=2), numbers("denominator", denominator, at_least=2)
    n = same_length(numerator=top, denominator=bottom)
    codes = group_codes(groups, n)
    both = np.column_stack([top, bottom])
    means, parts = both.mean(axis=0), mean_estimates(both, codes, confidence=confidence)
    sums, effective = codes.sums(both), float(effective_groups(codes.sizes))
    pull = Jackknife.of((sums.sum(axis=0) - sums) / (n - codes.sizes[:, None]), effective)
    cov = (codes.n_groups - 1) / codes.n_groups * (pull.deviation.T @ pull.deviation)
    q = float(np.max(pull.quantile(confidence)))
    limit = max(2.0, q) * sqrt(cov[1, 1])
    if abs(means[1]) <= limit:
        warnings.warn(
            f"ratio refused: the mean denominator {parts.at(1)} is within {limit:.3g} of 0, so the ratio can be "
            "anything. Report numerator and denominator, or select examples on which the denominator is clearly not 0.",
            UnstableRatioWarning,
            stacklevel=2,
        )
        gap = _fieller(means, cov, q) if abs(means[1]) < q * sqrt(cov[1, 1]) else None
        return Ratio(Estimate.undefined(n, codes.n_groups), parts.at(0), parts.at(1), refused=True, excluded=gap)
    lo, hi = fieller_limits(means, pull.deviation, cov, effective=effective, q=q)
    ratio = Estimate(float(means[0] / means[1]), lo, hi, n, codes.n_groups)
    return Ratio(ratio, parts.at(0), parts.at(1), refused=False)


def fieller_limits(
    means: np.ndarray, deviation: np.ndarray, cov: np.ndarray, *, effective: float, q: float
) -> tuple[float, float]:
    """Fieller's limits of means[0]/means[1], each end at the reach of its own side.

    Args:
        deviation: how far each group pulls the two means up [group, 2].  cov: jackknife covariance of the two means.
        q: two-sided quantile; the denominator lies more than q standard errors from 0.
    """
    ratio = means[0] / means[1]
    linear = (deviation[:, 0] - ratio * deviation[:, 1]) / means[1]
    below, above = (float(side) for side in Jackknife.of(-linear, effective).reach(np.asarray(q)))
    # beyond `far` standard errors the limit passes infinity: the skewness term may push an end up to there, not over
    far = abs(means[1]) / sqrt(cov[1, 1]) if cov[1, 1] > 0 else inf
    ends = [_fieller(means, cov, min(reach, 0.999 * far)) for reach in (below, above)]
    assert ends[0] is not None and ends[1] is not None, "Fieller's quadratic has roots where the denominator is not 0"
    return ends[0][0], ends[1][1]


def _fieller(means: np.ndarray, cov: np.ndarray, q: float) -> tuple[float, float] | None:
    """Roots r of (m0 - r·m1)² = q² (v00 - 2 r v01 + r² v11) in order; None where there are none."""
    a = means[1] ** 2 - q * q * cov[1, 1]
    b = means[0] * means[1] - q * q * cov[0, 1]
    c = means[0] ** 2 - q * q * cov[0, 0]
    inside = b * b - a * c
    if a == 0 or inside < 0:
        return None
    root = sqrt(inside)
    low, high = sorted(((b - root) / a, (b + root) / a))
    return float(low), float(high)


def ratio_difference(
    numerator_a: Values,
    denominator_a: Values,
    numerator_b: Values,
    denominator_b: Values,
    *,
    groups: Groups,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """sum(num_a)/sum(den_a) - sum(num_b)/sum(den_b) on the same examples, all four left out or drawn together.

    For conditional rates of two systems: a commitment bias is (stereo - anti) over committed, and the two
    systems commit on different items. Undefined where either denominator is 0.

    Args:
        bounds: smallest and largest possible difference: (-1, 1) for two rates, (-2, 2) for two commitment biases.
    Raises:
        ValueError: lengths differ, NaN, one group.
    """
    named = {"num_a": numerator_a, "den_a": denominator_a, "num_b": numerator_b, "den_b": denominator_b}
    arrays = {name: numbers(name, values) for name, values in named.items()}
    same_length(**arrays)
    draws = resample_sums(
        np.column_stack(list(arrays.values())),
        lambda s: s[..., 0] / s[..., 1] - s[..., 2] / s[..., 3],
        groups=groups,
        sampling=sampling,
        counts=np.abs(arrays["den_a"]) + np.abs(arrays["den_b"]),
        bounds=bounds,
    )
    return draws.estimate()
