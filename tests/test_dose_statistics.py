"""Statistics of dose curves: hand-worked numbers, the brute-force bootstrap, and error rates over simulated studies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from interp.site import Site
from interp.stats import Sampling
from steering.arms import Arm, difference_weights, random_arms, shuffled_arms
from steering.curves import controls_line, dose_curves, p_against, p_max, p_values, slope_p, smallest_p
from steering.entangle import at_level, entanglement
from steering.levels import Level
from steering.outcomes import GENERAL, GroupSums, Outcomes, Score, group_sums
from steering.strengths import DosePlan, parse_alphas
from tests.dose_kit import items, simulated

SITE = Site("resid_post", 0)
MARGIN = {"margin": GENERAL["margin"]}


def study_plan(arms: list[Arm], alphas: str = "-1,0,1") -> DosePlan:
    return DosePlan(tuple(arms), parse_alphas(alphas), "raw", {SITE: 1.0}, {SITE: 1.0}, "all")


def test_a_shuffled_direction_is_inside_its_controls_in_95_of_100_studies() -> None:
    """200 studies in which the labels say nothing: the pipeline from activations to p errs in at most 7 % of them.

    Half of the studies add shuffled directions at the direction's length, half at their own.
    """
    wrong, asked, d = 0, items(48), 12
    kind = Outcomes.of(None, toward="yes", away="no")
    for study in range(200):
        rng = np.random.default_rng(study)
        mixing = rng.normal(size=(d, d))  # covariance that isotropic random directions would not have
        feats, readout = rng.normal(size=(120, d)) @ mixing, rng.normal(size=d)
        labels = rng.permutation(np.arange(120) % 2 == 0)
        diff = torch.from_numpy((difference_weights(labels[None], np.ones((1, 120))) @ feats)[0])
        arms = [Arm("direction", SITE, (diff / diff.norm()).float())]
        arms += shuffled_arms(SITE, torch.from_numpy(feats), labels, n=20, seed=study, equal_length=study % 2 == 0)
        plan = study_plan(arms)
        effects = np.array([arm.length * float(arm.unit.double() @ torch.from_numpy(readout)) for arm in arms])
        sums = group_sums(kind, asked, simulated(plan, effects, items=asked, seed=study))
        wrong += slope_p(dose_curves(sums, plan, MARGIN, sampling=Sampling(n_resamples=20)), 0, 0)["p"] < 0.05
    assert wrong / 200 <= 0.07
    assert wrong > 0  # the test can fail: it is not merely without power


def test_a_real_effect_is_beyond_its_controls() -> None:
    asked = items(48)
    arms = [Arm("direction", SITE, torch.eye(4)[0]), *random_arms(SITE, 4, n=20)]
    plan = study_plan(arms, "-1,-0.5,0,0.5,1")
    effects = np.array([2.0, *np.random.default_rng(0).normal(0, 0.2, 20)])
    kind = Outcomes.of(None, toward="yes", away="no")
    sums = group_sums(kind, asked, simulated(plan, effects, items=asked, seed=0))
    curves = dose_curves(sums, plan, MARGIN, sampling=Sampling(n_resamples=200))
    assert slope_p(curves, 0, 0)["p_random"] == pytest.approx(1 / 21)
    assert curves.slope_lo[0, 0] < 2.0 < curves.slope_hi[0, 0]
    tested = p_values(curves, 0, 0)
    assert np.isnan(tested["p"][2]) and np.isnan(tested["p_shuffled"]).all()
    assert tested["p_max"][0] == pytest.approx(1 / 21)


def test_left_out_values_are_those_of_the_rows_without_a_group() -> None:
    """Total minus group sums equals the score of all other rows; groups without an item that counts are not counted."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(15), 4)
    top, n = rng.random((60, 3)), rng.integers(1, 3, (60, 3)).astype(float)
    top[groups == 7] = n[groups == 7] = 0  # a group that abstains
    sums = {"top": np.stack([top[groups == g].sum(0) for g in range(15)]),
            "n": np.stack([n[groups == g].sum(0) for g in range(15)])}  # fmt: skip
    score = Score(lambda s: s["top"] / s["n"], ("n",))
    level = Level.of(GroupSums(sums, tuple(map(str, range(15))), 60), score, [0, 2])
    assert np.allclose(level.value, top.sum(0)[[0, 2]] / n.sum(0)[[0, 2]])
    assert level.n.tolist() == [int(n[:, 0].sum()), int(n[:, 2].sum())]
    assert level.n_groups.tolist() == [14, 14]
    for row, g in enumerate(g for g in range(15) if g != 7):
        rest = groups != g
        assert np.allclose(level.left_out[row], (top[rest].sum(0) / n[rest].sum(0))[[0, 2]])


