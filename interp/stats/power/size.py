"""Size of a study, and the search for the smallest effect that it shows and for the size that shows an effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import inf, isinf, sqrt
from typing import Protocol

import numpy as np

from interp.stats.check import level
from interp.stats.intervals import POWER

MOST = 1_000_000
"""Largest n that is tried."""
NEAR = 0.01
"""A power this near to the one asked for, on the probit scale, ends the search: 0.003 at 0.8."""


@dataclass(frozen=True)
class StudySize:
    """How many examples, in how many groups, and how alike those of a group are.

        design effect = 1 + (n/n_groups - 1)·icc,   n_effective = n / design effect

    Attributes:
        n:        examples.
        n_groups: independent groups of (nearly) equal size; None where every example is independent.
        icc:      intraclass correlation of what is averaged (for a paired difference, of the difference).
    Source: Kish, *Survey Sampling* (1965) §5.4.

    Example:
        >>> StudySize(120, 30, icc=0.2).n_effective
        75.0
    """

    n: int
    n_groups: int | None = None
    icc: float = 0.0

    def __post_init__(self) -> None:
        units = self.n if self.n_groups is None else self.n_groups
        if not 2 <= units <= self.n:
            raise ValueError(f"n {self.n}, n_groups {self.n_groups}: expected 2 groups or more, and no more than n.")
        if not 0 <= self.icc < 1:
            raise ValueError(f"icc: expected a number in [0, 1), got {self.icc!r}.")

    @property
    def units(self) -> int:
        """Independent units: groups, or examples."""
        return self.n if self.n_groups is None else self.n_groups

    @property
    def sizes(self) -> np.ndarray:
        """Examples in each group, as equal as possible [group]."""
        small, larger = divmod(self.n, self.units)
        return small + (np.arange(self.units) < larger).astype(int)

    @property
    def n_effective(self) -> float:
        return self.n / (1 + (self.n / self.units - 1) * self.icc)

    def of(self, n: int) -> StudySize:
        """The size with n examples in groups as large as these."""
        if self.n_groups is None:
            return replace(self, n=n)
        return replace(self, n=n, n_groups=min(n, max(2, round(n * self.n_groups / self.n))))


class Detectable(Protocol):
    """A kind of claim, with the probability that its rule calls a true effect shown.

    Attributes:
        largest: largest effect that is possible; infinite where there is no bound.
    """

    @property
    def largest(self) -> float: ...

    def power(self, effect: float, size: StudySize) -> float:
        """Share of studies of this size that show a true effect of this size."""
        ...


def smallest_detectable(claim: Detectable, size: StudySize, *, power: float = POWER) -> float:
    """Smallest true effect that is shown in at least a share `power` of studies of this size; infinite if none is.

    For `EquivalenceClaim` it is the smallest margin at which equal members are shown to be equal.

    Args:
        claim: what is claimed, by its rule: `MeanClaim`, `FamilyClaim`, `RateClaim`, `DifferenceClaim`,
            `EquivalenceClaim`, `AurocClaim`.
    Raises:
        ValueError: power outside (0, 1).

    Example:
        >>> from interp.stats.power import FamilyClaim, StudySize, smallest_detectable
        >>> round(smallest_detectable(FamilyClaim(family=32), StudySize(48)), 2)  # d of one of 32 heads, 48 pairs
        0.61
    """
    level("power", power)

    @cache  # the search asks for the ends of its bracket twice
    def reached(effect: float) -> float:
        return claim.power(effect, size)

    # upwards from below: the bootstrap of few groups loses power again where a rate comes near 1
    top, last = (1e9 if isinf(claim.largest) else claim.largest), 0.0
    tried = min(top, 0.05)
    while reached(tried) < power:
        if tried >= top:
            return inf
        last, tried = tried, min(top, 1.6 * tried)
    return _first(reached, last, tried, power)


def n_needed(claim: Detectable, effect: float, size: StudySize, *, power: float = POWER) -> int | None:
    """Smallest n, in groups as large as those of `size`, at which the effect is shown in a share `power` of studies.

    None where a million examples are not enough (a claim of equivalence at a margin below the true difference).

    Args:
        effect: true effect, in the unit of the claim; for `EquivalenceClaim` the margin.
        size: its n does not matter but for the size of a group.
    Raises:
        ValueError: as `smallest_detectable`; effect <= 0.

    Example:
        >>> from interp.stats.power import MeanClaim, StudySize, n_needed
        >>> n_needed(MeanClaim(), 0.5, StudySize(20))  # a mean of half a standard deviation
        36
    """
    level("power", power)
    if not effect > 0:
        raise ValueError(f"effect: expected one above 0, got {effect!r}.")
    least = 2 if size.n_groups is None else max(2, round(2 * size.n / size.n_groups))

    @cache  # the search asks for the ends of its bracket twice, and for one n by several roots
    def of(n: int) -> float:
        return claim.power(effect, size.of(n))

    def reached(root: float) -> float:
        return of(max(least, round(root**2)))

    last = high = float(max(least, size.n))
    while reached(sqrt(high)) < power:
        last, high = high, 2 * high
        if high > MOST:
            return None
    while last > least and reached(sqrt(last)) >= power:
        last, high = max(float(least), last / 2), last
    return max(least, round(_first(reached, sqrt(last), sqrt(high), power, whole=True) ** 2))


def _first(reached: Callable[[float], float], lo: float, hi: float, power: float, *, whole: bool = False) -> float:
    """The x in [lo, hi] at which a growing power reaches `power`: regula falsi on the probit scale, where power is
    nearly linear in an effect and in the root of n.

    Args:
        whole: x² is a number of examples: the search ends when it is found to one.
    """
    from scipy.special import ndtri

    def excess(x: float) -> float:
        return float(ndtri(min(max(reached(x), 1e-6), 1 - 1e-6)) - ndtri(power))

    low, high = excess(lo), excess(hi)
    if low >= 0:
        return lo
    for step in range(40):
        if (whole and hi**2 - lo**2 < 1) or hi - lo < 1e-4 * hi or high < NEAR:
            break
        # every third step halves the bracket: regula falsi alone creeps where one end is flat
        x = (lo + hi) / 2 if step % 3 == 2 else hi - high * (hi - lo) / (high - low)
        found = excess(x)
        if found >= 0:
            hi, high = x, found
        else:
            lo, low = x, found
    return hi
