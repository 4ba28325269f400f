"""AUROC with an interval over groups, and differences of two AUROCs on the same examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from interp.stats._check import Groups, Seed, Values, binary, group_codes, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import clopper_pearson
from interp.stats.resample import N_RESAMPLES, resample_weights


def auroc(
    scores: Values,
    labels: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Probability that a positive scores above a negative, ties counted half; cluster-bootstrap interval.

        AUROC = sum_{i pos, j neg} ( [s_i > s_j] + ½[s_i = s_j] ) / (n_pos · n_neg)

    At complete separation every resample gives 1: the lower end is then the exact one of m successes in m
    trials, m = the smaller of the numbers of groups with a positive and with a negative.

    Args:
        scores: larger means more positive [example].
        labels: 1 for positive [example].
    Raises:
        ValueError: one class missing, NaN, lengths differ, one group.
    Warns:
        UndefinedDrawsWarning: resamples without one of the classes (left out).
    Source: Hanley & McNeil, Radiology 143 (1982) 29; Field & Welsh (2007) for the bootstrap.
    """
    s, y = _check(scores, labels)
    codes = group_codes(groups, len(s))
    draws = resample_weights(_area(s, y), n=len(s), groups=groups, seed=seed, n_resamples=n_resamples)
    value = float(draws.value)
    if value not in (0.0, 1.0):
        return draws.estimate(confidence=confidence)
    m = min(len(np.unique(codes.code[y])), len(np.unique(codes.code[~y])))
    exact = clopper_pearson(m if value else 0, m, confidence=confidence)
    return Estimate(value, exact.lo, exact.hi, len(s), codes.n_groups)


def auroc_difference(
    scores_a: Values,
    scores_b: Values,
    labels: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """AUROC of a minus AUROC of b on the same examples, both seeing the same draws (layers, checkpoints, controls).

    Raises:
        ValueError: as `auroc`.
    Source: as `auroc`.
    """
    a, y = _check(scores_a, labels)
    b, _ = _check(scores_b, labels)
    area_a, area_b = _area(a, y), _area(b, y)
    draws = resample_weights(
        lambda w: area_a(w) - area_b(w), n=len(y), groups=groups, seed=seed, n_resamples=n_resamples
    )
    return draws.estimate(confidence=confidence)


def _check(scores: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    s, y = numbers("scores", scores), binary("labels", labels)
    same_length(scores=s, labels=y)
    if y.all() or not y.any():
        raise ValueError(
            f"labels: expected both classes, got {int(y.sum())} positive and {int((~y).sum())} negative of {len(y)}. "
            "AUROC is not defined; drop the cell or pool it."
        )
    return s, y


def _area(scores: np.ndarray, is_positive: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """AUROC as a function of example weights [resample, example], by one sort and cumulative sums."""
    order = np.argsort(scores, kind="stable")
    _, first, n_tied = np.unique(scores[order], return_index=True, return_counts=True)
    first, last = np.repeat(first, n_tied), np.repeat(first + n_tied, n_tied)
    is_positive = is_positive[order]

    def area(weights: np.ndarray) -> np.ndarray:
        w = weights[:, order]
        below = np.zeros((len(w), w.shape[1] + 1))
        np.cumsum(w * ~is_positive, axis=1, out=below[:, 1:])
        won = (below[:, first[is_positive]] + below[:, last[is_positive]]) / 2
        positive = w[:, is_positive]
        return (positive * won).sum(axis=1) / (positive.sum(axis=1) * below[:, -1])

    return area