def test_one_group_alone_gives_no_interval_of_its_score() -> None:
    """Only one group commits: of commit bias nothing is known of other groups."""
    sums = {"top": np.zeros((6, 2)), "n": np.zeros((6, 2))}
    sums["n"][2], sums["top"][2] = 5, 3
    level = Level.of(GroupSums(sums, tuple("abcdef"), 30), Score(lambda s: s["top"] / s["n"], ("n",)), [0, 1])
    assert level.value.tolist() == [0.6, 0.6] and level.n_groups.tolist() == [1, 1]
    assert np.isnan(level.limits()).all()


def test_intervals_of_the_change_are_paired() -> None:
    """Items differ wildly, every one moves by 1: the level is uncertain, the change is not."""
    rng = np.random.default_rng(2)
    base = rng.normal(0, 5, 40)
    sums = {"margin": np.stack([base, base + 1], axis=1), "has_sides": np.ones((40, 2))}
    plan = study_plan([Arm("direction", SITE, torch.eye(2)[0])], "0,1")
    found = dose_curves(
        GroupSums(sums, tuple(map(str, range(40))), 40), plan, MARGIN, sampling=Sampling(n_resamples=300)
    )
    assert found.hi[0, 1, 0] - found.lo[0, 1, 0] > 2
    assert found.change[0, 1, 0] == pytest.approx(1)
    assert np.isnan(
        found.change_lo[0, 1, 0]
    )  # no item differs and a margin has no range: no interval, not one of width 0


def test_excess_is_the_change_minus_the_mean_change_of_random_directions() -> None:
    rng = np.random.default_rng(4)
    arms = [Arm("direction", SITE, torch.eye(4)[0]), *random_arms(SITE, 4, n=3)]
    plan = study_plan(arms, "0,1")
    sums = {"margin": rng.normal(size=(20, plan.n_rows)), "has_sides": np.ones((20, plan.n_rows))}
    found = dose_curves(
        GroupSums(sums, tuple(map(str, range(20))), 20), plan, MARGIN, sampling=Sampling(n_resamples=50)
    )
    by_hand = found.change[0, 1, 0] - found.change[1:, 1, 0].mean()
    assert found.excess[0, 1, 0] == pytest.approx(by_hand)


def test_p_by_hand() -> None:
    null = np.arange(-10, 10).astype(float)  # 20 values
    assert p_against(100.0, null) == pytest.approx(1 / 21)
    assert p_against(0.0, null) > 0.9
    assert p_against(15.0, null + 15) > 0.8  # a shift that all directions cause is no effect
    assert np.isnan(p_against(1.0, null[:18]))
    joint, each = p_max(np.array([100.0, 0.0]), np.stack([null, null], axis=1))
    assert each[0] == joint[0] == pytest.approx(1 / 21) and joint[1] >= each[1] > 0.5


def test_one_flipped_item_of_a_control_at_a_weak_dose_hides_no_strong_effect() -> None:
    null = np.zeros((20, 2))
    null[3, 0] = 0.003  # at the weak dose one control flips one item, at the strong one only the direction moves
    joint, each = p_max(np.array([0.0, 0.13]), null)
    assert each[1] == joint[1] == pytest.approx(1 / 21) and joint[0] > 0.5


