"""Dose curves: coverage of slopes, changes, bands and differences from controls; level of the rank tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from interp import stats
from interp.site import Site
from interp.tasks.bbq.changes import plane
from interp.tasks.bbq.tables import GROUP
from steering.arms import Arm
from steering.curves import Curves, dose_curves, p_against, p_max
from steering.outcomes import GENERAL, GroupSums
from steering.strengths import DosePlan, parse_alphas
from study.figures.bias_plane import radius2

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
                       {"margin": GENERAL["margin"]}, sampling=stats.Sampling(seed=seed, n_resamples=200))  # fmt: skip


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


def answers(groups: np.ndarray, commits: np.ndarray, stereotyped: np.ndarray) -> pd.DataFrame:
    """Answers to ambiguous items: A is the unknown option, B the stereotyped person."""
    label = np.where(commits == 0, "A", np.where(stereotyped == 1, "B", "C"))
    return pd.DataFrame({"sample": 0, "label": label, "gold": "A", "unknown": 0, "biased": "1", "stereo": "B",
                         "context_condition": "ambig", f"group.{GROUP}": groups})  # fmt: skip


# committed share, groups, equal, coverage of the region: a share near 1 is skewed, and an ellipse is not
REGIONS = [(0.6, 6, True, 0.93), (0.6, 10, False, 0.93), (0.6, 40, False, 0.92), (0.3, 6, True, 0.8),
           (0.3, 20, False, 0.9), (0.9, 10, False, 0.82), (0.9, 40, False, 0.86)]  # fmt: skip


@pytest.mark.parametrize(("committed", "n_groups", "equal", "at_least"), REGIONS)
def test_joint_regions_of_coverage_and_bias(committed, n_groups, equal, at_least, studies, record_rate) -> None:
    """An answer that is committed is stereotyped in 65 % of cases, so that the commit bias is 0.3."""
    sizes = stats.group_sizes(n_groups, 8, equal=equal)
    commits, sides = (stats.Design(sizes, shape="binary", mean=mean) for mean in (committed, 0.65))
    rng, hits = np.random.default_rng(n_groups), []
    while len(hits) < studies:
        commit = commits.draw(rng)
        if len(set(commits.groups[commit == 1].tolist())) < 3:  # refused, or no region is drawn
            continue
        point = plane(answers(commits.groups, commit, sides.draw(rng)))
        k = float(point["effective_groups"])
        if k <= 2:
            continue
        away = np.array([float(point["coverage"]) - committed, float(point["commit_bias"]) - 0.3])
        cov = np.array([[point["cov_xx"], point["cov_xy"]], [point["cov_xy"], point["cov_yy"]]], dtype=float)
        hits.append(np.linalg.matrix_rank(cov) == 2 and bool(away @ np.linalg.solve(cov, away) <= radius2(k)))
    record_rate(hits, kind="coverage", name="joint region of coverage and commit bias", at_least=at_least,
                design=f"{committed:g} committed, {n_groups} {'equal' if equal else 'unequal'} groups, ICC 0.3",
                before="0.735 (6 groups)" if n_groups == 6 else "")  # fmt: skip
