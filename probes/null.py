"""The permutation null of a whole sweep: permuted labels through the same pipeline, the maximum over layers kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from interp.stats import max_null_p, permute_labels
from probes.splits import Split


def null_labels(labels: Shaped[np.ndarray, " example"], split: Split, *, n: int, scheme: str, seed: int) -> np.ndarray:
    """Labels with no information left, given groups and split: [permutation, example].

    Labels move only between groups of the same fold (or of TEST), so that every permutation keeps the class counts
    that stratification gave each fold; moving them between folds would give the null worse-balanced folds than the
    data, and out-of-fold scores are biased by imbalance (anti-conservative).

    Args:
        scheme: "group" (labels constant in a group), "within", "between", as `interp.stats.permute_labels`; "auto"
            is "group" where every group has one label, else "within".
    Raises:
        ValueError: a fold in which nothing can move under "group"; otherwise as `permute_labels`.
    Source: restricted permutation, Good (2000) §3; Winkler et al., NeuroImage 123 (2015) 253.
    """
    scheme = resolved_scheme(labels, split, scheme)
    out = np.repeat(labels[None], n, axis=0)
    if n == 0:
        return out
    seeds = np.random.default_rng(seed).spawn(int(split.fold_of.max()) + 2)
    moved = False
    for rng, rows in zip(seeds, split.strata(), strict=False):
        group = split.group[rows]
        if not _can_move(labels[rows], group, scheme):
            continue
        out[:, rows] = permute_labels(labels[rows], groups=group, n_permutations=n, seed=rng, scheme=scheme)
        moved = True
    if not moved:
        raise ValueError(
            f"null with scheme {scheme!r}: no fold has labels that can move (groups per fold: "
            f"{[len(np.unique(split.group[rows])) for rows in split.strata()]}). Use fewer folds, or another scheme."
        )
    return out


def resolved_scheme(labels: Shaped[np.ndarray, " example"], split: Split, scheme: str) -> str:
    """`scheme`, with "auto" decided by whether labels vary inside groups."""
    if scheme != "auto":
        return scheme
    first = np.zeros(split.group.max() + 1, dtype=labels.dtype)
    first[split.group[::-1]] = labels[::-1]
    return "group" if (first[split.group] == labels).all() else "within"


def _can_move(labels: np.ndarray, group: np.ndarray, scheme: str) -> bool:
    if scheme == "within":
        return any(len(np.unique(labels[group == g])) > 1 for g in np.unique(group))
    sizes = np.unique(group, return_counts=True)[1]
    if scheme == "between":
        return len(np.unique(sizes)) < len(sizes)
    return len(sizes) > 1


@dataclass(frozen=True, eq=False)
class NullSummary:
    """What the null says of each layer, and of the layer that was selected.

    Attributes:
        mean, hi:  mean and 95 % point of each layer's own null [layer].
        max_hi:    95 % point of the maximum over layers: the line that a best layer must pass.
        p, p_max:  of each layer alone, and adjusted for the choice among layers (single-step max-T) [layer].
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


def at_selected(dev: Float[np.ndarray, "label layer"], values: Float[np.ndarray, "label layer"]) -> np.ndarray:
    """For each label the value at the layer that its own DEV scores select [label]."""
    return values[np.arange(len(dev)), dev.argmax(axis=1)]


def summarise(
    dev: Float[np.ndarray, "label layer"], test: Float[np.ndarray, "label layer"] | None
) -> NullSummary | None:
    """Row 0 is the real label, the rest the null; None without a null.

    p_j = (1 + #{null_j >= observed_j}) / (1 + P);   p_max_j = (1 + #{max_k null_k >= observed_j}) / (1 + P)
    """
    observed, null = dev[0], dev[1:]
    if not len(null):
        return None
    p = np.array([max_null_p([o], null[:, j])[0] for j, o in enumerate(observed)])
    p_test, selected = float("nan"), np.empty(0)
    if test is not None:
        selected = at_selected(dev, test)
        p_test = float(max_null_p([selected[0]], selected[1:])[0]) if np.isfinite(selected).all() else p_test
    return NullSummary(
        mean=null.mean(axis=0),
        hi=np.quantile(null, 0.95, axis=0),
        max_hi=float(np.quantile(null.max(axis=1), 0.95)),
        p=p,
        p_max=max_null_p(observed, null),
        p_test=p_test,
        test=selected,
        n=len(null),
    )
