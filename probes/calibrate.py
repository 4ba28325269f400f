"""What a probe's scores are worth as probabilities: on TEST, as they are and after a sigmoid fitted out of fold."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from interp.stats import Estimate, FewGroupsWarning, calibration_error, fit_platt, reliability_table
from probes.config import SweepConfig
from probes.layer import LOGIT_KINDS
from probes.metrics import N_BINS, interval_of, probability_table
from probes.result import Key
from probes.splits import Split

_ROWS_PER_BIN = 10


def estimate_columns(metric: str, e: Estimate, groups: np.ndarray) -> dict[str, Any]:
    """The columns that every estimate has."""
    return dict(
        metric=metric, value=e.value, lo=e.lo, hi=e.hi, n=e.n, n_groups=e.n_groups, interval=interval_of(metric, groups)
    )


def majority(labels: np.ndarray) -> float:
    """Accuracy of always saying the commoner class."""
    positive = float(labels.mean())
    return max(positive, 1 - positive)


def calibration_rows(
    key: Key, scores: np.ndarray, y: np.ndarray, split: Split, base: Mapping[str, Any], config: SweepConfig
) -> list[dict[str, Any]]:
    """What sigmoid(score) is worth on TEST at one cell, as it is (logits) and after Platt's sigmoid fitted on DEV.

    Metrics log_loss, brier, ece, platt_log_loss, platt_brier, platt_ece (ece with the error that a calibrated reader
    would show as its null), and one row "reliability" or "platt_reliability" per equal-mass bin: value = observed
    rate, p_mean = mean stated probability. At most 15 bins, of 10 rows or more.

    Args:
        scores: held-out scores of every row [example].  base: columns that all rows share.
    Source: Platt (1999), on out-of-fold scores; bins as `interp.stats.reliability_table`.
    """
    dev, test = split.is_dev, split.is_test
    if scores[dev].std() == 0:
        return []
    platt, group = fit_platt(scores[dev], y[dev]), split.group[test]
    shared = {name: value for name, value in base.items() if name not in ("p", "n_perm", "scheme")}
    fitted = f"sigmoid({platt.slope:.4g}·score {platt.intercept:+.4g}), fitted on DEV"
    ways = {"platt_": (platt.slope * scores[test] + platt.intercept, fitted)}
    if key[3] in LOGIT_KINDS:
        ways[""] = (scores[test], "sigmoid(score)")
    rows = []
    for prefix, (logits, note) in ways.items():
        own = shared | dict(role="calibration", note=note)
        rows += [own | row for row in _curve(prefix, logits, y[test], group, config)]
    return rows


def _curve(
    prefix: str, logits: np.ndarray, y: np.ndarray, group: np.ndarray, config: SweepConfig
) -> Iterator[dict[str, Any]]:
    from scipy.special import expit

    options: dict[str, Any] = dict(groups=group, seed=config.seed, n_resamples=config.n_boot)
    for metric, e in probability_table(logits, y, **options).items():
        if metric != "ece":
            yield estimate_columns(prefix + metric, e, group)
    n_bins, p = min(N_BINS, len(y) // _ROWS_PER_BIN), expit(logits)
    if n_bins < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)
        error = calibration_error(p, y, n_bins=n_bins, **options)
        parts = reliability_table(p, y, groups=group, n_bins=n_bins)
    floor = dict(null_mean=error.floor.value, null_lo=error.floor.lo, null_hi=error.floor.hi)
    yield estimate_columns(prefix + "ece", error.ece, group) | floor
    for b, part in enumerate(parts):
        bounds = dict(bin=b, p_lo=part.lo, p_hi=part.hi, p_mean=part.mean_p, interval="Wilson at the effective n")
        yield estimate_columns(prefix + "reliability", part.rate, group) | bounds
