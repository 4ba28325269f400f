"""Proportions and their differences: hand-worked numbers, statsmodels as a second implementation, coverage."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb, log10

import numpy as np
import pytest
from scipy.stats import binom, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
)

from interp.stats import (
    Estimate,
    PairedTable,
    benjamini_hochberg,
    chance_row,
    clopper_pearson,
    holm,
    items_needed,
    max_null_p,
    mcnemar,
    newcombe,
    newcombe_paired,
    permutation_p,
    square_and_add,
    wilson,
    zero_event_limit,
)

COUNTS = [(0, 1), (1, 1), (0, 25), (28, 36), (36, 36), (3, 200), (199, 200), (5000, 9013)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_and_clopper_pearson_equal_statsmodels(k, n, confidence):
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "beta")):
        got, want = ours(k, n, confidence=confidence), proportion_confint(k, n, 1 - confidence, method)
        assert np.allclose((got.lo, got.hi), np.nan_to_num(want, nan=float(k == n)), atol=1e-10)
        assert got.value == k / n and (got.n, got.n_groups) == (n, n)


def test_intervals_of_the_triage_specification():
    got = wilson(28, 36)
    assert (round(100 * got.lo, 1), round(100 * got.hi, 1)) == (61.9, 88.3)
    got = clopper_pearson(28, 36)
    assert (round(100 * got.lo, 1), round(100 * got.hi, 1)) == (60.8, 89.9)
    assert round(100 * clopper_pearson(0, 25).hi, 1) == 13.7
    assert round(100 * clopper_pearson(36, 36).lo, 1) == 90.3


def test_zero_event_limit_is_the_rate_that_shows_no_event_one_time_in_twenty():
    limit = zero_event_limit(25)
    assert abs((1 - limit) ** 25 - 0.05) < 1e-12
    assert abs(zero_event_limit(1000) - 3 / 1000) < 1e-5  # rule of three
    assert limit < clopper_pearson(0, 25).hi


def test_wilson_of_the_pair_table():
    """Rows of the recorded table of the embedded pair, two decimals."""
    for k, n, lo, hi in ((21, 100, 0.14, 0.30), (146, 200, 0.66, 0.79), (182, 200, 0.86, 0.94), (0, 100, 0, 0.04)):
        got = wilson(k, n)
        assert (round(got.lo, 2), round(got.hi, 2)) == (lo, hi)


def test_newcombe_equals_statsmodels_and_the_paper():
    got = newcombe(56, 70, 48, 80)
    assert (round(got.lo, 4), round(got.hi, 4)) == (0.0524, 0.3339)  # Newcombe 1998, table II, row a
    for k_a, n_a, k_b, n_b in ((294, 433, 359, 433), (0, 10, 10, 10), (1, 7, 30, 31)):
        got = newcombe(k_a, n_a, k_b, n_b, confidence=0.9)
        want = confint_proportions_2indep(k_a, n_a, k_b, n_b, method="newcomb", alpha=0.1)
        assert np.allclose((got.lo, got.hi), want, atol=1e-10)


@pytest.mark.parametrize(
    "cells", [(36, 12, 2, 0), (14, 5, 0, 22), (10, 0, 0, 0), (0, 3, 4, 0), (200, 14, 50, 136), (5, 5, 5, 5)]
)
def test_newcombe_paired_equals_a_second_derivation(cells):
    """Score limits as roots of (p - x)² = z² x(1 - x)/n; correlation from numpy over the 0/1 rows."""
    both, only_a, only_b, neither = cells
    a, b = (np.repeat(side, cells).astype(float) for side in ([1, 1, 0, 0], [1, 0, 1, 0]))
    n, z = len(a), norm.ppf(0.975)
    (l1, u1), (l2, u2) = (
        np.sort(np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p * p]).real) for p in (a.mean(), b.mean())
    )
    cross = both * neither - only_a * only_b
    r = np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else 0.0
    if cross > 0:
        r *= max(0.0, 1 - n / 2 / cross)  # continuity correction towards 0
    form = np.array([[1, -r], [-r, 1]])
    below, above = np.array([a.mean() - l1, u2 - b.mean()]), np.array([u1 - a.mean(), b.mean() - l2])
    d, half = a.mean() - b.mean(), [np.sqrt(v @ form @ v) for v in (below, above)]
    got = newcombe_paired(PairedTable.of(a, b))
    assert np.allclose((got.lo, got.hi), (d - half[0], d + half[1]), atol=1e-7)


def test_newcombe_paired_of_the_paper():
    got = newcombe_paired(PairedTable(both=36, only_a=12, only_b=2, neither=0))
    assert (round(got.value, 4), round(got.lo, 4), round(got.hi, 4)) == (0.2, 0.0569, 0.3404)


def test_newcombe_paired_covers_where_wald_has_no_width():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        b = rng.random(40) < 0.9
        a = np.where(rng.random(40) < 0.1, ~b, b)
        got = newcombe_paired(PairedTable.of(a, b))
        hits += got.lo <= -0.08 <= got.hi  # P(a) = 0.9·0.9 + 0.1·0.1 = 0.82
    assert 0.92 <= hits / 400 <= 1.0


def test_square_and_add_with_full_correlation_cancels():
    part = Estimate(0.5, 0.4, 0.6, 10, 10)
    got = square_and_add(part, part, correlation=1.0)
    assert got.value == got.lo == got.hi == 0.0
    assert square_and_add(part, part).hi == pytest.approx(0.1 * 2**0.5)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 3), (14, 50), (100, 0), (66, 0), (27, 23), (5, 6)])
def test_mcnemar_equals_statsmodels(b, c):
    want = 1.0 if b + c == 0 else float(statsmodels_mcnemar([[0, b], [c, 0]], exact=True).pvalue)
    assert mcnemar(b, c).p == pytest.approx(want, rel=1e-10)
    assert mcnemar(b, c).p == mcnemar(c, b).p


def test_mcnemar_of_the_pair_table():
    """p-values of the recorded table, one significant digit."""
    recorded = {(14, 50): "7e-06", (100, 0): "2e-30", (21, 0): "1e-06", (79, 0): "3e-24", (0, 31): "9e-10"}
    assert {pair: f"{mcnemar(*pair).p:.0e}" for pair in recorded} == recorded


def test_mcnemar_of_large_counts_keeps_its_digits():
    exact = Fraction(2 * sum(comb(6000, i) for i in range(2501)), 2**6000)
    got = mcnemar(2500, 3500)
    # gammaln of 6000 is about 46,000, so a double keeps 1e-11 of the logarithm
    assert got.p == pytest.approx(float(exact), rel=1e-9)
    assert mcnemar(0, 5000).log10_p == pytest.approx(log10(2) - 5000 * log10(2), rel=1e-12)


def test_no_outcome_of_five_discordant_items_is_significant():
    assert min(mcnemar(b, 5 - b).p for b in range(6)) > 0.05 and not mcnemar(5, 0).decidable
    assert mcnemar(6, 0).p < 0.05 and mcnemar(6, 0).decidable


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 3), (14, 50), (66, 0), (5, 6), (250, 350)])
def test_mid_p_counts_the_observed_outcome_by_half(b: int, c: int):
    """Over all outcomes of b + c fair coins: those less likely in full, those as likely as the observed one by half."""
    weights = [comb(b + c, i) for i in range(b + c + 1)]
    want = Fraction(sum(2 * w if w < weights[b] else w if w == weights[b] else 0 for w in weights), 2 ** (b + c + 1))
    assert mcnemar(b, c).mid_p == pytest.approx(1.0 if b + c == 0 else float(want), rel=1e-8)
    assert mcnemar(b, c).mid_p <= mcnemar(b, c).p


def test_mid_p_rejects_in_a_twentieth_of_studies_on_average():
    """100 items, a share of them discordant: exact probability that a test at 0.05 rejects."""
    by_n = np.array([[np.sum([comb(n, b) / 2**n for b in range(n + 1) if getattr(mcnemar(b, n - b), name) <= 0.05])
                      for n in range(61)] for name in ("p", "mid_p")])  # fmt: skip
    rates = np.array([by_n @ binom.pmf(np.arange(61), 100, share) for share in (0.05, 0.1, 0.2, 0.3)])
    assert (rates[:, 0] < 0.04).all() and (rates[:, 1] > rates[:, 0] + 0.008).all() and (rates[:, 1] < 0.052).all()


def test_holm_and_benjamini_hochberg_equal_statsmodels():
    p = np.random.default_rng(1).random(30) ** 3
    assert np.allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-14)
    assert np.allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-14)
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])  # by hand


def test_permutation_p_counts_ties_and_is_never_zero():
    assert permutation_p(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5
    assert permutation_p(9.0, [1.0, 2.0, 3.0]) == 1 / 4
    assert permutation_p(-3.0, [-4.0, 1.0, 2.0], alternative="two-sided") == 2 / 4
    assert permutation_p(-3.0, [-4.0, 1.0, 2.0], alternative="less") == 2 / 4


def test_max_null_p_takes_the_maximum_over_hypotheses_of_each_permutation():
    null = np.array([[0.0, 5.0], [1.0, 0.0], [2.0, 2.0]])
    assert np.allclose(max_null_p([2.0, 6.0], null), [3 / 4, 1 / 4])
    assert np.allclose(max_null_p([2.0, 6.0], null.max(axis=1)), [3 / 4, 1 / 4])


def test_the_published_order_swap_accuracy_needs_967_items_for_a_power_of_80_percent():
    n = items_needed(0.545)
    assert n == ceil((norm.ppf(0.975) * 0.5 + norm.ppf(0.8) * np.sqrt(0.545 * 0.455)) ** 2 / 0.045**2) == 967
    k = np.arange(n + 1)
    extreme = np.abs(k - n / 2) >= norm.ppf(0.975) * np.sqrt(n) / 2
    assert binom.pmf(k, n, 0.545)[extreme].sum() == pytest.approx(0.8, abs=0.02)  # steps of a count
    assert items_needed(0.545, power=0.5) == 475  # the interval's end at chance: found half of the time
    assert items_needed(0.545, confidence=0.99, power=0.5) == ceil(norm.ppf(0.995) ** 2 * 0.25 / 0.045**2)
    assert items_needed(0.455) == n and items_needed(0.3, chance=0.25) > items_needed(0.35, chance=0.25)
    row = chance_row(218, 400)  # 0.545 of 400
    assert "not distinguishable" in row.sentence and "n = 967 for a power of 80 %" in row.sentence
    assert "differs from the chance line 0.5" in chance_row(545, 1000).sentence
    assert chance_row(5, 10).n_needed is None and chance_row(5, 10).p == pytest.approx(1.0)


def test_an_estimate_prints_its_groups_and_an_undefined_one_a_dash():
    assert str(Estimate(0.5, 0.4, 0.6, 100, 10)) == "0.500 [0.400, 0.600] (n=100, 10 groups)"
    assert str(Estimate.undefined(3)) == "– (n=3)" and not Estimate.undefined().is_defined
    assert Estimate(0.5, 0.4, 0.6, 1, 1).excludes(0.3) and not Estimate.undefined().excludes(0.0)
    with pytest.raises(AssertionError, match="upside down"):
        Estimate(0.5, 0.6, 0.4, 1, 1)
