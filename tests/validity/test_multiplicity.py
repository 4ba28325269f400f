"""Corrections for many tests: false positives of a whole report, and of the step-down maximum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from interp import stats

SIZES = (144, 28, 8, 5, 1, 1)
FAMILIES = np.repeat(np.arange(len(SIZES)), SIZES)


def p_of_report(rng: np.random.Generator, truths: np.ndarray) -> np.ndarray:
    """One-sided p of correlated normal statistics (0.5 inside a family) with the given means."""
    z = np.sqrt(0.5) * rng.normal(size=len(SIZES))[FAMILIES] + np.sqrt(0.5) * rng.normal(size=len(FAMILIES))
    return ndtr(-(z + truths))


@pytest.mark.parametrize("method", ["holm", "fdr"])
def test_a_report_without_any_effect_rejects_something_at_the_level(method: str, studies: int, record_rate) -> None:
    rng, none = np.random.default_rng(1), np.zeros(len(FAMILIES))
    hits = [
        (stats.hierarchical(p_of_report(rng, none), FAMILIES, method=method).overall <= 0.05).any()
        for _ in range(studies)
    ]
    record_rate(
        hits, kind="level", name=f"hierarchical, {method}", design="187 tests in 6 families, no effect", at_most=0.05,
        before="0.22 (Holm inside each family only)",
    )  # fmt: skip


def test_true_effects_in_some_families_leave_the_error_of_the_others_at_the_level(studies: int, record_rate) -> None:
    rng = np.random.default_rng(2)
    truths = np.where(np.arange(len(FAMILIES)) % 12 == 0, 6.0, 0.0)
    hits = [
        (stats.hierarchical(p_of_report(rng, truths), FAMILIES).overall[truths == 0] <= 0.05).any()
        for _ in range(studies)
    ]
    record_rate(
        hits, kind="level", name="hierarchical, holm", design="187 tests in 6 families, some effects real", at_most=0.05
    )


def test_step_down_maximum_keeps_the_error_and_finds_more_than_the_single_step(studies: int, record_rate) -> None:
    rng = np.random.default_rng(3)
    truths = np.r_[np.full(10, 3.5), np.zeros(20)]
    false, found = np.zeros(studies, dtype=bool), np.zeros((studies, 2))
    for i in range(studies):
        draws = rng.normal(size=(400, 30)) + rng.normal(size=(400, 1))
        observed, null = draws[0] / np.sqrt(2) + truths, draws[1:] / np.sqrt(2)
        down, single = (stats.max_null_p(observed, null, step_down=s) <= 0.05 for s in (True, False))
        false[i], found[i] = down[10:].any(), (down[:10].mean(), single[:10].mean())
    assert (found[:, 0] >= found[:, 1]).all() and found[:, 0].mean() > found[:, 1].mean()
    record_rate(
        false, kind="level", name="max_null_p, step_down", design="30 correlated tests, 10 effects real", at_most=0.05
    )
