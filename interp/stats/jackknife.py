"""The one rule for intervals over groups: jackknife standard error, Student on effective groups, widened for skew."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from interp.stats._check import Real
from interp.stats.intervals import t_value

TINY = 1e-12
"""A standard error below this share of the left-out values is rounding, not spread."""


def effective_groups(weights: np.ndarray) -> np.ndarray:
    """Number of equal groups that carry as much information: (sum w)²/sum w², between 1 and the number of groups.

    6 groups of sizes 1 to 10 are worth about 4.

    Args:
        weights: how much each group counts, usually its examples [group, ...].
    Source: Kish, *Survey Sampling* (1965) §8.2.
    """
    squares = np.square(weights).sum(axis=0)
    total = np.square(weights.sum(axis=0))
    return np.divide(total, squares, out=np.ones_like(np.asarray(total, dtype=float)), where=squares > 0)


@dataclass(frozen=True, eq=False)
class Jackknife:
    """What leaving out each group in turn says about a statistic [...].

        d_g = mean_h θ_(-h) - θ_(-g)          how far group g pulls the statistic up
        se² = (G - 1)/G · sum_g d_g²          leave-one-group-out (CR3), not too small with unequal groups
        df  = effective groups - 1
        skew: skewness of d, corrected for bias at the effective number of groups

    Attributes:
        deviation: d [group, ...], NaN where leaving the group out leaves no value.
    Source: Efron & Stein, Ann. Stat. 9 (1981) 586; MacKinnon, Nielsen & Webb, J. Appl. Econom. 38 (2023) 671 (CR3).
    """

    deviation: np.ndarray
    se: np.ndarray
    effective: np.ndarray
    skew: np.ndarray

    @classmethod
    def of(cls, left_out: np.ndarray, effective: np.ndarray | float) -> Jackknife:
        """From the statistic without each group [group, ...] and the effective number of groups [...]."""
        n_groups = len(left_out)
        deviation = left_out.mean(axis=0) - left_out
        squares = np.square(deviation).mean(axis=0)
        is_flat = np.sqrt(squares) <= TINY * np.abs(left_out).max(axis=0, initial=0.0)
        squares = np.where(is_flat, 0.0, squares)
        cubes, scale = np.power(deviation, 3).mean(axis=0), squares**1.5
        raw = np.divide(cubes, scale, out=np.zeros_like(squares), where=scale > 0)
        k = np.broadcast_to(np.asarray(effective, dtype=float), squares.shape)
        unbias = np.sqrt(np.maximum(k * (k - 1), 0.0)) / np.maximum(k - 2, 1.0)
        return cls(deviation, np.sqrt((n_groups - 1) * squares), k, raw * unbias)

    def quantile(self, confidence: float) -> np.ndarray:
        """Two-sided Student quantile on the effective groups minus one (at least one) degrees of freedom [...]."""
        return t_values(confidence, np.maximum(self.effective - 1, 1.0))

    def reach(self, q: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """How many standard errors the interval reaches below and above the value, from the symmetric quantile q.

            on the side to which the data are skewed: q + |skew|·(1 + 2q²)/(6·sqrt(effective groups)); q on the other

        The second term is that of the Cornish-Fisher expansion of a studentised mean. The other side is not brought
        in by as much, because the skewness of a few groups is itself uncertain.

        Source: Johnson, JASA 73 (1978) 536; Hall, *The Bootstrap and Edgeworth Expansion* (1992) §2.6.
        """
        shift = self.skew * (1 + 2 * np.square(q)) / (6 * np.sqrt(self.effective))
        return q + np.maximum(-shift, 0.0), q + np.maximum(shift, 0.0)


def t_values(confidence: float, df: np.ndarray) -> np.ndarray:
    """`t_value` of many degrees of freedom at once."""
    kinds, index = np.unique(df, return_inverse=True)
    return np.array([t_value(confidence, float(kind)) for kind in kinds])[index].reshape(np.shape(df))


def sure_share(effective: Real, t: Real) -> float:
    """Largest share of groups that may differ although none of the sample did: t²/(G + t²), Wilson's upper end at 0."""
    return t * t / (effective + t * t)


def wilson_from_se(p: float, se: float, t: float, *, effective: float, at_most: float) -> tuple[float, float]:
    """Wilson limits of a rate at the sample size that its clustered standard error is worth.

        n_eff = p(1 - p)/se², at most `at_most`; at p = 0 and 1, where the sample shows no spread, the effective groups

    Args:
        p: the rate, or a mean on the scale from 0 to 1.
    Source: Korn & Graubard, Survey Methodology 24 (1998) 193; Wilson, JASA 22 (1927) 209.
    """
    spread = p * (1 - p)
    n = effective if spread == 0 else min(at_most, spread / (se * se)) if se > 0 else at_most
    centre = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t * sqrt(max(spread, 0.0) / n + t * t / (4 * n * n)) / (1 + t * t / n)
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))
