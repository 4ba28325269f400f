"""Intervals over groups: the rule and the bootstrap against brute force, Fieller, boundaries, refusal of ratios."""

from __future__ import annotations

import warnings
from math import sqrt

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import skew
from scipy.stats import t as student

from interp.stats import (
    FewGroupsWarning,
    NoWidthWarning,
    Sampling,
    UndefinedDrawsWarning,
    cluster_mean,
    cluster_means,
    cluster_se,
    cluster_t,
    design_effect,
    paired_difference,
    rate_on,
    resample_sums,
    resample_weights,
    wilson,
    wilson_clustered,
)
from interp.stats.jackknife import group_weights


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
    got = cluster_mean(values, groups=groups, sampling=Sampling(seed=7, n_resamples=200, method="percentile"))
    assert np.allclose((got.lo, got.hi), np.quantile(brute, [0.025, 0.975]), atol=1e-12)
    assert got.value == pytest.approx(values.mean()) and (got.n, got.n_groups) == (len(values), 25)


def by_hand(left_out, value, sizes, confidence=0.95):
    """The rule from the statistic without each group: scipy's quantiles and skewness, group by group."""
    n_groups, effective = len(left_out), sum(sizes) ** 2 / sum(k**2 for k in sizes)
    pull = np.mean(left_out) - np.array(left_out)
    se = sqrt((n_groups - 1) / n_groups * sum(d**2 for d in pull))
    t = student.ppf(0.5 + confidence / 2, effective - 1)
    g = skew(pull) * sqrt(effective * (effective - 1)) / (effective - 2)
    shift = 2 * g * (1 + 2 * t**2) / (6 * sqrt(effective))
    return value - (t + max(-shift, 0)) * se, value + (t + max(shift, 0)) * se


def test_the_rule_equals_leaving_out_each_group_by_hand(data):
    values, groups, rng = data
    sizes = np.bincount(groups)
    left = [values[groups != g].mean() for g in range(25)]
    want = by_hand(left, values.mean(), sizes, confidence=0.9)
    for got in (
        cluster_t(values, groups=groups, confidence=0.9),
        cluster_mean(values, groups=groups, sampling=Sampling(confidence=0.9)),
        paired_difference(values, np.zeros(len(values)), groups=groups, sampling=Sampling(confidence=0.9)),
    ):
        assert (got.lo, got.hi) == pytest.approx(want)
    other = rng.normal(2, 1, len(values))
    both, options = np.column_stack([values, other]), dict(groups=groups, sampling=Sampling(confidence=0.9))
    ratio = resample_sums(both, lambda s: s[..., 0] / s[..., 1], counts=other > 1, **options).estimate()
    left = [values[groups != g].sum() / other[groups != g].sum() for g in range(25)]
    counted = np.bincount(groups, weights=other > 1)
    assert (ratio.lo, ratio.hi) == pytest.approx(by_hand(left, values.sum() / other.sum(), counted, confidence=0.9))


def test_with_a_known_range_the_rule_is_wilson_at_the_sample_size_that_the_error_is_worth():
    rng = np.random.default_rng(4)
    values, groups = rng.beta(6, 1, 60), np.repeat(np.arange(12), 5)
    got = cluster_t(values, groups=groups, bounds=(0, 1))
    left = np.array([values[groups != g].mean() for g in range(12)])
    pull = left.mean() - left
    m, se, t = values.mean(), sqrt(11 / 12 * (pull**2).sum()), student.ppf(0.975, 11)
    score = np.sort(np.roots([1 + t**2 * se**2 / (m * (1 - m)), -(2 * m + t**2 * se**2 / (m * (1 - m))), m * m]).real)
    skewed = by_hand(left, m, [5] * 12)
    assert skew(pull) < 0  # so the wider of the two below, Wilson's above
    assert (got.lo, got.hi) == (pytest.approx(min(score[0], skewed[0])), pytest.approx(score[1]))
    thrice = cluster_t(3 * values - 1, groups=groups, bounds=(-1, 2))
    assert (thrice.lo, thrice.hi) == (pytest.approx(3 * got.lo - 1), pytest.approx(3 * got.hi - 1))


