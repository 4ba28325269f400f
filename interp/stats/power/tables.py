"""Simulated tables of two members on the same grouped items, many studies at once, under the rules of their claims.

Every rule here is an array form of a public one: `compare_paired` (interval and p) and `tost_paired`. A test compares
them study by study.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb

import numpy as np

from interp.stats.intervals import t_value, z_value
from interp.stats.jackknife import Jackknife, effective_groups, group_weights
from interp.stats.mean_test import LEAST_SHIFT
from interp.stats.permutation import TIE, signs
from interp.stats.power.size import StudySize

N_DRAWS = 599
"""Sign patterns and resamples of a simulated test: enough for its 5 % point."""
MOST_WAYS = 64
"""Ways in which a group can come out, up to which they are listed."""


def draw_groups(rng: np.random.Generator, p: np.ndarray, size: StudySize, n_studies: int) -> np.ndarray:
    """Counts of categories in each group [study, group, category].

    The probabilities of a group are Dirichlet with mean p, so that the indicator of every category has the intraclass
    correlation of `size`. A group of few items can only come out in a few ways: which one is drawn, from a table.
    """
    out = np.empty((n_studies, size.units, len(p)), dtype=np.int64)
    for n in np.unique(size.sizes):
        chosen = size.sizes == n
        shape = (n_studies, int(chosen.sum()))
        if comb(int(n) + len(p) - 1, len(p) - 1) <= MOST_WAYS:
            ways, chances = _ways(p, int(n), size.icc)
            found = np.searchsorted(np.cumsum(chances)[:-1], rng.random(shape, dtype=np.float32), side="right")
            out[:, chosen] = ways[found]
        else:
            rates = np.broadcast_to(p, (*shape, len(p)))
            if size.icc > 0:
                gammas = rng.standard_gamma(_strength(p, size.icc), size=(*shape, len(p)))
                rates = gammas / np.maximum(gammas.sum(axis=-1, keepdims=True), 1e-300)
            out[:, chosen] = rng.multinomial(int(n), rates)
    return out


def _strength(p: np.ndarray, icc: float) -> np.ndarray:
    """Parameters of the Dirichlet; of a category that does not occur, as good as 0."""
    return np.maximum(p * (1 - icc) / icc, 1e-12)


def _ways(p: np.ndarray, n: int, icc: float) -> tuple[np.ndarray, np.ndarray]:
    """(counts [way, category] of every way in which n items can fall, probability of each [way])."""
    from scipy.stats import dirichlet_multinomial, multinomial

    occurs = p > 0
    found = np.array([one for one in product(range(n + 1), repeat=int(occurs.sum())) if sum(one) == n])
    law = multinomial(n, p[occurs]) if n == 1 or icc == 0 else dirichlet_multinomial(_strength(p[occurs], icc), n)
    ways = np.zeros((len(found), len(p)), dtype=np.int64)
    ways[:, occurs] = found
    return ways, law.pmf(found)


@dataclass(frozen=True, eq=False)
class PairedStudies:
    """Counts of who was right in each group of each study, and what `compare_paired` would say.

    Attributes:
        only_a, only_b, both: [group, study]; without groups all items of a study in one row.
        sizes: items of each row [group].
        is_grouped: whether groups were given at all.
    """

    both: np.ndarray
    only_a: np.ndarray
    only_b: np.ndarray
    sizes: np.ndarray
    is_grouped: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, p: np.ndarray, size: StudySize, n_studies: int) -> PairedStudies:
        """Studies with the probabilities (both right, only a, only b, neither)."""
        is_grouped = size.n_groups is not None
        counts = draw_groups(rng, p, size, n_studies) if is_grouped else rng.multinomial(size.n, p, (n_studies, 1))
        both, only_a, only_b = (counts[:, :, j].T.astype(float) for j in range(3))
        return cls(
            both, only_a, only_b, size.sizes.astype(float) if is_grouped else np.array([float(size.n)]), is_grouped
        )

    def only(self, chosen: np.ndarray) -> PairedStudies:
        """The chosen studies [study]."""
        both, only_a, only_b = (part[:, chosen] for part in (self.both, self.only_a, self.only_b))
        return PairedStudies(both, only_a, only_b, self.sizes, self.is_grouped)

    @property
    def n(self) -> float:
        return float(self.sizes.sum())

    @property
    def units(self) -> int:
        return len(self.sizes)

    @cached_property
    def sums(self) -> np.ndarray:
        """Sum of the differences of each group [group, study]."""
        return self.only_a - self.only_b

    @cached_property
    def totals(self) -> np.ndarray:
        """(both, only a, only b, neither) of each study [4, study]."""
        three = [part.sum(axis=0) for part in (self.both, self.only_a, self.only_b)]
        return np.stack([*three, self.n - sum(three)])

    @property
    def mean(self) -> np.ndarray:
        return self.sums.sum(axis=0) / self.n

    @cached_property
    def knife(self) -> Jackknife:
        """Of the mean difference, over groups; without groups, over items that differ by 1, 0 or -1."""
        if not self.is_grouped:
            _, a, b, _ = self.totals
            kinds, n = np.stack([a, self.n - a - b, b]), self.n
            deviation = (np.array([[1.0], [0.0], [-1.0]]) - self.mean) / (n - 1)
            squares, cubes = ((kinds * deviation**power).sum(axis=0) / n for power in (2, 3))
            raw = np.divide(cubes, squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
            se, skew = np.sqrt((n - 1) * squares), raw * np.sqrt(n * (n - 1)) / max(n - 2, 1.0)
            return Jackknife(deviation, se, np.full(se.shape, n), skew)
        left_out = (self.sums.sum(axis=0) - self.sums) / (self.n - self.sizes[:, None])
        return Jackknife.of(left_out, float(effective_groups(self.sizes)))

    @cached_property
    def n_effective(self) -> np.ndarray:
        """`interp.stats.means.effective_n` of the differences [study]."""
        squares = (self.only_a + self.only_b).sum(axis=0) - self.n * self.mean**2
        variance = self.knife.se**2
        is_constant = squares < 1e-9
        with np.errstate(invalid="ignore", divide="ignore"):
            out = np.where(variance > 0, squares / (self.n - 1) / variance, self.n)
        return np.minimum(self.n, np.where(is_constant, float(effective_groups(self.sizes)), out))

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of `paired_difference`: Newcombe's interval at the effective number of items [study]."""
        if not self.is_grouped:
            return newcombe_limits(self.totals, z_value(confidence))
        n = self.n_effective
        if self.units < self.n:
            _, a, b, _ = self.totals
            is_lopsided = np.maximum(a, b) > self.n / 2
            n = np.where(is_lopsided, self.near(n), n)
        return newcombe_limits(self.totals * (n / self.n), t_value(confidence, self._df))

    @property
    def _df(self) -> float:
        return max(1.0, float(effective_groups(self.sizes)) - 1)

    def near(self, n: np.ndarray) -> np.ndarray:
        """`interp.stats.means.rate_n` of the differences."""
        zero = self.sizes[:, None] - self.only_a - self.only_b
        kinds = np.stack([self.only_b, zero, self.only_a])
        commonest = kinds.sum(axis=1).argmax(axis=0)
        kept = np.take_along_axis(kinds, commonest[None, None, :], axis=0)[0]
        w = (kept < self.sizes[:, None]).sum(axis=0)
        m = (1 / (w + 1) - 1 / (self.units + 1)) / 2
        return np.minimum(n, 1 / ((1 - m) / n + m / float(effective_groups(self.sizes))))

    def p(self, seed: int) -> np.ndarray:
        """p of `compare_paired` [study]: exact McNemar without groups, otherwise `mean_test` of the differences."""
        from scipy.special import bdtr

        _, a, b, _ = self.totals
        if not self.is_grouped:
            return np.minimum(1.0, 2 * bdtr(np.minimum(a, b), (a + b).astype(int), 0.5))
        rng = np.random.default_rng(seed)
        return np.maximum(_p_of_flips(self.sums, rng), _p_of_bootstrap(self.sums, self.sizes, rng))

    def is_equivalent(self, margin: float, alpha: float) -> np.ndarray:
        """Whether `tost_paired` shows equivalence [study]."""
        q = t_value(1 - 2 * alpha, max(float(self.knife.effective.max()) - 1, 1.0))
        below, above = self.knife.reach(np.full(self.mean.shape, q))
        is_inside = (self.mean - below * self.knife.se > -margin) & (self.mean + above * self.knife.se < margin)
        by_mean = np.where(self.knife.se > 0, is_inside, True)
        _, a, b, _ = self.totals
        n, bar = np.full(a.shape, self.n), z_value(1 - 2 * alpha)
        if self.is_grouped:
            k = float(effective_groups(self.sizes))
            w = (self.only_a + self.only_b > 0).sum(axis=0)
            trust = w / (w + 1)
            n, bar = 1 / (trust / self.n_effective + (1 - trust) / k), t_value(1 - 2 * alpha, max(k - 1, 1.0))
        a, b = a * n / self.n, b * n / self.n
        return by_mean & (_tango(a, b, n, -margin) >= bar) & (_tango(a, b, n, margin) <= -bar)


