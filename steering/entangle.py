"""Entanglement: does a direction move its target, or only what goes with it? Joint slopes, and matched coverage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.stats import Estimate
from steering.curves import Levels, slope_contrast
from steering.outcomes import GroupSums
from steering.strengths import DosePlan


@dataclass(frozen=True, eq=False)
class Entanglement:
    """One arm's effect on two scores at once.

    Attributes:
        slopes: d(coverage)/dα and d(target)/dα.
        covariance: of the two slopes over the bootstrap: their joint 95 % region is (z - mean)ᵀ C⁻¹ (z - mean) = 5.991.
        plane: at every strength coverage, target and their covariance (xx, xy, yy) [alpha, 5].
        matched: by name of each reference arm, target of this arm minus target of the reference at the same coverage,
            one estimate per strength; undefined where the reference never has that coverage.
    """

    slopes: tuple[Estimate, Estimate]
    covariance: Float[np.ndarray, "2 2"]
    plane: Float[np.ndarray, "alpha 5"]
    matched: Mapping[str, tuple[Estimate, ...]]


def entanglement(
    sums: GroupSums,
    plan: DosePlan,
    scores: Mapping[str, Any],
    arm: int,
    *,
    coverage: str = "coverage",
    target: str = "amb_commit_bias",
    references: tuple[int, ...] = (),
    seed: int = 0,
    n_resamples: int = 2000,
) -> Entanglement:
    """Joint slopes of one arm, and its target against that of other arms at equal coverage.

    An arm that changes commitment changes every score that is made of commitments. Compared at equal coverage, by
    interpolating the reference arm between its strengths, only what is not commitment is left.

    Args:
        references: arms to compare with, such as the abstention nuisance.
    Raises:
        ValueError: a score that is not there.
    Source: steering spec B.8, step 9.
    """
    if missing := {coverage, target} - set(scores):
        raise ValueError(f"entanglement: no score {', '.join(sorted(missing))}; there are {', '.join(scores)}.")
    levels = Levels(sums, {name: scores[name] for name in (coverage, target)}, seed=seed, n_resamples=n_resamples)
    value, draws, n = levels.of(plan.rows[arm])
    slope, slopes = (np.einsum("a,...am->...m", slope_contrast(plan.alphas), part) for part in (value, draws))
    first, second = ((int(k), len(sums.groups)) for k in n[plan.zero])  # n of coverage, n of the target
    matched = {}
    for other in references:
        own, their = levels.of(plan.rows[other]), plan.arms[other].name
        point = value[:, 1] - at_level(own[0][None, :, 0], own[0][None, :, 1], value[None, :, 0])[0]
        drawn = draws[..., 1] - at_level(own[1][..., 0], own[1][..., 1], draws[..., 0])
        matched[their] = tuple(_estimate(point[k], drawn[:, k], *second) for k in range(len(plan.alphas)))
    pair = (_estimate(slope[0], slopes[:, 0], *first), _estimate(slope[1], slopes[:, 1], *second))
    return Entanglement(pair, _covariance(slopes), _plane(value, draws), matched)


def at_level(
    x: Float[np.ndarray, "draw alpha"], y: Float[np.ndarray, "draw alpha"], level: Float[np.ndarray, "draw k"]
) -> Float[np.ndarray, "draw k"]:
    """y where the curve x(α) passes `level`, linear between neighbouring strengths; NaN where it never does.

    Of several crossings the first from the middle strength outwards counts, since the weakest push is the least
    disturbed run.
    """
    n, middle = x.shape[1], (x.shape[1] - 1) / 2
    out = np.full(level.shape, np.nan)
    for k in sorted(range(n - 1), key=lambda k: -abs(k + 0.5 - middle)):  # nearest last, so that it stays
        a, b = x[:, [k]], x[:, [k + 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(a == b, 0.0, (level - a) / (b - a))
            crosses = (share >= 0) & (share <= 1) & ((a != b) | (level == a))
        found = y[:, [k]] + share * (y[:, [k + 1]] - y[:, [k]])
        out = np.where(crosses & ~np.isnan(found), found, out)
    return out


def _estimate(value: float, draws: np.ndarray, n: int, n_groups: int) -> Estimate:
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < 0.5 * len(draws):
        return Estimate.undefined(n, n_groups)
    lo, hi = np.quantile(known, (0.025, 0.975))
    return Estimate(float(value), float(lo), float(hi), n, n_groups)


def _covariance(draws: np.ndarray) -> np.ndarray:
    known = draws[~np.isnan(draws).any(axis=1)]
    return np.cov(known.T) if len(known) > 2 else np.full((2, 2), np.nan)


def _plane(value: np.ndarray, draws: np.ndarray) -> np.ndarray:
    rows = []
    for k in range(len(value)):
        c = _covariance(draws[:, k])
        rows.append([value[k, 0], value[k, 1], c[0, 0], c[0, 1], c[1, 1]])
    return np.array(rows)
