"""Equivalence is a claim to be shown: two one-sided tests, and the only place that may say "overlapping"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, SupportsIndex

import numpy as np

from interp.stats._check import Groups, Real, Values, group_codes, level, numbers, same_length
from interp.stats.clustered import effective_n, ratio_se
from interp.stats.estimate import Estimate
from interp.stats.intervals import mover, newcombe, t_value, wilson, wilson_limits, z_value
from interp.stats.paired import PairedTable, paired_limits

MARGIN = 0.05
"""Accuracies that differ by less than this are the same for our purposes, unless the caller says otherwise."""


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests of |difference| < margin.

    Attributes:
        difference: a - b with its two-sided interval at 1 - alpha.
        p_lower:    p of "difference <= -margin";  p_upper: p of "difference >= margin".
        p:          the larger of the two; equivalence is shown when p < alpha.
    """

    difference: Estimate
    margin: float
    p_lower: float
    p_upper: float
    alpha: float

    @property
    def p(self) -> float:
        return max(self.p_lower, self.p_upper)

    @property
    def equivalent(self) -> bool:
        return self.p < self.alpha

    @property
    def verdict(self) -> Literal["equivalent", "different", "undecided"]:
        """Not showing equivalence is not showing a difference: "undecided" where the interval allows both."""
        if self.equivalent:
            return "equivalent"
        beyond = self.difference.lo > self.margin or self.difference.hi < -self.margin
        return "different" if beyond else "undecided"

    @property
    def wording(self) -> str:
        """What a table prints: "equivalent at margin 0.05", "not equivalent at margin 0.05" where the whole interval
        lies beyond the margin, "equivalence undecided at margin 0.05" where it allows both."""
        words = {"equivalent": "equivalent", "different": "not equivalent", "undecided": "equivalence undecided"}
        return f"{words[self.verdict]} at margin {self.margin:g}"

    @property
    def sentence(self) -> str:
        """The wording with its numbers; says "overlapping" only when equivalence was shown."""
        start = f"{self.wording} (difference {self.difference}, two one-sided tests p = {self.p:.2g})"
        if self.verdict == "equivalent":
            return f"overlapping: {start}"
        if self.verdict == "different":
            return f"{start}; the whole interval lies beyond the margin"
        return f"{start}; too few items to tell: the interval reaches inside the margin"

    def __str__(self) -> str:
        return self.wording


def tost_paired(a: Values, b: Values, *, groups: Groups, margin: Real = MARGIN, alpha: float = 0.05) -> Equivalence:
    """Equivalence of two systems on the same items, from the paired difference d = a - b.

        t_lower = (mean d + margin)/se,  t_upper = (mean d - margin)/se,  Student with G - 1 df,
        se clustered by group; p = max(P(T > t_lower), P(T < t_upper))

    For 0/1 outcomes both one-sided p are raised, where larger, to the level at which Newcombe's paired
    interval (at the effective sample size) leaves the margin: with few discordant items se is close to 0 and
    the t-test alone would call 10 of 10 against 10 of 10 equivalent.

    Args:
        a, b: score of each item under each system [example], 0/1 or continuous.
        groups: independent unit of each item, or None where items are independent.
        margin: half-width of the region of equivalence, in units of the score.
    Raises:
        ValueError: lengths differ, NaN, one group, margin <= 0, continuous scores whose differences are all equal.
    Source: Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657; Newcombe (1998) method 10 for the guard.
    """
    a, b = numbers("a", a, at_least=2), numbers("b", b, at_least=2)
    same_length(a=a, b=b)
    _check_margin(margin)
    d, codes, confidence = a - b, group_codes(groups, len(a)), 1 - level("alpha", alpha)
    mean, se = float(d.mean()), ratio_se(codes.sums(d), codes.sizes)
    p_lower, p_upper = _t_tails(mean, se, codes.n_groups - 1, margin)
    t = z_value(confidence) if groups is None else t_value(confidence, codes.n_groups - 1)
    if np.isin(np.concatenate([a, b]), (0.0, 1.0)).all():
        cells = _effective_cells(PairedTable.of(a, b), effective_n(d, codes))
        _, lo, hi = paired_limits(*cells, z=t)
        p_lower = max(p_lower, _score_tail(cells, margin, side=-1))
        p_upper = max(p_upper, _score_tail(cells, margin, side=1))
    elif se == 0:
        raise ValueError(
            f"a - b: expected differences that vary, all are {d[0]:g}, so no standard error exists. "
            "Check that a and b are not the same column."
        )
    else:
        t = t_value(confidence, codes.n_groups - 1)
        lo, hi = mean - t * se, mean + t * se
    difference = Estimate(mean, lo, hi, len(d), codes.n_groups)
    return Equivalence(difference, float(margin), p_lower, p_upper, alpha)


