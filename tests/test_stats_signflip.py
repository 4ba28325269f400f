"""Sign-flip test of symmetry and permutations: exact enumeration as oracle, family-wise error, power, groups."""

from __future__ import annotations

from itertools import product
from time import process_time

import numpy as np
import pytest
from scipy.stats import nct, permutation_test, ttest_1samp

from interp.stats import (
    Sampling,
    TooFewFlipsWarning,
    benjamini_hochberg,
    cliffs_delta,
    cohen_dz,
    permutation_p,
    permute_labels,
    sign_flip,
)


def brute(effects: np.ndarray, *, two_sided: bool = True) -> np.ndarray:
    """Family-wise p from all sign patterns, studentised by numpy on the flipped data itself."""
    n = len(effects)

    def t(x: np.ndarray) -> np.ndarray:
        out = x.mean(axis=0) / (x.std(axis=0, ddof=1) / np.sqrt(n))
        return np.abs(out) if two_sided else out

    maxima = np.array([t(effects * np.array(s)[:, None]).max() for s in product([1.0, -1.0], repeat=n)])
    return (maxima[:, None] >= t(effects) * (1 - 1e-9)).mean(axis=0)


@pytest.mark.parametrize("two_sided", [True, False])
def test_exact_p_equals_enumeration_of_the_studentised_maximum(two_sided):
    effects = np.random.default_rng(0).normal(0.6, 1, (8, 5))
    got = sign_flip(effects, groups=None, seed=0, alternative="two-sided" if two_sided else "greater")
    assert got.exact and got.n_flips == 256
    assert np.allclose(got.p, brute(effects, two_sided=two_sided), atol=1e-12)
    less = sign_flip(-effects, groups=None, seed=0, alternative="less")
    if not two_sided:
        assert np.array_equal(less.p, got.p)


