"""Platt scaling: scores to probabilities by a fitted sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Values, binary, numbers, same_length


@dataclass(frozen=True)
class Platt:
    """p(positive) = sigmoid(slope·score + intercept); a negative slope says the score points the wrong way."""

    slope: float
    intercept: float

    def __call__(self, scores: Values) -> np.ndarray:
        from scipy.special import expit

        return expit(self.slope * numbers("scores", scores) + self.intercept)


def fit_platt(scores: Values, labels: Values) -> Platt:
    """Sigmoid by maximum likelihood with Platt's smoothed targets, so separated scores give a finite slope.

        t_i = (n_pos + 1)/(n_pos + 2) for positives, 1/(n_neg + 2) for negatives
        minimise -sum_i t_i log p_i + (1 - t_i) log(1 - p_i)

    Fit on out-of-fold scores, never on the scores of the training rows.

    Args:
        scores: real-valued [example];  labels: 0/1 [example].
    Raises:
        ValueError: one class only, constant scores, NaN, lengths differ.
    Source: Platt (1999); Lin, Lin & Weng, Mach. Learn. 68 (2007) 267.
    """
    s, y = numbers("scores", scores, at_least=2), binary("labels", labels)
    same_length(scores=s, labels=y)
    if y.all() or not y.any() or s.std() == 0:
        raise ValueError(
            f"Platt scaling: expected both classes and scores that vary, got {int(y.sum())} positive of {len(y)} and "
            f"a spread of {s.std():g}. There is nothing to fit."
        )
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    centre, scale = s.mean(), s.std()
    slope, intercept = _newton((s - centre) / scale, target)
    return Platt(slope / scale, intercept - slope * centre / scale)


def _newton(s: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    from scipy.special import expit

    def loss(beta: np.ndarray) -> float:
        f = beta[0] * s + beta[1]
        return float((np.logaddexp(0, f) - target * f).sum())

    design = np.column_stack([s, np.ones_like(s)])
    beta = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
    for _ in range(100):
        p = expit(design @ beta)
        gradient = design.T @ (p - target)
        if np.abs(gradient).max() < 1e-10 * len(s):
            break
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2), gradient)
        rate = 1.0
        while rate > 1e-10 and loss(beta - rate * step) > loss(beta):
            rate /= 2
        beta = beta - rate * step
    return float(beta[0]), float(beta[1])
