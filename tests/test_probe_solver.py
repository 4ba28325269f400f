"""The batched solver against scikit-learn at its own optimum, and its certificate against the true error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from probes.estimator import Probe
from probes.solver import NotConvergedWarning, choose_backend, solve
from probes.solver.loss import evaluate
from probes.solver.spaces import gram_preconditioner, primal_preconditioner, symmetric_product

CS = (1e-4, 1e-2, 1.0)


def planted(n: int, d: int, *, n_classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations with a power-law spectrum, unequal scales and a far-off mean; labels; fold of each row."""
    rng = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=rng, dtype=torch.float64) * torch.arange(1, d + 1) ** -0.5
    feats = base @ torch.randn(d, d, generator=rng, dtype=torch.float64) * torch.logspace(-1, 1, d) + 7
    logits = feats @ torch.randn(d, n_classes, generator=rng, dtype=torch.float64) / feats.std()
    logits = (logits - logits.mean(0)) / logits.std(0) + torch.randn(n, n_classes, generator=rng, dtype=torch.float64)
    return feats, logits.argmax(dim=1), torch.arange(n) % 3


def batch(feats, labels, fold, class_weight=None):
    """Every fold x C as one batch: (targets, weights, scale_weights, scale_of, [(fold, C), ...])."""
    k = int(labels.max()) + 1
    onehot = torch.nn.functional.one_hot(labels, k).T.double()
    cells = [(f, c) for f in fold.unique().tolist() for c in CS]
    train = torch.stack([(fold != f).double() for f in fold.unique()])
    per_row = []
    for f, c in cells:
        inside = train[f]
        balance = torch.stack([inside.sum() / (k * (inside * row).sum()) for row in onehot])
        per_row.append(c * inside * (balance[labels] if class_weight == "balanced" else 1.0))
    targets = (onehot[1:] if k == 2 else onehot).expand(len(cells), -1, -1)
    return targets, torch.stack(per_row), train, torch.tensor([f for f, _ in cells]), cells


def sklearn_optimum(feats, labels, inside, c, class_weight):
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=100_000, class_weight=class_weight)
    )
    return model.fit(feats[inside].numpy(), labels[inside].numpy())


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("backend", ["primal", "gram"])
@pytest.mark.parametrize(("n", "d", "n_classes"), [(120, 30, 2), (90, 150, 2), (120, 30, 3), (90, 150, 3)])
def test_batched_fits_are_scikit_learns_pipeline_and_the_certificate_bounds_the_error(
    n: int, d: int, n_classes: int, backend: str, class_weight: str | None
) -> None:
    feats, labels, fold = planted(n, d, n_classes=n_classes)
    targets, weights, scale_weights, scale_of, cells = batch(feats, labels, fold, class_weight)
    options = dict(scale_weights=scale_weights, scale_of=scale_of, backend=backend, dtype=torch.float64)
    best = solve(feats, targets, weights, tol=1e-10, **options)
    rough = solve(feats, targets, weights, tol=1e-2, **options)
    error = ((rough.coef - best.coef) / best.scale[:, None]).flatten(1).norm(dim=1)
    size = (best.coef / best.scale[:, None]).flatten(1).norm(dim=1)
    # the bound is relative to the stopped weights, whose norm is within the bound of the optimum's
    assert (error <= rough.certificate * (1 + rough.certificate) * size * (1 + 1e-6)).all()
    assert (rough.certificate <= 1e-2).all() and rough.is_converged.all()
    for i, (f, c) in enumerate(cells):
        model = sklearn_optimum(feats, labels, fold != f, c, class_weight)
        inner, scaler = model[-1], model[0]
        raw = inner.coef_ / scaler.scale_
        assert np.abs(best.coef[i].numpy() - raw).max() <= 1e-4 * np.abs(raw).max()
        raw_intercept = inner.intercept_ - raw @ scaler.mean_
        assert np.abs(best.intercept[i].numpy() - raw_intercept).max() <= 1e-4 * max(1, np.abs(raw_intercept).max())
        theirs = model.decision_function(feats.numpy())
        ours = best.logits[i].T.numpy()
        ours = ours[:, 0] if n_classes == 2 else ours
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
        by_hand = feats.numpy() @ best.coef[i].T.numpy() + best.intercept[i].numpy()
        np.testing.assert_allclose(by_hand.squeeze(), ours, atol=1e-8 * np.abs(theirs).max())


