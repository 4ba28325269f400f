"""The evaluator: answers equal one-by-one decoding, label probabilities a plain loop's; a killed run loses nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from interp.evaluate import Decoding, evaluate, plan_batches
from interp.label_scores import label_log_probabilities
from interp.model import Model
from interp.prompt import Example, Message, render
from interp.tasks.conformance import check_task
from study.evals.store import EvalFolder, answers_frame
from study.evals.tables import member_table, pair_table
from tests.tiny import add_lora, tiny, tiny_tokenizer

LABELS = ("compliant", "noncompliant")


def read(text: str) -> str | None:
    found = [label for label in ("noncompliant", "compliant") if label in text]
    return found[0] if found else None


TASK = SimpleNamespace(
    examples=lambda data: [],
    parse=read,
    score=lambda example, text: {"correct": float(read(text) == example.label)},
    labels=lambda example: LABELS,
    MAX_NEW_TOKENS=12,
)


def items(n: int = 9) -> list[Example]:
    words = ["is this compliant ?", "the quick brown fox jumps over the lazy dog", "step one", "yes no"]
    return [
        Example(id=f"e{i}", messages=(Message("user", f"{words[i % 4]} {i}"),), label=LABELS[i % 2],
                groups={"procedure": f"p{i // 2}"}, metadata={"cell": f"c{i % 3}"})
        for i in range(n)
    ]  # fmt: skip


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


def test_a_batch_that_does_not_fit_is_halved(model: Model) -> None:
    calm = dict(evaluate(model, TASK, items(6), decoding=Decoding(score_labels=False)))

    def small(module, args, kwargs):
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError

    with model.decoder.register_forward_pre_hook(small, with_kwargs=True):
        tight = dict(evaluate(model, TASK, items(6), decoding=Decoding(score_labels=False)))
    assert [a.text for a in tight[0]] == [a.text for a in calm[0]]


def test_the_reply_may_fill_the_context_but_not_overflow_it(model: Model) -> None:
    task = SimpleNamespace(**{**vars(TASK), "MAX_NEW_TOKENS": 10_000})
    plan = plan_batches(model, task, items(3), Decoding())
    assert plan.new_tokens == 512 - max(len(p.ids) for p in plan.prompts)
    with pytest.raises(ValueError, match="e[01]"):
        plan_batches(model, task, items(3), Decoding(max_new_tokens=500))


# --- the folder ----------------------------------------------------------------------------------------------------


def test_an_interrupted_evaluation_gives_the_same_answers(model: Model, tmp_path: Path) -> None:
    decoding = Decoding(tokens_per_batch=150)
    folder = EvalFolder(tmp_path, {"task": "t"})
    with folder.open():
        for number, batch in evaluate(model, TASK, items(), decoding=decoding):
            folder.put(number, batch)
            if number == 1:
                break
    again = EvalFolder(tmp_path, {"task": "t"})
    with again.open():
        assert again.done == {0, 1}
        for number, batch in evaluate(model, TASK, items(), decoding=decoding, done=again.done):
            again.put(number, batch)
    calm = [a for _, batch in evaluate(model, TASK, items(), decoding=decoding) for a in batch]
    kept = {a["example_id"]: (a["text"], a["label"]) for a in again.answers()}
    assert kept == {a.example_id: (a.text, a.label) for a in calm}


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    with EvalFolder(tmp_path, {"task": "t", "weights": "a"}).open():
        pass
    with pytest.raises(ValueError, match=r"another evaluation \(weights: 'a' != 'b'\)"):
        EvalFolder(tmp_path, {"task": "t", "weights": "b"}).open()


# --- tables --------------------------------------------------------------------------------------------------------


def frame(member: str, right: list[int]) -> pd.DataFrame:
    examples = items(len(right))
    answers = [
        {"example_id": e.id, "sample": 0, "text": "x", "label": str(e.label) if ok else None, "n_new_tokens": 3 + ok,
         "scores": {"correct": float(ok)}, "n_prompt_tokens": 9, "finished": True, "prompt_sha256": "",
         "p": {}, "logp": {}}
        for e, ok in zip(examples, right, strict=True)
    ]  # fmt: skip
    return answers_frame(answers, examples, member)


def test_accuracy_per_cell_has_wilsons_interval_and_its_control() -> None:
    rows = {(r["cell"], r["metric"]): r for r in member_table(frame("engaged", [1, 1, 1, 0, 1, 1, 1, 0, 1]))}
    whole = rows["all", "accuracy"]
    assert (whole["value"], whole["n"]) == (pytest.approx(7 / 9), 9)
    z, p, n = 1.959964, 7 / 9, 9
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    assert (whole["lo"], whole["hi"]) == (
        pytest.approx(centre - half, abs=1e-5),
        pytest.approx(centre + half, abs=1e-5),
    )
    assert whole["control"] == pytest.approx(5 / 9)  # always answering "compliant"
    assert rows["c0", "accuracy"]["value"] == pytest.approx(2 / 3)
    assert rows["all", "unparsed"]["value"] == pytest.approx(2 / 9)
    assert rows["all", "accuracy_clustered"]["n_groups"] == 5


def test_a_pair_is_compared_on_the_same_items_with_holm_over_cells() -> None:
    a, b = [1] * 24, [1, 0, 1] * 8
    rows = {r["cell"]: r for r in pair_table(frame("engaged", a), frame("heuristic", b))}
    assert rows["c1"]["diff"] == pytest.approx(1.0)
    assert (rows["c1"]["only_engaged"], rows["c1"]["only_heuristic"]) == (8, 0)
    assert rows["c1"]["p_mcnemar"] == pytest.approx(2 / 2**8)
    assert rows["c1"]["p_holm"] == pytest.approx(3 * 2 / 2**8)
    assert rows["c0"]["diff"] == 0
    with pytest.raises(ValueError, match="different items"):
        pair_table(frame("engaged", a), frame("heuristic", b[:-1]))


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
