"""Means and differences of means over groups; by the rule, or by a bootstrap of groups."""

from __future__ import annotations

import numpy as np

from interp.stats._check import Groups, Values, group_codes, numbers, same_length
from interp.stats.clustered import effective_n, effective_t, mean_estimates, rate_bounds, rate_n, warn_of_means
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates, Sampling
from interp.stats.intervals import z_value
from interp.stats.jackknife import ANY, Bounds
from interp.stats.paired import PairedTable, paired_limits
from interp.stats.resample import resample_sums


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
        groups: independent unit of each example [example]; None says each example is independent.
        bounds: smallest and largest possible value, as in `cluster_t`.
        sampling: method `auto`, the rule, is the same as `cluster_t`.
    Raises:
        ValueError: NaN, one group, lengths differ, a value outside the bounds.
    Source: `cluster_t`; Davison & Hinkley (1997) §5.2-5.3 for the bootstrap.
    """
    bounds = rate_bounds(values, bounds)
    array = numbers("values", values)
    found = _means(array[:, None], groups, bounds, sampling).at(0)
    warn_of_means(found, stacklevel=3)
    return found


def cluster_means(
    values: Values,
    *,
    groups: Groups,
    bounds: Bounds = ANY,
    sampling: Sampling = Sampling(),
) -> Estimates:
    """Means of many columns (layers x heads) over the same groups: values[example, ...] -> Estimates[...].

    Each interval is pointwise: whoever looks for the largest of the columns reads `simultaneous_band`.

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
    """
    a, b = numbers("a", a), numbers("b", b)
    same_length(a=a, b=b)
    if sampling.method == "auto" and np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        return difference_of_rates(a, b, groups=groups, confidence=sampling.confidence)
    found = _means((a - b)[:, None], groups, bounds, sampling).at(0)
    warn_of_means(found, stacklevel=3)
    return found


def difference_of_rates(
    a: np.ndarray, b: np.ndarray, *, groups: Groups, items: Groups = None, confidence: float = CONFIDENCE
) -> Estimate:
    """`paired_difference` of two 0/1 columns, worth at most as many examples as there are items.

    Where most items differ the same way (rates of 0.97 and 0.03), so that few groups show an exception, the sample is
    worth `rate_n`; otherwise Newcombe's interval covers as it is.
    """
    n = len(a)
    codes = group_codes(groups, n)
    n_items = n if items is None else group_codes(items, n, at_least=1).n_groups
    table = PairedTable.of(a, b)
    worth = rate_n if max(table.only_a, table.only_b) > n / 2 else effective_n
    share = worth(a - b, codes, at_most=n_items) / n
    cells = [share * count for count in (table.both, table.only_a, table.only_b, table.neither)]
    z = z_value(confidence) if groups is None else effective_t(codes, confidence)
    found = Estimate(*paired_limits(*cells, z=z), n=n, n_groups=codes.n_groups)
    warn_of_means(found, stacklevel=4)
    return found


def _means(columns: np.ndarray, groups: Groups, bounds: Bounds, sampling: Sampling) -> Estimates:
    if sampling.method == "auto":
        return mean_estimates(columns, group_codes(groups, len(columns)), bounds=bounds, confidence=sampling.confidence)
    counted = np.column_stack([columns, np.ones(len(columns))])
    draws = resample_sums(counted, lambda s: s[..., :-1] / s[..., -1:], groups=groups, sampling=sampling)
    return draws.estimates()
