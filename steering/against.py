"""Rank tests of an arm among its controls: is it further out than directions that mean nothing?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.stats import max_null_p
from steering.arms import MIN_NULL, Arm
from steering.curves import SORTS, Curves

FLOOR = 0.2
"""Least standard deviation of a strength, as a share of its root mean square over strengths."""


def smallest_p(arms: Sequence[Arm]) -> float:
    """Smallest p that an arm can have against these controls, known before anything is run: 1 / (1 + controls).

    Of two sorts the fewer count, since an effect has to be beyond each; of several sites the worst. NaN without a sort
    of at least 19 controls.
    """
    counts = [
        sum(arm.role == role and arm.site == site for arm in arms)
        for site in dict.fromkeys(arm.site for arm in arms)
        for role in SORTS
    ]
    enough = [count for count in counts if count >= MIN_NULL]
    return 1 / (1 + min(enough)) if enough else float("nan")


def controls_line(arms: Sequence[Arm]) -> str:
    """What the tests of these arms can show at best, in words, for before the run."""
    sites = list(dict.fromkeys(arm.site for arm in arms))
    per = {role: min(sum(a.role == role and a.site == site for a in arms) for site in sites) for role in SORTS}
    floor = smallest_p(arms)
    words = ", ".join(f"{count} {role}" for role, count in per.items())
    if floor != floor:
        return f"controls per layer: {words}; no p is made from fewer than {MIN_NULL} of a sort"
    lacking = [role for role, count in per.items() if count < MIN_NULL]
    more = f"; no p against {' and '.join(lacking)} directions" if lacking else ""
    return f"controls per layer: {words}; smallest p {floor:.3g}, of a slope and over all strengths of a curve{more}"


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
    control's largest |z|, stepping down from the largest (`interp.stats.max_null_p`). Holm over the strengths could
    not go below k/(1 + R).

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

    p_random, p_shuffled: against each sort alone;  p: the larger of those that were run, since an effect has to be
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
    """p of one arm's slope: one test per curve, the one to declare beforehand."""
    slopes = curves.slope[:, score]
    found = {f"p_{role}": p_against(slopes[arm], slopes[curves.controls(arm, (role,))]) for role in SORTS}
    return found | {"p": float(np.fmax(found["p_random"], found["p_shuffled"]))}
