"""Sign-flip tests with family-wise control: which of many effects (heads, layers, sites) are not noise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Seed, Values, choice, generator, group_codes, level, numbers
from interp.stats.multiplicity import ALTERNATIVES

N_FLIPS = 10_000
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
        p:         family-wise adjusted [...].
        p_single:  of each hypothesis alone [...]; never for choosing among many.
        threshold: |t| (or the mean, with stat="mean") above which p < alpha.
        exact:     all 2^G sign patterns were enumerated.
    """

    mean: np.ndarray
    t: np.ndarray
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
        return self.p < self.alpha


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
    """Max-|t| sign-flip test: under the null an effect is as likely as its negative.

        u_g = sum of the effects of group g;   one sign per group, the same for every hypothesis;
        r = sum_g sign_g u_g / sqrt(sum_g u_g²),   t = r·sqrt(G-1) / sqrt(G - r²)
        p_j = (1 + #{flips: max over hypotheses of |t*| >= |t_j|}) / (1 + n_flips)

    sum u² does not change under flips, so |t| is a growing function of |r| and the maximum of |t| is found
    from one matrix product. The share of studies with any false positive is at most alpha, whatever the
    dependence between hypotheses. Where 2^G <= n_flips all patterns are enumerated and p is exact.

    Args:
        effects: effect of each example on each hypothesis, [example, ...]; [example] for a single one.
        groups: independent unit of each example; its examples share one sign. None: every example its own.
        alternative: "two-sided", "greater" or "less".
        stat: "t" studentises each hypothesis; "mean" compares raw means (what Yang et al. do, with "greater"):
            hypotheses of large variance then dominate the maximum.
    Raises:
        ValueError: NaN, one group, lengths differ, unknown alternative or stat.
    Warns:
        TooFewFlipsWarning: the smallest possible p is not below alpha.
    Source: Westfall & Young (1993); Winkler et al., NeuroImage 92 (2014) 381; Yang et al., arXiv 2502.20332, B.2.
    """
    choice("alternative", alternative, ALTERNATIVES)
    choice("stat", stat, ("t", "mean"))
    level("alpha", alpha)
    array = numbers("effects", effects, at_least=2, ndim=None)
    codes = group_codes(groups, len(array))
    sums = codes.sums(array.reshape(len(array), -1))
    scale = np.sqrt((sums**2).sum(axis=0)) if stat == "t" else np.full(sums.shape[1], float(len(array)))
    units = np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)
    if alternative == "less":
        units = -units
    observed = units.sum(axis=0)
    maxima, n_single = _null(units, observed, generator(seed), n_flips, two_sided=alternative == "two-sided")
    exact = 2**codes.n_groups <= n_flips
    _warn_if_hopeless(codes.n_groups, len(maxima), alternative, alpha)
    size = np.abs(observed) if alternative == "two-sided" else observed
    above = len(maxima) - np.searchsorted(np.sort(maxima), size - TIE * np.maximum(np.abs(size), TIE))
    shape, extra = array.shape[1:], 0 if exact else 1
    p, p_single = ((part + extra) / (len(maxima) + extra) for part in (above, n_single))
    limit = float(np.quantile(maxima, 1 - alpha, method="higher"))
    return SignFlip(
        mean=array.mean(axis=0),
        t=_student(sums).reshape(shape),
        p=p.reshape(shape),
        p_single=p_single.reshape(shape),
        threshold=float(_r_to_t(np.array(limit), codes.n_groups)) if stat == "t" else limit,
        alpha=alpha,
        n=len(array),
        n_groups=codes.n_groups,
        n_flips=len(maxima),
        exact=exact,
    )


def _signs(n_groups: int, n_flips: int, n_columns: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
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
    units: np.ndarray, observed: np.ndarray, rng: np.random.Generator, n_flips: int, *, two_sided: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum over hypotheses of each flip [flip], and how often each hypothesis alone was reached [...]."""
    size = np.abs(observed) if two_sided else observed
    reach = size - TIE * np.maximum(np.abs(size), TIE)
    maxima, n_single = [], np.zeros(units.shape[1], dtype=np.int64)
    for signs in _signs(len(units), n_flips, units.shape[1], rng):
        flipped = signs @ units
        if two_sided:
            np.abs(flipped, out=flipped)
        maxima.append(flipped.max(axis=1))
        n_single += (flipped >= reach).sum(axis=0)
    return np.concatenate(maxima), n_single


def _student(sums: np.ndarray) -> np.ndarray:
    norm = np.sqrt((sums**2).sum(axis=0))
    return _r_to_t(np.divide(sums.sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 0), len(sums))


def _r_to_t(r: np.ndarray, n_groups: int) -> np.ndarray:
    left = np.maximum(n_groups - r**2, 0.0)
    left = np.where(left < 1e-12 * n_groups, 0.0, left)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(r == 0, 0.0, r * np.sqrt(n_groups - 1) / np.sqrt(left))


def _warn_if_hopeless(n_groups: int, n_flips: int, alternative: str, alpha: float) -> None:
    smallest = max((2.0 if alternative == "two-sided" else 1.0) / 2**n_groups, 1 / (n_flips + 1))
    if smallest >= alpha:
        warnings.warn(
            f"{n_groups} groups and {n_flips} flips: the smallest possible p is {smallest:.3g}, not below {alpha:g}. "
            "Add groups; nothing can be significant here.",
            TooFewFlipsWarning,
            stacklevel=3,
        )
