"""One row of a pair study: two members on the same items, with every statement that such a row may make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Real, Seed, Values, binary, group_codes, same_length
from interp.stats.bootstrap import paired_difference
from interp.stats.clustered import wilson_clustered
from interp.stats.equivalence import MARGIN, Equivalence, tost_paired
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.paired import McNemar, PairedTable, mcnemar, newcombe_paired
from interp.stats.resample import N_RESAMPLES
from interp.stats.signflip import sign_flip


@dataclass(frozen=True)
class Comparison:
    """Accuracies of two members on the same items and what may be said of their difference.

    Attributes:
        a, b:         accuracies, clustered Wilson intervals (plain Wilson where items are independent).
        difference:   a - b, Newcombe's paired interval, items taken as independent.
        difference_groups: a - b, cluster bootstrap over groups; the same object where groups=None.
        test:         exact McNemar on the discordant items.
        p_groups:     the same question with groups as the independent unit (sign-flip of group differences).
        equivalence:  two one-sided tests at the margin, clustered.
    """

    table: PairedTable
    a: Estimate
    b: Estimate
    difference: Estimate
    difference_groups: Estimate
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
    seed: Seed,
    margin: Real = MARGIN,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two members that answered the same items.

    Args:
        a, b: whether each item was answered right [example], same order; an unparsed answer is wrong.
        groups: procedure, template or subject of each item; None where items are independent.
    Raises:
        ValueError: lengths differ, fewer than 2 items or groups, values other than 0/1.
    Source: each part names its own.
    """
    a, b = binary("a", a, at_least=2), binary("b", b, at_least=2)
    same_length(a=a, b=b)
    group_codes(groups, len(a))
    table = PairedTable.of(a, b)
    test, iid = mcnemar(table.only_a, table.only_b), newcombe_paired(table, confidence=confidence)
    if groups is None or table.only_a + table.only_b == 0:
        clustered, p_groups = iid, test.p
    else:
        clustered = paired_difference(a, b, groups=groups, seed=seed, n_resamples=n_resamples, confidence=confidence)
        p_groups = float(sign_flip(a.astype(np.float64) - b, groups=groups, seed=seed).p)
    return Comparison(
        table=table,
        a=wilson_clustered(a, groups=groups, confidence=confidence),
        b=wilson_clustered(b, groups=groups, confidence=confidence),
        difference=iid,
        difference_groups=clustered,
        test=test,
        p_groups=p_groups,
        equivalence=tost_paired(a, b, groups=groups, margin=margin, alpha=round(1 - confidence, 12)),
    )
