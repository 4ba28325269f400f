"""Corrections for many tests: step-down maximum, across questions, and the smallest p that a test can give."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain, combinations, product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from interp import stats
from interp.stats import hierarchical, max_null_p, permutation_p, smallest_p


def corrected(p: np.ndarray, method: str) -> np.ndarray:
    return np.asarray(multipletests(p, method=method)[1])


FAMILIES = np.array(["heads"] * 4 + ["probes"] * 2 + ["pair"])


def test_step_down_maximum_equals_a_double_loop_and_is_never_above_the_single_step():
    rng = np.random.default_rng(0)
    observed, null = rng.normal(size=7) + np.arange(7) / 2, rng.normal(size=(199, 7))
    want, running = np.empty(7), 0.0
    for j in sorted(range(7), key=lambda k: -observed[k]):
        others = [k for k in range(7) if observed[k] <= observed[j]]
        reached = sum(max(row[k] for k in others) >= observed[j] for row in null)
        running = max(running, (1 + reached) / 200)
        want[j] = running
    got, single = max_null_p(observed, null, step_down=True), max_null_p(observed, null)
    assert np.allclose(got, want, atol=1e-12) and (got <= single).all() and (got < single).any()
    assert got[observed.argmax()] == single[observed.argmax()]
    assert np.allclose(max_null_p(-observed, -null, alternative="less", step_down=True), got)
    signs = np.where(np.arange(7) % 2, 1, -1)
    absolute = max_null_p(np.abs(observed), np.abs(null), step_down=True)
    assert np.allclose(max_null_p(observed * signs, null, alternative="two-sided", step_down=True), absolute)
    with pytest.raises(ValueError, match="step_down=True"):
        max_null_p(observed, null.max(axis=1), step_down=True)


def closed_testing(p: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Largest p over all intersections that hold a hypothesis; each family of an intersection weighs the same."""
    index = range(len(p))
    out = np.zeros(len(p))
    for part in chain.from_iterable(combinations(index, k) for k in range(1, len(p) + 1)):
        names = [families[i] for i in part]
        joint = min(1.0, min(p[i] * len(set(names)) * names.count(families[i]) for i in part))
        out[list(part)] = np.maximum(out[list(part)], joint)
    return out


@pytest.mark.parametrize("seed", range(8))
def test_hierarchical_holm_is_closed_testing_with_families_that_weigh_the_same(seed: int):
    p = np.random.default_rng(seed).random(7) ** 4
    got = hierarchical(p, FAMILIES)
    assert np.allclose(got.overall, closed_testing(p, FAMILIES), atol=1e-14)
    local = np.concatenate([corrected(p[f == FAMILIES], "holm") for f in ("heads", "probes", "pair")])
    assert np.allclose(got.local, local, atol=1e-14) and (got.overall >= got.local - 1e-15).all()
    for name in set(FAMILIES):
        inside = name == FAMILIES
        assert (got.family[inside] == got.overall[inside].min()).all()


@pytest.mark.parametrize("seed", range(4))
def test_hierarchical_fdr_rejects_what_the_two_stage_procedure_rejects_at_every_level(seed: int):
    p = np.random.default_rng(seed).random(7) ** 3
    got = hierarchical(p, FAMILIES, method="fdr")
    for level in np.linspace(0.005, 0.995, 80):
        simes = {f: corrected(p[f == FAMILIES], "fdr_bh").min() for f in set(FAMILIES)}
        chosen = multipletests(list(simes.values()), alpha=level, method="fdr_bh")[0]
        kept = {f for f, keep in zip(simes, chosen, strict=True) if keep}
        want = np.zeros(7, dtype=bool)
        for f in kept:
            inside = f == FAMILIES
            want[inside] = multipletests(p[inside], alpha=level * len(kept) / 3, method="fdr_bh")[0]
        assert ((got.overall <= level) == want).all(), level


@pytest.mark.parametrize(("method", "theirs"), [("holm", "holm"), ("fdr", "fdr_bh")])
def test_one_family_or_families_of_one_are_the_plain_correction(method: str, theirs: str):
    p = np.random.default_rng(3).random(20) ** 3
    want = corrected(p, theirs)
    assert np.allclose(hierarchical(p, ["all"] * 20, method=method).overall, want, atol=1e-14)
    assert np.allclose(hierarchical(p, None, method=method).overall, want, atol=1e-14)


def test_p_adjusted_in_their_family_pay_for_the_number_of_families_only():
    p = [0.01, 0.04, 0.02, 0.5]
    got = hierarchical(p, ["a", "a", "b", "b"], adjusted=True)
    assert got.local.tolist() == p
    # by hand: 2·0.01; then family b: 2·0.02; then a's second: 2·0.04; b's last alone: 0.5
    assert np.allclose(got.overall, [0.02, 0.08, 0.04, 0.5]) and got.n_families == 2


def test_smallest_p_is_reached_by_the_most_extreme_data():
    effects = np.ones(5)
    signs = np.array(list(product([1, -1], repeat=5)))
    exact = np.mean(np.abs(signs @ effects) >= 5 - 1e-9)
    assert smallest_p(10_000, n_arrangements=2**5, alternative="two-sided") == exact == 1 / 16
    assert smallest_p(10_000, n_arrangements=2**5) == np.mean(signs @ effects >= 5 - 1e-9) == 1 / 32
    assert smallest_p(19) == permutation_p(9.0, np.zeros(19)) == 0.05
    assert smallest_p(999, n_arrangements=comb(6, 3)) == 1 / 20 and smallest_p(9, n_arrangements=1) == 1
    assert smallest_p(0) == 1  # ranked among nothing
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        smallest_p(5, n_arrangements=0)
    with pytest.raises(ValueError, match="n_permutations"):
        smallest_p(-1)


def test_a_p_equal_to_alpha_rejects_everywhere() -> None:
    """19 draws give p = 1/20 at best; a rule that reads `<` could never reject with them."""
    assert bool(stats.rejects(1 / 20)) and not bool(stats.rejects(0.0501)) and not bool(stats.rejects(np.nan))
    assert stats.rejects(np.array([0.05, np.nan, 0.06])).tolist() == [True, False, False]
    found = stats.tost_paired(np.ones(40), np.r_[np.ones(39), 0], groups=None, margin=0.2)
    assert replace(found, alpha=found.p).equivalent and not replace(found, alpha=found.p - 1e-9).equivalent
    many = stats.mean_test(np.random.default_rng(0).normal(0.5, 1, (20, 3)), groups=None, seed=0)
    assert replace(many, alpha=float(many.p.min())).is_significant.any()


def test_no_source_compares_a_p_with_alpha_itself() -> None:
    """One function has the rule, for numbers and for what figures and tables write."""
    root, own = Path(stats.__file__).parents[2], re.compile(r"\bp\w*(\[\w+\])? ?< ?(0?\.05\b|ALPHA\b|self\.alpha\b)")
    files = [path for name in ("interp", "probes", "steering", "study") for path in (root / name).rglob("*.py")]
    assert len(files) > 200
    wrong = {path.name: found.group() for path in files if (found := own.search(path.read_text()))}
    assert not wrong, f"{wrong}: use interp.stats.rejects, p <= alpha"
