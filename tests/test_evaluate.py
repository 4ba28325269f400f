"""The evaluator: answers equal one-by-one decoding, label probabilities a plain loop's; a killed run loses nothing."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from interp.evaluate.labels import label_log_probabilities
from interp.evaluate.run import Decoding, _places_of_labels, _until_label, evaluate, plan_batches
from interp.io.items import read_plan
from interp.model import Model
from interp.prompt import Example, Message, render
from interp.tasks.conformance import check_task
from study.analyses.eval.store import answers_frame, answers_store, batches_of, put_batch, read_answers
from tests.eval_kit import LABELS, TASK, frame, items, read
from tests.tiny import add_lora, tiny, tiny_tokenizer


@pytest.fixture(scope="module", params=["qwen2", "qwen3_5"])
def model(request: pytest.FixtureRequest) -> Model:
    module = tiny(request.param, vocab_size=len(tiny_tokenizer()))
    return Model.wrap(add_lora(module), tiny_tokenizer())


def test_batched_answers_equal_decoding_one_by_one(model: Model) -> None:
    examples = items()
    decoding = Decoding(tokens_per_batch=150, score_labels=False)
    answers = {a.example_id: a for _, batch in evaluate(model, TASK, examples, decoding=decoding) for a in batch}
    for example in examples:
        ids = list(render(example, model.tokenizer).ids)
        n_prompt = len(ids)
        for _ in range(12):  # greedy, no cache, no padding
            ids.append(int(model.module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
        ended = ids[-1] == model.tokenizer.eos_token_id
        written = ids[n_prompt : -1 if ended else None]
        assert answers[example.id].text == model.tokenizer.decode(written)
        assert (answers[example.id].n_new_tokens, answers[example.id].finished) == (len(written), ended)


def test_label_probabilities_equal_a_plain_loop(model: Model) -> None:
    example = items(1)[0]
    cases = [(example, "", label) for label in LABELS] + [(example, "the dog .", "quite unsure")]
    for (_, before, label), (logp, n) in zip(cases, label_log_probabilities(model, cases), strict=True):
        context = replace(example, answer=before) if before else example
        prefix = list(render(context, model.tokenizer).ids)
        text = f"{before} {label}" if before else label
        whole = list(render(replace(example, answer=text), model.tokenizer).ids)
        assert whole[: len(prefix)] == prefix
        total = 0.0
        for j in range(len(prefix), len(whole)):
            total += float(model.module(torch.tensor([whole[:j]])).logits[0, -1].log_softmax(-1)[whole[j]])
        assert n == len(whole) - len(prefix) >= (2 if label == "quite unsure" else 1)
        assert logp == pytest.approx(total, abs=1e-4)


def test_scoring_labels_only_answers_with_the_likeliest(model: Model) -> None:
    examples = items(5)
    decoding = Decoding(generate=False)
    for _, batch in evaluate(model, TASK, examples, decoding=decoding):
        for answer in batch:
            assert answer.text is None
            assert sum(answer.p.values()) == pytest.approx(1.0)
            assert answer.label == max(answer.p, key=lambda label: answer.p[label])
            gold = next(e.label for e in examples if e.id == answer.example_id)
            assert answer.scores["correct"] == float(answer.label == gold)


def test_samples_are_drawn_from_the_seed_and_the_batch_alone(model: Model) -> None:
    decoding = Decoding(temperature=1.0, n_samples=3, seed=4, score_labels=False, tokens_per_batch=150)
    whole = dict(evaluate(model, TASK, items(), decoding=decoding))
    torch.manual_seed(99)
    rest = dict(evaluate(model, TASK, items(), decoding=decoding, done=frozenset([0])))
    assert sorted(rest) == sorted(whole)[1:]
    assert all(rest[number] == whole[number] for number in rest)
    texts = [a.text for batch in whole.values() for a in batch]
    assert len(texts) == 27
    assert len(set(texts)) > 9
    other = dict(evaluate(model, TASK, items(), decoding=replace(decoding, seed=5)))
    assert other != whole


@pytest.mark.parametrize("decoding", [Decoding(score_labels=False), Decoding(score_labels=False, temperature=1.0)])
def test_the_checkpoints_generation_config_does_not_reach_the_answers(model: Model, decoding: Decoding) -> None:
    calm = dict(evaluate(model, TASK, items(6), decoding=decoding))
    held = model.causal_lm.generation_config
    poison = {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "top_k": 1, "top_p": 0.01, "temperature": 0.01}
    poison |= {"min_new_tokens": 11, "suppress_tokens": list(range(3, 40)), "num_beams": 3, "do_sample": True}
    poisoned = type(held)(**poison, eos_token_id=held.eos_token_id)
    model.causal_lm.generation_config = poisoned
    try:
        assert dict(evaluate(model, TASK, items(6), decoding=decoding)) == calm
        assert model.causal_lm.generation_config is poisoned  # put back
    finally:
        model.causal_lm.generation_config = held


def test_left_padded_prompts_count_their_positions_from_their_first_token(model: Model) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(module, args, kwargs):
        seen.append((kwargs["attention_mask"], kwargs["position_ids"]))

    with model.decoder.register_forward_pre_hook(keep, with_kwargs=True):
        list(evaluate(model, TASK, items(4), decoding=Decoding(score_labels=False, max_new_tokens=3)))
    mask, positions = seen[0]
    assert mask.min() == 0  # some are padded
    for row, at in zip(mask, positions.expand(len(mask), -1), strict=True):
        assert at[row.bool()].tolist() == list(range(int(row.sum())))
    assert [int(at[0, -1]) for _, at in seen[1:]] == [int(mask[0].sum()) + k for k in range(len(seen) - 1)]


def test_a_batch_that_does_not_fit_is_halved(model: Model) -> None:
    calm = dict(evaluate(model, TASK, items(6), decoding=Decoding(score_labels=False)))

    def small(module, args, kwargs):
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError

    with model.decoder.register_forward_pre_hook(small, with_kwargs=True):
        tight = dict(evaluate(model, TASK, items(6), decoding=Decoding(score_labels=False)))
    assert [a.text for a in tight[0]] == [a.text for a in calm[0]]


def test_the_tensors_of_a_batch_that_did_not_fit_are_freed_before_its_halves_run(model: Model) -> None:
    class Held:
        """Stands for the keys and values of the batch, which live in a frame of the failed call."""

    failed: list[weakref.ref[Held]] = []
    alive: list[bool] = []

    def small(module, args, kwargs):
        alive.extend(one() is not None for one in failed)
        if kwargs["input_ids"].shape[0] > 2:
            held = Held()
            failed.append(weakref.ref(held))
            raise torch.OutOfMemoryError

    with model.decoder.register_forward_pre_hook(small, with_kwargs=True):
        list(evaluate(model, TASK, items(6), decoding=Decoding(score_labels=False, max_new_tokens=2)))
    assert len(failed) >= 2
    assert len(alive) > 2
    assert not any(alive)


def test_only_long_prompts_cut_their_own_replies_and_are_named(model: Model) -> None:
    task = SimpleNamespace(**{**vars(TASK), "MAX_NEW_TOKENS": 300})
    long = replace(items(1)[0], id="long", messages=(Message("user", "the dog " * 110),))
    examples = [*items(5), long]
    with pytest.warns(UserWarning, match="1 of 6 items leave less room.*300.*'long'"):
        plan = plan_batches(model, task, examples, Decoding())
    assert plan.batches[0] == (5,)
    assert plan.new_tokens[0] == 512 - len(plan.prompts[5].ids) < 300
    assert set(plan.new_tokens[1:]) == {300}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(plan_batches(model, task, items(5), Decoding()).new_tokens) == {300}
    with pytest.raises(ValueError, match="e[01]"):
        plan_batches(model, task, items(3), Decoding(max_new_tokens=500))


def test_every_sample_counts_in_the_budget_of_a_batch(model: Model) -> None:
    one = plan_batches(model, TASK, items(), Decoding(tokens_per_batch=150, temperature=1.0))
    three = plan_batches(model, TASK, items(), Decoding(tokens_per_batch=450, temperature=1.0, n_samples=3))
    assert one.batches == three.batches
    assert len(one.batches) > 1


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"max_new_tokens": -5}, {"n_samples": 0}, {"tokens_per_batch": 0},
              {"temperature": -1.0}, {"temperature": float("nan")}]
)  # fmt: skip
def test_counts_below_one_and_impossible_temperatures_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Decoding(**wrong)


def test_two_examples_of_one_id_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="1 repeated, first 'e1'"):
        plan_batches(model, TASK, [*items(3), items(2)[1]], Decoding())


def test_halves_of_a_batch_do_not_repeat_each_others_draws(model: Model) -> None:
    same = [replace(items(1)[0], id=f"s{i}") for i in range(4)]  # one prompt, so equal draws give equal replies

    def small(module, args, kwargs):
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError

    with model.decoder.register_forward_pre_hook(small, with_kwargs=True):
        ((_, answers),) = evaluate(model, TASK, same, decoding=Decoding(temperature=1.0, score_labels=False))
    assert [a.text for a in answers[:2]] != [a.text for a in answers[2:]]


# --- where labels are read -----------------------------------------------------------------------------------------


def test_labels_are_read_after_the_answer_that_the_example_begins_with(model: Model) -> None:
    begun, plain = replace(items(1)[0], answer="the dog ."), items(1)[0]
    read = label_log_probabilities(model, [(begun, " step one", "compliant"), (begun, "", "compliant")])
    assert read == label_log_probabilities(model, [(plain, "the dog . step one", "compliant"),
                                                   (plain, "the dog .", "compliant")])  # fmt: skip


def test_a_reply_without_a_decision_point_has_no_label_probabilities(model: Model) -> None:
    asked = {
        "task": SimpleNamespace(**vars(TASK), decision_prefix=lambda t: t[: t.rfind("=>") + 2] if "=>" in t else "")
    }
    example = items(1)[0]
    assert _places_of_labels(asked["task"], example, "one two") == []
    assert _places_of_labels(asked["task"], example, "noncompliant") == [("", label) for label in LABELS]
    assert _places_of_labels(asked["task"], example, "one => compliant") == [("one =>", label) for label in LABELS]
    assert _places_of_labels(TASK, example, "one two") == [("", label) for label in LABELS]  # it does not say where
    for _, batch in evaluate(model, asked["task"], items(3)):
        assert all(not answer.p and not answer.logp for answer in batch)


def test_one_token_spellings_too_follow_the_answer_that_the_example_begins_with(model: Model) -> None:
    begun, plain = replace(items(1)[0], answer="the dog ."), items(1)[0]
    prompts = [render(e, model.tokenizer) for e in (begun, plain)]
    assert _until_label(model, begun, prompts[0], "", None) is prompts[0]
    found = _until_label(model, begun, prompts[0], " step one", None)
    assert found.ids == _until_label(model, plain, prompts[1], "the dog . step one", None).ids
    assert found.ids[: len(prompts[0].ids)] == prompts[0].ids
    with pytest.raises(ValueError, match="'e0'.*512"):
        _until_label(model, plain, prompts[1], "the dog " * 300, None)


def test_a_label_beyond_the_context_is_refused_by_the_examples_id(model: Model) -> None:
    with pytest.raises(ValueError, match="'e0'.*512"):
        label_log_probabilities(model, [(items(1)[0], "the dog " * 300, "compliant")])


def test_the_thinking_switch_reaches_the_changed_replies(model: Model, tmp_path: Path, monkeypatch) -> None:
    from study.analyses.eval import faithfulness

    seen = []

    def scored(model, cases, *, thinking=None):
        seen.append(thinking)
        return [(-1.0, 1) for _ in cases]

    monkeypatch.setattr(faithfulness, "label_log_probabilities", scored)
    task = SimpleNamespace(**vars(TASK), counterfactuals=lambda e, t: [("kind", "changed", "compliant")])
    with answers_store(tmp_path, {}) as store:
        faithfulness.counterfactual_answers(model, task, items(9), frame("m", [1] * 9), store, thinking=False)
    assert set(seen) == {False}


def test_changed_replies_are_read_as_one_by_one_and_the_label_before_is_that_of_the_answers(
    model: Model, tmp_path: Path
) -> None:
    from study.analyses.eval import faithfulness

    task = SimpleNamespace(
        **vars(TASK),
        decision_prefix=lambda text: text[:9],
        counterfactuals=lambda e, t: [("kind", f"{t[:9]} {e.id} dog", "compliant")],
    )
    examples = items(9)
    written = frame("m", [1] * 9).assign(text="the quick brown fox")

    def readings(answers, folder: str) -> list[dict]:
        with answers_store(tmp_path / folder, {}) as store:
            faithfulness.counterfactual_answers(model, task, examples, answers, store)
        return faithfulness.read_counterfactuals(tmp_path / folder)

    found = readings(written, "unscored")
    for reading, example in zip(found, examples, strict=True):
        for name, text in (("before", "the quick"), ("after", f"the quick {example.id} dog")):
            cases = [(example, text, label) for label in LABELS]
            per_token = [logp / n for logp, n in label_log_probabilities(model, cases)]
            assert reading[name] == LABELS[per_token.index(max(per_token))]
    scored = written.assign(**{f"p.{LABELS[0]}": 0.25, f"p.{LABELS[1]}": 0.75})
    assert readings(scored, "scored") == [{**reading, "before": LABELS[1]} for reading in found]


# --- the folder ----------------------------------------------------------------------------------------------------


def test_an_interrupted_evaluation_gives_the_same_answers(model: Model, tmp_path: Path) -> None:
    decoding = Decoding(tokens_per_batch=150)
    with answers_store(tmp_path, {"task": "t"}) as store:
        for number, batch in evaluate(model, TASK, items(), decoding=decoding):
            put_batch(store, number, batch)
            if number == 1:
                break
    with answers_store(tmp_path, {"task": "t"}) as again:
        assert batches_of(again) == {0, 1}
        for number, batch in evaluate(model, TASK, items(), decoding=decoding, done=batches_of(again)):
            put_batch(again, number, batch)
    calm = [a for _, batch in evaluate(model, TASK, items(), decoding=decoding) for a in batch]
    kept = {a["example_id"]: (a["text"], a["label"]) for a in read_answers(tmp_path)}
    assert kept == {a.example_id: (a.text, a.label) for a in calm}


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    with answers_store(tmp_path, {"task": "t", "weights": "a"}) as store:
        put_batch(store, 0, [])
    with (
        pytest.raises(ValueError, match=r"another evaluation \(weights: 'a' != 'b'\)"),
        answers_store(tmp_path, {"task": "t", "weights": "b"}),
    ):
        pass


def test_metadata_of_the_user_never_overwrites_an_answer() -> None:
    mine = {
        "label": "mine",
        "text": "mine",
        "score.correct": 7,
        "sample": 9,
        "gold": "mine",
        "note": "kept",
        "cell": "c",
    }
    example = replace(items(1)[0], metadata=mine)
    answer = {"example_id": "e0", "sample": 0, "text": "said", "label": "noncompliant", "scores": {"correct": 0.0},
              "p": {}, "n_prompt_tokens": 1, "n_new_tokens": 1, "finished": True}  # fmt: skip
    (row,) = answers_frame([answer], [example], "m").to_dict("records")
    said = {k: row[k] for k in ("label", "text", "score.correct", "sample", "gold", "cell", "note")}
    assert said == {"label": "noncompliant", "text": "said", "score.correct": 0.0, "sample": 0, "gold": "compliant",
                    "cell": "c", "note": "kept"}  # fmt: skip
    assert (row["meta.label"], row["meta.text"], row["meta.score.correct"], row["meta.sample"]) == (
        "mine",
        "mine",
        7,
        9,
    )


def test_stored_replies_are_read_by_the_task_as_it_is_now() -> None:
    example = items(1)[0]
    stored = {"example_id": "e0", "sample": 0, "text": "noncompliant", "label": "stale",
              "scores": {"correct": 1.0, "old": 1.0}, "p": {},
              "n_prompt_tokens": 1, "n_new_tokens": 1, "finished": True}  # fmt: skip
    only_labels = {**stored, "text": None, "p": {"compliant": 0.9, "noncompliant": 0.1}}
    for answer, label, correct in ((stored, "noncompliant", 0.0), (only_labels, "compliant", 1.0)):
        (row,) = answers_frame([answer], [example], "m", task=TASK).to_dict("records")
        assert (row["label"], row["score.correct"]) == (label, correct)
        assert "score.old" not in row


def test_a_stored_reply_is_read_after_what_the_prompt_had_opened() -> None:
    def rule(example: Example, text: str) -> tuple[str | None, str]:
        return (None, "truncated") if text.startswith("<think>") else (read(text), "word")

    task = SimpleNamespace(**vars(TASK), read=rule, BANNER="Mind the gap.")
    stored = {"example_id": "e0", "sample": 0, "text": "compliant", "label": "stale", "scores": {}, "p": {},
              "n_prompt_tokens": 1, "n_new_tokens": 1, "finished": True, "rule": "stale"}  # fmt: skip
    for answer, label, found in ((stored, "compliant", "word"), ({**stored, "opened": "<think>\n"}, None, "truncated")):
        (row,) = answers_frame([answer], items(1), "m", task=task).to_dict("records")
        assert (row["label"], row["rule"], row["banner"]) == (label, found, "Mind the gap.")
    only_labels = {**stored, "text": None, "p": {"compliant": 0.9, "noncompliant": 0.1}}
    (row,) = answers_frame([only_labels], items(1), "m", task=task).to_dict("records")
    assert (row["label"], row["rule"]) == ("compliant", "labels")


def test_provenance_is_kept_and_not_compared(tmp_path: Path) -> None:
    with answers_store(tmp_path, {"task": "t"}, notes={"seed": 1}):
        pass
    with answers_store(tmp_path, {"task": "t"}, notes={"seed": 2}):
        held = read_plan(tmp_path / "plan.json")
    assert (held["identity"], held["notes"]) == ({"task": "t"}, {"seed": 1})


# --- conformance ---------------------------------------------------------------------------------------------------


def faults(task, examples) -> list[str]:
    return [finding.expected for finding in check_task(task, examples) if not finding.ok]


def test_a_good_task_conforms_and_each_fault_is_found_by_name() -> None:
    from interp.tasks import procedural

    assert faults(procedural, procedural.examples(per_cell=2, seed=1)) == []
    good = SimpleNamespace(**{**vars(TASK), "parse": procedural.parse,
                              "score": lambda e, t: {"correct": float(procedural.parse(t) == e.label)}})  # fmt: skip
    assert faults(good, items()) == []
    suffix = SimpleNamespace(**{**vars(good), "parse": lambda t: "compliant" if "compliant" in t else None})
    assert "a gold label parses to itself and scores correct" in faults(suffix, items())
    ungrouped = [replace(e, groups={}) for e in items()]
    assert faults(good, ungrouped) == ["every example has at least one group"]
    generous = SimpleNamespace(**{**vars(good), "score": lambda e, t: {"correct": 1.0}})
    assert "any reply, even an empty one, gets a score, and an unparsed one is wrong" in faults(generous, items())
    assert faults(SimpleNamespace(examples=None), items()) == ["functions examples, parse and score"]
