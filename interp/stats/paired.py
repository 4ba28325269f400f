"""Two systems on the same items: the 2 x 2 table, exact McNemar, Newcombe's paired interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from typing import SupportsIndex

import numpy as np

from interp.stats._check import Values, binary, count, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import mover, wilson_limits, z_value


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
