"""Sign-flip test of symmetry about zero with family-wise control; of means that may be skewed use `mean_test`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Seed, Values, choice, generator, group_codes, level, numbers
from interp.stats.moderation import Shrinkage
from interp.stats.multiplicity import ALTERNATIVES, rejects, smallest_p

N_FLIPS = 10_000
STATS = ("t", "moderated", "mean")
BUDGET = 64 * 2**20
TIE = 1e-9
"""Relative difference below which a flipped statistic counts as equal to the observed one (rounding)."""


class TooFewFlipsWarning(UserWarning):
    """So few groups that no effect, however large, can be significant."""


@dataclass(frozen=True, eq=False)
class SignFlip:
    """Result of `sign_flip`, one entry per hypothesis, in the shape of the effects without their first axis.

    Attributes:
        mean:      mean effect over examples [...].
        t:         one-sample t over groups; 0 where every effect is 0, infinite where all are equal.
        statistic: what the flips were compared on: t, its moderated form, or the mean [...].
        p:         family-wise adjusted [...].
        p_single:  of each hypothesis alone [...]; never for choosing among many.
        threshold: a hypothesis is significant where its statistic (in size, if two-sided) is above this.
        exact:     all 2^G sign patterns were enumerated.
    """

    mean: np.ndarray
    t: np.ndarray
    statistic: np.ndarray
    p: np.ndarray
    p_single: np.ndarray
    threshold: float
    alpha: float
    n: int
    n_groups: int
    n_flips: int
    exact: bool

    @property
    def is_significant(self) -> np.ndarray:
        return rejects(self.p, alpha=self.alpha)


def sign_flip(
    effects: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_flips: int = N_FLIPS,
    alternative: str = "two-sided",
    stat: str = "t",
    alpha: float = 0.05,
) -> SignFlip:
    """Max-|t| sign-flip test of symmetry: under the null every effect is as likely as its negative.

        u_g = sum of the effects of group g;   one sign per group, the same for every hypothesis;
        r = sum_g sign_g u_g / sqrt(sum_g u_g²),   t = r·sqrt(G-1) / sqrt(G - r²)
        p_j = (1 + #{flips: max over hypotheses of |t*| >= |t_j|}) / (1 + n_flips)

    sum u² does not change under flips, so |t| is a growing function of |r| and the maximum of |t| is found
    from one matrix product. Where the effects of all hypotheses are symmetric about 0, jointly, the share of studies
    with any false positive is at most alpha, whatever the dependence between hypotheses. It is not a test of the mean:
    effects that are skewed around a mean of 0 are not symmetric, and are called significant far more often than alpha.
    For means use `mean_test`. Where 2^G <= n_flips all patterns are enumerated and p is exact.

    Args:
        effects: effect of each example on each hypothesis, [example, ...]; [example] for a single one.
        groups: independent unit of each example; its examples share one sign. None: every example its own.
        alternative: "two-sided", "greater" or "less".
        stat: "t" studentises each hypothesis by its own spread; "moderated" by its spread shrunk to what the
            others share (still exact; more power below 50 groups, where some of 784 spreads are small by
            chance; the same as "t" below three hypotheses); "mean" compares raw means (Yang et al., with "greater"), so
            noisy hypotheses set the bar.
    Raises:
        ValueError: NaN, one group, lengths differ, unknown alternative or stat.
    Warns:
        TooFewFlipsWarning: the smallest possible p is above alpha.
    Source: Westfall & Young (1993); Winkler et al., NeuroImage 92 (2014) 381; Smyth, Stat.
        Appl. Genet. Mol. Biol. 3 (2004) 3 (moderated); Yang et al., arXiv 2502.20332, B.2 (mean).
    """
    choice("alternative", alternative, ALTERNATIVES)
    choice("stat", stat, STATS)
    level("alpha", alpha)
    array = numbers("effects", effects, at_least=2, ndim=None)
    codes = group_codes(groups, len(array))
    sums = codes.sums(array.reshape(len(array), -1))
    scale = scale_of(sums, stat, len(array))
    units = np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)
    signed = -units if alternative == "less" else units
    exact, is_two_sided = 2**codes.n_groups <= n_flips, alternative == "two-sided"
    maxima, n_above, n_single = _null(signed, generator(seed), n_flips, two_sided=is_two_sided)
    warn_if_hopeless(codes.n_groups, len(maxima), alternative, alpha)
    extra, shape = 0 if exact else 1, array.shape[1:]
    limit, t = critical(maxima, alpha, extra), _r_to_t(_correlation(sums), codes.n_groups)
    return SignFlip(
        mean=np.asarray(array.mean(axis=0)),
        t=t.reshape(shape),
        statistic=(t if stat == "t" else units.sum(axis=0)).reshape(shape),
        p=((n_above + extra) / (len(maxima) + extra)).reshape(shape),
        p_single=((n_single + extra) / (len(maxima) + extra)).reshape(shape),
        threshold=float(_r_to_t(np.array(limit), codes.n_groups)) if stat == "t" else limit,
        alpha=alpha,
        n=len(array),
        n_groups=codes.n_groups,
        n_flips=len(maxima),
        exact=exact,
    )


def scale_of(sums: np.ndarray, stat: str, n: int) -> np.ndarray:
    """Divisor of each hypothesis' sum [hypothesis]; a function of squares, so flips leave it as it is."""
    n_groups, squares = len(sums), sums**2
    if stat == "mean":
        return np.full(squares.shape[1], float(n))
    moments = squares.mean(axis=0)
    return np.sqrt(n_groups * (moments if stat == "t" else Shrinkage.of(moments, squares, n_groups)(moments)))


def critical(maxima: np.ndarray, alpha: float, extra: int) -> float:
    """Largest value that is not significant itself: (#{maxima >= T} + extra) / (draws + extra) <= alpha exactly for
    statistics above it."""
    allowed = int(alpha * (len(maxima) + extra) + 1e-9) - extra
    return float(np.sort(maxima)[::-1][allowed]) if allowed >= 0 else float("inf")


def _correlation(sums: np.ndarray) -> np.ndarray:
    """r of the docstring: in [-sqrt(G), sqrt(G)], 0 where every sum is 0."""
    norm = np.sqrt((sums**2).sum(axis=0))
    return np.divide(sums.sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 0)


def signs(n_groups: int, n_flips: int, n_columns: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Chunks of sign patterns [flip, group] in {-1, +1}; all 2^G of them where that is no more than n_flips."""
    total = 2**n_groups if 2**n_groups <= n_flips else n_flips
    rows = max(1, BUDGET // (8 * max(n_columns, n_groups)))
    for start in range(0, total, rows):
        stop = min(total, start + rows)
        if total == 2**n_groups:
            bits = (np.arange(start, stop)[:, None] >> np.arange(n_groups)) & 1
        else:
            bits = rng.integers(0, 2, size=(stop - start, n_groups), dtype=np.int8)
        yield 1.0 - 2.0 * bits


def _null(
    units: np.ndarray, rng: np.random.Generator, n_flips: int, *, two_sided: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximum of each flip [flip]; how often it reached each hypothesis, and how often that one's own flip did."""
    observed = units.sum(axis=0)
    size = np.abs(observed) if two_sided else observed
    reach = size - TIE * np.maximum(np.abs(size), TIE)
    maxima, n_single = [], np.zeros(units.shape[1], dtype=np.int64)
    for flips in signs(len(units), n_flips, units.shape[1], rng):
        flipped = flips @ units
        if two_sided:
            np.abs(flipped, out=flipped)
        maxima.append(flipped.max(axis=1))
        n_single += (flipped >= reach).sum(axis=0)
    maxima = np.concatenate(maxima)
    return maxima, len(maxima) - np.searchsorted(np.sort(maxima), reach), n_single


def _r_to_t(r: np.ndarray, n_groups: int) -> np.ndarray:
    if np.isinf(r).all():
        return r
    left = np.maximum(n_groups - r**2, 0.0)
    left = np.where(left < 1e-12 * n_groups, 0.0, left)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(r == 0, 0.0, r * np.sqrt(n_groups - 1) / np.sqrt(left))


def warn_if_hopeless(n_groups: int, n_flips: int, alternative: str, alpha: float) -> None:
    smallest = smallest_p(n_flips, n_arrangements=2**n_groups, alternative=alternative)
    if smallest > alpha:
        warnings.warn(
            f"{n_groups} groups and {n_flips} flips: the smallest possible p is {smallest:.3g}, above {alpha:g}. "
            "Add groups; nothing can be significant here.",
            TooFewFlipsWarning,
            stacklevel=3,
        )
