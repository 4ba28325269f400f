"""Numbers of a probe's fixed scores, an interval over groups with each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Integer

from interp.stats import (
    Estimate,
    FewGroupsWarning,
    NoWidthWarning,
    Sampling,
    UndefinedDrawsWarning,
    calibration_error,
    cluster_t,
    wilson_clustered,
)
from interp.stats.check import group_codes
from interp.stats.estimate import CONFIDENCE
from interp.stats.jackknife import RULE, effective_groups, jackknife_limits
from probes.area import Strata, area

Scores = Float[np.ndarray, " example"]
Binary = Integer[np.ndarray, " example"]
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

    Pooled over strata it is below 1/2 for noise, as AUROC is (see `probes.area`). Interval: the rule of all means,
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
        least_se: of AUROC at 1/2, from a permutation null; see `interp.stats.auroc`.
        sampling: of the calibration error; the other intervals draw nothing and have 95 %.
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
    """The sweep warns once about few groups; every estimate that follows need not."""
    for category in (FewGroupsWarning, NoWidthWarning, UndefinedDrawsWarning):
        warnings.simplefilter("ignore", category)
