"""Numbers of a probe's fixed scores: an interval over groups with each, and AUROC of many labels at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from interp.stats import (
    Estimate,
    FewGroupsWarning,
    NoWidthWarning,
    UndefinedDrawsWarning,
    auroc,
    auroc_difference,
    brier,
    calibration_error,
    cluster_mean,
    tpr_at_fpr,
)
from interp.stats.resample import resample_sums
from probes.few_groups import BOOTSTRAP, JACKKNIFE, are_few, jackknife_t

Scores = Float[np.ndarray, " example"]
Binary = Integer[np.ndarray, " example"]


def auroc_many(scores: Float[np.ndarray, "label example"], labels: Shaped[np.ndarray, "label example"]) -> np.ndarray:
    """AUROC of each row of scores for its own row of 0/1 labels [label]; NaN where a class is missing.

        AUROC = (sum of midranks of positives - n₊(n₊ + 1)/2) / (n₊ n₋)

    Source: Hanley & McNeil (1982); equals interp.stats.auroc, which adds the interval.
    """
    from scipy.stats import rankdata

    positive = np.asarray(labels, dtype=np.float64)
    n_pos = positive.sum(axis=1)
    n_neg = positive.shape[1] - n_pos
    total = (rankdata(scores, axis=1) * positive).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)


def balanced_accuracy(
    scores: Scores, labels: Binary, *, groups: np.ndarray, seed: int, n_resamples: int = 2000
) -> Estimate:
    """Mean of the accuracies inside the two classes at threshold 0, cluster bootstrap.

    Raises:
        ValueError: one group, lengths differ.
    """
    right, positive = (scores > 0) == (labels == 1), labels == 1
    columns = np.column_stack([right & positive, positive, right & ~positive, ~positive]).astype(np.float64)
    draws = resample_sums(
        columns,
        lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2,
        groups=groups,
        seed=seed,
        n_resamples=n_resamples,
    )
    return draws.estimate()


def recall_at_fpr(
    scores: Scores,
    labels: Binary,
    *,
    groups: np.ndarray,
    max_fpr: float,
    seed: int,
    negatives: Float[np.ndarray, " negative"] | None = None,
    n_resamples: int = 2000,
) -> Estimate:
    """Share of positives above the threshold that lets at most `max_fpr` of the negatives through.

        Args:
        negatives: scores of a separate control set that alone fixes the threshold (unrelated chat data); the
            negatives of `labels` where None.
    Raises:
        ValueError: max_fpr outside [0, 1); no positives or no negatives.
    Source: `interp.stats.tpr_at_fpr`; the operating point of arXiv 2502.03407 (1 % on control data).
    """
    return tpr_at_fpr(scores, labels, groups=groups, max_fpr=max_fpr, control=negatives).estimate


N_BINS = 15
"""Equal-mass bins of the expected calibration error."""
SCORE = "score interval over groups"
_UNIT = (0.0, 1.0)
_BOUNDS = {
    "accuracy": _UNIT, "balanced_accuracy": _UNIT, "brier": _UNIT, "log_loss": (0.0, float("inf")),
}  # fmt: skip


def interval_of(metric: str, groups: np.ndarray) -> str:
    """Which interval `score_table` and `area` give: of AUROC a score interval, else a bootstrap of groups, below 20
    leave-one-group-out."""
    if metric == "auroc":
        return SCORE
    return JACKKNIFE if are_few(groups) and metric not in ("ece", "platt_ece") else BOOTSTRAP


def area(scores: Scores, labels: Binary, *, groups: np.ndarray, seed: int, n_resamples: int = 2000) -> Estimate:
    """AUROC with the score interval over groups of `interp.stats.auroc`.

    Raises:
        ValueError: one class, one group, NaN.
    """
    return auroc(scores, labels, groups=groups).estimate


def area_difference(
    a: Scores, b: Scores, labels: Binary, *, groups: np.ndarray, seed: int, n_resamples: int = 2000
) -> Estimate:
    """AUROC of a minus AUROC of b on the same rows, paired.

    Raises:
        ValueError: as `area`.
    """
    return auroc_difference(a, b, labels, groups=groups).estimate


def rate(right: Float[np.ndarray, " example"], *, groups: np.ndarray, seed: int, n_resamples: int = 2000) -> Estimate:
    """Mean of 0/1 or other values in [0, 1]: cluster bootstrap, below 20 groups leave-one-group-out.

    Raises:
        ValueError: one group, NaN.
    """
    if are_few(groups):
        point = lambda kept: {"accuracy": float(right[kept].mean())}  # noqa: E731
        return jackknife_t(point, groups=groups, bounds=_BOUNDS)["accuracy"]
    with warnings.catch_warnings():
        _quiet()
        return cluster_mean(right, groups=groups, seed=seed, n_resamples=n_resamples)


def score_table(
    scores: Scores, labels: Binary, *, groups: np.ndarray, is_logit: bool, seed: int, n_resamples: int = 2000
) -> Mapping[str, Estimate]:
    """Every metric of one set of fixed scores: auroc, accuracy, balanced_accuracy; of logits also log_loss, brier, ece.

    Threshold 0 on scores, never 0.5. The interval (see `interval_of`) ignores that another training set would have
    given another probe.

    Raises:
        ValueError: one class, one group, NaN.
    """
    options: dict[str, Any] = dict(groups=groups, seed=seed, n_resamples=n_resamples)
    out = {"auroc": area(scores, labels, **options)}
    right = ((scores > 0) == (labels == 1)).astype(np.float64)
    few = are_few(groups)
    if few:
        out |= _jackknifed({"accuracy": right, "balanced_accuracy": right}, labels, groups)
    else:
        with warnings.catch_warnings():
            _quiet()
            out["accuracy"] = cluster_mean(right, **options)
            out["balanced_accuracy"] = balanced_accuracy(scores, labels, **options)
    return out | (probability_table(scores, labels, **options) if is_logit else {})


def probability_table(
    logits: Scores, labels: Binary, *, groups: np.ndarray, seed: int, n_resamples: int = 2000
) -> dict[str, Estimate]:
    """log_loss (nats), brier and, from 15 rows on, ece of the probabilities sigmoid(logits).

    Raises:
        ValueError: one group, NaN.
    """
    from scipy.special import expit

    options: dict[str, Any] = dict(groups=groups, seed=seed, n_resamples=n_resamples)
    p, loss = expit(logits), np.logaddexp(0, logits) - labels * logits
    with warnings.catch_warnings():
        _quiet()
        if are_few(groups):
            out = _jackknifed({"log_loss": loss, "brier": (p - labels) ** 2}, labels, groups)
        else:
            out = {"log_loss": cluster_mean(loss, **options), "brier": brier(p, labels, **options)}
        if len(p) >= N_BINS:
            out["ece"] = calibration_error(p, labels, n_bins=N_BINS, **options).ece
    return out


def _jackknifed(rows: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> dict[str, Estimate]:
    """Leave-one-group-out estimates: means of values, over all rows or of both classes."""
    is_positive = labels == 1

    def point(kept: np.ndarray) -> dict[str, float]:
        out = {name: float(values[kept].mean()) for name, values in rows.items()}
        if "balanced_accuracy" in rows:
            sides = [rows["balanced_accuracy"][kept & side] for side in (is_positive, ~is_positive)]
            out["balanced_accuracy"] = float(np.mean([side.mean() if len(side) else np.nan for side in sides]))
        return out

    return jackknife_t(point, groups=groups, bounds=_BOUNDS)


def _quiet() -> None:
    """The sweep warns once about few groups; every estimate that follows need not."""
    for category in (FewGroupsWarning, NoWidthWarning, UndefinedDrawsWarning):
        warnings.simplefilter("ignore", category)
