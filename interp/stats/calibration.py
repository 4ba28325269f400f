"""Whether probabilities mean what they say: ECE with its floor, Brier, reliability table, confidence on errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Seed, Values, binary, generator, group_codes, probabilities, same_length
from interp.stats.bootstrap import cluster_mean
from interp.stats.clustered import rate_on
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.resample import N_RESAMPLES, resample_sums

N_BINS = 10
FLOOR_DRAWS = 1000


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error beside the value that a perfectly calibrated reader would have shown.

    Attributes:
        ece:        the error; its interval is shifted by the bootstrap's bias and cut at 0.
        floor:      mean and 95 % range of the error under outcomes drawn from the stated probabilities: finite
            samples never give 0.
        p:          share of such draws with an error at least as large (outcomes drawn independently).
        n_bins:     bins in use (fewer than asked for where many probabilities are equal).
    """

    ece: Estimate
    floor: Estimate
    p: float
    n_bins: int


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability plot: stated probability against the observed rate."""

    lo: float
    hi: float
    mean_p: float
    rate: Estimate


def equal_mass_bins(p: Values, n_bins: int = N_BINS) -> np.ndarray:
    """Bin of each probability, 0 .. n_bins-1, so that bins hold equally many and equal probabilities share one.

        bin = floor( n_bins · (midrank - ½) / n )

    Raises:
        ValueError: fewer examples than bins, p outside [0, 1], NaN.
    Source: adaptive calibration error, Nixon et al., arXiv 1904.01685; midranks are ours, so that the order
        of rows cannot matter.
    """
    from scipy.stats import rankdata

    p = probabilities("p", p)
    if n_bins < 1 or len(p) < n_bins:
        raise ValueError(f"p: expected at least n_bins = {n_bins} (1 or more) examples, got {len(p)}. Use fewer bins.")
    return np.floor(n_bins * (rankdata(p) - 0.5) / len(p)).astype(int)


def calibration_error(
    p: Values,
    outcome: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_bins: int = N_BINS,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> CalibrationError:
    """Expected calibration error over equal-mass bins, with its interval and its floor.

        ECE = sum_b (n_b/n) · | mean outcome in b - mean p in b |

    Resampling adds noise to every bin, which |·| turns into bias: the percentile interval is moved by
    mean(draws) - value. Bin edges stay those of the data.

    Args:
        p: stated probability of the outcome, or the confidence in the given answer [example].
        outcome: whether it happened, or whether the answer was right [example].
    Raises:
        ValueError: lengths differ, p outside [0, 1], fewer examples than bins, one group, NaN.
    Source: Guo et al., arXiv 1706.04599; floor: consistency resampling, Bröcker & Smith, Weather Forecast. 22 (2007).
    """
    p, y = probabilities("p", p), binary("outcome", outcome)
    n = same_length(p=p, outcome=y)
    _, bins = np.unique(equal_mass_bins(p, n_bins), return_inverse=True)
    used, seeds = int(bins.max()) + 1, generator(seed).spawn(2)
    columns = np.zeros((n, used + 1))
    columns[np.arange(n), bins] = y - p
    columns[:, used] = 1.0
    draws = resample_sums(columns, _ece, groups=groups, seed=seeds[0], n_resamples=n_resamples)
    value, n_groups = float(draws.value), draws.n_groups
    tails = (0.5 - confidence / 2, 0.5 + confidence / 2)
    lo, hi = np.quantile(draws.resampled, tails) - (draws.resampled.mean() - value)
    floor = _floor(p, bins, seeds[1])
    return CalibrationError(
        ece=Estimate(value, max(0.0, float(lo)), max(0.0, float(hi)), n, n_groups),
        floor=Estimate(float(floor.mean()), *map(float, np.quantile(floor, tails)), n=n, n_groups=n_groups),
        p=float((1 + (floor >= value * (1 - 1e-9)).sum()) / (1 + len(floor))),
        n_bins=used,
    )


def brier(
    p: Values,
    outcome: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean squared error of stated probabilities, mean (p - outcome)²; 0.25 for always saying one half.

    Raises:
        ValueError: lengths differ, p outside [0, 1], one group, NaN.
    Source: Brier, Mon. Weather Rev. 78 (1950) 1.
    """
    p, y = probabilities("p", p), binary("outcome", outcome)
    same_length(p=p, outcome=y)
    return cluster_mean((p - y) ** 2, groups=groups, seed=seed, n_resamples=n_resamples, confidence=confidence)


def reliability_table(
    p: Values, outcome: Values, *, groups: Groups, n_bins: int = N_BINS, confidence: float = CONFIDENCE
) -> tuple[ReliabilityBin, ...]:
    """Rows of a reliability plot over equal-mass bins; rates with clustered Wilson intervals.

    A bin that lies in a single group has no interval over groups: its rate is given with the interval [0, 1].

    Raises:
        ValueError: as `calibration_error`.
    Source: as `calibration_error`.
    """
    p, y = probabilities("p", p), binary("outcome", outcome)
    same_length(p=p, outcome=y)
    bins, rows = equal_mass_bins(p, n_bins), []
    for b in np.unique(bins):
        inside = bins == b
        rate = rate_on(y, inside, groups=groups, confidence=confidence)
        rows.append(ReliabilityBin(float(p[inside].min()), float(p[inside].max()), float(p[inside].mean()), rate))
    return tuple(rows)


def confidence_on_errors(
    confidence_in_answer: Values,
    right: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean confidence in the answers that were wrong: near 1 for a member that is confidently wrong.

    Undefined (NaN) without errors, and without an interval ([0, 1]) where all errors lie in one group.

    Raises:
        ValueError: lengths differ, confidence outside [0, 1], NaN.
    """
    c, is_right = probabilities("confidence_in_answer", confidence_in_answer), binary("right", right)
    n = same_length(confidence_in_answer=c, right=is_right)
    wrong = ~is_right
    if not wrong.any():
        return Estimate.undefined()
    members = group_codes(groups, n, at_least=1).code[wrong]
    if len(np.unique(members)) < 2:
        return Estimate(float(c[wrong].mean()), 0.0, 1.0, int(wrong.sum()), 1)
    return cluster_mean(c[wrong], groups=members, seed=seed, n_resamples=n_resamples, confidence=confidence)


def _ece(sums: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1])


def _floor(p: np.ndarray, bins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """ECE of outcomes drawn from p itself [FLOOR_DRAWS]."""
    order = np.argsort(bins, kind="stable")
    starts, p = np.searchsorted(bins[order], np.arange(bins.max() + 1)), p[order]
    rows = max(1, 2**22 // len(p))
    chunks = []
    for start in range(0, FLOOR_DRAWS, rows):
        drawn = rng.random((min(rows, FLOOR_DRAWS - start), len(p))) < p
        chunks.append(np.abs(np.add.reduceat(drawn - p, starts, axis=1)).sum(axis=1) / len(p))
    return np.concatenate(chunks)
