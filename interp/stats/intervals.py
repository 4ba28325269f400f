"""Intervals of one proportion and of the difference of two, in closed form."""

from __future__ import annotations

from math import sqrt
from typing import SupportsIndex

from interp.stats._check import Real, count, level
from interp.stats.estimate import CONFIDENCE, Estimate


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
