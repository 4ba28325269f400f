"""Means, differences and ratios with the cluster bootstrap."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Seed, UnstableRatioWarning, Values, choice, group_codes, numbers, same_length
from interp.stats.clustered import cluster_t, ratio_se
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates
from interp.stats.intervals import t_value
from interp.stats.resample import N_RESAMPLES, group_weights, resample_sums

METHODS = ("percentile", "bca", "t")


def cluster_mean(
    values: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    method: str = "percentile",
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean over examples with a cluster-bootstrap interval.

    Args:
        values: one number per example [example].
        groups: independent unit of each example [example]; None says each example is independent.
        method: `percentile`; `bca`; or `t`, the studentised bootstrap, best for few groups and skewed values.
    Raises:
        ValueError: NaN, one group, lengths differ, unknown method.
    Source: Davison & Hinkley (1997) §5.2-5.3; Cameron, Gelbach & Miller (2008) for `t` over groups.
    """
    array = numbers("values", values)
    ones = np.ones_like(array)
    return _ratio(array, ones, groups, seed, n_resamples=n_resamples, method=method, confidence=confidence)


def cluster_means(
    values: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    method: str = "percentile",
    confidence: float = CONFIDENCE,
) -> Estimates:
    """Means of many columns (layers x heads) that share their draws: values[example, ...] -> Estimates[...].

    Raises:
        ValueError: as `cluster_mean`; method `t` is for one column.
    """
    choice("method", method, ("percentile", "bca"))
    array = numbers("values", values, ndim=None)
    shape = array.shape[1:]
    columns = np.column_stack([array.reshape(len(array), -1), np.ones(len(array))])
    draws = resample_sums(columns, _means, groups=groups, seed=seed, n_resamples=n_resamples)
    out = draws.estimates(method=method, confidence=confidence)
    value, lo, hi = (part.reshape(shape) for part in (out.value, out.lo, out.hi))
    return Estimates(value, lo, hi, out.n, out.n_groups)


def paired_difference(
    a: Values,
    b: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    method: str = "percentile",
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of a - b over the same examples in the same order, with a cluster-bootstrap interval.

    Raises:
        ValueError: lengths differ, and as `cluster_mean`.
    """
    a, b = numbers("a", a), numbers("b", b)
    same_length(a=a, b=b)
    return cluster_mean(a - b, groups=groups, seed=seed, n_resamples=n_resamples, method=method, confidence=confidence)


@dataclass(frozen=True)
class Ratio:
    """A ratio of means beside the two means it was made from; undefined when the guard refused."""

    ratio: Estimate
    numerator: Estimate
    denominator: Estimate
    refused: bool


def ratio_of_means(
    numerator: Values,
    denominator: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    method: str = "percentile",
    confidence: float = CONFIDENCE,
) -> Ratio:
    """mean(numerator) / mean(denominator), both resampled together: never the mean of per-example ratios.

    Guard (Fieller): refused, NaN with a warning, when |mean denominator| < max(2, t_{G-1}) · its clustered
    standard error, that is when the denominator's interval includes 0 and the ratio's is not bounded.

    Args:
        numerator, denominator: the same examples in the same order [example].
    Raises:
        ValueError: lengths differ, NaN, one group, unknown method.
    Warns:
        UnstableRatioWarning: the guard refused.
    Source: Fieller, JRSS B 16 (1954) 175; Franz, arXiv 0710.2024.
    """
    top, bottom = numbers("numerator", numerator, at_least=2), numbers("denominator", denominator, at_least=2)
    n = same_length(numerator=top, denominator=bottom)
    codes = group_codes(groups, n)
    parts = [cluster_t(part, groups=groups, confidence=confidence) for part in (top, bottom)]
    limit = max(2.0, t_value(confidence, codes.n_groups - 1)) * ratio_se(codes.sums(bottom), codes.sizes)
    if abs(parts[1].value) <= limit:
        warnings.warn(
            f"ratio refused: the mean denominator {parts[1]} is within {limit:.3g} of 0, so the ratio can be anything. "
            "Report numerator and denominator, or select examples on which the denominator is clearly not 0.",
            UnstableRatioWarning,
            stacklevel=2,
        )
        return Ratio(Estimate.undefined(n, codes.n_groups), parts[0], parts[1], refused=True)
    ratio = _ratio(top, bottom, groups, seed, n_resamples=n_resamples, method=method, confidence=confidence)
    return Ratio(ratio, parts[0], parts[1], refused=False)


def ratio_difference(
    numerator_a: Values,
    denominator_a: Values,
    numerator_b: Values,
    denominator_b: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    method: str = "percentile",
    confidence: float = CONFIDENCE,
) -> Estimate:
    """sum(num_a)/sum(den_a) - sum(num_b)/sum(den_b) on the same examples, all four resampled together.

    For conditional rates of two systems: a commitment bias is (stereo - anti) over committed, and the two
    systems commit on different items. Undefined where either denominator is 0.

    Raises:
        ValueError: lengths differ, NaN, one group; method `t` is not offered.
    """
    choice("method", method, ("percentile", "bca"))
    named = {"num_a": numerator_a, "den_a": denominator_a, "num_b": numerator_b, "den_b": denominator_b}
    arrays = {name: numbers(name, values) for name, values in named.items()}
    same_length(**arrays)
    draws = resample_sums(
        np.column_stack(list(arrays.values())),
        lambda s: s[..., 0] / s[..., 1] - s[..., 2] / s[..., 3],
        groups=groups,
        seed=seed,
        n_resamples=n_resamples,
    )
    return draws.estimate(method=method, confidence=confidence)


def _means(sums: np.ndarray) -> np.ndarray:
    return sums[..., :-1] / sums[..., -1:]


def _ratio(
    top: np.ndarray,
    bottom: np.ndarray,
    groups: Groups,
    seed: Seed,
    *,
    n_resamples: int,
    method: str,
    confidence: float,
) -> Estimate:
    choice("method", method, METHODS)
    if method == "t":
        return _student_ratio(top, bottom, groups, seed, n_resamples=n_resamples, confidence=confidence)
    columns = np.column_stack([top, bottom])
    draws = resample_sums(columns, lambda s: s[..., 0] / s[..., 1], groups=groups, seed=seed, n_resamples=n_resamples)
    return draws.estimate(method=method, confidence=confidence)


def _student_ratio(
    top: np.ndarray, bottom: np.ndarray, groups: Groups, seed: Seed, *, n_resamples: int, confidence: float
) -> Estimate:
    """Bootstrap-t: quantiles of (r* - r)/se*, with se* from the squares of the resampled group residuals."""
    codes = group_codes(groups, len(top))
    a, b, g = codes.sums(top), codes.sums(bottom), codes.n_groups
    moments = np.column_stack([a, b, a * a, a * b, b * b])
    r, se = a.sum() / b.sum(), ratio_se(a, b)
    weights = group_weights(g, n_resamples=n_resamples, seed=seed)
    s = np.concatenate([w @ moments for w in weights])
    r_star = s[:, 0] / s[:, 1]
    squares = np.maximum(s[:, 2] - 2 * r_star * s[:, 3] + r_star**2 * s[:, 4], 0.0)
    se_star = np.sqrt(g / (g - 1) * squares) / np.abs(s[:, 1])
    kept = se_star > 1e-12 * (abs(r) + se)
    if not kept.any():
        raise ValueError(
            "method 't': all groups have the same mean, so no standard error exists. Use wilson_clustered()."
        )
    t_star = (r_star[kept] - r) / se_star[kept]
    low, high = np.quantile(t_star, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(float(r), float(r - high * se), float(r - low * se), len(top), g)
