"""Controls of a probe: labels, features and directions without the signal of interest."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from interp.remedy import remedy
from interp.stats import Estimate
from interp.stats.check import Values
from interp.where import is_missing
from probes.metrics import area_difference, auroc_many

LEAST_CROSSING = 0.5
"""Share of rows that must lie in units of several split groups for control labels to be a control."""


class UnlearnableControlWarning(UserWarning):
    """Control labels belong to units inside split groups, so no probe could learn them."""


def crossing_share(units: Shaped[np.ndarray, " example"], groups: Shaped[np.ndarray, " example"]) -> float:
    """Share of the rows whose unit has rows in several groups."""
    code = np.unique(np.asarray(units).astype(str), return_inverse=True)[1].reshape(-1)
    pairs = np.unique(np.column_stack([code, np.unique(groups, return_inverse=True)[1].reshape(-1)]), axis=0)
    return float((np.bincount(pairs[:, 0])[code] > 1).mean())


def control_labels(
    units: Sequence[Hashable], labels: Integer[np.ndarray, " example"], *, seed: int
) -> Integer[np.ndarray, " example"]:
    """A random label per control unit (entity, token type), with the real label's distribution over units.

    A probe that fits these has memorised units. Units that lie inside one split group make the task unlearnable by
    construction, so the unit must not be the split group.

    Raises:
        ValueError: fewer than 4 units, or lengths differ.
    Source: Hewitt & Liang, arXiv 1909.03368.
    """
    names = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    code = np.array([names[unit] for unit in units])
    if len(code) != len(labels) or len(names) < 4:
        raise ValueError(
            f"control: expected one unit for each of {len(labels)} rows and at least 4 units, got {len(code)} rows and "
            f"{len(names)} units. Name a column with more values (entity, token, subject)."
        )
    rng, first = np.random.default_rng(seed), np.zeros(len(names), dtype=labels.dtype)
    first[code[::-1]] = labels[::-1]
    drawn = rng.permutation(first)
    if len(np.unique(drawn)) < 2:
        drawn = rng.permutation(np.arange(len(names)) % 2).astype(labels.dtype)
    return drawn[code]


def selectivity(
    real_scores: Float[np.ndarray, " example"],
    real_labels: Integer[np.ndarray, " example"],
    control_scores: Float[np.ndarray, " example"],
    control: Integer[np.ndarray, " example"],
    *,
    groups: Shaped[np.ndarray, " example"],
    strata: Shaped[np.ndarray, " example"] | None = None,
) -> Estimate:
    """AUROC on the real label minus AUROC on the control label, both inside strata, paired over groups.

    Accuracy would not work: its threshold moves with the share of positives in each training fold, and the folds were
    made even for the real label alone.

    Raises:
        ValueError: lengths differ, one group.
    Source: Hewitt & Liang, arXiv 1909.03368, §3, in a metric that does not move with the share of a class.
    """
    return area_difference(real_scores, control_scores, real_labels, labels_b=control, groups=groups, strata=strata)


def surface_features(
    *, texts: Sequence[str] | None = None, columns: Mapping[str, Values] | None = None, n_words: int = 256
) -> Float[Tensor, "example d_feature"]:
    """Features that need no model: text length, the most frequent words (present or not), named columns.

    Columns of numbers are taken as they are; others as one indicator per value (cohort, source, option count).

    Raises:
        ValueError: neither texts nor columns.
    """
    parts: list[np.ndarray] = []
    if texts is not None:
        words = [set(text.lower().split()) for text in texts]
        counts: dict[str, int] = {}
        for row in words:
            for word in row:
                counts[word] = counts.get(word, 0) + 1
        kept = sorted((w for w, n in counts.items() if 1 < n < len(words)), key=lambda w: (-counts[w], w))[:n_words]
        parts.append(np.array([[len(text), len(text.split())] for text in texts], dtype=np.float64))
        parts.append(np.array([[word in row for word in kept] for row in words], dtype=np.float64))
    if columns:
        parts.append(confound_matrix(columns))
    if not parts:
        raise ValueError("surface_features: expected texts, columns or both; got neither.")
    return torch.from_numpy(np.concatenate(parts, axis=1)).float()


def confound_matrix(columns: Mapping[str, Values]) -> Float[np.ndarray, "example confound"]:
    """Named confounds as numbers: numeric columns as they are, others one indicator per value but the first.

    Raises:
        ValueError: a missing value, naming the column.
    """
    parts = []
    for name, column in columns.items():
        values = np.asarray(column)
        if missing := sum(map(is_missing, values.tolist())):
            raise ValueError(
                f"confound {name!r}: {missing} of {len(values)} rows have no value. "
                + remedy("Leave them out with {probes.where}, or fill them in.")
            )
        if np.issubdtype(values.dtype, np.number):
            parts.append(values.astype(np.float64)[:, None])
        else:
            parts.append((values[:, None] == np.unique(values)[None, 1:]).astype(np.float64))
    return np.concatenate(parts, axis=1)


def residualise(
    feats: Float[Tensor, "example d_feature"],
    confounds: Float[np.ndarray, "example confound"],
    is_train: Bool[np.ndarray, " example"],
) -> Float[Tensor, "example d_feature"]:
    """Features minus their linear prediction from the confounds, fitted on training rows only.

        feats - [1 Z] B,   B = argmin sum_{i in train} ‖x_i - [1 z_i] B‖²

    On training rows the result is uncorrelated with every confound; on held-out rows only to the extent that the
    prediction generalises.

    Raises:
        ValueError: fewer training rows than confounds.
    Source: confound regression inside the fold, Snoek et al., NeuroImage 184 (2019) 741.
    """
    n_train = int(is_train.sum())
    if n_train <= confounds.shape[1] + 1:
        raise ValueError(f"confounds: expected fewer than {n_train} columns (training rows), got {confounds.shape[1]}.")
    design = np.column_stack([np.ones(len(confounds)), confounds])
    design[:, 1:] = (design[:, 1:] - design[is_train, 1:].mean(0)) / np.maximum(design[is_train, 1:].std(0), 1e-12)
    train = torch.from_numpy(is_train).to(feats.device)
    z = torch.from_numpy(design).to(feats)
    pseudo = torch.linalg.pinv(z[train].double()).to(feats)
    out = feats - z @ (pseudo @ feats[train])
    explained = out[train].var(dim=0) <= 1e-8 * feats[train].var(dim=0)
    return torch.where(
        explained, torch.zeros_like(out), out
    )  # a scaler would amplify the rounding errors that are left


@dataclass(frozen=True)
class RandomDirections:
    """AUROC of directions drawn without looking at labels, each turned so that it is at least 1/2.

    Attributes:
        lo, hi: the middle 95 % of the directions.  n: number of directions.
    """

    mean: float
    lo: float
    hi: float
    n: int


def random_directions(
    feats: Float[Tensor, "example d_feature"], labels: Integer[np.ndarray, " example"], *, n: int = 200, seed: int = 0
) -> RandomDirections:
    """Mean and middle 95 % of max(AUROC, 1 - AUROC) over random unit directions of the centred features.

    Raises:
        ValueError: one class.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("labels: expected both classes, got one. AUROC is not defined.")
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(n, feats.shape[1], generator=generator), dim=1)
    scores = (unit.to(feats) @ (feats - feats.mean(dim=0)).T).double().cpu().numpy()
    area = auroc_many(scores, np.broadcast_to(labels, scores.shape))
    area = np.maximum(area, 1 - area)
    low, high = np.quantile(area, (0.025, 0.975))
    return RandomDirections(float(area.mean()), float(low), float(high), n)


def shuffled_rows(feats: Float[Tensor, "example d_feature"], *, seed: int) -> Float[Tensor, "example d_feature"]:
    """The activations in shuffled order of rows: a probe on them must be at chance."""
    return feats[torch.from_numpy(np.random.default_rng(seed).permutation(len(feats)))]
