"""Logistic regression with cluster-robust intervals, and Firth's penalty where the data are separated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats._check import (
    CHECKED_GROUPS,
    FewGroupsWarning,
    GroupCodes,
    Groups,
    Values,
    binary,
    group_codes,
    numbers,
    same_length,
)
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.firth import fit_penalised, is_separated, profile_limits
from interp.stats.jackknife import effective_groups, jackknife_limits


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Coefficients (log odds) by name, intercept first.

    Attributes:
        coefficients: with intervals; n and n_groups are the regression's.
        covariance:   cluster-robust [coefficient, coefficient]; None for a Firth fit.
        method:       "maximum likelihood" or "firth".
        note:         what was done and why, in words that go under the table; "" where nothing special was.
    """

    coefficients: dict[str, Estimate]
    covariance: np.ndarray | None
    method: str
    note: str


def logistic_regression(
    answer: Values,
    predictors: Values,
    *,
    names: Sequence[str],
    groups: Groups,
    confidence: float = CONFIDENCE,
) -> LogisticFit:
    """log odds of the answer = intercept + sum_j beta_j x_j, intervals robust to dependence inside groups.

        cov = G/(G-1) · (n-1)/(n-k) · I⁻¹ ( sum_g s_g s_gᵀ ) I⁻¹,   s_g = sum_{i in g} x_i (y_i - p_i)
        interval: the rule of `interp.stats.jackknife` with beta without group g after one Newton step,
        beta_(-g) = beta - (I - I_g)⁻¹ s_g,   I_g = sum_{i in g} x_i x_iᵀ p_i (1 - p_i)

    Separated data (some combination of the predictors gives the answer without error, so the estimate is
    infinite) are found by a linear programme, fitted with Firth's penalty, and given profile penalised
    likelihood intervals in which each group counts once (weight G/n per example); `note` says so.

    Args:
        answer: 0/1 [example].
        predictors: [example, predictor], without a constant column.
        names: one per predictor.
    Raises:
        ValueError: lengths differ, collinear predictors, too few examples or groups, NaN.
    Source: Liang & Zeger, Biometrika 73 (1986) 13 (same correction as statsmodels' cov_type="cluster");
        Konis (2007) for the programme; Firth (1993), Heinze & Schemper, Stat. Med. 21 (2002) 2409.
    """
    y, x = binary("answer", answer, at_least=2), numbers("predictors", predictors, ndim=2)
    n = same_length(answer=y, predictors=x)
    if len(names) != x.shape[1]:
        raise ValueError(f"names: expected one per predictor ({x.shape[1]}), got {len(names)}: {list(names)}.")
    design, codes = np.column_stack([np.ones(n), x]), group_codes(groups, n)
    _check_rank(design, names)
    if codes.n_groups < CHECKED_GROUPS:
        warnings.warn(
            f"intervals from {codes.n_groups} groups: their coverage was checked from {CHECKED_GROUPS} on.",
            FewGroupsWarning,
            stacklevel=2,
        )
    patterns, inverse = np.unique(np.column_stack([design, y]), axis=0, return_inverse=True)
    weights = np.bincount(inverse.reshape(-1), minlength=len(patterns)).astype(np.float64)
    rows, outcome = patterns[:, :-1], patterns[:, -1]
    labels = ("intercept", *names)
    if is_separated(rows, outcome):
        return _separated(rows, outcome, weights * codes.n_groups / n, labels, codes, n, confidence)
    beta = fit_penalised(rows, outcome, weights, firth=False)
    covariance = _robust(design, y, beta, codes)
    effective = float(effective_groups(codes.sizes))
    lo, hi = jackknife_limits(beta, _left_out(design, y, beta, codes), effective=effective, confidence=confidence)
    ends = zip(labels, beta, lo, hi, strict=True)
    found = {name: Estimate(float(b), float(low), float(high), n, codes.n_groups) for name, b, low, high in ends}
    return LogisticFit(found, covariance, "maximum likelihood", "")


def _separated(
    rows: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    labels: tuple[str, ...],
    codes: GroupCodes,
    n: int,
    confidence: float,
) -> LogisticFit:
    beta = fit_penalised(rows, outcome, weights, firth=True)
    found = {}
    for j, name in enumerate(labels):
        lo, hi = profile_limits(rows, outcome, weights, beta, j, confidence=confidence)
        found[name] = Estimate(float(beta[j]), lo, hi, n, codes.n_groups)
    note = (
        "the answers are separated (a combination of the predictors gives some of them without error), so maximum "
        "likelihood is infinite; Firth's penalised estimate with profile intervals"
        + (f", each of {codes.n_groups} groups counted once" if codes.n_groups < n else "")
        + ": read the direction and the nearer end of the interval, not the size"
    )
    return LogisticFit(found, None, "firth", note)


def _robust(design: np.ndarray, y: np.ndarray, beta: np.ndarray, codes: GroupCodes) -> np.ndarray:
    from scipy.special import expit

    p = expit(design @ beta)
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    score = codes.sums(design * (y - p)[:, None])
    n, k = design.shape
    correction = codes.n_groups / (codes.n_groups - 1) * (n - 1) / (n - k)
    return correction * bread @ (score.T @ score) @ bread


def _left_out(design: np.ndarray, y: np.ndarray, beta: np.ndarray, codes: GroupCodes) -> np.ndarray:
    """Coefficients without each group [group, coefficient] after one Newton step from those of all; NaN where the
    other groups do not determine them.
    """
    from scipy.special import expit

    p, k = expit(design @ beta), design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), k * k)
    information = codes.sums(products * (p * (1 - p))[:, None]).reshape(-1, k, k)
    score, rest = codes.sums(design * (y - p)[:, None]), information.sum(axis=0) - information
    is_known = np.linalg.cond(rest) < 1e10
    out = np.full(score.shape, np.nan)
    out[is_known] = beta - np.linalg.solve(rest[is_known], score[is_known][:, :, None])[:, :, 0]
    return out


def _check_rank(design: np.ndarray, names: Sequence[str]) -> None:
    n, k = design.shape
    if n <= k:
        raise ValueError(f"predictors: expected more examples than coefficients ({k}), got {n}. Pool cells.")
    if np.linalg.matrix_rank(design) < k:
        raise ValueError(
            f"predictors {', '.join(names)}: expected columns that are not constant and not combinations of each "
            "other. Two cues that always agree cannot be told apart: add items on which they differ."
        )
