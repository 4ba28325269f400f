"""Ratios of means and changes cut in two: Fieller by hand, ratios over nothing refused, the published decomposition."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy.stats import t as student

from interp.stats import (
    NoWidthWarning,
    Sampling,
    UnstableRatioWarning,
    decompose_change,
    midpoint_decomposition,
    paired_difference,
    ratio_difference,
    ratio_of_means,
)


def clustered(rng: np.random.Generator, *, n_groups: int, size: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal data with mean 0, variance 1 and intraclass correlation `share`; group sizes vary around `size`."""
    sizes = rng.integers(max(1, size // 2), size + size // 2 + 1, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    values = sqrt(share) * rng.normal(size=n_groups)[groups] + sqrt(1 - share) * rng.normal(size=len(groups))
    return values, groups


def fieller_by_hand(top, bottom, z):
    """|top - r·bottom|² <= z² var over independent examples."""
    n = len(top)
    cov = np.cov(top, bottom) / n
    a, b = bottom.mean() ** 2 - z**2 * cov[1, 1], top.mean() * bottom.mean() - z**2 * cov[0, 1]
    c = top.mean() ** 2 - z**2 * cov[0, 0]
    return np.sort(np.array([b - sqrt(b * b - a * c), b + sqrt(b * b - a * c)]) / a)


def test_ratio_of_means_is_not_the_mean_of_ratios_and_its_interval_is_fiellers():
    rng = np.random.default_rng(8)
    bottom = rng.normal(4.0, 1.0, 400)
    top = 0.5 * bottom + rng.normal(0, 0.3, 400)
    top, bottom = np.concatenate([top, -top + 2 * top.mean()]), np.concatenate([bottom, -bottom + 2 * bottom.mean()])
    got = ratio_of_means(top, bottom, groups=None)
    assert got.ratio.value == pytest.approx(top.mean() / bottom.mean()) and not got.refused and got.excluded is None
    # symmetric about the means, so that the skewness term is 0
    assert (got.ratio.lo, got.ratio.hi) == pytest.approx(tuple(fieller_by_hand(top, bottom, student.ppf(0.975, 799))))
    assert got.ratio == ratio_of_means(2 * top, 2 * bottom, groups=None).ratio
    upside = ratio_of_means(-top, bottom, groups=None).ratio
    assert (upside.lo, upside.hi) == (pytest.approx(-got.ratio.hi), pytest.approx(-got.ratio.lo))


def test_a_ratio_over_nothing_is_refused_with_both_means_and_the_range_that_the_data_exclude():
    rng = np.random.default_rng(9)
    top, bottom = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
    with pytest.warns(UnstableRatioWarning, match="ratio refused: the mean denominator"):
        got = ratio_of_means(top, bottom, groups=None)
    assert got.refused and not got.ratio.is_defined and got.numerator.value == pytest.approx(top.mean())
    # the numerator is clear of 0, so no small ratio fits: roots of the same quadratic, which opens downwards
    assert got.excluded == pytest.approx(tuple(fieller_by_hand(top, bottom, student.ppf(0.975, 49))))
    assert got.excluded is not None and got.excluded[0] < 0 < got.excluded[1]
    with pytest.warns(UnstableRatioWarning):
        nothing = ratio_of_means(rng.normal(size=50), rng.normal(size=50), groups=None)
    assert nothing.refused and nothing.excluded is None
    with pytest.warns(UnstableRatioWarning):
        assert ratio_of_means(top, np.zeros(50), groups=None).refused


def test_guard_of_the_ratio_uses_clusters():
    """The same denominator passes as 200 independent values and fails as 5 groups that share theirs."""
    rng = np.random.default_rng(2)
    group_mean = np.array([2.0, -1.0, 1.5, -0.5, 1.0])
    groups = np.repeat(np.arange(5), 40)
    bottom = group_mean[groups] + 0.1 * rng.normal(size=200)
    top = bottom + rng.normal(size=200)
    assert not ratio_of_means(top, bottom, groups=None).refused
    with pytest.warns(UnstableRatioWarning):
        assert ratio_of_means(top, bottom, groups=groups).refused


def test_ratio_difference_resamples_both_systems_together():
    rng = np.random.default_rng(6)
    den = (rng.random(300) < 0.5).astype(float)
    num = den * rng.choice([-1.0, 1.0], 300)
    groups = np.repeat(np.arange(60), 5)
    with pytest.warns(NoWidthWarning):
        same = ratio_difference(num, den, num, den, groups=groups)
    assert same.value == 0.0 and not same.has_interval
    ranged = ratio_difference(num, den, num, den, groups=groups, bounds=(-2.0, 2.0))
    effective = (2 * den.sum()) ** 2 / (np.bincount(groups, 2 * den) ** 2).sum()
    t = student.ppf(0.975, effective - 1)
    assert ranged.hi == -ranged.lo == pytest.approx(2 * t**2 / (effective + t**2))
    flipped = ratio_difference(num, den, -num, den, groups=groups, sampling=Sampling(method="bca"))
    assert flipped.value == pytest.approx(2 * num.sum() / den.sum())


def test_midpoint_decomposition_of_the_published_change():
    coverage, bias = midpoint_decomposition(0.359, 0.279, 0.217, 0.333)
    assert (round(coverage, 4), round(bias, 4)) == (-0.0435, 0.0156)
    assert coverage + bias == pytest.approx(0.217 * 0.333 - 0.359 * 0.279, abs=1e-15)


def test_decomposition_of_data_equals_the_identity_on_its_rates_and_its_draws_add_up():
    rng = np.random.default_rng(4)

    def system(p_commit, p_stereo):
        commit = rng.random(500) < p_commit
        inner = commit * np.where(rng.random(500) < p_stereo, 1.0, -1.0)
        return np.column_stack([np.ones(500), commit, inner])

    before, after, groups = system(0.36, 0.64), system(0.22, 0.66), np.repeat(np.arange(100), 5)
    got = decompose_change(before, after, groups=groups)
    rates = [(s[:, 1].mean(), s[:, 2].sum() / s[:, 1].sum()) for s in (before, after)]
    assert (got.first.value, got.second.value) == pytest.approx(midpoint_decomposition(*rates[0], *rates[1]))
    assert got.total.value == pytest.approx(after[:, 2].mean() - before[:, 2].mean())
    direct = paired_difference(after[:, 2], before[:, 2], groups=groups, bounds=(-2.0, 2.0))
    assert np.allclose((got.total.lo, got.total.hi), (direct.lo, direct.hi), atol=1e-12)
    still = decompose_change(before, before, groups=groups)
    share = student.ppf(0.975, 99) ** 2 / (100 + student.ppf(0.975, 99) ** 2)  # no group changed: Wilson's 0 of 100
    assert still.first.value == 0.0 and still.first.hi == pytest.approx(share)
    assert still.second.hi == -still.second.lo == pytest.approx(2 * share)
