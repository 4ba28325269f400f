"""Estimates of many effects at once: pure functions of effects[example, unit] with one shared set of draws."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from interp import stats

MIN_GROUPS = 4
"""Fewest independent groups of a sweep: heads are chosen on half of them and reported on the others."""


@dataclass(frozen=True, eq=False)
class Tested:
    """Means with intervals and family-wise p.

    Attributes:
        p: family-wise over all units.
        null_max95: |mean| above which a unit is significant, in the unit of the effect.
        n_flips: sign patterns (and resamples) drawn.
    """

    estimates: stats.Estimates
    p: Float[np.ndarray, "unit"]
    null_max95: Float[np.ndarray, "unit"]
    n_flips: int


def means_and_p(
    effects: Float[np.ndarray, "example unit"],
    *,
    groups: list[str],
    alternative: str = "two-sided",
    stat: str = "t",
    sampling: stats.Sampling = stats.Sampling(),
) -> Tested:
    """Mean over examples of each unit's effect, its interval, and its p over all units.

    Args:
        stat: "t": `interp.stats.mean_test`, a test of the means; "mean": sign flips of the raw means, dominated by the
            noisiest unit (Yang et al., with alternative="greater").
    Raises:
        ValueError: as `interp.stats.mean_test`; unknown stat.
    """
    means = stats.cluster_means(effects, groups=groups, sampling=sampling)
    options = dict(groups=groups, seed=sampling.seed, alternative=alternative)
    if stat == "mean":
        flips = stats.sign_flip(effects, stat="mean", **options)  # type: ignore[arg-type]
        return Tested(means, flips.p, np.full(effects.shape[1], flips.threshold), flips.n_flips)
    if stat != "t":
        raise ValueError(f"stat: expected 't' or 'mean', got {stat!r}.")
    test = stats.mean_test(effects, **options)  # type: ignore[arg-type]
    return Tested(means, test.p, np.abs(test.limit), test.n_draws)


def fractions(
    effects: Float[np.ndarray, "example unit"],
    whole: Float[np.ndarray, "example"],
    *,
    groups: list[str],
    sampling: stats.Sampling = stats.Sampling(),
) -> stats.Estimates:
    """mean(effect) / mean(whole) per unit, numerator and denominator drawn together; never a mean of ratios.

    NaN with a warning if |mean(whole)| is below max(2, t) of its clustered standard errors.

    Warns:
        UnstableRatioWarning: the ratio is NaN for that reason.
    """
    mean = stats.cluster_t(whole, groups=groups, confidence=sampling.confidence)
    limit = max(2 * stats.cluster_se(whole, groups=groups), (mean.hi - mean.lo) / 2)
    n_units = effects.shape[1]
    if abs(mean.value) <= limit:
        warnings.warn(
            f"ratio refused: the mean denominator {mean} is within {limit:.3g} of 0. Report the differences, or keep "
            "only pairs that the model solves.",
            stats.UnstableRatioWarning,
            stacklevel=2,
        )
        nan = np.full(n_units, np.nan)
        return stats.Estimates(nan, nan, nan, mean.n, mean.n_groups)
    columns = np.column_stack([effects, whole])
    draws = stats.resample_sums(columns, lambda s: s[..., :-1] / s[..., -1:], groups=groups, sampling=sampling)
    return draws.estimates()


def standardised(
    effects: Float[np.ndarray, "example unit"], *, groups: list[str], sampling: stats.Sampling = stats.Sampling()
) -> stats.Estimates:
    """d_z = mean / sd over examples (n - 1) of each unit; NaN if all effects are equal."""
    n_units = effects.shape[1]
    columns = np.column_stack([np.ones(len(effects)), effects, effects**2])
    spread = np.ptp(effects, axis=0) > 1e-12 * np.abs(effects).max(axis=0, initial=0.0)

    def dz(sums: np.ndarray) -> np.ndarray:
        n, first, second = sums[..., :1], sums[..., 1 : 1 + n_units], sums[..., 1 + n_units :]
        mean = first / n
        variance = np.maximum(second / n - mean**2, 0.0) * n / (n - 1)
        return np.where(spread, mean / np.sqrt(variance), np.nan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.UndefinedDrawsWarning)
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        draws = stats.resample_sums(columns, dz, groups=groups, sampling=sampling)
        return draws.estimates()


def less_controls(
    effects: Float[np.ndarray, "example unit"], controls: list[list[int]]
) -> Float[np.ndarray, "example unit"]:
    """Each unit's effect on each example minus the mean effect of its control units on it; 0 where it has none."""
    share = np.zeros((len(controls), len(controls)))
    for unit, others in enumerate(controls):
        share[others, unit] = 1 / len(others) if others else 0.0
    return (effects - effects @ share) * [bool(others) for others in controls]


def beyond_placebo(
    effects: Float[np.ndarray, "example unit"],
    is_placebo: Bool[np.ndarray, "example"],
    *,
    groups: list[str],
    sampling: stats.Sampling = stats.Sampling(),
) -> stats.Estimates:
    """Mean of each unit over the examples minus the size of its mean over the placebo examples.

        difference = mean(others) - |mean(placebo)|        both over the same groups; the sign of the placebo's as found

    A placebo effect of the opposite sign is as bad as one of the same sign, so its size is subtracted.

    Args:
        effects: of all examples, placebo or not.
        groups: independent unit of each; a group may have both.
    Raises:
        ValueError: no example of one sort.
    """
    if is_placebo.all() or not is_placebo.any():
        raise ValueError("placebo: expected pairs that flip the answer and pairs that keep it.")
    mask, n_units = is_placebo[:, None], effects.shape[1]
    placebo = effects[is_placebo].mean(axis=0)
    sign = np.where(placebo < 0, -1.0, 1.0)

    def difference(sums: np.ndarray) -> np.ndarray:
        own, other = sums[..., : n_units + 1], sums[..., n_units + 1 :]
        return own[..., :-1] / own[..., -1:] - sign * other[..., :-1] / other[..., -1:]

    columns = np.column_stack([effects * ~mask, ~mask, effects * mask, mask])
    draws = stats.resample_sums(columns, difference, groups=groups, sampling=sampling)
    return draws.estimates()


def halves(groups: list[str], *, seed: stats.Seed) -> Bool[np.ndarray, "example"]:
    """True for the half on which heads are chosen; whole groups are assigned to the halves at random.

    Raises:
        ValueError: fewer than 4 groups, so that no half would have two.
    """
    names = sorted(set(groups))
    if len(names) < MIN_GROUPS:
        raise ValueError(
            f"halves: expected at least {MIN_GROUPS} groups (2 in each half), got {len(names)}. Add pairs."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[index] for index in order[: len(names) // 2]}
    return np.array([group in chosen for group in groups])


def matched_controls(layers: list[int], norms: Float[np.ndarray, "unit"], *, n: int = 3) -> list[list[int]]:
    """For every unit the `n` others of its layer (of any layer, if it is alone) with the closest write norm."""
    logs = np.log(np.maximum(norms, 1e-30))
    out = []
    for index, layer in enumerate(layers):
        same = [other for other, at in enumerate(layers) if at == layer and other != index]
        pool = same or [other for other in range(len(layers)) if other != index]
        out.append(sorted(pool, key=lambda other: abs(logs[other] - logs[index]))[:n])
    return out
