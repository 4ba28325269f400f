"""One activation matrix, many labels: held-out scores, the choice of C, and TEST scores, the same for every label.

Labels are the rows of a matrix: row 0 the real one, the others permuted. Whatever is chosen from the data is chosen
for each row by itself, so that the rows are the full pipeline repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from interp.progress import parts
from probes.solver import LeaveOut, Linear, centred, inverse_std, lda, leave_out_ridge, mass_mean, ridge, solve
from probes.solver.spaces import symmetric_product
from probes.splits import Split

LABELS_AT_ONCE = 64
_SPACES: Any = WeakTensorKeyDictionary()  # freed with the features
_SPACES_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Scored:
    """Scores of every label at its own chosen C.

    Attributes:
        scores: held-out scores of DEV rows, scores of the DEV refit on TEST rows [label, example].
        chosen: index into Cs [label].
        probe:  the DEV refit of label 0 at its C, in raw units.
        certificate: worst bound on the relative error of label 0's probes (0 for closed forms).
    """

    scores: np.ndarray
    chosen: np.ndarray
    probe: Linear
    certificate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "probe", Linear(self.probe.coef.cpu(), self.probe.intercept.cpu()))


def one_se(losses: Float[Tensor, "c label example"]) -> Int[Tensor, "label"]:
    """Index of the smallest C (axis 0, ascending) whose mean loss is within one standard error of the best."""
    mean = losses.mean(dim=2)
    best = mean.argmin(dim=0)
    at_best = losses.gather(0, best[None, :, None].expand(1, -1, losses.shape[2]))[0]
    limit = mean.gather(0, best[None])[0] + at_best.std(dim=1) / losses.shape[2] ** 0.5
    return (mean <= limit).int().argmax(dim=0)


def logistic_pipeline(
    feats: Tensor,
    labels: Tensor,
    split: Split,
    *,
    Cs: Sequence[float],  # noqa: N803
    balanced: bool,
    tol: float,
) -> Scored:
    """Every fold, C and label as rows of one batched problem, solved to a certified optimum."""
    fold_of = torch.from_numpy(split.fold_of).to(feats.device)
    train = torch.stack([(fold_of != f) & (fold_of >= 0) for f in range(split.n_folds)] + [fold_of >= 0]).float()
    n_sets, n_c, blocks, fits = len(train), len(Cs), [], []
    for start in parts(range(0, len(labels), LABELS_AT_ONCE)):
        some = labels[start : start + LABELS_AT_ONCE].float()
        weights = train[None] * _balance(some, train) if balanced else train[None].expand(len(some), -1, -1)
        weights = weights[:, :, None] * torch.tensor(Cs, dtype=torch.float32, device=feats.device)[None, None, :, None]
        targets = some[:, None, None].expand(-1, n_sets, n_c, -1)
        fit = solve(
            feats,
            targets.reshape(-1, 1, feats.shape[0]),
            weights.reshape(-1, feats.shape[0]),
            scale_weights=train,
            scale_of=torch.arange(n_sets, device=feats.device).repeat_interleave(n_c).repeat(len(some)),
            tol=tol,
        )
        logits = fit.logits[:, 0].view(len(some), n_sets, n_c, -1)
        scores = logits[:, -1].clone()
        for f in range(split.n_folds):
            scores[:, :, fold_of == f] = logits[:, f][:, :, fold_of == f]
        fits.append(fit if start == 0 else None)
        blocks.append(scores.permute(1, 0, 2))
    scores = torch.cat(blocks, dim=1)
    chosen = one_se(_log_loss(scores, labels.float())[:, :, fold_of >= 0])
    first, at = fits[0], (n_sets - 1) * n_c + int(chosen[0])
    assert first is not None
    probe = Linear(first.coef[at], first.intercept[at])
    return Scored(_at(scores, chosen), chosen.cpu().numpy(), probe, float(first.certificate[: n_sets * n_c].max()))


def _balance(labels: Tensor, train: Tensor) -> Tensor:
    """n/(2·n_class) of each row's class on each training set [label, set, example]."""
    n_pos = labels @ train.T
    n = train.sum(dim=1)
    positive, negative = n / (2 * n_pos), n / (2 * (n - n_pos))
    return torch.where(labels[:, None] > 0, positive[..., None], negative[..., None])


