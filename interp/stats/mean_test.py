"""Which of many means (heads, layers, cells) are not zero: sign flips and a studentised bootstrap, both required."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interp.stats.check import Groups, Seed, Values, choice, generator, group_codes, level, numbers
from interp.stats.jackknife import group_weights
from interp.stats.multiplicity import ALTERNATIVES, rejects
from interp.stats.permutation import N_FLIPS, TIE, Shrinkage, critical, scale_of, signs, warn_if_never_significant

BUDGET = 8 * 2**20
"""Bytes of one array of resampled statistics; about five of them are alive at once."""
ROUNDING = 1e-12
"""Residuals below this share of the largest group sum are rounding: all groups have the same mean."""
LEAST_SHIFT = 1 / 6
"""Where nearly all groups agree, some resamples hold none of the exceptions: se~* is 0 and T* infinite. Such a draw
counts so only if |m* - m| is at least this share of |m|; otherwise se~ takes the place of se~*.

If all of them counted, a mean that is plain to see would not be significant: p = 0.13 for 58 groups at 1 and 2 at -1.
What the rule costs: of groups at a, but for a share q at -b, with a true mean of 0, it matters only in samples with
fewer than a seventh of the exceptions that are expected, so it adds at most 7·exp(-7) = 0.0064 to the error (one seen
of 7 expected)."""
KEPT = 64
"""Largest maxima of each draw that are kept: with fewer rejections than these, nothing is drawn twice."""

Draws = Callable[[np.ndarray], Iterator[np.ndarray]]
"""columns -> chunks [draw, column] of the statistic under the null; the same draws at every call."""


@dataclass(frozen=True, eq=False)
class MeanTest:
    """Result of `mean_test`, one entry per hypothesis, in the shape of the effects without their first axis.

    Attributes:
        mean:      mean effect over examples [...].
        statistic: mean over its moderated clustered standard error [...].
        p:         family-wise adjusted [...].
        p_single:  p of each hypothesis alone [...]; not valid for choosing among several.
        limit:     |mean| (mean, if one-sided) beyond which a hypothesis is significant, in its own unit [...].
        n_draws:   sign patterns, and resamples.
    """

    mean: np.ndarray
    statistic: np.ndarray
    p: np.ndarray
    p_single: np.ndarray
    limit: np.ndarray
    alpha: float
    n: int
    n_groups: int
    n_draws: int

    @property
    def is_significant(self) -> np.ndarray:
        return rejects(self.p, alpha=self.alpha)


def mean_test(
    effects: Values,
    *,
    groups: Groups,
    seed: Seed,
    n_draws: int = N_FLIPS,
    alternative: str = "two-sided",
    alpha: float = 0.05,
) -> MeanTest:
    """Family-wise test of many means that may be skewed: the larger p of sign flips and a studentised bootstrap.

        S_g = sum of the effects of group g;  m = sum_g S_g / n;  se² = G/(G-1) · sum_g (S_g - n_g m)² / n²
        T = m / se~
        se~² = (d0·s0² + d·se²) / (d0 + d)    d0, s0²: what the hypotheses share; d <= G - 1, less with heavy tails

        bootstrap:  T* = (m* - m) / se~*  over groups drawn with replacement, the same for all; se~* = 0: LEAST_SHIFT
        flips:      one sign per group, see `sign_flip` with stat="moderated"
        p_j = max over both of (1 + #{draws: max over hypotheses not rejected before j of T* >= T_j}) / (1 + n_draws)

    Flips alone test symmetry: of effects that are skewed around 0 they call the mean significant. The bootstrap repeats
    the skew, and the hypothesis with the heaviest tail sets the bar for all. With few groups the bootstrap alone is
    coarse; the flips bound its p by 2^(1-G). Step-down: hypotheses are tested in order of T, each against those that
    are left. A hypothesis with so few groups of non-zero sum that it can never be significant raises no bar.

    Limit of any test: where a rare large effect is missing from the sample by chance, the sample holds no trace of it
    (Bahadur & Savage 1956). Centred effects of the demo's heuristic member, of which some rest on 2 of 150 documents,
    are called significant in 0.19 of samples of 16 documents and in 0.14 of 40; the means so called are 0.24 to 0.3
    logits, where the largest effect is 4.7. Conditions that bring this below 0.06 lose half of the heads that do have
    an effect there; they are listed in docs/concepts/controls.md, measured error rates in docs/concepts/validity.md.

    Args:
        effects: effect of each example on each hypothesis, [example, ...]; [example] for a single one.
        groups: independent unit of each example. None: every example its own.
        n_draws: resamples, and sign patterns; all 2^G of them where that is no more.
        alternative: "two-sided", "greater" or "less".
    Raises:
        ValueError: NaN, one group, lengths differ, unknown alternative.
    Warns:
        TooFewFlipsWarning: the smallest possible p is not below alpha.
    Source: Westfall & Young (1993), step-down; Romano & Wolf, JASA 100 (2005) 94 (studentised, bootstrap); Smyth,
        Stat. Appl. Genet. Mol. Biol. 3 (2004) 3 (moderation); Winkler et al., NeuroImage 92 (2014) 381 (flips).

    Example:
        >>> import numpy as np
        >>> effects = np.random.default_rng(0).normal(size=(60, 8)) + np.array([1.0] + [0.0] * 7)
        >>> mean_test(effects, groups=np.arange(60) // 3, seed=0).is_significant.tolist()[:2]
        [True, False]
    """
    choice("alternative", alternative, ALTERNATIVES)
    level("alpha", alpha)
    array = numbers("effects", effects, at_least=2, ndim=None)
    codes, shape = group_codes(groups, len(array)), array.shape[1:]
    sign = -1.0 if alternative == "less" else 1.0
    groupwise = _Groupwise(sign * codes.sums(array.reshape(len(array), -1)), codes.sizes, alternative == "two-sided")
    exact, rngs = 2**codes.n_groups <= n_draws, generator(seed).spawn(2)
    nulls = _flips(groupwise, rngs[0], n_draws, exact=exact), _bootstrap(groupwise, rngs[1], n_draws, alpha=alpha)
    p, single, limit = np.max([_step_down(null, alpha) for null in nulls], axis=0)
    warn_if_never_significant(codes.n_groups, n_draws, alternative, alpha)
    t, p, single, limit = (part.reshape(shape) for part in (sign * groupwise.t, p, single, sign * limit))
    return MeanTest(np.asarray(array.mean(axis=0)), t, p, single, limit, alpha, len(array), codes.n_groups, n_draws)


@dataclass(frozen=True, eq=False)
class _Groupwise:
    """Group sums [group, hypothesis] and sizes [group], with everything that does not change from draw to draw."""

    sums: np.ndarray
    sizes: np.ndarray
    two_sided: bool

    @property
    def n(self) -> float:
        return float(self.sizes.sum())

    @cached_property
    def mean(self) -> np.ndarray:
        """Over examples [hypothesis]."""
        return self.sums.sum(axis=0) / self.n

    @cached_property
    def residual(self) -> np.ndarray:
        """What is left of the sums when every group has the mean of all [group, hypothesis]; 0 where it is rounding."""
        left = self.sums - self.sizes[:, None] * self.mean
        is_rounding = np.abs(left).max(axis=0) <= ROUNDING * np.abs(self.sums).max(axis=0, initial=0.0)
        return np.where(is_rounding, 0.0, left)

    def variance(self, squares: np.ndarray, n: np.ndarray | float) -> np.ndarray:
        """Squared clustered standard error of sum/n from the squares of the group residuals."""
        return len(self.sums) / (len(self.sums) - 1) * squares / n**2

    @cached_property
    def own_variance(self) -> np.ndarray:
        """Of the mean, each hypothesis by itself [hypothesis]."""
        return self.variance((self.residual**2).sum(axis=0), self.n)

    @cached_property
    def shrunk(self) -> Shrinkage:
        return Shrinkage.of(self.own_variance, self.residual**2, len(self.sums) - 1)

    @cached_property
    def se(self) -> np.ndarray:
        """Moderated standard error of the mean [hypothesis]."""
        return np.sqrt(self.shrunk(self.own_variance))

    @cached_property
    def t(self) -> np.ndarray:
        """mean / se; 0 where the mean is 0, infinite where only se is [hypothesis]."""
        return _ratio(self.mean, self.se)

    def sided(self, t: np.ndarray) -> np.ndarray:
        """|t| where the test is two-sided, in the memory of t."""
        return np.abs(t, out=t) if self.two_sided else t


@dataclass(frozen=True, eq=False)
class _Null:
    """One way to draw under the null: the observed statistic [hypothesis], how much of the mean one unit of it is
    [hypothesis], its draws, and 1 where these are random (0 where they are all there are)."""

    observed: np.ndarray
    unit: np.ndarray
    draws: Draws
    extra: int


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where the top is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top == 0, 0.0, top / bottom)


def _flips(of: _Groupwise, rng: np.random.Generator, n_draws: int, *, exact: bool) -> _Null:
    scale = scale_of(of.sums, "moderated", int(of.n))
    units = np.divide(of.sums, scale, out=np.zeros_like(of.sums), where=scale > 0)
    state = rng.bit_generator.state

    def draws(columns: np.ndarray) -> Iterator[np.ndarray]:
        rng.bit_generator.state = state
        chosen = units[:, columns]
        for flips in signs(len(units), n_draws, units.shape[1], rng):
            yield of.sided(flips @ chosen)

    return _Null(of.sided(units.sum(axis=0)), scale / of.n, draws, 0 if exact else 1)


def _bootstrap(of: _Groupwise, rng: np.random.Generator, n_draws: int, *, alpha: float) -> _Null:
    n_groups, sizes = of.sums.shape[0], of.sizes
    n_moving = (np.abs(of.sums) > ROUNDING * np.abs(of.sums).max(axis=0, initial=0.0)).sum(axis=0)
    silent = 2.0 ** ((1 if of.two_sided else 0) - n_moving) > alpha
    state = rng.bit_generator.state

    def draws(columns: np.ndarray) -> Iterator[np.ndarray]:
        rng.bit_generator.state = state
        residual, still = of.residual[:, columns], silent[columns]
        squares, crossed = residual**2, residual * sizes[:, None]
        budget = max(1, 2 * BUDGET * n_groups // max(of.sums.shape[1], n_groups))
        for weights in group_weights(n_groups, n_resamples=n_draws, seed=rng, budget=budget):
            n = (weights @ sizes)[:, None]
            shift = _no_rounding(weights @ residual, np.abs(residual)) / n
            spread = weights @ squares - 2 * shift * (weights @ crossed) + shift**2 * (weights @ sizes**2)[:, None]
            spread = np.maximum(_no_rounding(spread, squares), 0.0)
            se = np.sqrt(of.shrunk(of.variance(spread, n)))
            if not se.all():  # no exception was drawn: the spread is unknown, not 0
                is_near = (se == 0) & (np.abs(shift) < LEAST_SHIFT * np.abs(of.mean[columns]))
                se = np.where(is_near, of.se[columns], se)
            t = _ratio(shift, se)
            t = of.sided(t)
            t[:, still] = -np.inf
            yield t

    return _Null(of.sided(of.t.copy()), of.se, draws, 1)


def _no_rounding(total: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Totals that are only what rounding leaves of their parts [group, hypothesis] as 0."""
    return np.where(np.abs(total) > 1e-12 * parts.sum(axis=0), total, 0.0)


def _step_down(null: _Null, alpha: float) -> np.ndarray:
    """(family-wise p, p alone, limit of the mean) [3, hypothesis], Westfall & Young's step-down maxima."""
    order = np.argsort(null.observed, kind="stable")
    size = null.observed[order]
    reach = size.copy()
    reach[np.isfinite(size)] -= TIE * np.maximum(np.abs(size[np.isfinite(size)]), TIE)
    n_draws, n_above, n_single = 0, np.zeros(len(size)), np.zeros(len(size))
    last: list[np.ndarray] = []
    for chunk in null.draws(order):
        n_draws += len(chunk)
        n_single += (chunk >= reach).sum(axis=0)
        np.maximum.accumulate(chunk, axis=1, out=chunk)  # column j: the maximum over j and all with a smaller statistic
        n_above += (chunk >= reach).sum(axis=0)
        last.append(chunk[:, -KEPT:].copy())
    p = np.maximum.accumulate(((n_above + null.extra) / (n_draws + null.extra))[::-1])[::-1]
    n_left = max(1, int((p > alpha).sum()))  # rejected hypotheses no longer count in the maximum
    place = n_left - 1 - (len(size) - last[0].shape[1])  # of the maximum over those that are left, in `last`
    if place >= 0:
        maxima = np.concatenate([chunk[:, place] for chunk in last])
    else:
        maxima = np.concatenate([chunk.max(axis=1) for chunk in null.draws(order[:n_left])])
    bar = critical(maxima, alpha, null.extra)
    out = np.empty((3, len(size)))
    unit = null.unit[order]
    limit = np.multiply(bar, unit, out=np.zeros_like(unit), where=unit > 0)
    out[:, order] = p, (n_single + null.extra) / (n_draws + null.extra), limit
    return out
