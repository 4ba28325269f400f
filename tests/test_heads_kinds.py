"""Every kind of replacement means what it says, and heads, pairs and positions that do not exist are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.edits import Replace
from interp.family import head_output_weights
from interp.heads import (
    METRICS,
    HeadId,
    HeadSweep,
    KnockOut,
    LabelAccuracy,
    LogitDiff,
    Mean,
    Metric,
    Noise,
    Patch,
    Prob,
    Resample,
    TokenPair,
    UniformAttention,
    Zero,
    expand_heads,
    head_sweep,
    parse_kind,
)
from interp.heads.kinds import record_z
from interp.hooks import edit, record
from interp.model import Model
from interp.positions import All, Answer, Last, Span
from interp.stats import Sampling
from tests.tiny import add_lora, tiny

LOGITS = (LogitDiff(),)


def make_pairs(n: int = 6, length: int = 9, *, seed: int = 0) -> list[TokenPair]:
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, 128, (n, 2, length), generator=rng).tolist()
    return [
        TokenPair(tuple(base), tuple(exp), 5 + i, 60 + i, id=f"p{i}", label="ab"[i % 2], options=(90, 91),
                  roles={"scenario": (1, 2, 3), "question": (5, 6)})
        for i, (base, exp) in enumerate(rows)
    ]  # fmt: skip


def margin_under(model: Model, pair: TokenPair, head: HeadId, value, tokens) -> float:
    """The margin when hooks put `value` in the place of z at `tokens`."""
    with edit(model, {head.site: Replace(value)}, positions=[list(tokens)]):
        logits = model([list(pair.exp_ids)]).logits[0, -1]
    return float(logits[pair.answer] - logits[pair.foil])


def effects_of(model: Model, pairs, kind, head: HeadId, **options) -> np.ndarray:
    job = HeadSweep(model, pairs, kind, heads=[head], metrics=LOGITS, **options)
    return np.concatenate([outcome.values["margin"] for _, outcome in job.run()])


def z_of(model: Model, ids, head: HeadId) -> torch.Tensor:
    with record(model, [head.site]) as acts:
        model([list(ids)])
    return acts[str(head.site)][0]


# --- kinds ---------------------------------------------------------------------------------------------------------


def test_a_mean_over_positions_roles_classes_and_all_is_the_mean_of_those(rng) -> None:
    model, pairs, head = Model.wrap(tiny("qwen2", dtype=torch.float64)), make_pairs(), HeadId(1, 2)
    z = torch.stack([z_of(model, pair.exp_ids, head) for pair in pairs])  # [pair, pos, d_head]
    tokens = [1, 2, 3]
    by_position = z[:, tokens].mean(0)
    by_class = {label: z[i::2][:, tokens].mean(0) for i, label in enumerate("ab")}
    flat = z[:, tokens].mean((0, 1))
    for per, value in (("position", lambda p: by_position), ("class", lambda p: by_class[p.label]),
                       ("all", lambda p: flat.expand(3, -1)), ("role", lambda p: flat.expand(3, -1))):  # fmt: skip
        found = effects_of(model, pairs, Mean(per), head, positions=Span("scenario"))
        for pair, got in zip(pairs, found, strict=True):
            whole = torch.zeros(9, z.shape[-1], dtype=z.dtype)
            whole[tokens] = value(pair)
            assert got == pytest.approx(margin_under(model, pair, head, whole[None], tokens), abs=1e-6)


def test_a_patch_puts_the_base_runs_output_in(rng) -> None:
    model, pairs, head = Model.wrap(tiny("qwen3")), make_pairs(), HeadId(2, 1)
    for where, tokens in ((Answer(), [8]), (Last(3), [6, 7, 8]), (All(), list(range(9)))):
        found = effects_of(model, pairs, Patch(), head, positions=where)
        for pair, got in zip(pairs, found, strict=True):
            donor = z_of(model, pair.base_ids, head)[None]
            assert got == pytest.approx(margin_under(model, pair, head, donor, tokens), abs=1e-4)


def test_resampling_takes_each_item_once_and_never_itself() -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(8)
    for kind in (Resample(), Resample("same_label", draws=2), Resample("derangement", draws=3, seed=4)):
        job = HeadSweep(model, pairs, kind, heads=["L0.H1"], metrics=LOGITS)
        job.donors.prepare()
        assert len(job.donors.order) == kind.draws
        for order in job.donors.order:
            assert sorted(order) == list(range(8))
            assert all(i != j for i, j in enumerate(order))
            if kind.pairing == "same_label":
                assert all(pairs[i].label == pairs[j].label for i, j in enumerate(order))
    assert len({tuple(order) for order in job.donors.order}) > 1


def test_resampled_draws_are_averaged_and_twins_are_patches() -> None:
    model, pairs, head = Model.wrap(tiny("qwen2")), make_pairs(4), HeadId(1, 0)
    twin, patch = (effects_of(model, pairs, kind, head) for kind in (Resample("twin"), Patch()))
    assert np.array_equal(twin, patch)
    job = HeadSweep(model, pairs, Resample(draws=2), heads=[head], metrics=LOGITS)
    outcome = next(job.run())[1]
    donors = [pairs[order[0]] for order in job.donors.order]
    values = [margin_under(model, pairs[0], head, z_of(model, d.exp_ids, head)[None], [8]) for d in donors]
    assert outcome.values["margin"][0] == pytest.approx(np.mean(values), abs=1e-4)


def test_uniform_attention_and_knock_out_are_what_the_changed_pattern_gives() -> None:
    """Against attention computed anew from recorded q and k is in vain here: v and pattern are the library's own."""
    model, pairs, head = Model.wrap(tiny("qwen2")), make_pairs(2), HeadId(1, 3)
    for kind in (UniformAttention(), KnockOut(Span("scenario"))):
        found = effects_of(model, pairs, kind, head)
        for pair, got in zip(pairs, found, strict=True):
            with record(model, ["pattern.1", "v.1"]) as acts:
                model([list(pair.exp_ids)])
            p = acts["pattern.1"][0, 3, 8].clone()
            if isinstance(kind, KnockOut):
                p[[1, 2, 3]] = 0.0
                p = p / p.sum()
            else:
                p = torch.full((9,), 1 / 9)
            value = p @ acts["v.1"][0, :, 1]  # query heads 2 and 3 share key-value head 1
            assert got == pytest.approx(margin_under(model, pair, head, value, [8]), abs=1e-4)


