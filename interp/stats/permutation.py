"""Permuted labels and flipped signs that respect groups: nulls of fits to labels and of symmetric effects."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from interp.remedy import remedy
from interp.stats.check import GroupCodes, Groups, Real, Seed, Values, choice, generator, group_codes, level, numbers
from interp.stats.multiplicity import ALTERNATIVES, rejects, smallest_p

SCHEMES = ("group", "within", "between")


def permute_labels(labels: Values, *, groups: Groups, n_permutations: int, seed: Seed, scheme: str) -> np.ndarray:
    """Relabellings [permutation, example] under which the labels carry no information beyond the groups.

        group    labels are constant inside a group: the group labels are permuted among groups;
        within   labels vary inside a group: permuted inside each group (tests signal beyond the group; with
                 groups = strata it is a stratified permutation);
        between  the whole label vectors of groups of equal size are exchanged (row order inside a group counts)

    groups=None permutes rows freely. Repeat the full pipeline, selection included, on each row, then read p
    from `permutation_p` or `max_null_p`. Permuting rows freely although labels belong to groups makes a
    group effect look like signal.

    Raises:
        ValueError: lengths differ, one group, scheme "group" with labels that vary inside a group, "within" with
            labels constant in every group, "between" with no two groups of equal size.
    Source: Good, *Permutation Tests* (2000); Winkler et al., NeuroImage 123 (2015) 253 (exchangeability blocks).
    """
    choice("scheme", scheme, SCHEMES)
    labels, rng = np.asarray(labels), generator(seed)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"labels: expected one label for each of at least 2 examples, got shape {labels.shape}.")
    if groups is None:
        return np.stack([rng.permutation(labels) for _ in range(n_permutations)])
    codes = group_codes(groups, len(labels), at_least=1 if scheme == "within" else 2)
    members = np.split(np.argsort(codes.code, kind="stable"), np.cumsum(codes.sizes[:-1]).astype(int))
    draw = {"group": _group_labels, "within": _within_groups, "between": _between_groups}[scheme]
    return draw(labels, codes, members, n_permutations, rng)


def _is_constant(labels: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    return np.array([(labels[rows] == labels[rows[0]]).all() for rows in members])


def _group_labels(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    constant = _is_constant(labels, members)
    if not constant.all():
        raise ValueError(
            f"scheme 'group': expected one label per group, {(~constant).sum()} of {codes.n_groups} groups have "
            "several. " + remedy("Use {probes.scheme:within} (signal beyond the group) or between.")
        )
    group_label = labels[[rows[0] for rows in members]]
    return np.stack([rng.permutation(group_label)[codes.code] for _ in range(n)])


def _within_groups(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    if _is_constant(labels, members).all():
        raise ValueError(
            f"scheme 'within': the label is constant inside each of the {codes.n_groups} groups, so no label "
            "would move. " + remedy("Use {probes.scheme:group}.")
        )
    order = np.argsort(codes.code, kind="stable")
    out = np.empty((n, len(labels)), dtype=labels.dtype)
    for i in range(n):
        out[i, order] = labels[np.lexsort((rng.random(len(labels)), codes.code))]
    return out


def _between_groups(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    sizes = codes.sizes.astype(int)
    blocks = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    if all(len(block) < 2 for block in blocks):
        raise ValueError(
            f"scheme 'between': no two of the {codes.n_groups} groups have the same size (sizes "
            f"{sizes.min()}-{sizes.max()}), so no label would move. "
            + remedy("Cap the rows per group, or use {probes.scheme:within}.")
        )
    out = np.empty((n, len(labels)), dtype=labels.dtype)
    for i in range(n):
        for block in blocks:
            for target, source in zip(block, rng.permutation(block), strict=True):
                out[i, members[target]] = labels[members[source]]
    return out


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
        p_single:  p of each hypothesis alone [...]; not valid for choosing among several.
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

    sum u² does not change under flips, so |t| is a growing function of |r| and one matrix product
    gives the maximum of |t|. Where the effects of all hypotheses are symmetric about 0, jointly, the share of studies
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
    warn_if_never_significant(codes.n_groups, len(maxima), alternative, alpha)
    extra, shape = 0 if exact else 1, array.shape[1:]
    limit, t = critical(maxima, alpha, extra), _r_to_t(_correlation(sums), codes.n_groups)
    p, single = ((count + extra) / (len(maxima) + extra) for count in (n_above, n_single))
    statistic = t if stat == "t" else units.sum(axis=0)
    t, statistic, p, single = (part.reshape(shape) for part in (t, statistic, p, single))
    threshold = float(_r_to_t(np.array(limit), codes.n_groups)) if stat == "t" else limit
    mean, n, n_flips = np.asarray(array.mean(axis=0)), len(array), len(maxima)
    return SignFlip(mean, t, statistic, p, single, threshold, alpha, n, codes.n_groups, n_flips, exact)


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


def warn_if_never_significant(n_groups: int, n_flips: int, alternative: str, alpha: float) -> None:
    smallest = smallest_p(n_flips, n_arrangements=2**n_groups, alternative=alternative)
    if smallest > alpha:
        warnings.warn(
            f"{n_groups} groups and {n_flips} flips: the smallest possible p is {smallest:.3g}, above {alpha:g}. "
            "Add groups; no effect can be significant here.",
            TooFewFlipsWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class Shrinkage:
    """Inverse-chi-squared prior of many variances, and the variances it makes.

        s~² = (d0·s0² + d·s²) / (d0 + d)

    Attributes:
        df:       d of each variance, as far as the tails of the data leave it (`effective_df`).
        prior_df: d0; infinite where they differ no more than chance makes them, 0 below three hypotheses.
        variance: s0².
    """

    df: float
    prior_df: float
    variance: float

    @classmethod
    def of(cls, variances: np.ndarray, squares: np.ndarray, df: int) -> Shrinkage:
        """The prior whose law of log s² has the mean and the variance of the positive ones.

        Args:
            variances: s² of each hypothesis [hypothesis].
            squares: what each group adds to it [group, hypothesis], in any unit.
            df: d for gaussian data.
        Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3, §6.2.
        """
        from scipy.special import digamma

        is_positive = variances > 0
        if is_positive.sum() < 3:
            return cls(float(df), 0.0, 1.0)
        own = effective_df(squares[:, is_positive], df)
        logs = np.log(variances[is_positive]) - digamma(own / 2) + np.log(own / 2)
        prior = _df_of(float(logs.var(ddof=1)) - _log_variance(own))
        if np.isinf(prior):
            return cls(own, prior, float(np.exp(logs.mean())))
        return cls(own, prior, float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))))

    def __call__(self, variances: np.ndarray) -> np.ndarray:
        """The variances, shrunk, in their shape."""
        if np.isinf(self.prior_df):
            return np.full_like(variances, self.variance)
        return (self.prior_df * self.variance + self.df * variances) / (self.prior_df + self.df)


def effective_df(squares: np.ndarray, df: int) -> float:
    """Degrees of freedom of a chi-squared law whose logarithm varies as much as that of these sums of squares.

        trigamma(d/2) = mean over hypotheses of the jackknife variance of log(sum_g squares_g)

    At most `df`, which gaussian data have. With heavy tails an observed spread is less reliable: a hypothesis
    that happened to meet no large value looks precise. A single hypothesis counts as no less than 1.

    Args:
        squares: what each group adds [group, hypothesis]; every column has a positive sum.
    Source: Efron & Stein, Ann. Stat. 9 (1981) 586 (jackknife); Layard, JASA 68 (1973) 195 (variances of heavy tails).
    """
    n_groups, total = len(squares), squares.sum(axis=0)
    left = np.log(np.maximum(total - squares, 1e-12 * total) / total)
    spread = (n_groups - 1) / n_groups * ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    return _df_of(float(np.clip(spread, _log_variance(df), _log_variance(1.0)).mean()))


def _log_variance(df: Real) -> float:
    """Variance of the logarithm of a chi-squared variable."""
    from scipy.special import polygamma

    return float(polygamma(1, df / 2))


def _df_of(log_variance: float) -> float:
    """The degrees of freedom that have this variance of the logarithm; infinite where it is none."""
    from scipy.optimize import brentq

    if log_variance <= _log_variance(2e6):
        return float("inf")
    half = brentq(lambda h: _log_variance(2 * h) - log_variance, 1e-6, 1e6)
    assert isinstance(half, float)
    return 2 * half
