"""Two members on the same items: accuracies, difference, tests, equivalence; several pairs or studies pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.stats.check import GroupCodes, Groups, Real, Values, binary, group_codes, level, numbers, same_length
from interp.stats.equivalence import MARGIN, Equivalence, tost_paired
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.intervals import McNemar, PairedTable, mcnemar, newcombe_paired, t_value
from interp.stats.jackknife import RULE
from interp.stats.mean_test import mean_test
from interp.stats.means import difference_of_rates, paired_difference, wilson_clustered

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Comparison:
    """Accuracies of two members on the same items and the statements that their difference supports.

    Attributes:
        a, b:         accuracies, clustered Wilson intervals (plain Wilson where items are independent).
        difference:   a - b, Newcombe's paired interval, items taken as independent.
        difference_groups: a - b, Newcombe's at the effective sample size over groups (`paired_difference`); the same
            object where groups=None.
        interval:     kind of interval that `difference_groups` has, for the column of the table.
        test:         exact McNemar on the discordant items.
        p_groups:     the same question with groups as the independent unit (`mean_test` of the differences).
        equivalence:  two one-sided tests at the margin, clustered.
    """

    table: PairedTable
    a: Estimate
    b: Estimate
    difference: Estimate
    difference_groups: Estimate
    interval: str
    test: McNemar
    p_groups: float
    equivalence: Equivalence

    def _repr_html_(self) -> str:
        from interp.show import html_table, interval, p_value

        sides = [interval(e.value, e.lo, e.hi) for e in (self.a, self.b)]
        gap = self.difference_groups
        line = [
            *sides,
            interval(gap.value, gap.lo, gap.hi, signed=True),
            p_value(self.p_groups),
            p_value(self.test.p),
            self.equivalence.wording,
            f"{gap.n} ({gap.n_groups})",
        ]
        head = ["a [95 %]", "b [95 %]", "a − b [95 %]", "p (groups)", "McNemar p (items)", "equivalence", "n (groups)"]
        return html_table(head, [line])


def compare_paired(
    a: Values,
    b: Values,
    *,
    groups: Groups,
    items: Groups = None,
    margin: Real = MARGIN,
    sampling: Sampling = Sampling(),
) -> Comparison:
    """Compare two members that answered the same items.

    Args:
        a, b: whether each item was answered right [example], same order; an unparsed answer is wrong.
        groups: procedure, template or subject of each item; None where items are independent.
        items:  which item each answer is to, where items were asked several times; their group holds them all.
    Raises:
        ValueError: lengths differ, fewer than 2 items or groups, values other than 0/1.
    Source: each part names its own.

    Example:
        >>> from interp.stats import compare_paired
        >>> a, b = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1] * 4, [1, 0, 1, 0, 0, 1, 1, 0, 1, 1] * 4
        >>> found = compare_paired(a, b, groups=[item // 4 for item in range(40)])
        >>> print(found.difference_groups, found.equivalence)
        0.300 [0.120, 0.467] (n=40, 10 groups) not equivalent at margin 0.05
    """
    a, b = binary("a", a, at_least=2), binary("b", b, at_least=2)
    same_length(a=a, b=b)
    group_codes(groups, len(a))
    confidence = sampling.confidence
    table = PairedTable.of(a, b)
    test, iid = mcnemar(table.only_a, table.only_b), newcombe_paired(table, confidence=confidence)
    clustered, p_groups, kind = iid, test.p, "Newcombe, paired"
    if groups is not None:
        kind = "Newcombe at the effective n"
        left, right = a.astype(np.float64), b.astype(np.float64)
        clustered = difference_of_rates(left, right, groups=groups, items=items, confidence=confidence)
        if table.only_a + table.only_b:
            p_groups = float(mean_test(a.astype(np.float64) - b, groups=groups, seed=sampling.seed).p)
    return Comparison(
        table=table,
        a=wilson_clustered(a, groups=groups, items=items, confidence=confidence),
        b=wilson_clustered(b, groups=groups, items=items, confidence=confidence),
        difference=iid,
        difference_groups=clustered,
        interval=kind,
        test=test,
        p_groups=p_groups,
        equivalence=tost_paired(a, b, groups=groups, margin=margin, alpha=round(1 - confidence, 12)),
    )


@dataclass(frozen=True)
class ItemComparison:
    """Two members on the same items, each item weighing the same however often it was asked.

    Attributes:
        a, b:       means over items of the share of hits.
        difference: a - b with its paired interval; `interval` names its kind.
        p:          groups as the unit (`mean_test`; exact McNemar where every item is its own and was asked once).
        only_a, only_b: items whose share of hits is higher for the one or the other.
    """

    a: float
    b: float
    difference: Estimate
    interval: str
    p: float
    only_a: int
    only_b: int


def compare_items(
    a: Values, b: Values, *, items: Groups, groups: Groups, sampling: Sampling = Sampling()
) -> ItemComparison:
    """Compare two members that answered the same items, once or several times each.

        difference = mean over items of (mean over replies of a) - (mean over replies of b)

    Asked once, it is `compare_paired`. Asked more often, the interval is that of the mean of the items' differences of
    shares, by group (by item without groups), with the range [-1, 1].

    Args:
        a, b:   whether each reply is a hit [reply], same order of items.
        items:  item of each reply; None where every reply is an item.
        groups: independent unit of each reply, the same for all replies to an item; None where items are independent.
    Raises:
        ValueError: lengths differ, fewer than 2 items or groups, values other than 0/1, an item in two groups.
    """
    a, b = binary("a", a, at_least=2).astype(float), binary("b", b, at_least=2).astype(float)
    n = same_length(a=a, b=b)
    codes = group_codes(items, n)
    if codes.n_groups == n:
        compared, counts = compare_paired(a, b, groups=groups, sampling=sampling), PairedTable.of(a, b)
        return ItemComparison(
            float(a.mean()),
            float(b.mean()),
            compared.difference_groups,
            compared.interval,
            compared.p_groups,
            counts.only_a,
            counts.only_b,
        )
    share_a, share_b = codes.sums(a) / codes.sizes, codes.sums(b) / codes.sizes
    unit = _group_of_items(codes, groups)
    gap = share_a - share_b
    spread = paired_difference(share_a, share_b, groups=unit, bounds=(-1.0, 1.0), sampling=sampling)
    p = float(mean_test(gap, groups=unit, seed=sampling.seed).p) if np.any(gap) else 1.0
    more, fewer = int((gap > 1e-9).sum()), int((gap < -1e-9).sum())
    return ItemComparison(float(share_a.mean()), float(share_b.mean()), spread, RULE, p, more, fewer)


def _group_of_items(items: GroupCodes, groups: Groups) -> np.ndarray | None:
    """Code of the group of each item, None without groups."""
    if groups is None:
        return None
    codes = group_codes(groups, len(items.code)).code
    first = np.full(items.n_groups, -1)
    first[items.code] = codes
    if (first[items.code] != codes).any():
        raise ValueError("groups: replies to one item are in two groups. Give an item one group.")
    return first


@dataclass(frozen=True)
class RandomEffects:
    """The mean over studies, with studies as units.

    Attributes:
        mean:  with its interval; n and n_groups count studies.
        tau:   standard deviation of the true values between studies.
        share: share of the variance of the estimates that lies between studies (I squared).
        p: p of the hypothesis "the true values are all equal" (Cochran's Q).
        range: smallest and largest estimate.
    """

    mean: Estimate
    tau: float
    share: float
    p: float
    range: tuple[float, float]

    def __str__(self) -> str:
        lo, hi = self.range
        return f"{self.mean} over studies, tau {self.tau:.3f}, from {lo:.3f} to {hi:.3f}"


def random_effects(values: Values, se: Values, *, confidence: float = CONFIDENCE) -> RandomEffects:
    """Mean of several studies and an interval for the mean of the population that they were drawn from.

        w_i = 1/(se_i² + tau²),  mu = Σ w_i y_i / Σ w_i,  tau² >= 0 solves Σ w_i (y_i - mu)² = k - 1 (Paule-Mandel)
        mu ± t_{k-1} · sqrt( Σ w_i (y_i - mu)² / ((k - 1) Σ w_i) )        (Hartung-Knapp)

    Two pairs give t_1 = 12.7: with one degree of freedom the interval is wide.

    Args:
        values: estimate of each study [study].
        se:     its standard error, > 0 [study]; `standard_errors` reads it off an interval.
    Raises:
        ValueError: fewer than 2 studies, lengths differ, NaN, se that are not positive.
    Source: Paule & Mandel, J. Res. NBS 87 (1982) 377; Hartung & Knapp, Stat. Med. 20 (2001) 3875; equal to
        statsmodels' `combine_effects(..., method_re="iterated")` in tests/test_stats_pooled.py.

    Example:
        >>> from interp.stats import random_effects
        >>> print(random_effects([0.42, 0.55, 0.31], [0.05, 0.06, 0.05]))
        0.424 [0.127, 0.720] (n=3) over studies, tau 0.107, from 0.310 to 0.550
    """
    from scipy.special import gammaincc

    y, s = numbers("values", values, at_least=2), numbers("se", se, at_least=2)
    k = same_length(values=y, se=s)
    if not np.all(s > 0):
        raise ValueError(
            f"se: expected standard errors above 0, got {s.min():g}. A study without a standard error has no weight."
        )
    tau2 = _between(y, s)
    weights = 1 / (s**2 + tau2)
    mu = float(weights @ y / weights.sum())
    spread = float(weights @ (y - mu) ** 2 / (k - 1) / weights.sum())
    half = t_value(level("confidence", confidence), k - 1) * float(np.sqrt(spread))
    q = _excess(y, s, 0.0) + k - 1
    share = max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0
    p = float(gammaincc((k - 1) / 2, q / 2))
    return RandomEffects(
        Estimate(mu, mu - half, mu + half, k, k), float(np.sqrt(tau2)), share, p, (float(y.min()), float(y.max()))
    )


def standard_errors(
    estimates: Sequence[Estimate], *, is_bounded: bool = False, confidence: float = CONFIDENCE
) -> np.ndarray:
    """Standard error of each estimate, read off its interval, t with n_groups - 1 degrees of freedom.

        unbounded: min(value - lo, hi - value)/t      the shorter arm: the rule widens the other one for skew
        bounded:   (hi - lo)/(2 t)                    arms of Wilson's interval differ because of the bound

    Exact for an interval of the rule (`interp.stats.jackknife`) with equal groups and no bounds; with unequal groups
    too large, since t of the rule has fewer degrees of freedom. For a rate from 0.5 to 0.97 the half-width is 0.8 to
    1.3 of the standard error, and positive where all are right; the shorter arm would be 0.3 to 0.9 of it, or 0.

    Args:
        is_bounded: the estimates have a smallest and a largest possible value, as rates and their differences do.
    """
    level("confidence", confidence)
    t = np.array([t_value(confidence, max(e.n_groups - 1, 1)) for e in estimates])
    arms = np.array([(e.value - e.lo, e.hi - e.value) for e in estimates]).reshape(-1, 2)
    return (arms.mean(axis=1) if is_bounded else arms.min(axis=1)) / t


def _excess(y: np.ndarray, s: np.ndarray, tau2: float) -> float:
    """Σ w (y - mu)² - (k - 1) at a variance between studies."""
    weights = 1 / (s**2 + tau2)
    mu = weights @ y / weights.sum()
    return float(weights @ (y - mu) ** 2) - (len(y) - 1)


def _between(y: np.ndarray, s: np.ndarray) -> float:
    """Variance between studies, 0 where they differ no more than their errors."""
    from scipy.optimize import brentq

    if _excess(y, s, 0.0) <= 0:
        return 0.0
    most = float((y.max() - y.min()) ** 2)  # Σ w (y - mu)² <= Σ (y - mean)²/tau² < k - 1 there
    root = brentq(lambda tau2: _excess(y, s, tau2), 0.0, most, xtol=1e-14 * max(most, 1.0))
    assert isinstance(root, float)
    return root
