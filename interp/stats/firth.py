"""Firth's penalised logistic likelihood: fit, profile intervals, and the test for separation."""

from __future__ import annotations

import numpy as np


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
    """Coefficients that maximise the likelihood, with Firth's penalty or without, one of them optionally held.

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
    """Values of coefficient j at which 2·(l*(best) - l*(best with it held)) reaches the chi-squared quantile.

    Source: Heinze & Schemper, Stat. Med. 21 (2002) 2409, §2.3.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2

    top, limit = penalised_likelihood(rows, outcome, weights, beta), float(chi2.ppf(confidence, 1))

    def drop(value: float) -> float:
        held = fit_penalised(rows, outcome, weights, firth=True, fixed=(j, value), start=beta)
        return 2 * (top - penalised_likelihood(rows, outcome, weights, held)) - limit

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
