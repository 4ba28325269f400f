"""AUROC of scores that several probes gave: pairs are compared only where one probe scored both.

Held-out scores of K folds come from K probes whose offsets move against the share of positives in their own fold (a
fold rich in positives leaves few for training). Pooled over folds, noise then has an AUROC below 1/2, by more the less
even the folds are; inside folds it has 1/2.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer, Shaped

from interp.stats import ClassEstimate, Estimate, auroc, auroc_difference, tpr_at_fpr

Scores = Float[np.ndarray, " example"]
Binary = Integer[np.ndarray, " example"]
Strata = Shaped[np.ndarray, " example"]


def pairs_won(
    scores: Float[np.ndarray, "label example"], labels: Shaped[np.ndarray, "label example"], strata: Strata
) -> tuple[Float[np.ndarray, " label"], Float[np.ndarray, " label"]]:
    """Pairs of a positive and a negative of one stratum in which the positive scores higher (ties half), and all pairs.

        won = sum over strata, positives i, negatives j of [s_i > s_j] + ½[s_i = s_j];   pairs = sum over strata n₊ n₋

    Args:
        strata: which probe scored the row (its fold, the one TEST set).
    Source: Mann & Whitney (1947); inside folds, Forman & Scholz, SIGKDD Explor. 12 (2010) 49.
    """
    won, pairs = np.zeros(len(scores)), np.zeros(len(scores))
    for stratum in np.unique(strata):
        inside = strata == stratum
        positive = np.asarray(labels[:, inside], dtype=np.float64)
        n_pos = positive.sum(axis=1)
        won += _won(scores[:, inside], positive)
        pairs += n_pos * (positive.shape[1] - n_pos)
    return won, pairs


def _won(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Negatives below each positive, ties half, summed [label]: one sort where nothing is tied, else midranks."""
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    if (ranked[:, 1:] == ranked[:, :-1]).any():
        from scipy.stats import rankdata

        n_pos = positive.sum(axis=1)
        return (rankdata(scores, axis=1) * positive).sum(axis=1) - n_pos * (n_pos + 1) / 2
    sorted_positive = np.take_along_axis(positive, order, axis=1)
    return (sorted_positive * np.cumsum(1 - sorted_positive, axis=1)).sum(axis=1)


def auroc_many(
    scores: Float[np.ndarray, "label example"],
    labels: Shaped[np.ndarray, "label example"],
    strata: Strata | None = None,
) -> Float[np.ndarray, " label"]:
    """AUROC of each row of scores for its own row of 0/1 labels, inside strata; NaN where no stratum has both classes.

    Source: as `pairs_won`; equals interp.stats.auroc in one stratum.
    """
    won, pairs = pairs_won(scores, labels, np.zeros(scores.shape[1]) if strata is None else strata)
    with np.errstate(invalid="ignore", divide="ignore"):
        return won / pairs


def area(
    scores: Scores, labels: Binary, *, groups: np.ndarray, strata: Strata | None = None, least_se: float = 0.0
) -> Estimate:
    """`interp.stats.auroc` inside strata; undefined where no stratum has both classes.

    Raises:
        ValueError: one group, lengths differ, NaN, labels that are not 0/1.
    """
    if not _has_pairs(labels, strata):
        return Estimate.undefined(len(scores), len(np.unique(groups)))
    return auroc(scores, labels, groups=groups, strata=strata, least_se=least_se).estimate


def area_difference(
    a: Scores, b: Scores, labels: Binary, *, groups: np.ndarray, strata: Strata | None = None,
    labels_b: Binary | None = None,
) -> Estimate:  # fmt: skip
    """`interp.stats.auroc_difference` inside strata; undefined where no stratum has both classes.

    Raises:
        ValueError: as `area`.
    """
    if not (_has_pairs(labels, strata) and (labels_b is None or _has_pairs(labels_b, strata))):
        return Estimate.undefined(len(a), len(np.unique(groups)))
    return auroc_difference(a, b, labels, labels_b=labels_b, groups=groups, strata=strata).estimate


def recall_at_fpr(
    scores: Scores, labels: Binary, *, groups: np.ndarray, strata: Strata, max_fpr: float
) -> ClassEstimate:
    """Share of positives above the threshold that at most `max_fpr` of the negatives pass, one threshold per stratum.

    `interp.stats.tpr_at_fpr` of minus the share of the negatives of its stratum that score at least as high: thresholds
    of probes with different offsets are not one number, the share of negatives that pass is. Rows of strata without
    negatives are left out.

    Raises:
        ValueError: as `tpr_at_fpr`.
    Source: the operating point of arXiv 2502.03407 (1 % on control data).
    """
    passed, kept = np.zeros(len(scores)), np.zeros(len(scores), dtype=bool)
    for stratum in np.unique(strata):
        inside = strata == stratum
        negatives = np.sort(scores[inside & (labels != 1)])
        if len(negatives):
            above = len(negatives) - np.searchsorted(negatives, scores[inside], side="left")
            passed[inside], kept[inside] = above / len(negatives), True
    return tpr_at_fpr(-passed[kept], labels[kept], groups=groups[kept], max_fpr=max_fpr)


def _has_pairs(labels: np.ndarray, strata: np.ndarray | None) -> bool:
    where = np.zeros(len(labels)) if strata is None else strata
    return bool(np.isin(where[labels == 1], where[labels != 1]).any())
