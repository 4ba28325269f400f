"""Is an accuracy distinguishable from its chance line, and how many items would it take."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import SupportsIndex

from interp.stats._check import Real, level
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import wilson, z_value
from interp.stats.multiplicity import rejects

POWER = 0.8
"""Share of studies that should find an effect of the size asked about."""


@dataclass(frozen=True)
class ChanceRow:
    """An accuracy beside its chance line.

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
    """Smallest number of independent items with which a true rate is told from chance in a share `power` of studies.

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
    """Accuracy k/n, its interval, and what it says against the chance line.

    Raises:
        ValueError: as `wilson`; chance outside (0, 1).
    Source: exact binomial test, two-sided by summing outcomes no more likely than the observed one.
    """
    from scipy.stats import binomtest

    accuracy = wilson(k, n, confidence=confidence)
    k, n = k.__index__(), n.__index__()
    p = float(binomtest(k, n, level("chance", chance)).pvalue)
    needed = None if k / n == chance else items_needed(k / n, chance=chance, confidence=confidence)
    return ChanceRow(accuracy, chance, p, needed)
