"""Dose curves: coverage of slopes, changes, bands and differences from controls; level of the rank tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import stats
from interp.site import Site
from steering.against import p_against, p_max
from steering.arms import Arm
from steering.curves import Curves, dose_curves
from steering.outcomes import GENERAL, GroupSums
from steering.strengths import DosePlan, parse_alphas

SITE = Site("resid_post", 0)
PLAN = DosePlan((Arm("direction", SITE, torch.eye(2)[0]),), parse_alphas("-1,-0.5,0,0.5,1"), "raw", {SITE: 1.0},
                {SITE: 1.0}, "all")  # fmt: skip


def curves(design: stats.Design, rng: np.random.Generator, seed: int) -> Curves:
    """A margin with slope 1 on average; level, slope and each step vary over items and groups."""
    base, own, n = design.draw(rng), 1 + design.draw(rng), len(design.groups)
    margin = np.zeros((n, PLAN.n_rows))
    margin[:, PLAN.rows[0]] = base[:, None] + np.outer(own, PLAN.alphas)
    moved = [k for k, alpha in enumerate(PLAN.alphas) if alpha]
    margin[:, PLAN.rows[0][moved]] += 0.3 * rng.normal(size=(n, len(moved)))
    sums = np.zeros((len(design.sizes), PLAN.n_rows))
    np.add.at(sums, design.groups, margin)
    counts = np.repeat(np.array(design.sizes, dtype=float)[:, None], PLAN.n_rows, axis=1)
    groups = tuple(f"g{k}" for k in range(len(design.sizes)))
    return dose_curves(GroupSums({"margin": sums, "has_sides": counts}, groups, n), PLAN,
                       {"margin": GENERAL["margin"]}, seed=seed, n_resamples=200)  # fmt: skip


@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
def test_slopes_and_bands_cover_the_curve(n_groups: int, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 6, equal=False))
    rng, moved = np.random.default_rng(n_groups), [0, 1, 3, 4]
    found = [curves(design, rng, k) for k in range(studies)]
    true = np.array(PLAN.alphas)
    hits = {
        "slope of a dose curve": [bool(c.slope_lo[0, 0] <= 1 <= c.slope_hi[0, 0]) for c in found],
        "change at one strength": [bool(c.change_lo[0, 4, 0] <= 1 <= c.change_hi[0, 4, 0]) for c in found],
        "band of a dose curve (simultaneous)": [
            bool(((c.band_lo[0, :, 0] <= true) & (true <= c.band_hi[0, :, 0]))[moved].all()) for c in found
        ],
    }
    for name, hit in hits.items():
        record_rate(hit, kind="coverage", name=name, design=f"gaussian, {n_groups} unequal groups, ICC 0.3",
                    at_least=0.93, before="0.83–0.91 up to 20 groups")  # fmt: skip


@pytest.mark.parametrize("n_controls", [19, 59])
def test_a_direction_like_its_controls_is_seldom_beyond_them(n_controls: int, studies: int, record_rate) -> None:
    """One arm and its controls exchangeable, strengths correlated, heavy tails."""
    rng = np.random.default_rng(n_controls)
    slopes, steps = [], []
    for _ in range(studies):
        x = rng.standard_t(3, size=(n_controls + 1, 1)) + rng.normal(size=(n_controls + 1, 12))
        slopes.append(p_against(x[0, 0], x[1:, 0]) <= 0.05)
        steps.append(bool((p_max(x[0], x[1:])[0] <= 0.05).any()))
    for name, hit in (("p of a slope", slopes), ("p over strengths, largest |z| stepping down", steps)):
        record_rate(hit, kind="level", name=name, design=f"{n_controls} exchangeable controls, t with 3 df",
                    at_most=0.05)  # fmt: skip