def test_where_no_group_differs_a_known_range_gives_width_and_an_unknown_one_no_interval():
    groups, t = np.repeat(np.arange(6), 5), student.ppf(0.975, 5)
    share = t**2 / (6 + t**2)  # of groups that may differ: Wilson's upper end of 0 of 6
    got = cluster_t(np.full(30, 0.25), groups=groups, bounds=(0.0, 1.0))
    assert (got.lo, got.hi) == (pytest.approx(0.25 - share * 0.25), pytest.approx(0.25 + share * 0.75))
    right = cluster_t(np.ones(30, dtype=bool), groups=groups)
    assert (right.lo, right.hi) == (pytest.approx(1 - share), 1.0)
    assert right.lo == pytest.approx(wilson_clustered(np.ones(30), groups=groups).lo)
    with pytest.warns(NoWidthWarning, match="all groups have the same value"):
        none = cluster_t(np.full(30, 0.1), groups=groups)
    assert none.value == pytest.approx(0.1) and not none.has_interval and not none.excludes(0.0)
    assert str(none) == "0.100 [no interval] (n=30, 6 groups)"
    many = cluster_means(np.column_stack([np.zeros(30), np.arange(30)]), groups=groups)
    assert np.isnan(many.lo).tolist() == [True, False]
    with pytest.raises(ValueError, match="expected numbers in"):
        cluster_t(np.arange(30.0), groups=groups, bounds=(0.0, 1.0))


def test_without_the_only_group_that_counts_the_interval_is_the_whole_range():
    columns = np.column_stack([np.ones(40), np.arange(40) < 2])  # a rate among the two examples of group 0
    draws = resample_sums(
        columns[:, [1, 1]], lambda s: s[..., 0] / s[..., 1], groups=np.arange(40) // 2, bounds=(0.0, 1.0)
    )
    with pytest.warns(UndefinedDrawsWarning, match="a single group holds"):
        got = draws.estimate()
    assert (got.value, got.lo, got.hi) == (1.0, 0.0, 1.0)


def test_ten_thousand_groups_are_left_out_in_blocks_with_the_same_standard_error():
    values = np.random.default_rng(0).normal(size=10_000)
    mean = lambda w: (w * values).sum(axis=1) / w.sum(axis=1)  # noqa: E731
    blocks = resample_weights(mean, n=10_000, groups=None)
    assert blocks.left_out.shape == (200,)
    exact, got = cluster_t(values, groups=None), blocks.estimate()
    # 200 blocks estimate the standard error to 1/sqrt(400) = 5 %
    assert (got.hi - got.lo) == pytest.approx(exact.hi - exact.lo, rel=0.2)
    few = resample_weights(lambda w: mean(np.pad(w, ((0, 0), (0, 9_900)))), n=100, groups=None).estimate()
    assert (few.lo, few.hi) == pytest.approx(tuple(vars(cluster_t(values[:100], groups=None))[k] for k in ("lo", "hi")))


def test_weights_give_the_same_draws_as_repeating_rows(data):
    values, groups, _ = data
    mean = lambda w: (w * values).sum(axis=1) / w.sum(axis=1)  # noqa: E731
    draws = resample_weights(mean, n=len(values), groups=groups, sampling=Sampling(seed=7, n_resamples=200))
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
    want = cluster_mean(values, groups=groups)
    for got in (
        cluster_mean(values[order], groups=names[order]),
        cluster_mean(list(values), groups=list(names), sampling=Sampling(seed=np.random.default_rng(0))),
        cluster_mean(values, groups=names.astype(object)),
    ):
        assert np.allclose((got.value, got.lo, got.hi), (want.value, want.lo, want.hi), atol=1e-12)


def test_bca_equals_a_direct_computation_and_agrees_with_scipy():
    rng = np.random.default_rng(5)
    values = rng.exponential(size=60)
    got = cluster_mean(values, groups=None, sampling=Sampling(seed=1, n_resamples=20_000, method="bca"))
    want = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=rng).confidence_interval
    # two independent sets of 20,000 draws: an end has a Monte Carlo error of about 0.02 standard errors
    assert np.allclose((got.lo, got.hi), want, atol=0.08 * values.std() / sqrt(60))
    plain = cluster_mean(values, groups=None, sampling=Sampling(seed=1, n_resamples=20_000, method="percentile"))
    assert got.hi > plain.hi  # skewed to the right: BCa moves up


