"""Items of oracle training: what v2 got wrong is found by name before the first step, and built right here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from interp.oracle.cot_items import (
    Chain,
    answer_tracking,
    chains_of,
    context_prediction,
    importance,
    layer_choices,
    summary,
    taxonomy,
)
from interp.oracle.items import Mixture, TrainItem, audit_mixture, balanced, mix, refuse_faults
from interp.oracle.spec import OracleSpec
from interp.oracle.train import train_oracle
from interp.tasks.cot import CLASSES, chain_examples
from tests.oracle_train_kit import SPEC, random_items, recipe, tiny_model
from tests.tiny import tiny_tokenizer


def chains(n: int = 12, n_sentences: int = 10) -> list[Chain]:
    """Chains of 4 tokens per sentence with ids that say where they are."""
    return [
        Chain(
            id=f"c{k}",
            problem=f"p{k}",
            ids=tuple(range(100 * k, 100 * k + 5 + 4 * n_sentences)),
            span=(5, 5 + 4 * n_sentences),
            ends=tuple(range(8, 5 + 4 * n_sentences, 4)),
            tails=tuple(f"Sentence {i} of {k}." for i in range(n_sentences)),
        )
        for k in range(n)
    ]


def failed(items: list[TrainItem]) -> set[str]:
    found = audit_mixture(mix(items, validation=2))
    return {f.name for f in found if f.status == "fail"}


def test_constant_summaries_are_found_and_nothing_is_trained() -> None:
    """What an exception handler with one fixed sentence makes of an unreachable label service."""
    made = summary(chains(40), lambda chain: "The model reasons about the problem step by step.", layers=[(0,)])
    assert {"constant", "distinct"} <= failed(made)
    mixture = mix(made, validation=2)
    with pytest.raises(ValueError, match=r"audits of the labels failed, so nothing was trained(.|\n)*constant"):
        train_oracle(tiny_model(), mixture, SPEC, recipe())


def test_a_summary_that_could_not_be_made_is_a_fault_and_never_a_sentence() -> None:
    def unreachable(chain: Chain) -> str:
        if int(chain.id[1:]) % 2:
            raise TimeoutError("label service did not answer")
        return f"It computes the {chain.id} first, and then it checks what came out of {chain.problem}."

    made = summary(chains(40), unreachable, layers=[(0,)])
    lost = [item for item in made if item.status != "ok"]
    assert len(lost) == 20
    assert all(item.answer == "" and "did not answer" in item.status for item in lost)
    assert "fallback" in failed(made)


def test_a_threshold_that_makes_nearly_everything_important_is_found_and_percentiles_cure_it() -> None:
    values = {(f"c{k}", i): 0.1 + 0.01 * ((7 * i + k) % 10) + (0.5 if (k, i) != (3, 4) else -0.05)
              for k in range(40) for i in range(10)}  # fmt: skip
    by_threshold = [
        TrainItem(
            "importance", c.problem, c.ids[: e + 1], (e,), (0,), "important ?", "yes" if values[c.id, i] > 0.1 else "no"
        )
        for c in chains(40)
        for i, e in enumerate(c.ends)
    ]
    assert Counter(item.answer for item in by_threshold)["yes"] / len(by_threshold) > 0.997
    assert {"constant", "entropy", "skewed per problem"} <= failed(by_threshold)
    made = importance(chains(40), values, layers=[(0,)])
    assert Counter(item.answer for item in made) == {"anchor": 120, "other": 120}  # 30 % of every chain, both equally
    assert not failed(made)


def test_answers_that_exact_match_cannot_reach_are_found_and_tiers_cure_it() -> None:
    p = {(f"c{k}", i): ((37 * k + 11 * i) % 100) / 100 for k in range(40) for i in range(10)}
    decimals = [
        TrainItem("answer", c.problem, c.ids[: e + 1], (e,), (0,), "p ?", f"A {p[c.id, i]:.3f}")
        for c in chains(40)
        for i, e in enumerate(c.ends)
    ]
    assert "unreachable by exact match" in failed(decimals)
    assert "unreachable by exact match" not in failed([replace(i, scoring="nll") for i in decimals])
    made = answer_tracking(chains(40), p, layers=[(0,)])
    assert {item.answer for item in made} <= {"leads", "in play", "low", "absent"}
    assert "unreachable by exact match" not in failed(made)


def test_tasks_one_after_the_other_and_shared_contexts_are_found() -> None:
    items = random_items(80)
    in_sequence = Mixture(tuple(sorted(items, key=lambda i: i.task)), ())
    assert any(f.name == "unshuffled" and f.status == "fail" for f in audit_mixture(in_sequence))
    leaking = Mixture(tuple(items), (replace(items[0], problem="another"),))
    assert any(f.name == "leakage" and f.status == "fail" for f in audit_mixture(leaking))
    clean = mix([*items, *(replace(i, problem="another") for i in items)], validation=1, seed=4)
    assert not any(f.status == "fail" for f in audit_mixture(clean) if f.name in ("unshuffled", "leakage"))


def test_faults_are_accepted_by_name_with_a_reason_only() -> None:
    found = audit_mixture(mix([replace(i, answer="yes", task="word") for i in random_items(60)], validation=2))
    with pytest.raises(ValueError, match="there is no audit called 'constnat'"):
        refuse_faults(found, accept={"constnat": "typed in a hurry"})
    accepted = refuse_faults(found, accept={f.name: "a test of one answer" for f in found if f.status == "fail"})
    assert accepted == found


def test_problems_are_held_out_whole_and_blocks_keep_the_items_of_a_problem_together() -> None:
    items = random_items(240, n_problems=24)
    mixture = mix(items, validation=6, block=3)
    assert not {i.problem for i in mixture.train} & {i.problem for i in mixture.validation}
    for at in range(0, len(mixture.train), 30):
        assert len({i.problem for i in mixture.train[at : at + 30]}) <= 3
    assert sorted(map(repr, mixture.train)) == sorted(repr(i) for i in items if i.problem not in _held(mixture, items))


def _held(mixture: Mixture, items: list[TrainItem]) -> set[str]:
    return {i.problem for i in items} - {i.problem for i in mixture.train}


def test_a_balanced_set_has_every_answer_equally_often_and_no_item_twice() -> None:
    items = [replace(i, answer="yes" if k % 5 else "no", task="word") for k, i in enumerate(random_items(60))]
    kept = balanced(items)
    assert Counter(i.answer for i in kept) == {"yes": 12, "no": 12}
    assert Counter(i.answer for i in balanced(items, n=10)) == {"yes": 5, "no": 5}


def test_context_items_ask_for_the_tokens_that_stand_there() -> None:
    tokenizer = tiny_tokenizer()
    text = tokenizer.encode("the quick brown fox jumps over the lazy dog . " * 3, add_special_tokens=False)
    chain = Chain("c", "p", tuple(text), (2, len(text) - 3), (), ())
    made = context_prediction([chain], tokenizer, n=60, layers=[(1,), (2,)], most_tokens=4, most_positions=3)
    assert len(made) == 60
    assert {i.layers for i in made} == {(1,), (2,)}
    for item in made:
        k = int(next(w for w in item.question.split() if w.isdigit()))
        first, last = item.positions[0], item.positions[-1]
        ids = text[first - k : first] if item.task == "previous" else text[last + 1 : last + 1 + k]
        assert item.answer == tokenizer.decode(ids).strip()
        assert item.context_ids == tuple(text[: last + 1])
        assert first >= 2
        assert last < len(text) - 3


def test_labels_refer_to_sentence_records_of_the_corpus(tmp_path: Path) -> None:
    rows = [
        {"id": f"e{k}", "question": f"What is {k} plus one?", "answer": str(k + 1),
         "cot": f"We add e.g. one to {k}. The sum is {k + 1}.\n\nLet me check that."}
        for k in range(8)
    ]  # fmt: skip
    file = tmp_path / "cot.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tiny_tokenizer()
    found = chains_of(chain_examples(file), tokenizer)
    said = [CLASSES[3], CLASSES[5], CLASSES[6]]
    labels = {(c.id, i): said[i] for c in found for i in range(3)} | {("e0", 0): "unknown"}
    made = taxonomy(found, labels, layers=[(0,)])
    assert Counter(i.status for i in made) == {"ok": 21, "no label": 1}
    for item in (i for i in made if i.status == "ok"):
        ends = {said[0]: "to", said[1]: "sum", said[2]: "check that."}
        assert ends[item.answer] in (item.boundary or "")
        assert tokenizer.decode(item.context_ids).endswith(".")  # read at the last token of the sentence
    with pytest.raises(ValueError, match="labels match no sentence.*e0.*9"):
        taxonomy(found, {("e0", 9): CLASSES[0]}, layers=[(0,)])


def test_one_layer_at_a_time_in_format_a_and_all_together_in_the_others() -> None:
    layers = ("25%", "50%", "75%")
    assert layer_choices(OracleSpec(layers=layers), 36) == [(9,), (18,), (27,)]
    assert layer_choices(OracleSpec(layers=layers, format="A'"), 36) == [(9, 18, 27)]
