"""Controls: theorems of erasure, the code length by hand, and numbers that must be at chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from interp.stats import auroc, cluster_t
from probes import erase_check, fit_eraser, group_split, mdl, recall_at_fpr, surface_features
from probes.controls import (
    area_selectivity,
    confound_matrix,
    control_labels,
    random_directions,
    residualise,
    selectivity,
    shuffled_rows,
)
from probes.few_groups import BOOTSTRAP, jackknife_t
from probes.metrics import area, auroc_many, interval_of, score_table


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    labels = (rng.random(60) < 0.5)[groups].astype(int)
    feats = rng.normal(size=(300, 30)) @ rng.normal(size=(30, 30)) + 2 * np.outer(labels, rng.normal(size=30))
    return torch.from_numpy(feats), labels, groups, rng


def test_erased_features_have_equal_class_means_and_are_changed_least(data) -> None:
    feats, labels, _, rng = data
    eraser = fit_eraser(feats, labels)
    out = eraser(feats)
    before = feats[labels == 1].mean(0) - feats[labels == 0].mean(0)
    after = out[labels == 1].mean(0) - out[labels == 0].mean(0)
    assert after.norm() < 1e-9 * before.norm() and before.norm() > 1
    torch.testing.assert_close(out.mean(0), feats.mean(0))
    torch.testing.assert_close(eraser(out), out)
    assert torch.linalg.matrix_rank(out - feats, rtol=1e-8) == 1
    moved = (out - feats).square().sum()
    unit = before / before.norm()  # the orthogonal projection also equates the means, and moves more
    assert moved <= (feats @ unit).sub((feats @ unit).mean()).square().sum() + 1e-9
    three = rng.integers(0, 3, 300)
    wide = fit_eraser(feats, three)
    means = torch.stack([wide(feats)[three == c].mean(0) for c in range(3)])
    assert (means - means.mean(0)).abs().max() < 1e-9


def test_after_erasure_the_refitted_probe_has_no_weights_and_reads_nothing(data) -> None:
    feats, labels, groups, _ = data
    split = group_split(labels, groups=groups, seed=0)
    check = erase_check(feats.float(), labels, split, n_resamples=200)
    assert check.train_before > 0.95 and check.weight_ratio < 1e-4
    assert check.held_out_before.lo > 0.8 and check.held_out_after.value < check.held_out_before.value - 0.2
    assert 0 < check.share_changed < 0.5
    with pytest.raises(ValueError, match="expected TEST rows"):
        erase_check(feats, labels, group_split(labels, groups=groups, test_share=0.0, seed=0))


def test_erasure_of_more_features_than_rows_keeps_its_theorem() -> None:
    rng = np.random.default_rng(1)
    feats, labels = torch.from_numpy(rng.normal(size=(20, 50))), np.arange(20) % 2
    out = fit_eraser(feats, labels)(feats)
    assert (out[labels == 1].mean(0) - out[labels == 0].mean(0)).norm() < 1e-9


def test_code_length_is_n_bits_for_noise_and_short_for_signal(data) -> None:
    feats, labels, groups, rng = data
    signal = mdl(feats, labels, groups=groups, C=0.1)
    noise = mdl(feats, rng.permutation(60)[groups] % 2, groups=groups, C=1e-4)
    assert signal.compression > 1.25 and 0.85 < noise.compression < 1.1
    assert signal.uniform == 300 and sum(signal.block_bits) == pytest.approx(signal.bits)
    assert signal.n_groups == 60 and signal.portions[-1] == 1.0
    assert all(round(share * 300) % 5 == 0 for share in signal.portions)  # blocks end where groups end


def test_code_length_of_two_blocks_is_the_refitted_probes_log_loss() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(4)
    feats, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    found = mdl(torch.from_numpy(feats), labels, groups=None, portions=(0.5, 1.0), seed=9)
    order = np.argsort(np.random.default_rng(9).permutation(40), kind="stable")
    x, y = feats[order], labels[order]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-10)).fit(x[:20], y[:20])
    second = -np.log2(model.predict_proba(x[20:])[np.arange(20), y[20:]]).sum()
    assert found.block_bits == pytest.approx((20.0, second), rel=1e-3)


def test_control_labels_are_constant_per_unit_and_keep_the_distribution() -> None:
    units, labels = np.arange(200) % 50, ((np.arange(200) % 50) < 20).astype(int)
    fake = control_labels(units.tolist(), labels, seed=0)
    assert all(len(set(fake[units == u])) == 1 for u in range(50))
    assert fake.sum() == labels.sum() and (fake != labels).any()
    with pytest.raises(ValueError, match="at least 4 units, got 200 rows and 2 units"):
        control_labels((np.arange(200) % 2).tolist(), labels, seed=0)


def test_selectivity_is_the_difference_of_accuracies() -> None:
    labels, groups = np.array([0, 1] * 30), np.repeat(np.arange(30), 2)
    scores = np.where(np.arange(60) < 48, 2 * labels - 1, 1 - 2 * labels).astype(float)  # right in 48 of 60
    control = np.ones(60) * 0.5  # says 1 always: right in 30 of 60
    found = selectivity(scores, labels, control, labels, groups=groups, seed=0, n_resamples=500)
    assert found.value == pytest.approx(0.3) and found.lo < 0.3 < found.hi and found.n_groups == 30


def test_residuals_are_uncorrelated_with_confounds_on_training_rows_only(data) -> None:
    feats, _, _, rng = data
    confounds = confound_matrix({"length": rng.normal(size=300), "source": np.array(["a", "b", "c"] * 100)})
    assert confounds.shape == (300, 3)
    feats = feats + torch.from_numpy(confounds @ rng.normal(size=(3, 30)))
    train = np.arange(300) < 200
    out = residualise(feats, confounds, train)
    inner = out[:200].numpy() - out[:200].numpy().mean(0)
    assert np.abs(inner.T @ (confounds[:200] - confounds[:200].mean(0))).max() < 1e-8 * 300
    changed = residualise(torch.where(torch.arange(300)[:, None] < 200, feats, feats + 5), confounds, train)
    torch.testing.assert_close(changed[:200], out[:200])  # held-out rows do not touch the fit
    with pytest.raises(ValueError, match="expected fewer than 3 columns"):
        residualise(feats, confounds, np.arange(300) < 3)
    with pytest.raises(ValueError, match="confound 'x': expected a value for every row"):
        confound_matrix({"x": [1.0, None]})


def test_surface_features_hold_length_words_and_columns() -> None:
    texts = ["the cat", "the dog runs", "a cat"]
    out = surface_features(texts=texts, columns={"cohort": ["u", "v", "u"]}, n_words=2)
    assert out[:, 0].tolist() == [7, 12, 5] and out[:, 1].tolist() == [2, 3, 2]
    assert out[:, 2:4].tolist() == [[1, 1], [0, 1], [1, 0]]  # "cat", "the": in two texts each
    assert out[:, 4].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="got neither"):
        surface_features()


def test_random_directions_and_shuffled_rows_are_near_chance(data) -> None:
    feats, labels, _, rng = data
    noise = torch.from_numpy(rng.normal(size=(300, 30)))
    band = random_directions(noise, labels, n=300, seed=1)
    assert 0.5 < band.mean < 0.55 and band.hi < 0.62 and band.n == 300
    assert random_directions(feats, labels).hi > band.hi
    moved = shuffled_rows(feats, seed=0)
    assert not torch.equal(moved, feats) and torch.equal(moved.sort(dim=0).values, feats.sort(dim=0).values)


def test_auroc_of_many_labels_is_the_statistics_own(data) -> None:
    _, labels, _, rng = data
    scores = np.round(rng.normal(size=(4, 300)) + labels, 1)  # with ties
    many = auroc_many(scores, np.stack([labels] * 4))
    assert many == pytest.approx([auroc(s, labels, groups=None).value for s in scores])
    assert np.isnan(auroc_many(scores, np.ones((4, 300)))).all()


def test_recall_at_a_false_positive_rate_by_hand() -> None:
    labels, groups = np.array([0] * 10 + [1] * 4), np.arange(14)
    scores = np.concatenate([np.arange(10.0), [8.5, 9.5, 3.0, 12.0]])
    found = recall_at_fpr(scores, labels, groups=groups, max_fpr=0.1, seed=0, n_resamples=200)
    assert found.value == pytest.approx(0.75)  # the threshold is 8: one of ten negatives passes
    strict = recall_at_fpr(scores, labels, groups=groups, max_fpr=0.0, seed=0, n_resamples=200)
    assert strict.value == pytest.approx(0.5)
    elsewhere = recall_at_fpr(
        scores, labels, groups=groups, max_fpr=0.0, seed=0, negatives=np.array([2.0, 10.0]), n_resamples=200
    )
    assert elsewhere.value == pytest.approx(0.25)
    with pytest.raises(ValueError, match="Write 0.01 for 1 %"):
        recall_at_fpr(scores, labels, groups=groups, max_fpr=1.0, seed=0)


def test_logits_are_cut_at_zero_and_probabilities_are_their_sigmoid() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    labels = (rng.random(400) < p).astype(int)
    scores = np.log(p / (1 - p))
    table = score_table(scores, labels, groups=np.arange(400) // 4, is_logit=True, seed=0, n_resamples=100)
    assert table["accuracy"].value == pytest.approx(((p > 0.5) == labels).mean())
    assert table["brier"].value == pytest.approx(((expit(scores) - labels) ** 2).mean())
    assert table["ece"].value < 0.08 and table["log_loss"].value < np.log(2)
    assert set(score_table(scores, labels, groups=None or np.arange(400), is_logit=False, seed=0, n_resamples=50)) == {
        "auroc",
        "accuracy",
        "balanced_accuracy",
    }


def test_leave_one_group_out_intervals_of_a_mean_are_the_clustered_t(data) -> None:
    values, groups = np.random.default_rng(3).random(60), np.repeat(np.arange(12), 5)
    found = jackknife_t(lambda kept: {"m": float(values[kept].mean())}, groups=groups, bounds={"m": (0.0, 1.0)})["m"]
    expected = cluster_t(values, groups=groups)  # equal groups: both are the t-interval over group means
    assert (found.lo, found.hi) == pytest.approx((expected.lo, expected.hi), rel=1e-9)
    assert found.n == 60 and found.n_groups == 12


def test_few_groups_never_give_an_interval_without_width() -> None:
    labels, groups = np.tile([0, 1], 20), np.repeat(np.arange(8), 5)
    scores = labels * 2.0 - 1  # complete separation
    table = score_table(scores, labels, groups=groups, is_logit=True, seed=0, n_resamples=50)
    assert all(table[name].lo < 0.9 < table[name].hi == 1 for name in ("auroc", "accuracy", "balanced_accuracy"))
    assert interval_of("accuracy", groups) == "jackknife t" and interval_of("accuracy", np.arange(40)) == BOOTSTRAP
    assert interval_of("auroc", groups) == interval_of("auroc", np.arange(40)) == "score interval over groups"


def test_area_over_eight_groups_covers() -> None:
    rng, n_sims, covered = np.random.default_rng(0), 150, 0
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1/sqrt 2)
    for sim in range(n_sims):
        groups, labels = np.repeat(np.arange(8), 20), np.tile([0, 1], 80)
        found = area(rng.normal(size=160) + labels, labels, groups=groups, seed=sim)
        covered += found.lo <= truth <= found.hi
    # 150 draws of 0.95: two standard errors are 0.036
    assert covered / n_sims >= 0.914


def test_selectivity_in_auroc_is_the_difference_of_both(data) -> None:
    _, labels, groups, rng = data
    fake = rng.permutation(labels)
    scores, noise = labels + rng.normal(size=300), rng.normal(size=300)
    found = area_selectivity(scores, labels, noise, fake, groups=groups, seed=0, n_resamples=200)
    apart = auroc_many(np.stack([scores, noise]), np.stack([labels, fake]))
    assert found.value == pytest.approx(apart[0] - apart[1]) and found.lo < found.value < found.hi
    few = groups % 10
    wide = area_selectivity(scores, labels, noise, fake, groups=few, seed=0, n_resamples=200)
    assert wide.value == pytest.approx(found.value) and wide.n_groups == 10
