"""What a wrong call says: what was expected, what it got, what to do. And the package imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import interp.stats as stats

ONES, HALF = np.ones(30), np.arange(30) % 2
CASES = [
    (lambda: stats.wilson(0, 0), "at least 1 trial, got 0.*Estimate.undefined"),
    (lambda: stats.wilson(5, 3), "k: expected at least 0 and at most 3, got 5"),
    (lambda: stats.wilson(1, 3, confidence=95.0), "strictly between 0 and 1, got 95.0. Write 0.95"),
    (lambda: stats.mcnemar(-1, 3), "only_a: expected at least 0, got -1"),
    (lambda: stats.PairedTable.of([1, 0], [1, 0, 1]), "a has 2, b has 3. Join both sides on the id"),
    (lambda: stats.PairedTable.of([1, 2], [1, 0]), "a: expected only 0/1 or True/False, got 2"),
    (lambda: stats.PairedTable.of(["A", "B"], ["A", "C"]), "a: expected numbers.*Convert labels"),
    (lambda: stats.newcombe_paired(stats.PairedTable(0, 0, 0, 0)), "at least 1 item, got 0"),
    (lambda: stats.square_and_add(stats.wilson(1, 2), stats.wilson(1, 2), correlation=2), r"in \[-1, 1\], got 2"),
    (lambda: stats.holm([0.1, 1.2]), r"p_values: expected numbers in \[0, 1\]"),
    (lambda: stats.holm([0.1, np.nan]), "NaN or infinity in 1 of 2 examples .first at index 1"),
    (lambda: stats.max_null_p([1.0, 2.0], np.zeros((5, 3))), r"expected shape \(permutations, 2\), got \(5, 3\)"),
    (lambda: stats.permutation_p(1.0, [1.0], alternative="both"), "one of two-sided, greater, less; got 'both'"),
    (lambda: stats.cluster_mean([], groups=None), "at least 1 example.s., got 0"),
    (lambda: stats.cluster_mean([1.0], groups=None), "at least 2 groups for an interval, got 1 for 1"),
    (lambda: stats.cluster_mean(HALF, groups=ONES), "at least 2 groups for an interval, got 1 for 30"),
    (lambda: stats.cluster_mean(HALF, groups=np.arange(4)), r"shape \(30,\), got shape \(4,\)"),
    (lambda: stats.cluster_mean(HALF, groups=[None] + ["a"] * 29), "1 of 30 have none .first at index 0"),
    (lambda: stats.cluster_mean(HALF, groups=[np.nan] + [1.0] * 29), "1 of 30 have none"),
    (lambda: stats.cluster_mean(np.zeros((3, 2)), groups=None), r"expected 1 axis, got shape \(3, 2\)"),
    (lambda: stats.Sampling(method="basic"), "auto, percentile, bca; got 'basic'"),
    (lambda: stats.cluster_mean(2 * ONES, groups=None, bounds=(0.0, 1.0)), "smallest and largest possible"),
    (lambda: stats.Sampling(n_resamples=0), "n_resamples: expected at least 1, got 0"),
    (lambda: stats.tost_paired(HALF, HALF, groups=None, margin=0), "margin: expected a positive half-width"),
    (lambda: stats.tost_paired(HALF + 0.5, HALF * 1.0, groups=None), "all are 0.5.*same column"),
    (lambda: stats.sign_flip([1.0], groups=None, seed=0), "at least 2 example.s., got 1"),
    (lambda: stats.sign_flip([[1.0, np.nan], [1, 1]], groups=None, seed=0), "NaN or infinity in 1 of 2"),
    (lambda: stats.sign_flip(HALF, groups=None, seed=0, stat="median"), "stat: expected one of t, moderated, mean"),
    (lambda: stats.permute_labels(HALF, groups=np.arange(30) // 3, n_permutations=1, seed=0, scheme="group"),
     "10 of 10 groups have several. Use scheme='within'"),
    (lambda: stats.permute_labels(HALF, groups=HALF, n_permutations=1, seed=0, scheme="within"), "Use scheme='group'"),
    (lambda: stats.permute_labels([1, 0, 1], groups=[0, 0, 1], n_permutations=1, seed=0, scheme="between"),
     "no two of the 2 groups have the same size"),
    (lambda: stats.minimal_pairs([], [], [], [], groups=None), "at least 1 pair, got 0"),
    (lambda: stats.minimal_pairs([1, None], [1, 1], [1, 1], [1, 1], groups=None), "every pair, some are None"),
    (lambda: stats.surface_reliance(HALF, HALF, HALF, positive=1, groups=None), "30 of 30 congruent. Add"),
    (lambda: stats.surface_reliance(["Yes", "no"], ["no", "yes"], ["no", "no"], positive="yes", groups=None),
     "expected two values with positive='yes'.*Normalise the spelling"),
    (lambda: stats.logistic_regression(HALF, np.column_stack([HALF, HALF]), names=("gold", "cue"), groups=None),
     "gold, cue.*not separable"),
    (lambda: stats.logistic_regression([0, 1], [[1.0], [2.0]], names=("x",), groups=None), "more examples than coeff"),
    (lambda: stats.logistic_regression(HALF, ONES[:, None], names=(), groups=None), "one per predictor .1., got 0"),
    (lambda: stats.signal_detection(HALF, ONES, groups=None), "both classes, got 30 signal of 30"),
    (lambda: stats.calibration_error([0.5] * 3, [0, 1, 1], groups=None), "at least n_bins = 10 .* got 3"),
    (lambda: stats.brier([1.5, 0.5], [0, 1], groups=None), r"probabilities in \[0, 1\].*not the logits"),
    (lambda: stats.auroc(HALF, ONES, groups=None), "30 positive and 0 negative.*drop the cell"),
    (lambda: stats.fit_platt(ONES, HALF), "scores that vary"),
    (lambda: stats.weighted_kappa([9], [1], levels=(1, 2), groups=None), "gold: expected one of .1, 2., got 9"),
    (lambda: stats.weighted_kappa([1], [1], levels=(1,), groups=None), "at least 2 different levels"),
    (lambda: stats.cohen_dz(ONES, groups=None), "effects that vary, all 30 are 1"),
    (lambda: stats.cliffs_delta([1.0], [2.0], groups_x=["a"], groups_y=None), "expected both or neither"),
    (lambda: stats.decompose_change(np.ones((5, 2)), np.ones((5, 3)), groups=None), "3 columns .* got 2"),
    (lambda: stats.decompose_change(np.ones((5, 3)), np.ones((5, 3)) * [1, 0, 0], groups=None), "after: .*0/0"),
    (lambda: stats.items_needed(0.5), "other than chance 0.5, got 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES)
def test_a_wrong_call_says_what_was_expected_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_bca_with_every_draw_on_one_side_is_refused():
    sampling = stats.Sampling(method="bca")
    draws = stats.Draws(np.array(0.0), np.arange(5.0), lambda: np.ones(100), 50, 30, 30.0, sampling)
    with pytest.raises(ValueError, match=r"one side of the value.*auto"):
        draws.estimate()


def test_torch_tensors_and_lists_are_taken_like_arrays():
    values = np.random.default_rng(0).normal(size=40)
    groups = np.arange(40) // 2
    want = stats.cluster_mean(values, groups=groups)
    assert stats.cluster_mean(torch.from_numpy(values), groups=torch.from_numpy(groups)) == want
    assert stats.cluster_mean(values.tolist(), groups=tuple(groups.tolist())) == want


def test_importing_the_package_imports_neither_torch_nor_scipy():
    """Each costs seconds or is not needed to build a table; both are imported where used."""
    code = "import sys, interp.stats; print(sorted({'torch', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_everything_public_is_documented():
    for name in stats.__all__:
        thing = getattr(stats, name)
        if callable(thing):
            assert thing.__doc__ and len(thing.__doc__) > 30, name
