"""What an answer depends on: signal detection, reliance on a surface cue, and the logistic regression behind it."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize
from scipy.stats import chi2, norm
from scipy.stats import t as student

from interp.stats import (
    logistic_regression,
    signal_detection,
    surface_reliance,
)
from interp.stats.logistic import fit_penalised, is_separated, penalised_likelihood, profile_limits


def rates(n: int, right: int) -> np.ndarray:
    return np.arange(n) < right


def test_signal_detection_by_hand():
    said = np.concatenate([rates(25, 20), rates(25, 10)])
    signal = rates(50, 25)
    got = signal_detection(said, signal, groups=None)
    z_hit, z_alarm = norm.ppf(20.5 / 26), norm.ppf(10.5 / 26)
    assert got.d_prime.value == pytest.approx(z_hit - z_alarm)
    assert got.criterion.value == pytest.approx(-(z_hit + z_alarm) / 2)
    variance = sum(p * (1 - p) / 25 / norm.pdf(norm.ppf(p)) ** 2 for p in (20.5 / 26, 10.5 / 26))
    assert got.d_prime.hi - got.d_prime.value == pytest.approx(norm.ppf(0.975) * variance**0.5)
    assert got.criterion.hi - got.criterion.value == pytest.approx(norm.ppf(0.975) * variance**0.5 / 2)
    assert (got.hit_rate.value, got.false_alarm_rate.value) == (0.8, 0.4)


def test_a_constant_answer_has_no_sensitivity_and_all_the_lean():
    signal = rates(400, 200)
    always = signal_detection(np.ones(400), signal, groups=np.repeat(np.arange(80), 5))
    assert abs(always.d_prime.value) < 1e-12 and always.d_prime.lo < 0 < always.d_prime.hi
    assert always.criterion.hi < -1


def test_signal_detection_interval_covers_and_bootstrap_agrees_with_the_delta_method():
    rng, hits = np.random.default_rng(7), 0
    signal = rates(400, 200)
    truth = norm.ppf(0.8) - norm.ppf(0.3)
    for _ in range(400):
        said = rng.random(400) < np.where(signal, 0.8, 0.3)
        got = signal_detection(said, signal, groups=None).d_prime
        hits += got.lo <= truth <= got.hi
    assert 0.92 <= hits / 400 <= 0.98
    one_each = signal_detection(said, signal, groups=np.arange(400)).d_prime
    assert np.allclose((one_each.lo, one_each.hi), (got.lo, got.hi), atol=0.06)  # 2,000 draws


def cue_reader(rng, *, follow: float, n: int = 600):
    gold = rng.random(n) < 0.5
    cue = np.where(rng.random(n) < 0.7, gold, ~gold)
    return np.where(rng.random(n) < follow, cue, gold) ^ (rng.random(n) < 0.1), gold, cue


def test_surface_reliance_separates_a_reader_of_the_cue_from_a_reader_of_the_content():
    rng, groups = np.random.default_rng(8), np.repeat(np.arange(120), 5)
    names = np.array(["compliant", "noncompliant"], dtype=object)
    found = {}
    for name, follow in (("engaged", 0.0), ("heuristic", 1.0)):
        arrays = (names[part.astype(int)] for part in cue_reader(rng, follow=follow))
        found[name] = surface_reliance(*arrays, positive="noncompliant", groups=groups)
    engaged, heuristic = found["engaged"], found["heuristic"]
    assert engaged.reliance.lo < 0 < engaged.reliance.hi and heuristic.reliance.lo > 0.7
    assert heuristic.reliance.value == pytest.approx(heuristic.congruent.value - heuristic.incongruent.value)
    beta = heuristic.regression.coefficients
    assert beta["surface_label"].lo > 3 and beta["gold"].lo < 0 < beta["gold"].hi
    assert engaged.regression.coefficients["gold"].lo > 3 and heuristic.regression.note == ""


def test_a_perfect_cue_reader_has_a_reliance_with_width_and_a_note_on_separation():
    rng = np.random.default_rng(9)
    _, gold, cue = cue_reader(rng, follow=1.0)
    got = surface_reliance(cue, gold, cue, positive=True, groups=np.repeat(np.arange(120), 5))
    assert got.reliance.value == 1.0 and 0.9 < got.reliance.lo < 1.0
    assert (
        got.regression.method == "firth" and "separated" in got.regression.note and "120 groups" in got.regression.note
    )
    beta = got.regression.coefficients
    assert (
        beta["surface_label"].lo > 2 and beta["gold"].lo < 0 < beta["gold"].hi and np.isfinite(beta["surface_label"].hi)
    )


def test_unparsed_answers_are_wrong_in_the_accuracies_and_absent_from_the_regression():
    rng = np.random.default_rng(10)
    said, gold, cue = (part.astype(object) for part in cue_reader(rng, follow=0.5))
    said[:50] = None
    got = surface_reliance(said, gold, cue, positive=True, groups=None)
    assert got.n_unparsed == 50 and got.congruent.n + got.incongruent.n == 600
    assert got.regression.coefficients["gold"].n == 550
    assert got.congruent.value == np.mean([s == g for s, g, c in zip(said, gold, cue, strict=True) if g == c])


def test_logistic_regression_equals_statsmodels_with_cluster_covariance():
    rng = np.random.default_rng(11)
    x, groups = rng.normal(size=(300, 2)), np.repeat(np.arange(60), 5)
    y = rng.random(300) < 1 / (1 + np.exp(-(0.5 + x @ [1.0, -0.7] + rng.normal(size=60)[groups])))
    got = logistic_regression(y, x, names=("a", "b"), groups=groups)
    fit = sm.Logit(y.astype(float), sm.add_constant(x)).fit(disp=0, cov_type="cluster", cov_kwds={"groups": groups})
    assert list(got.coefficients) == ["intercept", "a", "b"] and got.covariance is not None
    assert np.allclose([e.value for e in got.coefficients.values()], fit.params, atol=1e-7)
    assert np.allclose(got.covariance, fit.cov_params(), rtol=1e-5)
    # intervals leave out groups: refit without each by statsmodels; ours is one Newton step, within 3 % of the refit
    rest = [
        sm.Logit(y[groups != g].astype(float), sm.add_constant(x[groups != g])).fit(disp=0).params for g in range(60)
    ]
    se = np.sqrt(59 / 60 * np.square(np.array(rest) - np.mean(rest, axis=0)).sum(axis=0))
    near = [min(e.hi - e.value, e.value - e.lo) for e in got.coefficients.values()]  # the side without skewness
    assert np.allclose(near, student.ppf(0.975, 59) * se, rtol=0.03)


def test_clustered_logistic_intervals_cover():
    rng, hits = np.random.default_rng(12), np.zeros(2)
    from numpy.polynomial.hermite_e import hermegauss

    groups, side = np.repeat(np.arange(80), 5), np.repeat(rng.random(80) < 0.5, 5).astype(float)
    nodes, weights = hermegauss(40)
    marginal = [(weights / weights.sum()) @ (1 / (1 + np.exp(-(eta + 1.5 * nodes)))) for eta in (0.0, 1.0)]
    truth = np.log(marginal[1] / (1 - marginal[1])) - np.log(marginal[0] / (1 - marginal[0]))
    for _ in range(200):
        y = rng.random(400) < 1 / (1 + np.exp(-(side + 1.5 * rng.normal(size=80)[groups])))
        for j, unit in enumerate((groups, None)):
            got = logistic_regression(y, side[:, None], names=("side",), groups=unit).coefficients["side"]
            hits[j] += got.lo <= truth <= got.hi
    assert 0.92 <= hits[0] / 200 <= 0.98 and hits[1] / 200 < 0.88, hits


TWO_BY_TWO = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), np.array([0.0, 1.0, 0.0, 1.0])


def test_firth_adds_one_half_to_every_cell_of_a_saturated_table():
    rows, outcome = TWO_BY_TWO
    counts = np.array([9.0, 3.0, 0.0, 8.0])  # the third cell is empty: maximum likelihood is infinite
    beta = fit_penalised(rows, outcome, counts, firth=True)
    odds = [np.log((3 + 0.5) / (9 + 0.5)), np.log((8 + 0.5) / (0 + 0.5))]
    assert np.allclose(beta, [odds[0], odds[1] - odds[0]], atol=1e-6)


def test_firth_profile_limits_equal_a_brute_force_search():
    rows, outcome = TWO_BY_TWO
    counts = np.array([9.0, 3.0, 0.0, 8.0])
    beta = fit_penalised(rows, outcome, counts, firth=True)
    best = penalised_likelihood(rows, outcome, counts, beta)
    for end in profile_limits(rows, outcome, counts, beta, 1, confidence=0.95):
        other = minimize(
            lambda b, end=end: -penalised_likelihood(rows, outcome, counts, np.array([b[0], end])),
            [beta[0]],
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10},
        )
        assert 2 * (best + other.fun) == pytest.approx(chi2.ppf(0.95, 1), abs=1e-4)


def test_separation_is_found_exactly():
    line = np.column_stack([np.ones(6), np.arange(6.0)])
    assert is_separated(line, np.array([0, 0, 0, 1, 1, 1]))
    assert not is_separated(line, np.array([0, 0, 1, 0, 1, 1]))
    assert is_separated(line, np.zeros(6))  # one class only
    tied = np.column_stack([np.ones(6), [0.0, 1, 2, 2, 3, 4]])
    assert is_separated(tied, np.array([0, 0, 0, 1, 1, 1]))  # quasi-separated: they touch at 2