def test_at_level_interpolates_between_strengths() -> None:
    x, y = np.array([[0.0, 0.2, 0.4]]), np.array([[1.0, 3.0, 4.0]])
    assert at_level(x, y, np.array([[0.1, 0.2, 0.3, 0.9]]))[0, :3].tolist() == pytest.approx([2.0, 3.0, 3.5])
    assert np.isnan(at_level(x, y, np.array([[0.9]])))[0, 0]
    folded = np.array([[0.2, 0.0, 0.2, 0.0, 0.2]])  # every level is crossed four times
    assert at_level(folded, np.array([[9.0, 1, 2, 3, 9]]), np.array([[0.1]]))[0, 0] in (1.5, 2.5)


@pytest.mark.parametrize("own", [0.0, -0.2])
def test_at_matched_coverage_only_what_is_not_commitment_is_left(own: float) -> None:
    """Arms that move bias by moving coverage along one curve differ by nothing there, whatever their slopes.

    `own` is what the direction does to bias beside that, at every strength.
    """
    alphas = np.array(parse_alphas("-1,-0.5,0,0.5,1"))
    arms = [Arm("direction", SITE, torch.eye(4)[0]), Arm("nuisance", SITE, torch.eye(4)[1], name="abstain")]
    plan = study_plan(arms, "-1,-0.5,0,0.5,1")
    rng, n_groups = np.random.default_rng(5), 40
    size = rng.integers(20, 40, (n_groups, 1)).astype(float)
    committed, biased = np.zeros((n_groups, plan.n_rows)), np.zeros((n_groups, plan.n_rows))
    for arm, gain in ((0, 0.1), (1, 0.2)):
        coverage = 0.5 + gain * alphas
        committed[:, plan.rows[arm]] = size * coverage
        shift = own / 2 * (arm == 0) * (alphas != 0)
        biased[:, plan.rows[arm]] = size * coverage * (0.9 - 0.5 * coverage + shift)  # bias = 0.8 - coverage + own
    sums = GroupSums({"a_committed": committed, "a_biased": biased, "a_n": size * np.ones((1, plan.n_rows))},
                     tuple(map(str, range(n_groups))), 1000)  # fmt: skip
    scores = {
        "coverage": Score(lambda s: s["a_committed"] / s["a_n"], ("a_n",)),
        "amb_commit_bias": Score(lambda s: 2 * s["a_biased"] / s["a_committed"] - 1, ("a_committed",)),
    }
    found = entanglement(sums, plan, scores, 0, references=(1,))
    assert found.slopes[0].value == pytest.approx(0.1) and found.slopes[1].value == pytest.approx(-0.1)
    assert found.exchange.value == pytest.approx(-1.0)  # bias = 0.8 - coverage along the curve
    asked, answered = size.sum(), np.rint(committed[:, plan.rows[0][plan.zero]].sum())  # n of each is its own
    assert [one.n for one in found.slopes] == [asked, answered] and answered < asked
    for alpha, one in zip(alphas, found.matched["abstain"], strict=True):
        assert one.is_defined == bool(alpha)  # both arms share strength 0
        assert not alpha or one.value == pytest.approx(own, abs=1e-9)


