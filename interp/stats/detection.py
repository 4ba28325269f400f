"""Signal detection: how well two classes are told apart, and how the answers lean, as two separate numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, pi, sqrt

import numpy as np

from interp.stats._check import Groups, Values, binary, group_codes, same_length
from interp.stats.clustered import effective_t, rate_on
from interp.stats.estimate import Estimate, Sampling
from interp.stats.intervals import z_value
from interp.stats.jackknife import effective_groups
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class Detection:
    """d' and criterion with the two rates they come from.

    Attributes:
        d_prime:   0 for answers that ignore the signal, whatever their lean.
        criterion: 0 for no lean, > 0 for answers that lean to "no".
        hit_rate, false_alarm_rate: P(yes | signal), P(yes | no signal), uncorrected.
    """

    d_prime: Estimate
    criterion: Estimate
    hit_rate: Estimate
    false_alarm_rate: Estimate


def signal_detection(
    said_yes: Values,
    is_signal: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Detection:
    """d' and criterion over the pooled grid: one-sided cells cannot tell "verifies" from "always says X".

        H = (hits + ½)/(n_signal + 1),  F = (false alarms + ½)/(n_noise + 1)     log-linear correction
        d' = z(H) - z(F),   c = -(z(H) + z(F))/2

    Interval: with groups=None the delta method, var d' = H(1-H)/(n_signal φ(zH)²) + F(1-F)/(n_noise φ(zF)²),
    var c = var d'/4. With groups the rule of `interp.stats.jackknife`; where a rate is 0 or 1 the groups show too
    little spread, and the union with the delta interval that counts each effective group once is given.

    Args:
        said_yes:  the answer was the signal class (say, noncompliant) [example]; unparsed counts as not said.
        is_signal: gold is the signal class [example].
    Raises:
        ValueError: one class missing, lengths differ, one group, NaN.
    Source: Macmillan & Creelman, *Detection Theory* (2005); Hautus, Behav. Res. Meth. 27 (1995) 46 (correction);
        Gourevitch & Galanter, Psychometrika 32 (1967) 25 (variance).
    """
    yes, signal = binary("said_yes", said_yes), binary("is_signal", is_signal)
    n = same_length(said_yes=yes, is_signal=signal)
    if signal.all() or not signal.any():
        raise ValueError(
            f"is_signal: expected both classes, got {int(signal.sum())} signal of {n}. Pool cells of both polarities."
        )
    codes = group_codes(groups, n)
    columns = np.column_stack([yes & signal, signal, yes & ~signal, ~signal]).astype(np.float64)
    value = _dprime_and_criterion(columns.sum(axis=0))
    delta = _delta_limits(columns.sum(axis=0), value, z_value(sampling.confidence))
    limits = delta
    if groups is not None:
        draws = resample_sums(columns, _dprime_and_criterion, groups=groups, sampling=sampling)
        out = draws.estimates()
        limits = np.column_stack([out.lo, out.hi])
        if _at_boundary(columns.sum(axis=0)):
            once = columns.sum(axis=0) * float(effective_groups(codes.sizes)) / n
            wide = _delta_limits(once, value, effective_t(codes, sampling.confidence))
            # fmin, fmax: the jackknife has no interval where no group differs
            limits = np.column_stack([np.fmin(limits[:, 0], wide[:, 0]), np.fmax(limits[:, 1], wide[:, 1])])
    d, c = (
        Estimate(float(v), float(lo), float(hi), n, codes.n_groups) for v, (lo, hi) in zip(value, limits, strict=True)
    )
    hit, alarm = (rate_on(yes, rows, groups=groups, confidence=sampling.confidence) for rows in (signal, ~signal))
    return Detection(d, c, hit, alarm)


def _dprime_and_criterion(sums: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    hits, n_signal, alarms, n_noise = np.moveaxis(sums, -1, 0)
    z_hit, z_alarm = ndtri((hits + 0.5) / (n_signal + 1)), ndtri((alarms + 0.5) / (n_noise + 1))
    z_hit = np.where((n_signal > 0) & (n_noise > 0), z_hit, np.nan)
    return np.stack([z_hit - z_alarm, -(z_hit + z_alarm) / 2], axis=-1)


def _delta_limits(sums: np.ndarray, value: np.ndarray, z: float) -> np.ndarray:
    from scipy.special import ndtri

    variance = 0.0
    for event, trials in (sums[:2], sums[2:]):
        rate = (event + 0.5) / (trials + 1)
        density = exp(-(float(ndtri(rate)) ** 2) / 2) / sqrt(2 * pi)
        variance += rate * (1 - rate) / (trials * density**2)
    half = z * sqrt(variance) * np.array([1.0, 0.5])
    return np.column_stack([value - half, value + half])


def _at_boundary(sums: np.ndarray) -> bool:
    return any(event in (0, trials) for event, trials in (sums[:2], sums[2:]))
