"""Equivalence: how often it is shown where the difference lies exactly at the margin, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from interp import stats

ICC = 0.3


def rates(rng: np.random.Generator, means: tuple[float, float], n_groups: int, *, is_shared: bool) -> np.ndarray:
    """Rate of each group under each member [member, group]: Beta with ICC 0.3, of equal rank or independent."""
    rank, strength = rng.random((2, n_groups)), (1 - ICC) / ICC
    return np.stack([beta.ppf(rank[0 if is_shared else i], m * strength, (1 - m) * strength)
                     for i, m in enumerate(means)])  # fmt: skip


def answers(rng: np.random.Generator, means: tuple[float, float], groups: np.ndarray) -> np.ndarray:
    """Whether each member was right on each item [member, example]."""
    rate = rates(rng, means, int(groups.max()) + 1, is_shared=bool(rng.integers(2)))
    return rng.random((2, len(groups))) < rate[:, groups]


@pytest.mark.parametrize("means", [(0.999, 0.949), (0.99, 0.94), (0.95, 0.9)])
@pytest.mark.parametrize("n_groups", [10, 20, 40, 160])
def test_equivalence_of_rates_at_the_margin(
    n_groups: int, means: tuple[float, float], studies: int, record_rate
) -> None:
    groups = stats.Design(stats.group_sizes(n_groups, 12, equal=False)).groups
    rng, hits = np.random.default_rng(n_groups), []
    for _ in range(studies):
        hits.append(stats.tost_paired(*answers(rng, means, groups), groups=groups, margin=0.05).equivalent)
    record_rate(
        hits, kind="level", name="tost_paired", at_most=0.06, before="0.09–0.15",
        design=f"rates {means[0]:g} and {means[1]:g}, {n_groups} unequal groups, ICC {ICC}",
    )  # fmt: skip


@pytest.mark.parametrize("n", [60, 433])
def test_equivalence_of_independent_items_at_the_margin(n: int, studies: int, record_rate) -> None:
    rng, hits = np.random.default_rng(n), []
    for _ in range(studies):
        u = rng.random(n)
        hits.append(stats.tost_paired(u < 0.95, u < 0.9, groups=None, margin=0.05).equivalent)
    record_rate(
        hits, kind="level", name="tost_paired", design=f"{n} independent items, one right wherever the other is",
        at_most=0.06,
    )  # fmt: skip


@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
def test_equivalence_of_means_at_the_margin(n_groups: int, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 8, equal=False), mean=0.5)
    rng, none, hits = np.random.default_rng(n_groups), np.zeros(len(design.groups)), []
    for _ in range(studies):
        hits.append(stats.tost_paired(design.draw(rng), none, groups=design.groups, margin=0.5).equivalent)
    record_rate(
        hits, kind="level", name="tost_paired", design=f"gaussian, {n_groups} unequal groups, ICC {ICC}", at_most=0.06
    )


def test_equal_rates_are_called_equivalent(studies: int, record_rate) -> None:
    groups = stats.Design(stats.group_sizes(80, 12, equal=False)).groups
    rng, hits = np.random.default_rng(5), []
    for _ in range(studies):
        hits.append(stats.tost_paired(*answers(rng, (0.95, 0.95), groups), groups=groups, margin=0.05).equivalent)
    record_rate(
        hits, kind="power", name="tost_paired", design=f"rates 0.95 and 0.95, 80 unequal groups, ICC {ICC}",
        at_least=0.5, before="0.63",
    )  # fmt: skip


def test_published_rates_at_the_margin_by_enumeration() -> None:
    """No simulation: every pair of counts, weighed by its probability."""
    worst = 0.0
    for n in (60, 100):
        k = range(n - 11, n + 1)  # fewer can be equivalent only with a probability below 0.001 at these rates
        found = np.array([[stats.tost_rates(a, n, b, n, margin=0.05).equivalent for b in k] for a in k])
        for high in (0.999, 0.99):
            weights = np.outer(binom.pmf(k, n, high), binom.pmf(k, n, high - 0.05))
            worst = max(worst, float((weights * found).sum()))
    assert 0.03 < worst <= 0.052
