"""Power of claims about means: one mean with its interval, and one of many under `mean_test`."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np

from interp.stats.intervals import t_value
from interp.stats.multiplicity import ALPHA
from interp.stats.power.size import StudySize


@dataclass(frozen=True)
class MeanClaim:
    """A mean above zero, shown where the interval of the rule excludes zero: slopes of doses, gaps of an oracle.

        se = sd / sqrt(n_effective),  ncp = effect/se,  df = units - 1
        power = E_s[ P( T(df, ncp) > q + w(s) ) ]
        w(s) = max(-s, 0)·2·(1 + 2q²)/(6·sqrt(units)),   s ~ Normal(0, variance of the skewness of gaussian groups)

    T is Student's noncentral t. The interval reaches further on the side to which the sample is skewed
    (`interp.stats.jackknife`), by w. The skewness of a gaussian sample is independent of its mean and spread, so the
    expectation is over s alone; without it power would be 0.13 too large in 6 groups and 0.05 in 16.

    Attributes:
        sd:    standard deviation of the examples.
        alpha: two-sided level of the interval.
    Source: noncentral t, Cohen, *Statistical Power Analysis* (1988) §2; variance of the skewness, Joanes & Gill, JRSS D
        47 (1998) 183; checked by simulation in tests/test_power.py.

    Example:
        >>> round(MeanClaim().power(0.5, StudySize(34)), 2)
        0.78
    """

    sd: float = 1.0
    alpha: float = ALPHA

    @property
    def largest(self) -> float:
        return inf

    def power(self, effect: float, size: StudySize) -> float:
        k, q = size.units, t_value(1 - self.alpha, size.units - 1)
        ncp = effect / self.sd * sqrt(size.n_effective)
        nodes, weights = np.polynomial.hermite_e.hermegauss(31)
        widening = np.maximum(-_sd_of_skewness(k) * nodes, 0.0) * 2 * (1 + 2 * q * q) / (6 * sqrt(k))
        tails = _beyond(q + widening, k - 1, ncp)
        return float(weights @ tails / weights.sum())


def _sd_of_skewness(k: int) -> float:
    """Standard deviation of the bias-corrected skewness of k gaussian values."""
    raw = 6 * max(k - 2, 0) / ((k + 1) * (k + 3))
    return sqrt(raw) * sqrt(k * (k - 1)) / max(k - 2, 1)


@dataclass(frozen=True)
class FamilyClaim:
    """One of many means under `mean_test`, two-sided: a head among all heads. With family=1 a single mean.

        q = Student's quantile at 1 - alpha/(2·family), units - 1 degrees of freedom
        power = P( T(units - 1, ncp/r) > q ),   ncp = effect/sd · sqrt(n_effective)
        r = 1 + max( 0.12·(8/units)³, 0.1·(ln family - 1.3)·(8/units)² )

    `mean_test` takes the larger p of sign flips and a bootstrap, and shrinks standard errors, so no closed form is
    exact. r is fitted to simulations of it (7 to 40 units, 1 to 144 gaussian heads whose standard deviations vary by
    a factor of e, the head itself at the median). 2^(1 - units) is the smallest p: below 6 units power is 0. Heads that
    are as variable as each other, or correlated, are shown somewhat more often.

    Attributes:
        sd:     standard deviation of the examples; with 1, effects are Cohen's d.
        family: hypotheses that are corrected for.
    Source: Westfall & Young (1993); constants by tests/test_power.py, where the power is checked.

    Example:
        >>> round(FamilyClaim(family=144).power(0.8, StudySize(40)), 2)
        0.84
    """

    sd: float = 1.0
    family: int = 1
    alpha: float = ALPHA

    @property
    def largest(self) -> float:
        return inf

    def power(self, effect: float, size: StudySize) -> float:
        k = size.units
        if 2.0 ** (1 - k) > self.alpha:
            return 0.0
        q = t_value(1 - self.alpha / self.family, k - 1)
        few = max(0.12 * (8 / k) ** 3, 0.1 * (log(self.family) - 1.3) * (8 / k) ** 2)
        ncp = effect / self.sd * sqrt(size.n_effective) / (1 + few)
        return float(_beyond(np.array(q), k - 1, ncp))


def _beyond(q: np.ndarray, df: float, ncp: float) -> np.ndarray:
    """P(T > q) of Student's noncentral t; 1 where ncp is too large for the series."""
    from scipy.special import nctdtr

    return np.nan_to_num(1 - nctdtr(df, min(ncp, 35.0), q), nan=1.0)
