"""What a study can show: planned effects and sizes against simulations of the public functions that make the claims.

`make test-slow` runs every case with 2,000 studies, which have to show the effect in 0.8 ± 0.03; otherwise 400, ± 0.07.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats

from interp import stats
from interp.stats.power import (
    AurocClaim,
    DifferenceClaim,
    EquivalenceClaim,
    FamilyClaim,
    MeanClaim,
    RateClaim,
    StudySize,
    n_needed,
    smallest_detectable,
)
from interp.stats.power.rates import paired_cells
from interp.stats.power.tables import PairedStudies, draw_groups

Study = Callable[[np.random.Generator, int], bool]
FEW, MANY = (400, 0.07), (2000, 0.03)
"""(studies, tolerance): 0.07 is 3.5 standard errors of 400 studies, 0.03 is 3.4 of 2,000."""


def rate_of(study: Study, n_studies: int) -> float:
    """Share of simulated studies that show their effect; seeds unlike those of the planner."""
    rng = np.random.default_rng(20_261_130)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(np.mean([study(rng, seed) for seed in range(n_studies)]))


def answers(
    rng: np.random.Generator, cells: np.ndarray, size: StudySize
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Whether a and b are right on every item, and its group; drawn item by item, unlike the planner's tables."""
    cells, groups = np.maximum(cells, 1e-12), np.repeat(np.arange(size.units), size.sizes)
    p = np.tile(cells, (size.units, 1))
    if size.icc > 0:
        p = rng.dirichlet(cells * (1 - size.icc) / size.icc, size=size.units)
    code = (rng.random(size.n)[:, None] > np.cumsum(p[groups], axis=1)[:, :3]).sum(axis=1)
    return np.isin(code, (0, 1)), np.isin(code, (0, 2)), None if size.n_groups is None else groups


