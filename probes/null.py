"""The permutation null of a whole sweep: permuted labels through the same pipeline, every choice repeated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from interp.stats import max_null_p
from probes.exchange import Exchange


def null_labels(labels: Shaped[np.ndarray, " example"], exchange: Exchange, *, n: int, seed: int) -> np.ndarray:
    """Labels with no information left [permutation, example]: blocks exchanged inside folds, units or groups.

    The split gives each fold its number of groups of every kind (see `group_split`), and exchanges keep it: what was
    permuted would have been split as the data were.

    Source: restricted permutation, Good (2000) §3; Winkler et al., NeuroImage 123 (2015) 253.
    """
    rows = [labels[row] for row in exchange.rows(n, seed=seed)]
    return np.stack(rows) if rows else np.empty((0, len(labels)), dtype=labels.dtype)


@dataclass(frozen=True, eq=False)
class Areas:
    """AUROC of the real label (first) and the permuted ones at one cell, or at several stacked on the last axis.

    Attributes:
        dev:   out of fold on DEV [label].
        inner: out of fold on the DEV of each look at TEST, which is what the look selects by [look, label].
        won:   pairs won among the TEST rows of each look [look, label];  pairs: all of them.
    """

    dev: np.ndarray
    inner: np.ndarray
    won: np.ndarray
    pairs: np.ndarray

    @classmethod
    def stack(cls, parts: list[Areas]) -> Areas:
        """Cells along a new last axis."""
        return cls(*(np.stack([getattr(p, name) for p in parts], axis=-1) for name in ("dev", "inner", "won", "pairs")))

    @property
    def choice(self) -> np.ndarray:
        """Cell that each look selects for each label [look, label]; of stacked cells."""
        return np.where(np.isnan(self.inner), -np.inf, self.inner).argmax(axis=-1)

    def tested(self, choice: np.ndarray | None = None) -> np.ndarray:
        """AUROC on TEST at the cells that each look selects, pairs of all looks together [label]; of stacked cells."""
        at = (self.choice if choice is None else choice)[..., None]
        won, pairs = (np.take_along_axis(part, at, axis=-1)[..., 0].sum(axis=0) for part in (self.won, self.pairs))
        with np.errstate(invalid="ignore", divide="ignore"):
            return won / pairs


@dataclass(frozen=True, eq=False)
class NullSummary:
    """What the null says of each layer, and of TEST.

    Attributes:
        mean, hi:  mean and 95 % point of each layer's own null [layer].
        max_hi:    95 % point of the maximum over layers: the line that a best layer must pass.
        p, p_max:  of each layer alone, and adjusted for the choice among layers (step-down max-T) [layer].
        p_test:    of the TEST score of the selected layer against TEST scores of each permutation's selected layer.
        test:      those scores, the observed one first [label]; empty without TEST.
    """

    mean: np.ndarray
    hi: np.ndarray
    max_hi: float
    p: np.ndarray
    p_max: np.ndarray
    p_test: float
    test: np.ndarray
    n: int


def summarise(dev: Float[np.ndarray, "label layer"], test: Float[np.ndarray, " label"] | None) -> NullSummary | None:
    """Entry 0 is the real label, the rest the null; None without a null.

    p_j = (1 + #{null_j >= observed_j}) / (1 + P);   p_max: Westfall & Young's step-down maximum over layers

    Args:
        test: TEST scores at the layer that each label selects.
    """
    observed, null = dev[0], dev[1:]
    if not len(null):
        return None
    is_tested = test is not None and bool(np.isfinite(test).all())
    return NullSummary(
        mean=null.mean(axis=0),
        hi=np.quantile(null, 0.95, axis=0),
        max_hi=float(np.quantile(null.max(axis=1), 0.95)),
        p=np.array([max_null_p([o], null[:, j])[0] for j, o in enumerate(observed)]),
        p_max=max_null_p(observed, null, step_down=True),
        p_test=float(max_null_p([test[0]], test[1:])[0]) if test is not None and is_tested else float("nan"),
        test=np.empty(0) if test is None else test,
        n=len(null),
    )
