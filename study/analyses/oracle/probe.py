"""A linear probe on the very vectors that the oracle reads, the number that an oracle is always shown beside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from interp.oracle import Features
from interp.stats import Estimate, wilson_clustered

FOLDS = 5


def probe_right(feats: Features, targets: Mapping[str, str], *, seed: int = 0) -> np.ndarray | None:
    """Whether multinomial logistic regression on the readings' vectors has each held-out reading right, folds by
    problem [reading].

    Several positions of a reading are averaged, several layers stand side by side; features are standardised inside
    each fold. Classes weigh in every fold as they do among all readings: otherwise a fold rich in a class leaves little
    of it for training, and the probe of that fold leans to the other one (accuracy 0.475 instead of 0.5 of noise, in 10
    unequal problems of one class each).

    Returns:
        0/1 in the order of the readings; None where a fold cannot be made (fewer than 2 problems, or one class only).
    Raises:
        ValueError: readings with different layers.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array([targets[item] for item in feats.items])
    groups = np.array([feats.group(item) for item in feats.items])
    n_folds = min(FOLDS, len(set(groups)))
    if n_folds < 2 or len(set(labels)) < 2:
        return None
    rows = _rows(feats)
    right = np.zeros(len(labels))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes rarer than folds: they simply miss in some of them
        for train, test in folds.split(rows, labels, groups):
            if len(set(labels[train])) < 2:
                right[test] = labels[test] == labels[train][0]
                continue
            weights = {one: float(np.mean(labels == one) / np.mean(labels[train] == one)) for one in set(labels[train])}
            model = LogisticRegression(max_iter=2000, class_weight=weights)
            probe = make_pipeline(StandardScaler(), model).fit(rows[train], labels[train])
            right[test] = probe.predict(rows[test]) == labels[test]
    return right


def probe_accuracy(feats: Features, targets: Mapping[str, str], *, seed: int = 0) -> Estimate | None:
    """Held-out accuracy of `probe_right` with a clustered Wilson interval; None where it is None."""
    right = probe_right(feats, targets, seed=seed)
    if right is None:
        return None
    groups = [feats.group(item) for item in feats.items]
    return wilson_clustered(right, groups=None if len(set(groups)) == len(groups) else groups)


def _rows(feats: Features) -> np.ndarray:
    layers = {feats.layers(item) for item in feats.items}
    if len(layers) > 1:
        raise ValueError(f"probe: readings of different layers ({sorted(layers)[:3]}) have no common vector.")
    vectors = feats.vectors.float().cpu().numpy()
    n = len(next(iter(layers)))
    return np.stack([vectors[list(feats.rows(i))].reshape(n, -1, feats.d_model).mean(1).ravel() for i in feats.items])
