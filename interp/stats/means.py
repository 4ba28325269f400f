"""Means, rates and differences of means over groups: standard errors, the rule, clustered Wilson, bootstrap."""

from __future__ import annotations

import warnings
from math import sqrt

import numpy as np

from interp.stats.check import (
    CHECKED_GROUPS,
    FewGroupsWarning,
    GroupCodes,
    Groups,
    NoWidthWarning,
    Values,
    binary,
    group_codes,
    numbers,
    same_length,
)
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates, Sampling
from interp.stats.intervals import PairedTable, paired_limits, t_value, wilson_limits, z_value
from interp.stats.jackknife import ANY, Bounds, Jackknife, effective_groups, jackknife_limits
from interp.stats.resample import resample_sums


def cluster_se(values: Values, *, groups: Groups) -> float:
    """Standard error of a mean over examples when only the groups are independent.

        se = sqrt( G/(G-1) · sum_g (S_g - n_g·mean)² ) / n,   S_g = sum of group g

    With groups=None it is the usual sd/sqrt(n).

    Args:
        values: one number per example [example].
        groups: group of each example [example], or None where every example is independent.
    Raises:
        ValueError: fewer than 2 groups, NaN, lengths differ.
    Source: linearisation (Taylor) estimator, Cochran, *Sampling Techniques* (1977) §6.3; equals the
        cluster-robust standard error of a regression on a constant.
    """
    array = numbers("values", values, at_least=2)
    codes = group_codes(groups, len(array))
    return ratio_se(codes.sums(array), codes.sizes)


