"""Position rules: their string forms, the tokens they choose, what they refuse."""

from __future__ import annotations

import pytest

from interp.positions import (
    All,
    Answer,
    At,
    From,
    Generated,
    Last,
    Positions,
    PromptTokens,
    SentenceEnds,
    Span,
    Stride,
    parse_positions,
)
from interp.prompt import Example, Message, Prompt, render

RULES = {
    "last": Last(),
    "last:5": Last(5),
    "answer": Answer(),
    "span:scenario": Span("scenario"),
    "span:scenario:first": Span("scenario", which="first"),
    "span:scenario:last": Span("scenario", "last"),
    "sentence_ends": SentenceEnds(),
    "sentence_ends:v2": SentenceEnds(style="v2"),
    "sentence_ends:scenario": SentenceEnds("scenario"),
    "sentence_ends:scenario:v2": SentenceEnds("scenario", "v2"),
    "stride:8": Stride(8),
    "stride:8:answer": Stride(8, "answer"),
    "at:0+5": At((0, 5)),
    "all": All(),
    "prompt": PromptTokens(),
    "generated": Generated(),
    "from:3": From(3),
}
TEXT = "The 🙂 fox 中文. Second one! 🙂"


@pytest.fixture
def prompt(tokenizer) -> Prompt:
    spans = {"face": (4, 5), "fox": (6, 9), "han": (10, 12), "second": (14, 25)}
    return render(Example("q7", (Message("user", TEXT),), spans=spans, answer="yes no yes"), tokenizer)


def said(prompt: Prompt, tokenizer, rule: Positions) -> str:
    return tokenizer.decode([prompt.ids[i] for i in rule.resolve(prompt)])


@pytest.mark.parametrize("name", RULES)
def test_names_round_trip_through_parse(name):
    assert RULES[name].name == name
    assert parse_positions(name) == [RULES[name]]
    assert isinstance(RULES[name], Positions)


def test_a_comma_list_and_a_sequence_with_rules_parse_to_the_same_rules():
    assert parse_positions(" last, stride:8 ,all") == [Last(), Stride(8), All()]
    assert parse_positions(["last,stride:8", All()]) == [Last(), Stride(8), All()]
    assert parse_positions(Last()) == [Last()]
    assert parse_positions("span:x:all") == [Span("x")]


@pytest.mark.parametrize(
    "rule", [r for n, r in RULES.items() if "scenario" not in n and n != "at:0+5"], ids=lambda r: r.name
)
def test_every_rule_gives_ascending_indices_inside_the_prompt(rule, prompt):
    got = rule.resolve(prompt)
    assert list(got) == sorted(set(got))
    assert 0 <= got[0] <= got[-1] < len(prompt.ids)


def test_last_counts_from_the_end_and_answer_is_just_before_the_answer(prompt, tokenizer):
    n = len(prompt.ids)
    assert Last().resolve(prompt) == (n - 1,)
    assert Last(3).resolve(prompt) == (n - 3, n - 2, n - 1)
    (at,) = Answer().resolve(prompt)
    assert tokenizer.decode(prompt.ids[at + 1 :]) == "yes no yes"
    assert All().resolve(prompt) == tuple(range(n))


def test_answer_and_last_agree_where_there_is_no_answer(tokenizer):
    bare = render(Example("q", (Message("user", "the fox"),)), tokenizer)
    assert Answer().resolve(bare) == Last().resolve(bare)


def test_spans_over_multi_byte_text_choose_all_and_only_the_tokens_of_their_characters(prompt, tokenizer):
    assert said(prompt, tokenizer, Span("face")) == "🙂"
    assert said(prompt, tokenizer, Span("han")) == "中文"
    assert said(prompt, tokenizer, Span("fox")).strip() == "fox"
    assert len(Span("face").resolve(prompt)) == 4  # one token per byte in this vocabulary
    assert Span("face", "first").resolve(prompt) == Span("face").resolve(prompt)[:1]
    assert Span("face", "last").resolve(prompt) == Span("face").resolve(prompt)[-1:]


def test_a_token_that_reaches_into_a_span_belongs_to_it(tokenizer):
    prompt = render(Example("q", text="the quick brown", spans={"mid": (5, 7)}), tokenizer)
    (at,) = Span("mid").resolve(prompt)
    assert tokenizer.decode([prompt.ids[at]]) == " quick"


def test_span_is_the_same_where_offsets_leave_out_leading_blanks():
    """Some tokenizers (GPT-2) give ' fox' the offsets of 'fox', and a lone blank none at all."""
    whole = Prompt(
        "q", text="a  fox b", ids=(1, 2, 3, 4), offsets=((0, 1), (1, 2), (2, 6), (6, 8)), spans={"s": (0, 6)}
    )
    cut = Prompt("q", text="a  fox b", ids=(1, 2, 3, 4), offsets=((0, 1), (2, 2), (3, 6), (7, 8)), spans={"s": (0, 6)})
    assert Span("s").resolve(whole) == Span("s").resolve(cut) == (0, 1, 2)


