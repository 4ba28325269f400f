"""Logistic regression with cluster-robust intervals, and Firth's penalty where the data are separated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats.check import (
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
from interp.stats.jackknife import effective_groups, jackknife_limits


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Coefficients (log odds) by name, intercept first.

    Attributes:
        coefficients: with intervals; n and n_groups are the regression's.
        covariance:   cluster-robust [coefficient, coefficient]; None for a Firth fit.
        method:       "maximum likelihood" or "firth".
        note:         a remark for below the table, such as that the data are separated; "" where there is none.
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
    infinite) are detected by a linear programme, fitted with Firth's penalty, and given profile penalised
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
            f"intervals from {codes.n_groups} groups; their coverage was verified for {CHECKED_GROUPS} or more.",
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
    coefficients = {name: Estimate(float(b), float(low), float(high), n, codes.n_groups) for name, b, low, high in ends}
    return LogisticFit(coefficients, covariance, "maximum likelihood", "")


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
    coefficients = {}
    for j, name in enumerate(labels):
        lo, hi = profile_limits(rows, outcome, weights, beta, j, confidence=confidence)
        coefficients[name] = Estimate(float(beta[j]), lo, hi, n, codes.n_groups)
    note = (
        "the answers are separated (a combination of the predictors predicts some of them without error), so "
        "maximum likelihood is infinite; Firth's penalised estimate with profile intervals"
        + (f", each of {codes.n_groups} groups counted once" if codes.n_groups < n else "")
        + ": read the direction and the nearer end of the interval, not the size"
    )
    return LogisticFit(coefficients, None, "firth", note)


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
            "other. Two cues that always agree are not separable: add items on which they differ."
        )


def is_separated(rows: np.ndarray, outcome: np.ndarray) -> bool:
    """Whether some direction classifies without error and is not 0 everywhere (complete or quasi-separation).

        max_b sum_i s_i x_iᵀb   subject to   s_i x_iᵀb >= 0,  |b_j| <= 1;   s_i = ±1 by outcome;   separated iff > 0

    Source: Konis, *Linear programming algorithms for detecting separated data* (2007); Albert & Anderson (1984).
    """
    from scipy.optimize import linprog

    if _every_row_has_both_outcomes(rows, outcome):
        return False
    signed = rows * np.where(outcome > 0, 1.0, -1.0)[:, None]
    out = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs")
    assert out.status == 0, f"separation programme failed: {out.message}"
    return bool(-out.fun > 1e-7)


def _every_row_has_both_outcomes(rows: np.ndarray, outcome: np.ndarray) -> bool:
    """Sufficient for overlap, and all that most data with few distinct rows need."""
    distinct, code = np.unique(rows, axis=0, return_inverse=True)
    code = code.reshape(-1)
    return all(len(np.unique(code[outcome == y])) == len(distinct) for y in (0, 1))


def penalised_likelihood(rows: np.ndarray, outcome: np.ndarray, weights: np.ndarray, beta: np.ndarray) -> float:
    """l*(b) = sum_i w_i [ y_i log p_i + (1 - y_i) log(1 - p_i) ] + ½ log det I(b)."""
    eta = rows @ beta
    return _likelihood(eta, outcome, weights) + 0.5 * float(np.linalg.slogdet(_information(rows, weights, eta))[1])


def fit_penalised(
    rows: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    *,
    firth: bool,
    fixed: tuple[int, float] | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients that maximise the likelihood, with Firth's penalty or without, one of them optionally fixed.

        score_j = sum_i x_ij [ w_i (y_i - p_i) + h_i (½ - p_i) ],   h = diagonal of the weighted hat matrix (0 without)

    Newton with step halving, so the objective never falls.

    Source: Firth, Biometrika 80 (1993) 27; Heinze & Schemper (2002).
    """
    from scipy.special import expit

    def objective(b: np.ndarray) -> float:
        return penalised_likelihood(rows, outcome, weights, b) if firth else _likelihood(rows @ b, outcome, weights)

    beta = np.zeros(rows.shape[1]) if start is None else start.copy()
    free = np.ones(len(beta), dtype=bool)
    if fixed is not None:
        free[fixed[0]], beta[fixed[0]] = False, fixed[1]
    for _ in range(200):
        p = expit(rows @ beta)
        information = _information(rows, weights, rows @ beta)
        residual = weights * (outcome - p)
        if firth:
            leverage = weights * p * (1 - p) * np.einsum("ij,ji->i", rows, np.linalg.solve(information, rows.T))
            residual = residual + leverage * (0.5 - p)
        score = (rows.T @ residual)[free]
        if not free.any() or np.abs(score).max() < 1e-7 * (1 + weights.sum()):
            break
        step = np.zeros_like(beta)
        step[free] = np.linalg.solve(information[np.ix_(free, free)], score)
        step *= min(1.0, 5.0 / np.abs(step).max())
        now, rate = objective(beta), 1.0
        while rate > 1e-8 and objective(beta + rate * step) < now:
            rate /= 2
        beta = beta + rate * step
    return beta


def profile_limits(
    rows: np.ndarray, outcome: np.ndarray, weights: np.ndarray, beta: np.ndarray, j: int, *, confidence: float
) -> tuple[float, float]:
    """Values of coefficient j at which 2·(l*(best) - l*(best with it fixed)) reaches the chi-squared quantile.

    Source: Heinze & Schemper, Stat. Med. 21 (2002) 2409, §2.3.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2

    top, limit = penalised_likelihood(rows, outcome, weights, beta), float(chi2.ppf(confidence, 1))

    def drop(value: float) -> float:
        constrained = fit_penalised(rows, outcome, weights, firth=True, fixed=(j, value), start=beta)
        return 2 * (top - penalised_likelihood(rows, outcome, weights, constrained)) - limit

    ends = []
    for side in (-1.0, 1.0):
        reach = 1.0
        while drop(beta[j] + side * reach) < 0 and reach < 1e3:
            reach *= 2
        inner, outer = float(beta[j]), float(beta[j] + side * reach)
        root = brentq(drop, inner, outer, xtol=1e-5) if reach < 1e3 else side * float("inf")
        assert isinstance(root, float)
        ends.append(root)
    return ends[0], ends[1]


def _likelihood(eta: np.ndarray, outcome: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ (outcome * eta - np.logaddexp(0, eta)))


def _information(rows: np.ndarray, weights: np.ndarray, eta: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    p = expit(eta)
    return rows.T @ (rows * (weights * p * (1 - p))[:, None])
