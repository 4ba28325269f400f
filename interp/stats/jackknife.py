"""Intervals from leaving groups out: the rule that every mean, ratio and difference follows, and simultaneous bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from interp.stats.check import Groups, Seed, Values, choice, generator, group_codes, numbers
from interp.stats.estimate import CONFIDENCE, Estimate, Estimates, Sampling
from interp.stats.intervals import t_value

RULE = "jackknife t"
"""What tables call an interval of the rule below."""
Bounds: TypeAlias = tuple[float | int | np.ndarray, float | int | np.ndarray]
"""Smallest and largest possible value of a statistic, one for all components or one for each."""
ANY: Bounds = (-np.inf, np.inf)
TINY = 1e-12
"""A standard error below this share of the left-out values is rounding, not spread."""


def effective_groups(weights: np.ndarray) -> np.ndarray:
    """Number of equal groups that carry as much information: (sum w)²/sum w², between 1 and the number of groups.

    6 groups of sizes 1 to 10 are equivalent to about 4.

    Args:
        weights: how much each group counts, usually its number of examples [group, ...].
    Source: Kish, *Survey Sampling* (1965) §8.2.
    """
    squares, total = np.square(weights).sum(axis=0), np.square(np.sum(weights, axis=0))
    return np.asarray(np.divide(total, squares, out=np.ones(np.shape(total)), where=squares > 0))


@dataclass(frozen=True, eq=False)
class Jackknife:
    """Standard error and skewness of a statistic from leaving out each group in turn [...].

        d_g = mean_h θ_(-h) - θ_(-g)          how far group g pulls the statistic up
        se² = (G - 1)/G · sum_g d_g²          leave-one-group-out (CR3): not too small where groups are unequal
        df  = effective groups - 1
        skew: skewness of d, corrected for bias at the effective number of groups

    Attributes:
        deviation: d [group, ...]; NaN, like the rest, where leaving out some group leaves no value.
    Source: Efron & Stein, Ann. Stat. 9 (1981) 586; MacKinnon, Nielsen & Webb, J. Appl. Econom. 38 (2023) 671 (CR3);
        Carter, Schnepel & Steigerwald, Rev. Econ. Stat. 99 (2017) 698 (effective number of groups).
    """

    deviation: np.ndarray
    se: np.ndarray
    effective: np.ndarray
    skew: np.ndarray

    @classmethod
    def of(cls, left_out: np.ndarray, effective: np.ndarray | float) -> Jackknife:
        """From the statistic without each group [group, ...] and the effective number of groups [...]."""
        n_groups = len(left_out)
        deviation = left_out.mean(axis=0) - left_out
        squares = np.einsum("g...,g...->...", deviation, deviation) / n_groups
        is_flat = np.sqrt(squares) <= TINY * np.abs(left_out).max(axis=0, initial=0.0)
        squares = np.asarray(np.where(is_flat, 0.0, squares))
        cubes, scale = np.einsum("g...,g...,g...->...", deviation, deviation, deviation) / n_groups, squares**1.5
        raw = np.divide(cubes, scale, out=np.zeros(squares.shape), where=scale > 0)
        k = np.broadcast_to(np.asarray(effective, dtype=float), squares.shape)
        unbias = np.sqrt(np.maximum(k * (k - 1), 0.0)) / np.maximum(k - 2, 1.0)
        return cls(deviation, np.asarray(np.sqrt((n_groups - 1) * squares)), k, np.asarray(raw * unbias))

    def quantile(self, confidence: float) -> np.ndarray:
        """Two-sided Student quantile on the effective groups minus one (at least one) degrees of freedom [...]."""
        return t_values(confidence, np.asarray(np.maximum(self.effective - 1, 1.0)))

    def reach(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many standard errors the interval reaches below and above the value, from the symmetric quantile q.

            on the side to which the groups are skewed:  q + 2·|skew|·(1 + 2q²)/(6·sqrt(effective groups))
            on the other side:                           q

        The second term is twice that of the Cornish-Fisher expansion of a studentised mean, because the skewness of a
        few groups falls short of the population's (6 lognormal values show 1.1 on average, of 6.2). The other side is
        not brought in by as much. What both choices give is measured in tests/validity/test_intervals.py: 0.95 to 0.97
        of gaussian means and 0.92 to 0.96 of means of values with skewness 6 are covered, from 6 groups on.

        Source: Johnson, JASA 73 (1978) 536; Hall, *The Bootstrap and Edgeworth Expansion* (1992) §2.6.
        """
        shift = 2 * self.skew * (1 + 2 * np.square(q)) / (6 * np.sqrt(self.effective))
        return np.asarray(q + np.maximum(-shift, 0.0)), np.asarray(q + np.maximum(shift, 0.0))


