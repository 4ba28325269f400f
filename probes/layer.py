"""One activation matrix, many labels: held-out scores, the choice of C, and TEST scores, the same for every label.

Labels are the rows of a matrix: row 0 the real one, the others permuted. Whatever is chosen from the data is chosen
for each row by itself, so that the rows are the full pipeline repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probes.solver import Linear, centred, inverse_std, lda, leave_out_ridge, mass_mean, solve
from probes.solver.spaces import symmetric_product
from probes.splits import Split

LABELS_AT_ONCE = 64
LOGIT_KINDS = ("logistic", "massmean-iid")


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


def score_labels(
    kind: str,
    feats: Float[Tensor, "example d_feature"],
    labels: Shaped[Tensor, "label example"],
    split: Split,
    *,
    Cs: Sequence[float],  # noqa: N803
    balanced: bool = False,
    tol: float = 1e-3,
) -> Scored:
    """Out-of-fold and TEST scores of every label with one kind of probe.

    C: the smallest whose mean out-of-fold loss is within one standard error of the best (log loss of logits, squared
    error of ridge scores). logistic scales features on each training fold; ridge on all DEV rows (labels are not
    used), because only a common scale has exact leave-group-out for every label at once; massmean uses raw features.

    Args:
        labels: 0/1, row 0 the real one.
        balanced: weigh classes equally (logistic only).
    Raises:
        ValueError: unknown kind, NaN, a training fold with one class.
    Source: selection rule, Hastie, Tibshirani & Friedman, *Elements of Statistical Learning* §7.10.
    """
    labels = labels.to(feats.device)
    if kind == "logistic":
        return _logistic(feats, labels, split, Cs, balanced, tol)
    rows, mean = centred(feats, torch.float32)
    dev = torch.from_numpy(split.is_dev).to(feats.device)
    if kind == "massmean":
        return _mass_mean(rows, mean, labels.to(rows.dtype), split)
    scale = inverse_std(rows, dev.double()[None])[0]
    if kind == "ridge":
        return _ridge(rows, mean, scale, labels, split, Cs)
    if kind == "massmean-iid":
        return _lda(rows, mean, scale, labels.to(rows.dtype), split, Cs)
    raise ValueError(f"kind: expected one of logistic, ridge, massmean, massmean-iid; got {kind!r}.")


def one_se(losses: Float[Tensor, "c label example"]) -> Int[Tensor, "label"]:
    """Index of the smallest C (axis 0, ascending) whose mean loss is within one standard error of the best."""
    mean = losses.mean(dim=2)
    best = mean.argmin(dim=0)
    at_best = losses.gather(0, best[None, :, None].expand(1, -1, losses.shape[2]))[0]
    limit = mean.gather(0, best[None])[0] + at_best.std(dim=1) / losses.shape[2] ** 0.5
    return (mean <= limit).int().argmax(dim=0)


def _logistic(feats: Tensor, labels: Tensor, split: Split, cs: Sequence[float], balanced: bool, tol: float) -> Scored:
    fold_of = torch.from_numpy(split.fold_of).to(feats.device)
    train = torch.stack([(fold_of != f) & (fold_of >= 0) for f in range(split.n_folds)] + [fold_of >= 0]).float()
    n_sets, n_c, parts, fits = len(train), len(cs), [], []
    for start in range(0, len(labels), LABELS_AT_ONCE):
        some = labels[start : start + LABELS_AT_ONCE].float()
        weights = train[None] * _balance(some, train) if balanced else train[None].expand(len(some), -1, -1)
        weights = weights[:, :, None] * torch.tensor(cs, dtype=torch.float32, device=feats.device)[None, None, :, None]
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
        parts.append(scores.permute(1, 0, 2))
    scores = torch.cat(parts, dim=1)
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


def _ridge(rows: Tensor, mean: Tensor, scale: Tensor, labels: Tensor, split: Split, cs: Sequence[float]) -> Scored:
    dev, test = (torch.from_numpy(np.flatnonzero(m)).to(rows.device) for m in (split.is_dev, split.is_test))
    centre = rows[dev].mean(dim=0)
    x, y = (rows - centre) * scale, 2 * labels.to(rows.dtype) - 1
    fold = torch.from_numpy(split.fold_of).to(rows.device)[dev]
    is_wide = len(dev) <= x.shape[1]
    shared = {"kernel" if is_wide else "scatter": symmetric_product(x[dev] if is_wide else x[dev].T)}
    across = x[dev] @ x[test].T
    scores, coefs = [], []
    for c in cs:
        left_out = leave_out_ridge(x[dev], fold, alpha=1 / c, **shared)
        residual = left_out.residuals(y[:, dev])
        out = rows.new_zeros(len(labels), len(rows))
        out[:, dev] = left_out.held_out(y[:, dev], residual)
        out[:, test] = c * residual @ across + y[:, dev].mean(dim=1, keepdim=True)
        scores.append(out)
        coefs.append(c * residual[0] @ x[dev] * scale)
    stacked = torch.stack(scores)
    chosen = one_se((stacked[:, :, dev] - y[:, dev]).square())
    coef = coefs[int(chosen[0])]
    intercept = y[0, dev].mean() - coef @ (centre + mean)
    return Scored(_at(stacked, chosen), chosen.cpu().numpy(), Linear(coef[None], intercept[None]), 0.0)


def _mass_mean(rows: Tensor, mean: Tensor, labels: Tensor, split: Split) -> Scored:
    fold_of = torch.from_numpy(split.fold_of).to(rows.device)
    scores = rows.new_zeros(len(labels), len(rows))
    found = Linear(rows[:0], rows[:0, 0])
    for train, held in _folds_then_all(fold_of, split.n_folds):
        found = mass_mean(rows[train], labels[:, train], torch.ones_like(labels[:, train]))
        scores[:, held] = found(rows[held])
    probe = Linear(found.coef[:1], found.intercept[:1] - found.coef[:1] @ mean)
    return Scored(scores.double().cpu().numpy(), np.zeros(len(labels), dtype=int), probe, 0.0)


def _lda(rows: Tensor, mean: Tensor, scale: Tensor, labels: Tensor, split: Split, cs: Sequence[float]) -> Scored:
    fold_of, x, scores, probes = torch.from_numpy(split.fold_of).to(rows.device), rows * scale, [], []
    for c in cs:
        out = rows.new_zeros(len(labels), len(rows))
        found = Linear(rows[:0], rows[:0, 0])
        for train, held in _folds_then_all(fold_of, split.n_folds):
            found = lda(x[train], labels[:, train], x.new_ones(int(train.sum())), alpha=1 / c)
            out[:, held] = found(x[held])
        scores.append(out)
        coef = found.coef[:1] * scale
        probes.append(Linear(coef, found.intercept[:1] - coef @ mean))
    stacked = torch.stack(scores)
    chosen = one_se(_log_loss(stacked, labels)[:, :, fold_of >= 0])
    return Scored(_at(stacked, chosen), chosen.cpu().numpy(), probes[int(chosen[0])], 0.0)


def _folds_then_all(fold_of: Tensor, n_folds: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(training rows, held-out rows) of each fold, then DEV and TEST."""
    dev = fold_of >= 0
    for f in range(n_folds):
        yield dev & (fold_of != f), fold_of == f
    yield dev, ~dev