def test_cluster_se_equals_cluster_robust_regression_on_a_constant(data):
    values, groups, _ = data
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert cluster_se(values, groups=groups) == pytest.approx(float(fit.bse[0]), rel=1e-10)
    assert cluster_se(values, groups=None) == pytest.approx(values.std(ddof=1) / sqrt(len(values)))
    equal = values[:80], np.arange(80) // 4  # of equal groups the jackknife's is the same, and t has G - 1 degrees
    got = cluster_t(equal[0], groups=equal[1])
    half = min(got.hi - got.value, got.value - got.lo)  # the side that skewness does not widen
    assert half == pytest.approx(student.ppf(0.975, 19) * cluster_se(equal[0], groups=equal[1]))


def test_design_effect_of_identical_twins_is_two():
    values = np.repeat(np.random.default_rng(0).normal(size=500), 2)
    # n/(n-1) against G/(G-1) in the two variances
    assert design_effect(values, groups=np.repeat(np.arange(500), 2)) == pytest.approx(2 * (500 / 499) / (1000 / 999))


@pytest.mark.parametrize("method", ["auto", "percentile", "bca"])
def test_clustered_interval_covers_and_the_naive_one_does_not(method):
    rng, n = np.random.default_rng(11), 400
    covered = np.zeros(2)
    for i in range(n):
        values, groups = clustered(rng, n_groups=60, size=6, share=0.5)
        for j, unit in enumerate((groups, None)):
            got = cluster_mean(values, groups=unit, sampling=Sampling(seed=i, n_resamples=400, method=method))
            covered[j] += got.lo <= 0 <= got.hi
    assert 0.92 <= covered[0] / n <= 0.98, covered
    assert covered[1] / n < 0.85, covered


def test_the_rule_covers_with_few_groups_of_skewed_values_where_percentile_does_not():
    rng, n, covered = np.random.default_rng(12), 400, np.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)
        for i in range(n):
            values = rng.lognormal(size=12)
            for j, method in enumerate(("auto", "percentile")):
                got = cluster_mean(values, groups=None, sampling=Sampling(seed=i, n_resamples=500, method=method))
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
    many = cluster_means(effects, groups=groups, sampling=Sampling(seed=4, n_resamples=300))
    one = cluster_mean(effects[:, 2, 1], groups=groups, sampling=Sampling(seed=4, n_resamples=300))
    got = many.at(2, 1)
    assert np.allclose((got.value, got.lo, got.hi), (one.value, one.lo, one.hi), atol=1e-12)
    bca = cluster_means(effects, groups=groups, sampling=Sampling(seed=4, n_resamples=300, method="bca")).at(2, 1)
    one = cluster_mean(effects[:, 2, 1], groups=groups, sampling=Sampling(seed=4, n_resamples=300, method="bca"))
    assert np.allclose((bca.lo, bca.hi), (one.lo, one.hi), atol=1e-12)


def test_paired_difference_is_the_mean_of_the_differences(data):
    values, groups, rng = data
    other = rng.normal(size=len(values))
    got = paired_difference(values, other, groups=groups, sampling=Sampling(method="bca"))
    assert got == cluster_mean(values - other, groups=groups, sampling=Sampling(method="bca"))


def test_few_groups_and_undefined_draws_are_said():
    values, groups = np.arange(14.0), np.repeat(np.arange(7), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FewGroupsWarning)  # the rule was checked with 7
        cluster_mean(values, groups=groups)
    with pytest.warns(FewGroupsWarning, match="7 independent units.*method='auto'"):
        cluster_mean(values, groups=groups, sampling=Sampling(method="percentile"))
    with pytest.warns(FewGroupsWarning, match="5 independent units.*for 6 or more"):
        cluster_mean(values[:10], groups=groups[:10])
    columns = np.column_stack([np.ones(25), np.arange(25) == 3])
    draws = resample_sums(columns, lambda s: s[..., 0] / s[..., 1], groups=None, sampling=Sampling(method="percentile"))
    with pytest.warns(UndefinedDrawsWarning, match="were left out"):
        draws.estimate()
    assert 0.25 < draws.n_undefined / 2000 < 0.45  # (1 - 1/25)^25 = 0.36


def test_ten_thousand_items_and_two_thousand_resamples_take_a_fraction_of_a_second():
    from time import process_time

    values, start = np.random.default_rng(0).normal(size=10_000), process_time()
    cluster_mean(values, groups=None, sampling=Sampling(n_resamples=2000))
    assert process_time() - start < 3.0  # 0.15 s on an idle core; the bound only catches a loop over resamples
