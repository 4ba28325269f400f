"""Agreement of two ratings on an ordered scale: Cohen's kappa, plain or quadratically weighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.stats._check import Groups, Values, choice, same_length
from interp.stats.estimate import Estimate, Sampling
from interp.stats.resample import resample_sums

WEIGHTS = ("quadratic", "linear", "none")


@dataclass(frozen=True)
class Kappa:
    """Kappa with its interval.

    Attributes:
        n_undefined: groups without which there is no kappa (both ratings constant: 0/0); the interval is then [-1, 1].
    """

    kappa: Estimate
    n_undefined: int


def weighted_kappa(
    gold: Values,
    rated: Values,
    *,
    levels: Sequence[Any],
    groups: Groups,
    weights: str = "quadratic",
    sampling: Sampling = Sampling(),
) -> Kappa:
    """Chance-corrected agreement of two ratings of the same examples.

        kappa = 1 - sum_ij w_ij O_ij / sum_ij w_ij E_ij;   O = shares of each pair of levels, E = product of margins
        w_ij = (i - j)²/(K-1)² quadratic, |i - j|/(K-1) linear, [i != j] none

    0 for a constant prediction, 1 for perfect agreement; undefined (NaN) where both ratings are constant. The interval
    is that of a number between -1 and 1 (`interp.stats.jackknife`): it has width at 1, and says nothing ([-1, 1]) where
    kappa is undefined without one of the groups.

    Args:
        gold, rated: levels of each example [example]; remove unparsed ratings first and report their rate.
        levels: every level of the scale in order, also those that do not occur (ESI: 1, 2, 3, 4, 5).
        groups: independent unit of each example (the subject), or None.
    Raises:
        ValueError: lengths differ, a rating outside the levels, fewer than 2 levels, one group.
    Source: Cohen, Psychol. Bull. 70 (1968) 213.
    """
    choice("weights", weights, WEIGHTS)
    levels = list(levels)
    if len(levels) < 2 or len(set(levels)) != len(levels):
        raise ValueError(f"levels: expected at least 2 different levels in order, got {levels}.")
    i, j = _indices("gold", gold, levels), _indices("rated", rated, levels)
    n, k = same_length(gold=i, rated=j), len(levels)
    cells = np.zeros((n, k * k))
    cells[np.arange(n), i * k + j] = 1.0
    penalty = _penalty(k, weights)
    draws = resample_sums(
        cells,
        lambda sums: _kappa(sums, penalty),
        groups=groups,
        sampling=sampling,
        bounds=(-1.0, 1.0),
    )
    return Kappa(draws.estimate(), int(np.isnan(draws.left_out).sum()))


def _kappa(sums: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    k = len(penalty)
    observed = sums.reshape(*sums.shape[:-1], k, k)
    total = observed.sum(axis=(-2, -1))
    expected = observed.sum(axis=-1)[..., :, None] * observed.sum(axis=-2)[..., None, :]
    disagreement = (penalty * observed).sum(axis=(-2, -1)) / (penalty * expected).sum(axis=(-2, -1))
    return np.asarray(1 - total * disagreement)


def _penalty(k: int, weights: str) -> np.ndarray:
    gap = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1)
    return {"quadratic": gap**2, "linear": gap, "none": (gap > 0).astype(float)}[weights]


def _indices(name: str, values: Values, levels: list[Any]) -> np.ndarray:
    index = {level: i for i, level in enumerate(levels)}
    try:
        codes = [index[value] for value in np.asarray(values).tolist()]
    except KeyError as error:
        raise ValueError(
            f"{name}: expected one of {levels}, got {error.args[0]!r}. Remove unparsed ratings and report their rate."
        ) from error
    if not codes:
        raise ValueError(f"{name}: expected at least 1 rating, got 0.")
    return np.array(codes)
