"""Closed-form intervals of proportions: one, the difference of two, two on the same items; distance from chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, log, sqrt
from typing import SupportsIndex

import numpy as np

from interp.stats.check import Real, Values, binary, count, level, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.multiplicity import rejects


def z_value(confidence: float) -> float:
    """Two-sided standard normal quantile: 1.959964 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level("confidence", confidence) / 2))


def t_value(confidence: float, df: Real) -> float:
    """Two-sided Student quantile with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level("confidence", confidence) / 2))


def wilson_limits(p: float, n: Real, z: float) -> tuple[float, float]:
    """Wilson limits at a possibly fractional n, exactly 0 at p = 0 and exactly 1 at p = 1."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def wilson(k: SupportsIndex, n: SupportsIndex, *, confidence: float = CONFIDENCE) -> Estimate:
    """Proportion k/n with Wilson's score interval.

        centre = (p + z²/2n) / (1 + z²/n);   half = z·sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n)

    Raises:
        ValueError: n = 0, k outside 0..n, counts that are not whole.
    Source: Wilson, JASA 22 (1927) 209; 28 of 36 gives 61.9–88.3 % (specification of the triage task).

    Example:
        >>> from interp.stats import wilson
        >>> print(wilson(28, 36))
        0.778 [0.619, 0.883] (n=36)
    """
    k, n = _trials(k, n)
    lo, hi = wilson_limits(k / n, n, z_value(confidence))
    return Estimate(k / n, lo, hi, n, n)


def clopper_pearson(k: SupportsIndex, n: SupportsIndex, *, confidence: float = CONFIDENCE) -> Estimate:
    """Proportion k/n with the exact interval: coverage never below the level, for small or safety counts.

        lo = Beta⁻¹(a/2; k, n-k+1);   hi = Beta⁻¹(1-a/2; k+1, n-k);   lo(0) = 0, hi(n) = 1

    0 of 25 gives an upper end of 13.7 %, 36 of 36 a lower end of 90.3 %.

    Raises:
        ValueError: as `wilson`.
    Source: Clopper & Pearson, Biometrika 26 (1934) 404.
    """
    from scipy.special import betaincinv

    k, n = _trials(k, n)
    tail = (1 - level("confidence", confidence)) / 2
    lo = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    hi = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return Estimate(k / n, lo, hi, n, n)


def zero_event_limit(n: SupportsIndex, *, confidence: float = CONFIDENCE) -> float:
    """Largest rate still compatible with 0 events in n trials, one-sided.

        1 - (1 - confidence)^(1/n), about 3/n at 0.95 (the rule of three)

    The two-sided exact interval of `clopper_pearson(0, n)` is wider: it spends half the error on each side.

    Source: Hanley & Lippman-Hand, JAMA 249 (1983) 1743.
    """
    _, n = _trials(0, n)
    return float(1 - (1 - level("confidence", confidence)) ** (1 / n))


