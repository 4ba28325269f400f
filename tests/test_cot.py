"""Chains of thought: masks that stay causal, audits that name their reason, loader refusals, the eight classes."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from interp.prompt import Example, Message
from interp.tasks import cot
from interp.tasks.conformance import check_task
from interp.tasks.cot import Item, chains
from interp.tasks.cot.importance import check_mask, masked_logp, sentence_importance, suppression_mask
from study.cli import main
from tests.tiny import tiny

# --- suppression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_float_mask_leaks_the_future_and_suppresses_nothing_and_the_boolean_one_does_not(
    family: str, rng: torch.Generator
) -> None:
    model = tiny(family)
    ids = torch.randint(3, 128, (12,), generator=rng)
    other = ids.clone()
    other[-1] = (ids[-1] + 1) % 128
    mask = suppression_mask(12, (3, 6))

    def first(tokens: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return model(input_ids=tokens[None], attention_mask=given[None, None], use_cache=False).logits[0, 0]

    assert (
        first(ids, mask.float()) - first(other, mask.float())
    ).abs().max() > 1e-3  # the last token reached the first
    assert torch.equal(first(ids, mask), first(other, mask))
    with pytest.raises(ValueError, match=r"expected booleans, got torch\.float32"):
        check_mask(mask.float())  # under pytest the typed signature of masked_logp refuses it too


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_no_attention_implementation_lets_a_masked_pass_see_the_future(attn: str, rng: torch.Generator) -> None:
    model = tiny("qwen2", attn=attn)
    ids = torch.randint(3, 128, (12,), generator=rng)
    other = ids.clone()
    other[-1] = (ids[-1] + 1) % 128
    mask = suppression_mask(12, (3, 6))
    assert (masked_logp(model, ids, mask)[:-1] - masked_logp(model, other, mask)[:-1]).abs().max() < 1e-6
    twin = tiny("qwen2", attn="sdpa")
    assert (masked_logp(model, ids, mask) - masked_logp(twin, ids, mask)).abs().max() < 1e-4
    given = model(input_ids=ids[None], attention_mask=mask[None, None], use_cache=False).logits[0, 0]
    leaks = (given - model(input_ids=other[None], attention_mask=mask[None, None], use_cache=False).logits[0, 0]).abs()
    assert (leaks.max() > 1e-3) == (attn == "eager")  # eager attention adds even booleans to the scores
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="expected sdpa or eager"):
        masked_logp(model, ids, mask)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_suppression_equals_an_attention_that_never_had_the_tokens_and_leaves_what_came_before(
    family: str, rng: torch.Generator
) -> None:
    model = tiny(family, num_hidden_layers=1)
    ids = torch.randint(3, 128, (10,), generator=rng)
    causal = torch.ones(10, 10, dtype=torch.bool).tril()
    plain = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    assert (masked_logp(model, ids, causal) - plain).abs().max() < 1e-5
    out = masked_logp(model, ids, suppression_mask(10, (3, 6)))
    assert (out[:6] - plain[:6]).abs().max() < 1e-5
    changed = ids.clone()
    changed[3:6] = (ids[3:6] + 5) % 125 + 3
    assert (masked_logp(model, changed, suppression_mask(10, (3, 6)))[6:] - out[6:]).abs().max() < 1e-5
    assert (out[6:] - plain[6:]).abs().max() > 1e-3


def test_importance_is_not_negative_and_zero_where_attention_ignores_the_sentence(rng: torch.Generator) -> None:
    model = tiny("qwen2")
    ids = torch.randint(3, 128, (14,), generator=rng)
    assert sentence_importance(model, ids, (2, 5)) > 1e-4
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    assert sentence_importance(model, ids, (2, 5)) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="tokens after it"):
        sentence_importance(model, ids, (10, 14))


def test_masks_that_are_not_causal_or_blind_are_refused() -> None:
    check_mask(suppression_mask(6, (1, 3)))
    with pytest.raises(ValueError, match="later one"):
        check_mask(torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="attend to itself"):
        check_mask(torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[3, 3\)"):
        suppression_mask(6, (3, 3))


# --- statistics -----------------------------------------------------------------------------------------------------


def test_answer_kl_is_worked_by_hand_zero_for_equal_and_bounded_for_disjoint_answers() -> None:
    assert cot.answer_kl(["4"] * 5, ["4"] * 5) == pytest.approx(0.0, abs=1e-15)
    p, q = (1 + 1) / 4, (2 + 1) / 4
    want = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert cot.answer_kl(["a", "b"], ["a", "a"]) == pytest.approx(want)
    assert 0 < cot.answer_kl(["a"] * 100, ["b"] * 100) < 6
    sharp = cot.answer_kl(["a"] * 100, ["b"] * 100, pseudocount=0.01)
    assert sharp > cot.answer_kl(["a"] * 100, ["b"] * 100)
    with pytest.raises(ValueError, match="rollouts"):
        cot.answer_kl([], ["a"])


def test_tiers_never_give_a_problem_one_class_and_cover_every_probability() -> None:
    for n in range(2, 12):
        tiers = cot.percentile_tiers([0.2] * n)
        assert set(tiers) == {"anchor", "other"}
    assert cot.percentile_tiers([0.1, 0.9, 0.5, 0.2], top=0.5) == ["other", "anchor", "anchor", "other"]
    assert [cot.answer_tier(p) for p in (1.0, 0.5, 0.49, 0.1, 0.05, 0.0)] == [
        "leads", "leads", "in play", "in play", "low", "absent",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="probability"):
        cot.answer_tier(1.5)


def test_rollouts_that_differ_stand_out_from_deals_of_the_same_rollouts_and_equal_ones_do_not() -> None:
    found = cot.rollout_importance(["a"] * 18 + ["b"] * 2, ["b"] * 18 + ["a"] * 2, "a", seed=0)
    assert found.kl == pytest.approx(cot.answer_kl(["a"] * 18 + ["b"] * 2, ["b"] * 18 + ["a"] * 2))
    assert found.lo <= found.kl <= found.hi
    assert found.kl > 10 * found.null_mean
    assert found.p < 0.01
    assert (found.right_without, found.right_kept, found.n_kept) == (0.9, 0.1, 20)
    rng = random.Random(1)
    p = [cot.rollout_importance(*([rng.choice("ab") for _ in range(20)] for _ in range(2)), "a", seed=k).p
         for k in range(40)]  # fmt: skip
    assert sum(x < 0.1 for x in p) <= 9  # 4 expected; above 9 one time in a hundred
    with pytest.raises(ValueError, match="got 1 and 2"):
        cot.rollout_importance(["a"], ["a", "b"], "a", seed=0)


def test_a_sentence_says_something_else_where_few_words_are_shared() -> None:
    assert not cot.says_something_else("Then we add 3 apples.", "then, we add 3 apples")
    assert cot.says_something_else("So the train is late.", "Then we add 3 apples.")
    assert cot.says_something_else("", "Then we add 3 apples.")


# --- audits ---------------------------------------------------------------------------------------------------------


def healthy(n: int = 240) -> list[Item]:
    rng = random.Random(0)
    classes = ("anchor", "other")
    return [
        Item(f"p{k // 6}", f"context {k}", rng.choice(classes), task=rng.choice(("importance", "taxonomy")),
             split="train" if k // 6 < 30 else "eval", boundary=f"Then {k} follows.")
        for k in range(n)
    ]  # fmt: skip


def failed(items: list[Item]) -> dict[str, cot.Finding]:
    return {f.name.rpartition("/")[2]: f for f in cot.audit(items) if f.status == "fail"}


def test_a_healthy_set_passes_every_audit() -> None:
    assert failed(healthy()) == {}


def test_the_all_identical_summary_corpus_fails_with_the_reason_in_one_line(tmp_path: Path) -> None:
    same = "The model works through the problem step by step and reaches an answer."
    rows = [{"problem": f"p{k}", "context": f"c{k}", "label": same, "task": "summary"} for k in range(200)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = CliRunner().invoke(main, ["audit", str(tmp_path / "labels.jsonl")])
    assert done.exit_code == 1
    line = next(x for x in done.output.splitlines() if "constant" in x)
    assert line.startswith("FAIL")
    assert "200 of 200 labels are 'The model works" in line
    assert "scores 100.0%" in line
    found = cot.audit(cot.read_items(tmp_path / "labels.jsonl"))
    assert {"constant", "entropy", "distinct"} <= {f.name for f in found if f.status == "fail"}


def spoiled(kind: str) -> list[Item]:
    items = healthy()
    if kind == "fallback":
        return [replace(i, status="timeout") if k % 20 == 0 else i for k, i in enumerate(items)]
    if kind == "skewed per problem":
        return [replace(i, label="anchor" if int(i.problem[1:]) % 2 else "other") for i in items]
    if kind == "unreachable by exact match":
        return [replace(i, label=f"the 4 with {k / 1000:.3f}") for k, i in enumerate(items)]
    if kind == "unseen answers":
        return [replace(i, label="thought_anchor") if i.split == "eval" else i for i in items]
    if kind == "leakage":
        return [replace(i, split="eval" if k % 2 else "train") for k, i in enumerate(items)]
    if kind == "unshuffled":
        return sorted(items, key=lambda i: i.task)
    if kind == "windows":  # one task leaves the file for its last fifth, elsewhere all is mixed
        return [replace(i, task="taxonomy") if k >= 192 else i for k, i in enumerate(items)]
    if kind == "repeats":
        return [i for i in items for _ in range(14)]
    if kind == "boundary drift":
        return [replace(i, boundary="Then 7 fol") if k % 10 == 0 else i for k, i in enumerate(items)]
    return [replace(i, label="other" if k % 10 else "anchor") for k, i in enumerate(items)]


@pytest.mark.parametrize(
    "kind",
    ["constant", "fallback", "skewed per problem", "unreachable by exact match", "unseen answers", "leakage",
     "unshuffled", "windows", "repeats", "boundary drift"],
)  # fmt: skip
def test_each_fault_is_found_by_its_own_audit(kind: str) -> None:
    found = failed(spoiled(kind))
    assert kind in found, found
    finding = found[kind]
    assert finding.explanation.strip()
    assert "\n" not in str(finding)
    assert finding.number != finding.threshold


def test_labels_that_cannot_be_read_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"label": "a", "context": "c"}\n{"label": "a"}\n')
    done = CliRunner().invoke(main, ["audit", str(path)])
    assert done.exit_code == 1
    assert "line 2" in done.output
    assert "'context'" in done.output
    path.write_text('{"label": "a", "context": "c", "status": "ok", "problem": 3}\n')
    assert cot.read_items(path) == [Item("3", "c", "a")]
    path.write_text('{"label": null, "context": "c", "status": "timeout"}\n')
    assert failed(cot.read_items(path))["fallback"].number == 1.0  # counted, not dropped


# --- corpus ---------------------------------------------------------------------------------------------------------


def test_sentences_of_a_chain_are_ranges_whose_index_is_their_id(tmp_path: Path) -> None:
    chain = "First, e.g. 2.5 apples. Then we add 3.\n\n1. Check it.\nSo the answer is 5.5."
    rows = [
        {"question": "How many?", "cot": chain, "answer": 5.5},
        {"question": "How many?", "cot": "One.", "answer": "1"},
    ]
    path = tmp_path / "cot.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    first, second = cot.chain_examples(path)
    said = [first.answer[a:b] for a, b in first.metadata["sentences"]]
    assert said == ["First, e.g. 2.5 apples.", "Then we add 3.", "1. Check it.", "So the answer is 5.5."]
    assert (first.label, first.metadata["n_sentences"]) == ("5.5", 4)
    assert first.groups["problem"] == second.groups["problem"]
    assert len(cot.examples(path, limit=1)) == 1
    assert [e.answer for e in cot.examples(path)] == [None, None]  # a model that is evaluated sees the question alone
    assert [(e.id, e.label, e.groups) for e in cot.examples(path)] == [
        (e.id, e.label, e.groups) for e in (first, second)
    ]
    spoiled_rows = (
        ({"cot": " "}, "'cot'"), ({"answer": None}, "'answer'"), ({"question": 3}, "'question'"),
        ({"cot": "---"}, "sentence with letters"), ({"id": "0"}, "was used"),
        ({"sentences": [[0, 4], [3, 4]]}, "in order"), ({"sentences": [[0, 9]]}, "4 long"),
    )  # fmt: skip
    for spoil, words in spoiled_rows:
        path.write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], **spoil}) + "\n")
        with pytest.raises(ValueError, match="cot.jsonl, line 2") as error:
            cot.examples(path)
        assert words in str(error.value)


def test_classes_are_read_in_both_spellings_and_the_longest_wins() -> None:
    for name in cot.CLASSES:
        assert cot.class_of(name) == cot.class_of(cot.OTHER_SPELLING[name]) == name
    assert len(set(cot.OTHER_SPELLING.values())) == len(cot.CLASSES) == 8
    assert cot.class_of("Active computation. The model computes.") == "active_computation"
    assert cot.class_of("FINAL-ANSWER emission") == "final_answer"
    assert cot.class_of("unknown") is None
    assert cot.class_of("") is None


REPLIES = {
    "So 2 + 2 = 4 and thus \\boxed{4}.": ("4", "boxed"),
    "first \\boxed{3}, no: \\boxed{\\frac{1}{2}}": ("\\frac{1}{2}", "boxed"),
    "steps\n#### 1,000": ("1,000", "hashes"),
    "The answer is **12**.": ("12", "said"),
    "Answer: 5.5\nbecause": ("5.5", "said"),
    "the answer is 3.\nWait. The final answer is 4.": ("4", "said"),
    "<think>the answer is 7</think>\nThe answer is 8.": ("8", "said"),
    "<think>the answer is 7": (None, "truncated"),
    "Paris": ("Paris", "whole"),
    "one\ntwo": (None, "unparsed"),
    "": (None, "unparsed"),
}


@pytest.mark.parametrize("text", REPLIES)
def test_the_last_answer_after_the_thoughts_is_read_by_its_rule(text: str) -> None:
    example = Example("x", (Message("user", "?"),), "4")
    assert cot.read(example, text) == REPLIES[text]
    assert cot.parse(text) == REPLIES[text][0]


def test_answers_are_equal_as_numbers_or_as_words() -> None:
    for a, b in (("5.50", "11/2"), ("1,000", "1000"), ("$4$", "4"), ("**Paris**.", "paris"), ("-3", "-3.0")):
        assert cot.same_answer(a, b), (a, b)
    for a, b in (("4", "14"), ("4 apples", "4"), ("1/0", "1"), ("Paris", "London")):
        assert not cot.same_answer(a, b), (a, b)


def test_the_task_conforms(tmp_path: Path) -> None:
    path = tmp_path / "cot.jsonl"
    rows = [{"question": f"{k} + 1?", "cot": f"{k} + 1 = {k + 1}. Done.", "answer": k + 1} for k in range(9)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    for task in (cot, chains):
        assert [f for f in check_task(task, task.examples(path)) if not f.ok] == []
