"""Controls: theorems of erasure, the code length by hand, and numbers that must be at chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from interp.stats import Sampling, auroc, auroc_difference
from interp.stats.ranking import auroc_left_out
from probes import erase_check, fit_eraser, group_split, mdl, recall_at_fpr, surface_features
from probes.controls import (
    confound_matrix,
    control_labels,
    random_directions,
    residualise,
    selectivity,
    shuffled_rows,
)
from probes.metrics import area, auroc_many, balanced_accuracy, interval_of, layer_bands, score_table
from probes.solver import Fit, NotConvergedWarning, solve
from probes.splits import Split


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
    check = erase_check(feats.float(), labels, split)
    assert check.train_before > 0.95 and check.weight_ratio < 1e-4
    assert check.held_out_before.lo > 0.8 and check.held_out_after.value < check.held_out_before.value - 0.2
    assert 0 < check.share_changed < 0.5
    with pytest.raises(ValueError, match="expected TEST rows"):
        erase_check(feats, labels, group_split(labels, groups=groups, test_share=0.0, seed=0))


def anisotropic(seed: int = 0) -> tuple[torch.Tensor, np.ndarray, Split]:
    """Features like those of a real layer: scales over four orders of magnitude, one far from 0."""
    rng, scales = np.random.default_rng(seed), 10 ** np.linspace(2, -2, 60)
    labels = np.arange(400) % 2
    feats = rng.normal(size=(400, 60)) * scales
    feats[:, 3:6] += 1.5 * labels[:, None] * scales[3:6]
    feats[:, 0] += 1000
    return torch.from_numpy(feats), labels, group_split(labels, groups=np.arange(400) // 4, test_share=0.25, seed=0)


@pytest.mark.filterwarnings("error::probes.solver.NotConvergedWarning")
def test_weights_that_are_zero_by_theorem_are_no_failure_of_the_solver() -> None:
    check = erase_check(*anisotropic())
    assert check.train_before > 0.98 and check.weight_ratio < 1e-9 and abs(check.train_after - 0.5) < 0.05


@pytest.mark.parametrize("which", [0, 1])
def test_a_probe_that_is_far_from_its_optimum_is_a_warning(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def unfinished(*args: Any, **kwargs: Any) -> Fit:
        fit = solve(*args, **kwargs)
        calls.append(1)
        share = 0.1 if len(calls) - 1 == which else 0.0  # of the weights before: the second probe has almost none
        size = float((fit.coef / fit.scale[:, None]).norm())
        return replace(fit, certificate=torch.full_like(fit.certificate, share * max(1.0, 1 / size)))

    monkeypatch.setattr("probes.erase.solve", unfinished)
    with pytest.warns(NotConvergedWarning, match="of the weights before"):
        erase_check(*anisotropic())


def test_erasure_of_more_features_than_rows_keeps_its_theorem() -> None:
    rng = np.random.default_rng(1)
    feats, labels = torch.from_numpy(rng.normal(size=(20, 50))), np.arange(20) % 2
    out = fit_eraser(feats, labels)(feats)
    assert (out[labels == 1].mean(0) - out[labels == 0].mean(0)).norm() < 1e-9


def test_code_length_is_that_of_frequencies_for_noise_and_shorter_for_signal(data) -> None:
    feats, labels, groups, rng = data
    signal = mdl(feats, labels, groups=groups)
    assert signal.compression.lo > 1.2 and signal.p == 0.05 and signal.control < 1.05
    assert signal.compression.value == pytest.approx(signal.prior / signal.bits) and signal.uniform == 300
    assert signal.n_groups == 60 and signal.portions[-1] == 1.0 and len(signal.block_bits) == len(signal.portions)
    assert all(round(share * 300) % 5 == 0 for share in signal.portions)  # blocks end where groups end
    rare = (np.arange(60) < 4)[groups].astype(int)[np.argsort(rng.random(60)[groups], kind="stable")]
    noise = mdl(feats, rare, groups=groups)
    assert noise.uniform / noise.bits > 1.8  # what is called compression where the frequencies are not counted
    assert noise.compression.value == pytest.approx(1.0, abs=0.03) and noise.compression.lo <= 1 <= noise.compression.hi


def test_code_length_of_two_blocks_is_that_of_the_refitted_probes_mixed_with_the_frequencies() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(4)
    feats, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    found = mdl(torch.from_numpy(feats), labels, groups=None, portions=(0.5, 1.0), Cs=(0.1, 1.0), n_orders=1, seed=9)
    order = np.argsort(np.random.default_rng(9).permutation(40), kind="stable")
    x, y = feats[order], labels[order]

    def probability(c: float) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10)).fit(x[:20], y[:20])
        return float(np.prod(model.predict_proba(x[20:])[np.arange(20), y[20:]]))

    share = (np.bincount(y[:20]) + 0.5) / 21  # Krichevsky & Trofimov
    prior = float(np.prod(share[y[20:]]))
    second = -np.log2(prior / 2 + (probability(0.1) + probability(1.0)) / 4)
    assert found.block_bits == pytest.approx((20.0, second), rel=1e-3)
    assert found.prior == pytest.approx(20 - np.log2(prior))
    with pytest.raises(ValueError, match="n_shuffled >= 19"):
        mdl(torch.from_numpy(feats), labels, groups=None, n_shuffled=9)


def test_code_length_of_three_classes_costs_at_most_one_bit_more_than_frequencies() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 3)
    labels = np.array(["a", "b", "c"])[rng.integers(0, 3, 90)]
    found = mdl(torch.from_numpy(rng.normal(size=(90, 5))), labels, groups=groups, n_orders=2)
    assert found.uniform == pytest.approx(90 * np.log2(3)) and found.bits <= found.prior + 1
    hot = np.eye(3)[np.unique(labels, return_inverse=True)[1]] * 4 + rng.normal(size=(90, 3))
    assert mdl(torch.from_numpy(hot), labels, groups=groups, n_orders=2).compression.lo > 2


def test_control_labels_are_constant_per_unit_and_keep_the_distribution() -> None:
    units, labels = np.arange(200) % 50, ((np.arange(200) % 50) < 20).astype(int)
    fake = control_labels(units.tolist(), labels, seed=0)
    assert all(len(set(fake[units == u])) == 1 for u in range(50))
    assert fake.sum() == labels.sum() and (fake != labels).any()
    with pytest.raises(ValueError, match="at least 4 units, got 200 rows and 2 units"):
        control_labels((np.arange(200) % 2).tolist(), labels, seed=0)


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
    with pytest.raises(ValueError, match="confound 'x': 1 of 2 rows have no value"):
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
    _, labels, groups, rng = data
    scores = np.round(rng.normal(size=(4, 300)) + labels, 1)  # with ties
    many = auroc_many(scores, np.stack([labels] * 4))
    assert many == pytest.approx([auroc(s, labels, groups=None).value for s in scores])
    assert np.isnan(auroc_many(scores, np.ones((4, 300)))).all()
    fold = groups % 5
    inside = auroc_many(scores, np.stack([labels] * 4), fold)
    by_hand = [
        sum(
            (s[p] > s[n]) + 0.5 * (s[p] == s[n])
            for f in range(5)
            for p in np.flatnonzero((fold == f) & (labels == 1))
            for n in np.flatnonzero((fold == f) & (labels == 0))
        )
        for s in scores[:1]
    ]
    pairs = sum(int(((fold == f) & (labels == 1)).sum() * ((fold == f) & (labels == 0)).sum()) for f in range(5))
    assert inside[0] == pytest.approx(by_hand[0] / pairs)
    assert inside == pytest.approx([auroc(s, labels, groups=groups, strata=fold).value for s in scores])


def test_an_offset_of_each_fold_changes_no_number_that_compares_inside_folds(data) -> None:
    _, labels, groups, rng = data
    fold = groups % 5
    scores = rng.normal(size=300) + labels
    moved = scores + 100 * rng.normal(size=5)[fold]
    options = dict(groups=groups, strata=fold)
    assert area(moved, labels, **options) == area(scores, labels, **options)
    assert abs(area(moved, labels, groups=groups).value - area(scores, labels, groups=groups).value) > 0.1
    assert recall_at_fpr(moved, labels, max_fpr=0.2, **options) == recall_at_fpr(scores, labels, max_fpr=0.2, **options)
    constant = np.where(fold == 0, -1.0, 1.0)  # of folds, as models without features are
    assert balanced_accuracy(constant, labels, **options).value == 0.5
    assert balanced_accuracy(constant, (fold == 0).astype(int), groups=groups).value == 0.0  # pooled: as bad as can be


def test_recall_at_a_false_positive_rate_by_hand() -> None:
    labels, groups = np.array([0] * 10 + [1] * 4), np.arange(14)
    scores = np.concatenate([np.arange(10.0), [8.5, 9.5, 3.0, 12.0]])
    options = dict(groups=groups, strata=np.zeros(14))
    assert recall_at_fpr(scores, labels, max_fpr=0.1, **options).value == pytest.approx(0.75)  # the threshold is 8
    strict = recall_at_fpr(scores, labels, max_fpr=0.0, **options)
    assert strict.value == pytest.approx(0.5) and (strict.n_positive, strict.n_negative) == (4, 10)
    twice = recall_at_fpr(
        np.concatenate([scores, scores + 50]), np.tile(labels, 2), groups=np.arange(28), strata=np.repeat([0, 1], 14),
        max_fpr=0.1,
    )  # fmt: skip
    assert twice.value == pytest.approx(
        0.75
    )  # a threshold per fold; one for both would pass the negatives of the second
    with pytest.raises(ValueError, match="Write 0.01 for 1 %"):
        recall_at_fpr(scores, labels, max_fpr=1.0, **options)


def test_logits_are_cut_at_zero_and_probabilities_are_their_sigmoid() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    labels = (rng.random(400) < p).astype(int)
    scores = np.log(p / (1 - p))
    table = score_table(scores, labels, groups=np.arange(400) // 4, is_logit=True, sampling=Sampling(n_resamples=100))
    assert table["accuracy"].value == pytest.approx(((p > 0.5) == labels).mean())
    assert table["brier"].value == pytest.approx(((expit(scores) - labels) ** 2).mean())
    assert table["ece"].value < 0.08 and table["log_loss"].value < np.log(2)
    assert set(
        score_table(scores, labels, groups=None or np.arange(400), is_logit=False, sampling=Sampling(n_resamples=50))
    ) == {
        "auroc",
        "accuracy",
        "balanced_accuracy",
    }


def test_few_groups_never_give_an_interval_without_width() -> None:
    labels, groups = np.tile([0, 1], 20), np.repeat(np.arange(8), 5)
    scores = labels * 2.0 - 1  # complete separation
    table = score_table(scores, labels, groups=groups, is_logit=True, sampling=Sampling(n_resamples=50))
    assert all(table[name].lo < 0.9 < table[name].hi == 1 for name in ("auroc", "accuracy", "balanced_accuracy"))
    assert interval_of("auroc") == "score interval over groups" and interval_of("brier") == "jackknife t"


def test_area_over_eight_groups_covers() -> None:
    rng, n_sims, covered = np.random.default_rng(0), 150, 0
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1/sqrt 2)
    for _ in range(n_sims):
        groups, labels = np.repeat(np.arange(8), 20), np.tile([0, 1], 80)
        found = area(rng.normal(size=160) + labels, labels, groups=groups)
        covered += found.lo <= truth <= found.hi
    # 150 draws of 0.95: two standard errors are 0.036
    assert covered / n_sims >= 0.914


def test_bands_over_layers_hold_the_interval_of_each_and_one_layer_needs_none_wider(data) -> None:
    _, labels, groups, rng = data
    shared = rng.normal(size=300)
    scores = np.stack([0.7 * shared + 0.7 * rng.normal(size=300) + labels for _ in range(6)])
    options = dict(groups=groups, strata=groups % 3)
    lo, hi = layer_bands(scores, labels, least_se=[0.0] * 6, sampling=Sampling(n_resamples=500), **options)
    alone = [area(s, labels, **options) for s in scores]
    assert all(a < e.lo and e.hi < b for a, b, e in zip(lo, hi, alone, strict=True))
    one, more = layer_bands(scores[:1], labels, least_se=[0.0], sampling=Sampling(n_resamples=500), **options)
    assert (one[0], more[0]) == pytest.approx((alone[0].lo, alone[0].hi))
    wide = layer_bands(scores, labels, least_se=[0.2] * 6, sampling=Sampling(n_resamples=500), **options)
    assert (wide[0] < lo - 0.05).all()  # what refitting would change is in the band
    left = auroc_left_out(scores[0], labels, groups=groups, strata=groups % 3)
    kept = groups != 7
    by_hand = auroc_many(scores[:1, kept], labels[None, kept], groups[kept] % 3)[0]
    assert left[7] == pytest.approx(by_hand)


def test_selectivity_is_the_difference_of_both_areas(data) -> None:
    _, labels, groups, rng = data
    fake = rng.permutation(labels)
    scores, noise = labels + rng.normal(size=300), rng.normal(size=300)
    found = selectivity(scores, labels, noise, fake, groups=groups, strata=groups % 3)
    apart = auroc_many(np.stack([scores, noise]), np.stack([labels, fake]), groups % 3)
    assert found.value == pytest.approx(apart[0] - apart[1]) and found.lo < found.value < found.hi
    pooled = auroc_difference(scores, noise, labels, labels_b=fake, groups=groups)
    assert selectivity(scores, labels, noise, fake, groups=groups) == pooled.estimate
