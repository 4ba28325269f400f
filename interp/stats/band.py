"""Simultaneous bands: an interval at every point of a curve such that all points are covered at once."""

from __future__ import annotations

import numpy as np

from interp.stats._check import Groups, Values, choice, group_codes, numbers
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates, Sampling
from interp.stats.intervals import t_value
from interp.stats.jackknife import Jackknife, effective_groups
from interp.stats.resample import group_weights

FEW_FOR_MAX_T = 10
"""Below this many groups the bootstrap of the largest |t| is wider than Bonferroni's correction."""


def simultaneous_band(
    curve: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Estimates:
    """Band of the means of many columns (layers, doses): holds the whole true curve with the stated confidence.

        value_j ± c · se_j,   c = quantile of max_j |t*_j| over resampled groups

    A pointwise interval answers for one point that was chosen beforehand; whoever looks for the point where a curve
    leaves 0 looks at all of them, and needs the band. See `band_of` for the details.

    Args:
        curve: values of every example at every point [example, ...].
        groups: independent unit of each example [example], or None.
    Raises:
        ValueError: NaN, one group, lengths differ.
    Source: as `band_of`.

    Example:
        >>> import numpy as np
        >>> effects = np.random.default_rng(0).normal(size=(60, 4)) + [0, 0, 1, 1]
        >>> band = simultaneous_band(effects, groups=np.arange(60) // 3)
        >>> (band.lo > 0).tolist()
        [False, False, True, True]
    """
    array = numbers("curve", curve, ndim=None)
    codes = group_codes(groups, len(array))
    flat = array.reshape(len(array), -1)
    sums, sizes = codes.sums(flat), codes.sizes[:, None]
    left_out = (sums.sum(axis=0) - sums) / (len(flat) - sizes)
    lo, hi = band_of(
        flat.mean(axis=0),
        left_out,
        effective=float(effective_groups(codes.sizes)),
        sampling=sampling,
    )
    shape = array.shape[1:]
    value, lo, hi = (part.reshape(shape) for part in (flat.mean(axis=0), lo, hi))
    return Estimates(value, lo, hi, len(array), codes.n_groups)


def band_of(
    value: np.ndarray,
    left_out: np.ndarray,
    *,
    effective: np.ndarray | float,
    sampling: Sampling = Sampling(),
) -> tuple[np.ndarray, np.ndarray]:
    """(lo, hi) of a simultaneous band over all components of any statistic, from its leave-one-group-out values.

        d_g = mean_h θ_(-h) - θ_(-g);   t*_j = mean*_j(d) / se*_j(d) over groups drawn with replacement
        c = the confidence quantile of max_j |t*_j|;   band: θ_j ± c · se_j, se_j the jackknife standard error

    Nowhere narrower than the interval of the point alone (`Jackknife.reach`). Under 10 groups no side reaches further
    than Bonferroni's: Student at 1 - (1 - confidence)/J on the effective groups minus one, widened for skew as well. A
    point without spread or without a value has no band (NaN) and does not count among the J points.

    Args:
        value: the statistic [...].  left_out: without each group [group, ...].
        effective: effective number of groups, see `effective_groups`.
    Raises:
        ValueError: a method of `sampling` other than "auto".
    Source: Romano & Wolf, JASA 100 (2005) 94 (studentised max); Montiel Olea & Plagborg-Møller, J. Appl. Econom. 34
        (2019) 1 (simultaneous bands of curves); Johnson (1978) for the skewness term.
    """
    choice("method", sampling.method, ("auto",))
    knife = Jackknife.of(left_out.reshape(len(left_out), -1), np.asarray(effective, dtype=float).reshape(-1))
    has_spread = knife.se > 0  # False for NaN too
    below = above = np.full(knife.se.shape, np.nan)
    if has_spread.any():
        c = max_t_quantile(knife.deviation[:, has_spread], sampling)
        below = above = np.where(has_spread, c, np.nan)
        if len(left_out) < FEW_FOR_MAX_T:
            sides = knife.reach(knife.quantile(1 - (1 - sampling.confidence) / int(has_spread.sum())))
            below, above = (np.minimum(below, side) for side in sides)
        alone = knife.reach(knife.quantile(sampling.confidence))
        below, above = np.maximum(below, alone[0]), np.maximum(above, alone[1])
    flat = np.asarray(value, dtype=float).reshape(-1)
    lo, hi = flat - below * knife.se, flat + above * knife.se
    return lo.reshape(np.shape(value)), hi.reshape(np.shape(value))


def max_t_quantile(deviation: np.ndarray, sampling: Sampling) -> float:
    """Quantile of the largest |t*| over columns; a draw without spread in a column does not count in it."""
    n_groups, largest = len(deviation), []
    spread = np.sqrt(np.square(deviation).mean(axis=0))
    scaled = deviation / spread
    for weights in group_weights(n_groups, n_resamples=sampling.n_resamples, seed=sampling.seed):
        mean = weights @ scaled / n_groups
        variance = np.maximum(weights @ np.square(scaled) / n_groups - np.square(mean), 0.0)
        se = np.sqrt(variance / (n_groups - 1))
        t = np.divide(np.abs(mean), se, out=np.zeros_like(mean), where=se > 1e-9)
        largest.append(t.max(axis=1))
    return float(np.quantile(np.concatenate(largest), sampling.confidence))


def picked_among(found: Estimate, count: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """The estimate with the interval that holds when it was picked as the largest of `count`: Bonferroni's.

        each side times t_{1 - α/(2·count)} / t_{1 - α/2},   α = 1 - confidence, n_groups - 1 degrees of freedom

    For estimates that do not share their examples, such as the cells of a task; where they do, `simultaneous_band` is
    narrower.

    Args:
        found: an estimate with its interval for one that was chosen beforehand, at `confidence`.
    Raises:
        ValueError: count below 1.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}.")
    df = max(found.n_groups - 1, 1)
    wider = t_value(1 - (1 - confidence) / count, df) / t_value(confidence, df)
    lo, hi = (found.value + wider * (end - found.value) for end in (found.lo, found.hi))
    return Estimate(found.value, lo, hi, found.n, found.n_groups)