def square_and_add(first: Estimate, second: Estimate, *, correlation: Real = 0.0) -> Estimate:
    """Difference first - second from the intervals of the two parts (MOVER).

        lo = D - sqrt(dl1² - 2 r dl1 du2 + du2²),  hi = D + sqrt(du1² - 2 r du1 dl2 + dl2²)
        dl = value - lo, du = hi - value of each part; r = correlation of the two estimates

    Raises:
        ValueError: correlation outside [-1, 1].
    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10; Zou & Donner, Stat. Med. 27 (2008) 1693.
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation: expected a number in [-1, 1], got {correlation!r}.")
    limits = mover((first.value, first.lo, first.hi), (second.value, second.lo, second.hi), correlation=correlation)
    return Estimate(*limits, n=first.n + second.n, n_groups=first.n_groups + second.n_groups)


def mover(
    first: tuple[float, float, float], second: tuple[float, float, float], *, correlation: Real
) -> tuple[float, float, float]:
    """`square_and_add` on bare (value, lo, hi) triples."""
    d = first[0] - second[0]
    down1, up1 = first[0] - first[1], first[2] - first[0]
    down2, up2 = second[0] - second[1], second[2] - second[0]
    below = sqrt(max(0.0, down1**2 - 2 * correlation * down1 * up2 + up2**2))
    above = sqrt(max(0.0, up1**2 - 2 * correlation * up1 * down2 + down2**2))
    return d, d - below, d + above


def newcombe(
    k_a: SupportsIndex, n_a: SupportsIndex, k_b: SupportsIndex, n_b: SupportsIndex, *, confidence: float = CONFIDENCE
) -> Estimate:
    """Difference of two independent proportions, k_a/n_a - k_b/n_b, by square-and-add of Wilson limits.

    Different items on the two sides; use `newcombe_paired` where both saw the same items.

    Raises:
        ValueError: as `wilson`.
    Source: Newcombe, Stat. Med. 17 (1998) 873, method 10: 56/70 - 48/80 = 0.2 gives [0.0524, 0.3339].
    """
    return square_and_add(wilson(k_a, n_a, confidence=confidence), wilson(k_b, n_b, confidence=confidence))


def _trials(k: SupportsIndex, n: SupportsIndex) -> tuple[int, int]:
    n = count("n", n)
    if n == 0:
        raise ValueError("n: expected at least 1 trial, got 0. Leave the cell out, or use Estimate.undefined().")
    return count("k", k, at_most=n), n


@dataclass(frozen=True)
class PairedTable:
    """Counts of items by who was right: equality of two accuracies is not equality of the items behind them."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Values, b: Values) -> PairedTable:
        """Count the table of two 0/1 vectors of the same items in the same order.

        Raises:
            ValueError: lengths differ, no items, values other than 0/1, NaN.
        """
        a, b = binary("a", a), binary("b", b)
        same_length(a=a, b=b)
        return cls(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    def __str__(self) -> str:
        return f"both {self.both}, only a {self.only_a}, only b {self.only_b}, neither {self.neither}"


@dataclass(frozen=True)
class McNemar:
    """Two-sided McNemar test.

    Attributes:
        p:       exact; at most 0.05 in at most 0.05 of studies, whatever the number of discordant items.
        log10_p: the same for counts so large that p underflows.
        mid_p:   counts an outcome as likely as the observed one by half: more power with few discordant items. At most
            0.05 in about 0.05 of studies on average (with 5 discordant items in 0.0625, with 6 in 0.031).
    """

    only_a: int
    only_b: int
    p: float
    log10_p: float
    mid_p: float

    @property
    def decidable(self) -> bool:
        """Whether any outcome of this many discordant items could reach an exact p <= 0.05 (needs 6 or more)."""
        return self.only_a + self.only_b >= 6


def mcnemar(only_a: SupportsIndex, only_b: SupportsIndex) -> McNemar:
    """Whether discordant items favour one system more than a fair coin would.

        p = min(1, 2 · sum_{i <= min(b, c)} C(b+c, i) / 2^(b+c));   b = only_a, c = only_b;   p = 1 at b + c = 0
        mid_p = p - C(b+c, min(b, c)) / 2^(b+c), half of that where b = c

    Summed in logarithms, so b + c of many thousands neither overflows nor rounds to 0 in `log10_p`. Items are
    taken as independent; for items in groups read `compare_paired(...).p_groups`.

    Raises:
        ValueError: negative or fractional counts.
    Source: McNemar, Psychometrika 12 (1947) 153, exact form; 14 against 50 gives 7e-6. mid_p: Fagerland, Lydersen &
        Laake, BMC Med. Res. Methodol. 13 (2013) 91.
    """
    from scipy.special import gammaln

    b, c = count("only_a", only_a), count("only_b", only_b)
    i = np.arange(min(b, c) + 1)
    log_terms = gammaln(b + c + 1) - gammaln(i + 1) - gammaln(b + c - i + 1)
    log_p = min(0.0, log(2) + float(np.logaddexp.reduce(log_terms)) - (b + c) * log(2))
    own = exp(log_terms[-1] - (b + c) * log(2)) / (2 if b == c else 1)
    return McNemar(b, c, exp(log_p), log_p / log(10), max(0.0, exp(log_p) - own) if b + c else 1.0)


def newcombe_paired(table: PairedTable, *, confidence: float = CONFIDENCE) -> Estimate:
    """Difference of two accuracies on the same items, (only_a - only_b)/n, by square-and-add with correlation.

        r = (both·neither - only_a·only_b, brought n/2 nearer to 0 when positive) / sqrt(product of the 4 margins)

    Raises:
        ValueError: an empty table.
    Source: Newcombe, Stat. Med. 17 (1998) 2635, method 10; Altman, *Statistics with Confidence* (2000) p. 52.
    """
    if table.n == 0:
        raise ValueError("table: expected at least 1 item, got 0. Leave the cell out, or use Estimate.undefined().")
    cells = (float(table.both), float(table.only_a), float(table.only_b), float(table.neither))
    d, lo, hi = paired_limits(*cells, z=z_value(confidence))
    return Estimate(d, lo, hi, table.n, table.n)


def paired_limits(both: float, only_a: float, only_b: float, neither: float, *, z: float) -> tuple[float, float, float]:
    """(difference, lo, hi) of `newcombe_paired` for possibly fractional counts (an effective sample size)."""
    n = both + only_a + only_b + neither
    p_a, p_b = (both + only_a) / n, (both + only_b) / n
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    cross = both * neither - only_a * only_b
    cross = max(cross - n / 2, 0.0) if cross > 0 else cross
    r = cross / sqrt(margins) if margins > 0 else 0.0
    a, b = (p_a, *wilson_limits(p_a, n, z)), (p_b, *wilson_limits(p_b, n, z))
    return mover(a, b, correlation=max(-1.0, min(1.0, r)))


POWER = 0.8
"""Share of studies that should find an effect of the size asked about."""


@dataclass(frozen=True)
class ChanceRow:
    """An accuracy and its chance line.

    Attributes:
        accuracy: k/n with Wilson's interval.
        p:        exact binomial two-sided p against chance.
        n_needed: items with which a rate this far from chance would be found in 80 % of studies; None where the
            accuracy is at chance exactly.
    """

    accuracy: Estimate
    chance: float
    p: float
    n_needed: int | None

    @property
    def sentence(self) -> str:
        if rejects(self.p):
            return f"accuracy {self.accuracy} differs from the chance line {self.chance:g} (exact p = {self.p:.2g})"
        n = self.n_needed
        need = "" if n is None else f"; a rate like this takes n = {n} for a power of {100 * POWER:.0f} %"
        return f"accuracy {self.accuracy} is not distinguishable from the chance line {self.chance:g}{need}"


def items_needed(rate: Real, *, chance: float = 0.5, confidence: float = CONFIDENCE, power: float = POWER) -> int:
    """Smallest number of independent items at which the test of a true rate against chance has this power.

        n = ceil( (z·sqrt(c(1 - c)) + z_power·sqrt(r(1 - r)))² / (r - c)² ),  z two-sided at `confidence`, c = chance

    0.545 against 0.5 needs 967; with the 475 at which the interval's half-width equals the distance, power is one half.

    Raises:
        ValueError: rate outside [0, 1] or equal to chance; chance, confidence or power outside (0, 1).
    Source: normal approximation of the one-sample test of a proportion, Fleiss, *Statistical Methods for Rates and
        Proportions* (2003) §2.5.
    """
    from scipy.special import ndtri

    level("chance", chance)
    if not 0 <= rate <= 1 or rate == chance:
        raise ValueError(f"rate: expected a rate in [0, 1] other than chance {chance:g}, got {rate!r}.")
    z_power = float(ndtri(level("power", power)))
    reach = z_value(confidence) * sqrt(chance * (1 - chance)) + z_power * sqrt(rate * (1 - rate))
    return ceil((reach / (rate - chance)) ** 2)


def chance_row(k: SupportsIndex, n: SupportsIndex, *, chance: float = 0.5, confidence: float = CONFIDENCE) -> ChanceRow:
    """Accuracy k/n with its interval and its test against the chance line.

    Raises:
        ValueError: as `wilson`; chance outside (0, 1).
    Source: exact binomial test, two-sided by summing outcomes no more likely than the observed one.

    Example:
        >>> from interp.stats import chance_row
        >>> row = chance_row(55, 100)
        >>> round(row.p, 3), row.n_needed
        (0.368, 783)
    """
    from scipy.stats import binomtest

    accuracy = wilson(k, n, confidence=confidence)
    k, n = k.__index__(), n.__index__()
    p = float(binomtest(k, n, level("chance", chance)).pvalue)
    needed = None if k / n == chance else items_needed(k / n, chance=chance, confidence=confidence)
    return ChanceRow(accuracy, chance, p, needed)
