"""Equivalence by two one-sided tests; the only place that uses the word "overlapping"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Literal, SupportsIndex

import numpy as np

from interp.stats.check import GroupCodes, Groups, Real, Values, group_codes, level, numbers, same_length
from interp.stats.estimate import Estimate
from interp.stats.intervals import PairedTable, mover, newcombe, t_value, wilson, wilson_limits, z_value
from interp.stats.jackknife import Jackknife, effective_groups
from interp.stats.means import effective_n
from interp.stats.multiplicity import rejects

MARGIN = 0.05
"""Accuracies that differ by less than this count as the same, unless the caller gives another margin."""


@dataclass(frozen=True)
class Equivalence:
    """Outcome of two one-sided tests of |difference| < margin.

    Attributes:
        difference: a - b with its two-sided interval at 1 - alpha.
        p_lower:    p of "difference <= -margin";  p_upper: p of "difference >= margin".
        p:          the larger of the two; equivalence is shown when p <= alpha.
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
        return bool(rejects(self.p, alpha=self.alpha))

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
        """The wording with its numbers; "overlapping" only where equivalence was shown."""
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

        T = (mean d ± margin)/se, Student on effective groups - 1, se and skewness by leaving groups out (`Jackknife`);
        p = the larger of P(T > t_lower) and P(T < t_upper)

    For 0/1 outcomes Tango's score test of "difference = ∓margin" is passed too, on the 2 x 2 table shrunk to the
    effective number of items: near 1, groups without an error carry little information about groups with errors.

        z = (only_a - only_b - nδ) / sqrt( n(2q + δ(1 - δ)) ),  q the restricted maximum-likelihood only_b/n
        1/n_eff = λ·(design effect)/n + (1 - λ)/k,   λ = w/(w + 1),  w groups in which the members differ, k effective
        groups: where no group shows a difference, each counts once

    The interval of the difference is the wider of both, so equivalence is shown at alpha exactly where the interval at
    1 - 2·alpha lies inside the margin.

    Args:
        a, b: score of each item under each system [example], 0/1 or continuous.
        groups: independent unit of each item, or None where items are independent.
        margin: half-width of the region of equivalence, in units of the score.
    Raises:
        ValueError: lengths differ, NaN, one group, margin <= 0, continuous scores whose differences are all equal.
    Source: Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657; Tango, Stat. Med. 17 (1998) 891. Level by simulation in
        tests/validity/test_equivalence.py.
    """
    a, b = numbers("a", a, at_least=2), numbers("b", b, at_least=2)
    same_length(a=a, b=b)
    _check_margin(margin)
    codes, confidence = group_codes(groups, len(a)), 1 - level("alpha", alpha)
    is_binary = bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all())
    tests: list[_MeanTest | _ScoreTest] = []
    mean = _MeanTest.of(a - b, codes)
    if mean.se > 0:
        tests.append(mean)
    elif not is_binary:
        raise ValueError(
            f"a - b: expected differences that vary, all are {a[0] - b[0]:g}, so no standard error exists. "
            "Check that a and b are not the same column."
        )
    if is_binary:
        tests.append(_ScoreTest.of(a, b, codes, is_clustered=groups is not None))
    p_lower, p_upper = (max(test.tail(side * float(margin), side) for test in tests) for side in (-1, 1))
    ends = [test.limits(confidence) for test in tests]
    difference = Estimate(mean.mean, min(lo for lo, _ in ends), max(hi for _, hi in ends), len(a), codes.n_groups)
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
    """Equivalence of two published accuracies, from their counts.

    Inverts Newcombe's interval for independent proportions: p is the level at which it leaves the margin.
    294 of 433 (0.68) against 359 of 433 (0.83) is "not equivalent at margin 0.05".

    Raises:
        ValueError: as `wilson`; margin <= 0.
    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10; Schuirmann (1987).

    Example:
        >>> from interp.stats import tost_rates
        >>> print(tost_rates(294, 433, 359, 433))
        not equivalent at margin 0.05
    """
    _check_margin(margin)
    difference = newcombe(k_a, n_a, k_b, n_b, confidence=1 - level("alpha", alpha))
    a, b = wilson(k_a, n_a), wilson(k_b, n_b)

    def limit(z: float, end: int) -> float:
        parts = [(e.value, *wilson_limits(e.value, e.n, z)) for e in (a, b)]
        return mover(parts[0], parts[1], correlation=0.0)[1 if end < 0 else 2]

    p_lower, p_upper = (_invert(limit, difference.value, margin, side) for side in (-1, 1))
    return Equivalence(difference, float(margin), p_lower, p_upper, alpha)


@dataclass(frozen=True, eq=False)
class _MeanTest:
    """Mean difference with its jackknife over groups."""

    mean: float
    jack: Jackknife

    @classmethod
    def of(cls, d: np.ndarray, codes: GroupCodes) -> _MeanTest:
        sums, sizes = codes.sums(d), codes.sizes
        left_out = (sums.sum() - sums) / (len(d) - sizes)
        return cls(float(d.mean()), Jackknife.of(left_out[:, None], float(effective_groups(sizes))))

    @property
    def se(self) -> float:
        return float(self.jack.se[0])

    @property
    def df(self) -> float:
        return max(float(self.jack.effective[0]) - 1, 1.0)

    def _reach(self, q: float, side: int) -> float:
        """Standard errors that the interval reaches on this side, from the symmetric quantile q."""
        return float(self.jack.reach(np.array([q]))[0 if side < 0 else 1][0])

    def tail(self, bound: float, side: int) -> float:
        """One-sided p of "the mean lies at `bound` or beyond it" on this side: the tail at which the interval's end is
        there. Where the widening for skew alone reaches the bound, p is 1/2."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        q = side * (bound - self.mean) / self.se
        if q > 0:
            short = self._reach(0.0, side) < q
            root = brentq(lambda x: self._reach(x, side) - q, 0.0, q, xtol=1e-12) if short else 0.0
            assert isinstance(root, float)
            q = root
        return float(stdtr(self.df, -q))

    def limits(self, confidence: float) -> tuple[float, float]:
        q = t_value(confidence, self.df)
        return self.mean - self._reach(q, -1) * self.se, self.mean + self._reach(q, 1) * self.se


