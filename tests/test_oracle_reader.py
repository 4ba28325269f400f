"""Reading: what is collected, what controls are matched on, and that an answer says when nothing was read."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.adapters.rows import adapter_rows, rows_can_differ
from interp.cache import extract
from interp.checkpoint import Fingerprint
from interp.hooks import record
from interp.io.items import ItemStore
from interp.model import Model
from interp.oracle import (
    Decoding,
    Features,
    OffDistributionWarning,
    Oracle,
    OracleSpec,
    collect,
    compare,
    features_from_cache,
    inject,
    join,
)
from interp.oracle.answers import Choices, Likelihoods
from interp.oracle.controls import FewDonorsWarning, matched_donors, variants
from interp.oracle.engine import answer_logp
from interp.oracle.evidence import (
    FEW_PARTNERS,
    NO_CONTROL,
    NO_GAP,
    NOT_READ,
    READ,
    UNDECIDED,
    FewPartnersWarning,
    rank_answers,
    reach,
    verdict,
)
from interp.oracle.prompt import render_question
from interp.prompt import Example, Message, render
from interp.stats import Estimate, compare_paired
from study.figures import oracle as figure
from tests.oracle_kit import chats, made_features, pair_with_oracle
from tests.tiny import add_lora, tiny, tiny_tokenizer

SPEC = OracleSpec(layers=(1,), max_new_tokens=5)


@pytest.fixture(scope="module")
def model():
    return pair_with_oracle()


@pytest.fixture(scope="module")
def oracle(model):
    return Oracle(model, spec=SPEC)


SOURCES = ("base", "engaged", "heuristic", "engaged - heuristic", "heuristic - base")


@pytest.fixture(scope="module")
def read(model):
    with model.adapters.use("oracle"):  # must not leak into what is read
        return collect(model, chats(), layers=[1, 2], positions="sentence_ends", per="token", sources=SOURCES,
                       group="problem")  # fmt: skip


# ---- collecting ---------------------------------------------------------------------------------------------------


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


# ---- features -----------------------------------------------------------------------------------------------------


def test_a_vector_that_is_not_finite_is_refused_with_its_origin():
    good = made_features(3)
    vectors = good.vectors.clone()
    vectors[3, 5] = torch.inf
    with pytest.raises(ValueError, match=r"slot 3 \(item 'i1', layer 1, token 1 't1', source base\)"):
        replace(good, vectors=vectors)


def test_slots_of_a_reading_stand_together_layer_by_layer():
    good = made_features(2, layers=(1, 2))
    with pytest.raises(ValueError, match="slots of item 'i1' are apart"):
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


# ---- controls -----------------------------------------------------------------------------------------------------


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
    with pytest.warns(FewDonorsWarning, match="4 share a small stratum with their own problem"):
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


# ---- reading ------------------------------------------------------------------------------------------------------


def plain_nll(model, role, feats, item, question, target):
    """NLL per token by one full forward of one prompt."""
    prompt = render_question(SPEC, model.tokenizer, layers=feats.layers(item), counts=feats.counts(item),
                             question=question, answer=target)  # fmt: skip
    vectors = feats.vectors[list(feats.rows(item))]
    with model.adapters.use(role), inject(model, vectors, [prompt.slots], SPEC), torch.no_grad():
        logp = model.module(input_ids=torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
    at = range(prompt.answer_start, len(prompt.ids))
    return -float(sum(logp[t - 1, prompt.ids[t]] for t in at)) / len(at)


def test_scores_are_those_of_one_plain_forward_per_prompt_and_control(model, oracle):
    feats = made_features(5)
    targets = {item: ("yes", "no step", "it is the dog")[i % 3] for i, item in enumerate(feats.items)}
    got = oracle.score(feats, "what is it?", targets, controls=("zero", "shuffled", "no_adapter"), n_partners=2)
    zero = feats.with_vectors(torch.zeros_like(feats.vectors))
    for i, item in enumerate(feats.items):
        ask = (item, "what is it?", targets[item])
        assert got.nll[i] == pytest.approx(plain_nll(model, "oracle", feats, *ask), abs=1e-4)
        assert got.controls["zero"][0, i] == pytest.approx(plain_nll(model, "oracle", zero, *ask), abs=1e-4)
        assert got.controls["no_adapter"][0, i] == pytest.approx(plain_nll(model, None, feats, *ask), abs=1e-4)
        for repeat, variant in enumerate(variants(feats, "shuffled", n=2, seed=0)):
            want = plain_nll(model, "oracle", variant.feats, *ask)
            assert got.controls["shuffled"][repeat, i] == pytest.approx(want, abs=1e-4)


def test_shared_prefixes_and_whole_prompts_give_the_same_scores(model, oracle):
    feats = made_features(4, k=5)
    plain = Oracle(model, spec=SPEC, share=False, tokens_per_batch=200)
    one, other = (o.choose(feats, "which?", ["yes", "no", "the dog"]) for o in (oracle, plain))
    assert np.allclose(one.logp, other.logp, atol=1e-4)
    assert oracle.ask(feats, ["a?", "the dog?"])[5].text == plain.ask(feats, ["a?", "the dog?"])[5].text


def test_an_answer_carries_its_gap_and_its_origin(oracle):
    feats = made_features(6)
    answers = oracle.ask(feats, ["what?", "who is it?"], controls=("shuffled", "zero"), n_partners=3)
    assert [(a.item, a.question) for a in answers] == [(i, q) for q in ("what?", "who is it?") for i in feats.items]
    first = answers[0]
    assert first.n_partners == 3
    assert first.gap == pytest.approx(first.controls["shuffled"])
    assert set(first.controls) == {"shuffled", "zero"}
    assert first.provenance["tokens"] == "0+1"
    assert first.logp < 0
    table = answers.table()
    assert len(table) == 12
    assert {"gap", "p", "p_adjusted", "n_partners", "verdict", "gap.zero", "source", "layers"} <= set(table.columns)
    assert (table["smallest_p"] == 1 / 4).all()
    assert answers.gap("what?").n_groups == 6
    with pytest.raises(ValueError, match="several questions were asked"):
        answers.gap()


def test_an_oracle_that_cannot_see_the_vectors_is_reported_as_not_reading(model):
    blind = Oracle(model, spec=replace(SPEC, coefficient=0.0))
    answers = blind.ask(made_features(6), "what?")
    assert {a.verdict for a in answers} == {NOT_READ}
    assert answers.gap().value == pytest.approx(0.0, abs=1e-6)
    assert answers.same_response_share() == 1.0
    assert NOT_READ in str(answers)


def test_a_reading_is_ranked_among_its_partners_and_corrected_over_readings():
    """Worked by hand: 40 partners, so the smallest p is 1/41; Benjamini-Hochberg over those that have any."""
    partners = np.full((40, 5), 3.0)
    partners[0, 1] = 1.0  # one partner makes the second answer as likely as its own activations do
    partners[:, 2] = 1.0 + NO_GAP / 2  # no partner moves the third
    partners[:, 3] = np.nan
    partners[3:, 4] = np.nan  # three partners are too few, whatever they give
    got = rank_answers(np.ones(5), partners)
    assert got.p[[0, 1, 2, 4]].tolist() == [1 / 41, 2 / 41, 1.0, 1 / 4]
    assert math.isnan(got.p[3])
    assert got.p_adjusted[[0, 1, 2, 4]].tolist() == pytest.approx([4 / 41, 4 / 41, 1.0, 1 / 3])
    assert [got.verdict(i) for i in range(5)] == [UNDECIDED, UNDECIDED, NOT_READ, NO_CONTROL, FEW_PARTNERS]
    alone = rank_answers(np.ones(1), partners[:, :1])
    assert alone.p_adjusted.tolist() == [1 / 41]
    assert alone.verdict(0) == READ


def test_what_single_answers_can_show_is_said_before_the_run(model, oracle):
    assert "no single answer can be called read" in reach(38, 1)
    assert "39 partners or more" in reach(38, 1)
    assert reach(39, 1).endswith("one answer can be read")
    assert reach(99, 20).endswith("at least 8 of them are")  # 20 · 0.01 / 0.025
    with pytest.warns(FewPartnersWarning, match="5 partners per reading, smallest p 0.167"):
        oracle.ask(made_features(6), "what?")


def test_a_gap_counts_from_a_hundredth_of_a_nat():
    assert verdict(Estimate(0.5, 0.02, 1.0, 9, 9)) == READ
    assert verdict(Estimate(0.5, 0.005, 1.0, 9, 9)) == UNDECIDED
    assert verdict(Estimate(0.001, -0.004, 0.006, 9, 9)) == NOT_READ
    assert verdict(Estimate.undefined()) == NO_CONTROL
    assert NO_GAP == sys.modules[figure.__module__].NO_GAP


def test_an_accuracy_is_compared_with_a_control_pair_by_pair():
    """Worked by hand: of four readings that both answered, three are right here and two under the control."""
    logp = np.log([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1]])
    under = np.log([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]])[None]
    choices = Choices(tuple("abcde"), tuple("vwxyz"), "q", ("yes", "no"), logp, np.ones(2), {"text_only": under})
    targets = dict(zip("abcde", ("yes", "yes", "no", "no", "yes"), strict=True))
    got = choices.over(targets, "text_only")
    want = compare_paired([1, 1, 1, 0], [1, 0, 0, 1], groups=None, seed=0).difference
    assert (got.value, got.lo, got.hi, got.n) == (0.25, want.lo, want.hi, 4)
    assert not replace(choices, groups=("p",) * 5).over(targets, "text_only").is_defined


def test_gap_is_the_mean_of_paired_differences_with_problems_as_the_unit():
    nll, n = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)
    under = {"shuffled": np.array([[2.0, 2.0, 5.0, np.nan], [2.0, 4.0, 5.0, np.nan]])}
    got = Likelihoods(tuple("abcd"), ("p", "p", "q", "r"), tuple("wxyz"), nll, n, under)
    assert got.gaps().tolist()[:3] == [1.0, 1.0, 2.0]
    assert math.isnan(got.gaps()[3])
    gap = got.gap()
    assert (gap.value, gap.n, gap.n_groups) == (pytest.approx(4 / 3), 3, 2)
    with pytest.raises(ValueError, match="control 'zero' was not run; controls: shuffled"):
        got.gap("zero")


def test_probabilities_are_of_whole_answers(model, oracle):
    feats = made_features(3)
    got = oracle.choose(feats, "which?", ["yes", "the quick fox"])
    for i, item in enumerate(feats.items):
        for c, choice in enumerate(got.choices):
            n = got.n_tokens[c]
            assert got.logp[i, c] / n == pytest.approx(
                -plain_nll(model, "oracle", feats, item, "which?", choice), abs=1e-4
            )
    assert np.allclose(got.p.sum(axis=1), 1)
    assert np.allclose(got.p, np.exp(got.logp) / np.exp(got.logp).sum(axis=1, keepdims=True))


def test_likelihoods_of_choices_are_the_scores_of_their_targets(oracle):
    feats = made_features(6)
    targets = {item: ("yes", "the dog")[i % 2] for i, item in enumerate(feats.items)}
    chosen = oracle.choose(feats, "which?", ["yes", "the dog"], controls=("shuffled", "mean"), n_partners=2)
    scored = oracle.score(feats, "which?", targets, controls=("shuffled", "mean"), n_partners=2)
    got = chosen.likelihoods(targets)
    assert np.allclose(got.nll, scored.nll, atol=1e-4)
    for control in ("shuffled", "mean"):
        assert np.allclose(got.controls[control], scored.controls[control], atol=1e-4)
    assert [row["control"] for row in got.rows()] == ["real", "shuffled", "mean"]


def test_phrasings_and_orders_give_a_frequency(oracle):
    feats = made_features(4)
    got = oracle.choose(feats, "which of {choices}?", ["yes", "no"], paraphrases=["is it {choices}?"], n_orders=2)
    assert got.phrasings is not None
    assert got.phrasings.shape == (4, 4)
    for i in range(4):
        mode = max(np.bincount(got.phrasings[i], minlength=2))
        assert got.frequency[i] == mode / 4
    assert 0.5 <= got.invariance().value <= 1
    alone = oracle.choose(feats, "which of yes, no?", ["yes", "no"])
    assert np.allclose(alone.logp, got.logp, atol=1e-4), "the first order is the one given"
    assert np.isnan(alone.frequency).all()


def test_samples_give_a_frequency(oracle):
    answers = oracle.ask(made_features(3), "what?", decoding=Decoding(n=6, temperature=1.5, max_new_tokens=1))
    for answer in answers:
        assert len(answer.samples) == 6
        assert answer.frequency >= answer.samples.count(answer.text) / 6 > 0


def test_a_reading_that_was_stopped_goes_on_where_it_was(oracle, tmp_path, monkeypatch):
    """Two thirds of the batches are kept, then the machine dies: only the rest is computed again, to the same bits."""
    feats, decoding = made_features(6), Decoding(n=2, temperature=1.0, max_new_tokens=3)
    monkeypatch.setattr(oracle, "tokens_per_batch", 200)

    def read():
        return oracle.ask(feats, "what?", decoding=decoding), oracle.choose(feats, "which?", ["yes", "no"])

    want, passes, forward = read(), [], type(oracle.model.decoder).forward

    def counted(*args, **kwargs):
        passes.append(1)
        if len(passes) > limit:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(type(oracle.model.decoder), "forward", counted)
    limit = 10_000
    read()
    n, limit = len(passes), 2 * len(passes) // 3
    passes.clear()
    with (
        ItemStore.writing(tmp_path, "reading", {"of": "a test"}) as store,
        oracle.keeping(store),
        pytest.raises(KeyboardInterrupt),
    ):
        read()
    assert n > 20 and store.keys
    passes.clear()
    with ItemStore.writing(tmp_path, "reading", {"of": "a test"}) as store, oracle.keeping(store):
        got = read()
    assert len(passes) < n / 2, "what was kept is not computed again"
    assert str(got[0]) == str(want[0]) and [a.samples for a in got[0]] == [a.samples for a in want[0]]
    assert np.array_equal(got[1].logp, want[1].logp)
    assert np.array_equal(got[1].controls["shuffled"], want[1].controls["shuffled"], equal_nan=True)
    assert oracle._store is None


def test_choices_that_cannot_be_compared_are_refused(oracle):
    feats = made_features(3)
    with pytest.raises(ValueError, match="'yes' begins 'yes no'.*end_of_turn=True"):
        oracle.choose(feats, "which?", ["yes", "yes no"])
    assert oracle.choose(feats, "which?", ["yes", "yes no"], end_of_turn=True).n_tokens[0] > 1
    with pytest.raises(ValueError, match="does not list the choices"):
        oracle.choose(feats, "which?", ["yes", "no"], n_orders=2)
    with pytest.raises(ValueError, match="at least two"):
        oracle.choose(feats, "which?", ["yes"])
    with pytest.raises(ValueError, match="expected a target among yes, no; got 'dog'"):
        oracle.choose(feats, "which?", ["yes", "no"]).grade(dict.fromkeys(feats.items, "dog"))


def test_the_text_only_control_reads_the_text_with_the_bare_base(model, oracle):
    feats = made_features(3)
    targets = dict.fromkeys(feats.items, "yes")
    got = oracle.score(feats, "what is it?", targets, controls=("text_only",))
    for i, item in enumerate(feats.items):
        chat = Example(id="x", messages=(Message("user", f"{feats.texts[item]}\n\nwhat is it?"),), answer="yes")
        prompt = render(chat, model.tokenizer, thinking=False)
        with model.adapters.use(None), torch.no_grad():
            logp = model.module(input_ids=torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
        at = range(prompt.n_prompt, len(prompt.ids))
        want = -float(sum(logp[t - 1, prompt.ids[t]] for t in at)) / len(at)
        assert got.controls["text_only"][0, i] == pytest.approx(want, abs=1e-4)
    with pytest.raises(ValueError, match="needs the texts"):
        oracle.score(replace(feats, texts={}), "what?", targets, controls=("text_only",))


def test_the_prior_control_is_another_adapter(model):
    feats, targets = made_features(3), dict.fromkeys(made_features(3).items, "yes")
    got = Oracle(model, spec=SPEC, prior="heuristic").score(feats, "what?", targets, controls=("prior",))
    for i, item in enumerate(feats.items):
        assert got.controls["prior"][0, i] == pytest.approx(
            plain_nll(model, "heuristic", feats, item, "what?", "yes"), abs=1e-4
        )
    with pytest.raises(ValueError, match="'prior' needs an oracle trained on zeroed"):
        Oracle(model, spec=SPEC).score(feats, "what?", targets, controls=("prior",))


def test_what_cannot_be_right_is_refused_before_the_forward(model, oracle):
    with pytest.raises(ValueError, match="'guru' is not loaded; adapters of the model: engaged, heuristic, oracle"):
        Oracle(model, adapter="guru", spec=SPEC)
    with pytest.raises(ValueError, match="block 7 of a model with 3 blocks"):
        Oracle(model, spec=replace(SPEC, hook_layer=7))
    with pytest.raises(ValueError, match="features are 16 wide, the oracle's base .* has 32"):
        oracle.ask(made_features(3, d=16), "what?")
    with pytest.raises(ValueError, match="control 'nul'"):
        oracle.ask(made_features(3), "what?", controls=("nul",))
    with pytest.raises(ValueError, match="2 readings have none, e.g. 'i1'"):
        oracle.score(made_features(3), "what?", {"i0": "yes"})


def test_what_is_off_distribution_is_said(model, oracle, read):
    with pytest.warns(OffDistributionWarning, match="layers .2. are not among those"):
        oracle.choose(made_features(3, layers=(2,)), "which?", ["yes", "no"])
    differences = read["engaged - heuristic"].select(read["base"].items[:4])
    one_layer = Features(differences.vectors[::2], differences.slots[::2], differences.groups)
    with pytest.warns(OffDistributionWarning, match="engaged - heuristic: oracles are trained on activations"):
        oracle.choose(one_layer, "which?", ["yes", "no"])
    elsewhere = replace(made_features(3), provenance={"base_sha256": "0" * 64})
    known = Oracle(model, spec=SPEC)
    known.model.fingerprint = Fingerprint("1" * 64, "1" * 64)
    with pytest.warns(OffDistributionWarning, match="other base weights than the oracle's .000000000000, 111111111111"):
        known.choose(elsewhere, "which?", ["yes", "no"])
    known.model.fingerprint = None
    null = made_features(3)
    vectors = null.vectors.clone()
    vectors[2] = 0
    with pytest.warns(OffDistributionWarning, match="1 vectors are shorter than a millionth"):
        answers = oracle.ask(replace(null, vectors=vectors), "what?")
    assert answers[1].null_slots == ("item 'i1', layer 1, token 0 't0', source base",)


def test_the_active_adapter_of_the_model_does_not_matter(model, oracle):
    feats, results = made_features(3), []
    for role in (None, "engaged", "oracle"):
        with model.adapters.use(role):
            results.append(oracle.choose(feats, "which?", ["yes", "no"]).logp)
            assert model.adapters.active == role
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_format_d_interleaves_layers_and_equals_the_vectors_written_out(model):
    spec = OracleSpec(format="D", layers=(1, 2))
    feats = made_features(2, layers=(1, 2), k=2)
    got = Oracle(model, spec=spec).score(feats, "what?", dict.fromkeys(feats.items, "yes"), controls=())
    prompt = render_question(spec, model.tokenizer, layers=[1, 2], counts=[2, 2], question="what?", answer="yes")
    by_hand = feats.vectors[[0, 2, 1, 3]]  # layer-major rows of the first reading, position by position
    with model.adapters.use("oracle"), inject(model, by_hand, [prompt.slots], spec), torch.no_grad():
        logp = model.module(input_ids=torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
    at = range(prompt.answer_start, len(prompt.ids))
    assert got.nll[0] == pytest.approx(-float(sum(logp[t - 1, prompt.ids[t]] for t in at)) / len(at), abs=1e-4)


def test_no_answers_are_computed_for_no_jobs(model):
    assert answer_logp(model, [], SPEC) == []


# ---- pairs --------------------------------------------------------------------------------------------------------


def test_a_member_compared_with_itself_shows_no_difference(oracle, read):
    feats = _layer_one(read["engaged"])
    got = compare(oracle, feats, feats, "which?", ["yes", "no"], targets=dict.fromkeys(feats.items, "yes"))
    assert got.difference["yes"].value == 0
    assert got.same.value == 1.0
    assert got.same_shuffled.value <= 1.0
    assert got.same_shuffled.n == len(feats)
    assert got.comparison is not None
    assert got.comparison.difference.value == 0


def test_a_difference_is_that_of_the_probabilities_and_its_signs_agree(oracle, read):
    a, b = _layer_one(read["engaged"]), _layer_one(read["heuristic"])
    got = compare(oracle, a, b, "which?", ["yes", "no"], names=("one", "other"))
    want = oracle.choose(a, "which?", ["yes", "no"]).p - oracle.choose(b, "which?", ["yes", "no"]).p
    assert got.difference["yes"].value == pytest.approx(want[:, 0].mean())
    assert got.difference["no"].value == pytest.approx(-want[:, 0].mean())
    assert got.difference["yes"].n_groups == 4
    assert {row["choice"] for row in got.rows()} == {"yes", "no"}
    assert "one - other" in str(got)
    with pytest.raises(ValueError, match="same readings in the same order"):
        compare(oracle, a, b.select(b.items[:3]), "which?", ["yes", "no"])


def _layer_one(feats: Features) -> Features:
    at = [i for i, slot in enumerate(feats.slots) if slot.layer == 1]
    return replace(feats, vectors=feats.vectors[at], slots=tuple(feats.slots[i] for i in at))


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
