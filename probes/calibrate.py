"""Calibration of a probe on TEST: sigmoid(score) as it is, and after a sigmoid fitted out of fold."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from interp.stats import Estimate, FewGroupsWarning, calibration_error, fit_platt, reliability_table
from probes.config import SweepConfig
from probes.metrics import N_BINS, interval_of, probability_table
from probes.splits import Split

_ROWS_PER_BIN = 10


def estimate_columns(metric: str, e: Estimate) -> dict[str, Any]:
    """The columns of every estimate."""
    return dict(
        metric=metric, value=e.value, lo=e.lo, hi=e.hi, n=e.n, n_groups=e.n_groups, interval=interval_of(metric)
    )


def majority(labels: np.ndarray) -> float:
    """Accuracy of always predicting the more frequent class."""
    positive = float(labels.mean())
    return max(positive, 1 - positive)


def calibration_rows(
    kind: str,
    looks: Sequence[tuple[Split, np.ndarray]],
    y: np.ndarray,
    split: Split,
    base: Mapping[str, Any],
    config: SweepConfig,
) -> list[dict[str, Any]]:
    """What sigmoid(score) is worth on TEST, as it is (logits) and after Platt's sigmoid fitted on DEV, look by look.

    Metrics log_loss, brier, ece, platt_log_loss, platt_brier, platt_ece (ece with the error of a calibrated
    probability as its null), and one row "reliability" or "platt_reliability" per equal-mass bin: value = observed
    rate, p_mean = mean stated probability. At most 15 bins, of 10 rows or more.

    Args:
        looks: each look at TEST and the scores of every row at the cell that it chose.  base: columns of all rows.
    Source: Platt (1999), on out-of-fold scores; bins as `interp.stats.reliability_table`.
    """
    fits = [fit_platt(s[part.is_dev], y[part.is_dev]) if s[part.is_dev].std() > 0 else None for part, s in looks]
    tested, raw, fitted = split.is_tested, np.zeros(len(y)), np.zeros(len(y))
    if any(fit is None for fit in fits):
        return []
    for (part, scores), fit in zip(looks, fits, strict=True):
        assert fit is not None
        raw[part.is_test] = scores[part.is_test]
        fitted[part.is_test] = fit.slope * scores[part.is_test] + fit.intercept
    shared = {name: value for name, value in base.items() if name not in ("p", "n_perm", "scheme", "p_least")}
    slopes = ", ".join(f"{fit.slope:.4g}·score {fit.intercept:+.4g}" for fit in fits if fit is not None)
    ways = {"platt_": (fitted, f"sigmoid({slopes}), fitted on DEV")}
    if config.table[kind].is_logit:
        ways[""] = (raw, "sigmoid(score)")
    rows = []
    for prefix, (logits, note) in ways.items():
        own = shared | dict(role="calibration", note=note)
        rows += [own | row for row in _curve(prefix, logits[tested], y[tested], split.group[tested], config)]
    return rows


def _curve(
    prefix: str, logits: np.ndarray, y: np.ndarray, group: np.ndarray, config: SweepConfig
) -> Iterator[dict[str, Any]]:
    from scipy.special import expit

    options: dict[str, Any] = dict(groups=group, sampling=config.sampling)
    for metric, e in probability_table(logits, y, **options).items():
        if metric != "ece":
            yield estimate_columns(prefix + metric, e)
    n_bins, p = min(N_BINS, len(y) // _ROWS_PER_BIN), expit(logits)
    if n_bins < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)
        error = calibration_error(p, y, n_bins=n_bins, **options)
        parts = reliability_table(p, y, groups=group, n_bins=n_bins)
    floor = dict(null_mean=error.floor.value, null_lo=error.floor.lo, null_hi=error.floor.hi)
    yield estimate_columns(prefix + "ece", error.ece) | floor
    for b, part in enumerate(parts):
        bounds = dict(bin=b, p_lo=part.lo, p_hi=part.hi, p_mean=part.mean_p, interval="Wilson at the effective n")
        yield estimate_columns(prefix + "reliability", part.rate) | bounds