def test_uniform_attention_sees_only_the_past_and_the_window() -> None:
    model = Model.wrap(tiny("mistral"))
    pair = make_pairs(1)[0]
    donor = HeadSweep(model, [pair], UniformAttention(), positions=All()).donors.values(0)[0]
    with record(model, ["v.0"]) as acts:
        model([list(pair.exp_ids)])
    assert torch.allclose(donor[0][4, 0], acts["v.0"][0, :5, 0].mean(0), atol=1e-6)


def test_noise_has_the_length_of_what_it_replaces_and_is_drawn_anew_for_every_pair() -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(2)
    job = HeadSweep(model, pairs, Noise(3), metrics=LOGITS)
    first, second = (job.donors.values(i)[0] for i in (0, 1))
    clean = job.donors.clean(pairs[0])
    assert torch.allclose(first[1].norm(dim=-1), clean[1].norm(dim=-1))
    assert not torch.allclose(first[1] / first[1].norm(), second[1] / second[1].norm(), atol=0.1)


def test_kinds_are_named_and_read_back() -> None:
    for kind in (Zero(), Mean(), Mean("class"), Resample("twin"), Resample("same_label", 4), Patch(),
                 UniformAttention(), Noise(), Noise(2)):  # fmt: skip
        assert parse_kind(kind.name) == kind
    with pytest.raises(ValueError, match="resample:derangement:4"):
        parse_kind("median")


# --- what is read --------------------------------------------------------------------------------------------------


