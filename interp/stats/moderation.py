"""Variances of many hypotheses drawn toward what they share: a small one may be small by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Real


@dataclass(frozen=True)
class Shrinkage:
    """Inverse-chi-squared prior of many variances, and the variances it makes.

        s~² = (d0·s0² + d·s²) / (d0 + d)

    Attributes:
        df:       d of each variance, as far as the tails of the data leave it (`effective_df`).
        prior_df: d0; infinite where they differ no more than chance makes them, 0 below three hypotheses.
        variance: s0².
    """

    df: float
    prior_df: float
    variance: float

    @classmethod
    def of(cls, variances: np.ndarray, squares: np.ndarray, df: int) -> Shrinkage:
        """The prior whose law of log s² has the mean and the variance of the positive ones.

        Args:
            variances: s² of each hypothesis [hypothesis].
            squares: what each group adds to it [group, hypothesis], in any unit.
            df: d for gaussian data.
        Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3, §6.2.
        """
        from scipy.special import digamma

        is_positive = variances > 0
        if is_positive.sum() < 3:
            return cls(float(df), 0.0, 1.0)
        own = effective_df(squares[:, is_positive], df)
        logs = np.log(variances[is_positive]) - digamma(own / 2) + np.log(own / 2)
        prior = _df_of(float(logs.var(ddof=1)) - _log_variance(own))
        if np.isinf(prior):
            return cls(own, prior, float(np.exp(logs.mean())))
        return cls(own, prior, float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))))

    def __call__(self, variances: np.ndarray) -> np.ndarray:
        """The variances, shrunk, in their shape."""
        if np.isinf(self.prior_df):
            return np.full_like(variances, self.variance)
        return (self.prior_df * self.variance + self.df * variances) / (self.prior_df + self.df)


def effective_df(squares: np.ndarray, df: int) -> float:
    """Degrees of freedom of a chi-squared law whose logarithm varies as much as that of these sums of squares.

        trigamma(d/2) = mean over hypotheses of the jackknife variance of log(sum_g squares_g)

    At most `df`, which gaussian data have. With heavy tails the spread of a hypothesis says less about itself: one that
    happened to meet no large value looks precise. A single hypothesis counts as no less than 1.

    Args:
        squares: what each group adds [group, hypothesis]; every column has a positive sum.
    Source: Efron & Stein, Ann. Stat. 9 (1981) 586 (jackknife); Layard, JASA 68 (1973) 195 (variances of heavy tails).
    """
    n_groups, total = len(squares), squares.sum(axis=0)
    left = np.log(np.maximum(total - squares, 1e-12 * total) / total)
    spread = (n_groups - 1) / n_groups * ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    return _df_of(float(np.clip(spread, _log_variance(df), _log_variance(1.0)).mean()))


def _log_variance(df: Real) -> float:
    """Variance of the logarithm of a chi-squared variable."""
    from scipy.special import polygamma

    return float(polygamma(1, df / 2))


def _df_of(log_variance: float) -> float:
    """The degrees of freedom that have this variance of the logarithm; infinite where it is none."""
    from scipy.optimize import brentq

    if log_variance <= _log_variance(2e6):
        return float("inf")
    half = brentq(lambda h: _log_variance(2 * h) - log_variance, 1e-6, 1e6)
    assert isinstance(half, float)
    return 2 * half
