"""AUROC, differences of AUROC and true-positive rates: coverage with few of the rarer class and near 1."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from interp import stats


def labels_of(rng: np.random.Generator, groups: np.ndarray, kind: str) -> np.ndarray:
    """Labels: half of the groups positive (`between`), or 0.3 of the rows whatever their group (`within`)."""
    n_groups = groups[-1] + 1
    if kind == "between":
        return (rng.permutation(n_groups) < n_groups // 2)[groups]
    y = rng.random(len(groups)) < 0.3
    y[rng.choice(len(groups), 2, replace=False)] = True, False
    return y


def scores_of(rng: np.random.Generator, design: stats.Design, y: np.ndarray, area: float) -> np.ndarray:
    return design.draw(rng) + np.sqrt(2) * ndtri(area) * y


@pytest.mark.parametrize(("n_positive", "before"), [(1, "0.14"), (2, "0.58"), (3, "0.80"), (5, "0.89"), (20, "")])
def test_auroc_of_few_positives_among_150_covers_one_half(
    n_positive: int, before: str, studies: int, record_rate
) -> None:
    rng, hits = np.random.default_rng(n_positive), []
    for _ in range(studies):
        e = stats.auroc(rng.normal(size=150), rng.permutation(150) < n_positive, groups=None)
        hits.append(e.lo <= 0.5 <= e.hi)
    record_rate(
        hits, kind="coverage", name="auroc", design=f"{n_positive} positives of 150, no signal", at_least=0.93,
        before=before,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["between", "within"])
@pytest.mark.parametrize("area", [0.5, 0.95])
@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
def test_auroc_of_unequal_groups_covers(n_groups: int, area: float, kind: str, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 8, equal=False))
    rng, hits, groups = np.random.default_rng(n_groups), [], design.groups
    for _ in range(studies):
        y = labels_of(rng, groups, kind)
        e = stats.auroc(scores_of(rng, design, y, area), y, groups=groups)
        hits.append(e.lo <= area <= e.hi)
    record_rate(
        hits, kind="coverage", name="auroc", at_least=0.93, before="0.81–0.89" if area > 0.9 else "",
        design=f"AUROC {area:g}, {n_groups} unequal groups, labels {kind} groups, ICC 0.3",
    )  # fmt: skip


@pytest.mark.parametrize(("areas", "rho"), [((0.75, 0.75), 0.0), ((0.95, 0.8), 0.5)])
@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
def test_auroc_difference_covers(
    n_groups: int, areas: tuple[float, float], rho: float, studies: int, record_rate
) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 8, equal=False))
    rng, hits, groups = np.random.default_rng(n_groups), [], design.groups
    for _ in range(studies):
        y = labels_of(rng, groups, "within" if n_groups < 20 else "between")
        first, second = design.draw(rng, 2).T
        second = rho * first + np.sqrt(1 - rho**2) * second
        a, b = (s + np.sqrt(2) * ndtri(area) * y for s, area in zip((first, second), areas, strict=True))
        e = stats.auroc_difference(a, b, y, groups=groups)
        hits.append(e.lo <= areas[0] - areas[1] <= e.hi)
    record_rate(
        hits, kind="coverage", name="auroc_difference", at_least=0.93,
        design=f"AUROC {areas[0]:g} and {areas[1]:g}, correlation {rho:g}, {n_groups} unequal groups, ICC 0.3",
    )  # fmt: skip


@pytest.mark.parametrize(("n_groups", "max_fpr"), [(10, 0.1), (20, 0.05), (40, 0.1), (40, 0.01)])
def test_tpr_at_fpr_covers(n_groups: int, max_fpr: float, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 20, equal=False))
    truth = float(ndtr(np.sqrt(2) * ndtri(0.95) - ndtri(1 - max_fpr)))
    rng, hits, groups = np.random.default_rng(n_groups), [], design.groups
    for _ in range(studies):
        y = labels_of(rng, groups, "between")
        e = stats.tpr_at_fpr(scores_of(rng, design, y, 0.95), y, groups=groups, max_fpr=max_fpr)
        hits.append(e.lo <= truth <= e.hi)
    record_rate(
        hits, kind="coverage", name="tpr_at_fpr", at_least=0.93,
        design=f"FPR {max_fpr:g}, AUROC 0.95, {n_groups} unequal groups, ICC 0.3",
    )  # fmt: skip
