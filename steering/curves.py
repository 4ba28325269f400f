"""Dose curves of every arm: levels, paired changes, bands, slopes, and rank tests of an arm among its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.stats import CONFIDENCE, Sampling, max_null_p
from interp.stats.intervals import t_value
from interp.stats.jackknife import band_of
from steering.arms import CONTROLS, MIN_NULL, SORTS, Arm
from steering.levels import Level
from steering.outcomes import GroupSums
from steering.strengths import DosePlan

Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Curves:
    """Every score of every arm at every strength, all from the same groups left out.

    Attributes:
        value, lo, hi: the level and its interval [arm, alpha, score].
        change_lo, change_hi: interval of the paired change from strength 0, at one strength.
        band_lo, band_hi: band of the change, simultaneous over all strengths of the curve; NaN for controls.
        selection_lo, selection_hi: simultaneous over all strengths and sites of the direction: the band to report for a
            layer and a strength that were chosen on these items; NaN for other arms.
        excess, excess_lo, excess_hi: change minus the mean change of the random controls of the site; the interval
            includes the spread of the controls as well as that of the groups.
        slope, slope_lo, slope_hi: least-squares slope over the strengths [arm, score], per unit of alpha.
        apart: kind of control -> (slope minus their mean slope, lo, hi) [3, arm, score].
        n, n_groups: items that the level is a mean over, and groups with such an item [arm, alpha, score].
    """

    arms: tuple[Arm, ...]
    alphas: tuple[float, ...]
    scores: tuple[str, ...]
    value: Float[np.ndarray, "arm alpha score"]
    lo: Float[np.ndarray, "arm alpha score"]
    hi: Float[np.ndarray, "arm alpha score"]
    change_lo: Float[np.ndarray, "arm alpha score"]
    change_hi: Float[np.ndarray, "arm alpha score"]
    band_lo: Float[np.ndarray, "arm alpha score"]
    band_hi: Float[np.ndarray, "arm alpha score"]
    selection_lo: Float[np.ndarray, "arm alpha score"]
    selection_hi: Float[np.ndarray, "arm alpha score"]
    excess: Float[np.ndarray, "arm alpha score"]
    excess_lo: Float[np.ndarray, "arm alpha score"]
    excess_hi: Float[np.ndarray, "arm alpha score"]
    slope: Float[np.ndarray, "arm score"]
    slope_lo: Float[np.ndarray, "arm score"]
    slope_hi: Float[np.ndarray, "arm score"]
    apart: Mapping[str, Float[np.ndarray, "3 arm score"]]
    n: Int[np.ndarray, "arm alpha score"]
    n_groups: Int[np.ndarray, "arm alpha score"]

    @cached_property
    def zero(self) -> int:
        return self.alphas.index(0.0)

    @property
    def change(self) -> Float[np.ndarray, "arm alpha score"]:
        """value(alpha) - value(0)."""
        return self.value - self.value[:, [self.zero]]

    def controls(self, arm: int, roles: Sequence[str] = CONTROLS) -> list[int]:
        """Control arms of these roles at the site of an arm."""
        return controls_of(self.arms, arm, roles)

    def monotone(self, arm: int, score: int) -> float:
        """Share of the steps from one strength to the next that have the sign of the slope; a flat step counts as
        neither."""
        steps = np.diff(self.value[arm, :, score])
        return float((np.sign(steps) == np.sign(self.slope[arm, score])).mean()) if len(steps) else float("nan")


def controls_of(arms: Sequence[Arm], arm: int, roles: Sequence[str]) -> list[int]:
    return [k for k, one in enumerate(arms) if one.role in roles and one.site == arms[arm].site]


def dose_curves(
    sums: GroupSums,
    plan: DosePlan,
    scores: Mapping[str, Any],
    *,
    sampling: Sampling = Sampling(),
    n_tables: int = 1,
) -> Curves:
    """Levels, changes, slopes and differences of every arm, from the sums of each group.

    A score is a function of sums over items, so that leaving group g out is total - S[g]. All intervals follow the one
    rule of `interp.stats.jackknife`; bands are those of `interp.stats.band_of`.

    Args:
        scores: name -> object with `value(sums)`, `n` (columns whose sum is its n) and, if it has a known range,
            `bounds`.
        sampling: sampling of the intervals, and of the bootstrap of the bands.
        n_tables: tables out of which one strength is chosen together (one per position): each selection band has
            confidence 1 - 0.05/n_tables.
    Raises:
        ValueError: fewer than two groups.
    Source: docs/howto/dose_curves.md; `interp.stats.jackknife`, `interp.stats.band_of`.
    """
    levels = [Level.of(sums, score, plan.rows) for score in scores.values()]
    parts = [_one_score(level, plan, sampling, n_tables) for level in levels]
    for part, score in zip(parts, scores.values(), strict=True):
        for end in ("lo", "hi") if getattr(score, "start", None) is not None else ():
            part[end][:, plan.zero] = score.start
    columns = {name: np.stack([part[name] for part in parts], axis=-1) for name in parts[0] if name not in SORTS}
    apart = {sort: np.stack([part[sort] for part in parts], axis=-1) for sort in SORTS}
    return Curves(tuple(plan.arms), plan.alphas, tuple(scores), **columns, apart=apart)


def slope_contrast(alphas: Sequence[float]) -> Float[np.ndarray, "alpha"]:
    """c with c @ y = the least-squares slope of y over the strengths."""
    centred = np.array(alphas) - np.mean(alphas)
    return centred / (centred**2).sum()


def _one_score(level: Level, plan: DosePlan, sampling: Sampling, n_tables: int) -> dict[str, np.ndarray]:
    """Everything of one score [arm, alpha] or [arm]."""
    change, slope = level.change(plan.zero), level.slope(slope_contrast(plan.alphas))
    out = {"value": level.value, "n": level.n, "n_groups": level.n_groups, "slope": slope.value}
    for name, part in (("", level), ("change_", change), ("slope_", slope)):
        out[f"{name}lo"], out[f"{name}hi"] = part.limits(sampling.confidence)
    out["band_lo"], out["band_hi"] = _bands(change, plan, sampling)
    out["selection_lo"], out["selection_hi"] = _selection(change, plan, sampling, n_tables)
    excess = beyond_controls(change, plan.arms, "random", confidence=sampling.confidence)
    out["excess"], out["excess_lo"], out["excess_hi"] = excess
    for end in ("lo", "hi"):  # at strength 0 nothing changes, by definition
        out[f"change_{end}"][:, plan.zero] = 0.0
        out[f"excess_{end}"][:, plan.zero] = out["excess"][:, plan.zero]
    stacked = {s: np.stack(beyond_controls(slope, plan.arms, s, confidence=sampling.confidence)) for s in SORTS}
    return out | stacked


def _bands(change: Level, plan: DosePlan, sampling: Sampling) -> Ends:
    lo, hi = np.full(change.value.shape, np.nan), np.full(change.value.shape, np.nan)
    for k, arm in enumerate(plan.arms):
        if not arm.is_control:
            lo[k], hi[k] = band(change.at(k), zero=plan.zero, sampling=sampling)
    return lo, hi


def _selection(change: Level, plan: DosePlan, sampling: Sampling, n_tables: int) -> Ends:
    lo, hi = np.full(change.value.shape, np.nan), np.full(change.value.shape, np.nan)
    main = [k for k, arm in enumerate(plan.arms) if arm.role == "direction"]
    if main:
        part = change.at(main)
        stricter = replace(sampling, confidence=1 - (1 - sampling.confidence) / n_tables)
        lo[main], hi[main] = band(part, zero=plan.zero, sampling=stricter)
    return lo, hi


def band(change: Level, *, zero: int, sampling: Sampling = Sampling()) -> Ends:
    """Simultaneous band of changes over all strengths but 0 (index `zero` of the last axis), where it is closed.

    A strength at which all groups have the same value cannot be bootstrapped; if the score is bounded, it gets the
    interval of the rule at Bonferroni's level over the strengths.
    """
    shape = change.value.shape
    if len(change.left_out) < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    lo, hi = band_of(change.value, change.left_out, effective=change.effective, sampling=sampling)
    n_moved = max(1, lo.size - lo.size // shape[-1])
    alone = change.limits(1 - (1 - sampling.confidence) / n_moved)
    lo, hi = np.where(np.isnan(lo), alone[0], lo), np.where(np.isnan(hi), alone[1], hi)
    lo[..., zero] = hi[..., zero] = change.value[..., zero]
    return lo, hi


def beyond_controls(
    part: Level, arms: Sequence[Arm], role: str, *, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(value minus the mean over the controls of that role at the same site, lo, hi); NaN without such controls.

    The squares of two independent errors are added: that of the groups, and that of the mean of R control directions,
    t_{R-1} · sd/sqrt(R), since another draw of directions would have a different mean.
    """
    value, lo, hi = (np.full(part.value.shape, np.nan) for _ in range(3))
    for site in dict.fromkeys(arm.site for arm in arms):
        mine = [k for k, arm in enumerate(arms) if arm.site == site]
        null = [k for k in mine if arms[k].role == role]
        if len(null) < 2:
            continue
        apart = part.at(mine).minus(part.mean_of(null))
        ends, controls = apart.limits(confidence), part.value[null]
        noise = t_value(confidence, len(null) - 1) * controls.std(axis=0, ddof=1) / sqrt(len(null))
        value[mine] = apart.value
        lo[mine], hi[mine] = (
            apart.value + sign * np.sqrt(np.square(end - apart.value) + np.square(noise))
            for sign, end in ((-1, ends[0]), (1, ends[1]))
        )
    return value, lo, hi


