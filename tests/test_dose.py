"""Dose sweeps: every arm at every strength is what a hooked forward pass gives; what is planted is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.model import Model
from interp.site import Site
from interp.stats import Sampling
from steering.arms import Arm, complement_arms, difference_weights, protocol_arms, random_arms, shuffled_arms
from steering.direction import Direction, DirectionStats
from steering.dose import DoseItem, DoseSweep, tokens_of
from steering.outcomes import Outcomes
from steering.response import DoseResult, dose_response
from steering.strengths import DosePlan, parse_alphas
from tests.dose_kit import LABEL_IDS, LABELS, hooked_logp, items, plan
from tests.tiny import tiny

SITES = ("resid_post.0", "resid_pre.1", "resid_post.2")


def test_every_arm_is_what_a_hooked_forward_pass_gives(family: str) -> None:
    check_against_hooks(family, "last")


@pytest.mark.parametrize("family", ["qwen2", "qwen3_5", "gpt2"])
@pytest.mark.parametrize("positions", ["all", "at:1+3", "last:2"])
def test_so_it_is_at_other_positions(family: str, positions: str) -> None:
    check_against_hooks(family, positions)


def check_against_hooks(family: str, positions: str) -> None:
    model = Model.wrap(tiny(family))
    asked, what = items(2), plan(model.d_model, sites=SITES, positions=positions, alphas="-0.4,0,0.2")
    for item, outcome in zip(asked, (one for _, one in DoseSweep(model, asked, what).run()), strict=True):
        clean = hooked_logp(model, item, what, what.arms[0], 0.0)
        for a, arm in enumerate(what.arms):
            for k, alpha in enumerate(what.alphas):
                row, logp = what.rows[a, k], hooked_logp(model, item, what, arm, alpha)
                labels = torch.stack([logp[list(ids)].logsumexp(0) for ids in LABEL_IDS])
                assert (torch.from_numpy(outcome.logp[row]) - labels).abs().max() <= 1e-5
                kl = float((clean.exp() * (clean - logp)).sum())
                assert abs(outcome.kl[row] - kl) <= 1e-5
                assert outcome.top[row] == float(int(logp.argmax()) in {t for ids in LABEL_IDS for t in ids})
        reaches = {a for a, arm in enumerate(what.arms) if positions != "at:1+3" or arm.site.layer != 2}
        moved = [what.rows[a, k] for a in reaches for k in (0, 2)]
        assert outcome.kl[moved].min() > 5e-6  # no row is dead, so none can be right by accident


def test_strength_zero_changes_no_bit() -> None:
    model, asked = Model.wrap(tiny("qwen2")), items(3)
    what = plan(model.d_model, sites=SITES)
    for item, (_, outcome) in zip(asked, DoseSweep(model, asked, what).run(), strict=True):
        assert (what.rows[:, what.zero] == 0).all() and outcome.kl[0] == 0.0
        zero = logits_at_zero(model, item, what)
        assert torch.equal(zero, model([list(item.ids)]).logits)


def logits_at_zero(model: Model, item: DoseItem, what: DosePlan) -> torch.Tensor:
    from interp.edits import Add
    from interp.hooks import edit

    with edit(model, {what.arms[0].site: Add(what.added(what.arms[0], 0.0))}):
        return model([list(item.ids)]).logits


def test_rows_are_shared_between_a_direction_and_its_opposite_and_computed_once() -> None:
    what = plan(32, n=2)
    assert np.array_equal(what.rows[0], what.rows[1][::-1])
    assert what.n_rows == 1 + 4 * 5  # direction, 2 random, 2 complement; the opposite is free
    uneven = plan(32, n=2, alphas="0,0.1,0.4")
    assert uneven.n_rows == 1 + 2 * 6  # nothing to share on one side


def test_chunks_and_verification_leave_the_outcome_as_it_is() -> None:
    model, asked = Model.wrap(tiny("qwen2")), items(1)
    what = plan(model.d_model, sites=SITES)
    whole = DoseSweep(model, asked, what).outcome(0)
    others = [
        DoseSweep(model, asked, what, chunk_bytes=60_000),
        DoseSweep(model, asked, what, verify=1.0),
        DoseSweep(model, asked, what, engine="reference"),
    ]
    for other in (job.outcome(0) for job in others):
        assert np.abs(other.logp - whole.logp).max() < 1e-5


def planted(model: Model) -> Direction:
    """The direction of the last layer that raises "yes" over "no", as the unembedding has it."""
    head = model.causal_lm.get_output_embeddings().weight
    gain = model.layout.final_norm.weight
    vec = (head[list(LABEL_IDS[0])].mean(0) - head[list(LABEL_IDS[1])].mean(0)) * gain
    stats = DirectionStats(delta_norm=1.0, resid_norm=5.0, sd_within=0.5, n_toward=60, n_away=60, n_groups=12)
    return Direction(vec, Site("resid_post", 2), "yes", "no", stats)


def test_a_planted_direction_is_monotone_and_beyond_every_control() -> None:
    model = Model.wrap(tiny("qwen2"))
    direction = planted(model)
    arms = protocol_arms(direction)
    lengths = {direction.site: direction.scale("resid")}
    what = DosePlan(tuple(arms), parse_alphas("-0.3:0.3:7"), "resid", lengths, lengths, tokens_of("last"))
    found = dose_response(
        model, items(), what, outcomes=Outcomes.of(None, toward="yes", away="no"), sampling=Sampling(n_resamples=500)
    )
    table, slopes = found.table(), found.slopes()
    curve = table[(table.arm == "direction") & (table.metric == "margin")].sort_values("alpha")
    assert (np.diff(curve.value) > 0).all()
    moved = curve[curve.alpha != 0]
    assert ((moved.value > moved.null_hi) | (moved.value < moved.null_lo)).all()
    assert (moved.p <= 1 / 21 + 1e-9).all() and (moved.p_max <= 1 / 21 + 1e-9).all()
    margin = slopes[(slopes.metric == "margin") & (slopes.arm == "direction")].iloc[0]
    assert margin.lo > margin.null_hi and margin.monotone == 1.0
    anti = slopes[slopes.metric == "anti_steerable"].set_index(["arm", "draw"])["value"]
    assert anti["direction", 0] == 0.0 and anti["opposite", 0] == 1.0
    controls = slopes[(slopes.metric == "margin") & (slopes.arm == "random")]
    assert controls["value"].abs().max() < margin["value"] / 2


def test_curves_of_a_task_without_labels_of_two_sides_still_have_their_general_scores() -> None:
    model = Model.wrap(tiny("qwen2"))
    found = dose_response(model, items(), plan(model.d_model), sampling=Sampling(n_resamples=200))
    assert set(found.curves.scores) == {"accuracy", "p_gold", "coverage", "label_mass", "margin", "kl"}
    table = found.table()
    zero = table[table.alpha == 0]
    assert (zero.change == 0).all() and (zero[zero.metric == "kl"].value == 0).all()


def test_shuffled_arms_follow_the_pipeline_under_permuted_labels() -> None:
    rng = np.random.default_rng(0)
    feats, labels = torch.from_numpy(rng.normal(size=(80, 6))).float(), np.arange(80) % 2 == 0
    strata = (np.arange(80) // 8).astype(str)
    site = Site("resid_post", 0)
    arms = shuffled_arms(site, feats, labels, strata=strata, n=4)
    true = difference_weights(labels[None], np.ones((1, 80)), strata=strata) @ feats.double().numpy()
    by_hand = np.mean([feats[(strata == s) & labels].mean(0).numpy() - feats[(strata == s) & ~labels].mean(0).numpy()
                       for s in np.unique(strata)], axis=0)  # fmt: skip
    assert np.abs(true[0] - by_hand).max() < 1e-6  # equal strata weigh alike
    assert len({arm.unit.numpy().tobytes() for arm in arms}) == 4
    assert all(abs(float(arm.unit.norm()) - 1) < 1e-6 for arm in arms)
    free = shuffled_arms(site, feats, labels, strata=strata, n=4, equal_length=False)
    assert all(torch.equal(a.unit, b.unit) for a, b in zip(arms, free, strict=True))
    what = DosePlan((Arm("direction", site, arms[0].unit), free[0]), (0.0, 1.0), "raw", {site: 2.0}, {site: 1.0}, "all")
    assert float(what.added(free[0], 1.0).norm()) == pytest.approx(2.0 * free[0].length) and free[0].length != 1
    grouped = shuffled_arms(site, feats, np.arange(80) < 40, groups=(np.arange(80) // 4).astype(str), n=3)
    assert len(grouped) == 3  # whole groups are relabelled where each has one label


def test_shuffled_arms_lose_the_signal_of_examples_that_are_groups_by_themselves() -> None:
    """40 examples alone in their groups carry all of the signal, 8 groups of 4 none: every draw must lose it."""
    labels = np.arange(72) % 2 == 0
    groups = np.array([*(f"alone {k}" for k in range(40)), *(f"group {k // 4}" for k in range(32))])
    feats = torch.from_numpy(np.random.default_rng(0).normal(size=(72, 4))).float() * 0.1
    feats[:40, 0] += 5 * torch.from_numpy(labels[:40]).float()
    own = difference_weights(labels[None], np.ones((1, 72))) @ feats.double().numpy()
    arms = shuffled_arms(Site("resid_post", 0), feats, labels, groups=groups, n=59, equal_length=False)
    along = np.array([arm.length * float(arm.unit[0]) for arm in arms]) * np.linalg.norm(own) / own[0, 0]
    assert abs(along.mean()) < 0.1 and (abs(along) < 0.6).all()  # of the real difference: 0 on average, sd 0.12


def test_complement_arms_have_no_component_in_the_span() -> None:
    span = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    for arm in complement_arms(Site("resid_post", 0), span, n=5):
        assert (span @ arm.unit).abs().max() < 1e-5


def test_random_arms_differ_between_layers_and_repeat_with_the_seed() -> None:
    a, b = (random_arms(Site("resid_post", layer), 16, n=2) for layer in (0, 1))
    assert not torch.equal(a[0].unit, b[0].unit)
    assert torch.equal(a[0].unit, random_arms(Site("resid_post", 0), 16, n=2)[0].unit)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: dose_response(m, items(49), plan(32)), "49 items in 12 groups"),
        (lambda m: dose_response(m, items(60, n_groups=9), plan(32)), "9 groups"),
        (lambda m: dose_response(m, items(), plan(16)), "own width"),
        (lambda m: dose_response(m, [*items(), items(1)[0]], plan(32)), "id of its own"),
        (lambda m: parse_alphas("-0.3:0.3:12"), "with 0 among them"),
        (lambda m: parse_alphas("0"), "different strengths"),
        (lambda m: protocol_arms(planted(m), n_random=5), "at least 19"),
        (lambda m: Arm("direction", Site("resid_post", 0), torch.ones(4)), "unit vector"),
        (lambda m: Arm("placebo", Site("resid_post", 0), torch.ones(1)), "placebo"),
        (lambda m: tokens_of("last, answer"), "one rule"),
    ],
)
def test_what_cannot_be_right_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(Model.wrap(tiny("qwen2")))


def test_parse_alphas_holds_zero_exactly() -> None:
    assert parse_alphas("-0.3:0.3:13")[6] == 0.0 and len(parse_alphas("-0.3:0.3:13")) == 13
    assert parse_alphas("1,-1,0") == (-1.0, 0.0, 1.0)


def test_the_labels_of_an_item_decide_its_margin() -> None:
    kind = Outcomes.of(None, toward="no", away="yes")
    assert kind.sides_of(items(1)[0]) == ((1,), (0,))
    assert Outcomes.of(None).sides_of(items(2)[1]) == ((1,), (0,))  # the right label against the others
    strange = Outcomes.of(None, toward="right", away="wrong")  # labels of nothing: gold would be up in one, down in one
    assert [strange.sides_of(item) for item in items(2)] == [((), ()), ((), ())]
    assert Outcomes.of(None, toward="yes", away="wrong").sides_of(items(1)[0]) == ((0,), ())
    assert LABELS == ("yes", "no")


def test_results_repeat_bit_for_bit() -> None:
    model, what = Model.wrap(tiny("qwen2")), plan(32)
    asked = items()
    outcomes = [one for _, one in DoseSweep(model, asked, what).run()]
    tables = [
        DoseResult.of(asked, outcomes, what, Outcomes.of(None), sampling=Sampling(n_resamples=200)).table()
        for _ in range(2)
    ]
    assert tables[0].equals(tables[1])
