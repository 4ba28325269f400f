"""Chains on a model: a lens that equals the model's own logits, rollouts without their prompts, importance, labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from interp.chains import continuations, resampling_importance, suppression_importance, track_answers
from interp.chains.importance import kept_text
from interp.chains.tracking import first_tokens
from interp.model import Model
from interp.prompt import render
from interp.tasks import cot
from interp.tasks.cot import chains, context_items
from interp.tasks.cot.importance import sentence_importance
from study.analyses.oracle.training import read_labels
from study.cli import main
from tests.tiny import tiny, tiny_tokenizer

ROWS = [
    {"id": "a", "question": "How many apples are left?", "answer": 5,
     "cot": "There are 8 apples. She eats 3 of them.\n\nSo 8 - 3 is 5. The answer is 5."},
    {"id": "b", "question": "Which city?", "answer": "Paris",
     "cot": "France is a country. Its capital is Paris. The answer is Paris."},
    {"id": "c", "question": "Yes or no, and why?", "answer": "no", "cot": "It cannot be. So no."},
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cot") / "cot.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def model_of(tokenizer, family: str = "qwen2", **kw) -> Model:
    return Model.wrap(tiny(family, vocab_size=len(tokenizer), **kw), tokenizer)


# --- answer tracking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "qwen3_5", "gemma2"])
def test_the_lens_at_the_last_block_is_the_models_own_next_token(corpus: Path, tokenizer, family: str) -> None:
    model, examples = model_of(tokenizer, family), chains.examples(corpus)
    rows = track_answers(model, examples, depth=(model.n_layers - 1) / model.n_layers + 1e-6)
    assert {row.layer for row in rows} == {model.n_layers - 1}
    by_id = {e.id: e for e in examples}
    assert [(r.example_id, r.sentence) for r in rows] == [(e.id, k) for e in examples
                                                          for k in range(e.metadata["n_sentences"])]  # fmt: skip
    for row in rows:
        example = by_id[row.example_id]
        prompt = render(example, tokenizer)
        logits = model(torch.tensor([prompt.ids])).logits[0, row.token].float()
        p = logits.softmax(-1)
        firsts = first_tokens(tokenizer, example)
        assert row.p_answer == pytest.approx(float(p[firsts].sum()), rel=1e-3)
        assert row.p_top == pytest.approx(float(p.max()), rel=1e-3)
        assert row.tier == cot.answer_tier(row.p_answer)
        assert prompt.text[: prompt.offsets[row.token][1]].rstrip().endswith((".", "."))
    assert all(row.p_control is not None and row.p_control != row.p_answer for row in rows)


def test_the_lens_reads_the_block_at_three_quarters_and_refuses_a_depth_outside(corpus: Path, tokenizer) -> None:
    model, examples = model_of(tokenizer, num_hidden_layers=4), chains.examples(corpus, limit=1)
    early, late = (track_answers(model, examples, depth=d) for d in (0.0, 0.75))
    assert (early[0].layer, late[0].layer) == (0, 3)
    assert early[0].p_answer != late[0].p_answer
    assert late[0].p_control is None  # one answer only
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        track_answers(model, examples, depth=1.0)


# --- rollouts -------------------------------------------------------------------------------------------------------


def test_rollouts_hold_no_token_of_their_prompt_whatever_its_length(corpus: Path, tokenizer) -> None:
    model, examples = model_of(tokenizer), chains.examples(corpus)
    marks = torch.tensor(tokenizer.encode("@"))
    hook = model.causal_lm.lm_head.register_forward_hook(  # whatever it reads, it writes "@"
        lambda m, i, out: torch.full_like(out, -1e4).index_fill(-1, marks, 1e4)
    )
    cuts = {e.id: range(e.metadata["n_sentences"] + 1) for e in examples}  # prompts of many lengths in one batch
    rolled = continuations(model, examples, cuts, n=3, max_new_tokens=4)
    hook.remove()
    assert set(rolled) == {(e.id, k) for e in examples for k in cuts[e.id]}
    assert {r.text for rollouts in rolled.values() for r in rollouts} == {"@@@@"}
    assert [len(rollouts) for rollouts in rolled.values()] == [3] * len(rolled)
    assert {r.answer for r in rolled["a", 4]} == {"5.@@@@"}  # the kept chain is read too
    assert kept_text(examples[0], 2) == "There are 8 apples. She eats 3 of them."
    assert kept_text(examples[0], 0) == ""


def test_rollouts_are_drawn_from_the_seed_and_bad_cuts_are_refused(corpus: Path, tokenizer) -> None:
    model, examples = model_of(tokenizer), chains.examples(corpus, limit=1)
    ask = {"n": 4, "temperature": 1.0, "max_new_tokens": 5}
    one, same, other = (continuations(model, examples, {"a": [1]}, seed=s, **ask) for s in (0, 0, 1))
    assert one == same != other
    assert len({r.text for r in one["a", 1]}) > 1
    with pytest.raises(ValueError, match="expected to keep 0-4 sentences, got 9"):
        continuations(model, examples, {"a": [9]}, n=2)
    with pytest.raises(ValueError, match="2 rollouts or more"):
        continuations(model, examples, {"a": [1]}, n=1)
    with pytest.raises(ValueError, match="carries no chain"):
        continuations(model, cot.examples(corpus, limit=1), {"a": [1]}, n=2)


def test_only_the_sentence_that_changes_the_answers_is_important(corpus: Path, tokenizer, monkeypatch) -> None:
    examples = chains.examples(corpus, limit=1)

    def rolled(model, examples, cuts, *, n, **kw):
        from interp.chains import Rollout

        said = {k: "5" if k >= 3 else f"{k % 1 + 7}" for k in cuts["a"]}  # the third sentence settles it
        return {("a", k): [Rollout("She eats 3 of them. x", said[k], True)] * n for k in cuts["a"]}

    monkeypatch.setattr("interp.chains.importance.continuations", rolled)
    model = model_of(tokenizer)
    rows = resampling_importance(model, examples, n=12)
    assert [row.found.p < 0.05 for row in rows] == [False, False, True, False]
    assert [row.found.kl > 0.5 for row in rows] == [False, False, True, False]
    assert (rows[2].found.right_without, rows[2].found.right_kept) == (0.0, 1.0)
    changed = resampling_importance(model, examples, n=12, counterfactual=True)
    assert changed[1].found is None  # its rollouts say the sentence again
    assert changed[1].status == "0 of 12 rollouts give a different answer"
    assert changed[2].found == rows[2].found


# --- suppression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_every_sentence_with_tokens_after_it_has_its_importance_and_a_control(corpus: Path, tokenizer, attn) -> None:
    model, examples = model_of(tokenizer, attn=attn), chains.examples(corpus)
    rows = suppression_importance(model, examples)
    assert [(r.example_id, r.sentence) for r in rows] == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)]
    prompt = render(examples[1], tokenizer)
    second = cot.chain_sentences(examples[1], prompt)[1]
    want = sentence_importance(model.causal_lm, torch.tensor(prompt.ids), (second.token_start, second.token_end))
    assert rows[4].importance == pytest.approx(want, rel=1e-4)
    assert rows[4].token == second.boundary
    assert all(r.importance > 0 and r.control > 0 for r in rows)
    assert suppression_importance(model, examples, seed=1) != rows
    hot = suppression_importance(model, examples, temperature=4.0)
    assert hot[0].importance < rows[0].importance


def test_models_with_windows_are_refused_and_a_mask_that_means_something_else_is_noticed(
    corpus: Path, tokenizer, monkeypatch
) -> None:
    examples = chains.examples(corpus, limit=1)
    with pytest.raises(ValueError, match="full attention in every layer"):
        suppression_importance(model_of(tokenizer, "gemma3"), examples)
    model = model_of(tokenizer)
    monkeypatch.setattr("interp.tasks.cot.importance._as_taken", lambda module, mask: mask.float())  # the v2 fault
    with pytest.raises(RuntimeError, match="changes its logits"):
        suppression_importance(model, examples)


# --- context prediction ---------------------------------------------------------------------------------------------


def test_context_items_ask_for_tokens_of_the_chain_beside_the_run(corpus: Path, tokenizer) -> None:
    example = chains.examples(corpus, limit=1)[0]
    prompt = render(example, tokenizer)
    made = context_items(example, prompt, tokenizer, n=200, seed=3)
    assert made == context_items(example, prompt, tokenizer, n=200, seed=3)
    first, end = prompt.n_prompt, len(prompt.ids)
    for item in made:
        at, k = item.positions, item.k
        assert list(at) == list(range(at[0], at[0] + len(at)))
        assert first <= at[0] <= at[-1] < end
        left, right = (at[0] - k, at[0]) if item.direction == "previous" else (at[-1] + 1, at[-1] + 1 + k)
        assert first <= left < right <= end
        assert tokenizer.decode(prompt.ids[left:right]) == item.target
        assert str(k) in item.question
    assert {item.percent for item in made} == {25, 50, 75}
    assert {item.direction for item in made} == {"previous", "next"}
    assert len({len(item.positions) for item in made}) > 10
    with pytest.raises(ValueError, match="carries no chain"):
        context_items(cot.examples(corpus, limit=1)[0], render(cot.examples(corpus, limit=1)[0], tokenizer), tokenizer,
                      n=1, seed=0)  # fmt: skip


# --- command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tracking", "importance", "resampling", "context"])
def test_the_command_writes_labels_that_audit_reads(corpus: Path, tokenizer, tmp_path: Path, kind: str) -> None:
    model = model_of(tokenizer)
    model.causal_lm.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ask = ["cot", "--base", tmp_path / "model", "--name", "tiny", "--data", corpus, "--label", kind, "--out", tmp_path]
    done = CliRunner().invoke(main, [*map(str, ask), "--n", "4", "--max-new-tokens", "3"])
    assert done.exit_code in (0, 1), done.output  # labels of a random model may fail their audit
    lines = [json.loads(line) for line in (tmp_path / f"tiny-{kind}.jsonl").read_text().splitlines()]
    n = {"tracking": 9, "importance": 6, "resampling": 9, "context": 12}[kind]
    assert len(lines) == n
    assert f"{n} labels" in done.output
    assert "constant" in done.output
    items = cot.read_items(tmp_path / f"tiny-{kind}.jsonl")
    assert {i.problem for i in items} == {e.groups["problem"] for e in cot.examples(corpus)}
    if kind != "context":
        assert all(line["boundary"].rstrip().endswith(line["text"][-5:]) for line in lines)
        assert "OK      boundary drift" in done.output
        labels = read_labels(tmp_path / f"tiny-{kind}.jsonl")  # what an oracle's recipe reads
        task, number = {"tracking": ("answer", "p_answer"), "importance": ("importance", "importance"),
                        "resampling": ("importance", "kl")}[kind]  # fmt: skip
        known = {(x["example_id"], x["sentence"]): x[number] for x in lines if x.get("status", "ok") == "ok"}
        assert labels == {task: pytest.approx(known)} and known
    if kind == "importance":
        by_problem = {name: {x["label"] for x in lines if x["example_id"] == name} for name in "ab"}
        assert by_problem == {"a": {"anchor", "other"}, "b": {"anchor", "other"}}
        assert [x["status"] for x in lines if x["example_id"] == "c"] == ["one sentence only"]


def test_a_corpus_is_evaluated_by_the_answers_a_model_gives(corpus: Path, tokenizer, tmp_path: Path) -> None:
    import pandas as pd

    model_of(tokenizer).causal_lm.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ask = ["eval", "--base", tmp_path / "model", "--name", "tiny", "--task", "interp.tasks.cot", "--data", corpus]
    done = CliRunner().invoke(
        main, [*map(str, ask), "--out", str(tmp_path / "out"), "--max-new-tokens", "6", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    answers = pd.read_parquet(tmp_path / "out" / "tiny" / "answers.parquet")
    assert list(answers["gold"]) == ["5", "Paris", "no"]
    assert set(answers["rule"]) <= {"boxed", "hashes", "said", "whole", "truncated", "unparsed"}
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert {"accuracy", "unparsed", "unfinished", "new_tokens"} <= set(table["metric"])