def test_definitions_are_what_the_formulas_say() -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(8)
    effects = head_sweep(model, pairs, kind=Patch(), sampling=Sampling(n_resamples=50))
    assert effects.metrics == ("cma", "cma_frac", "cohen_dz", "cliff", "abl_prob", "abl_acc", "flip_rate")
    head, unit = HeadId(2, 1), effects.index("L2.H1")
    m_clean, p_clean, choice, m_new, p_new, new_choice, m_base = ([] for _ in range(7))
    for pair in pairs:
        logits = model([list(pair.exp_ids)]).logits[0, -1]
        with edit(model, {head.site: Replace(z_of(model, pair.base_ids, head)[None])}, positions=[[8]]):
            changed = model([list(pair.exp_ids)]).logits[0, -1]
        base = model([list(pair.base_ids)]).logits[0, -1]
        for values, where in ((logits, (m_clean, p_clean, choice)), (changed, (m_new, p_new, new_choice))):
            where[0].append(float(values[pair.answer] - values[pair.foil]))
            where[1].append(float(values.softmax(-1)[pair.answer]))
            where[2].append(int(values[list(pair.options)].argmax()))
        m_base.append(float(base[pair.foil] - base[pair.answer]))
    cma = np.subtract(m_clean, m_new)
    assert np.abs(effects.per_example("cma")[:, unit] - cma).max() < 1e-4
    at = effects.at("L2.H1").set_index("metric")["value"]
    assert at["cma"] == pytest.approx(cma.mean(), abs=1e-4)
    assert at["abl_prob"] == pytest.approx(np.subtract(p_clean, p_new).mean(), abs=1e-5)
    right = [np.equal(c, 0) for c in (choice, new_choice)]
    assert at["abl_acc"] == pytest.approx(right[0].mean() - right[1].mean())
    assert at["flip_rate"] == pytest.approx(np.mean(np.not_equal(choice, new_choice)))
    assert at["cohen_dz"] == pytest.approx(cma.mean() / cma.std(ddof=1), rel=1e-3)
    whole = np.add(m_clean, m_base)
    assert np.abs(effects.whole - whole).max() < 1e-4
    if not np.isnan(at["cma_frac"]):
        assert at["cma_frac"] == pytest.approx(cma.mean() / whole.mean(), rel=1e-3)


def test_a_new_metric_is_one_entry_and_is_in_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, model = make_pairs(8), Model.wrap(tiny("qwen2"))
    drop = Metric("nats", "log p_clean - log p_changed", Prob, lambda v: np.log(v["clean_p"]) - np.log(v["p"]))
    monkeypatch.setitem(METRICS, "abl_logp", drop)
    effects = head_sweep(model, pairs, kind=Zero(), heads=["L0.H1", "L1.H0"])
    assert "abl_logp" in effects.metrics
    mine = effects.table()[lambda t: t["metric"] == "abl_logp"]
    by_hand = np.log(effects.values["clean_p"] / effects.values["p"]).mean(axis=0)
    assert np.allclose(mine["value"], by_hand)
    assert (mine["metric_unit"] == "nats").all()
    assert mine[["lo", "hi", "p_adjusted", "null_max95", "control_value", "control_difference"]].notna().all(axis=None)
    assert set(effects.at("L1.H0")["metric"]) == {*effects.metrics}
    assert "abl_logp" not in head_sweep(model, pairs, kind=Zero(), heads=["L0.H1"], metrics=LOGITS).metrics


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is_and_every_sort_of_sweep_has_one_main_metric(name: str) -> None:
    assert METRICS[name].unit and METRICS[name].help
    for sort in METRICS[name].sorts:
        assert sum(m.is_main for m in METRICS.values() if sort in m.sorts) == 1


def test_a_kind_of_ones_own_is_an_object_with_its_four_members() -> None:
    class Half:
        name, needs_base = "half", False

        def prepare(self, donors): ...

        def values(self, donors, index):
            return [{layer: 0.5 * z for layer, z in donors.clean(donors.pairs[index]).items()}]

    pairs, model, head = make_pairs(3), Model.wrap(tiny("qwen2")), HeadId(0, 1)
    own = effects_of(model, pairs, Half(), head, positions=Answer())
    for pair, margin in zip(pairs, own, strict=True):
        half = 0.5 * z_of(model, pair.exp_ids, head)[-1]
        assert np.isclose(margin, margin_under(model, pair, head, half, [8]), atol=1e-4)


def test_the_best_other_option_is_the_foil_where_none_is_named() -> None:
    model = Model.wrap(tiny("qwen2"))
    ids = make_pairs(1)[0].exp_ids
    pair = TokenPair(None, ids, 5, None, options=(60, 61, 62), id="x")
    got = next(HeadSweep(model, [pair], Zero(), metrics=(LogitDiff(), LabelAccuracy())).run())[1].values
    logits = model([list(ids)]).logits[0, -1]
    assert got["clean_margin"][0] == pytest.approx(float(logits[5] - logits[[60, 61, 62]].max()), abs=1e-4)
    assert np.isnan(got["p"]).all()  # Prob was not asked for


