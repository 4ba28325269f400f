"""Activations that an oracle is shown: collected from every source, joined, and exchanged by controls."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from interp.adapters.rows import adapter_rows, rows_can_differ
from interp.cache import extract
from interp.hooks import record
from interp.model import Model
from interp.oracle import (
    Features,
    collect,
    features_from_cache,
    join,
)
from interp.oracle.controls import FewDonorsWarning, matched_donors, variants
from interp.prompt import render
from tests.oracle_kit import SOURCES, chats, collected, made_features, pair_with_oracle
from tests.tiny import add_lora, tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def model():
    return pair_with_oracle()


@pytest.fixture(scope="module")
def read(model):
    return collected(model)


def test_mixed_rows_give_the_activations_of_each_adapter_alone(model, read):
    for source, role in (("base", None), ("engaged", "engaged"), ("heuristic", "heuristic")):
        feats = read[source]
        for example in chats():
            ids = render(example, model.tokenizer).ids
            with model.adapters.use(role), record(model, ["resid_post.1", "resid_post.2"]) as acts:
                model([ids])
            for i, slot in enumerate(feats.slots):
                if slot.item.startswith(f"{example.id}@"):
                    want = acts[f"resid_post.{slot.layer}"][0, slot.token]
                    assert torch.allclose(feats.vectors[i], want, atol=1e-5), slot
    assert not torch.allclose(read["base"].vectors, read["engaged"].vectors, atol=0.1)


def test_differences_are_differences_and_readings_correspond(read):
    a, b = read["engaged"], read["heuristic"]
    assert torch.allclose(read["engaged - heuristic"].vectors, a.vectors - b.vectors)
    assert torch.allclose(read["heuristic - base"].vectors, b.vectors - read["base"].vectors)
    places = {tuple((s.item, s.layer, s.token, s.text) for s in feats.slots) for feats in read.values()}
    assert len(places) == 1
    assert {s.source for s in a.slots} == {"engaged"}


def test_slots_carry_their_origin(model, read):
    feats = read["base"]
    prompt = render(chats()[0], model.tokenizer)
    first = [s for s in feats.slots if s.item.startswith("e0@") and s.layer == 1]
    assert [s.sentence for s in first] == [0, 1, 2]
    for slot in first:
        assert prompt.tokens[slot.token] == slot.text
        assert feats.texts[slot.item] == prompt.text[: prompt.offsets[slot.token][1]]
        assert feats.group(slot.item) == "p0"


@pytest.mark.parametrize(("per", "n_items", "k"), [("example", 8, 6), ("token", 48, 1), (3, 16, 3), (4, 8, 4)])
def test_readings_are_examples_tokens_or_runs(model, per, n_items, k):
    feats = collect(model, chats(), layers=[0], positions="last:6", per=per)["base"]
    assert len(feats) == n_items
    assert {feats.counts(item) for item in feats.items} == {(k,)}


def test_one_text_that_fills_the_budget_alone_changes_nothing(model, read):
    small = collect(model, chats(), layers=[1, 2], positions="sentence_ends", per="token", sources=SOURCES,
                    group="problem", tokens_per_batch=1)  # fmt: skip
    for source in SOURCES:
        # fp32: values up to 12, and a source may be the difference of two members
        assert torch.allclose(small[source].vectors, read[source].vectors, atol=5e-5)


def test_adapters_without_a_per_row_form_are_collected_one_by_one():
    dora = add_lora(tiny("qwen3", vocab_size=384), dora=True, name="engaged")
    model = Model(dora, tiny_tokenizer())
    assert not rows_can_differ(model, [None, "engaged"])
    got = collect(model, chats(2), layers=[1], sources=("base", "engaged"))
    for source, role in (("base", None), ("engaged", "engaged")):
        with model.adapters.use(role), record(model, ["resid_post.1"], positions="all") as acts:
            model([render(chats(2)[0], model.tokenizer).ids])
        assert torch.allclose(got[source].vectors[0], acts["resid_post.1"][0, -1], atol=1e-5)
    with pytest.raises(ValueError, match="cannot share a batch"), adapter_rows(model, [None, "engaged"]):
        pass


def test_a_batch_of_another_size_than_its_adapters_is_refused(model):
    with pytest.raises(ValueError, match="2 rows, adapters were named for 3"):
        with adapter_rows(model, [None, "engaged", "oracle"]):
            model([[5, 6], [7, 8]])
    with pytest.raises(ValueError, match="'other' is not loaded; adapters: engaged, heuristic, oracle"):
        rows_can_differ(model, ["other"])


def test_unknown_sources_and_layers_are_refused_before_anything_runs(model):
    with pytest.raises(ValueError, match="source 'engage': expected one of base, engaged"):
        collect(model, chats(1), sources=("engage",))
    with pytest.raises(ValueError, match="blocks 0-2"):
        collect(model, chats(1), layers=[3])
    with pytest.raises(ValueError, match="one position rule at a time"):
        collect(model, chats(1), positions="last, all")
    with pytest.raises(ValueError, match="has no group 'theme'"):
        collect(model, chats(1), group="theme")


def test_a_cache_gives_the_features_of_a_fresh_pass(model, tmp_path):
    with model.adapters.use(None):
        cache = extract(model, chats(), out=tmp_path, sites="resid_post.*", positions="sentence_ends", progress=False)
    fresh = collect(model, chats(), layers=[2, 1], positions="sentence_ends", per="token", group="problem")["base"]
    stored = features_from_cache(cache, position="sentence_ends", layers=[2, 1], per="token", group="problem",
                                 source="base")  # fmt: skip
    assert stored.items == fresh.items
    assert torch.allclose(stored.vectors, fresh.vectors, atol=1e-5)
    assert [replace(s, sentence=None) for s in fresh.slots] == list(stored.slots)
    assert stored.groups == fresh.groups
    with pytest.raises(ValueError, match="percent needs n_layers"):
        features_from_cache(cache, position="sentence_ends", layers=["50%"])
    with pytest.raises(ValueError, match="position 'last' is not in"):
        features_from_cache(cache, position="last", layers=[1])


def test_a_vector_that_is_not_finite_is_refused_with_its_origin():
    good = made_features(3)
    vectors = good.vectors.clone()
    vectors[3, 5] = torch.inf
    with pytest.raises(ValueError, match=r"slot 3 \(item 'i1', layer 1, token 1 't1', source base\)"):
        replace(good, vectors=vectors)


def test_slots_of_a_reading_stand_together_layer_by_layer():
    good = made_features(2, layers=(1, 2))
    with pytest.raises(ValueError, match="slots of item 'i1' are not contiguous"):
        replace(good, slots=(*good.slots[4:6], *good.slots[:4], *good.slots[6:]))
    with pytest.raises(ValueError, match="same tokens at every layer"):
        replace(good, slots=(good.slots[1], good.slots[0], *good.slots[2:]))


def test_boundary_major_order_alternates_layers():
    feats = made_features(1, layers=(1, 2), k=3)
    order = [(feats.slots[i].token, feats.slots[i].layer) for i in feats.rows("i0", "boundary-major")]
    assert order == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_null_slots_are_those_far_below_their_layer():
    feats = made_features(6)
    vectors = feats.vectors.clone()
    vectors[4] = vectors[4] * 1e-8
    assert replace(feats, vectors=vectors).null_slots == (4,)
    assert feats.null_slots == ()


def test_joined_features_keep_their_readings():
    a, b = made_features(2), made_features(4).select(["i3", "i2"])
    both = join([a, b])
    assert both.items == ("i0", "i1", "i3", "i2")
    assert torch.equal(both.vectors[-2:], b.vectors[-2:])
    with pytest.raises(ValueError, match="'i0' is in two parts"):
        join([a, a])


def test_a_matched_shuffle_is_a_derangement_within_task_layer_and_count_and_across_problems():
    feats = join([made_features(12, per_problem=3), _renamed(made_features(8, k=3, seed=1), "k3"),
                  _renamed(made_features(8, layers=(2,), seed=2), "l2")])  # fmt: skip
    tasks = {item: "odd" if item.endswith(("1", "3", "5", "7", "9")) else "even" for item in feats.items}
    for donors in matched_donors(feats, n=3, seed=4, tasks=tasks):
        assert sorted(donors) == sorted(donors.values()) == sorted(feats.items)
        for item, donor in donors.items():
            assert feats.kind(item) == feats.kind(donor)
            assert tasks[item] == tasks[donor]
            assert feats.group(item) != feats.group(donor)


def test_repeats_of_a_shuffle_are_different_partners():
    found = matched_donors(made_features(10), n=4, seed=0)
    assert len(found) == 4
    for item in made_features(10).items:
        assert len({donors[item] for donors in found}) == 4


def test_a_small_stratum_still_gives_several_partners_of_the_other_problem():
    feats = made_features(12, per_problem=6)
    found = matched_donors(feats, n=4, seed=0)
    assert len(found) == 4
    for item in feats.items:
        partners = [donors[item] for donors in found]
        assert len(set(partners)) == 4
        assert all(feats.group(partner) != feats.group(item) for partner in partners)


def test_readings_without_a_partner_are_left_out_and_named():
    feats = join([made_features(5), _renamed(made_features(1, k=4), "lonely")])
    with pytest.warns(FewDonorsWarning, match="1 of 6 readings have no partner"):
        (donors,) = matched_donors(feats, n=1)
    assert "lonely0" not in donors
    with pytest.warns(FewDonorsWarning, match="4 are in a small stratum"):
        matched_donors(made_features(4, per_problem=4), n=1)


def test_control_vectors_are_what_their_names_say():
    feats = made_features(6, layers=(1, 2))
    (zero,) = variants(feats, "zero")
    assert not zero.feats.vectors.any()
    (mean,) = variants(feats, "mean")
    at = torch.tensor([s.layer == 2 for s in feats.slots])
    assert torch.allclose(mean.feats.vectors[at], feats.vectors[at].mean(0).expand(int(at.sum()), -1), atol=1e-6)
    noise = variants(feats, "gaussian", n=2)
    assert torch.allclose(noise[0].feats.vectors.norm(dim=1), feats.vectors.norm(dim=1), rtol=1e-4)
    assert not torch.allclose(noise[0].feats.vectors, noise[1].feats.vectors)
    few = variants(feats.select(["i3"]), "gaussian")[0].feats.vectors
    assert torch.allclose(few, noise[0].feats.vectors[[i for i, s in enumerate(feats.slots) if s.item == "i3"]])
    (shuffled,) = variants(feats, "shuffled")
    for item, donor in shuffled.donors.items():
        assert torch.equal(
            shuffled.feats.vectors[list(shuffled.feats.rows(item))], feats.vectors[list(feats.rows(donor))]
        )
    with pytest.raises(ValueError, match="expected one of shuffled, zero"):
        variants(feats, "nothing")


def _renamed(feats: Features, start: str) -> Features:
    new = {item: f"{start}{number}" for number, item in enumerate(feats.items)}
    return replace(
        feats,
        slots=tuple(replace(slot, item=new[slot.item]) for slot in feats.slots),
        groups={new[item]: f"{start}{group}" for item, group in feats.groups.items()},
        texts={new[item]: text for item, text in feats.texts.items()},
    )


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDonorsWarning)
        yield
