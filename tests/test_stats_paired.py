"""Two members on the same items: equivalence and its wording, minimal pairs, items that were asked several times."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm, skew
from scipy.stats import t as student
from statsmodels.stats.weightstats import ttost_paired

from interp.stats import (
    FewGroupsWarning,
    PairedTable,
    Sampling,
    compare_items,
    compare_paired,
    mcnemar,
    minimal_pairs,
    newcombe_paired,
    paired_difference,
    tost_paired,
    tost_rates,
    wilson,
)
from interp.stats.jackknife import Jackknife


def rates(n: int, right: int) -> np.ndarray:
    return np.arange(n) < right


def test_the_published_accuracies_are_not_equivalent_and_never_called_overlapping():
    result = tost_rates(round(0.68 * 433), 433, round(0.83 * 433), 433, margin=0.05)
    assert str(result) == result.wording == "not equivalent at margin 0.05"
    assert result.verdict == "different" and "overlapping" not in result.sentence and result.p > 0.95
    rng = np.random.default_rng(0)
    for order in (np.arange(433), rng.permutation(433)):  # the most and an average overlap of the items
        paired = tost_paired(rates(433, 294), rates(433, 359)[order], groups=None)
        assert str(paired) == "not equivalent at margin 0.05" and paired.verdict == "different"


def test_only_a_shown_equivalence_is_called_overlapping():
    rng = np.random.default_rng(1)
    b = rng.random(2000) < 0.8
    a = np.where(rng.random(2000) < 0.05, rng.random(2000) < 0.8, b)
    result = tost_paired(a, b, groups=None)
    assert result.wording == "equivalent at margin 0.05" and result.sentence.startswith("overlapping: equivalent")
    small = tost_paired(a[:60], b[:60], groups=None)
    assert small.wording == "equivalence undecided at margin 0.05" and small.verdict == "undecided"
    assert "too few items" in small.sentence and "overlapping" not in small.sentence
    assert tost_paired(a, b, groups=None, margin=0.001).wording == "equivalence undecided at margin 0.001"


def test_tost_of_symmetric_continuous_scores_equals_statsmodels():
    x = np.random.default_rng(2).normal(0.1, 1, 25)
    a, b = np.r_[x, 0.2 - x], np.zeros(50)  # skewness 0: nothing is widened
    p, lower, upper = ttost_paired(a, b, -0.4, 0.4)
    got = tost_paired(a, b, groups=None, margin=0.4)
    assert (got.p_lower, got.p_upper, got.p) == (pytest.approx(lower[1]), pytest.approx(upper[1]), pytest.approx(p))
    clustered = tost_paired(np.repeat(a, 3), np.repeat(b, 3), groups=np.repeat(np.arange(50), 3), margin=0.4)
    assert clustered.p == pytest.approx(p)  # three copies of an item in one group add nothing
    assert clustered.difference.n == 150 and clustered.difference.n_groups == 50


@pytest.mark.parametrize("sign", [1, -1])
def test_tost_reaches_as_far_as_the_interval_of_a_skewed_mean(sign: int):
    d = sign * (np.random.default_rng(3).exponential(1, 30) - 1)
    got, se = tost_paired(d, np.zeros(30), groups=None, margin=0.7), d.std(ddof=1) / np.sqrt(30)
    jack = Jackknife.of(((d.sum() - d) / 29)[:, None], 30.0)
    assert float(jack.se[0]) == pytest.approx(se) and float(jack.skew[0]) == pytest.approx(skew(d, bias=False))
    for side, p in ((-1, got.p_lower), (1, got.p_upper)):
        reach = jack.reach(np.array([student.isf(p, 29)]))[side > 0][0]
        assert side * d.mean() + reach * se == pytest.approx(0.7, rel=1e-6)  # the end at that level is the margin
    plain = student.sf((0.7 - sign * d.mean()) / se, 29)
    assert (got.p_upper if sign > 0 else got.p_lower) > 1.05 * plain  # the long tail's side is widened


def tango(only_a: float, only_b: float, n: float, delta: float) -> float:
    """Score statistic of a difference of delta, the nuisance rate found by maximising the likelihood."""

    def lost(rate_b: float) -> float:
        rate_a = rate_b + delta
        rest = 1 - rate_a - rate_b
        return -(only_a * np.log(rate_a) + only_b * np.log(rate_b) + (n - only_a - only_b) * np.log(rest))

    inside = (max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
    rate = minimize_scalar(lost, bounds=inside, method="bounded", options={"xatol": 1e-12}).x
    return (only_a - only_b - n * delta) / np.sqrt(n * (2 * rate + delta * (1 - delta)))


def test_tost_of_independent_binary_items_passes_tangos_test_and_the_t_test():
    rng = np.random.default_rng(3)
    for n in (40, 200, 800):
        a, b = rng.random(n) < 0.9, rng.random(n) < 0.9
        d, got = a.astype(float) - b, tost_paired(a, b, groups=None, margin=0.06)
        scores = [tango(int((a & ~b).sum()), int((b & ~a).sum()), n, delta) for delta in (-0.06, 0.06)]
        plain = tost_paired(d, np.zeros(n), groups=None, margin=0.06)
        want = max(plain.p_lower, norm.sf(scores[0])), max(plain.p_upper, norm.cdf(scores[1]))
        assert (got.p_lower, got.p_upper) == pytest.approx(want, rel=1e-5)


def test_groups_that_show_no_difference_count_once():
    """480 items in 40 groups, the members differ in three of them."""
    groups, a = np.repeat(np.arange(40), 12), np.ones(480)
    b = a.copy()
    b[[0, 1, 2, 12, 13, 24]] = 0
    got, d = tost_paired(a, b, groups=groups, margin=0.04), a - b
    means = d.reshape(40, 12).mean(axis=1)
    effect = (means.std(ddof=1) / np.sqrt(40)) ** 2 / (d.var(ddof=1) / 480)
    n = 1 / (3 / 4 * effect / 480 + 1 / 4 / 40)
    assert n == pytest.approx(102, abs=1)
    share = n / 480
    score = [student.cdf(side * tango(6 * share, 0, n, side * 0.04), 39) for side in (-1, 1)]
    plain = tost_paired(d + 0.5, np.full(480, 0.5), groups=groups, margin=0.04)
    assert (got.p_lower, got.p_upper) == pytest.approx(
        (max(plain.p_lower, score[0]), max(plain.p_upper, score[1])), rel=1e-5
    )
    assert got.p_upper == pytest.approx(score[1], rel=1e-5) and got.verdict == "undecided" and plain.equivalent


@pytest.mark.parametrize("n_groups", [None, 12])
def test_equivalence_at_alpha_is_the_interval_at_one_minus_two_alpha_inside_the_margin(n_groups: int | None):
    rng, found = np.random.default_rng(4), []
    for n in (60, 240, 960):
        groups = None if n_groups is None else rng.integers(0, n_groups, n)
        for a, b in (rng.random((2, n)) < 0.95, rng.normal(size=(2, n)) / 4):
            wide = tost_paired(a, b, groups=groups, alpha=0.1).difference
            for margin in (0.02, 0.05, 0.1, 0.2):
                inside = max(-wide.lo, wide.hi) < margin
                found.append(inside)
                assert tost_paired(a, b, groups=groups, margin=margin).equivalent == inside
    assert 0.2 < np.mean(found) < 0.8


def test_exchanging_the_members_exchanges_the_two_one_sided_tests():
    rng = np.random.default_rng(13)
    a, b = rng.random(12) < 0.9, rng.random(12) < 0.9
    for groups in (None, np.arange(12) // 2):
        one, other = tost_paired(a, b, groups=groups), tost_paired(b, a, groups=groups)
        assert one.p_lower == pytest.approx(other.p_upper) and one.p_upper == pytest.approx(other.p_lower)
        assert one.difference.lo == pytest.approx(-other.difference.hi)
    one, other = tost_rates(8, 10, 30, 33), tost_rates(30, 33, 8, 10)
    assert one.p_lower == pytest.approx(other.p_upper)
    same = np.ones(10)
    assert tost_paired(same, same, groups=None).p_lower == tost_paired(same, same, groups=None).p_upper > 0.2


def test_ten_of_ten_against_ten_of_ten_is_not_called_equivalent():
    same = np.ones(10)
    assert not tost_paired(same, same, groups=None).equivalent
    assert tost_paired(np.ones(500), np.ones(500), groups=None).equivalent
    assert not tost_paired(np.ones(500), np.ones(500), groups=np.repeat(np.arange(10), 50)).equivalent


def test_type_one_error_of_equivalence_at_the_margin():
    rng, n_studies, found = np.random.default_rng(4), 250, 0
    for _ in range(n_studies):  # true difference exactly 0.05
        u = rng.random(600)
        a, b = u < 0.85, np.where(rng.random(600) < 0.7, u, rng.random(600)) < 0.80
        found += tost_paired(a, b, groups=None).equivalent
    assert found / n_studies <= 0.08


def test_compare_paired_is_the_sum_of_its_parts():
    rng = np.random.default_rng(5)
    a, b, groups = rng.random(300) < 0.7, rng.random(300) < 0.8, np.repeat(np.arange(60), 5)
    got = compare_paired(a, b, groups=groups, sampling=Sampling(seed=3))
    assert got.table == PairedTable.of(a, b) and got.table.n == 300
    assert got.test == mcnemar(int((a & ~b).sum()), int((~a & b).sum()))
    assert got.difference == newcombe_paired(got.table)
    want = paired_difference(a, b, groups=groups, sampling=Sampling(seed=3))
    assert got.difference_groups == want
    assert got.equivalence == tost_paired(a, b, groups=groups)
    alone = compare_paired(a, b, groups=None, sampling=Sampling(seed=3))
    assert alone.a == wilson(int(a.sum()), 300) and alone.difference_groups is alone.difference
    assert alone.p_groups == alone.test.p


def test_clustered_comparison_is_not_fooled_by_one_procedure():
    """40 discordant items, all of one procedure: McNemar says 1e-12, groups say nothing."""
    a, b, groups = np.ones(200), np.ones(200), np.repeat(np.arange(5), 40)
    b[:40] = 0
    with pytest.warns(FewGroupsWarning):
        got = compare_paired(a, b, groups=groups)
    assert got.test.p < 1e-10 and got.p_groups == 1.0


def test_minimal_pairs_of_known_readers():
    rng = np.random.default_rng(6)
    flips = np.arange(200) < 120
    first = rng.random(200) < 0.5
    second = first ^ flips
    groups = np.repeat(np.arange(40), 5)
    reader = minimal_pairs(first, second, first, second, groups=groups)
    assert (reader.consistency.value, reader.flip_when_gold_flips.value, reader.flip_when_gold_keeps.value) == (1, 1, 0)
    assert reader.sensitivity.value == 1.0 and reader.sensitivity.lo < 1.0
    blind = minimal_pairs(first, second, first, first, groups=groups)  # does not see the edit
    assert blind.flip_when_gold_flips.value == 0.0 and blind.consistency.value == 80 / 200
    assert blind.sensitivity.value == 0.0 and blind.sensitivity.lo <= 0.0 <= blind.sensitivity.hi
    coin = rng.random((2, 200)) < 0.5
    guess = minimal_pairs(first, second, coin[0], coin[1], groups=None)
    assert guess.consistency.lo < 0.25 < guess.consistency.hi  # chance of two fair coins
    assert (guess.flip_when_gold_flips.n, guess.flip_when_gold_keeps.n) == (120, 80)


def test_minimal_pairs_by_hand_with_an_unparsed_answer():
    gold_a, gold_b = ["yes", "yes", "no", "no"], ["no", "yes", "yes", "no"]
    got = minimal_pairs(gold_a, gold_b, ["yes", "yes", None, "no"], ["no", "no", "yes", "no"], groups=None)
    assert got.consistency.value == 2 / 4 and got.n_unparsed == 1
    assert (got.flip_when_gold_flips.value, got.flip_when_gold_flips.n) == (1.0, 1)
    assert (got.flip_when_gold_keeps.value, got.flip_when_gold_keeps.n) == (1 / 2, 2)
    keeps = minimal_pairs(gold_a, gold_a, gold_a, gold_a, groups=None)
    assert not keeps.flip_when_gold_flips.is_defined and not keeps.sensitivity.is_defined


def test_items_asked_once_are_compared_as_compare_paired_does_it():
    rng = np.random.default_rng(4)
    a, b, groups = rng.random(60) < 0.7, rng.random(60) < 0.5, np.repeat(np.arange(20), 3)
    for unit in (groups, None):
        want = compare_paired(a, b, groups=unit, sampling=Sampling(seed=1))
        for items in (np.arange(60), None):
            got = compare_items(a, b, items=items, groups=unit, sampling=Sampling(seed=1))
            assert got.difference == want.difference_groups
            assert (got.p, got.only_a, got.only_b) == (want.p_groups, want.table.only_a, want.table.only_b)


def test_items_weigh_the_same_however_often_they_were_asked_and_repeats_add_no_certainty():
    a = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    items = np.array([0, 0, 0, 0, 1, 2, 3, 3])  # shares .75, 0, 0, .5
    got = compare_items(a, np.zeros(8), items=items, groups=None)
    assert (got.a, got.b, got.difference.value) == (pytest.approx(1.25 / 4), 0.0, pytest.approx(1.25 / 4))
    assert (got.difference.n, got.only_a, got.only_b) == (4, 2, 0)
    assert got.p == 0.5  # two of four items differ: 2 of 2^2 sign patterns are as extreme
    once_a, once_b = np.array([1, 0, 1, 1, 0, 1, 1, 0] * 5), np.array([0, 0, 1, 0, 0, 1, 0, 1] * 5)
    groups = np.repeat(np.arange(20), 2)
    once = compare_items(once_a, once_b, items=None, groups=groups)
    ten = compare_items(*(np.repeat(x, 10) for x in (once_a, once_b)), items=np.repeat(np.arange(40), 10),
                        groups=np.repeat(groups, 10))  # fmt: skip
    assert (ten.difference, ten.p, ten.only_a) == (once.difference, once.p, once.only_a)
    same = compare_items(np.tile([0, 1], 40), np.tile([0, 1], 40), items=np.repeat(np.arange(8), 10), groups=None)
    assert same.p == 1.0 and same.difference.lo < 0 < same.difference.hi
    half = compare_items(np.tile([0, 1], 8), np.zeros(16), items=np.repeat(np.arange(8), 2), groups=None)
    share = student.ppf(0.975, 7) ** 2 / (
        8 + student.ppf(0.975, 7) ** 2
    )  # of items that may differ although 8 of 8 agree
    assert half.difference.value == 0.5
    assert (half.difference.lo, half.difference.hi) == (
        pytest.approx(0.5 - share * 1.5),
        pytest.approx(0.5 + share / 2),
    )
    with pytest.raises(ValueError, match="two groups"):
        compare_items(a, a, items=items, groups=np.arange(8))
