"""Metrics of a probe's fixed scores, each with its interval over groups; AUROC compares pairs that one probe scored.

Held-out scores of K folds come from K probes whose offsets move against the share of positives in their own fold (a
fold rich in positives leaves few for training). Pooled over folds, noise then has an AUROC below 1/2, by more the less
even the folds are; inside folds it has 1/2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer, Shaped

from interp.stats import (
    ClassEstimate,
    Estimate,
    FewGroupsWarning,
    NoWidthWarning,
    Sampling,
    UndefinedDrawsWarning,
    auroc,
    auroc_difference,
    calibration_error,
    cluster_t,
    tpr_at_fpr,
    wilson_clustered,
)
from interp.stats.check import group_codes
from interp.stats.estimate import CONFIDENCE
from interp.stats.jackknife import RULE, Jackknife, effective_groups, jackknife_limits, max_t_quantile
from interp.stats.ranking import auroc_left_out

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
    """Negatives below each positive, ties half, summed [label], after one sort of each row."""
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    sorted_positive = np.take_along_axis(positive, order, axis=1)
    below = np.cumsum(1 - sorted_positive, axis=1)
    begins = ranked[:, 1:] != ranked[:, :-1]
    if begins.all():
        return (sorted_positive * below).sum(axis=1)
    # runs of equal scores: negatives before the run, and half of those in it
    starts = np.flatnonzero(np.concatenate([np.ones((len(ranked), 1), dtype=bool), begins], axis=1))
    own_positive = sorted_positive.ravel()
    positives, negatives = np.add.reduceat(own_positive, starts), np.add.reduceat(1 - own_positive, starts)
    before = below.ravel()[starts] - (1 - own_positive[starts])
    pairs = positives * (before + negatives / 2)
    return np.bincount(starts // ranked.shape[1], weights=pairs, minlength=len(ranked))


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
    a: Scores,
    b: Scores,
    labels: Binary,
    *,
    groups: np.ndarray,
    strata: Strata | None = None,
    labels_b: Binary | None = None,
) -> Estimate:
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


N_BINS = 15
"""Equal-mass bins of the expected calibration error."""
INTERVALS = {
    "auroc": "score interval over groups", "auroc_gain": "score intervals over groups, squared and added",
    "accuracy": "Wilson at the effective n", "ece": "triangle inequality over resampled groups",
    "platt_ece": "triangle inequality over resampled groups",
}  # fmt: skip


def interval_of(metric: str) -> str:
    """Which interval `score_table` gives with a metric, over groups in every case."""
    return INTERVALS.get(metric, RULE)


def balanced_accuracy(scores: Scores, labels: Binary, *, groups: np.ndarray, strata: Strata | None = None) -> Estimate:
    """Mean of the accuracies inside the two classes at threshold 0, inside strata; 1/2 for every constant answer.

        sum over strata with both classes of n · (right₊/n₊ + right₋/n₋)/2, over their rows

    Pooled over strata it is below 1/2 for noise, as AUROC is. Interval: the rule of all means,
    `jackknife_limits`.

    Raises:
        ValueError: one group, lengths differ.
    """
    codes = group_codes(groups, len(scores))
    where = np.zeros(len(scores), dtype=int) if strata is None else np.unique(strata, return_inverse=True)[1]
    right, positive = (scores > 0) == (labels == 1), labels == 1
    cells = np.column_stack([right & positive, positive, right & ~positive, ~positive]).astype(np.float64)
    columns = (np.eye(where.max() + 1)[where][:, :, None] * cells[:, None, :]).reshape(len(scores), -1)
    sums = codes.sums(columns)
    value, left_out = float(_balanced(sums.sum(axis=0))), _balanced(sums.sum(axis=0) - sums)
    if np.isnan(value):
        return Estimate.undefined(len(scores), codes.n_groups)
    effective = float(effective_groups(codes.sizes))
    lo, hi = jackknife_limits(
        np.array([value]), left_out[:, None], effective=effective, confidence=CONFIDENCE, bounds=(0.0, 1.0)
    )
    return Estimate(value, float(lo[0]), float(hi[0]), len(scores), codes.n_groups)


def _balanced(sums: np.ndarray) -> np.ndarray:
    """From [..., stratum x (right₊, n₊, right₋, n₋)]; NaN where no stratum has both classes."""
    cells = sums.reshape(*sums.shape[:-1], -1, 4)
    n = np.where((cells[..., 1] > 0) & (cells[..., 3] > 0), cells[..., 1] + cells[..., 3], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.where(n > 0, (cells[..., 0] / cells[..., 1] + cells[..., 2] / cells[..., 3]) / 2, 0.0)
        return np.asarray((n * inside).sum(axis=-1) / n.sum(axis=-1))


def score_table(
    scores: Scores,
    labels: Binary,
    *,
    groups: np.ndarray,
    strata: Strata | None = None,
    is_logit: bool,
    least_se: float = 0.0,
    sampling: Sampling = Sampling(),
) -> Mapping[str, Estimate]:
    """Every metric of one set of fixed scores: auroc, accuracy, balanced_accuracy; of logits also log_loss, brier, ece.

    AUROC and balanced accuracy inside strata, the others row by row. Threshold 0 on scores, never 0.5. Apart from
    `least_se` the intervals (see `interval_of`) ignore that another training set would have given another probe.

    Args:
        strata: which probe scored each row: its fold; None for one probe.
        least_se: smallest standard error of AUROC at 1/2, from a permutation null; see `interp.stats.auroc`.
        sampling: sampling for the calibration error; the other intervals draw nothing and are 95 %.
    Raises:
        ValueError: one class, one group, NaN.
    """
    right = ((scores > 0) == (labels == 1)).astype(np.float64)
    out = {
        "auroc": area(scores, labels, groups=groups, strata=strata, least_se=least_se),
        "accuracy": wilson_clustered(right, groups=groups),
        "balanced_accuracy": balanced_accuracy(scores, labels, groups=groups, strata=strata),
    }
    if is_logit:
        out |= probability_table(scores, labels, groups=groups, sampling=sampling)
    return out


def probability_table(
    logits: Scores, labels: Binary, *, groups: np.ndarray, sampling: Sampling = Sampling()
) -> dict[str, Estimate]:
    """log_loss (nats), brier and, from 15 rows on, ece (drawn by `sampling`) of the probabilities sigmoid(logits).

    Raises:
        ValueError: one group, NaN.
    """
    from scipy.special import expit

    p, loss = expit(logits), np.logaddexp(0, logits) - labels * logits
    with warnings.catch_warnings():
        quiet()
        out = {
            "log_loss": cluster_t(loss, groups=groups, bounds=(0.0, np.inf)),
            "brier": cluster_t((p - labels) ** 2, groups=groups, bounds=(0.0, 1.0)),
        }
        if len(p) >= N_BINS:
            out["ece"] = calibration_error(p, labels, n_bins=N_BINS, groups=groups, sampling=sampling).ece
    return out


def quiet() -> None:
    """Silence warnings that the sweep itself has already raised once."""
    for category in (FewGroupsWarning, NoWidthWarning, UndefinedDrawsWarning):
        warnings.simplefilter("ignore", category)


def layer_bands(
    scores: Float[np.ndarray, "layer example"],
    labels: Binary,
    *,
    groups: np.ndarray,
    strata: Strata,
    least_se: Sequence[float],
    sampling: Sampling = Sampling(),
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """(lo, hi) of the AUROC of each layer, such that all of them hold at once with the confidence of `sampling` (95 %).

        c = 95 % quantile of max over layers |t*| over resampled groups, from leave-one-group-out values, at most
            Bonferroni's;  t = Student's quantile of one layer alone, on the effective groups
        band: the interval of `interp.stats.auroc` at the confidence whose normal quantile is 1.96 · max(1, c/t)

    Args:
        scores: held-out, one row for each layer.  strata: which probe scored each row.
        least_se: standard error of each layer's permutation null, see `interp.stats.auroc`.
    Raises:
        ValueError: as `auroc`.
    Source: Montiel Olea & Plagborg-Møller, J. Appl. Econom. 34 (2019) 1; see `interp.stats.band_of`.
    """
    from scipy.special import ndtr, ndtri

    options = dict(groups=groups, strata=strata)
    left_out = np.stack([auroc_left_out(s, labels, **options) for s in scores], axis=1)
    sizes = np.unique(groups, return_counts=True)[1]
    knife = Jackknife.of(left_out, effective_groups(sizes.astype(float)))
    moving, level = knife.se > 0, sampling.confidence
    confidence = level
    if moving.any():
        alone = float(np.max(knife.quantile(level)))
        bonferroni = float(np.max(knife.quantile(1 - (1 - level) / int(moving.sum()))))
        c = min(bonferroni, max_t_quantile(knife.deviation[:, moving], sampling))
        confidence = min(1 - 1e-9, float(2 * ndtr(ndtri(0.5 + level / 2) * max(1.0, c / alone)) - 1))
    estimates = [
        auroc(s, labels, least_se=float(se), confidence=confidence, **options)
        for s, se in zip(scores, least_se, strict=True)
    ]
    return np.array([e.lo for e in estimates]), np.array([e.hi for e in estimates])