FLOOR = 0.2
"""Least standard deviation of a strength, as a share of its root mean square over strengths."""


def smallest_p(arms: Sequence[Arm]) -> float:
    """Smallest p that an arm can have against these controls, known before anything is run: 1 / (1 + controls).

    The kind with fewer controls counts, since an effect has to exceed each kind; with several sites, the worst counts.
    NaN without a kind of at least 19 controls.
    """
    counts = [
        sum(arm.role == role and arm.site == site for arm in arms)
        for site in dict.fromkeys(arm.site for arm in arms)
        for role in SORTS
    ]
    enough = [count for count in counts if count >= MIN_NULL]
    return 1 / (1 + min(enough)) if enough else float("nan")


def controls_line(arms: Sequence[Arm]) -> str:
    """The smallest p that tests of these arms can reach, in words, before the run."""
    sites = list(dict.fromkeys(arm.site for arm in arms))
    per = {role: min(sum(a.role == role and a.site == site for a in arms) for site in sites) for role in SORTS}
    floor = smallest_p(arms)
    words = ", ".join(f"{count} {role}" for role, count in per.items())
    if floor != floor:
        return f"controls per layer: {words}; no p is computed from fewer than {MIN_NULL} of a kind"
    lacking = [role for role, count in per.items() if count < MIN_NULL]
    more = f"; no p against {' and '.join(lacking)} directions" if lacking else ""
    return f"controls per layer: {words}; smallest p {floor:.3g}, of a slope and over all strengths of a curve{more}"


