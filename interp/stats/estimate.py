"""An estimate with its interval: the only form in which a number leaves the library."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

import numpy as np

CONFIDENCE = 0.95
"""Level of every interval unless the caller names another."""
NO_SPREAD = "none: no group differs from another"
"""What a table writes as the kind of interval where the data give none."""


@dataclass(frozen=True)
class Estimate:
    """A value, its interval, and how much data stands behind it.

    Attributes:
        value:    the estimate; NaN where it is not defined (no errors to average over, 0/0).
        lo, hi:   ends of the interval, lo <= hi; NaN where the data give none (no group differs from another, and
            nothing is known of how far one could).
        n:        number of examples.
        n_groups: number of independent groups among them; equals n where every example is its own group.
    """

    value: float
    lo: float
    hi: float
    n: int
    n_groups: int

    def __post_init__(self) -> None:
        assert not self.lo > self.hi, f"interval upside down: [{self.lo}, {self.hi}]"
        assert 0 <= self.n_groups <= self.n, f"{self.n_groups} groups for {self.n} examples"

    @classmethod
    def undefined(cls, n: int = 0, n_groups: int = 0) -> Estimate:
        """A cell of a table for which the data give no value; prints as a dash."""
        return cls(nan, nan, nan, n, n_groups)

    @property
    def is_defined(self) -> bool:
        return not isnan(self.value)

    @property
    def has_interval(self) -> bool:
        return not isnan(self.lo)

    def interval_kind(self, kind: str) -> str:
        """What a table writes next to the ends: `kind`, or why a number has none."""
        return NO_SPREAD if self.is_defined and not self.has_interval else kind

    def excludes(self, number: float) -> bool:
        """Whether the interval lies wholly on one side of `number`; False where there is none."""
        return self.lo > number or self.hi < number

    def includes(self, number: float) -> bool:
        """Whether `number` lies in the interval; where there is none, whether it is the value."""
        return self.lo <= number <= self.hi or (not self.has_interval and self.value == number)

    def _repr_html_(self) -> str:
        return str(self)

    def __str__(self) -> str:
        if not self.is_defined:
            return f"– (n={self.n})"
        groups = "" if self.n_groups == self.n else f", {self.n_groups} groups"
        interval = f"[{self.lo:.3f}, {self.hi:.3f}]" if self.has_interval else "[no interval]"
        return f"{self.value:.3f} {interval} (n={self.n}{groups})"


@dataclass(frozen=True, eq=False)
class Estimates:
    """Many estimates from the same examples and the same resamples: value[...], lo[...], hi[...]."""

    value: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    n: int
    n_groups: int

    def at(self, *index: int) -> Estimate:
        """One of them: `effects.at(layer, head)`."""
        return Estimate(float(self.value[index]), float(self.lo[index]), float(self.hi[index]), self.n, self.n_groups)
