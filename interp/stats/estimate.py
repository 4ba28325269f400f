"""An estimate with its interval, the only form in which a number leaves the library, and how that interval is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from interp.stats.check import Seed, choice, count, level

CONFIDENCE = 0.95
"""Level of every interval unless the caller names another."""
N_RESAMPLES = 2000
"""Resamples of groups unless the caller asks for another number."""
NO_SPREAD = "none: all groups have the same value"
"""What a table writes as the kind of interval where the data give none."""


METHODS = ("auto", "percentile", "bca")
"""Ways to make the interval of one number, see `Sampling`."""


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn: one value that is handed down from an analysis to every statistic that it calls.

    The groups are not part of it. They belong to the data, one entry per example, and are filtered and reordered with
    them, so every statistic takes `groups=` next to its values.

    Attributes:
        seed:        integer, or a numpy generator whose state moves on with every use.
        n_resamples: resamples of whole groups: of simultaneous bands, calibration errors, and the two bootstraps.
        confidence:  level of the intervals, in (0, 1).
        method:      interval of one number: "auto", the rule of `interp.stats.jackknife`, which draws nothing; or the
            bootstrap's "percentile" or "bca", for comparison. Bands and calibration errors take "auto" only.
    Raises:
        ValueError: a confidence outside (0, 1), no resamples, an unknown method.

    Example:
        >>> from dataclasses import replace
        >>> from interp.stats import Sampling
        >>> sampling = Sampling(seed=7)
        >>> sampling.n_resamples, replace(sampling, confidence=0.99).confidence
        (2000, 0.99)
    """

    seed: Seed = 0
    n_resamples: int = N_RESAMPLES
    confidence: float = CONFIDENCE
    method: str = "auto"

    def __post_init__(self) -> None:
        level("confidence", self.confidence)
        choice("method", self.method, METHODS)
        if count("n_resamples", self.n_resamples) < 1:
            raise ValueError(f"n_resamples: expected at least 1, got {self.n_resamples}.")


@dataclass(frozen=True)
class Estimate:
    """A value, its interval, and how much data it rests on.

    Attributes:
        value:    the estimate; NaN where it is not defined (no errors to average over, 0/0).
        lo, hi:   ends of the interval, lo <= hi; NaN where the data give none (no group differs from another, and
            the range of the value is unbounded).
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