def tost_rates(
    k_a: SupportsIndex,
    n_a: SupportsIndex,
    k_b: SupportsIndex,
    n_b: SupportsIndex,
    *,
    margin: Real = MARGIN,
    alpha: float = 0.05,
) -> Equivalence:
    """Equivalence of two published accuracies of which only the counts are known.

    Inverts Newcombe's interval for independent proportions: p is the level at which it leaves the margin.
    294 of 433 (0.68) against 359 of 433 (0.83) is "not equivalent at margin 0.05".

    Raises:
        ValueError: as `wilson`; margin <= 0.
    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10; Schuirmann (1987).
    """
    _check_margin(margin)
    difference = newcombe(k_a, n_a, k_b, n_b, confidence=1 - level("alpha", alpha))
    a, b = wilson(k_a, n_a), wilson(k_b, n_b)

    def limit(z: float, end: int) -> float:
        parts = [(e.value, *wilson_limits(e.value, e.n, z)) for e in (a, b)]
        return mover(parts[0], parts[1], correlation=0.0)[1 if end < 0 else 2]

    p_lower, p_upper = (_invert(limit, difference.value, margin, side) for side in (-1, 1))
    return Equivalence(difference, float(margin), p_lower, p_upper, alpha)


def _effective_cells(table: PairedTable, n_effective: float) -> tuple[float, float, float, float]:
    """The 2 x 2 table shrunk to the effective sample size of the paired difference."""
    share = n_effective / table.n
    return table.both * share, table.only_a * share, table.only_b * share, table.neither * share


def _t_tails(mean: float, se: float, df: int, margin: Real) -> tuple[float, float]:
    from scipy.special import stdtr

    if se == 0:
        return float(mean <= -margin), float(mean >= margin)
    return float(stdtr(df, -(mean + margin) / se)), float(stdtr(df, (mean - margin) / se))


def _score_tail(cells: tuple[float, float, float, float], margin: Real, *, side: int) -> float:
    d = (cells[1] - cells[2]) / sum(cells)
    return _invert(lambda z, end: paired_limits(*cells, z=z)[1 if end < 0 else 2], d, margin, side)


def _invert(limit: Callable[[float, int], float], difference: float, margin: Real, side: int) -> float:
    """One-sided p of "beyond the margin on this side": the tail at which an end of the interval reaches it.

    A value inside the margin is tested by its end on this side (p < 1/2), one beyond it by the other end.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    inside = side * difference < margin
    end = side if inside else -side

    def excess(z: float) -> float:
        return side * limit(z, end) - margin

    far = 40.0
    if excess(far) * excess(0.0) > 0:
        return 0.0 if inside else 1.0
    z = brentq(excess, 0.0, far, xtol=1e-9)
    assert isinstance(z, float)
    return float(ndtr(-z if inside else z))


def _check_margin(margin: Real) -> None:
    if not margin > 0:
        raise ValueError(f"margin: expected a positive half-width in units of the score, got {margin!r}.")