def test_single_precision_and_chunks_and_one_common_scale_change_nothing_beyond_the_certificate() -> None:
    feats, labels, fold = planted(150, 200)
    targets, weights, _, _, _ = batch(feats, labels, fold)
    common = dict(scale_weights=torch.ones(1, 150))
    exact = solve(feats, targets, weights, tol=1e-10, dtype=torch.float64, **common)
    for backend in ("primal", "gram"):
        single = solve(feats.float(), targets, weights, tol=1e-3, backend=backend, budget=60_000, **common)
        error = ((single.coef - exact.coef) / exact.scale[:, None]).flatten(1).norm(dim=1)
        size = (exact.coef / exact.scale[:, None]).flatten(1).norm(dim=1)
        assert (error <= 1.01e-3 * size + 5e-6 * size).all(), backend  # 5e-6: rounding of the data to float32


def test_starting_from_a_smaller_c_takes_fewer_steps_to_the_same_place() -> None:
    feats, labels, fold = planted(150, 60)
    targets, weights, scale_weights, scale_of, _ = batch(feats, labels, fold)
    options = dict(scale_weights=scale_weights, scale_of=scale_of, dtype=torch.float64, tol=1e-8)
    cold = solve(feats, targets, weights, **options)
    near = solve(feats, targets, weights * 1.05, **options)
    warm = solve(feats, targets, weights, start=near, **options)
    assert warm.n_iter.sum() < cold.n_iter.sum()
    torch.testing.assert_close(warm.coef, cold.coef, rtol=0, atol=3e-8 * float(cold.coef.abs().max()))


