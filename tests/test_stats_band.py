"""Simultaneous bands: the largest studentised deviation by brute force, and what a band may and may not say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew
from scipy.stats import t as student

from interp import stats
from interp.stats import Estimate, picked_among
from interp.stats.jackknife import group_weights


@pytest.fixture
def curve():
    """Values of 200 examples in 25 unequal groups at 6 points."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), rng.integers(2, 15, 25))
    return rng.normal(size=(25, 6))[groups] + rng.normal(size=(len(groups), 6)), groups


def leave_out(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.array([values[groups != g].mean(axis=0) for g in np.unique(groups)])


def brute_force(values: np.ndarray, groups: np.ndarray, *, n_resamples: int, seed: int) -> tuple[np.ndarray, float]:
    """Jackknife standard errors, and the 0.95 quantile of the largest |t| over resamples of the group deviations."""
    left = leave_out(values, groups)
    d, n_groups = left.mean(axis=0) - left, len(left)
    largest = []
    for weights in np.concatenate(list(group_weights(n_groups, n_resamples=n_resamples, seed=seed))):
        drawn = np.repeat(d, weights.astype(int), axis=0)
        spread = drawn.std(axis=0)
        t = np.abs(drawn.mean(axis=0))[spread > 0] / spread[spread > 0] * np.sqrt(n_groups - 1)
        largest.append(t.max(initial=0.0))
    return np.sqrt((n_groups - 1) / n_groups * (d**2).sum(axis=0)), float(np.quantile(largest, 0.95))


def test_band_equals_the_largest_t_of_each_resample_computed_row_by_row(curve):
    values, groups = curve
    se, c = brute_force(values, groups, n_resamples=300, seed=3)
    band = stats.simultaneous_band(values, groups=groups, sampling=stats.Sampling(seed=3, n_resamples=300))
    assert np.allclose(band.hi - band.value, c * se) and np.allclose(band.value - band.lo, c * se)
    assert (band.n, band.n_groups) == (len(values), 25) and np.allclose(band.value, values.mean(axis=0))


def test_band_of_any_statistic_is_that_of_its_left_out_values(curve):
    values, groups = curve
    left, sizes = leave_out(values, groups), np.bincount(groups)
    k = stats.effective_groups(sizes)
    assert k == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    lo, hi = stats.band_of(values.mean(axis=0), left, effective=k, sampling=stats.Sampling(seed=1, confidence=0.9))
    band = stats.simultaneous_band(values, groups=groups, sampling=stats.Sampling(seed=1, confidence=0.9))
    assert np.allclose(lo, band.lo) and np.allclose(hi, band.hi)
    shaped = stats.simultaneous_band(
        values.reshape(-1, 2, 3), groups=groups, sampling=stats.Sampling(seed=1, confidence=0.9)
    )
    assert np.allclose(shaped.lo.reshape(-1), band.lo)


def test_under_ten_groups_a_band_reaches_at_most_as_far_as_bonferroni_widened_for_skew():
    values, groups = np.random.default_rng(1).normal(size=(6, 30)), np.arange(6)
    band = stats.simultaneous_band(values, groups=groups, sampling=stats.Sampling(n_resamples=500))
    se, c = brute_force(values, groups, n_resamples=500, seed=0)
    assert np.allclose(se, values.std(axis=0, ddof=1) / np.sqrt(6))
    q = student.ppf(1 - 0.025 / 30, 5)
    shift = skew(values, axis=0, bias=False) * 2 * (1 + 2 * q**2) / (6 * np.sqrt(6))
    above, below = (band.hi - band.value) / se, (band.value - band.lo) / se
    assert np.allclose(above, np.minimum(c, q + np.maximum(shift, 0)))
    assert np.allclose(below, np.minimum(c, q + np.maximum(-shift, 0))) and (below < c).any()
    assert q > student.ppf(0.975, 5) * 2  # what 30 comparisons cost with 6 groups


def test_a_point_without_spread_has_no_band_and_does_not_widen_the_others(curve):
    values, groups = curve
    more = np.column_stack([values, np.full(len(values), 0.1)])
    band, alone = (stats.simultaneous_band(v, groups=groups) for v in (more, values))
    assert np.isnan(band.lo[-1]) and np.isnan(band.hi[-1]) and band.value[-1] == pytest.approx(0.1)
    assert np.allclose(band.lo[:-1], alone.lo)


def test_a_largest_of_many_is_as_wide_as_bonferroni_makes_it():
    """t of 10 degrees of freedom: 2.2281 at 0.975 and 3.1693 at 0.995 (tables); 0.975 is 0.05/2, 0.995 is 0.05/5/2."""
    found = picked_among(Estimate(0.4, 0.2, 0.5, 33, 11), 5)
    wider = 3.1693 / 2.2281
    assert (found.lo, found.hi) == pytest.approx((0.4 - wider * 0.2, 0.4 + wider * 0.1), rel=1e-4)
    assert picked_among(found, 1) == found
    with pytest.raises(ValueError, match="count"):
        picked_among(found, 0)
