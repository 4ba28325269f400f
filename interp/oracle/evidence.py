"""When an answer counts as read: for one reading a rank test over matched partners, for all an interval over problems.

One reading is one observation, however many partners it has: an interval of its gaps over partners measures how the
partners vary, not how certain the reading is. So its own likelihood is ranked among those of its partners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan

import numpy as np

from interp.stats import Estimate, Sampling, benjamini_hochberg, compare_paired, rejects, smallest_p

ALPHA = 0.025
"""Largest corrected p of an answer that counts as read; one-sided, as the lower end of a 95 % interval is."""
NO_GAP = 0.01
"""Nats per token that do not count: an oracle that was trained on zeros stays within, since any vector moves its
answers a little."""
PARTNERS = 99
"""Partners of single answers: the smallest p is 0.01, so that an answer can be read where two fifths of them are."""
GAP_PARTNERS = 8
"""Partners where only the gap over all readings is judged; more of them remove noise, they do not change the unit."""

READ = "read"
UNDECIDED = "not shown to be read"
NOT_READ = "not read from the activations"
FEW_PARTNERS = "too few partners to say"
NO_CONTROL = "no control"


class FewPartnersWarning(UserWarning):
    """No single answer can be called read, however likely it is; the gap over all readings still can."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Rank of each answer's likelihood under its own activations among those under its partners' [reading].

    Attributes:
        p: (1 + partners under which the answer is as likely) / (1 + partners); NaN without partners.
        p_adjusted: Benjamini-Hochberg over all readings that have partners.
        n_partners: number of partners of each reading.
        unmoved: every partner leaves the answer within `NO_GAP` of its likelihood.
    """

    p: np.ndarray
    p_adjusted: np.ndarray
    n_partners: np.ndarray
    unmoved: np.ndarray

    def verdict(self, i: int) -> str:
        """What may be said of one answer.

        read: corrected p at most 0.025. Too few partners: no rank could have been enough. Not read: no partner moves
        the answer. Otherwise it is not shown to be read, which is no evidence that it was not.
        """
        n = int(self.n_partners[i])
        if n == 0:
            return NO_CONTROL
        if rejects(self.p_adjusted[i], alpha=ALPHA):
            return READ
        if self.unmoved[i]:
            return NOT_READ
        return UNDECIDED if rejects(smallest_p(n), alpha=ALPHA) else FEW_PARTNERS


def rank_answers(real: np.ndarray, partners: np.ndarray) -> Ranks:
    """Rank test of every reading over its matched partners, corrected over readings.

        p_i = (1 + #{ j : NLL(answer i | partner j) <= NLL(answer i | own) + 0.01 }) / (1 + n_i)

    Under the null a reading's own activations are one of 1 + n_i exchangeable draws, so that p_i <= 0.025 in at most
    2.5 % of readings, whatever the distribution of likelihoods and the number of partners.

    Args:
        real: NLL per token under the own activations [reading].
        partners: the same under partners' [partner, reading]; NaN where a reading has no such partner.
    Source: Phipson & Smyth (2010) for the added one; Benjamini & Hochberg (1995) over readings.
    """
    has_value = ~np.isnan(partners)
    n = has_value.sum(axis=0)
    with np.errstate(invalid="ignore"):
        gaps = partners - real
        likely = (has_value & (gaps <= NO_GAP)).sum(axis=0)
        unmoved = (has_value & (np.abs(gaps) > NO_GAP)).sum(axis=0) == 0
    p = np.where(n > 0, (1 + likely) / (1 + n), nan)
    adjusted = np.full(len(p), nan)
    if (n > 0).any():
        adjusted[n > 0] = benjamini_hochberg(p[n > 0])
    return Ranks(p, adjusted, n, unmoved)


def reach(n_partners: int, n_readings: int) -> str:
    """What single answers can show at best with so many partners each, in words, before anything is run."""
    floor = smallest_p(n_partners)
    words = f"{n_partners} partners per reading, smallest p {floor:.3g}"
    if not rejects(floor, alpha=ALPHA):
        return (
            f"{words}: no single answer can be called read (p at most {ALPHA:g}); the gap over all readings is "
            f"judged. Ask about more problems at once to have {ceil(1 / ALPHA) - 1} partners or more."
        )
    share = ceil(n_readings * floor / ALPHA - 1e-9)
    alone = "one answer can be read" if share <= 1 else f"an answer can be read if at least {share} of them are"
    return f"{words}: after correction over {n_readings} answers {alone}"


def verdict(gap: Estimate) -> str:
    """What may be said of a gap over readings: read where its whole interval lies above `NO_GAP`, not read where it
    lies below, undecided between."""
    if not gap.is_defined:
        return NO_CONTROL
    if gap.lo > NO_GAP:
        return READ
    return NOT_READ if gap.hi < NO_GAP else UNDECIDED


def accuracy_over(right: np.ndarray, other: np.ndarray, groups: Sequence[str], *, seed: int = 0) -> Estimate:
    """Accuracy minus that of a control on the same readings: what "beats the text" means.

    The interval is of the paired difference, by problem. An accuracy's own interval compared with the control's point
    would leave the control's error out, and lies above an equal control in 0.05 to 0.10 of cases instead of 0.025.

    Args:
        right, other: 0/1 per reading, NaN where a reading has no value under the control [reading].
        groups: problem of each reading; undefined with fewer than two.
    """
    has_value = ~np.isnan(right) & ~np.isnan(other)
    units = [g for g, k in zip(groups, has_value, strict=True) if k]
    if len(set(units)) < 2:
        return Estimate.undefined(len(units), len(set(units)))
    alone = len(set(units)) == len(units)
    return compare_paired(
        right[has_value], other[has_value], groups=None if alone else units, sampling=Sampling(seed=seed)
    ).difference_groups
