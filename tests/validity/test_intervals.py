"""Coverage of the one rule for intervals over groups (`interp.stats.jackknife`), through every function that uses it.

Values of a group are alike (ICC 0.3), groups have 8 examples on average. `before` is the bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr

from interp import stats
from interp.stats import Design, Estimate

SIZE = 8
GROUPS = [(n, equal) for n in (6, 10, 20, 40) for equal in (True, False)]
Draw = Callable[[np.random.Generator], Estimate]

pytestmark = pytest.mark.filterwarnings("ignore::interp.stats.FewGroupsWarning")


def cases(before: str, at_least: tuple[float, ...] = (0.93,) * 8) -> list[tuple[int, bool, str, float]]:
    """(groups, equal, rate before, promise), in the order of GROUPS."""
    return [(*of, old, least) for of, old, least in zip(GROUPS, before.split(), at_least, strict=True)]


def words(n_groups: int, equal: bool) -> str:
    return f"{n_groups} {'equal' if equal else 'unequal'} groups"


def binary(n_groups: int, equal: bool, rate: float, icc: float = 0.3) -> Design:
    return Design(stats.group_sizes(n_groups, SIZE, equal=equal), icc=icc, shape="binary", mean=rate)


def covers(found: list[Estimate], truth: float) -> list[bool]:
    return [e.lo <= truth <= e.hi for e in found]


def repeat(one: Draw, rng: np.random.Generator, n: int) -> list[Estimate]:
    return [one(rng) for _ in range(n)]


GAUSSIAN = cases(".858 .840 .895 .873 .940 .922 .940 .938")
SKEWED = cases(".807 .800 .860 .833 .912 .885 .912 .910", (0.9, 0.93, 0.9, 0.92, 0.93, 0.92, 0.93, 0.93))
MEANS = [("gaussian", *case) for case in GAUSSIAN] + [("skewed", *case) for case in SKEWED]


@pytest.mark.parametrize(("shape", "n_groups", "equal", "before", "at_least"), MEANS)
def test_mean(shape, n_groups, equal, before, at_least, studies, record_rate) -> None:
    """Each study is a column of `cluster_means`, whose interval is that of `cluster_mean`: at least 400 always run."""
    design = Design(stats.group_sizes(n_groups, SIZE, equal=equal), shape=shape, mean=0.4)
    values = design.draw(np.random.default_rng(7100 + n_groups + equal), max(studies, 400))
    found = stats.cluster_means(values, groups=design.groups)
    one = stats.cluster_mean(values[:, 0], groups=design.groups)
    np.testing.assert_allclose([found.lo[0], found.hi[0]], [one.lo, one.hi])
    name = "gaussian" if shape == "gaussian" else "lognormal (skewness 6.2)"
    record_rate((found.lo <= 0.4) & (found.hi >= 0.4), kind="coverage", name="cluster_mean",
                design=f"{name}, {words(n_groups, equal)}, ICC 0.3",
                at_least=at_least, at_most=0.98, before=before)  # fmt: skip


FAR = cases(".890 .787 .880 .853 .894 .922 .922 .911")
PAIRS = [(0.97, 0.03, *case) for case in FAR]
PAIRS += [(0.95, 0.95, *of, "", 0.93) for of in GROUPS]


@pytest.mark.parametrize(("rate_a", "rate_b", "n_groups", "equal", "before", "at_least"), PAIRS)
def test_pairs_near_0_and_1(rate_a, rate_b, n_groups, equal, before, at_least, studies, record_rate) -> None:
    a, b = (binary(n_groups, equal, rate) for rate in (rate_a, rate_b))

    def one(rng: np.random.Generator) -> Estimate:
        return stats.paired_difference(a.draw(rng), b.draw(rng), groups=a.groups)

    found = repeat(one, np.random.default_rng(7200 + n_groups + equal), studies)
    record_rate(covers(found, rate_a - rate_b), kind="coverage", name="paired_difference",
                design=f"rates {rate_a:g} and {rate_b:g}, {words(n_groups, equal)}, ICC 0.3",
                at_least=at_least, before=before)  # fmt: skip


RATIOS = cases(".843 .870 .890 .887 .907 .920 .925 .932")


@pytest.mark.parametrize(("n_groups", "equal", "before", "at_least"), RATIOS)
def test_ratio_difference(n_groups, equal, before, at_least, studies, record_rate) -> None:
    """Rates 0.8 and 0.4 among the examples on which each of two systems commits itself (0.7)."""
    commits, high, low = (binary(n_groups, equal, rate) for rate in (0.7, 0.8, 0.4))

    def one(rng: np.random.Generator) -> Estimate:
        den_a, den_b = commits.draw(rng), commits.draw(rng)
        return stats.ratio_difference(den_a * high.draw(rng), den_a, den_b * low.draw(rng), den_b,
                                      groups=high.groups, bounds=(-1.0, 1.0))  # fmt: skip

    found = repeat(one, np.random.default_rng(7300 + n_groups + equal), studies)
    record_rate(covers(found, 0.4), kind="coverage", name="ratio_difference",
                design=f"rates 0.8 and 0.4 of 70 % committed, {words(n_groups, equal)}, ICC 0.3",
                at_least=at_least, before=before)  # fmt: skip


DZ = cases(".855 .802 .882 .863 .915 .912 .940 .935")


@pytest.mark.parametrize(("n_groups", "equal", "before", "at_least"), DZ)
def test_cohen_dz(n_groups, equal, before, at_least, studies, record_rate) -> None:
    design = Design(stats.group_sizes(n_groups, SIZE, equal=equal), mean=0.5)

    def one(rng: np.random.Generator) -> Estimate:
        return stats.cohen_dz(design.draw(rng), groups=design.groups)

    found = repeat(one, np.random.default_rng(7400 + n_groups + equal), studies)
    record_rate(covers(found, 0.5), kind="coverage", name="cohen_dz",
                design=f"gaussian, d_z 0.5, {words(n_groups, equal)}, ICC 0.3",
                at_least=at_least, before=before)  # fmt: skip


@pytest.mark.parametrize(("n_groups", "equal"), GROUPS)
def test_weighted_kappa(n_groups, equal, studies, record_rate) -> None:
    """One rating in ten is a guess among the five levels: kappa = 1 - 0.1, whatever the weights."""
    guesses = binary(n_groups, equal, 0.1)

    def one(rng: np.random.Generator) -> Estimate:
        gold, guess = rng.integers(5, size=(2, len(guesses.groups)))
        rated = np.where(guesses.draw(rng) == 1, guess, gold)
        return stats.weighted_kappa(gold, rated, levels=range(5), groups=guesses.groups).kappa

    found = repeat(one, np.random.default_rng(7500 + n_groups + equal), studies)
    record_rate(covers(found, 0.9), kind="coverage", name="weighted_kappa",
                design=f"kappa 0.9, {words(n_groups, equal)}, ICC 0.3", at_least=0.88)  # fmt: skip


# rate, groups, coverage without the groups that have no exception (`rate_n`)
RATES = [(0.9, 6, ""), (0.9, 20, ".921"), (0.9, 40, ".943"), (0.97, 10, ""), (0.97, 40, ".884"), (0.99, 100, ".879")]


@pytest.mark.parametrize(("rate", "n_groups", "before"), RATES)
def test_rates_near_1_in_unequal_groups(rate, n_groups, before, studies, record_rate) -> None:
    design = binary(n_groups, False, rate)

    def one(rng: np.random.Generator) -> Estimate:
        return stats.wilson_clustered(design.draw(rng), groups=design.groups)

    found = repeat(one, np.random.default_rng(7600 + n_groups), studies)
    record_rate(covers(found, rate), kind="coverage", name="wilson_clustered", before=before,
                design=f"rate {rate:g}, {words(n_groups, False)}, ICC 0.3", at_least=0.93)  # fmt: skip


def answers(rng: np.random.Generator, code: np.ndarray, least: float, icc: float, gap: float) -> np.ndarray:
    """Stated probability from `least` to 1 and outcome, which happens `gap` less often; those of a group are alike."""
    p = rng.uniform(least, 1.0, size=len(code))
    noise = np.sqrt(icc) * rng.normal(size=code.max() + 1)[code] + np.sqrt(1 - icc) * rng.normal(size=len(code))
    return np.stack([p, ndtr(noise) < p - gap])


# (groups, equal, ICC, least probability, p <= 0.05 of calibrated models before): near 1 most groups are all right
CALIBRATION = [(10, False, 0.3, 0.5, ""), (200, True, 0.0, 0.5, ""),
               (10, True, 0.3, 0.9, "0.160"), (10, True, 0.3, 0.97, "0.397"), (20, True, 0.6, 0.5, "")]  # fmt: skip


@pytest.mark.parametrize(("n_groups", "equal", "icc", "least", "before"), CALIBRATION)
def test_calibration_error(n_groups, equal, icc, least, before, studies, record_rate) -> None:
    """Examples are independent where icc is 0. The error is 0, or 0.1 in every bin."""
    size = 1 if icc == 0 else 30 if icc == 0.6 else SIZE
    code = Design(stats.group_sizes(n_groups, size, equal=equal)).groups
    rng, groups = np.random.default_rng(7700 + n_groups + equal), code if icc else None
    design = f"{words(n_groups, equal)} of {size}, ICC {icc:g}" if icc else f"{n_groups} independent examples"
    design += f", probabilities {least:g} to 1"

    def found(gap: float) -> list[stats.CalibrationError]:
        draws = (answers(rng, code, least, icc, gap) for _ in range(studies))
        return [
            stats.calibration_error(p, y, groups=groups, sampling=stats.Sampling(n_resamples=300)) for p, y in draws
        ]

    calibrated, off = found(0.0), found(0.1)
    record_rate([e.p <= 0.05 for e in calibrated], kind="level", name="calibration_error",
                design=f"calibrated, {design}", at_most=0.06, before=before)  # fmt: skip
    record_rate(covers([e.ece for e in calibrated], 0.0), kind="coverage", name="calibration_error", at_least=0.95,
                design=f"calibrated, {design}", before="0.002" if least == 0.5 and icc else "")  # fmt: skip
    record_rate(covers([e.ece for e in off], 0.1), kind="coverage", name="calibration_error",
                design=f"ECE 0.1, {design}", at_least=0.93)  # fmt: skip
    if (n_groups, least) == (10, 0.9):
        record_rate([e.p <= 0.05 for e in off], kind="power", name="calibration_error", design=f"ECE 0.1, {design}",
                    at_least=0.4, before="0.020")  # fmt: skip


CODE = np.repeat(np.arange(10), SIZE)
ONES = np.ones(len(CODE))
LEVELS = np.arange(len(CODE)) % 5
SURE: dict[str, Callable[[], Estimate]] = {
    "cluster_mean": lambda: stats.cluster_mean(ONES, groups=CODE, bounds=(0.0, 1.0)),
    "paired_difference, all against none": lambda: stats.paired_difference(ONES, 0 * ONES, groups=CODE),
    "paired_difference, none discordant": lambda: stats.paired_difference(ONES, ONES, groups=CODE),
    "ratio_difference": lambda: stats.ratio_difference(ONES, ONES, 0 * ONES, ONES, groups=CODE, bounds=(-1.0, 1.0)),
    "weighted_kappa": lambda: stats.weighted_kappa(LEVELS, LEVELS, levels=range(5), groups=CODE).kappa,
    "wilson_clustered": lambda: stats.wilson_clustered(ONES, groups=CODE),
    "calibration_error": lambda: stats.calibration_error(ONES, ONES, groups=CODE).ece,
}


@pytest.mark.parametrize("name", SURE)
def test_no_interval_is_a_point_where_all_are_right(name: str) -> None:
    e = SURE[name]()
    assert e.hi - e.lo > 0.05, e
