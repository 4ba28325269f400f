"""Calibration of probabilities: ECE with its floor, Brier, reliability, confidence on errors, Platt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from interp.stats.check import (
    GroupCodes,
    Groups,
    Values,
    binary,
    choice,
    generator,
    group_codes,
    numbers,
    probabilities,
    same_length,
)
from interp.stats.estimate import CONFIDENCE, Estimate, Sampling
from interp.stats.intervals import z_value
from interp.stats.jackknife import Jackknife, effective_groups, group_weights, jackknife_limits
from interp.stats.means import cluster_mean, rate_on

N_BINS = 10
FLOOR_DRAWS = 1000


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error next to the value that a perfectly calibrated model would have shown.

    Attributes:
        ece:        the error. Its interval is wide, because |·| hides the sign of the noise, and covers with at least
            the stated confidence; lo is 0 where the error is no larger than sampling alone can make it.
        floor:      mean and 95 % range of the error of a calibrated model: finite samples never give 0.
        p:          share of the draws behind the floor with an error at least as large: the test of calibration.
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
    n_bins: int = N_BINS,
    sampling: Sampling = Sampling(),
) -> CalibrationError:
    """Expected calibration error over equal-mass bins, with its interval and its floor.

        ECE = sum_b |m_b|,  m_b = (n_b/n) · (mean outcome in b - mean p in b);   bin edges stay those of the data

    The sample's ECE lies above the true one, since |·| adds up the noise of every bin. So the interval is not that of a
    mean:

        lo = ECE - c, at least 0;   c = the larger of the 97.5 % quantiles of two samples of sampling error:
             sum_b |m*_b - m_b|, m* from resampled groups;  sum_b |m0_b|, the floor
        hi = ECE + t · jackknife standard error, or the end that the rule gives a number between 0 and 1, if larger

    The lower end follows from the triangle inequality, |ECE - true ECE| <= sum_b |m_b - true m_b|; the upper end from
    ECE >= sum_b sign(true m_b)·m_b, whose mean is the true ECE. The resampled errors are stretched by Student's
    quantile on the effective groups over the normal one.

    The floor, and p, are errors of outcomes drawn from the stated probabilities: y = [u < p], u uniform, and shared by
    an example with its group with probability sqrt(ρ), so that outcomes of a group have intraclass correlation ρ:

        ρ = λ·(r + se(r)) + (1 - λ),  r = sum_{pairs in a group} e_i e_j / sum s_i s_j,  e = y - p,  s = sqrt(p(1 - p))
        λ = w/(w + 1),  w the number of groups that have the rarer outcome

    Groups without a failure show no spread, so a sample with few failures is not informative about how they cluster:
    the fewer groups have one, the more a group counts as one example. Without se(r), that of a ratio over groups, 0.1
    of calibrated models had p <= 0.05 in 20 groups of 30. ρ = 0 where examples are independent.

    Args:
        p: stated probability of the outcome, or the confidence in the given answer [example].
        outcome: whether it happened, or whether the answer was right [example].
    Raises:
        ValueError: lengths differ, p outside [0, 1], fewer examples than bins, one group, NaN; a method of
            `sampling` other than "auto".
    Source: Guo et al., arXiv 1706.04599; floor: consistency resampling, Bröcker & Smith, Weather Forecast. 22 (2007);
        interval and intraclass correlation of the floor: worked out here, measured in tests/validity/test_intervals.py.
    """
    choice("method", sampling.method, ("auto",))
    p, y = probabilities("p", p), binary("outcome", outcome)
    n = same_length(p=p, outcome=y)
    _, bins = np.unique(equal_mass_bins(p, n_bins), return_inverse=True)
    used, seeds = int(bins.max()) + 1, generator(sampling.seed).spawn(2)
    gaps = np.eye(used)[bins] * (y - p)[:, None]
    codes = group_codes(groups, n)
    sums, effective = codes.sums(gaps), float(effective_groups(codes.sizes))
    left_out = (sums.sum(axis=0) - sums) / (n - codes.sizes[:, None])
    value = float(np.abs(sums.sum(axis=0)).sum() / n)
    error = _sampling_error(left_out, effective, replace(sampling, seed=seeds[0]))
    floor = _floor(p, bins, codes, 0.0 if groups is None else _likeness(p, y, codes), seeds[1])
    tails = (0.5 - sampling.confidence / 2, 0.5 + sampling.confidence / 2)
    lo = max(0.0, value - max(float(np.quantile(each, tails[1])) for each in (error, floor)))
    hi = _upper(value, np.abs(left_out).sum(axis=1), effective, sampling.confidence)
    calibrated = Estimate(float(floor.mean()), *map(float, np.quantile(floor, tails)), n=n, n_groups=codes.n_groups)
    p_floor = float((1 + (floor >= value * (1 - 1e-9)).sum()) / (1 + len(floor)))
    return CalibrationError(Estimate(value, lo, hi, n, codes.n_groups), calibrated, p_floor, used)


def _sampling_error(left_out: np.ndarray, effective: float, sampling: Sampling) -> np.ndarray:
    """sum_b |m*_b - m_b| on resampled groups [resample], with the jackknife's variance and Student's tails."""
    n_groups = len(left_out)
    knife = Jackknife.of(left_out, effective)
    weights = group_weights(n_groups, n_resamples=sampling.n_resamples, seed=sampling.seed)
    drawn = np.concatenate([np.abs(w @ knife.deviation).sum(axis=1) for w in weights])
    stretch = float(knife.quantile(sampling.confidence)[0]) / z_value(sampling.confidence)
    # W @ d has G times the variance of one d, the jackknife (G - 1) times
    return drawn * np.sqrt((n_groups - 1) / n_groups) * stretch


def brier(
    p: Values,
    outcome: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Mean squared error of stated probabilities, mean (p - outcome)²; 0.25 for always saying one half.

    Raises:
        ValueError: lengths differ, p outside [0, 1], one group, NaN.
    Source: Brier, Mon. Weather Rev. 78 (1950) 1.
    """
    p, y = probabilities("p", p), binary("outcome", outcome)
    same_length(p=p, outcome=y)
    return cluster_mean((p - y) ** 2, groups=groups, bounds=(0.0, 1.0), sampling=sampling)