def test_stride_starts_at_the_first_token_and_ends_at_the_last(prompt):
    n = len(prompt.ids)
    assert Stride(7).resolve(prompt) == tuple(sorted({*range(0, n, 7), n - 1}))
    inside = Stride(2, "answer").resolve(prompt)
    assert inside[0] == prompt.n_prompt
    assert inside[-1] == n - 1
    assert Stride(1).resolve(prompt) == All().resolve(prompt)


def test_sentence_ends_read_the_answer_where_there_is_one_else_the_prompt(tokenizer):
    chat = (Message("user", "the fox . the dog jumps ."),)
    forced = render(Example("q", chat, answer="yes . no ."), tokenizer)
    bare = render(Example("q", chat), tokenizer)
    assert SentenceEnds().resolve(forced) == SentenceEnds("answer").resolve(forced)
    assert all(i >= forced.n_prompt for i in SentenceEnds().resolve(forced))
    assert SentenceEnds().resolve(bare) == SentenceEnds("prompt").resolve(forced)


def test_sentence_ends_inside_a_named_span(prompt, tokenizer):
    assert said(prompt, tokenizer, SentenceEnds("second")) == "!"
    assert said(prompt, tokenizer, SentenceEnds("prompt")) == ".!"


def test_positions_do_not_depend_on_padding(prompt, tokenizer):
    """Indices count from the first real token: padding the ids left or right moves nothing."""
    other = render(Example("long", (Message("user", TEXT * 3),)), tokenizer)
    batch = tokenizer.pad({"input_ids": [list(prompt.ids), list(other.ids)]}, padding_side="left", return_tensors="pt")
    first = int(batch["attention_mask"][0].argmax())
    assert first > 0
    face = [first + i for i in Span("face").resolve(prompt)]
    assert tokenizer.decode(batch["input_ids"][0, face]) == "🙂"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Span("scenario"), ["'q7'", "'span:scenario'", "answer, face, fox, han, prompt, second", "<|im_start|>"]),
        (SentenceEnds("nowhere"), ["'q7'", "'sentence_ends:nowhere'", "'nowhere'"]),
        (Stride(3, "nowhere"), ["'q7'", "'stride:3:nowhere'"]),
        (SentenceEnds("face"), ["'q7'", "no sentence", "'🙂'"]),
        (At((0, 5000)), ["'q7'", "token 5000", "<|im_start|>"]),
        (Last(5000), ["'q7'", "'last:5000'", "5000"]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_a_rule_that_yields_nothing_names_example_rule_and_text(rule, words, prompt):
    with pytest.raises(ValueError, match="example") as error:
        rule.resolve(prompt)
    assert all(w in str(error.value) for w in words), str(error.value)


def test_a_span_without_any_token_is_an_error_with_its_text():
    prompt = Prompt("q8", text="a b", ids=(1, 2), offsets=((0, 1), (2, 3)), spans={"gap": (1, 2)})
    with pytest.raises(ValueError, match=r"'q8'.*'span:gap' finds no token.*' '"):
        Span("gap").resolve(prompt)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("lsat", "Did you mean 'last'"),
        ("stride", "stride:N"),
        ("stride:x", "stride:N"),
        ("stride:0", "at least 1"),
        ("last:0", "at least 1"),
        ("span", "span:NAME"),
        ("span:x:middle", "span:NAME:last"),
        ("span:", "span name"),
        ("at:3+1", "ascending"),
        ("at:-1", "not a rule"),
        ("last,,all", "separated by commas"),
        ("", "separated by commas"),
        ("last,last", "given twice"),
    ],
)
def test_bad_rules_are_refused_with_the_valid_forms_or_the_reason(spec, word):
    with pytest.raises(ValueError, match=word):
        parse_positions(spec)


def test_rules_refuse_bad_arguments():
    with pytest.raises(ValueError, match="is the name of a style"):
        SentenceEnds("v2")
    with pytest.raises(ValueError, match="ascending"):
        At((-1,))
    with pytest.raises(ValueError, match="span name"):
        Span("a,b")
    with pytest.raises(ValueError, match="separated by commas"):
        parse_positions([])


def test_prompt_and_generated_share_the_token_that_predicts_the_answer(prompt, tokenizer):
    before, after = PromptTokens().resolve(prompt), Generated().resolve(prompt)
    assert before[-1:] == after[:1] == Answer().resolve(prompt)
    assert before + after[1:] == All().resolve(prompt)
    assert tokenizer.decode([prompt.ids[i] for i in after[1:]]).startswith("yes no yes")
    assert From(after[0]).resolve(prompt) == after
    n = len(prompt.ids)
    with pytest.raises(ValueError, match=f"'from:{n}' begins after the last token; the prompt has {n}"):
        From(n).resolve(prompt)
    with pytest.raises(ValueError, match="expected a token number from 0 on, got -1"):
        From(-1)
