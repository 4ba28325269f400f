"""Several trained pairs, or several studies: the study is the unit, and its estimates vary beyond their own error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.stats._check import Values, level, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import t_value

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class RandomEffects:
    """The mean over studies, with studies as units.

    Attributes:
        mean:  with its interval; n and n_groups count studies.
        tau:   standard deviation of the true values between studies.
        share: of the variance of the estimates that lies between studies (I squared).
        p:     of "the true values are all equal" (Cochran's Q).
        range: smallest and largest estimate.
    """

    mean: Estimate
    tau: float
    share: float
    p: float
    range: tuple[float, float]

    def __str__(self) -> str:
        lo, hi = self.range
        return f"{self.mean} over studies, tau {self.tau:.3f}, from {lo:.3f} to {hi:.3f}"


def random_effects(values: Values, se: Values, *, confidence: float = CONFIDENCE) -> RandomEffects:
    """Mean of several studies and an interval for the mean of the population that they were drawn from.

        w_i = 1/(se_i² + tau²),  mu = Σ w_i y_i / Σ w_i,  tau² >= 0 solves Σ w_i (y_i - mu)² = k - 1 (Paule-Mandel)
        mu ± t_{k-1} · sqrt( Σ w_i (y_i - mu)² / ((k - 1) Σ w_i) )        (Hartung-Knapp)

    Two pairs trained alike give t_1 = 12.7: one degree of freedom says little, and the interval shows it.

    Args:
        values: estimate of each study [study].
        se:     its standard error, > 0 [study]; `standard_errors` reads it off an interval.
    Raises:
        ValueError: fewer than 2 studies, lengths differ, NaN, se that are not positive.
    Source: Paule & Mandel, J. Res. NBS 87 (1982) 377; Hartung & Knapp, Stat. Med. 20 (2001) 3875; equal to
        statsmodels' `combine_effects(..., method_re="iterated")` in tests/test_stats_pooled.py.

    Example:
        >>> from interp.stats import random_effects
        >>> print(random_effects([0.42, 0.55, 0.31], [0.05, 0.06, 0.05]))
        0.424 [0.127, 0.720] (n=3) over studies, tau 0.107, from 0.310 to 0.550
    """
    from scipy.special import gammaincc

    y, s = numbers("values", values, at_least=2), numbers("se", se, at_least=2)
    k = same_length(values=y, se=s)
    if not np.all(s > 0):
        raise ValueError(f"se: expected standard errors above 0, got {s.min():g}. A study without error has no weight.")
    tau2 = _between(y, s)
    weights = 1 / (s**2 + tau2)
    mu = float(weights @ y / weights.sum())
    spread = float(weights @ (y - mu) ** 2 / (k - 1) / weights.sum())
    half = t_value(level("confidence", confidence), k - 1) * float(np.sqrt(spread))
    q = _excess(y, s, 0.0) + k - 1
    share = max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0
    p = float(gammaincc((k - 1) / 2, q / 2))
    return RandomEffects(Estimate(mu, mu - half, mu + half, k, k), float(np.sqrt(tau2)), share, p,
                         (float(y.min()), float(y.max())))  # fmt: skip


def standard_errors(
    estimates: Sequence[Estimate], *, is_bounded: bool = False, confidence: float = CONFIDENCE
) -> np.ndarray:
    """Standard error of each estimate, read off its interval, t with n_groups - 1 degrees of freedom.

        unbounded: min(value - lo, hi - value)/t      the shorter arm: the rule widens the other one for skew
        bounded:   (hi - lo)/(2 t)                    arms of Wilson's interval differ because of the bound

    Exact for an interval of the rule (`interp.stats.jackknife`) with equal groups and no bounds; with unequal groups
    too large, since t of the rule has fewer degrees of freedom. For a rate from 0.5 to 0.97 the half-width is 0.8 to
    1.3 of the standard error, and positive where all are right; the shorter arm would be 0.3 to 0.9 of it, or 0.

    Args:
        is_bounded: the estimates have a smallest and a largest possible value, as rates and their differences do.
    """
    level("confidence", confidence)
    t = np.array([t_value(confidence, max(e.n_groups - 1, 1)) for e in estimates])
    arms = np.array([(e.value - e.lo, e.hi - e.value) for e in estimates]).reshape(-1, 2)
    return (arms.mean(axis=1) if is_bounded else arms.min(axis=1)) / t


def _excess(y: np.ndarray, s: np.ndarray, tau2: float) -> float:
    """Σ w (y - mu)² - (k - 1) at a variance between studies."""
    weights = 1 / (s**2 + tau2)
    mu = weights @ y / weights.sum()
    return float(weights @ (y - mu) ** 2) - (len(y) - 1)


def _between(y: np.ndarray, s: np.ndarray) -> float:
    """Variance between studies, 0 where they differ no more than their errors."""
    from scipy.optimize import brentq

    if _excess(y, s, 0.0) <= 0:
        return 0.0
    most = float((y.max() - y.min()) ** 2)  # Σ w (y - mu)² <= Σ (y - mean)²/tau² < k - 1 there
    found = brentq(lambda tau2: _excess(y, s, tau2), 0.0, most, xtol=1e-14 * max(most, 1.0))
    assert isinstance(found, float)
    return found