def test_groups_that_never_commit_are_left_out_of_commit_bias_and_counted_in_coverage() -> None:
    """More groups than committed answers: n and groups of each score are those of its own items."""
    plan = study_plan([Arm("direction", SITE, torch.eye(4)[0])])
    n_groups, rng = 30, np.random.default_rng(8)
    committed = np.zeros((n_groups, plan.n_rows))
    committed[:6] = rng.integers(1, 4, (6, plan.n_rows))
    biased = np.minimum(committed, rng.integers(0, 3, committed.shape))
    sums = GroupSums({"a_committed": committed, "a_biased": biased, "a_n": np.full(committed.shape, 5.0)},
                     tuple(map(str, range(n_groups))), 150)  # fmt: skip
    scores = {
        "coverage": Score(lambda s: s["a_committed"] / s["a_n"], ("a_n",), (0.0, 1.0)),
        "amb_commit_bias": Score(lambda s: 2 * s["a_biased"] / s["a_committed"] - 1, ("a_committed",), (-1.0, 1.0)),
    }
    found, curves = (
        entanglement(sums, plan, scores, 0),
        dose_curves(sums, plan, scores, sampling=Sampling(n_resamples=100)),
    )
    assert [(one.n, one.n_groups) for one in found.slopes] == [(150, 30), (int(committed[:, 0].sum()), 6)]
    assert curves.n_groups[0, :, 1].tolist() == [6, 6, 6] and curves.n_groups[0, 0, 0] == 30
    alone = GroupSums({name: values[:6] for name, values in sums.sums.items()}, sums.groups[:6], 30)
    same = dose_curves(alone, plan, {"b": scores["amb_commit_bias"]}, sampling=Sampling(n_resamples=100))
    assert np.allclose(curves.slope_lo[0, 1], same.slope_lo[0, 0])


def test_the_selection_band_is_wider_than_the_band_and_that_than_one_interval() -> None:
    rng = np.random.default_rng(9)
    sites = [Site("resid_post", k) for k in range(6)]
    arms = tuple(Arm("direction", site, torch.eye(4)[0]) for site in sites)
    lengths = dict.fromkeys(sites, 1.0)
    plan = DosePlan(arms, parse_alphas("-1,-0.5,0,0.5,1"), "raw", lengths, lengths, "all")
    sums = {"margin": rng.normal(size=(25, plan.n_rows)), "has_sides": np.ones((25, plan.n_rows))}
    sums = GroupSums(sums, tuple(map(str, range(25))), 25)
    one, several = (dose_curves(sums, plan, MARGIN, n_tables=n) for n in (1, 3))
    k = [0, 1, 3, 4]
    wide = [one.change_hi - one.change_lo, one.band_hi - one.band_lo, one.selection_hi - one.selection_lo,
            several.selection_hi - several.selection_lo]  # fmt: skip
    for narrower, wider in pairwise(wide):
        assert (wider[:, k] > narrower[:, k]).all()
    assert (one.band_lo[:, 2] == 0).all() and (one.band_hi[:, 2] == 0).all()  # closed at strength 0


def test_a_difference_from_the_controls_counts_their_spread() -> None:
    """Without noise of items the interval is Student's of the mean of the controls, by hand."""
    from scipy.stats import t

    slopes = np.array([2.0, *np.random.default_rng(3).normal(0, 0.5, 30)])
    arms = [Arm("direction", SITE, torch.eye(4)[0]), *random_arms(SITE, 4, n=30)]
    plan = study_plan(arms, "-1,0,1")
    margin = np.zeros((12, plan.n_rows))
    margin[:, plan.rows] = np.outer(slopes, plan.alphas)
    noise = np.random.default_rng(4).normal(0, 1e-6, margin.shape)
    sums = GroupSums({"margin": margin + noise, "has_sides": np.ones(margin.shape)}, tuple("abcdefghijkl"), 12)
    found = dose_curves(sums, plan, MARGIN, sampling=Sampling(n_resamples=50))
    value, lo, hi = found.apart["random"][:, 0, 0]
    half = t.ppf(0.975, 29) * slopes[1:].std(ddof=1) / np.sqrt(30)
    assert value == pytest.approx(2.0 - slopes[1:].mean(), abs=1e-4)
    assert (value - lo, hi - value) == pytest.approx((half, half), abs=1e-4)
    assert np.isnan(found.apart["shuffled"]).all()


def test_the_smallest_p_is_known_before_the_run() -> None:
    arms = [Arm("direction", SITE, torch.eye(4)[0]), *random_arms(SITE, 4, n=39)]
    assert smallest_p(arms) == 1 / 40
    assert "39 random, 0 shuffled; smallest p 0.025" in controls_line(arms)
    assert "no p against shuffled directions" in controls_line(arms)
    assert np.isnan(smallest_p(arms[:19])) and "no p is computed" in controls_line(arms[:19])