def test_the_direct_effect_is_the_write_through_any_adapter_and_bias(family: str) -> None:
    """resid + (z' - z) W_h, W_h from the module itself: checked on the model's own residual stream, DoRA included."""
    model = Model.wrap(add_lora(tiny(family), dora=True))
    pairs = make_pairs(2)
    job = HeadSweep(model, pairs, Zero(), effect="direct", metrics=LOGITS)
    if model.layout.family.attn_branch is not None:
        with pytest.raises(ValueError, match="norms the output of attention"):
            next(job.run())
        return
    layer = model.layout.head_layers[0]
    got = next(job.run())[1].values["margin"][job.units.index((HeadId(layer, 1),))]
    ids, last = pairs[0].exp_ids, f"resid_post.{model.n_layers - 1}"
    z, _ = record_z(model, ids, [8], [layer])
    weights, _ = head_output_weights(model.layout.layers[layer])
    with record(model, [last]) as acts:
        model([list(ids)])
    resid = acts[last][0, -1] - z[layer][0, 1] @ weights[1]
    logits = model.unembed(model.layout.final_norm(resid))
    assert got == pytest.approx(float(logits[pairs[0].answer] - logits[pairs[0].foil]), abs=1e-3)


@pytest.mark.parametrize("dora", [False, True])
def test_ablation_goes_through_the_adapter(dora: bool) -> None:
    model = Model.wrap(add_lora(tiny("qwen2"), dora=dora))
    effects = head_sweep(
        model, make_pairs(3), kind=Mean(), metrics=LOGITS, verify=0.5, sampling=Sampling(n_resamples=20)
    )
    assert np.abs(effects.per_example()).min() > 0.0


def test_a_half_precision_model_is_read_in_float32() -> None:
    model = Model.wrap(tiny("qwen2", dtype=torch.bfloat16))
    values = next(HeadSweep(model, make_pairs(1), Zero(), metrics=(LogitDiff(), Prob())).run())[1].values
    margins = values["clean_margin"]
    assert margins[0] != float(torch.tensor(margins[0]).bfloat16())
    assert ((values["p"] > 0) & (values["p"] < 1)).all()


# --- refusals ------------------------------------------------------------------------------------------------------


def test_names_count_from_zero_unless_said_otherwise() -> None:
    assert HeadId.parse("L=20 H=18", base=1) == HeadId.parse("L19.H17") == HeadId(19, 17)
    assert str(HeadId(19, 17)) == "L19.H17"
    layout = Model.wrap(tiny("qwen2")).layout
    with pytest.raises(ValueError, match=r"L1\.H4: layer 1 has 4 query heads \(0-3\).*subtract 1"):
        expand_heads(["L1.H4"], layout)
    with pytest.raises(ValueError, match=r"3 layers \(0-2\)"):
        expand_heads(["L3.H0"], layout)
    with pytest.raises(ValueError, match="not a head"):
        HeadId.parse("resid_post.3")


def test_a_layer_without_attention_heads_is_passed_over_and_refused_by_name() -> None:
    layout = Model.wrap(tiny("qwen3_5")).layout
    assert {unit[0].layer for unit in expand_heads("all", layout)} == set(layout.head_layers) < set(range(4))
    with pytest.raises(ValueError, match=r"L0\.H0: layer 0 is of kind 'linear_attention'.*heads: 3"):
        expand_heads(["L0.H0"], layout)


def test_a_gated_head_refuses_a_changed_pattern() -> None:
    model = Model.wrap(tiny("qwen3_5"))
    with pytest.raises(ValueError, match="there is a gate between"):
        next(HeadSweep(model, make_pairs(1), UniformAttention(), metrics=LOGITS).run())


def test_pairs_of_unequal_length_are_patched_at_the_slot_and_refused_elsewhere() -> None:
    model, pair = Model.wrap(tiny("qwen2")), make_pairs(1)[0]
    short = TokenPair(pair.base_ids[2:], pair.exp_ids, 5, 60, id="short")
    head = HeadId(1, 1)
    got = effects_of(model, [short], Patch(), head)[0]
    donor = z_of(model, short.base_ids, head)[-1]
    assert got == pytest.approx(margin_under(model, short, head, donor, [8]), abs=1e-4)
    with pytest.raises(ValueError, match=r"exp has 9 tokens, base 7.*base_positions"):
        HeadSweep(model, [short], Patch(), positions=All())
    aligned = TokenPair(pair.base_ids[2:], pair.exp_ids, 5, 60, (3, 8), (1, 6), id="aligned")
    found = effects_of(model, [aligned], Patch(), head, positions="pairs")[0]
    theirs = z_of(model, aligned.base_ids, head)
    whole = torch.zeros(1, 9, theirs.shape[-1])
    whole[0, [3, 8]] = theirs[[1, 6]]
    assert found == pytest.approx(margin_under(model, aligned, head, whole, [3, 8]), abs=1e-4)


