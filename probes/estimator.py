"""One probe as a scikit-learn estimator: the same solvers, fitted to one matrix and one label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from interp.import_path import imported
from probes.kinds import kind_of
from probes.solver import Linear, inverse_std, solve


def _gives_probabilities(probe: Probe) -> bool:
    return kind_of(probe.kind).is_logit


class Probe(ClassifierMixin, BaseEstimator):
    """A linear probe in raw activation units; `coef_` needs no scaler at prediction time.

    More than two classes: multinomial for logistic, nearest mean for massmean, one against the rest for the others.

    Args:
        kind: a name of `probes.kinds.KINDS` (logistic, ridge, massmean, massmean-iid), or a fit of your own.
        C: inverse penalty on standardised weights, as in scikit-learn.
        scale: "fold" divides each feature by its std over the rows of `fit`; "none" does not; "auto" is "none" for
            massmean, whose direction is the raw difference, and "fold" for the rest.
        class_weight: None, "balanced", or {class: weight}; class means do not depend on it.
        tol: bound on the relative error of the standardised weights at which the logistic solver stops.

    Attributes (after fit):
        coef_ [1 or class, feature], intercept_: raw units, so decision_function(X) = X @ coef_.T + intercept_.
        certificate_: bound on that relative error; 0 for closed forms.
        n_iter_: solver steps, 1 for closed forms.
    """

    def __init__(
        self,
        kind: Any = "logistic",
        *,
        C: Any = 1.0,  # noqa: N803 (scikit-learn's name)
        scale: Any = "auto",
        class_weight: Any = None,
        tol: Any = 1e-3,
        max_iter: Any = 2000,
    ) -> None:
        # scikit-learn's rule: __init__ stores anything, fit checks it
        self.kind = kind
        self.C = C
        self.scale = scale
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Probe:  # noqa: N803
        """Fit to X [example, feature] and labels y [example]; integer weights mean repeated rows.

        Raises:
            ValueError: NaN, one class, an unknown kind or scale, C or tol <= 0.
        """
        self._check_options()
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))  # noqa: N806
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, got one class: {self.classes_[0]!r}.")
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weights = torch.from_numpy(sample_weight * self._class_weights(code, sample_weight))
        feats, k = torch.tensor(X), len(self.classes_)
        onehot = torch.nn.functional.one_hot(torch.from_numpy(code), k).T.to(feats.dtype)
        targets = onehot[1:] if k == 2 else onehot
        with torch.no_grad():
            probe = self._fit(feats, targets, weights.to(feats.dtype), torch.from_numpy(sample_weight))
        self.coef_, self.intercept_ = probe.coef.numpy(), probe.intercept.numpy()
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Logits (logistic, massmean-iid) or scores; [example] for two classes, else [example, class]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)  # noqa: N806
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The class with the larger score; the threshold of a logit is 0, never 0.5."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Sigmoid or softmax of the logits; not calibrated where class_weight is set (see controls.calibrate)."""
        logits = torch.from_numpy(self.decision_function(X))
        if logits.ndim == 1:
            return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1).numpy()
        if kind_of(self.kind).fit is None:  # multinomial: one solution for all classes
            return logits.softmax(dim=1).numpy()
        return torch.nn.functional.normalize(logits.sigmoid(), p=1, dim=1).numpy()

    def _fit(self, feats: Tensor, targets: Tensor, weights: Tensor, row_weights: Tensor) -> Linear:
        self.certificate_, self.n_iter_ = 0.0, 1
        scale_rows = row_weights[None] if self._scales() else None
        if kind_of(self.kind).fit is None:
            fit = solve(
                feats,
                targets[None],
                self.C * weights[None],
                scale_weights=scale_rows,
                tol=self.tol,
                max_iter=self.max_iter,
                dtype=feats.dtype,
            )
            self.certificate_, self.n_iter_ = float(fit.certificate[0]), max(1, int(fit.n_iter[0]))
            return Linear(fit.coef[0], fit.intercept[0])
        centre = (row_weights / row_weights.sum()).to(feats.dtype) @ feats
        scale = feats.new_ones(feats.shape[1]) if scale_rows is None else inverse_std(feats - centre, scale_rows)[0]
        rows = (feats - centre) * scale
        probe = self._closed(rows, targets, weights)
        coef = probe.coef * scale
        return Linear(coef, probe.intercept - coef @ centre)

    def _closed(self, rows: Tensor, targets: Tensor, weights: Tensor) -> Linear:
        kind = kind_of(self.kind)
        fit = imported(kind.fit_classes) if kind.fit_classes and len(targets) > 1 else kind.function
        assert fit is not None, f"{kind.name}: only logistic has no fit"
        probe = fit(rows, targets, weights, self.C)
        return probe if isinstance(probe, Linear) else Linear(*probe)

    def _scales(self) -> bool:
        return self.scale == "fold" or (self.scale == "auto" and kind_of(self.kind).scaled)

    def _class_weights(self, code: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return np.ones(len(code))
        counts = np.bincount(code, weights=sample_weight)
        if isinstance(self.class_weight, str):
            return (counts.sum() / (len(counts) * np.maximum(counts, 1e-300)))[code]
        return np.array([self.class_weight.get(name, 1.0) for name in self.classes_.tolist()])[code]

    def _check_options(self) -> None:
        kind_of(self.kind)
        if self.scale not in ("auto", "fold", "none"):
            raise ValueError(f"scale: expected 'auto', 'fold' or 'none'; got {self.scale!r}.")
        for name in ("C", "tol"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number > 0, got {getattr(self, name)!r}.")
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise ValueError(f"class_weight: expected None, 'balanced' or a mapping; got {self.class_weight!r}.")