def _log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.softplus(logits) - labels * logits


def _at(scores: Tensor, chosen: Tensor) -> np.ndarray:
    picked = scores.gather(0, chosen[None, :, None].expand(1, -1, scores.shape[2]))[0]
    return picked.double().cpu().numpy()


@dataclass(frozen=True, eq=False)
class _RidgeSpace:
    """What a ridge needs of features and a split before it has seen a label; see `leave_out_ridge`."""

    x: Tensor
    centre: Tensor
    scale: Tensor
    dev: Tensor
    test: Tensor
    across: Tensor
    left_out: tuple[LeaveOut, ...]

    @classmethod
    def of(cls, feats: Tensor, split: Split, Cs: Sequence[float]) -> _RidgeSpace:  # noqa: N803
        rows, mean, scale = _prepared(feats, split, scaled=True)
        dev, test = (torch.from_numpy(np.flatnonzero(m)).to(rows.device) for m in (split.is_dev, split.is_test))
        centre = rows[dev].mean(dim=0)
        x = (rows - centre) * scale
        fold = torch.from_numpy(split.fold_of).to(rows.device)[dev]
        is_wide = len(dev) <= x.shape[1]
        shared = {"kernel" if is_wide else "scatter": symmetric_product(x[dev] if is_wide else x[dev].T)}
        left_out = tuple(leave_out_ridge(x[dev], fold, alpha=1 / c, **shared) for c in Cs)
        return cls(x, centre + mean, scale, dev, test, x[dev] @ x[test].T, left_out)

    @property
    def n_bytes(self) -> int:
        parts = [self.x, self.across]
        for one in self.left_out:
            parts += [part for part in (one.annihilator, one.root, *one.inverses) if part is not None]
        return sum(part.nbytes for part in parts)


def _ridge_space(feats: Tensor, split: Split, Cs: Sequence[float]) -> _RidgeSpace:  # noqa: N803
    """The space of these features and this split: every target of a site asks for the same ones, in turn."""
    known = _SPACES.setdefault(feats, {})
    key = (split.fold_of.tobytes(), tuple(Cs), feats._version)
    if key not in known:
        space = _RidgeSpace.of(feats, split, Cs)
        if sum(one.n_bytes for one in known.values()) + space.n_bytes > _SPACES_BYTES:
            return space
        known[key] = space
    return known[key]


def ridge_pipeline(feats: Tensor, labels: Tensor, split: Split, *, Cs: Sequence[float], **_: Any) -> Scored:  # noqa: N803
    """One factorisation for each C gives the exact held-out scores of every label (`leave_out_ridge`)."""
    space = _ridge_space(feats, split, Cs)
    x, dev, test = space.x, space.dev, space.test
    y = 2 * labels.to(x.dtype) - 1
    scores, coefs = [], []
    for c, left_out in zip(Cs, space.left_out, strict=True):
        residual = left_out.residuals(y[:, dev])
        out = x.new_zeros(len(labels), len(x))
        out[:, dev] = left_out.held_out(y[:, dev], residual)
        out[:, test] = c * residual @ space.across + y[:, dev].mean(dim=1, keepdim=True)
        scores.append(out)
        coefs.append(c * residual[0] @ x[dev] * space.scale)
    stacked = torch.stack(scores)
    chosen = one_se((stacked[:, :, dev] - y[:, dev]).square())
    coef = coefs[int(chosen[0])]
    intercept = y[0, dev].mean() - coef @ space.centre
    return Scored(_at(stacked, chosen), chosen.cpu().numpy(), Linear(coef[None], intercept[None]), 0.0)