def newcombe_limits(cells: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """(lo, hi) of `interp.stats.intervals.paired_limits` for many tables [4, study]."""
    both, only_a, only_b, neither = cells
    n = cells.sum(axis=0)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    cross = both * neither - only_a * only_b
    cross = np.where(cross > 0, np.maximum(cross - n / 2, 0.0), cross)
    r = np.divide(cross, np.sqrt(margins), out=np.zeros_like(cross), where=margins > 0)
    (p_a, lo_a, hi_a), (p_b, lo_b, hi_b) = (wilson_ends((both + one) / n, n, z) for one in (only_a, only_b))
    r, d = np.clip(r, -1.0, 1.0), p_a - p_b
    below = np.maximum((p_a - lo_a) ** 2 - 2 * r * (p_a - lo_a) * (hi_b - p_b) + (hi_b - p_b) ** 2, 0.0)
    above = np.maximum((p_b - lo_b) ** 2 - 2 * r * (p_b - lo_b) * (hi_a - p_a) + (hi_a - p_a) ** 2, 0.0)
    return d - np.sqrt(below), d + np.sqrt(above)


def wilson_ends(p: np.ndarray, n: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(p, lo, hi) of `wilson_limits` for many rates."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(np.maximum(p * (1 - p) / n, 0.0) + z * z / (4 * n * n)) / (1 + z * z / n)
    lo = np.where(p <= 1e-12, 0.0, np.maximum(centre - half, 0.0))
    return p, lo, np.where(p >= 1 - 1e-12, 1.0, np.minimum(centre + half, 1.0))


def _tango(a: np.ndarray, b: np.ndarray, n: np.ndarray, delta: float) -> np.ndarray:
    """Score statistic of "the difference is delta" (`interp.stats.equivalence._ScoreTest.z`)."""
    linear = (2 * n - a + b) * delta - a - b
    q = (np.sqrt(np.maximum(linear**2 + 8 * n * b * delta * (1 - delta), 0.0)) - linear) / (4 * n)
    variance, distance = n * (2 * q + delta * (1 - delta)), a - b - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        z = distance / np.sqrt(np.maximum(variance, 0.0))
    return np.where(variance > 0, z, np.where(distance == 0, 0.0, np.copysign(np.inf, distance)))


def _p_of_flips(sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p of sign flips of one mean, for every study [study]."""
    total, count, n_draws = np.abs(sums.sum(axis=0)), np.zeros(sums.shape[1]), 0
    reach = total - TIE * np.maximum(total, TIE)
    for flips in signs(len(sums), N_DRAWS if len(sums) > 12 else 2**12, max(sums.shape), rng):
        count += (np.abs(flips @ sums) >= reach).sum(axis=0)
        n_draws += len(flips)
    extra = 0 if n_draws == 2 ** len(sums) else 1
    return (count + extra) / (n_draws + extra)


def _p_of_bootstrap(sums: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p of the studentised bootstrap of one mean, for every study [study]."""
    mean, squares_of_sizes = sums.sum(axis=0) / sizes.sum(), sizes**2
    residual = sums - sizes[:, None] * mean
    own, total = (residual**2).sum(axis=0), float(sizes.sum())
    observed = _t(mean, own, total)
    crossed, squares, count, n_draws = residual * sizes[:, None], residual**2, np.zeros(sums.shape[1]), 0
    reach = observed * (1 - TIE)
    for weights in group_weights(len(sums), n_resamples=N_DRAWS, seed=rng):
        n = (weights @ sizes)[:, None]
        shift = weights @ residual / n
        spread = weights @ squares - 2 * shift * (weights @ crossed) + shift**2 * (weights @ squares_of_sizes)[:, None]
        shift, spread = np.where(np.abs(shift) < 1e-12, 0.0, shift), np.where(spread < 1e-12, 0.0, spread)
        is_near = (spread == 0) & (np.abs(shift) < LEAST_SHIFT * np.abs(mean))
        count += (np.where(is_near, _t(shift, own, total), _t(shift, spread, n)) >= reach).sum(axis=0)
        n_draws += len(weights)
    return (count + 1) / (n_draws + 1)


def _t(mean: np.ndarray, squares: np.ndarray, n: np.ndarray | float) -> np.ndarray:
    """|mean| over the root of its squared residuals; 0 where the mean is 0. The factor G/(G - 1) cancels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, np.abs(mean) * n / np.sqrt(squares))