def numbers(rng: np.random.Generator, size: StudySize, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian values of variance 1 with the ICC of the size, and their groups."""
    groups = np.repeat(np.arange(size.units), size.sizes)
    shared = rng.normal(size=size.units)[groups]
    return mean + np.sqrt(size.icc) * shared + np.sqrt(1 - size.icc) * rng.normal(size=size.n), groups


def shows_difference(claim: DifferenceClaim, effect: float, size: StudySize) -> Study:
    def study(rng: np.random.Generator, seed: int) -> bool:
        a, b, groups = answers(rng, claim.cells(effect), size)
        found = stats.compare_paired(a, b, groups=groups, sampling=stats.Sampling(seed=seed))
        return found.difference_groups.lo > 0 and bool(stats.rejects(found.p_groups))

    return study


def shows_equivalence(claim: EquivalenceClaim, margin: float, size: StudySize) -> Study:
    cells = paired_cells(claim.difference, claim.discordance, claim.accuracy)

    def study(rng: np.random.Generator, seed: int) -> bool:
        a, b, groups = answers(rng, cells, size)
        found = stats.compare_paired(a, b, groups=groups, margin=margin) if groups is None else None
        if claim.rule == "tost":
            return stats.tost_paired(a, b, groups=groups, margin=margin).equivalent
        if found is not None:
            return -margin < found.difference_groups.lo and found.difference_groups.hi < margin
        spread = stats.paired_difference(a.astype(float), b.astype(float), groups=groups)
        return -margin < spread.lo and spread.hi < margin

    return study


def shows_rate(claim: RateClaim, effect: float, size: StudySize) -> Study:
    rate = claim.control + effect

    def study(rng: np.random.Generator, seed: int) -> bool:
        right, _, groups = answers(rng, np.array([rate, 0.0, 0.0, 1 - rate]), size)
        return stats.wilson_clustered(right, groups=groups).lo > claim.control

    return study


def shows_mean(claim: MeanClaim, effect: float, size: StudySize) -> Study:
    def study(rng: np.random.Generator, seed: int) -> bool:
        values, groups = numbers(rng, size, effect)
        return stats.cluster_t(values, groups=groups).lo > 0

    return study


def shows_head(claim: FamilyClaim, effect: float, size: StudySize) -> Study:
    """One head among many whose spreads vary by a factor of e; the head itself has the median spread."""

    def study(rng: np.random.Generator, seed: int) -> bool:
        spread = np.exp(rng.normal(size=claim.family))
        spread[0] = 1.0
        heads = [numbers(rng, size, effect if j == 0 else 0.0) for j in range(claim.family)]
        effects = np.stack([values for values, _ in heads], axis=1) * spread
        return bool(stats.mean_test(effects, groups=heads[0][1], seed=seed, n_draws=999).is_significant[0])

    return study


CASES = {
    "difference, 60 items": (shows_difference, DifferenceClaim(0.1), StudySize(60)),
    "difference, 48 items in 16 groups": (shows_difference, DifferenceClaim(0.2, 0.8), StudySize(48, 16, 0.2)),
    "difference, 90 items in 30 groups": (shows_difference, DifferenceClaim(0.1), StudySize(90, 30, 0.2)),
    "equivalence, 300 items": (shows_equivalence, EquivalenceClaim(0.1), StudySize(300)),
    "equivalence, 300 items in 60 groups": (shows_equivalence, EquivalenceClaim(0.1), StudySize(300, 60, 0.2)),
    "two one-sided tests, 300 items": (shows_equivalence, EquivalenceClaim(0.1, rule="tost"), StudySize(300)),
    "two one-sided tests, 300 items in 60 groups": (
        shows_equivalence, EquivalenceClaim(0.1, rule="tost"), StudySize(300, 60, 0.2)),
    "rate, 100 items": (shows_rate, RateClaim(0.5), StudySize(100)),
    "rate, 300 items in 40 groups": (shows_rate, RateClaim(0.7), StudySize(300, 40, 0.2)),
    "mean, 12 items": (shows_mean, MeanClaim(), StudySize(12)),
    "mean, 60 items in 17 groups": (shows_mean, MeanClaim(), StudySize(60, 17, 0.3)),
    "head of 32, 16 pairs": (shows_head, FamilyClaim(family=32), StudySize(16)),
    "head of 32, 48 pairs in 24 groups": (shows_head, FamilyClaim(family=32), StudySize(48, 24, 0.3)),
    "head of 144, 40 pairs": (shows_head, FamilyClaim(family=144), StudySize(40)),
}  # fmt: skip


def check(name: str, n_studies: int, tolerance: float) -> None:
    shows, claim, size = CASES[name]
    effect = smallest_detectable(claim, size)
    assert abs(rate_of(shows(claim, effect, size), n_studies) - 0.8) <= tolerance, f"effect {effect:.3g}"  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if "144" not in n])
def test_the_smallest_detectable_effect_is_shown_in_80_percent_of_studies(name: str) -> None:
    check(name, *FEW)


@pytest.mark.long
@pytest.mark.slowest
@pytest.mark.parametrize("name", CASES)
def test_the_smallest_detectable_effect_is_shown_in_80_percent_of_2000_studies(name: str) -> None:
    check(name, *MANY)


NEEDED = {
    "difference of 0.15": (shows_difference, DifferenceClaim(0.1), 0.15, StudySize(60)),
    "difference of 0.15 in groups of 3": (shows_difference, DifferenceClaim(0.1), 0.15, StudySize(60, 20, 0.2)),
    "equivalence at 0.05": (shows_equivalence, EquivalenceClaim(0.1), 0.05, StudySize(60)),
    "rate 0.1 above chance": (shows_rate, RateClaim(0.5), 0.1, StudySize(60)),
    "mean of 0.5 sd": (shows_mean, MeanClaim(), 0.5, StudySize(60, 30, 0.2)),
    "d = 0.8 of one of 32 heads": (shows_head, FamilyClaim(family=32), 0.8, StudySize(60)),
}


def check_n(name: str, n_studies: int, tolerance: float) -> None:
    shows, claim, effect, size = NEEDED[name]
    n = n_needed(claim, effect, size)
    assert n is not None
    found = rate_of(shows(claim, effect, size.of(n)), n_studies)  # pyright: ignore[reportArgumentType]
    assert abs(found - 0.8) <= tolerance, f"n = {n}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDED)
def test_the_n_that_is_recommended_shows_the_effect_in_80_percent_of_studies(name: str) -> None:
    check_n(name, *FEW)


@pytest.mark.long
@pytest.mark.slowest
@pytest.mark.parametrize("name", NEEDED)
def test_the_n_that_is_recommended_shows_the_effect_in_80_percent_of_2000_studies(name: str) -> None:
    check_n(name, *MANY)


PROBES = {
    "80 items, 4 layers": (StudySize(80), 4, 4, 0.77),
    "200 items in 40 groups, 4 layers": (StudySize(200, 40, 0.3), 4, 4, 0.75),
    "200 items, 12 layers": (StudySize(200), 12, 8, 0.7),
}
"""(size, layers, features, AUROC of the best direction); labels are constant in groups, one layer has the signal."""


def probed(rng: np.random.Generator, size: StudySize, layers: int, d: int, best: float) -> tuple[float, bool]:
    """(AUROC out of fold, whether the sweep shows it) of the layer with the signal."""
    from probes import SweepConfig, sweep

    config = SweepConfig(kinds=("massmean",), n_perm=99, n_boot=50, n_control=2, test_share=0.0, n_seeds=1)
    groups = np.repeat(np.arange(size.units), size.sizes)
    labels = (rng.permutation(size.units) % 2)[groups]
    feats = {f"resid_post.{j}": np.stack([numbers(rng, size, 0.0)[0] for _ in range(d)], axis=1) for j in range(layers)}
    feats["resid_post.0"][:, 0] += np.sqrt(2) * scipy_stats.norm.ppf(best) * labels
    table = sweep(feats, target=labels, groups=groups, config=config).table
    row = table[(table.site == "resid_post.0") & (table.role == "layer") & (table.metric == "auroc")].iloc[0]
    return float(row["value"]), bool(row["lo"] > 0.5 and row["p_adjusted"] <= 0.05)


def check_probe(name: str, n_studies: int, tolerance: float) -> None:
    """At the AUROC that the probe reaches on average, which is below that of the best direction."""
    size, layers, d, best = PROBES[name]
    rng = np.random.default_rng(20_261_130)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        areas, shown = np.array([probed(rng, size, layers, d, best) for _ in range(n_studies)]).T
    planned = AurocClaim(family=layers).power(float(areas.mean()) - 0.5, size)
    assert abs(float(shown.mean()) - planned) <= tolerance
    assert 0.65 < planned < 0.9, "near the power that is planned for"


@pytest.mark.slow
def test_the_planned_power_of_a_probe_is_that_of_sweeps() -> None:
    check_probe("80 items, 4 layers", 100, 0.14)  # 3.5 standard errors


@pytest.mark.long
@pytest.mark.slowest
@pytest.mark.parametrize("name", PROBES)
def test_the_planned_power_of_a_probe_is_that_of_2000_sweeps(name: str) -> None:
    check_probe(name, *MANY)


SIZES = [StudySize(60), StudySize(60, 60), StudySize(60, 20, 0.2), StudySize(50, 12, 0.3)]
CELLS = [(0.7, 0.15, 0.05, 0.1), (0.05, 0.9, 0.02, 0.03), (0.93, 0.03, 0.02, 0.02), (0.01, 0.96, 0.02, 0.01)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cells", CELLS)
def test_simulated_tables_follow_the_rules_of_the_public_functions_study_by_study(size: StudySize, cells) -> None:
    """The same studies item by item: interval and equivalence are equal, p up to its random draws."""
    drawn = PairedStudies.draw(np.random.default_rng(1), np.array(cells), size, 12)
    (lo, hi), p, is_equivalent = drawn.interval(0.95), drawn.p(0), drawn.is_equivalent(0.12, 0.05)
    for j in range(12):
        a, b, groups = [], [], []
        for g, n in enumerate(drawn.sizes.astype(int)):
            counts = [int(part[g, j]) for part in (drawn.both, drawn.only_a, drawn.only_b)]
            counts.append(n - sum(counts))
            a += np.repeat([1, 1, 0, 0], counts).tolist()
            b += np.repeat([1, 0, 1, 0], counts).tolist()
            groups += [g] * n
        found = stats.compare_paired(a, b, groups=None if size.n_groups is None else groups, margin=0.12)
        assert (lo[j], hi[j]) == pytest.approx((found.difference_groups.lo, found.difference_groups.hi), abs=1e-9)
        assert is_equivalent[j] == found.equivalence.equivalent
        # 599 draws of the planner against 10,000: at most 4 standard errors apart
        assert abs(p[j] - found.p_groups) <= (1e-9 if size.n_groups is None else 4 * 0.5 / np.sqrt(599))


@pytest.mark.parametrize(
    "size",
    [
        StudySize(60, 60, 0.3),
        StudySize(70, 60, 0.3),
        StudySize(120, 40, 0.3),
        StudySize(320, 40, 0.3),
        StudySize(90, 30, 0.0),
    ],
)
def test_drawn_groups_have_the_shares_and_the_correlation_that_are_asked_for(size: StudySize) -> None:
    """Groups of one item, of one or two, of three, of eight: shares, and the covariance of two items of one group."""
    p, n_studies = np.array([0.5, 0.3, 0.0, 0.2]), 4_000
    counts = draw_groups(np.random.default_rng(2), p, size, n_studies)
    assert (counts.sum(axis=2) == size.sizes).all() and not counts[..., 2].any()
    wide = size.n_effective * n_studies  # independent items, as it were
    assert np.abs(counts.sum(axis=(0, 1)) / (size.n * n_studies) - p).max() < 4 * 0.5 / np.sqrt(wide)
    for n in np.unique(size.sizes[size.sizes > 1]):
        x = counts[:, size.sizes == n, 0].ravel()
        pairs = (x * (x - 1)).mean() / (n * (n - 1))  # share of pairs of items of a group that both have category 0
        icc = (pairs - p[0] ** 2) / (p[0] * (1 - p[0]))
        assert icc == pytest.approx(size.icc, abs=4 / np.sqrt(len(x)))


def test_the_power_of_a_difference_without_groups_is_that_of_mcnemar_by_enumeration() -> None:
    """No simulation: every number of discordant items, and of those that favour a, weighed by its probability."""
    effect, discordance, n = 0.15, 0.1, 80
    only_a, only_b = discordance / 2 + effect, discordance / 2
    total = 0.0
    for d in range(n + 1):
        weight = scipy_stats.binom.pmf(d, n, only_a + only_b)
        for a in range(d // 2 + 1, d + 1):
            if stats.mcnemar(a, d - a).p <= 0.05:
                total += weight * scipy_stats.binom.pmf(a, d, only_a / (only_a + only_b))
    assert DifferenceClaim(discordance).power(effect, StudySize(n)) == pytest.approx(total, abs=0.03)


def test_too_few_groups_can_show_nothing() -> None:
    """Five signs give p = 2^-4 = 0.0625 at the least."""
    assert smallest_detectable(FamilyClaim(family=32), StudySize(30, 5)) == np.inf
    assert smallest_detectable(DifferenceClaim(), StudySize(30, 5, 0.1)) == np.inf
    assert smallest_detectable(FamilyClaim(), StudySize(30, 6)) < np.inf


def test_equivalence_within_less_than_the_true_difference_takes_infinitely_many_items() -> None:
    assert n_needed(EquivalenceClaim(0.1, difference=0.06), 0.05, StudySize(100)) is None
    assert EquivalenceClaim(0.1, difference=0.06).power(0.05, StudySize(900)) == 0.0


def test_zero_discordant_items_show_equivalence_from_the_n_of_wilson() -> None:
    """All right in both members: the interval is ± z²/(n + z²), inside 0.05 from n = 19·z² = 72.99 on."""
    claim = EquivalenceClaim(discordance=0.0, accuracy=1.0)
    assert (claim.power(0.05, StudySize(72)), claim.power(0.05, StudySize(73))) == (0.0, 1.0)
    assert n_needed(claim, 0.05, StudySize(50)) == 73
    assert smallest_detectable(claim, StudySize(30)) == pytest.approx(1.959964**2 / (30 + 1.959964**2), rel=2e-3)


@pytest.mark.parametrize(
    "claim",
    [
        MeanClaim(),
        FamilyClaim(family=8),
        RateClaim(),
        EquivalenceClaim(),
        AurocClaim(family=4),
        pytest.param(DifferenceClaim(), marks=pytest.mark.slow),
    ],
)
def test_more_items_show_smaller_effects_and_alike_items_larger_ones_only(claim) -> None:
    small, large, alike = (smallest_detectable(claim, size)
                           for size in (StudySize(60, 20), StudySize(240, 80), StudySize(60, 20, 0.5)))  # fmt: skip
    assert large < small < alike
    n = n_needed(claim, large, StudySize(240, 80))
    assert n is not None and abs(n - 240) <= 0.1 * 240, "the two directions agree"


def test_a_size_keeps_its_groups_and_refuses_impossible_ones() -> None:
    size = StudySize(90, 30, 0.2)
    assert size.of(300) == StudySize(300, 100, 0.2) and size.n_effective == pytest.approx(90 / 1.4)
    assert StudySize(10, 4).sizes.tolist() == [3, 3, 2, 2]
    for n, groups, icc in ((10, 11, 0.0), (10, 1, 0.0), (10, 5, 1.0)):
        with pytest.raises(ValueError, match="expected"):
            StudySize(n, groups, icc)
    with pytest.raises(ValueError, match="above 0"):
        n_needed(MeanClaim(), 0.0, size)
    with pytest.raises(ValueError, match="discordance"):
        DifferenceClaim(discordance=1.2)