def test_positions_that_pairs_carry_are_used_unless_a_rule_is_given() -> None:
    model, head = Model.wrap(tiny("qwen2")), HeadId(1, 1)
    bare = make_pairs(2)
    own = [TokenPair(bare[0].base_ids, bare[0].exp_ids, 5, 60, positions=(3, 5), id="own"), bare[1]]
    want = [margin_under(model, own[0], head, torch.zeros(1, 9, 8), at) for at in ([3, 5], [8])]
    assert effects_of(model, own, Zero(), head)[0] == pytest.approx(want[0], abs=1e-4)
    assert effects_of(model, own, Zero(), head, positions=Answer())[0] == pytest.approx(want[1], abs=1e-4)
    assert abs(want[0] - want[1]) > 1e-2
    swept = head_sweep(model, own, kind=Zero(), heads=[head], metrics=LOGITS, sampling=Sampling(n_resamples=50))
    assert swept.plan.positions == "pairs"
    assert (
        head_sweep(
            model, bare, kind=Zero(), heads=[head], metrics=LOGITS, sampling=Sampling(n_resamples=50)
        ).plan.positions
        == "answer"
    )
    alone = [own[1], TokenPair(own[1].base_ids, own[1].exp_ids, 5, 60, id="none")]
    assert effects_of(model, own, Zero(), head)[1] == pytest.approx(effects_of(model, alone, Zero(), head)[0], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(foil=5), "two different answers"),
        (dict(positions=(9,)), r"positions \(9,\): expected ascending token numbers within 0-8"),
        (dict(base_answer=7), "expected the answer or the foil"),
        (dict(exp_ids=()), "without tokens"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(change: dict, message: str) -> None:
    given = dict(base_ids=tuple(range(9)), exp_ids=tuple(range(9)), answer=5, foil=6, id="x")
    with pytest.raises(ValueError, match=message):
        TokenPair(**{**given, **change})


def test_a_sweep_says_what_it_lacks() -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(3)
    with pytest.raises(ValueError, match="no base prompt"):
        HeadSweep(model, [TokenPair(None, pairs[0].exp_ids, 5, 6)], Patch())
    with pytest.raises(ValueError, match="needs the tokens of 'tone'; it has: question, scenario"):
        HeadSweep(model, pairs, Zero(), positions=Span("tone"))
    with pytest.raises(ValueError, match="the only one of label"):
        next(HeadSweep(model, pairs, Resample("same_label")).run())
    with pytest.raises(ValueError, match="with different ids"):
        HeadSweep(model, [pairs[0], pairs[0]])
    effects = head_sweep(
        model, pairs, kind=Zero(), heads=["L1.H1", "L1.H2"], metrics=LOGITS, sampling=Sampling(n_resamples=20)
    )
    with pytest.raises(ValueError, match=r"L0\.H0 is not in this sweep"):
        effects.at("L0.H0")
    with pytest.raises(ValueError, match=r"metric 'cma': this sweep \(zero\) has abl_logit"):
        effects.per_example("cma")


def test_finished_pairs_are_not_computed_again_and_keys_follow_the_plan() -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(4)
    job = HeadSweep(model, pairs, Mean(), metrics=LOGITS)
    whole = dict(job.run())
    rest = dict(job.run(done=job.keys()[:2]))
    assert sorted(rest) == [2, 3]
    assert all(np.array_equal(rest[i].values["margin"], whole[i].values["margin"]) for i in rest)
    others = [HeadSweep(model, pairs, Zero(), metrics=LOGITS), HeadSweep(model, pairs[:3], Mean(), metrics=LOGITS),
              HeadSweep(model, pairs, Mean(), positions=Last(2), metrics=LOGITS)]  # fmt: skip
    for other in others:
        assert not set(job.keys()) & set(other.keys())
