"""Power of claims about rates: one against a constant, a paired difference, and equivalence; seeded simulation."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from interp.stats.intervals import t_value, z_value
from interp.stats.jackknife import effective_groups
from interp.stats.multiplicity import ALPHA
from interp.stats.power.size import StudySize
from interp.stats.power.tables import PairedStudies, draw_groups, wilson_ends

N_STUDIES = 2_000
"""Simulated studies of one power: its standard error is 0.009 at 0.8."""
MOST_UNITS = 1_000
"""With more units than these the normal approximation is used in place of the simulation."""
MOST_ITEMS = 100_000
"""Without groups a simulation costs the same for any n, and is used up to here."""


@dataclass(frozen=True)
class DifferenceClaim:
    """One member is right more often than another on the same items; shown where the interval of the paired difference
    excludes 0 and its p is at most alpha/family (`compare_paired`).

        P(only a right) = discordance/2 + effect,   P(only b right) = discordance/2
        power = share of 2,000 simulated studies that show it; above 1,000 groups P( T(ncp) > t_{1-alpha/(2 family)} ),
        ncp = effect/sqrt((discordance + effect - effect²)/n_effective)

    Attributes:
        discordance: share of the items that exactly one of two equal members has right: what the effect adds to.
        accuracy:    accuracy of the better member.
        family:      differences that are corrected for (Holm's first step).
    Source: exact McNemar and `mean_test` as in `compare_paired`; large n: Connor, Biometrics 43 (1987) 207.

    Example:
        >>> round(DifferenceClaim(discordance=0.1).power(0.2, StudySize(60)), 1)
        0.8
    """

    discordance: float = 0.1
    accuracy: float = 0.9
    family: int = 1
    alpha: float = ALPHA
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(discordance=self.discordance, accuracy=self.accuracy)

    @property
    def largest(self) -> float:
        return 1 - self.discordance

    def power(self, effect: float, size: StudySize) -> float:
        level = self.alpha / self.family
        if _is_large(size):
            return _normal(effect, self.discordance + effect - effect**2, size, level)
        found = PairedStudies.draw(np.random.default_rng(self.seed), self.cells(effect), size, N_STUDIES)
        lo, _ = found.interval(1 - level)
        open_studies = lo > 0  # p is needed of no others
        return float((found.only(open_studies).p(self.seed) <= level).sum() / N_STUDIES) if open_studies.any() else 0.0

    def cells(self, effect: float) -> np.ndarray:
        """Probabilities of (both right, only a, only b, neither)."""
        return paired_cells(effect, self.discordance, self.accuracy)


@dataclass(frozen=True)
class EquivalenceClaim:
    """Two members are equally often right, within a margin; the effect asked about is the margin.

        rule "interval": the 95 % interval of the paired difference lies inside ±margin, as the claims ledger asks
        rule "tost":     two one-sided tests at alpha (`tost_paired`), as the column `verdict` of the table `pair`
        power = share of 2,000 simulated studies of members with this true difference that show it; above 1,000 groups
        2·Φ((margin - |difference|)/se - z) - 1 with se² = discordance/n_effective

    The interval rule needs more items than the two tests: it is two one-sided tests at alpha/2.

    Attributes:
        discordance: share of the items that exactly one of the two members has right.
        difference:  true difference; equivalence within a smaller margin is never shown.
        accuracy:    accuracy of the better member.
    Source: Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657; the rules themselves, simulated.

    Example:
        >>> from interp.stats.power import n_needed
        >>> 430 < n_needed(EquivalenceClaim(discordance=0.1), 0.05, StudySize(100)) < 470
        True
    """

    discordance: float = 0.1
    difference: float = 0.0
    accuracy: float = 0.9
    rule: Literal["interval", "tost"] = "interval"
    alpha: float = ALPHA
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(discordance=self.discordance, accuracy=self.accuracy)

    @property
    def largest(self) -> float:
        return 1.0

    def power(self, effect: float, size: StudySize) -> float:
        if effect <= abs(self.difference):
            return 0.0
        gap = abs(self.difference)
        if _is_large(size):
            spread = max(self.discordance + gap - gap**2, 1e-12)
            tail = self.alpha if self.rule == "interval" else 2 * self.alpha
            reached = [_normal(effect - side * gap, spread, size, tail) for side in (1, -1)]
            return max(0.0, sum(reached) - 1)
        cells = paired_cells(gap, self.discordance, self.accuracy)
        found = PairedStudies.draw(np.random.default_rng(self.seed), cells, size, N_STUDIES)
        if self.rule == "tost":
            return _share(found.is_equivalent(effect, self.alpha))
        lo, hi = found.interval(1 - self.alpha)
        return _share((lo > -effect) & (hi < effect))


@dataclass(frozen=True)
class RateClaim:
    """A rate above a constant (chance, a control that is known); shown where `wilson_clustered` excludes it.

        power = share of 2,000 simulated studies with the true rate control + effect whose interval is above control

    Attributes:
        control: the rate that it is compared with.
    Source: Wilson's interval at the effective sample size, simulated.

    Example:
        >>> round(RateClaim(0.5).power(0.15, StudySize(100)), 1)
        0.9
    """

    control: float = 0.5
    alpha: float = ALPHA
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(control=self.control)

    @property
    def largest(self) -> float:
        return 1 - self.control

    def power(self, effect: float, size: StudySize) -> float:
        rate = self.control + effect
        if _is_large(size):
            return _normal(effect, max(rate * (1 - rate), 1e-12), size, self.alpha)
        rng = np.random.default_rng(self.seed)
        if size.units == size.n:
            p = rng.binomial(size.n, rate, N_STUDIES) / size.n
            _, lo, _ = wilson_ends(p, np.full(N_STUDIES, float(size.n)), z_value(1 - self.alpha))
            return _share(lo > self.control)
        right = draw_groups(rng, np.array([rate, 1 - rate]), size, N_STUDIES)[:, :, 0].T.astype(float)
        sizes, zeros = size.sizes.astype(float), np.zeros_like(right)
        # a rate is the difference from a member that is never right, so its effective n is that of the difference
        found = PairedStudies(zeros, right, zeros, sizes, is_grouped=True)
        q = t_value(1 - self.alpha, max(1.0, float(effective_groups(sizes)) - 1))
        _, lo, _ = wilson_ends(found.mean, found.near(found.n_effective), q)
        return _share(lo > self.control)


def paired_cells(effect: float, discordance: float, accuracy: float) -> np.ndarray:
    """Probabilities of (both right, only a, only b, neither), a the better by `effect`, only b right in half of
    `discordance`. Both right: as often as the accuracy of a leaves it."""
    only_a, only_b = discordance / 2 + effect, discordance / 2
    both = min(max(accuracy - only_a, 0.0), max(1 - only_a - only_b, 0.0))
    cells = np.array([both, only_a, only_b, max(1 - both - only_a - only_b, 0.0)])
    return cells / cells.sum()


def _is_large(size: StudySize) -> bool:
    return size.units > (MOST_ITEMS if size.n_groups is None else MOST_UNITS)


def _normal(effect: float, variance: float, size: StudySize, alpha: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(effect / sqrt(variance / size.n_effective) - z_value(1 - alpha)))


def _share(hits: np.ndarray) -> float:
    return float(hits.mean())


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a share in [0, 1], got {value!r}.")
