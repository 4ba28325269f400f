"""One row of a pair study: two members on the same items, with every statement that such a row may make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import GroupCodes, Groups, Real, Values, binary, group_codes, same_length
from interp.stats.bootstrap import difference_of_rates, paired_difference
from interp.stats.clustered import wilson_clustered
from interp.stats.equivalence import MARGIN, Equivalence, tost_paired
from interp.stats.estimate import Estimate, Sampling
from interp.stats.jackknife import RULE
from interp.stats.mean_test import mean_test
from interp.stats.paired import McNemar, PairedTable, mcnemar, newcombe_paired


@dataclass(frozen=True)
class Comparison:
    """Accuracies of two members on the same items and what may be said of their difference.

    Attributes:
        a, b:         accuracies, clustered Wilson intervals (plain Wilson where items are independent).
        difference:   a - b, Newcombe's paired interval, items taken as independent.
        difference_groups: a - b, Newcombe's at the effective sample size over groups (`paired_difference`); the same
            object where groups=None.
        interval:     what sort of interval `difference_groups` has, for the table's column.
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
        line = [*sides, interval(gap.value, gap.lo, gap.hi, signed=True), p_value(self.p_groups), p_value(self.test.p),
                self.equivalence.wording, f"{gap.n} ({gap.n_groups})"]  # fmt: skip
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
        found, counts = compare_paired(a, b, groups=groups, sampling=sampling), PairedTable.of(a, b)
        return ItemComparison(float(a.mean()), float(b.mean()), found.difference_groups, found.interval,
                              found.p_groups, counts.only_a, counts.only_b)  # fmt: skip
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
    known = group_codes(groups, len(items.code)).code
    first = np.full(items.n_groups, -1)
    first[items.code] = known
    if (first[items.code] != known).any():
        raise ValueError("groups: replies to one item are in two groups. Give an item one group.")
    return first