def ratio_se(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Standard error of sum(numerator)/sum(denominator) from group sums [group]: delta method over groups."""
    n_groups = len(numerator)
    residual = numerator - numerator.sum() / denominator.sum() * denominator
    return sqrt(n_groups / (n_groups - 1) * float(residual @ residual)) / abs(float(denominator.sum()))


def design_effect(values: Values, *, groups: Groups) -> float:
    """How many times the variance of the mean grows because examples come in groups: (clustered se / iid se)².

    An interval that ignores the groups is sqrt(design effect) too narrow; NaN where all values are equal.

    Raises:
        ValueError: as `cluster_se`.
    Source: Kish, *Survey Sampling* (1965) §5.4.
    """
    iid = cluster_se(values, groups=None)
    return (cluster_se(values, groups=groups) / iid) ** 2 if iid > 0 else float("nan")


def cluster_t(values: Values, *, groups: Groups, bounds: Bounds = ANY, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over examples with the interval of the rule: jackknife over groups, Student on effective groups, skew.

        mean - below·se, mean + above·se      see `interp.stats.jackknife`; se = cluster_se where groups are equal

    Values that are 0 and 1, and none other, are a rate: `wilson_clustered`. Values that are all 0, or all 1,
    count as a rate only if they are booleans or have the bounds (0, 1).

    Args:
        values: one number per example [example].
        groups: independent unit of each example [example]; None: each example is independent.
        bounds: smallest and largest possible value, where there are such: (0, 1) for shares and probabilities. They
            give an interval also where no group differs.
    Raises:
        ValueError: as `cluster_se`; a value outside the bounds.
    Warns:
        NoWidthWarning: no group differs and there are no bounds, so there is no interval (NaN).
        FewGroupsWarning: fewer than 6 groups.
    Source: Efron & Stein (1981); Carter, Schnepel & Steigerwald (2017); Johnson (1978).
    """
    bounds = rate_bounds(values, bounds)
    array = numbers("values", values, at_least=2)
    codes = group_codes(groups, len(array))
    estimate = mean_estimates(array[:, None], codes, bounds=bounds, confidence=confidence).at(0)
    warn_of_means(estimate, stacklevel=3)
    return estimate


def rate_bounds(values: Values, bounds: Bounds) -> Bounds:
    """(0, 1) for booleans, otherwise the bounds of the caller."""
    return (0.0, 1.0) if np.asarray(values).dtype == bool else bounds


def mean_estimates(
    columns: np.ndarray, codes: GroupCodes, *, bounds: Bounds = ANY, confidence: float = CONFIDENCE
) -> Estimates:
    """The rule for means of many columns at once: columns[example, column] -> Estimates[column]."""
    if np.any(columns < bounds[0]) or np.any(columns > bounds[1]):
        raise ValueError(
            f"values: expected numbers in [{bounds[0]}, {bounds[1]}], got [{columns.min():g}, {columns.max():g}]. "
            "Give the smallest and largest possible value as bounds."
        )
    n, sizes = len(columns), codes.sizes[:, None]
    sums, value, effective = codes.sums(columns), columns.mean(axis=0), float(effective_groups(codes.sizes))
    left_out = (sums.sum(axis=0) - sums) / (n - sizes)
    lo, hi = jackknife_limits(value, left_out, effective=effective, confidence=confidence, bounds=bounds)
    for j in np.flatnonzero((columns.min(axis=0) == 0) & (columns.max(axis=0) == 1)):
        if np.isin(columns[:, j], (0.0, 1.0)).all():
            lo[j], hi[j] = _wilson(columns[:, j], codes, at_most=n, confidence=confidence)
    return Estimates(value, lo, hi, n, codes.n_groups)


def warn_of_means(estimate: Estimate | Estimates, *, stacklevel: int) -> None:
    """Warn where means rest on few groups, or one of them has no interval."""
    if estimate.n_groups < CHECKED_GROUPS:
        warnings.warn(
            f"interval from {estimate.n_groups} independent units; coverage was verified for {CHECKED_GROUPS} or more.",
            FewGroupsWarning,
            stacklevel=stacklevel,
        )
    if isinstance(estimate, Estimate) and not estimate.has_interval:
        warnings.warn(
            f"all groups have the same value, {estimate.value:g}: the data show no spread, which does not mean that "
            "the value is certain. For a rate, report wilson_clustered(); for a number with a known range, give its "
            "bounds.",
            NoWidthWarning,
            stacklevel=stacklevel,
        )


def effective_n(values: np.ndarray, codes: GroupCodes, *, at_most: int | None = None) -> float:
    """Number of independent examples that carry as much information, at most n or `at_most`:

        iid variance of the mean / its jackknife variance over groups · n

    The sample cannot show a design effect when all values are equal: then the effective number of groups.
    """
    n = len(values)
    most = float(n if at_most is None else at_most)
    if values.min() == values.max():
        return min(most, float(effective_groups(codes.sizes)))
    centred, sums = values - values.mean(), codes.sums(values)
    left_out = (sums.sum() - sums) / (n - codes.sizes)
    clustered = float(Jackknife.of(left_out, 1.0).se) ** 2
    return min(most, n * float(centred @ centred) / (n - 1) / n / clustered) if clustered > 0 else most


def rate_n(values: np.ndarray, codes: GroupCodes, *, at_most: int | None = None) -> float:
    """`effective_n` of a rate, nearer to the effective number of groups the fewer of them have an exception.

        1/n = (1 - m)/effective_n + m/k,   m = ½·(1/(w + 1) - 1/(G + 1)),   k effective groups of G
        w: groups with a value other than the commonest

    Failures in few groups carry little information about how they cluster: without m the intervals of rates of
    0.97 and 0.99 covered 0.88 to 0.91 of the time, in 40 and 100 unequal groups, and with it 0.94 to 0.98.
    """
    n = effective_n(values, codes, at_most=at_most)
    if codes.n_groups == len(values):
        return n
    kinds, counts = np.unique(values, return_counts=True)
    w = len(np.unique(codes.code[values != kinds[counts.argmax()]]))
    m = (1 / (w + 1) - 1 / (codes.n_groups + 1)) / 2
    return min(n, 1 / ((1 - m) / n + m / float(effective_groups(codes.sizes))))


def effective_t(codes: GroupCodes, confidence: float) -> float:
    """Two-sided Student quantile on the effective groups minus one degrees of freedom."""
    return t_value(confidence, max(1.0, float(effective_groups(codes.sizes)) - 1))


def wilson_clustered(
    right: Values, *, groups: Groups, items: Groups = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A rate over grouped items with Wilson's interval at the effective sample size.

        n_eff = iid variance / jackknife variance over groups, times n; at most the number of items; brought nearer to
                the number of groups where few of them have an exception (`rate_n`)
        all right or all wrong: n_eff = effective groups, (sum sizes)²/sum sizes²
        z becomes Student's quantile on the effective groups minus one degrees of freedom

    Has width at 0 % and 100 %, where a bootstrap collapses to a point: 100 of 100 in 10 groups does not
    exclude 0.7. With groups=None it is `wilson`.

    Args:
        items: which item each value answers, where several replies to one item are among them: however little they
            agree, they are not more than one item. None: every value is an item.
    Raises:
        ValueError: no items, values other than 0/1, one group, lengths differ; several replies to an item, no groups.
    Source: Korn & Graubard, Survey Methodology 24 (1998) 193 (effective sample size); Wilson (1927).

    Example:
        >>> from interp.stats import wilson_clustered
        >>> print(wilson_clustered([1] * 20, groups=[item // 2 for item in range(20)]))
        1.000 [0.661, 1.000] (n=20, 10 groups)
    """
    array = binary("right", right).astype(np.float64)
    p, n = float(array.mean()), len(array)
    n_items = n if items is None else group_codes(items, n, at_least=1).n_groups
    if groups is None:
        if n_items < n:
            raise ValueError(f"groups: {n} replies to {n_items} items are not independent. Give groups, or the items.")
        return Estimate(p, *wilson_limits(p, n, z_value(confidence)), n=n, n_groups=n)
    codes = group_codes(groups, n)
    return Estimate(p, *_wilson(array, codes, at_most=n_items, confidence=confidence), n=n, n_groups=codes.n_groups)


def _wilson(array: np.ndarray, codes: GroupCodes, *, at_most: int, confidence: float) -> tuple[float, float]:
    is_iid = codes.n_groups == len(array) == at_most
    n, t = (
        (len(array), z_value(confidence))
        if is_iid
        else (rate_n(array, codes, at_most=at_most), effective_t(codes, confidence))
    )
    return wilson_limits(float(array.mean()), n, t)


def rate_on(event: Values, subset: Values, *, groups: Groups, confidence: float = CONFIDENCE) -> Estimate:
    """Rate of an event on a subset of the examples: undefined on an empty one, interval [0, 1] inside one group.

    A rate inside a single group carries no information about other groups, so its interval excludes nothing.

    Args:
        event, subset: 0/1 [example];  groups: of all examples, not only of the subset.
    Raises:
        ValueError: lengths differ, values other than 0/1, NaN.
    """
    event, subset = binary("event", event), binary("subset", subset)
    codes = group_codes(groups, same_length(event=event, subset=subset), at_least=1)
    members = codes.code[subset]
    n, n_groups = len(members), len(np.unique(members))
    if n == 0:
        return Estimate.undefined()
    if groups is not None and n_groups < 2:
        return Estimate(float(event[subset].mean()), 0.0, 1.0, n, n_groups)
    return wilson_clustered(event[subset], groups=None if groups is None else members, confidence=confidence)


def cluster_mean(
    values: Values,
    *,
    groups: Groups,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Mean over examples with an interval over groups.

    Args:
        values: one number per example [example].
        groups: independent unit of each example [example]; None: each example is independent.
        bounds: smallest and largest possible value, as in `cluster_t`.
        sampling: method `auto`, the rule, is the same as `cluster_t`.
    Raises:
        ValueError: NaN, one group, lengths differ, a value outside the bounds.
    Source: `cluster_t`; Davison & Hinkley (1997) §5.2-5.3 for the bootstrap.

    Example:
        >>> from interp.stats import cluster_mean
        >>> effects, documents = [0.2, 0.4, 0.1, 0.5, 0.3, 0.6, 0.2, 0.4, 0.9, 0.7, 0.1, 0.3], list("aabbccddeeff")
        >>> print(cluster_mean(effects, groups=documents))
        0.392 [0.166, 0.919] (n=12, 6 groups)
    """
    bounds = rate_bounds(values, bounds)
    array = numbers("values", values)
    estimate = _means(array[:, None], groups, bounds, sampling).at(0)
    warn_of_means(estimate, stacklevel=3)
    return estimate


def cluster_means(
    values: Values,
    *,
    groups: Groups,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Estimates:
    """Means of many columns (layers x heads) over the same groups: values[example, ...] -> Estimates[...].

    Each interval is pointwise; to look for the largest of the columns use `simultaneous_band`.

    Args:
        bounds: smallest and largest possible value, as in `cluster_t`. Without them a column in which no group differs
            has no interval (NaN).
    Raises:
        ValueError: as `cluster_mean`.
    """
    bounds = rate_bounds(values, bounds)
    array = numbers("values", values, ndim=None)
    shape = array.shape[1:]
    out = _means(array.reshape(len(array), -1), groups, bounds, sampling)
    warn_of_means(out, stacklevel=3)
    value, lo, hi = (part.reshape(shape) for part in (out.value, out.lo, out.hi))
    return Estimates(value, lo, hi, out.n, out.n_groups)


def paired_difference(
    a: Values,
    b: Values,
    *,
    groups: Groups,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Mean of a - b over the same examples in the same order, with an interval over groups.

    Two 0/1 columns have Newcombe's paired interval at the effective sample size of a - b, with Student's quantile on
    the effective groups: it has width also where all items are right against all wrong, or none is discordant.

    Args:
        bounds: smallest and largest possible difference of numbers other than 0/1, as in `cluster_t`.
    Raises:
        ValueError: lengths differ, and as `cluster_mean`.
    Source: `cluster_t`; `newcombe_paired`, with the effective sample size of `wilson_clustered`.

    Example:
        >>> from interp.stats import paired_difference
        >>> a, b = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1] * 4, [1, 0, 1, 0, 0, 1, 1, 0, 1, 1] * 4
        >>> print(paired_difference(a, b, groups=[item // 4 for item in range(40)]))
        0.300 [0.120, 0.467] (n=40, 10 groups)
    """
    a, b = numbers("a", a), numbers("b", b)
    same_length(a=a, b=b)
    if sampling.method == "auto" and np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        return difference_of_rates(a, b, groups=groups, confidence=sampling.confidence)
    estimate = _means((a - b)[:, None], groups, bounds, sampling).at(0)
    warn_of_means(estimate, stacklevel=3)
    return estimate


def difference_of_rates(
    a: np.ndarray, b: np.ndarray, *, groups: Groups, items: Groups = None, confidence: float = CONFIDENCE
) -> Estimate:
    """`paired_difference` of two 0/1 columns; the effective sample size is at most the number of items.

    Where most items differ the same way (rates of 0.97 and 0.03), so that few groups show an exception, the
    effective sample size is `rate_n`; otherwise Newcombe's interval covers at `effective_n`.
    """
    n = len(a)
    codes = group_codes(groups, n)
    n_items = n if items is None else group_codes(items, n, at_least=1).n_groups
    table = PairedTable.of(a, b)
    effective = rate_n if max(table.only_a, table.only_b) > n / 2 else effective_n
    share = effective(a - b, codes, at_most=n_items) / n
    cells = [share * count for count in (table.both, table.only_a, table.only_b, table.neither)]
    z = z_value(confidence) if groups is None else effective_t(codes, confidence)
    estimate = Estimate(*paired_limits(*cells, z=z), n=n, n_groups=codes.n_groups)
    warn_of_means(estimate, stacklevel=4)
    return estimate


def _means(columns: np.ndarray, groups: Groups, bounds: Bounds, sampling: Sampling) -> Estimates:
    if sampling.method == "auto":
        return mean_estimates(columns, group_codes(groups, len(columns)), bounds=bounds, confidence=sampling.confidence)
    counted = np.column_stack([columns, np.ones(len(columns))])
    draws = resample_sums(counted, lambda s: s[..., :-1] / s[..., -1:], groups=groups, sampling=sampling)
    return draws.estimates()
