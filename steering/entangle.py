"""Entanglement: does a direction move its target, or only something correlated? Joint slopes, matched coverage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.stats import CONFIDENCE, Estimate
from interp.stats.jackknife import Jackknife
from interp.stats.ratio import fieller_limits
from steering.curves import slope_contrast
from steering.levels import Level, counting, counts_of, covariance
from steering.outcomes import GroupSums
from steering.strengths import DosePlan


@dataclass(frozen=True, eq=False)
class Entanglement:
    """One arm's effect on two scores at once.

    Attributes:
        slopes: d(coverage)/dα and d(target)/dα.
        covariance: covariance of the two slopes, jackknife over the groups that count for either.
        exchange: d(target)/d(coverage), the ratio of the slopes with Fieller's interval: change of the target per unit
            of coverage; undefined if the slope of coverage may be 0.
        plane: at every strength: coverage, target, their covariance (xx, xy, yy) and the effective number of groups
            behind them, the smaller of both [alpha, 6].
        n_groups: groups that count for coverage or target.
        matched: name of a reference arm -> target of this arm minus target of the reference at the same coverage,
            one estimate per strength; undefined where the reference, or what is left of it without one of the groups,
            never has that coverage, and at strength 0, which both arms share.
    """

    slopes: tuple[Estimate, Estimate]
    covariance: Float[np.ndarray, "2 2"]
    exchange: Estimate
    plane: Float[np.ndarray, "alpha 6"]
    n_groups: int
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
) -> Entanglement:
    """Joint slopes of one arm, and its target against that of other arms at equal coverage.

    An arm that changes how often the model commits changes every score of commitments. A comparison at equal coverage,
    by interpolating the reference arm between its strengths, removes that part.

    Args:
        references: arms to compare with, such as the abstention nuisance.
    Raises:
        ValueError: an unknown score.
    Source: docs/howto/dose_curves.md; intervals by the rule of `interp.stats.jackknife`.
    """
    if missing := {coverage, target} - set(scores):
        raise ValueError(f"entanglement: no score {', '.join(sorted(missing))}; there are {', '.join(scores)}.")
    arms, pair = [arm, *references], (scores[coverage], scores[target])
    rows = plan.rows[arms]
    keep = np.any([counting(counts_of(sums, one, rows)) for one in pair], axis=0)
    x, y = (Level.of(sums, one, rows, groups=keep) for one in pair)
    contrast = slope_contrast(plan.alphas)
    slopes = x.at(0).slope(contrast), y.at(0).slope(contrast)
    xx, xy, yy = covariance(*slopes).tolist()
    matched = {plan.arms[k].name: _matched(x, y, 1 + i, plan.zero) for i, k in enumerate(references)}
    behind = np.minimum(x.at(0).effective, y.at(0).effective)
    plane = np.column_stack([x.value[0], y.value[0], covariance(x.at(0), y.at(0)), behind])
    pair_of = np.array([[xx, xy], [xy, yy]])
    own = [Level.of(sums, one, rows[0]) for one in pair]  # each with the groups that count for it alone
    first, second = (_estimate(level.slope(contrast), level, plan.zero) for level in own)
    return Entanglement(
        (first, second),
        pair_of,
        _exchange(slopes, y.at(0), pair_of, plan.zero),
        plane,
        int(keep.sum()),
        matched,
    )


def _estimate(slope: Level, level: Level, zero: int) -> Estimate:
    """A slope with n and groups of its level at strength 0."""
    sizes = int(level.n[zero]), int(level.n_groups[zero])
    lo, hi = (float(end) for end in slope.limits())
    return Estimate(float(slope.value), lo, hi, *sizes) if np.isfinite(slope.value) else Estimate.undefined(*sizes)


def _exchange(slopes: tuple[Level, Level], level: Level, cov: np.ndarray, zero: int) -> Estimate:
    """slopes[1] / slopes[0] by Fieller's limits of the rule (`interp.stats.ratio`); undefined where the denominator is
    within its interval's reach of 0."""
    sizes = int(level.n[zero]), int(level.n_groups[zero])
    effective = float(min(one.effective for one in slopes))
    means = np.array([slopes[1].value, slopes[0].value])
    knife = Jackknife.of(np.stack([slopes[1].left_out, slopes[0].left_out], axis=1), effective)
    q = float(np.max(knife.quantile(CONFIDENCE)))
    if not abs(means[1]) > max(2.0, q) * float(knife.se[1]):
        return Estimate.undefined(*sizes)
    lo, hi = fieller_limits(means, knife.deviation, cov[::-1, ::-1], effective=effective, q=q)
    return Estimate(float(means[0] / means[1]), lo, hi, *sizes)


def _matched(x: Level, y: Level, other: int, zero: int) -> tuple[Estimate, ...]:
    """Target of entry 0 minus target of entry `other` where both have the coverage of entry 0."""
    every = [np.concatenate([part.value[None], part.left_out]) for part in (x, y)]  # the data, then without each group
    with np.errstate(invalid="ignore"):
        gap = every[1][:, 0] - at_level(every[0][:, other], every[1][:, other], every[0][:, 0])
    span = y.bounds[1] - y.bounds[0]
    part = Level(gap[0], gap[1:], y.counts[:, 0] + y.counts[:, other], (-span, span))
    lo, hi = part.limits()
    out = []
    for k in range(len(part.value)):
        sizes = int(y.n[0, k]), int(y.n_groups[0, k])
        is_defined = k != zero and np.isfinite(part.value[k]) and np.isfinite(part.left_out[:, k]).all()
        ends = float(part.value[k]), float(lo[k]), float(hi[k])
        out.append(Estimate(*ends, *sizes) if is_defined else Estimate.undefined(*sizes))
    return tuple(out)


def at_level(
    x: Float[np.ndarray, "draw alpha"], y: Float[np.ndarray, "draw alpha"], level: Float[np.ndarray, "draw k"]
) -> Float[np.ndarray, "draw k"]:
    """y where the curve x(α) passes `level`, linear between neighbouring strengths; NaN where it never does.

    If there are several crossings, the first from the middle strength outwards is used, since the smallest strength
    disturbs the run least.
    """
    n, middle = x.shape[1], (x.shape[1] - 1) / 2
    out = np.full(level.shape, np.nan)
    for k in sorted(range(n - 1), key=lambda k: -abs(k + 0.5 - middle)):  # nearest last, so that it stays
        a, b = x[:, [k]], x[:, [k + 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(a == b, 0.0, (level - a) / (b - a))
            crosses = (share >= 0) & (share <= 1) & ((a != b) | (level == a))
        crossing = y[:, [k]] + share * (y[:, [k + 1]] - y[:, [k]])
        out = np.where(crosses & ~np.isnan(crossing), crossing, out)
    return out
