"""Answers against the truth: d' and criterion, true positives at a false-positive rate, kappa of an ordered scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, hypot, pi, sqrt
from typing import Any

import numpy as np

from interp.stats.check import Groups, Real, Values, binary, choice, group_codes, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.intervals import z_value
from interp.stats.jackknife import effective_groups
from interp.stats.means import effective_t, rate_on, wilson_clustered
from interp.stats.ranking import ClassEstimate
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
    little spread, and the union with the delta interval that counts each effective group once.

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


def tpr_at_fpr(
    scores: Values,
    labels: Values,
    *,
    groups: Groups,
    max_fpr: Real,
    control: Values | None = None,
    control_groups: Groups = None,
    confidence: float = CONFIDENCE,
) -> ClassEstimate:
    """Share of positives above the threshold that lets at most `max_fpr` of the negatives through.

        threshold c = the (floor(max_fpr · n_neg) + 1)-th largest negative;   TPR = mean over positives of [s_i > c]

    Two errors are squared and added: that of the TPR at this threshold (Wilson, clustered: l, u), and that of the
    threshold. c_high and c_low bound the thresholds whose own FPR interval (Wilson, clustered) contains `max_fpr`:

        lo = TPR - sqrt( (TPR - l)² + (TPR - TPR(c_high))² ),   hi = TPR + sqrt( (u - TPR)² + (TPR(c_low) - TPR)² )

    With fewer than about 4/max_fpr independent negatives even a threshold above all of them may let more through, so
    c_high is infinite and lo is 0: 1 % cannot be shown with 100 negatives. Positives inside one group: [0, 1].

    Args:
        scores: larger means more positive [example].  labels: 1 for positive [example].
        max_fpr: share of negatives that may pass, in [0, 1).
        control: scores of a separate set of negatives that alone fixes the threshold (unrelated chat data); the
            negatives of `labels` where None.  control_groups: their groups.
    Raises:
        ValueError: max_fpr outside [0, 1), no positives, no negatives, one group, NaN, lengths differ.
    Source: Newcombe (1998), squaring and adding; Woodruff, JASA 47 (1952) 635, interval of a quantile from rates.
    """
    if not 0 <= max_fpr < 1:
        raise ValueError(f"max_fpr: expected a rate in [0, 1), got {max_fpr!r}. Write 0.01 for 1 %.")
    s, y = numbers("scores", scores), binary("labels", labels)
    codes = group_codes(groups, same_length(scores=s, labels=y))
    if control is None:
        negatives, units = s[~y], None if groups is None else codes.code[~y]
    else:
        negatives = numbers("control", control)
        units = None if control_groups is None else group_codes(control_groups, len(negatives), at_least=1).code
    if not y.any() or not len(negatives):
        raise ValueError(f"labels: expected positives and negatives, got {int(y.sum())} positive of {len(y)}.")
    cut = _thresholds(negatives, units, max_fpr, confidence)
    value, least, most = (float((s[y] > c).mean()) for c in cut)
    own = rate_on(s > cut[0], y, groups=None if groups is None else codes.code, confidence=confidence)
    lo = max(0.0, value - hypot(value - own.lo, value - least))
    hi = min(1.0, value + hypot(own.hi - value, most - value))
    in_pos, in_neg = len(np.unique(codes.code[y])), len(negatives) if units is None else len(np.unique(units))
    n_groups = codes.n_groups if control is None else in_pos + in_neg
    return ClassEstimate(value, lo, hi, int(y.sum()), len(negatives), in_pos, in_neg, n_groups)


def _thresholds(
    negatives: np.ndarray, units: np.ndarray | None, max_fpr: Real, confidence: float
) -> tuple[float, float, float]:
    """The threshold in use, and the highest and lowest that are compatible with the rate asked for."""
    ordered, n = np.sort(negatives)[::-1], len(negatives)
    k = int(np.floor(max_fpr * n * (1 + 1e-12)))
    if units is not None and len(np.unique(units)) < 2:
        return float(ordered[k]), np.inf, -np.inf

    def passed(count: int) -> tuple[float, float]:
        """Interval of the FPR of a threshold with the `count` largest negatives above it."""
        above = negatives >= ordered[count - 1] if count else np.zeros(n, dtype=bool)
        e = wilson_clustered(above, groups=units, confidence=confidence)
        return e.lo, e.hi

    first = _first(lambda c: passed(c)[1] >= max_fpr, n)  # fewest above with the rate still inside
    last = _first(lambda c: passed(c)[0] > max_fpr, n) - 1  # most above
    high = float(np.nextafter(ordered[first - 1], -np.inf)) if first else np.inf
    low = float(ordered[last]) if last < n else -np.inf
    return float(ordered[k]), high, low


def _first(holds: Callable[[int], bool], n: int) -> int:
    """Smallest count in 0..n for which a condition that stays true holds; n + 1 if none."""
    lo, hi = 0, n + 1
    while lo < hi:
        middle = (lo + hi) // 2
        if holds(middle):
            hi = middle
        else:
            lo = middle + 1
    return lo


WEIGHTS = ("quadratic", "linear", "none")


@dataclass(frozen=True)
class Kappa:
    """Kappa with its interval.

    Attributes:
        n_undefined: groups without which there is no kappa (both ratings constant: 0/0); the interval is then [-1, 1].
    """

    kappa: Estimate
    n_undefined: int


def weighted_kappa(
    gold: Values,
    rated: Values,
    *,
    levels: Sequence[Any],
    groups: Groups,
    weights: str = "quadratic",
    sampling: Sampling = Sampling(),
) -> Kappa:
    """Chance-corrected agreement of two ratings of the same examples.

        kappa = 1 - sum_ij w_ij O_ij / sum_ij w_ij E_ij;   O = shares of each pair of levels, E = product of margins
        w_ij = (i - j)²/(K-1)² quadratic, |i - j|/(K-1) linear, [i != j] none

    0 for a constant prediction, 1 for perfect agreement; undefined (NaN) where both ratings are constant. The interval
    is that of a number between -1 and 1 (`interp.stats.jackknife`): it has width at 1, and is [-1, 1] where
    kappa is undefined without one of the groups.

    Args:
        gold, rated: levels of each example [example]; remove unparsed ratings first and report their rate.
        levels: every level of the scale in order, also those that do not occur (ESI: 1, 2, 3, 4, 5).
        groups: independent unit of each example (the subject), or None.
    Raises:
        ValueError: lengths differ, a rating outside the levels, fewer than 2 levels, one group.
    Source: Cohen, Psychol. Bull. 70 (1968) 213.

    Example:
        >>> from interp.stats import weighted_kappa
        >>> gold, rated = [1, 2, 3, 4, 5, 3, 2, 4], [1, 2, 3, 5, 5, 3, 1, 4]
        >>> print(weighted_kappa(gold, rated, levels=range(1, 6), groups=None).kappa)
        0.933 [0.686, 0.987] (n=8)
    """
    choice("weights", weights, WEIGHTS)
    levels = list(levels)
    if len(levels) < 2 or len(set(levels)) != len(levels):
        raise ValueError(f"levels: expected at least 2 different levels in order, got {levels}.")
    i, j = _indices("gold", gold, levels), _indices("rated", rated, levels)
    n, k = same_length(gold=i, rated=j), len(levels)
    cells = np.zeros((n, k * k))
    cells[np.arange(n), i * k + j] = 1.0
    penalty = _penalty(k, weights)
    draws = resample_sums(
        cells,
        lambda sums: _kappa(sums, penalty),
        groups=groups,
        sampling=sampling,
        bounds=(-1.0, 1.0),
    )
    return Kappa(draws.estimate(), int(np.isnan(draws.left_out).sum()))


def _kappa(sums: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    k = len(penalty)
    observed = sums.reshape(*sums.shape[:-1], k, k)
    total = observed.sum(axis=(-2, -1))
    expected = observed.sum(axis=-1)[..., :, None] * observed.sum(axis=-2)[..., None, :]
    disagreement = (penalty * observed).sum(axis=(-2, -1)) / (penalty * expected).sum(axis=(-2, -1))
    return np.asarray(1 - total * disagreement)


def _penalty(k: int, weights: str) -> np.ndarray:
    gap = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1)
    return {"quadratic": gap**2, "linear": gap, "none": (gap > 0).astype(float)}[weights]


def _indices(name: str, values: Values, levels: list[Any]) -> np.ndarray:
    index = {level: i for i, level in enumerate(levels)}
    try:
        codes = [index[value] for value in np.asarray(values).tolist()]
    except KeyError as error:
        raise ValueError(
            f"{name}: expected one of {levels}, got {error.args[0]!r}. Remove unparsed ratings and report their rate."
        ) from error
    if not codes:
        raise ValueError(f"{name}: expected at least 1 rating, got 0.")
    return np.array(codes)
