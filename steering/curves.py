"""Statistics of dose curves: paired cluster bootstrap of every arm, and p against arms of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.site import Site
from interp.stats import holm
from interp.stats.resample import group_weights
from steering.arms import CONTROLS, Arm
from steering.outcomes import GroupSums
from steering.strengths import DosePlan

N_RESAMPLES = 2000
MIN_NULL = 19
"""Fewest controls of one sort from which a p is made: with 19 the smallest is 1/20."""
FLOOR = 0.2
"""Least standard deviation of a strength, as a share of its root mean square over strengths."""
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Curves:
    """Every score of every arm at every strength, with intervals that share their draws.

    Attributes:
        value, lo, hi: the level, and its percentile interval [arm, alpha, score].
        change_lo, change_hi: interval of the paired change from strength 0.
        excess, excess_lo, excess_hi: change minus the mean change of the random controls of the site.
        slope, slope_lo, slope_hi: least-squares slope over the strengths [arm, score], per unit of alpha.
        same_sign: share of draws in which the slope has the sign of its estimate.
        n: items that the level is a mean over.
    """

    arms: tuple[Arm, ...]
    alphas: tuple[float, ...]
    scores: tuple[str, ...]
    value: Float[np.ndarray, "arm alpha score"]
    lo: Float[np.ndarray, "arm alpha score"]
    hi: Float[np.ndarray, "arm alpha score"]
    change_lo: Float[np.ndarray, "arm alpha score"]
    change_hi: Float[np.ndarray, "arm alpha score"]
    excess: Float[np.ndarray, "arm alpha score"]
    excess_lo: Float[np.ndarray, "arm alpha score"]
    excess_hi: Float[np.ndarray, "arm alpha score"]
    slope: Float[np.ndarray, "arm score"]
    slope_lo: Float[np.ndarray, "arm score"]
    slope_hi: Float[np.ndarray, "arm score"]
    same_sign: Float[np.ndarray, "arm score"]
    n: Int[np.ndarray, "arm alpha score"]
    n_groups: int
    n_resamples: int

    @cached_property
    def zero(self) -> int:
        return self.alphas.index(0.0)

    @property
    def change(self) -> Float[np.ndarray, "arm alpha score"]:
        """value(alpha) - value(0)."""
        return self.value - self.value[:, [self.zero]]

    def controls(self, arm: int, roles: Sequence[str] = CONTROLS) -> list[int]:
        """Control arms of these roles at the site of an arm."""
        return [k for k, one in enumerate(self.arms) if one.role in roles and one.site == self.arms[arm].site]

    def monotone(self, arm: int, score: int) -> float:
        """Share of the steps from one strength to the next that go the way of the slope; a flat step goes no way."""
        steps = np.diff(self.value[arm, :, score])
        return float((np.sign(steps) == np.sign(self.slope[arm, score])).mean()) if len(steps) else float("nan")


def dose_curves(
    sums: GroupSums, plan: DosePlan, scores: Mapping[str, Any], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Curves:
    """Levels, changes and slopes of every arm, all from the same resampled groups.

    A score is a function of sums over items, so that with S[group, row, column] the sums inside each group and
    W[draw, group] how often each group was drawn, all draws are one product W @ S: no row is ever drawn again.

    Args:
        scores: by name, an object with `value(sums)` and `n` (columns whose sum is its n).
    Raises:
        ValueError: fewer than two groups.
    Source: Davison & Hinkley (1997) §3.8; steering spec B.8, step 8.
    """
    levels = Levels(sums, scores, seed=seed, n_resamples=n_resamples)
    contrast = slope_contrast(plan.alphas)
    random: dict[Site, list[Any]] = {}
    parts: dict[int, dict[str, np.ndarray]] = {}
    order = sorted(range(len(plan.arms)), key=lambda k: plan.arms[k].role != "random")  # their mean is needed first
    for k in order:
        value, draws, n = levels.of(plan.rows[k])
        changes = np.concatenate([value[None], draws])  # the estimate, then its draws
        changes = changes - changes[:, [plan.zero]]
        mean = random.setdefault(plan.arms[k].site, [0, np.full((1, 1, 1), np.nan)])
        if plan.arms[k].role == "random":
            mean[:] = [mean[0] + 1, changes if mean[0] == 0 else mean[1] + (changes - mean[1]) / (mean[0] + 1)]
        parts[k] = _arm(value, draws, changes, changes - mean[1], contrast) | {"n": n}
    found = {name: np.stack([parts[k][name] for k in range(len(plan.arms))]) for name in parts[order[0]]}
    sizes: dict[str, Any] = {"n_groups": len(sums.groups), "n_resamples": n_resamples}
    return Curves(tuple(plan.arms), plan.alphas, tuple(scores), **found, **sizes)


def slope_contrast(alphas: Sequence[float]) -> Float[np.ndarray, "alpha"]:
    """c with c @ y = the least-squares slope of y over the strengths."""
    centred = np.array(alphas) - np.mean(alphas)
    return centred / (centred**2).sum()


def _arm(
    value: np.ndarray, draws: np.ndarray, changes: np.ndarray, excess: np.ndarray, contrast: np.ndarray
) -> dict[str, np.ndarray]:
    slope, slopes = (np.einsum("a,...am->...m", contrast, part) for part in (value, draws))
    out = {"value": value, "excess": excess[0] * np.ones_like(value), "slope": slope}
    for name, part in (("", draws), ("change_", changes[1:]), ("excess_", excess[1:] * np.ones_like(draws))):
        out[f"{name}lo"], out[f"{name}hi"] = _ends(part)
    out["slope_lo"], out["slope_hi"] = _ends(slopes)
    known = ~np.isnan(slopes)
    with np.errstate(invalid="ignore", divide="ignore"):
        out["same_sign"] = np.where(known, np.sign(slopes) == np.sign(slope), False).sum(0) / known.sum(0)
    return out


class Levels:
    """Scores of chosen rows, on the data and on resampled groups; every call sees the same draws.

    Raises:
        ValueError: fewer than two groups, or a score of a column that is not there.
    """

    def __init__(self, sums: GroupSums, scores: Mapping[str, Any], *, seed: int, n_resamples: int) -> None:
        n_groups = len(sums.groups)
        if n_groups < 2:
            raise ValueError(f"groups: expected at least 2 for an interval, came {n_groups}.")
        self.scores, self.n_groups = scores, n_groups
        self.weights = np.concatenate(list(group_weights(n_groups, n_resamples=n_resamples, seed=seed)))
        self.names = sorted(set().union(*(_columns_of(score, sums) for score in scores.values())))
        self.stack = sums.stack(self.names)

    def of(self, rows: Sequence[int] | Int[np.ndarray, "k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(value [k, score], draws [draw, k, score], n [k, score]) of k rows of the sweep."""
        part = self.stack[:, np.asarray(rows)]  # [group, k, column]
        drawn = (self.weights @ part.reshape(len(part), -1)).reshape(len(self.weights), *part.shape[1:])
        total = part.sum(axis=0)
        return self._scores(total), self._scores(drawn), self._counts(total)

    def _by_name(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.names, np.moveaxis(sums, -1, 0), strict=True))

    def _scores(self, sums: np.ndarray) -> np.ndarray:
        by_name = self._by_name(sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = [np.broadcast_to(score.value(by_name), sums.shape[:-1]) for score in self.scores.values()]
        values = np.stack(found, axis=-1)
        return np.where(np.isfinite(values), values, np.nan)

    def _counts(self, total: np.ndarray) -> np.ndarray:
        by_name = self._by_name(total)
        counts = [sum(by_name[name] for name in score.n) for score in self.scores.values()]
        return np.rint(np.stack(np.broadcast_arrays(*counts), axis=-1)).astype(int)


def _columns_of(score: Any, sums: GroupSums) -> set[str]:
    """The columns that a score reads."""
    seen: set[str] = set(score.n)

    class Watch(dict):
        def __getitem__(self, name: str) -> np.ndarray:
            seen.add(name)
            return np.ones(1)

    with np.errstate(divide="ignore", invalid="ignore"):
        score.value(Watch())
    if missing := seen - set(sums.sums):
        raise ValueError(f"score: needs the columns {', '.join(sorted(missing))}, which no item has.")
    return seen


def _ends(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis; draws without a value (0/0) are left out."""
    import warnings

    if not np.isnan(draws).any():
        lo, hi = np.quantile(draws, _TAILS, axis=0)
        return lo, hi
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        lo, hi = np.nanquantile(draws, _TAILS, axis=0)
    return lo, hi


def p_against(observed: float, null: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of one arm among controls that it is exchangeable with under the null.

        p = (1 + #{|x_k - m| >= |obs - m|}) / (1 + R),   m the mean of observed and null together

    Centring on the pooled mean keeps all 1 + R values exchangeable, so that a common shift (any push costs accuracy)
    is not taken for an effect. NaN with fewer than 19 controls, or where the observed value is not defined.
    """
    return float(p_max(np.array([observed]), np.asarray(null, dtype=float)[:, None])[1][0])


def p_max(
    observed: Float[np.ndarray, "k"], null: Float[np.ndarray, "control k"]
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """(family-wise p over k strengths, p of each) against the same controls.

    Values are centred and scaled by mean and standard deviation of observed and null together at each strength, so
    that strong doses do not drown weak ones; a deviation below a fifth of its root mean square over strengths counts as
    that much, so that one item that flips where nothing else moves is no outlier. The family-wise p compares with each
    control's largest |z|. Unlike Holm's it can be small with few controls.

    Source: Westfall & Young (1993), single step; Phipson & Smyth (2010) for the added one.
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
    joint = (1 + (z[1:].max(axis=1)[:, None] >= z[0]).sum(axis=0)) / len(pooled)
    return joint, each


def p_values(curves: Curves, arm: int, score: int) -> dict[str, Float[np.ndarray, "alpha"]]:
    """p of the change of one arm at every strength, against the random and the shuffled controls of its site.

    p_random, p_shuffled: against each sort alone;  p: the larger of those that were run, since an effect has to be
    beyond each (the claims of a report ask for both);  p_holm, p_max: `p` corrected over strengths. NaN at strength 0,
    and where there are too few controls.
    """
    moved = [k for k in range(len(curves.alphas)) if k != curves.zero]
    change = curves.change[:, :, score]
    out = {name: np.full(len(curves.alphas), np.nan) for name in ("p_random", "p_shuffled", "p", "p_holm", "p_max")}
    joint = np.full((2, len(moved)), np.nan)
    for row, role in enumerate(("random", "shuffled")):
        null = change[curves.controls(arm, (role,))][:, moved]
        joint[row], out[f"p_{role}"][moved] = p_max(change[arm, moved], null)
    out["p"][moved] = np.fmax(out["p_random"], out["p_shuffled"])[moved]
    out["p_max"][moved] = np.fmax(*joint)
    if not np.isnan(out["p"][moved]).any():
        out["p_holm"][moved] = holm(out["p"][moved])
    return out


def slope_p(curves: Curves, arm: int, score: int) -> dict[str, float]:
    """p of one arm's slope: one test per curve, the one to declare beforehand."""
    slopes = curves.slope[:, score]
    found = {f"p_{role}": p_against(slopes[arm], slopes[curves.controls(arm, (role,))])
             for role in ("random", "shuffled")}  # fmt: skip
    return found | {"p": float(np.fmax(found["p_random"], found["p_shuffled"]))}
