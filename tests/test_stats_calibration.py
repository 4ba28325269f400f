"""Calibration, ranking and agreement: sklearn as the second implementation, hand-worked cases, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.calibration import _sigmoid_calibration, calibration_curve
from sklearn.metrics import brier_score_loss, cohen_kappa_score

from interp.stats import (
    Sampling,
    UndefinedDrawsWarning,
    brier,
    calibration_error,
    confidence_on_errors,
    equal_mass_bins,
    fit_platt,
    reliability_table,
    weighted_kappa,
)


@pytest.fixture
def stated():
    """1,000 stated probabilities, outcomes that follow p^2 (overconfident), 200 groups."""
    rng = np.random.default_rng(0)
    p = rng.random(1000)
    return p, rng.random(1000) < p**2, np.repeat(np.arange(200), 5)


def test_ece_equals_the_sum_over_sklearns_bins(stated):
    p, y, groups = stated
    rate, mean_p = calibration_curve(y, p, n_bins=10, strategy="quantile")
    got = calibration_error(p, y, groups=groups)
    assert got.ece.value == pytest.approx(np.abs(rate - mean_p).mean(), abs=1e-12) and got.n_bins == 10
    table = reliability_table(p, y, groups=groups)
    assert np.allclose([row.rate.value for row in table], rate) and np.allclose([row.mean_p for row in table], mean_p)
    assert all(row.rate.n == 100 and row.lo <= row.mean_p <= row.hi for row in table)


def test_ece_by_hand():
    p, y = [0.1, 0.3, 0.6, 0.8], [0, 1, 1, 0]
    got = calibration_error(p, y, groups=None, n_bins=2)
    assert got.ece.value == pytest.approx(0.5 * abs(0.5 - 0.2) + 0.5 * abs(0.5 - 0.7))


def test_equal_probabilities_share_a_bin_whatever_the_order_of_rows():
    p = np.array([0.9] * 7 + [0.2, 0.3, 0.4])
    order = np.random.default_rng(1).permutation(10)
    assert np.array_equal(equal_mass_bins(p, 5)[order], equal_mass_bins(p[order], 5))
    assert len(set(equal_mass_bins(p, 5)[:7].tolist())) == 1
    assert np.bincount(equal_mass_bins(np.linspace(0, 1, 25), 5)).tolist() == [5] * 5
    y = np.arange(10) % 2
    a, b = (calibration_error(p[o], y[o], groups=None, n_bins=5).ece.value for o in (np.arange(10), order))
    assert a == pytest.approx(b)


def test_a_calibrated_reader_is_at_the_floor_and_an_overconfident_one_above(stated):
    p, y, groups = stated
    bad = calibration_error(p, y, groups=groups)
    assert bad.p < 0.01 and bad.ece.lo > bad.floor.hi
    rng = np.random.default_rng(2)
    p_values = [
        calibration_error(p, rng.random(1000) < p, groups=None, sampling=Sampling(seed=i, n_resamples=100)).p
        for i in range(60)
    ]
    assert 0.3 < np.mean(p_values) < 0.7 and np.mean(np.array(p_values) <= 0.05) <= 0.15
    assert bad.floor.lo > 0  # no finite sample gives 0


def test_ece_interval_covers_the_true_error():
    """Two levels, 0.9 stated and 0.7 true, 0.6 stated and 0.5 true: the error is 0.15."""
    rng, hits = np.random.default_rng(3), 0
    p = np.repeat([0.9, 0.6], 200)
    for i in range(200):
        y = rng.random(400) < np.repeat([0.7, 0.5], 200)
        got = calibration_error(p, y, groups=None, sampling=Sampling(seed=i, n_resamples=300), n_bins=2).ece
        hits += got.lo <= 0.15 <= got.hi
    assert 0.9 <= hits / 200 <= 0.99, hits


def test_brier_equals_sklearn(stated):
    p, y, groups = stated
    got = brier(p, y, groups=groups)
    assert got.value == pytest.approx(brier_score_loss(y, p)) and got.lo < got.value < got.hi
    half = brier(np.full(1000, 0.5), y, groups=groups)  # every item the same: Wilson's 0 of 200 groups
    share = student.ppf(0.975, 199) ** 2 / (200 + student.ppf(0.975, 199) ** 2)
    assert (half.value, half.lo, half.hi) == (
        0.25,
        pytest.approx(0.25 * (1 - share)),
        pytest.approx(0.25 + 0.75 * share),
    )


def test_confidence_on_errors_by_hand_and_without_errors():
    c, right = np.array([0.9, 0.8, 0.99, 0.6] * 10), np.array([1, 0, 0, 1] * 10)
    got = confidence_on_errors(c, right, groups=None)
    assert got.value == pytest.approx((0.8 + 0.99) / 2) and got.n == 20
    assert not confidence_on_errors(c, np.ones(40), groups=None).is_defined
    alone = confidence_on_errors(c, np.arange(40) > 1, groups=np.repeat(np.arange(20), 2))
    assert (alone.lo, alone.hi, alone.n_groups) == (0.0, 1.0, 1)


def test_platt_equals_sklearn():
    rng = np.random.default_rng(4)
    y = rng.random(300) < 0.3
    s = 5 + 3 * (rng.normal(size=300) + y)
    a, b = _sigmoid_calibration(s, y.astype(float))  # sklearn's sign: 1/(1 + exp(a s + b))
    got = fit_platt(s, y)
    assert (got.slope, got.intercept) == (pytest.approx(-a, rel=1e-3), pytest.approx(-b, rel=1e-3))
    assert np.allclose(got(s), 1 / (1 + np.exp(a * s + b)), atol=1e-4)


def test_platt_of_separated_scores_is_finite_and_of_reversed_ones_negative():
    s, y = np.arange(40.0), np.arange(40) >= 20
    fit = fit_platt(s, y)
    assert 0 < fit.slope < 50
    # smoothed targets: the mean of the fitted probabilities equals that of the targets
    assert fit(s).mean() == pytest.approx((20 * 21 / 22 + 20 / 22) / 40, abs=1e-8)
    assert fit_platt(-s, y).slope == pytest.approx(-fit.slope, rel=1e-6)


@pytest.mark.parametrize(("ours", "sklearns"), [("quadratic", "quadratic"), ("linear", "linear"), ("none", None)])
def test_kappa_equals_sklearn(ours, sklearns):
    rng = np.random.default_rng(9)
    gold = rng.choice([1, 2, 3, 4, 5], 80, p=[0.39, 0.3, 0.14, 0.11, 0.06])
    rated = np.clip(gold + rng.choice([-1, 0, 1], 80), 1, 5)
    got = weighted_kappa(gold, rated, levels=(1, 2, 3, 4, 5), groups=None, weights=ours)
    want = cohen_kappa_score(gold, rated, weights=sklearns, labels=[1, 2, 3, 4, 5])
    assert got.kappa.value == pytest.approx(want) and got.kappa.lo < want < got.kappa.hi


def test_kappa_of_the_triage_set():
    """Gold 14/11/5/4/2; a constant prediction has kappa 0 although 83.3 % are adjacent; 8 adjacent errors, 0.92."""
    gold = np.repeat([1, 2, 3, 4, 5], [14, 11, 5, 4, 2])
    levels = (1, 2, 3, 4, 5)
    constant = weighted_kappa(gold, np.full(36, 2), levels=levels, groups=None)
    assert constant.kappa.value == pytest.approx(0.0, abs=1e-12)
    assert round(100 * np.mean(np.abs(gold - 2) <= 1), 1) == 83.3 and round(100 * np.mean(gold == 2), 1) == 30.6
    rng, values, ends = np.random.default_rng(10), [], []
    for i in range(40):
        rated = gold.copy()
        wrong = rng.choice(36, 8, replace=False)
        step = rng.choice([-1, 1], 8)
        rated[wrong] += np.where((rated[wrong] + step < 1) | (rated[wrong] + step > 5), -step, step)
        got = weighted_kappa(gold, rated, levels=levels, groups=None, sampling=Sampling(seed=i, n_resamples=500)).kappa
        values.append(got.value)
        ends.append((got.lo, got.hi))
    assert abs(np.mean(values) - 0.92) < 0.015
    assert np.allclose(np.mean(ends, axis=0), (0.83, 0.97), atol=0.02)


def test_kappa_that_hangs_on_one_group_has_the_whole_range():
    gold, rated = [1] * 5 + [2], [1] * 6
    with pytest.warns(UndefinedDrawsWarning, match="a single group holds"):
        got = weighted_kappa(gold, rated, levels=(1, 2), groups=None)
    assert (got.kappa.value, got.kappa.lo, got.kappa.hi, got.n_undefined) == (0.0, -1.0, 1.0, 1)
    undefined = weighted_kappa([1] * 30, [1] * 30, levels=(1, 2), groups=None)
    assert not undefined.kappa.is_defined and undefined.n_undefined == 30


def test_perfect_agreement_has_an_interval():
    gold = np.repeat([1, 2, 3], 10)
    got = weighted_kappa(gold, gold, levels=(1, 2, 3), groups=np.arange(30) // 3).kappa
    share = student.ppf(0.975, 9) ** 2 / (10 + student.ppf(0.975, 9) ** 2)  # of groups that may disagree, down to -1
    assert (got.value, got.hi, got.lo) == (1.0, 1.0, pytest.approx(1 - 2 * share))