def test_bbq_choices_are_scored_as_the_official_scores_are() -> None:
    from interp.prompt import Example
    from interp.tasks import bbq
    from interp.tasks.bbq.metrics import CHOICE_METRICS, Items, choice_columns, scores, sides

    rng, n, n_rows = np.random.default_rng(6), 90, 4
    examples = [
        Example(f"e{k}", text="x", label="ABC"[2 if k % 2 else k % 3 % 2], groups={"story": f"s{k % 9}"},
                metadata={"context_condition": "ambig" if k % 2 else "disambig", "unknown": 2, "biased": str(k % 3 % 2),
                          "stereo": k % 3 % 2 if k % 10 else None})
        for k in range(n)
    ]  # fmt: skip
    logp = rng.normal(size=(n, n_rows, 3))
    columns = choice_columns(examples, logp)
    sums = {name: values.sum(0) for name, values in columns.items()}
    p = np.exp(logp) / np.exp(logp).sum(2, keepdims=True)
    for row in range(n_rows):
        pool = Items(
            is_ambig=np.array([e.metadata["context_condition"] == "ambig" for e in examples]),
            pred=logp[:, row].argmax(1), gold=np.array(["ABC".index(str(e.label)) for e in examples]),
            unknown=np.full(n, 2), p=p[:, row], story=np.arange(n).astype(str),
            biased=np.array([[str(k) in str(e.metadata["biased"]) for k in range(3)] for e in examples]),
            is_resolved=np.array([e.metadata["stereo"] is not None for e in examples]),
        )  # fmt: skip
        official = scores(pool)
        for name, metric in CHOICE_METRICS.items():
            if not name.startswith("switch"):
                assert metric.value(sums)[row] == pytest.approx(official[name]), name
    switches = [CHOICE_METRICS[name].value(sums) for name in CHOICE_METRICS if name.startswith("switch")]
    assert np.sum(switches, axis=0) == pytest.approx(np.ones(n_rows))  # every resolved item goes somewhere
    assert CHOICE_METRICS["switch stereo>anti"].value(sums)[0] == 0  # and nowhere before it is changed
    assert sides(examples[1]) == {"stereo": (1,), "anti": (0,), "unknown": (2,)}
    assert Outcomes.of(bbq, toward="anti", away="stereo").scores["parse_rate"] is GENERAL["coverage"]


def test_a_drawn_level_stays_where_its_score_can_be() -> None:
    """At .9 with a change of .05 [-.2, .3] the curve says [.7, 1], not 1.2; a margin has no end, KL none above."""
    from study.analyses.steering.tables import level_rows

    rows = [
        {"arm": arm, "draw": draw, "metric": metric, "alpha": alpha, "value": start + (0.05 if alpha else 0.0),
         "lo": start - 0.02, "hi": start + 0.02, "change_lo": -0.2, "change_hi": 0.3, "p_max": 0.5, "length": 1.0,
         "band_lo": -0.2 if arm == "direction" else np.nan, "band_hi": 0.3 if arm == "direction" else np.nan,
         "arm_label": "d", "interval": "t", "band": "simultaneous", "member": "engaged"}
        for arm, draw in (("direction", 0), ("random", 0), ("random", 1))
        for metric, start in (("accuracy", 0.9), ("kl", 0.1), ("margin", 0.9)) for alpha in (0.0, 1.0)
    ]  # fmt: skip
    drawn = level_rows(pd.DataFrame(rows)).query("arm == 'direction'").set_index(["metric", "alpha"])
    want = {("accuracy", 1.0): (0.7, 1.0), ("kl", 1.0): (0.0, 0.4), ("margin", 1.0): (0.7, 1.2),
            ("accuracy", 0.0): (0.88, 0.92)}  # fmt: skip
    for key, ends in want.items():
        assert tuple(drawn.loc[key, ["lo", "hi"]]) == pytest.approx(ends), key
