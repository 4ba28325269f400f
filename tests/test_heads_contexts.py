"""Pairs: from text, from Yang's identity rules, from the procedural task's order-swap twins."""

from __future__ import annotations

from collections import Counter

import pytest

from interp.heads import HeadSweep, LogitDiff, Patch, identity_pairs, swap_pairs, text_pair
from interp.model import Model
from interp.positions import Answer, Span
from interp.prompt import Example, Message, render
from interp.tasks import procedural
from tests.tiny import tiny, tiny_tokenizer

WORDS = [chr(letter) for letter in range(ord("A"), ord("Z") + 1)]  # single bytes: one token each


# --- identity rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["ABA", "ABB"])
@pytest.mark.parametrize("context", ["token", "abstract"])
def test_identity_pairs_differ_in_what_the_context_says(tokenizer, rule: str, context: str) -> None:
    pairs = identity_pairs(WORDS, tokenizer, n=12, context=context, rule=rule, k=3, seed=2)
    for pair in pairs:
        base, exp = ([ids[i : i + 6 : 2] for i in range(0, 18, 6)] for ids in (pair.base_ids, pair.exp_ids))
        assert len(pair.base_ids) == len(pair.exp_ids) == 22
        same_place = 0 if rule == "ABA" else 1
        assert all(line[2] == line[same_place] for line in base)
        query, asked = (ids[18:21:2] for ids in (pair.base_ids, pair.exp_ids))
        assert asked == query[::-1]
        if context == "token":
            assert base == exp
            assert (pair.answer, pair.foil) == (asked[same_place], query[same_place])
            assert pair.base_answer == pair.foil
        else:
            assert [line[2] for line in exp] == [line[2] for line in base]
            assert all(a[:2] == b[1::-1] for a, b in zip(base, exp, strict=True))
            assert (pair.answer, pair.foil) == (asked[1 - same_place], asked[same_place])
            assert pair.base_answer == pair.answer  # the same literal word is right in both runs


def test_thirds_are_the_third_words_with_or_without_a_first_token(tokenizer) -> None:
    pair = identity_pairs(WORDS, tokenizer, n=1, context="abstract", at="third")[0]
    assert pair.positions == (4, 10)
    assert pair.roles["query"] == (12, 14)


def test_words_of_several_tokens_are_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="0 of 2 prompts tokenise to 16 tokens"):
        identity_pairs(["elephant", "zebra", "unicorn", "giraffe", "walrus", "panther"], tokenizer, n=2)
    with pytest.raises(ValueError, match="6 different words"):
        identity_pairs(["A", "B"], tokenizer, n=1)


# --- text ----------------------------------------------------------------------------------------------------------


def chat(name: str, text: str, label: str, **kw) -> Example:
    return Example(id=name, messages=(Message("user", text),), label=label, groups={"procedure": "p1"}, **kw)


def test_answers_of_several_tokens_are_cut_where_they_part(tokenizer) -> None:
    exp = chat("e", "the quick brown fox", "compliant", spans={"scenario": (4, 9)})
    pair = text_pair(chat("b", "the lazy dog jumps", "noncompliant"), exp, tokenizer, answer="xxyes", foil="xxno",
                     before="step one")  # fmt: skip
    assert tokenizer.decode(list(pair.exp_ids)).endswith("assistant\nstep one xx")
    assert tokenizer.decode(list(pair.base_ids)).endswith("assistant\nstep one xx")
    answers = [tokenizer.decode([token]).strip() for token in (pair.answer, pair.foil)]
    assert "yes".startswith(answers[0]) and "no".startswith(answers[1]) and answers[0] != answers[1]
    assert pair.unit == "p1"
    assert tokenizer.decode([pair.exp_ids[i] for i in pair.exp_tokens(Span("scenario"))]).strip() == "quick"
    assert pair.exp_tokens(Answer()) == (len(pair.exp_ids) - 1,)


def test_a_label_at_once_is_read_where_generation_starts(tokenizer) -> None:
    exp = chat("e", "is this compliant ?", "yes")
    pair = text_pair(None, exp, tokenizer, answer="yes", foil="no")
    assert pair.exp_ids == render(exp, tokenizer).ids
    assert pair.base_ids is None


def test_answers_that_begin_alike_to_their_end_are_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="one is the beginning of the other"):
        text_pair(None, "the dog", tokenizer, answer="yes", foil="yesyes", before="\n")


# --- order swaps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rendering", ["plain", "log"])
def test_order_swap_twins_have_the_same_words_and_flip_or_keep_the_label(rendering: str) -> None:
    twins = procedural.twin_examples(10, seed=4, rendering=rendering)
    kinds = Counter()
    for base, exp in twins:
        kind = exp.metadata["kind"]
        kinds[kind] += 1
        assert (base.label != exp.label) == (kind == "flip")
        assert base.groups == exp.groups
        assert base.content != exp.content
        if rendering == "log":
            assert Counter(base.content.split()) == Counter(exp.content.split())
            assert len(base.content.split()) == len(exp.content.split())
    assert kinds == {"flip": 10, "keep": 10}
    labels = Counter(exp.label for base, exp in twins if exp.metadata["kind"] == "flip")
    assert labels["compliant"] == labels["noncompliant"] == 5
    procedures = [base.groups["procedure"] for base, _ in twins]
    assert procedures[::2] == procedures[1::2]  # flip and keep are matched within a procedure


def test_twins_become_pairs_whose_placebo_keeps_the_answer() -> None:
    tokenizer = tiny_tokenizer(1024)
    twins = procedural.twin_examples(3, seed=1)
    pairs = swap_pairs(twins, procedural.LABELS, tokenizer, before=lambda e: f"checked {e.id[:4]}:")
    for (_, exp), pair in zip(twins, pairs, strict=True):
        assert pair.flips == (pair.kind == "flip")
        assert pair.label == exp.label
        text = tokenizer.decode(list(pair.exp_ids))
        assert f"checked {exp.id[:4]}:" in text.split("assistant")[-1]
        assert pair.unit == exp.groups["procedure"]
    model = Model.wrap(tiny("qwen2", vocab_size=len(tokenizer), max_position_embeddings=4096), tokenizer)
    outcome = next(HeadSweep(model, pairs[:1], Patch(), metrics=(LogitDiff(),)).run())[1]
    assert abs(outcome.values["margin"] - outcome.values["clean_margin"]).max() > 1e-4
    with pytest.raises(ValueError, match="expected one of two"):
        swap_pairs(twins, ["yes", "no", "maybe"], tokenizer)
