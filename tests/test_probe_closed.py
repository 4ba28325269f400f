"""Closed forms against scikit-learn and against really refitting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from probes.solver import lda, leave_out_ridge, mass_mean, ridge


@pytest.fixture(params=[(60, 25), (40, 90)], ids=["more rows", "more features"])
def data(request: pytest.FixtureRequest):
    n, d = request.param
    rng = torch.Generator().manual_seed(0)
    feats = torch.randn(n, d, generator=rng, dtype=torch.float64) + 3
    labels = (torch.rand(7, n, generator=rng, dtype=torch.float64) < 0.4).double()
    return feats, labels, torch.arange(n) % 6 - 1


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_scikit_learns(data, weighted: bool) -> None:
    feats, labels, fold = data
    weights = (fold + 1).double() if weighted else None
    ours = ridge(feats, labels, alpha=2.5, weights=weights)
    theirs = Ridge(alpha=2.5, tol=1e-12).fit(
        feats.numpy(), labels.T.numpy(), None if weights is None else weights.numpy()
    )
    np.testing.assert_allclose(ours.coef.numpy(), theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(ours(feats).T.numpy(), theirs.predict(feats.numpy()), atol=1e-6)


def test_leave_group_out_scores_are_those_of_refitting_without_the_group(data) -> None:
    feats, labels, fold = data
    quick = leave_out_ridge(feats, fold, alpha=3.0)(labels)
    for g in range(5):
        inside = fold != g
        refit = Ridge(alpha=3.0, tol=1e-12).fit(feats[inside].numpy(), labels[:, inside].T.numpy())
        np.testing.assert_allclose(quick[:, ~inside].T.numpy(), refit.predict(feats[~inside].numpy()), atol=1e-8)
    assert quick[:, fold == -1].isnan().all()
    centred = feats - feats.mean(0)
    torch.testing.assert_close(
        leave_out_ridge(feats, fold, alpha=3.0, kernel=centred @ centred.T)(labels), quick, equal_nan=True
    )
    torch.testing.assert_close(
        leave_out_ridge(feats, fold, alpha=3.0, scatter=centred.T @ centred)(labels), quick, equal_nan=True
    )


def test_mass_mean_is_the_difference_of_means_and_ignores_rows_without_weight(data) -> None:
    feats, labels, fold = data
    weights = (fold != 0).double().expand(7, -1)
    found = mass_mean(feats, labels, weights)
    for i, label in enumerate(labels):
        up, down = feats[(label == 1) & (fold != 0)].mean(0), feats[(label == 0) & (fold != 0)].mean(0)
        torch.testing.assert_close(found.coef[i], up - down)
        assert abs(float((up + down) / 2 @ found.coef[i] + found.intercept[i])) < 1e-10


def test_lda_is_scikit_learns_where_the_penalty_vanishes() -> None:
    rng = torch.Generator().manual_seed(1)
    feats = torch.randn(200, 6, generator=rng, dtype=torch.float64) @ torch.randn(6, 6, generator=rng).double()
    label = (feats[:, 0] + torch.randn(200, generator=rng).double() > 0.5).double()
    ours = lda(feats, label[None], torch.ones(200, dtype=torch.float64), alpha=1e-9)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(feats.numpy(), label.numpy())
    np.testing.assert_allclose(ours.coef.numpy(), theirs.coef_, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept.numpy(), theirs.intercept_, rtol=1e-6)


def test_lda_is_the_regularised_scatter_applied_to_the_mean_difference(data) -> None:
    feats, labels, fold = data
    weights = (fold >= 0).double()
    found = lda(feats, labels, weights, alpha=4.0)
    for i, label in enumerate(labels):
        inside = weights > 0
        classes = [feats[inside & (label == c)] for c in (0, 1)]
        scatter = sum((c - c.mean(0)).T @ (c - c.mean(0)) for c in classes)
        scatter = scatter + 4.0 * torch.eye(feats.shape[1])
        expected = inside.sum() * torch.linalg.solve(scatter, classes[1].mean(0) - classes[0].mean(0))
        torch.testing.assert_close(found.coef[i], expected)


def test_closed_forms_refuse_what_has_no_answer(data) -> None:
    feats, labels, fold = data
    with pytest.raises(ValueError, match="alpha: expected a penalty > 0"):
        ridge(feats, labels, alpha=0.0)
    with pytest.raises(ValueError, match="alpha: expected a penalty > 0"):
        leave_out_ridge(feats, fold, alpha=-1.0)
    with pytest.raises(ValueError, match="both classes among the weighted rows"):
        mass_mean(feats, torch.ones_like(labels), torch.ones_like(labels))


def test_what_a_ridge_prepares_is_shared_by_its_labels_and_made_again_for_other_features() -> None:
    from probes.layer import _SPACES, ridge_pipeline
    from probes.splits import Split

    feats, split = torch.randn(40, 6), Split(np.arange(40) % 5 - 1, np.arange(40), 4, "")  # fold -1 is TEST
    labels = torch.randint(0, 2, (3, 40))
    first = ridge_pipeline(feats, labels[:1], split, Cs=(0.1, 1.0))
    (space,) = _SPACES[feats].values()
    again = ridge_pipeline(feats, labels, split, Cs=(0.1, 1.0))
    assert list(_SPACES[feats].values()) == [space]
    fresh = ridge_pipeline(feats.clone(), labels, split, Cs=(0.1, 1.0))
    assert np.array_equal(again.scores, fresh.scores)
    assert np.allclose(first.scores[0], again.scores[0], atol=1e-5)
    feats += torch.randn(40, 6)
    changed = ridge_pipeline(feats, labels, split, Cs=(0.1, 1.0))
    assert not np.allclose(changed.scores, again.scores, atol=1e-3)
    assert np.array_equal(changed.scores, ridge_pipeline(feats.clone(), labels, split, Cs=(0.1, 1.0)).scores)
    ridge_pipeline(feats, labels, Split(np.arange(40) // 10, np.arange(40), 4, ""), Cs=(0.1, 1.0))
    assert len(_SPACES[feats]) == 3