def by_folds(
    fit: Callable[..., Any],
    feats: Tensor,
    labels: Tensor,
    split: Split,
    *,
    Cs: Sequence[float],  # noqa: N803
    scaled: bool,
    loss: str,
) -> Scored:
    """`fit` on the training rows of each fold and on DEV, for each C; see `probes.kinds.Kind` for its arguments."""
    rows, mean, scale = _prepared(feats, split, scaled=scaled)
    x, labels = rows * scale if scaled else rows, labels.to(rows.dtype)
    fold_of, scores, probes = torch.from_numpy(split.fold_of).to(rows.device), [], []
    for c in Cs:
        out, probe = rows.new_zeros(len(labels), len(rows)), Linear(rows[:0], rows[:0, 0])
        for train, held_out in _folds_then_all(fold_of, split.n_folds):
            fitted = fit(x[train], labels[:, train], x.new_ones(int(train.sum())), c)
            probe = fitted if isinstance(fitted, Linear) else Linear(*fitted)
            out[:, held_out] = probe(x[held_out])
        scores.append(out)
        coef = probe.coef[:1] * scale
        probes.append(Linear(coef, probe.intercept[:1] - coef @ mean))  # for features that are not centred
    stacked, dev = torch.stack(scores), fold_of >= 0
    chosen = one_se(_loss(loss, stacked[:, :, dev], labels[:, dev]))
    return Scored(_at(stacked, chosen), chosen.cpu().numpy(), probes[int(chosen[0])], 0.0)


def _prepared(feats: Tensor, split: Split, *, scaled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Centred rows in float32, the mean that was subtracted, and 1/std of each feature over DEV (1 unless scaled)."""
    rows, mean = centred(feats, torch.float32)
    if not scaled:
        return rows, mean, torch.ones_like(mean)
    dev = torch.from_numpy(split.is_dev).to(feats.device)
    return rows, mean, inverse_std(rows, dev.double()[None])[0]


def _loss(loss: str, scores: Tensor, labels: Tensor) -> Tensor:
    """The loss of every score [c, label, example]; see `probes.kinds.Kind`."""
    if loss == "log":
        return _log_loss(scores, labels)
    sides = 2 * labels - 1
    if loss == "squared":
        return (scores - sides).square()
    s, y = scores - scores.mean(dim=2, keepdim=True), sides - sides.mean(dim=1, keepdim=True)
    # scores that are constant in every fold predict the mean and nothing else
    slope = (s * y).sum(dim=2, keepdim=True) / s.square().sum(dim=2, keepdim=True).clamp_min(1e-30)
    return (y - slope * s).square()


def fit_ridge(feats: Tensor, labels: Tensor, weights: Tensor, C: float) -> Linear:  # noqa: N803
    """`probes.solver.ridge` on targets -1 and 1, alpha = 1/C."""
    return ridge(feats, 2 * labels - 1, alpha=1 / C, weights=weights)


def fit_mass_mean(feats: Tensor, labels: Tensor, weights: Tensor, C: float) -> Linear:  # noqa: N803
    """`probes.solver.mass_mean`; C has no part in it."""
    return mass_mean(feats, labels, weights.expand_as(labels))


def fit_lda(feats: Tensor, labels: Tensor, weights: Tensor, C: float) -> Linear:  # noqa: N803
    """`probes.solver.lda`, alpha = 1/C."""
    return lda(feats, labels, weights, alpha=1 / C)


def fit_nearest_mean(feats: Tensor, labels: Tensor, weights: Tensor, C: float) -> Linear:  # noqa: N803
    """score of class k = feats · mu_k - ‖mu_k‖²/2, highest for the class with the nearest mean.

    Args:
        labels: one-hot [class, example].
    """
    share = labels * weights
    means = (share / share.sum(dim=1, keepdim=True)) @ feats
    return Linear(means, -means.square().sum(dim=1) / 2)


def _folds_then_all(fold_of: Tensor, n_folds: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(training rows, held-out rows) of each fold, then DEV and TEST."""
    dev = fold_of >= 0
    for f in range(n_folds):
        yield dev & (fold_of != f), fold_of == f
    yield dev, ~dev