def test_a_single_hypothesis_equals_scipy():
    effects = np.random.default_rng(1).normal(0.5, 1, 9)
    got = sign_flip(effects, groups=None, seed=0)
    want = permutation_test((effects,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert float(got.p) == float(got.p_single) == pytest.approx(want.pvalue)
    assert float(got.t) == pytest.approx(ttest_1samp(effects, 0).statistic)


def test_random_flips_approach_the_exact_p():
    effects = np.random.default_rng(2).normal(0.4, 1, (10, 4))
    exact = sign_flip(effects, groups=None, seed=0)
    random = sign_flip(effects, groups=None, seed=0, n_flips=1000)
    assert exact.exact and not random.exact
    assert np.abs(random.p - exact.p).max() < 4 * np.sqrt(0.25 / 1000)
    assert (random.p >= 1 / 1001).all()


def test_threshold_is_the_t_that_separates_significant_from_not():
    effects = np.random.default_rng(3).normal(0.3, 1, (30, 200))
    effects[:, 0] += 1.0
    got = sign_flip(effects, groups=None, seed=0, n_flips=2000)
    assert got.is_significant[0] and np.array_equal(got.is_significant, np.abs(got.t) > got.threshold)


def test_groups_share_their_sign():
    """Copies of an example in one group change nothing; taken as independent they would multiply the evidence."""
    effects = np.random.default_rng(4).normal(0.4, 1, (8, 3))
    copies, groups = np.repeat(effects, 5, axis=0), np.repeat(np.arange(8), 5)
    assert np.array_equal(sign_flip(copies, groups=groups, seed=0).p, sign_flip(effects, groups=None, seed=0).p)
    assert sign_flip(copies, groups=None, seed=0).p.min() < sign_flip(effects, groups=None, seed=0).p.min() / 10


def test_a_head_without_effect_has_p_one_and_a_constant_one_the_smallest():
    effects = np.zeros((12, 2, 2))
    effects[:, 1, 1] = 0.3
    got = sign_flip(effects, groups=None, seed=0)
    assert (got.p[0] == 1).all() and got.t[0, 0] == 0.0
    assert got.p[1, 1] == 2 / 2**12 and np.isinf(got.t[1, 1]) and got.mean[1, 1] == pytest.approx(0.3)
    assert (sign_flip(np.zeros(12), groups=None, seed=0).p == 1).all()


def test_raw_means_let_a_noisy_head_raise_the_bar_for_all():
    rng = np.random.default_rng(5)
    effects = rng.normal(0.5, 0.4, (40, 2))
    effects[:, 1] = rng.normal(0, 20, 40)
    assert sign_flip(effects, groups=None, seed=0, stat="t").p[0] < 0.01
    assert sign_flip(effects, groups=None, seed=0, stat="mean", alternative="greater").p[0] > 0.3


def null_study(rng: np.random.Generator) -> np.ndarray:
    """Noise of 784 heads on 40 examples; the heads of one example are correlated at 0.36."""
    return (0.6 * rng.normal(size=(40, 1)) + 0.8 * rng.normal(size=(40, 784))).astype(np.float32)


@pytest.mark.slow
def test_family_wise_error_over_200_null_studies_of_784_heads():
    rng, n_false = np.random.default_rng(6), 0
    for study in range(200):
        n_false += sign_flip(null_study(rng), groups=None, seed=study, n_flips=399).is_significant.any()
    assert n_false / 200 <= 0.07, n_false


@pytest.mark.parametrize(("stat", "alternative"), [("t", "two-sided"), ("t", "greater"), ("moderated", "two-sided")])
def test_power_for_a_planted_head_of_d_0_8_at_40_examples(stat, alternative):
    """With independent heads the noncentral t gives 0.707 for the two-sided t; correlated heads are fewer tests."""
    rng, n_found = np.random.default_rng(7), 0
    for study in range(60):
        effects = null_study(rng).reshape(40, 28, 28)
        effects[:, 19, 17] += 0.8
        got = sign_flip(effects, groups=None, seed=study, n_flips=399, stat=stat, alternative=alternative)
        n_found += got.is_significant[19, 17]
    assert n_found / 60 > 0.7, n_found


def test_moderated_t_has_more_power_on_few_examples_at_the_same_error():
    rng, found, false = np.random.default_rng(13), np.zeros(2), 0
    for study in range(60):
        effects = rng.normal(size=(20, 300)) * rng.uniform(0.8, 1.2, 300)  # spreads differ a little
        effects[:, 0] = rng.normal(size=20) + 1.1
        for j, stat in enumerate(("t", "moderated")):
            got = sign_flip(effects, groups=None, seed=study, n_flips=399, stat=stat)
            found[j] += got.is_significant[0]
        false += got.is_significant[1:].any()
    assert found[1] > found[0] + 5 and false / 60 <= 0.1, (found, false)


def test_moderated_t_is_exact_and_falls_back_to_the_t_of_two_hypotheses():
    effects = np.random.default_rng(14).normal(0.5, 1, (9, 2))
    t, moderated = (sign_flip(effects, groups=None, seed=0, stat=stat) for stat in ("t", "moderated"))
    assert np.array_equal(t.p, moderated.p)
    many = np.random.default_rng(15).normal(0.2, 1, (9, 40))
    got = sign_flip(many, groups=None, seed=0, stat="moderated")
    assert got.exact and np.array_equal(got.is_significant, np.abs(got.statistic) > got.threshold)


def test_the_same_permutations_with_a_discovery_rate_correction_have_no_power():
    effects = np.random.default_rng(8).normal(size=(40, 784))
    effects[:, 5] += 1.5
    got = sign_flip(effects, groups=None, seed=0, n_flips=2000)
    assert got.is_significant[5] and benjamini_hochberg(got.p_single)[5] > 0.05


def test_784_heads_and_10_000_flips_take_about_a_second():
    effects, start = np.random.default_rng(0).normal(size=(40, 28, 28)), process_time()
    sign_flip(effects, groups=None, seed=0, n_flips=10_000)
    assert process_time() - start < 4.0  # 0.2 s on an idle core


def test_too_few_groups_to_ever_be_significant_is_said():
    with pytest.warns(TooFewFlipsWarning, match="smallest possible p is 0.0625"):
        assert sign_flip(np.ones(5), groups=None, seed=0).p == 2 / 32
    with pytest.warns(TooFewFlipsWarning, match="5 groups"):
        sign_flip(np.ones(50), groups=np.repeat(np.arange(5), 10), seed=0)


def test_group_permutation_keeps_one_label_per_group_and_the_number_of_each():
    groups = np.repeat(["a", "b", "c", "d"], [2, 3, 4, 5])
    labels = np.repeat([1, 0, 0, 1], [2, 3, 4, 5])
    out = permute_labels(labels, groups=groups, n_permutations=300, seed=0, scheme="group")
    for name in "abcd":
        assert (out[:, groups == name] == out[:, groups == name][:, :1]).all()
    firsts = out[:, [0, 2, 5, 9]]
    assert (firsts.sum(axis=1) == 2).all() and len(np.unique(firsts, axis=0)) == 6  # 4 choose 2 arrangements


def test_within_group_permutation_keeps_the_counts_of_every_group():
    rng = np.random.default_rng(1)
    groups, labels = rng.integers(0, 6, 60), rng.integers(0, 2, 60)
    out = permute_labels(labels, groups=groups, n_permutations=200, seed=0, scheme="within")
    for g in range(6):
        assert (out[:, groups == g].sum(axis=1) == labels[groups == g].sum()).all()
    # every row of a group is equally likely to hold each of its labels
    assert np.abs(out[:, groups == 0].mean(axis=0) - labels[groups == 0].mean()).max() < 4 * np.sqrt(0.25 / 200)


def test_between_group_permutation_moves_whole_label_vectors():
    groups = np.array([0, 1, 0, 1, 2, 2, 3, 3, 3])
    labels = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    out = permute_labels(labels, groups=groups, n_permutations=100, seed=0, scheme="between")
    vectors = {tuple(labels[groups == g]) for g in range(3)}
    for g in range(3):
        assert {tuple(row) for row in out[:, groups == g]} == vectors
    assert (out[:, 6:] == [7, 8, 9]).all()  # the only group of three stays


def test_row_permutation_calls_a_group_effect_signal_and_group_permutation_does_not():
    """Features of 20 templates, labels by template, nothing inside: the classic leak, over 100 studies."""
    rng, found = np.random.default_rng(9), np.zeros(2)
    groups = np.repeat(np.arange(20), 10)
    for study in range(100):
        labels, feature = rng.permutation(np.arange(20) % 2)[groups], rng.normal(size=20)[groups]
        statistic = lambda y, f=feature: abs(f @ (y - 0.5))  # noqa: E731
        for j, (unit, scheme) in enumerate(((groups, "group"), (None, "group"))):
            null = permute_labels(labels, groups=unit, n_permutations=99, seed=study, scheme=scheme)
            found[j] += permutation_p(statistic(labels), [statistic(y) for y in null]) <= 0.05
    assert found[0] <= 12 and found[1] > 40, found


def test_cohen_dz_and_its_noncentral_interval():
    effects = np.random.default_rng(10).normal(0.8, 1, 40)
    got = cohen_dz(effects, groups=None)
    t = ttest_1samp(effects, 0).statistic
    assert got.value == pytest.approx(t / np.sqrt(40))
    assert nct.ppf(0.975, 39, got.lo * np.sqrt(40)) == pytest.approx(t, abs=1e-5)
    assert nct.ppf(0.025, 39, got.hi * np.sqrt(40)) == pytest.approx(t, abs=1e-5)


def test_cohen_dz_intervals_cover():
    rng, hits = np.random.default_rng(11), np.zeros(2)
    for i in range(200):
        effects = rng.normal(0.8, 1, 40)
        for j, groups in enumerate((None, np.arange(40))):
            got = cohen_dz(effects, groups=groups, sampling=Sampling(seed=i, n_resamples=400, method="bca"))
            hits[j] += got.lo <= 0.8 <= got.hi
    assert 0.92 <= hits[0] / 200 <= 0.99 and hits[1] / 200 >= 0.89, hits
    far = cohen_dz(1e4 + rng.normal(size=50), groups=None)
    assert far.lo < far.value < far.hi and (far.hi - far.lo) / far.value == pytest.approx(
        2 * 1.96 / np.sqrt(98), rel=0.02
    )


def test_cliffs_delta_counts_pairs():
    rng = np.random.default_rng(12)
    x, y = rng.integers(0, 5, 30).astype(float), rng.integers(0, 4, 40).astype(float)
    got = cliffs_delta(x, y, groups_x=None, groups_y=None)
    pairs = np.subtract.outer(x, y)
    assert got.value == pytest.approx((pairs > 0).mean() - (pairs < 0).mean()) and got.lo < got.value < got.hi
    # 0.886 as Cliff's delta is an AUROC of 0.943
    shared = cliffs_delta(x, y, groups_x=np.arange(30), groups_y=np.arange(40))
    assert shared.n_groups == 40 and shared.n == 70
