"""Power of claims that a label is decodable: AUROC of a probe against its permutation null over the layers searched."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from interp.stats.intervals import t_value
from interp.stats.multiplicity import ALPHA
from interp.stats.power.size import StudySize

REFIT = 1.33
"""Spread of the permutation null of a cross-validated probe, and of the bar that its interval sets, in units of the
binormal standard error at 1/2: a probe that is fitted to other rows changes too."""
NULL = 1.29
"""Spread of that null alone, measured in the same simulations."""
FITTED = 1.25
"""Spread of the AUROC of a probe that is fitted to half a signal or more, in the same unit at its AUROC."""


@dataclass(frozen=True)
class AurocClaim:
    """A probe's out-of-fold AUROC above 1/2; the effect is the AUROC that it reaches on average, minus 1/2.

        se(A)² = v(A)·(1/n_pos + 1/n_neg),   v(A) = A(1 - A) - 2T(Φ⁻¹(A), 1/√3), T Owen's;  n_pos, n_neg effective
        bar    = 1.33·se(1/2)·max( t_{1-alpha/2}, 0.96·Φ⁻¹((1 - alpha)^(1/family)) )     interval; maximum of the null
        power  = Φ( (effect - bar) / (1.25·se(1/2 + effect)) )

    The first bar is that of the interval (`interp.stats.auroc`, at least as wide as the null), the second that of the
    permutation null's maximum over `family` layers that vary independently; correlated layers set a lower one. The
    factors are fitted to simulations of `probes.sweep` (40 to 200 units, 1 to 12 layers, 4 to 8 features).

    Attributes:
        share_positive: share of the examples in the class that counts as 1.
        family:         layers, sites and positions that were searched, times the targets.
    Source: v(A) of two normal classes, Newcombe, Stat. Med. 25 (2006) 559; simulated in tests/test_power.py.

    Example:
        >>> round(AurocClaim(family=4).power(0.25, StudySize(80)), 2)
        0.84
    """

    share_positive: float = 0.5
    family: int = 1
    alpha: float = ALPHA

    @property
    def largest(self) -> float:
        return 0.4999

    def power(self, effect: float, size: StudySize) -> float:
        from scipy.special import ndtr, ndtri

        if not 0 < self.share_positive < 1:
            return 0.0
        n = size.n_effective
        counts = 1 / (n * self.share_positive) + 1 / (n * (1 - self.share_positive))
        reach = max(
            t_value(1 - self.alpha, max(size.units - 2, 1)), 0.96 * float(ndtri((1 - self.alpha) ** (1 / self.family)))
        )
        bar = REFIT * sqrt(counts * _variance(0.5)) * reach
        spread = FITTED * sqrt(counts * _variance(0.5 + min(effect, self.largest)))
        return float(ndtr((effect - bar) / spread))


def _variance(area: float) -> float:
    """Variance of a placement value of two normal classes, at least a little above 0."""
    from scipy.special import ndtri, owens_t

    return max(float(area * (1 - area) - 2 * owens_t(ndtri(area), 1 / sqrt(3))), 1e-9)