def p_against(observed: float, null: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of one arm among controls that it is exchangeable with under the null.

        p = (1 + #{|x_k - m| >= |obs - m|}) / (1 + R),   m the mean of observed and null together

    Centring on the pooled mean keeps all 1 + R values exchangeable, so that a common shift (any added vector costs
    accuracy) is not counted as an effect. NaN with fewer than 19 controls, or where the observed value is not defined.
    """
    return float(p_max(np.array([observed]), np.asarray(null, dtype=float)[:, None])[1][0])


def p_max(
    observed: Float[np.ndarray, "k"], null: Float[np.ndarray, "control k"]
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """(family-wise p over k strengths, p of each) against the same controls.

    Values are centred and scaled by mean and standard deviation of observed and null together at each strength, so that
    large strengths do not dominate small ones; a deviation below a fifth of its root mean square over strengths is set
    to that fifth, so that one item that flips while nothing else moves is not an outlier. The family-wise p compares
    with each control's largest |z|, stepping down from the largest (`interp.stats.max_null_p`). Holm over the strengths
    could not go below k/(1 + R).

    Source: Westfall & Young (1993), algorithm 2.8; Phipson & Smyth (2010) for the added one.
    """
    null = null[~np.isnan(null).any(axis=1)] if len(null) else null
    if len(null) < MIN_NULL or np.isnan(observed).any():
        return np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    pooled = np.vstack([observed, null])
    spread = pooled.std(axis=0)
    spread = np.maximum(spread, FLOOR * np.sqrt((spread**2).mean()))
    z = np.abs(pooled - pooled.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    z = np.round(z, 9)  # ties are extreme
    each = (1 + (z[1:] >= z[0]).sum(axis=0)) / len(pooled)
    return max_null_p(z[0], z[1:], step_down=True), each


def p_values(curves: Curves, arm: int, score: int) -> dict[str, Float[np.ndarray, "alpha"]]:
    """p of the change of one arm at every strength, against the random and the shuffled controls of its site.

    p_random, p_shuffled: against each kind alone;  p: the larger of those that were run, since an effect has to be
    beyond each (the claims of a report ask for both);  p_max: `p` corrected over strengths. NaN at strength 0, and
    where there are too few controls.
    """
    moved = [k for k in range(len(curves.alphas)) if k != curves.zero]
    change = curves.change[:, :, score]
    out = {name: np.full(len(curves.alphas), np.nan) for name in ("p_random", "p_shuffled", "p", "p_max")}
    joint = np.full((2, len(moved)), np.nan)
    for row, role in enumerate(SORTS):
        null = change[curves.controls(arm, (role,))][:, moved]
        joint[row], out[f"p_{role}"][moved] = p_max(change[arm, moved], null)
    out["p"][moved] = np.fmax(out["p_random"], out["p_shuffled"])[moved]
    out["p_max"][moved] = np.fmax(*joint)
    return out


def slope_p(curves: Curves, arm: int, score: int) -> dict[str, float]:
    """p of one arm's slope: one test per curve, the one to declare in advance."""
    slopes = curves.slope[:, score]
    values = {f"p_{role}": p_against(slopes[arm], slopes[curves.controls(arm, (role,))]) for role in SORTS}
    return values | {"p": float(np.fmax(values["p_random"], values["p_shuffled"]))}