def reliability_table(
    p: Values, outcome: Values, *, groups: Groups, n_bins: int = N_BINS, confidence: float = CONFIDENCE
) -> tuple[ReliabilityBin, ...]:
    """Rows of a reliability plot over equal-mass bins; rates with clustered Wilson intervals.

    A bin that lies in a single group has no interval over groups; its rate gets the interval [0, 1].

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
    sampling: Sampling = Sampling(),
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
    return cluster_mean(c[wrong], groups=members, bounds=(0.0, 1.0), sampling=sampling)


def _upper(value: float, left_out: np.ndarray, effective: float, confidence: float) -> float:
    """Upper end of the error, from its values without each group [group]."""
    knife = Jackknife.of(left_out, effective)
    _, bounded = jackknife_limits(
        np.asarray(value), left_out, effective=effective, confidence=confidence, bounds=(0.0, 1.0)
    )
    return max(min(1.0, value + float(knife.quantile(confidence) * knife.se)), float(bounded))


def _likeness(p: np.ndarray, y: np.ndarray, codes: GroupCodes) -> float:
    """ρ of `calibration_error`: intraclass correlation of outcomes, given their probabilities; between 0 and 1."""
    parts = np.stack([y - p, np.sqrt(p * (1 - p))], axis=1)
    shared, possible = (np.square(codes.sums(parts)) - codes.sums(parts**2)).T
    if possible.sum() <= 0:
        return 0.0
    r = min(1.0, max(0.0, float(shared.sum() / possible.sum())))
    se = float(np.sqrt(codes.n_groups / (codes.n_groups - 1) * np.square(shared - r * possible).sum()) / possible.sum())
    w = min(len(np.unique(codes.code[y == side])) for side in (0, 1))
    return (w * min(1.0, r + se) + 1) / (w + 1)


def _floor(p: np.ndarray, bins: np.ndarray, codes: GroupCodes, rho: float, rng: np.random.Generator) -> np.ndarray:
    """ECE of outcomes drawn from p itself, those of a group with intraclass correlation rho [FLOOR_DRAWS]."""
    order = np.argsort(bins, kind="stable")
    starts, p, code = np.searchsorted(bins[order], np.arange(bins.max() + 1)), p[order], codes.code[order]
    rows = max(1, 2**22 // len(p))
    chunks = []
    for start in range(0, FLOOR_DRAWS, rows):
        shape = min(rows, FLOOR_DRAWS - start), len(p)
        u = rng.random(shape)
        if rho > 0:
            of_group = rng.random((shape[0], codes.n_groups))[:, code]
            u = np.where(rng.random(shape) < np.sqrt(rho), of_group, u)
        chunks.append(np.abs(np.add.reduceat((u < p) - p, starts, axis=1)).sum(axis=1) / len(p))
    return np.concatenate(chunks)


@dataclass(frozen=True)
class Platt:
    """p(positive) = sigmoid(slope·score + intercept); a negative slope means that the score points the wrong way."""

    slope: float
    intercept: float

    def __call__(self, scores: Values) -> np.ndarray:
        from scipy.special import expit

        return expit(self.slope * numbers("scores", scores) + self.intercept)


def fit_platt(scores: Values, labels: Values) -> Platt:
    """Sigmoid by maximum likelihood with Platt's smoothed targets, so separated scores give a finite slope.

        t_i = (n_pos + 1)/(n_pos + 2) for positives, 1/(n_neg + 2) for negatives
        minimise -sum_i t_i log p_i + (1 - t_i) log(1 - p_i)

    Fit on out-of-fold scores, never on the scores of the training rows.

    Args:
        scores: real-valued [example];  labels: 0/1 [example].
    Raises:
        ValueError: one class only, constant scores, NaN, lengths differ.
    Source: Platt (1999); Lin, Lin & Weng, Mach. Learn. 68 (2007) 267.
    """
    s, y = numbers("scores", scores, at_least=2), binary("labels", labels)
    same_length(scores=s, labels=y)
    if y.all() or not y.any() or s.std() == 0:
        raise ValueError(
            f"Platt scaling: expected both classes and scores that vary, got {int(y.sum())} positive of {len(y)} and "
            f"a spread of {s.std():g}. There is nothing to fit."
        )
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    centre, scale = s.mean(), s.std()
    slope, intercept = _newton((s - centre) / scale, target)
    return Platt(slope / scale, intercept - slope * centre / scale)


def _newton(s: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    from scipy.special import expit

    def loss(beta: np.ndarray) -> float:
        f = beta[0] * s + beta[1]
        return float((np.logaddexp(0, f) - target * f).sum())

    design = np.column_stack([s, np.ones_like(s)])
    beta = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
    for _ in range(100):
        p = expit(design @ beta)
        gradient = design.T @ (p - target)
        if np.abs(gradient).max() < 1e-10 * len(s):
            break
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2), gradient)
        rate = 1.0
        while rate > 1e-10 and loss(beta - rate * step) > loss(beta):
            rate /= 2
        beta = beta - rate * step
    return float(beta[0]), float(beta[1])
