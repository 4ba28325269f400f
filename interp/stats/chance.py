"""Is an accuracy distinguishable from its chance line, and how many items would it take."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import SupportsIndex

from interp.stats._check import Real, level
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import wilson, z_value


@dataclass(frozen=True)
class ChanceRow:
    """An accuracy beside its chance line.

    Attributes:
        accuracy: k/n with Wilson's interval.
        p:        exact binomial two-sided p against chance.
        n_needed: items at which the observed distance from chance would equal the interval's half-width;
            None where the accuracy is at chance exactly.
    """

    accuracy: Estimate
    chance: float
    p: float
    n_needed: int | None

    @property
    def sentence(self) -> str:
        if self.p < 0.05:
            return f"accuracy {self.accuracy} differs from the chance line {self.chance:g} (exact p = {self.p:.2g})"
        need = "" if self.n_needed is None else f"; at this distance it would take n = {self.n_needed}"
        return f"accuracy {self.accuracy} is not distinguishable from the chance line {self.chance:g}{need}"


def items_needed(rate: Real, *, chance: float = 0.5, confidence: float = CONFIDENCE) -> int:
    """Smallest n at which a rate this far from chance lies outside chance's interval.

        n = ceil( z² · chance(1 - chance) / (rate - chance)² );   0.545 against 0.5 needs 475

    Raises:
        ValueError: rate or chance outside (0, 1), or equal.
    Source: normal approximation of the binomial at the null.
    """
    level("chance", chance)
    if not 0 <= rate <= 1 or rate == chance:
        raise ValueError(f"rate: expected a rate in [0, 1] other than chance {chance:g}, got {rate!r}.")
    return ceil(z_value(confidence) ** 2 * chance * (1 - chance) / (rate - chance) ** 2)


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
