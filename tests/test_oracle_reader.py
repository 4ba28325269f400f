"""Reading: what is collected, what controls are matched on, and that an answer says when nothing was read."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.checkpoint import Fingerprint
from interp.io.items import ItemStore
from interp.oracle import (
    Decoding,
    Features,
    OffDistributionWarning,
    Oracle,
    OracleSpec,
    inject,
)
from interp.oracle.controls import FewDonorsWarning, variants
from interp.oracle.engine import answer_logp
from interp.oracle.prompt import render_question
from interp.prompt import Example, Message, render
from tests.oracle_kit import SPEC, collected, made_features, pair_with_oracle


@pytest.fixture(scope="module")
def model():
    return pair_with_oracle()


@pytest.fixture(scope="module")
def oracle(model):
    return Oracle(model, spec=SPEC)


@pytest.fixture(scope="module")
def read(model):
    return collected(model)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDonorsWarning)
        yield


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
    with pytest.raises(ValueError, match="'yes' is a prefix of 'yes no'.*end_of_turn=True"):
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
    with pytest.raises(ValueError, match="hook_layer: expected 0-2.*got 7"):
        Oracle(model, spec=replace(SPEC, hook_layer=7))
    with pytest.raises(ValueError, match="expected d_model 32 of the oracle's base .*, got 16"):
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
