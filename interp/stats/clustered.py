"""Closed-form intervals for examples that come in groups: standard errors, design effect, clustered Wilson."""

from __future__ import annotations

from math import sqrt

import numpy as np

from interp.stats._check import GroupCodes, Groups, Values, binary, group_codes, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import t_value, wilson_limits, z_value


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


def cluster_t(values: Values, *, groups: Groups, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over examples with a Student interval on G - 1 degrees of freedom: the choice below 20 groups.

        mean ± t_{G-1} · cluster_se

    Raises:
        ValueError: as `cluster_se`.
    Source: Cameron, Gelbach & Miller, Rev. Econ. Stat. 90 (2008) 414.
    """
    array = numbers("values", values, at_least=2)
    codes = group_codes(groups, len(array))
    mean = float(array.mean())
    half = t_value(confidence, codes.n_groups - 1) * ratio_se(codes.sums(array), codes.sizes)
    return Estimate(mean, mean - half, mean + half, len(array), codes.n_groups)


def effective_n(values: np.ndarray, codes: GroupCodes, *, at_most: int | None = None) -> float:
    """Number of independent examples that carry as much information: n / design effect, at most n or `at_most`.

    The sample cannot show a design effect when all values are equal; each group then counts once.
    """
    n = len(values)
    most = float(n if at_most is None else at_most)
    if values.min() == values.max():
        return float(codes.n_groups)
    centred = values - values.mean()
    iid_variance = float(centred @ centred) / (n - 1) / n
    clustered_variance = ratio_se(codes.sums(values), codes.sizes) ** 2
    return min(most, n * iid_variance / clustered_variance) if clustered_variance > 0 else most


def wilson_clustered(
    right: Values, *, groups: Groups, items: Groups = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A rate over grouped items with Wilson's interval at the effective sample size.

        n_eff = n / max(1, design effect), at most the number of items;
        all right or all wrong: n_eff = number of groups; z becomes t_{G-1} where groups are given

    Has width at 0 % and 100 %, where a bootstrap collapses to a point: 100 of 100 in 10 groups does not
    exclude 0.7. With groups=None it is `wilson`.

    Args:
        items: which item each value answers, where several replies to one item are among them: however little they
            agree, they are not more than one item. None: every value is an item.
    Raises:
        ValueError: no items, values other than 0/1, one group, lengths differ; several replies to an item, no groups.
    Source: Korn & Graubard, Survey Methodology 24 (1998) 193 (effective sample size); Wilson (1927).
    """
    array = binary("right", right).astype(np.float64)
    p, n = float(array.mean()), len(array)
    n_items = n if items is None else group_codes(items, n, at_least=1).n_groups
    if groups is None:
        if n_items < n:
            raise ValueError(f"groups: {n} replies to {n_items} items are not independent. Give groups, or the items.")
        return Estimate(p, *wilson_limits(p, n, z_value(confidence)), n=n, n_groups=n)
    codes = group_codes(groups, n)
    limits = wilson_limits(p, effective_n(array, codes, at_most=n_items), t_value(confidence, codes.n_groups - 1))
    return Estimate(p, *limits, n=n, n_groups=codes.n_groups)


def rate_on(event: Values, subset: Values, *, groups: Groups, confidence: float = CONFIDENCE) -> Estimate:
    """Rate of an event on a subset of the examples: undefined on an empty one, interval [0, 1] inside one group.

    A rate inside a single group says nothing about other groups, so its interval must not exclude anything.

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
