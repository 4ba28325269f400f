"""Functions of several means over the same groups: ratios, weighted sums of rates, split changes, d_z."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from interp.stats.check import Groups, Real, UnstableRatioWarning, Values, binary, group_codes, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.intervals import z_value
from interp.stats.jackknife import ANY, Bounds, Jackknife, effective_groups
from interp.stats.means import mean_estimates, rate_on
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with its numerator and denominator; undefined where the denominator may be 0.

    Attributes:
        ratio:    with Fieller's interval; undefined where `refused`.
        refused:  the denominator's interval includes 0, so the set of ratios that fit the data is not an interval.
        excluded: for a refused ratio, the open range that the data do exclude (all others fit, up to infinity); None
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

    Example:
        >>> from interp.stats import ratio_of_means
        >>> drop, margin = [1.0, 2.0, 1.5, 2.5, 1.0, 2.2], [2.0, 4.0, 3.5, 4.5, 2.1, 4.0]
        >>> print(ratio_of_means(drop, margin, groups=None).ratio)
        0.507 [0.414, 0.558] (n=6)
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


Part = tuple[Values, float]


def rate_contrast(
    event: Values,
    parts: Sequence[Part],
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Sum of rates of an event on parts of the examples, each with its weight.

        value = sum_k w_k · mean(event on part k)

    All parts are left out together, group by group, so that examples of one group stay together even where they lie
    in different parts. Where a rate is 0 or 1 the sample shows too little spread: then the union with the MOVER
    interval of the parts' clustered Wilson intervals, half width sqrt(sum_k (w_k · half_k)²).

    Args:
        event: 0/1 [example].
        parts: (0/1 membership [example], weight); parts may not be empty.
        groups: independent unit of each example, or None.
    Raises:
        ValueError: an empty part, lengths differ, one group, values other than 0/1.
    Source: `interp.stats.jackknife`; Zou & Donner, Stat. Med. 27 (2008) 1693.
    """
    happened = binary("event", event)
    masks, weights = [binary("part", mask) for mask, _ in parts], np.array([weight for _, weight in parts])
    for k, mask in enumerate(masks):
        same_length(event=happened, part=mask)
        if not mask.any():
            raise ValueError(f"parts: part {k} has no examples, so it has no rate. Leave it out.")
    columns = np.column_stack([column for mask in masks for column in (happened & mask, mask)]).astype(np.float64)
    draws = resample_sums(
        columns,
        lambda s: (s[..., 0::2] / s[..., 1::2]) @ weights,
        groups=groups,
        sampling=sampling,
        counts=np.abs(weights) @ np.array(masks, dtype=np.float64),
        bounds=(float(np.minimum(weights, 0).sum()), float(np.maximum(weights, 0).sum())),
    )
    estimate = draws.estimate()
    rates = [rate_on(happened, mask, groups=groups, confidence=sampling.confidence) for mask in masks]
    if all(rate.value not in (0.0, 1.0) for rate in rates):
        return estimate
    sides = [(w * (r.lo - r.value), w * (r.hi - r.value)) for w, r in zip(weights, rates, strict=True)]
    below = sqrt(sum(min(side) ** 2 for side in sides))
    above = sqrt(sum(max(side) ** 2 for side in sides))
    value = estimate.value
    return Estimate(
        value, min(estimate.lo, value - below), max(estimate.hi, value + above), estimate.n, estimate.n_groups
    )


@dataclass(frozen=True)
class Decomposition:
    """Change of a product, after - before = first + second exactly, with the interval of each part."""

    first: Estimate
    second: Estimate
    total: Estimate


def midpoint_decomposition(
    first_before: Real, second_before: Real, first_after: Real, second_after: Real
) -> tuple[float, float]:
    """(part of the first factor, part of the second) of a change of a product; their sum is the change.

        x1·y1 - x0·y0 = (x1 - x0)·(y0 + y1)/2 + (x0 + x1)/2·(y1 - y0)      exact, and free of order

    With coverage and commitment bias .359, .279 -> .217, .333: -0.0435 and +0.0156.

    Source: Shapley value of a two-factor product; Das Gupta, *Standardization and Decomposition* (1993) §2.
    """
    first = (first_after - first_before) * (second_before + second_after) / 2
    second = (first_before + first_after) / 2 * (second_after - second_before)
    return first, second


def decompose_change(
    before: Values,
    after: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Decomposition:
    """Midpoint decomposition of the change of x·y between two systems on the same items, resampled in pairs.

        x = sum(middle)/sum(outer),  y = sum(inner)/sum(middle),  so x·y = sum(inner)/sum(outer)

    For the bias score: outer = 1 for every ambiguous item, middle = committed, inner = +1 stereotyped,
    -1 anti-stereotyped, 0 otherwise.

    Where 0 <= middle <= outer and |inner| <= middle, the parts have the ranges [-1, 1], [-2, 2] and [-2, 2], which give
    an interval also where nothing changed in any group.

    Args:
        before, after: columns (outer, middle, inner) of the same items in the same order [example, 3].
        groups: independent unit of each item (the story), or None.
    Raises:
        ValueError: lengths differ, not three columns, NaN, one group, a system with sum(middle) = 0.
    Source: `midpoint_decomposition`; intervals by the rule of `interp.stats.jackknife`.
    """
    before, after = numbers("before", before, ndim=2), numbers("after", after, ndim=2)
    same_length(before=before, after=after)
    for name, columns in (("before", before), ("after", after)):
        if columns.shape[1] != 3:
            raise ValueError(f"{name}: expected 3 columns (outer, middle, inner), got {columns.shape[1]}.")
        if columns[:, 1].sum() == 0 or columns[:, 0].sum() == 0:
            raise ValueError(
                f"{name}: expected sum(outer) and sum(middle) other than 0, got {columns[:, 0].sum():g} and "
                f"{columns[:, 1].sum():g}: the second factor is 0/0. Report the change of x alone."
            )
    columns = np.column_stack([before, after])
    draws = resample_sums(columns, _parts, groups=groups, sampling=sampling, bounds=_bounds(before, after))
    out = draws.estimates()
    return Decomposition(out.at(0), out.at(1), out.at(2))


def _bounds(before: np.ndarray, after: np.ndarray) -> Bounds:
    """Ranges of the three parts where x is a share and y a signed share; none otherwise."""
    outer, middle, inner = np.concatenate([before, after]).T
    if (middle < 0).any() or (middle > outer).any() or (np.abs(inner) > middle).any():
        return ANY
    most = np.array([1.0, 2.0, 2.0])
    return -most, most


def _parts(sums: np.ndarray) -> np.ndarray:
    outer0, middle0, inner0, outer1, middle1, inner1 = np.moveaxis(sums, -1, 0)
    x0, y0, x1, y1 = middle0 / outer0, inner0 / middle0, middle1 / outer1, inner1 / middle1
    first, second = (x1 - x0) * (y0 + y1) / 2, (x0 + x1) / 2 * (y1 - y0)
    return np.stack([first, second, first + second], axis=-1)


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
