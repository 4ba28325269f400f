"""LEACE: the smallest affine change after which no linear probe can tell the classes apart, and the check of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.stats import Estimate
from probes.metrics import area, auroc_many
from probes.solver import NotConvergedWarning, solve
from probes.splits import Split

_TOL = 1e-6


@dataclass(frozen=True)
class Eraser:
    """r(x) = x - P (x - mean),  P = W⁺ (W Σ_xz)(W Σ_xz)⁺ W of rank <= classes - 1, held as left · right."""

    mean: Float[Tensor, "d_feature"]
    left: Float[Tensor, "d_feature rank"]
    right: Float[Tensor, "rank d_feature"]

    def __call__(self, feats: Float[Tensor, "example d_feature"]) -> Float[Tensor, "example d_feature"]:
        x = feats.to(self.mean.dtype)
        return (x - ((x - self.mean) @ self.right.T) @ self.left.T).to(feats.dtype)


def fit_eraser(feats: Float[Tensor, "example d_feature"], labels: Shaped[np.ndarray, " example"]) -> Eraser:
    """Least-squares concept erasure from examples, in float64.

        W = (Σ_xx^{1/2})⁺;   U = left singular vectors of W Σ_xz;   P = W⁺ U Uᵀ W

    After it the class means are equal, so every linear classifier with a convex loss is no better than a constant
    on these examples; among affine maps with that property it changes the features least.

    Raises:
        ValueError: one class, or fewer than 3 rows.
    Source: Belrose et al., arXiv 2306.03819, theorem 4.3.
    """
    classes, code = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or len(feats) < 3:
        raise ValueError(f"labels: expected at least 2 classes in at least 3 rows, got {len(classes)} in {len(feats)}.")
    x = feats.double()
    mean = x.mean(dim=0)
    x = x - mean
    z = torch.nn.functional.one_hot(torch.from_numpy(code), len(classes)).double()
    cross = x.T @ (z - z.mean(dim=0)) / len(x)
    _, singular, vt = torch.linalg.svd(x / len(x) ** 0.5, full_matrices=False)
    kept = singular > 1e-10 * singular[0]
    root, basis = singular[kept], vt[kept]
    u, s, _ = torch.linalg.svd((basis @ cross) / root[:, None], full_matrices=False)
    u = u[:, s > 1e-9 * s[0].clamp_min(1e-30)]
    return Eraser(mean, basis.T @ (root[:, None] * u), (u / root[:, None]).T @ basis)


@dataclass(frozen=True)
class Erasure:
    """AUROC before and after erasure; `train_after` must be near 1/2 by theorem, `held_out` is on unseen groups.

    Attributes:
        weight_ratio: ‖weights after‖ / ‖weights before‖ of the logistic probe on training rows (0 by theorem).
        share_changed: ‖r(x) - x‖² / ‖x - mean‖² over training rows.
    """

    train_before: float
    train_after: float
    weight_ratio: float
    held_out_before: Estimate
    held_out_after: Estimate
    share_changed: float


def erase_check(
    feats: Float[Tensor, "example d_feature"],
    labels: Shaped[np.ndarray, " example"],
    split: Split,
    *,
    C: float = 1.0,  # noqa: N803
) -> Erasure:
    """Erase the label on DEV rows, refit: the amnesic test of a layer.

    Args:
        labels: 0/1.  split: eraser and probes are fitted on DEV; held-out numbers are on TEST, of a crossed split on
            each fold with what was fitted without it, and the numbers of training rows are means over folds.
    Raises:
        ValueError: no TEST rows, one class.
    Warns:
        NotConvergedWarning: a probe may be off by more than 1e-6 of the weights before erasure. Those after it are 0 by
            theorem, so that an error relative to them says nothing.
    Source: Elazar et al., arXiv 2006.00995 (amnesic probing); eraser as `fit_eraser`.
    """
    looks = split.looks()
    if not looks:
        raise ValueError(
            "split: expected TEST rows (test_share > 0) to measure whether the erasure generalises; got none."
        )
    parts, scores = [], np.zeros((2, len(labels)))
    for look in looks:
        dev, test = look.is_dev, look.is_test
        eraser = fit_eraser(feats[torch.from_numpy(dev)], labels[dev])
        both = feats.double(), eraser(feats.double())
        (before, w_before, *errors), (after, w_after, error) = (_refitted(x, labels, dev, C) for x in both)
        if max(*errors, error) > _TOL * w_before:
            warnings.warn(
                f"the probes before and after erasure are known to {errors[0] / w_before:.2g} and "
                f"{error / w_before:.2g} of the weights before, where {_TOL:g} was asked for. Use a smaller C.",
                NotConvergedWarning,
                stacklevel=2,
            )
        scores[0, test], scores[1, test] = before[test], after[test]
        areas = auroc_many(np.stack([before[dev], after[dev]]), np.stack([labels[dev]] * 2))
        rows, erased = (x[torch.from_numpy(dev)] for x in both)
        moved = (rows - erased).square().sum() / (rows - eraser.mean).square().sum()
        parts.append((*areas, w_after / w_before, float(moved)))
    tested = split.is_tested
    groups, fold = split.group[tested], split.fold_of[tested]
    first, second = (area(s[tested], labels[tested], groups=groups, strata=fold) for s in scores)
    before, after, ratio, moved = (float(x) for x in np.mean(parts, axis=0))
    return Erasure(before, after, ratio, first, second, moved)


def _refitted(feats: Tensor, labels: np.ndarray, train: np.ndarray, c: float) -> tuple[np.ndarray, float, float]:
    """(logits of all rows, ‖w‖, bound on ‖w - w*‖) of a logistic probe on the training rows, w standardised."""
    inside = torch.from_numpy(train).double()[None]
    targets = torch.from_numpy(labels.astype(np.float64))[None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # relative to weights that may be 0: `erase_check` judges
        fit = solve(feats, targets, c * inside, scale_weights=inside, tol=_TOL, dtype=torch.float64)
    size = float((fit.coef / fit.scale[:, None]).norm())
    return fit.logits[0, 0].numpy(), size, size * float(fit.certificate[0])