def jackknife_limits(
    value: np.ndarray,
    left_out: np.ndarray,
    *,
    effective: np.ndarray | float,
    confidence: float,
    bounds: Bounds = ANY,
) -> tuple[np.ndarray, np.ndarray]:
    """(lo, hi) of any statistic over groups: the rule that every interval of a mean, ratio or difference follows.

        value - below · se,  value + above · se          see `Jackknife`
        where the statistic has a smallest and a largest value L, U: Wilson's interval of m = (value - L)/(U - L) at
        n = m(1 - m)·(U - L)²/se², and the wider of the two on the side to which the groups are skewed
        where no group differs (se = 0): value - s·(value - L), value + s·(U - value), s = t²/(G + t²): as many groups
        as could still differ though none in the sample does (Wilson's upper end at 0), each as far as is possible

    Without bounds there is no interval where no group differs: NaN, not a width of zero. Where leaving out a group
    leaves no value, the bounds, or NaN.

    Args:
        value: the statistic [...].  left_out: without each group [group, ...].
        effective: effective number of groups [...], see `effective_groups`.
        bounds: smallest and largest possible value of the statistic; infinite where there is none.
    Source: as `Jackknife`; Wilson (1927) and Korn & Graubard, Survey Methodology 24 (1998) 193 for the bounded case.
    """
    knife = Jackknife.of(left_out, effective)
    q = knife.quantile(confidence)
    below, above = knife.reach(q)
    lo, hi = value - below * knife.se, value + above * knife.se
    least, most = (np.broadcast_to(np.asarray(end, dtype=float), lo.shape) for end in bounds)
    is_bounded = np.isfinite(least) & np.isfinite(most)
    origin, span = np.where(is_bounded, least, value - 0.5), np.where(is_bounded, most - least, 1.0)
    score_lo, score_hi = (origin + span * end for end in _score_limits((value - origin) / span, knife.se / span, q))
    lo = np.where(is_bounded, np.where(knife.skew < 0, np.minimum(lo, score_lo), score_lo), lo)
    hi = np.where(is_bounded, np.where(knife.skew > 0, np.maximum(hi, score_hi), score_hi), hi)
    share = sure_share(knife.effective, q)
    with np.errstate(invalid="ignore"):
        flat_lo, flat_hi = value - share * (value - least), value + share * (most - value)
    is_flat, is_lost = knife.se == 0, np.isnan(knife.se) & ~np.isnan(value)
    lo, hi = np.where(is_flat, flat_lo, lo), np.where(is_flat, flat_hi, hi)
    lo, hi = np.where(is_lost, least, np.maximum(lo, least)), np.where(is_lost, most, np.minimum(hi, most))
    none = np.isinf(lo) | np.isinf(hi)
    return np.asarray(np.where(none, np.nan, lo)), np.asarray(np.where(none, np.nan, hi))


def sure_share(effective: np.ndarray | float, t: np.ndarray | float) -> np.ndarray:
    """Largest share of groups that may differ although none of the sample did: t²/(G + t²), Wilson's upper end at 0."""
    return np.asarray(np.square(t) / (effective + np.square(t)))


def t_values(confidence: float, df: np.ndarray) -> np.ndarray:
    """`t_value` of many degrees of freedom at once."""
    kinds, index = np.unique(df, return_inverse=True)
    return np.asarray(np.array([t_value(confidence, float(kind)) for kind in kinds])[index]).reshape(np.shape(df))


def _score_limits(m: np.ndarray | float, se: np.ndarray | float, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's limits of a mean between 0 and 1 at the sample size that matches its standard error: with r = q·se,

    centre = (m + c)/(1 + 2c),  half = sqrt(r² + c²)/(1 + 2c),  c = r²/(2 m(1 - m))
    """
    spread = m * (1 - m)
    c = np.divide(np.square(q * se), 2 * spread, out=np.zeros(np.shape(m)), where=spread > 0)
    centre, half = (m + c) / (1 + 2 * c), np.sqrt(np.square(q * se) + np.square(c)) / (1 + 2 * c)
    return np.asarray(np.maximum(centre - half, 0.0)), np.asarray(np.minimum(centre + half, 1.0))


BUDGET = 32 * 2**20
"""Bytes of the largest temporary array of weights."""
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

    A pointwise interval holds for one point that was chosen in advance. To find the point where a curve leaves 0, one
    looks at all points, and needs the band. See `band_of` for the details.

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


def picked_among(estimate: Estimate, count: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """The estimate with the interval that holds when it was picked as the largest of `count`: Bonferroni's.

        each side times t_{1 - α/(2·count)} / t_{1 - α/2},   α = 1 - confidence, n_groups - 1 degrees of freedom

    For estimates that do not share their examples, such as the cells of a task; where they do, `simultaneous_band` is
    narrower.

    Args:
        estimate: an estimate with its interval for one that was chosen in advance, at `confidence`.
    Raises:
        ValueError: count below 1.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}.")
    df = max(estimate.n_groups - 1, 1)
    wider = t_value(1 - (1 - confidence) / count, df) / t_value(confidence, df)
    lo, hi = (estimate.value + wider * (end - estimate.value) for end in (estimate.lo, estimate.hi))
    return Estimate(estimate.value, lo, hi, estimate.n, estimate.n_groups)


def group_weights(n_groups: int, *, n_resamples: int, seed: Seed, budget: int = BUDGET) -> Iterator[np.ndarray]:
    """How often each group is drawn, in chunks [resample, group] of float64; every row sums to n_groups.

    The same seed gives the same draws whatever the budget.
    """
    rng, rows = generator(seed), max(1, budget // (16 * n_groups))
    for start in range(0, n_resamples, rows):
        n_rows = min(rows, n_resamples - start)
        drawn = rng.integers(0, n_groups, size=(n_rows, n_groups))
        drawn += np.arange(n_rows)[:, None] * n_groups
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_groups)
        yield counts.reshape(n_rows, n_groups).astype(np.float64)
