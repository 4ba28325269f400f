"""The cluster bootstrap: exact against brute force on the same draws, coverage, and refusal of unstable ratios."""

from __future__ import annotations

import warnings
from math import sqrt

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t as student

from interp.stats import (
    FewGroupsWarning,
    NoWidthWarning,
    UndefinedDrawsWarning,
    UnstableRatioWarning,
    cluster_mean,
    cluster_means,
    cluster_se,
    cluster_t,
    decompose_change,
    design_effect,
    midpoint_decomposition,
    paired_difference,
    rate_on,
    ratio_difference,
    ratio_of_means,
    resample_sums,
    resample_weights,
    wilson,
    wilson_clustered,
)
from interp.stats.resample import group_weights


def clustered(rng: np.random.Generator, *, n_groups: int, size: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal data with mean 0, variance 1 and intraclass correlation `share`; group sizes vary around `size`."""
    sizes = rng.integers(max(1, size // 2), size + size // 2 + 1, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    values = sqrt(share) * rng.normal(size=n_groups)[groups] + sqrt(1 - share) * rng.normal(size=len(groups))
    return values, groups


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    values, groups = clustered(rng, n_groups=25, size=4, share=0.5)
    return values, groups, rng


def brute_draws(values, groups, n_resamples, seed, statistic):
    """Rows really repeated: what the sums must reproduce."""
    names = np.unique(groups)
    weights = np.concatenate(list(group_weights(len(names), n_resamples=n_resamples, seed=seed)))
    rows = [
        np.concatenate([np.tile(np.flatnonzero(groups == g), int(k)) for g, k in zip(names, w, strict=True)])
        for w in weights
    ]
    return np.array([statistic(values[r.astype(int)]) for r in rows])


def test_sums_give_the_same_draws_as_repeating_rows(data):
    values, groups, _ = data
    brute = brute_draws(values, groups, 200, 7, np.mean)
    got = cluster_mean(values, groups=groups, seed=7, n_resamples=200)
    assert np.allclose((got.lo, got.hi), np.quantile(brute, [0.025, 0.975]), atol=1e-12)
    assert got.value == pytest.approx(values.mean()) and (got.n, got.n_groups) == (len(values), 25)


def test_weights_give_the_same_draws_as_repeating_rows(data):
    values, groups, _ = data
    mean = lambda w: (w * values).sum(axis=1) / w.sum(axis=1)  # noqa: E731
    draws = resample_weights(mean, n=len(values), groups=groups, seed=7, n_resamples=200)
    assert np.allclose(draws.resampled, brute_draws(values, groups, 200, 7, np.mean), atol=1e-12)


def test_every_draw_has_as_many_groups_as_the_data_and_chunks_do_not_change_it():
    whole = np.concatenate(list(group_weights(30, n_resamples=50, seed=1)))
    parts = list(group_weights(30, n_resamples=50, seed=1, budget=16 * 30 * 7))
    assert len(parts) == 8 and np.array_equal(whole, np.concatenate(parts))
    assert (whole.sum(axis=1) == 30).all()
    assert whole.mean() == 1.0 and abs(whole.var() - (1 - 1 / 30)) < 0.08  # multinomial: n·p·(1-p)


def test_group_names_and_row_order_do_not_matter(data):
    values, groups, rng = data
    order = rng.permutation(len(values))
    names = np.array([f"p{g:03d}" for g in groups])
    want = cluster_mean(values, groups=groups, seed=0)
    for got in (
        cluster_mean(values[order], groups=names[order], seed=0),
        cluster_mean(list(values), groups=list(names), seed=np.random.default_rng(0)),
        cluster_mean(values, groups=names.astype(object), seed=0),
    ):
        assert np.allclose((got.value, got.lo, got.hi), (want.value, want.lo, want.hi), atol=1e-12)


def test_bca_equals_a_direct_computation_and_agrees_with_scipy():
    rng = np.random.default_rng(5)
    values = rng.exponential(size=60)
    got = cluster_mean(values, groups=None, seed=1, n_resamples=20_000, method="bca")
    want = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=rng).confidence_interval
    # two independent sets of 20,000 draws: an end has a Monte Carlo error of about 0.02 standard errors
    assert np.allclose((got.lo, got.hi), want, atol=0.08 * values.std() / sqrt(60))
    plain = cluster_mean(values, groups=None, seed=1, n_resamples=20_000)
    assert got.hi > plain.hi  # skewed to the right: BCa moves up


def test_cluster_se_equals_cluster_robust_regression_on_a_constant(data):
    values, groups, _ = data
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert cluster_se(values, groups=groups) == pytest.approx(float(fit.bse[0]), rel=1e-10)
    assert cluster_se(values, groups=None) == pytest.approx(values.std(ddof=1) / sqrt(len(values)))
    got = cluster_t(values, groups=groups)
    half = student.ppf(0.975, 24) * float(fit.bse[0])
    assert (got.lo, got.hi) == (pytest.approx(values.mean() - half), pytest.approx(values.mean() + half))


def test_design_effect_of_identical_twins_is_two():
    values = np.repeat(np.random.default_rng(0).normal(size=500), 2)
    # n/(n-1) against G/(G-1) in the two variances
    assert design_effect(values, groups=np.repeat(np.arange(500), 2)) == pytest.approx(2 * (500 / 499) / (1000 / 999))


@pytest.mark.parametrize("method", ["percentile", "bca", "t"])
def test_clustered_interval_covers_and_the_naive_one_does_not(method):
    rng, n = np.random.default_rng(11), 400
    covered = np.zeros(2)
    for i in range(n):
        values, groups = clustered(rng, n_groups=60, size=6, share=0.5)
        for j, unit in enumerate((groups, None)):
            got = cluster_mean(values, groups=unit, seed=i, n_resamples=400, method=method)
            covered[j] += got.lo <= 0 <= got.hi
    assert 0.92 <= covered[0] / n <= 0.98, covered
    assert covered[1] / n < 0.85, covered


def test_bootstrap_t_covers_with_few_groups_of_skewed_values_where_percentile_does_not():
    rng, n, covered = np.random.default_rng(12), 400, np.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)
        for i in range(n):
            values = rng.lognormal(size=12)
            for j, method in enumerate(("t", "percentile")):
                got = cluster_mean(values, groups=None, seed=i, n_resamples=500, method=method)
                covered[j] += got.lo <= np.exp(0.5) <= got.hi
    assert covered[0] / n > 0.9 and covered[1] / n < 0.87, covered


def test_clustered_wilson_covers_near_the_boundary_where_the_bootstrap_collapses():
    rng, n, covered = np.random.default_rng(13), 400, np.zeros(2)
    for _ in range(n):
        rate = np.clip(rng.beta(9.5, 0.5, 40), 0, 1)  # mean 0.95, strongly clustered
        groups = np.repeat(np.arange(40), 5)
        right = rng.random(200) < rate[groups]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoWidthWarning)
            for j, got in enumerate((wilson_clustered(right, groups=groups), wilson(int(right.sum()), 200))):
                covered[j] += got.lo <= 0.95 <= got.hi
    assert 0.92 <= covered[0] / n <= 1 and covered[1] / n < covered[0] / n, covered


def test_clustered_wilson_is_wilson_without_groups_and_counts_groups_when_all_are_right():
    right = np.random.default_rng(0).random(50) < 0.7
    assert wilson_clustered(right, groups=None) == wilson(int(right.sum()), 50)
    perfect = wilson_clustered(np.ones(100), groups=np.repeat(np.arange(10), 10))
    t = student.ppf(0.975, 9)
    assert perfect.hi == 1.0 and perfect.lo == pytest.approx(10 / (10 + t * t))  # Wilson's lower end at p = 1
    assert (perfect.n, perfect.n_groups) == (100, 10)


@pytest.mark.parametrize("unit", ["item", "story"])
def test_many_replies_to_few_items_are_worth_no_more_than_the_items(unit):
    items = np.repeat(np.arange(6), 50)
    right = np.tile([0, 1], 150)  # every item half right: the groups do not differ at all
    groups = items if unit == "item" else items // 2
    got, degrees = wilson_clustered(right, groups=groups, items=items), len(set(groups)) - 1
    centre, half = 0.5, (got.hi - got.lo) / 2
    t = student.ppf(0.975, degrees)
    assert half == pytest.approx(t / np.sqrt(6 + t * t) / 2)  # Wilson at p = 1/2 and n = 6, not 300
    assert (got.lo + got.hi) / 2 == pytest.approx(centre)
    assert half > 3 * (wilson_clustered(right, groups=groups).hi - 0.5)
    with pytest.raises(ValueError, match="300 replies to 6 items"):
        wilson_clustered(right, groups=None, items=items)
    assert wilson_clustered(right, groups=None, items=np.arange(300)) == wilson(150, 300)


def test_rate_on_a_subset_is_undefined_when_empty_and_excludes_nothing_inside_one_group():
    event, groups = np.array([1, 1, 0, 1]), np.array(["a", "a", "b", "c"])
    assert not rate_on(event, np.zeros(4), groups=groups).is_defined
    alone = rate_on(event, np.array([1, 1, 0, 0]), groups=groups)
    assert (alone.value, alone.lo, alone.hi, alone.n, alone.n_groups) == (1.0, 0.0, 1.0, 2, 1)


def test_means_of_many_columns_share_draws_with_the_single_one(data):
    _, groups, rng = data
    effects = rng.normal(size=(len(groups), 3, 2))
    many = cluster_means(effects, groups=groups, seed=4, n_resamples=300)
    one = cluster_mean(effects[:, 2, 1], groups=groups, seed=4, n_resamples=300)
    got = many.at(2, 1)
    assert np.allclose((got.value, got.lo, got.hi), (one.value, one.lo, one.hi), atol=1e-12)
    bca = cluster_means(effects, groups=groups, seed=4, n_resamples=300, method="bca").at(2, 1)
    one = cluster_mean(effects[:, 2, 1], groups=groups, seed=4, n_resamples=300, method="bca")
    assert np.allclose((bca.lo, bca.hi), (one.lo, one.hi), atol=1e-12)


def test_paired_difference_is_the_mean_of_the_differences(data):
    values, groups, rng = data
    other = rng.normal(size=len(values))
    got = paired_difference(values, other, groups=groups, seed=0, method="bca")
    assert got == cluster_mean(values - other, groups=groups, seed=0, method="bca")


def test_ratio_of_means_is_not_the_mean_of_ratios_and_agrees_with_fieller():
    rng = np.random.default_rng(8)
    bottom = rng.normal(4.0, 1.0, 400)
    top = 0.5 * bottom + rng.normal(0, 0.3, 400)
    got = ratio_of_means(top, bottom, groups=None, seed=0, n_resamples=4000)
    assert got.ratio.value == pytest.approx(top.mean() / bottom.mean()) and not got.refused
    cov, z = np.cov(top, bottom) / 400, 1.959964  # Fieller: |top - r·bottom|² <= z² var
    a, b, c = bottom.mean() ** 2 - z**2 * cov[1, 1], top.mean() * bottom.mean() - z**2 * cov[0, 1], top.mean() ** 2
    c -= z**2 * cov[0, 0]
    fieller = np.array([b - sqrt(b * b - a * c), b + sqrt(b * b - a * c)]) / a
    assert np.allclose((got.ratio.lo, got.ratio.hi), fieller, atol=1e-3)
    student_t = ratio_of_means(top, bottom, groups=None, seed=0, method="t").ratio
    assert np.allclose((student_t.lo, student_t.hi), fieller, atol=2e-3)


def test_a_ratio_over_nothing_is_refused_with_both_means():
    rng = np.random.default_rng(9)
    top, bottom = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
    with pytest.warns(UnstableRatioWarning, match="ratio refused: the mean denominator"):
        got = ratio_of_means(top, bottom, groups=None, seed=0)
    assert got.refused and not got.ratio.is_defined and got.numerator.value == pytest.approx(top.mean())
    with pytest.warns(UnstableRatioWarning):
        assert ratio_of_means(top, np.zeros(50), groups=None, seed=0).refused


def test_guard_of_the_ratio_uses_clusters():
    """The same denominator passes as 200 independent values and fails as 5 groups that share theirs."""
    rng = np.random.default_rng(2)
    group_mean = np.array([2.0, -1.0, 1.5, -0.5, 1.0])
    groups = np.repeat(np.arange(5), 40)
    bottom = group_mean[groups] + 0.1 * rng.normal(size=200)
    assert not ratio_of_means(bottom, bottom, groups=None, seed=0).refused
    with pytest.warns(UnstableRatioWarning):
        assert ratio_of_means(bottom, bottom, groups=groups, seed=0).refused


def test_ratio_difference_resamples_both_systems_together():
    rng = np.random.default_rng(6)
    den = (rng.random(300) < 0.5).astype(float)
    num = den * rng.choice([-1.0, 1.0], 300)
    groups = np.repeat(np.arange(60), 5)
    same = ratio_difference(num, den, num, den, groups=groups, seed=0)
    assert same.value == same.lo == same.hi == 0.0
    flipped = ratio_difference(num, den, -num, den, groups=groups, seed=0, method="bca")
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
    got = decompose_change(before, after, groups=groups, seed=0)
    rates = [(s[:, 1].mean(), s[:, 2].sum() / s[:, 1].sum()) for s in (before, after)]
    assert (got.first.value, got.second.value) == pytest.approx(midpoint_decomposition(*rates[0], *rates[1]))
    assert got.total.value == pytest.approx(after[:, 2].mean() - before[:, 2].mean())
    direct = paired_difference(after[:, 2], before[:, 2], groups=groups, seed=0)
    assert np.allclose((got.total.lo, got.total.hi), (direct.lo, direct.hi), atol=1e-12)
    still = decompose_change(before, before, groups=groups, seed=0)
    assert still.first.value == still.second.hi == 0.0


def test_few_groups_no_width_and_undefined_draws_are_said():
    with pytest.warns(FewGroupsWarning, match="7 independent units"):
        cluster_mean(np.arange(14.0), groups=np.repeat(np.arange(7), 2), seed=0)
    with pytest.warns(NoWidthWarning, match="every resample gave 1"):
        cluster_mean(np.ones(40), groups=None, seed=0)
    columns = np.column_stack([np.ones(25), np.arange(25) == 3])
    draws = resample_sums(columns, lambda s: s[..., 0] / s[..., 1], groups=None, seed=0)
    with pytest.warns(UndefinedDrawsWarning, match="were left out"):
        draws.estimate()
    assert 0.25 < draws.n_undefined / 2000 < 0.45  # (1 - 1/25)^25 = 0.36


def test_ten_thousand_items_and_two_thousand_resamples_take_a_fraction_of_a_second():
    from time import process_time

    values, start = np.random.default_rng(0).normal(size=10_000), process_time()
    cluster_mean(values, groups=None, seed=0, n_resamples=2000)
    assert process_time() - start < 3.0  # 0.15 s on an idle core; the bound only catches a loop over resamples
