"""The test of many means: exhaustive resampling as oracle, limits, degenerate heads, moderation."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
from scipy import stats

from interp.stats import TooFewFlipsWarning, mean_test, sign_flip
from interp.stats.mean_test import LEAST_SHIFT
from interp.stats.permutation import Shrinkage, effective_df


def clustered_t(sums: np.ndarray, sizes: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(mean - centre) / clustered standard error, written out from the definition; infinite without a spread."""
    n, g = sizes.sum(), len(sizes)
    mean = sums.sum(axis=0) / n
    se = np.sqrt(g / (g - 1) * ((sums - sizes[:, None] * mean) ** 2).sum(axis=0)) / n
    gap = np.where(np.abs(mean - centre) < 1e-12, 0.0, mean - centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0, 0.0, gap / np.where(se < 1e-12, 0.0, se))


def exhaustive_p(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Step-down p of two hypotheses from all G^G resamples of groups."""
    centre = sums.sum(axis=0) / sizes.sum()
    observed = np.abs(clustered_t(sums, sizes, np.zeros(2)))
    draws = np.array(
        [
            np.abs(clustered_t(sums[list(i)], sizes[list(i)], centre))
            for i in product(range(len(sums)), repeat=len(sums))
        ]
    )
    best, other = np.argsort(-observed)
    p = np.empty(2)
    p[best] = (draws.max(axis=1) >= observed[best]).mean()
    p[other] = max(p[best], (draws[:, other] >= observed[other]).mean())
    return p


def flip_p(sums: np.ndarray) -> np.ndarray:
    """Step-down p of two hypotheses from all sign patterns, on |sum| / sqrt(sum of squares)."""
    r = np.abs(np.array(list(product([1.0, -1.0], repeat=len(sums)))) @ (sums / np.sqrt((sums**2).sum(axis=0))))
    observed = r[0]
    best, other = np.argsort(-observed)
    p = np.empty(2)
    p[best] = (r.max(axis=1) >= observed[best] - 1e-9).mean()
    p[other] = max(p[best], (r[:, other] >= observed[other] - 1e-9).mean())
    return p


@pytest.mark.parametrize("seed", [0, 1])
def test_p_is_the_larger_of_all_resamples_and_all_sign_patterns(seed):
    """Two hypotheses have no moderation; 6 groups have 6^6 resamples and 2^6 sign patterns."""
    rng, sizes = np.random.default_rng(seed), np.array([1, 2, 3, 3, 4, 5])
    groups = np.repeat(np.arange(6), sizes)
    effects = rng.normal(size=(18, 2)) + np.array([0.8, 0.3])
    sums = np.array([effects[groups == g].sum(axis=0) for g in range(6)])
    want = np.maximum(exhaustive_p(sums, sizes.astype(float)), flip_p(sums))
    got = mean_test(effects, groups=groups, seed=seed, n_draws=20_000)
    assert np.abs(got.p - want).max() < 4 * np.sqrt(0.25 / 20_000)
    assert got.statistic == pytest.approx(clustered_t(sums, sizes.astype(float), np.zeros(2)))


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_significant_is_exactly_what_lies_beyond_its_limit(alternative):
    effects = np.random.default_rng(3).normal(0.0, 1.0, (30, 200)) * np.geomspace(0.1, 10, 200)
    effects[:, :10] += np.geomspace(0.1, 10, 200)[:10] * np.linspace(-1.5, 1.5, 10)
    got = mean_test(effects, groups=None, seed=0, n_draws=2000, alternative=alternative)
    beyond = {"two-sided": np.abs(got.mean) > got.limit, "greater": got.mean > got.limit, "less": got.mean < got.limit}
    assert 2 <= got.is_significant.sum() <= 10
    assert np.array_equal(got.is_significant, beyond[alternative])


def test_less_is_greater_of_the_negative_and_a_unit_does_not_matter():
    effects = np.random.default_rng(4).normal(0.3, 1.0, (20, 5))
    less = mean_test(-effects, groups=None, seed=0, n_draws=999, alternative="less")
    greater = mean_test(effects, groups=None, seed=0, n_draws=999, alternative="greater")
    assert np.array_equal(less.p, greater.p) and np.array_equal(less.limit, -greater.limit)
    assert np.array_equal(
        mean_test(1000 * effects, groups=None, seed=0, n_draws=999, alternative="greater").p, greater.p
    )


def test_a_head_without_effect_has_p_one_and_a_constant_one_the_smallest():
    effects = np.zeros((12, 2, 2))
    effects[:, 1, 1] = 0.3
    got = mean_test(effects, groups=None, seed=0)
    assert (got.p[0] == 1).all() and got.statistic[0, 0] == 0.0
    assert got.p[1, 1] == 2 / 2**12 and np.isinf(got.statistic[1, 1])


def agreeing(n_groups: int, n_exceptions: int, exception: float) -> np.ndarray:
    """Groups at 1 but for some."""
    return np.r_[np.ones(n_groups - n_exceptions), np.full(n_exceptions, exception)]


@pytest.mark.parametrize(("n_groups", "n_exceptions", "exception"), [(60, 2, -1.0), (30, 2, -1.0), (20, 1, 0.0)])
def test_a_mean_that_nearly_every_group_has_is_significant(n_groups, n_exceptions, exception):
    """(1 - k/G)^G = 0.13, 0.13 and 0.36 of the resamples hold no exception; their T* is not taken for infinite."""
    effects = agreeing(n_groups, n_exceptions, exception)
    assert mean_test(effects, groups=None, seed=0).p < 0.01
    assert mean_test(-np.repeat(effects, 3), groups=np.repeat(np.arange(n_groups), 3), seed=0).p < 0.01
    lone = mean_test(effects[:, None] * [1.0, 1e-3], groups=None, seed=0)
    assert (lone.p < 0.01).all() and np.isfinite(lone.limit).all()


@pytest.mark.parametrize(("n_groups", "n_exceptions"), [(8, 1), (20, 2), (30, 3)])
def test_a_resample_without_spread_counts_where_it_is_far_from_the_mean(n_groups, n_exceptions):
    """Exceptions of -1: the shift is 2k/G of a mean of 1 - 2k/G, more than a sixth; p is the share without any."""
    p = mean_test(agreeing(n_groups, n_exceptions, -1.0), groups=None, seed=0, n_draws=20_000).p
    alone = (1 - n_exceptions / n_groups) ** n_groups
    assert p == pytest.approx(alone, abs=0.006), "4 standard errors are 0.0135 at most; other draws add little"


@pytest.mark.parametrize("expected", [3, 5, 7, 8])
def test_the_rule_for_resamples_without_spread_adds_at_most_one_seen_of_seven_expected(expected, monkeypatch):
    """Two-point groups with mean 0, all numbers of exceptions weighed by their binomial probability: no simulation."""
    n_groups, error = 60, {}
    q = expected / n_groups
    weights = stats.binom.pmf(np.arange(n_groups + 1), n_groups, q)
    for share in (0.0, LEAST_SHIFT):
        monkeypatch.setattr(sys.modules["interp.stats.mean_test"], "LEAST_SHIFT", share)
        error[share] = sum(
            weight * (mean_test(np.r_[np.full(n_groups - k, q), np.full(k, q - 1)], groups=None, seed=0, n_draws=999).p
                      <= 0.05)
            for k, weight in enumerate(weights) if weight > 2e-4
        )  # fmt: skip
    assert error[LEAST_SHIFT] <= error[0.0] + 7 * np.exp(-7)
    assert error[LEAST_SHIFT] <= 0.06


def test_a_head_that_can_never_be_significant_raises_no_bar():
    """Its sum is zero in 10 of 12 groups, so a third of the resamples have an infinite |t|."""
    rng = np.random.default_rng(5)
    alone = rng.normal(1.2, 1.0, 12)
    sparse = np.zeros(12)
    sparse[:2] = 5.0, 4.0
    both = mean_test(np.column_stack([alone, sparse]), groups=None, seed=0)
    assert both.p[0] == mean_test(alone, groups=None, seed=0).p < 0.05 < both.p[1]


def test_rejected_heads_raise_no_bar_for_the_others():
    """Twenty large, heavy-tailed effects beside one moderate one: step-down finds it, the largest of all hides it."""
    rng, found = np.random.default_rng(6), 0
    for study in range(20):
        effects = rng.normal(size=(30, 41)) + np.array([4.0] * 20 + [0.75] + [0.0] * 20)
        found += mean_test(effects, groups=None, seed=study, n_draws=499).p[20] <= 0.05
        assert mean_test(effects[:, 20], groups=None, seed=study, n_draws=499).p <= mean_test(
            effects, groups=None, seed=study, n_draws=499).p[20]  # fmt: skip
    assert found >= 12


def test_groups_count_once_however_often_they_are_repeated():
    effects = np.random.default_rng(7).normal(0.4, 1.0, (8, 3))
    copies, groups = np.repeat(effects, 5, axis=0), np.repeat(np.arange(8), 5)
    assert np.array_equal(mean_test(copies, groups=groups, seed=0).p, mean_test(effects, groups=None, seed=0).p)


def test_skewed_effects_around_zero_are_not_symmetric_and_only_flips_call_them_an_effect():
    """One value in ten is large: most samples of 16 show a consistent small effect of the other sign in some head."""
    rng, false = np.random.default_rng(8), np.zeros(2)
    for study in range(30):
        effects = rng.normal(size=(16, 32)) + 10 * ((rng.random((16, 32)) < 0.05) - 0.05)
        false += [
            sign_flip(effects, groups=None, seed=study, n_flips=499).is_significant.any(),
            mean_test(effects, groups=None, seed=study, n_draws=499).is_significant.any(),
        ]
    assert false[0] >= 20 and false[1] <= 4, false


def test_too_few_groups_to_ever_be_significant_is_said():
    with pytest.warns(TooFewFlipsWarning, match="5 groups"):
        assert mean_test(np.ones(50), groups=np.repeat(np.arange(5), 10), seed=0).p == 2 / 32


def test_the_prior_of_the_variances_is_recovered_from_simulated_ones():
    rng = np.random.default_rng(16)
    variance = 2.0 * 8 / rng.chisquare(8, 20_000)  # scaled inverse chi-squared: 8 degrees of freedom, variance 2
    squares = variance * rng.normal(size=(20, 20_000)) ** 2
    prior = Shrinkage.of(squares.mean(axis=0), squares, 20)
    assert 15 < prior.df <= 20  # the jackknife of 20 squares finds the logarithm a little too variable
    assert prior.prior_df == pytest.approx(8, rel=0.15) and prior.variance == pytest.approx(2, rel=0.05)
    squares = 2.0 * rng.normal(size=(20, 200)) ** 2
    prior = Shrinkage.of(squares.mean(axis=0), squares, 20)
    assert prior.prior_df > 100 and prior.variance == pytest.approx(2, rel=0.1)  # one spread for all


def test_heavy_tails_leave_a_variance_fewer_degrees_of_freedom():
    """A variable that is large in one of 20 cases and small otherwise: its variance rests on few values."""
    rng = np.random.default_rng(17)
    rare = (rng.normal(size=(40, 500)) + 10 * (rng.random((40, 500)) < 0.05)) ** 2
    assert effective_df(rare, 39) < 12 < 30 < effective_df(rng.normal(size=(40, 500)) ** 2, 39) <= 39
