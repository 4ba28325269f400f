"""AUROC and the true-positive rate at a threshold: values of other implementations, intervals by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score, roc_curve

from interp.stats import auroc, auroc_difference, clopper_pearson, newcombe, tpr_at_fpr, wilson


def data(seed: int, *, n: int = 60, n_groups: int = 12, d: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups, y = rng.integers(0, n_groups, n), rng.random(n) < 0.4
    return np.round(d * y + rng.normal(size=n) + rng.normal(size=n_groups)[groups] / 2, 1), y, groups


def test_auroc_equals_sklearn_with_ties_and_counts_the_classes():
    s, y, groups = data(5)
    got = auroc(s, y, groups=groups)
    assert got.value == pytest.approx(roc_auc_score(y, s)) and 0 < got.lo < got.value < got.hi < 1
    assert (got.n_positive, got.n_negative) == (int(y.sum()), int((~y).sum())) and got.n_groups == 12
    assert got.groups_positive == len(set(groups[y])) and got.groups_negative == len(set(groups[~y]))
    assert str(got).endswith(f"({got.n_positive} positive in {got.groups_positive} groups, {got.n_negative} negative"
                             f" in {got.groups_negative} groups)")  # fmt: skip
    assert (got.estimate.value, got.estimate.n, got.estimate.n_groups) == (got.value, len(y), 12)


def by_loops(s: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray, float]:
    """(area, what each group contributes, unclustered DeLong variance) from placement values, one pair at a time."""
    pos, neg = np.flatnonzero(y), np.flatnonzero(~y)
    won = {(i, j): float(s[i] > s[j]) + 0.5 * float(s[i] == s[j]) for i in pos for j in neg}
    area = sum(won.values()) / len(won)
    place = {i: sum(won[i, j] for j in neg) / len(neg) for i in pos}
    place |= {j: sum(won[i, j] for i in pos) / len(pos) for j in neg}
    moved = np.zeros(max(groups) + 1)
    for g in set(groups):
        for side in (pos, neg):
            inside = [i for i in side if groups[i] == g]
            share = len(inside) / len(side)
            moved[g] += sum(place[i] - area for i in inside) / len(side) / np.sqrt(1 - share)
    iid = sum(np.var([place[i] for i in side], ddof=1) / len(side) for side in (pos, neg))
    return area, moved, float(iid)


def placement_variance(theta: float) -> float:
    """Variance of Φ(x) for x normal around √2·Φ⁻¹(theta): the share of the other class that one example beats."""
    centre = np.sqrt(2) * norm.ppf(theta)
    return quad(lambda x: norm.cdf(x) ** 2 * norm.pdf(x - centre), -12, 12 + centre)[0] - theta**2


@pytest.mark.parametrize(("seed", "clustered", "is_raised"), [(6, True, False), (6, False, False), (2, True, True)])
def test_ends_of_the_auroc_interval_solve_the_score_equation(seed: int, clustered: bool, is_raised: bool):
    s, y, groups = data(seed)
    groups = groups if clustered else np.arange(len(y))
    area, moved, iid = by_loops(s, y, groups)
    variance = float(moved @ moved)
    if not clustered:
        assert variance == pytest.approx(iid)  # DeLong's own
    sizes = [np.unique(groups[side], return_counts=True)[1] for side in (y, ~y)]
    k = [n.sum() ** 2 / (n**2).sum() for n in sizes]
    shares = np.sum([np.bincount(groups[side], minlength=60) / side.sum() for side in (y, ~y)], axis=0)
    df = min((1 / k[0] + 1 / k[1]) ** 2 / sum(1 / (v**2 * (v - 1)) for v in k), 4 / (shares**2).sum() - 1)
    raised = max(1.0, placement_variance(area) * (1 / y.sum() + 1 / (~y).sum()) / iid)
    assert (raised > 1) == is_raised
    got = auroc(s, y, groups=groups if clustered else None)
    for end in (got.lo, got.hi):
        scale = variance * raised * placement_variance(end) / placement_variance(area)
        assert abs(end - area) == pytest.approx(t.ppf(0.975, df) * np.sqrt(scale), rel=1e-6)
    assert auroc(s, y, groups=groups, confidence=0.99).lo < got.lo


def test_the_rarer_class_inside_one_group_says_nothing():
    s, y, groups = np.arange(30.0), np.arange(30) >= 27, np.repeat(np.arange(10), 3)
    got = auroc(s, y, groups=groups)
    assert (got.value, got.lo, got.hi, got.n_positive, got.groups_positive) == (1.0, 0.0, 1.0, 3, 1)
    one = auroc(s, np.arange(30) == 20, groups=None)
    assert (one.lo, one.hi) == (0.0, 1.0) and 0 < one.value < 1
    apart = auroc_difference(s, -s, y, groups=groups)
    assert (apart.value, apart.lo, apart.hi) == (1.0, -1.0, 1.0)


def test_perfect_separation_keeps_an_interval():
    s, y = np.arange(60.0), np.arange(60) >= 30
    got = auroc(s, y, groups=np.repeat(np.arange(12), 5))
    assert (got.value, got.hi, got.n_groups) == (1.0, 1.0, 12) and got.lo == pytest.approx(clopper_pearson(6, 6).lo)
    assert auroc(-s, y, groups=None).hi == pytest.approx(1 - clopper_pearson(30, 30).lo)
    # groups of 25 and five of 1 weigh like 900/630 equal ones, not like six
    uneven = auroc(s, y, groups=np.r_[np.repeat(np.arange(6), 5), np.repeat(6, 25), np.arange(7, 12)])
    assert uneven.lo == pytest.approx(0.025 ** (1 / (30**2 / (25**2 + 5))))


def test_equal_scores_have_an_interval_that_counts_each_group_once():
    got = auroc(np.zeros(40), np.arange(40) % 2, groups=np.repeat(np.arange(10), 4))
    assert got.value == 0.5 and got.lo == pytest.approx(1 - got.hi)
    assert 0.5 - got.lo == pytest.approx(t.ppf(0.975, 9) * np.sqrt(placement_variance(got.lo) * 2 / 10), rel=1e-6)


def test_auroc_difference_squares_and_adds_with_the_correlation_over_groups():
    s, y, groups = data(8, n=120, n_groups=20)
    other = data(9, n=120, n_groups=20)[0]
    got, a, b = auroc_difference(s, other, y, groups=groups), auroc(s, y, groups=groups), auroc(other, y, groups=groups)
    assert got.value == pytest.approx(roc_auc_score(y, s) - roc_auc_score(y, other))
    # the correlation that the interval used, from its two ends
    used = [
        (u**2 + v**2 - w**2) / (2 * u * v)
        for u, v, w in (
            (a.value - a.lo, b.hi - b.value, got.value - got.lo),
            (a.hi - a.value, b.value - b.lo, got.hi - got.value),
        )
    ]
    first, second = by_loops(s, y, groups)[1], by_loops(other, y, groups)[1]
    r = first @ second / np.sqrt((first @ first) * (second @ second))
    k = min(side.sum() ** 2 / (np.bincount(groups[side]) ** 2).sum() for side in (y, ~y))
    assert used == pytest.approx([np.tanh(np.arctanh(r) - 1 / (k - 2))] * 2, rel=1e-6)
    near = s + 0.05 * np.random.default_rng(0).normal(size=120)
    paired = auroc_difference(s, near, y, groups=groups)
    assert paired.hi - paired.lo < 0.4 * (a.hi - a.lo)  # the two see the same rows
    same = auroc_difference(s, 3 * s + 1, y, groups=groups)
    assert same.value == 0.0 and same.lo < 0 < same.hi  # a growing transform changes no ranking; no width of zero
    assert (same.lo, same.hi) == pytest.approx((-same.hi, -same.lo), abs=0.05)


def test_other_labels_for_the_second_score_are_a_control_task():
    s, y, groups = data(10, n=200, n_groups=40)
    fake = np.random.default_rng(1).random(200) < 0.2
    got = auroc_difference(s, s, y, labels_b=fake, groups=groups)
    assert got.value == pytest.approx(roc_auc_score(y, s) - roc_auc_score(fake, s))
    assert got.n_positive == min(y.sum(), fake.sum()) and got.lo < got.value < got.hi


def test_true_positive_rate_at_a_threshold_equals_the_roc_curve():
    s, y, groups = data(11, n=300, n_groups=30)
    s = s + 1e-4 * np.arange(300)  # no ties: sklearn's curve then has a point at every threshold
    for max_fpr in (0.05, 0.1, 0.33):
        fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
        got = tpr_at_fpr(s, y, groups=groups, max_fpr=max_fpr)
        assert got.value == pytest.approx(tpr[fpr <= max_fpr + 1e-12].max())
        assert got.lo < got.value < got.hi and got.n_negative == (~y).sum()


def test_a_threshold_that_is_known_well_leaves_the_interval_of_the_rate():
    s, y, _ = data(12, n=100)
    control = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    got = tpr_at_fpr(s, y, groups=None, max_fpr=0.1, control=control)
    above = s[y] > norm.ppf(0.9)
    plain = wilson(int(above.sum()), len(above))
    assert got.value == above.mean()
    assert (got.lo, got.hi) == pytest.approx((plain.lo, plain.hi), abs=0.02) and got.n_negative == 200_000


def test_a_rate_of_false_alarms_that_the_negatives_cannot_show_leaves_the_lower_end_open():
    rng = np.random.default_rng(0)
    s, y = np.r_[rng.normal(size=100) + 5, rng.normal(size=100)], np.arange(200) < 100
    assert tpr_at_fpr(s, y, groups=None, max_fpr=0.01).lo == 0.0  # Wilson's upper end of 0 of 100 is 0.037
    assert wilson(0, 100).hi > 0.01 and tpr_at_fpr(s, y, groups=None, max_fpr=0.1).lo > 0.8
    assert wilson(0, 1000).hi < 0.01
    wide = tpr_at_fpr(s, y, groups=None, max_fpr=0.01, control=rng.normal(size=1000))
    assert wide.lo > 0.8
    few = tpr_at_fpr(s, y, groups=None, max_fpr=0.1, control=np.zeros(1000), control_groups=np.zeros(1000))
    assert (few.lo, few.hi) == (0.0, 1.0)  # negatives of one group say nothing of other groups
    with pytest.raises(ValueError, match="Write 0.01 for 1 %"):
        tpr_at_fpr(s, y, groups=None, max_fpr=1)
    with pytest.raises(ValueError, match="0 positive of 200"):
        tpr_at_fpr(s, y & False, groups=None, max_fpr=0.1)


def test_newcombe_and_auroc_agree_on_binary_scores_roughly():
    """Yes/no scores: AUROC = 1/2 + (TPR - FPR)/2, so Newcombe's interval of TPR - FPR is an independent check."""
    y, said = np.arange(400) < 200, np.r_[np.arange(200) < 150, np.arange(200) < 60]
    got, rates = auroc(said.astype(float), y, groups=None), newcombe(150, 200, 60, 200)
    assert got.value == pytest.approx(0.5 + rates.value / 2)
    # binary placements vary less than the normal model in w says, so the interval may only be wider
    assert got.hi - got.lo >= 0.99 * (rates.hi - rates.lo) / 2
    assert (got.lo, got.hi) == pytest.approx((0.5 + rates.lo / 2, 0.5 + rates.hi / 2), abs=0.02)