@pytest.mark.parametrize("case", ["separable", "duplicates", "constant", "huge_c", "tiny_weights"])
def test_hard_problems_end_finite_and_never_claim_a_certificate_they_do_not_have(case: str) -> None:
    feats, labels, _ = planted(80, 120, seed=3)
    c = 1.0
    if case == "separable":
        feats[:, 0] = labels * 10.0
    elif case == "duplicates":
        feats, labels = feats[:40].repeat(2, 1), labels[:40].repeat(2)
    elif case == "constant":
        feats[:, ::2] = 3.25
    elif case == "huge_c":
        c = 1e4
    weights = torch.full((3, 80), c) * torch.tensor([[1.0], [1e-3], [1e-9 if case == "tiny_weights" else 1e-2]])
    targets = labels.expand(3, 1, -1).double()
    for backend in ("primal", "gram"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            options = dict(scale_weights=torch.ones(1, 80), max_iter=30 if case == "huge_c" else 2000)
            fit = solve(feats, targets, weights, backend=backend, **options)
        assert fit.coef.isfinite().all() and fit.intercept.isfinite().all() and fit.certificate.isfinite().all()
        assert (fit.is_converged == (fit.certificate <= 1e-3)).all()
        if case == "huge_c":
            continue
        exact = solve(feats, targets, weights, scale_weights=torch.ones(1, 80), tol=1e-6, dtype=torch.float64)
        size = (exact.coef / exact.scale[:, None]).flatten(1).norm(dim=1)
        error = ((fit.coef - exact.coef) / exact.scale[:, None]).flatten(1).norm(dim=1)
        assert (error <= (2 * fit.certificate + 1e-4) * size).all()
        assert fit.is_converged.all()


def test_a_solver_that_cannot_reach_the_tolerance_says_so() -> None:
    feats, labels, _ = planted(80, 40)
    with pytest.warns(NotConvergedWarning, match="1 of 1 probes stopped above.* dtype=torch.float64"):
        fit = solve(
            feats, labels[None, None].double(), torch.ones(1, 80), scale_weights=torch.ones(1, 80), tol=1e-9, max_iter=3
        )
    assert not fit.is_converged.any() and fit.certificate > 1e-9


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_the_intercept_is_the_minimum_over_shifts_even_for_extreme_logits(n_outputs: int) -> None:
    rng = torch.Generator().manual_seed(1)
    images = 80 * torch.randn(3, n_outputs, 50, generator=rng, dtype=torch.float64)
    labels = torch.randint(max(2, n_outputs), (3, 50), generator=rng)
    onehot = torch.nn.functional.one_hot(labels, max(2, n_outputs)).transpose(1, 2).double()
    targets = onehot[:, 1:2] if n_outputs == 1 else onehot
    at = evaluate(
        images, targets, torch.ones(3, 50, dtype=torch.float64), images.new_zeros(3, n_outputs), max_steps=200
    )
    assert at.residuals.sum(dim=-1).abs().max() < 1e-10


def test_preconditioners_of_both_spaces_are_the_same_operator() -> None:
    feats, _, _ = planted(70, 90)
    feats = feats - feats.mean(0)
    kappa = torch.tensor([0.01, 1.0], dtype=torch.float64)
    kernel = feats @ feats.T
    primal = primal_preconditioner(feats, torch.ones(90, dtype=torch.float64), kappa, rank=10)
    gram = gram_preconditioner(kernel, kappa, rank=10)
    v = torch.randn(2, 1, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    in_weights = v @ feats
    a = in_weights + primal.parts(in_weights) @ primal.basis.T
    b = (v + gram.parts(v @ kernel) @ gram.basis.T) @ feats
    torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-2 * float(a.abs().max()))  # both bases are approximate
    flat = gram.basis.T @ kernel @ gram.basis
    torch.testing.assert_close(flat, torch.eye(len(flat), dtype=flat.dtype), atol=1e-8, rtol=0)
    torch.testing.assert_close(symmetric_product(feats.repeat(8, 1)), kernel.repeat(8, 8), rtol=1e-10, atol=1e-9)


def test_the_backend_is_the_cheaper_one() -> None:
    assert choose_backend(n=2000, d=3584, n_problems=125, n_scales=1) == "gram"
    assert choose_backend(n=2000, d=3584, n_problems=25, n_scales=5) == "primal"
    assert choose_backend(n=6000, d=3584, n_problems=25, n_scales=1) == "primal"


def test_errors_name_the_row_and_the_problem() -> None:
    feats, labels, _ = planted(30, 5)
    targets, weights = labels[None, None].double(), torch.ones(1, 30)
    broken = feats.clone()
    broken[4, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 30 rows .first at row 4"):
        solve(broken, targets, weights, scale_weights=None)
    with pytest.raises(ValueError, match="problem 0: its 30 training rows do not contain every class"):
        solve(feats, torch.ones_like(targets), weights, scale_weights=None)


def test_probe_passes_every_check_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(Probe())
        check_estimator(Probe("ridge"))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5}])
def test_probe_is_the_pipeline(n_classes: int, class_weight) -> None:
    feats, labels, _ = planted(120, 40, n_classes=n_classes)
    x, y = feats.numpy(), labels.numpy()
    probe = Probe(C=0.1, class_weight=class_weight, tol=1e-8).fit(x, y)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000, class_weight=class_weight)
    ).fit(x, y)
    np.testing.assert_allclose(probe.decision_function(x), model.decision_function(x), atol=1e-5)
    np.testing.assert_allclose(probe.predict_proba(x), model.predict_proba(x), atol=1e-6)
    assert probe.certificate_ <= 1e-8


def test_integer_sample_weights_are_repeated_rows() -> None:
    feats, labels, _ = planted(60, 20)
    counts = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(2)).numpy()
    x, y = feats.numpy(), labels.numpy()
    for kind in ("logistic", "ridge", "massmean", "massmean-iid"):
        weighted = Probe(kind, tol=1e-9).fit(x, y, sample_weight=counts)
        repeated = Probe(kind, tol=1e-9).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
        np.testing.assert_allclose(weighted.decision_function(x), repeated.decision_function(x), atol=1e-6)


def test_probe_refuses_bad_options_in_words() -> None:
    x, y = np.eye(4), np.array([0, 1, 0, 1])
    for options, words in (
        ({"kind": "svm"}, "expected one of logistic"),
        ({"C": 0.0}, "C: expected a number > 0"),
        ({"scale": "fld"}, "scale: expected"),
        ({"class_weight": "even"}, "class_weight: expected"),
    ):
        with pytest.raises(ValueError, match=words):
            Probe(**options).fit(x, y)