@dataclass(frozen=True)
class _ScoreTest:
    """Tango's score test of a difference of paired proportions, at the effective number of items.

    Attributes:
        only_a, only_b, n: counts of the table, shrunk.  df: of the Student reference; None for the normal.
    """

    only_a: float
    only_b: float
    n: float
    df: float | None

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, codes: GroupCodes, *, is_clustered: bool) -> _ScoreTest:
        table, n = PairedTable.of(a, b), float(len(a))
        if not is_clustered:
            return cls(float(table.only_a), float(table.only_b), n, None)
        k = float(effective_groups(codes.sizes))
        differing = int((codes.sums(np.abs(a - b)) > 0).sum())
        trust = differing / (differing + 1)
        n_effective = 1 / (trust / effective_n(a - b, codes) + (1 - trust) / k)
        share = n_effective / n
        return cls(table.only_a * share, table.only_b * share, n_effective, max(k - 1, 1.0))

    def z(self, delta: float) -> float:
        """Score statistic of "the difference is delta"."""
        b, c, n = self.only_a, self.only_b, self.n
        linear = (2 * n - b + c) * delta - b - c
        q = (sqrt(max(linear * linear + 8 * n * c * delta * (1 - delta), 0.0)) - linear) / (4 * n)
        variance, distance = n * (2 * q + delta * (1 - delta)), b - c - n * delta
        if variance <= 0:
            return 0.0 if distance == 0 else float(np.copysign(np.inf, distance))
        return distance / sqrt(variance)

    def tail(self, bound: float, side: int) -> float:
        """One-sided p of "the difference lies at `bound` or beyond it" on this side."""
        from scipy.special import ndtr, stdtr

        z = side * self.z(bound)
        return float(ndtr(z) if self.df is None else stdtr(self.df, z))

    def limits(self, confidence: float) -> tuple[float, float]:
        from scipy.optimize import brentq

        reach = z_value(confidence) if self.df is None else t_value(confidence, self.df)
        value = (self.only_a - self.only_b) / self.n
        lo = brentq(lambda delta: self.z(delta) - reach, -1.0, value, xtol=1e-12) if value > -1 else -1.0
        hi = brentq(lambda delta: self.z(delta) + reach, value, 1.0, xtol=1e-12) if value < 1 else 1.0
        assert isinstance(lo, float) and isinstance(hi, float)
        return lo, hi


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
