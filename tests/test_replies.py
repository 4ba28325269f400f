"""Replies as token ids: their characters, the rules that select their tokens, and activations along them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.cache import ActivationCache, extract_replies
from interp.evaluate import Decoding
from interp.evaluate.writing import Written, write
from interp.hooks import record
from interp.model import Model
from interp.passes import pad
from interp.positions import (
    All,
    Decision,
    Fraction,
    Match,
    NothingSelectedError,
    Positions,
    SentenceEnds,
    parse_positions,
    span_names,
)
from interp.prompt import Example, Prompt, render
from interp.replies import ReplyPrompt, _ends_in_windows, _ends_of_prefixes, reply_prompt, token_ranges, token_texts
from tests.real.kit import relative
from tests.test_writing import generated, model_of, prompts
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
REPLY = "step one: yes. The 🙂 fox, step two: no."


@pytest.fixture
def reply() -> ReplyPrompt:
    prompt = render(Example("q", text="is this compliant ?"), TOKENIZER)
    at = [("verdict", REPLY.index(" yes")), ("verdict", REPLY.index(" no.")), ("label", len(REPLY))]
    return reply_prompt(prompt, TOKENIZER(REPLY)["input_ids"], TOKENIZER, decisions=at)


def said(prompt: ReplyPrompt, rule: Positions) -> str:
    return TOKENIZER.decode([prompt.ids[i] for i in rule.resolve(prompt)])


def chosen(prompt: ReplyPrompt, rule: str) -> dict[int, str]:
    (parsed,) = parse_positions(rule)
    return dict(zip(parsed.resolve(prompt), span_names(parsed, prompt), strict=True))


@given(st.text(alphabet="ab é中🙂\u200d.,\n<|>", max_size=40))
@settings(max_examples=150, deadline=None)
def test_ranges_of_ids_are_the_offsets_that_the_tokenizer_gives_for_their_text(text: str) -> None:
    """Independent witness: the offsets of the tokenizer itself, which knows the text before it cuts it."""
    out = TOKENIZER(text, return_offsets_mapping=True)
    assert token_ranges(TOKENIZER, out["input_ids"]) == (text, [tuple(pair) for pair in out["offset_mapping"]])


@given(st.lists(st.integers(0, 511), max_size=25))
@settings(max_examples=150, deadline=None)
def test_ranges_of_any_ids_are_those_of_decoding_every_prefix(ids: list[int]) -> None:
    """Ids that are no text, such as lone bytes: windows give what the quadratic way gives, or give up."""
    text = TOKENIZER.decode(ids)
    fast = _ends_in_windows(TOKENIZER, ids, text)
    exact = _ends_of_prefixes(TOKENIZER, ids, text)
    assert fast is None or [end for end, _ in fast] == [end for end, _ in exact]
    _, ranges = token_ranges(TOKENIZER, ids)
    assert all(0 <= a <= b <= len(text) for a, b in ranges)
    assert [a for a, _ in ranges] == sorted(a for a, _ in ranges)
    assert {c for a, b in ranges for c in range(a, b)} == set(range(len(text))), "every character has a token"


def test_texts_of_tokens_add_up_and_a_shared_character_is_that_of_its_last_token() -> None:
    text, ranges = token_ranges(TOKENIZER, TOKENIZER(REPLY)["input_ids"])
    texts = token_texts(text, ranges)
    assert "".join(texts) == text and texts.count("") == sum(a == b for (a, _), (b, _) in pairwise(ranges)) > 0
    assert sum("🙂" in one for one in texts) == 1
    assert token_texts("", []) == []


def test_a_reply_keeps_its_ids_where_text_tokenized_again_would_not() -> None:
    prompt = render(Example("q", text="the fox"), TOKENIZER)
    ids = [i for letter in "step" for i in TOKENIZER(letter)["input_ids"]]
    assert TOKENIZER("step")["input_ids"] != ids
    made = reply_prompt(prompt, ids, TOKENIZER)
    assert made.ids == (*prompt.ids, *ids)
    assert made.text == "the fox" + "step"
    assert made.n_prompt == len(prompt.ids)
    assert [made.text[slice(*pair)] for pair in made.offsets[-4:]] == list("step")


def test_fractions_count_tokens_that_were_read(reply: ReplyPrompt) -> None:
    n, before = reply.n_reply, reply.n_before
    assert reply.fraction(before - 1) == 0
    assert reply.fraction(before) == 1 / n
    assert reply.fraction(before + n - 1) == 1
    assert reply.fraction(before - 2) is None
    for share in (0.0, 0.1, 0.3, 0.5, 1.0):
        (token,) = Fraction((share,)).resolve(reply)
        assert token - before + 1 == math.ceil(round(share * n, 9)), "so many tokens have been read"


def test_equal_tokens_of_a_short_reply_carry_every_share() -> None:
    prompt = render(Example("q", text="the fox"), TOKENIZER)
    short = reply_prompt(prompt, TOKENIZER("yes")["input_ids"][:1], TOKENIZER)
    assert chosen(short, "fraction:0,0.1,0.5,1") == {short.n_before - 1: "0", short.n_before: "0.1+0.5+1"}


def test_a_pattern_selects_the_tokens_that_share_a_character_with_it(reply: ReplyPrompt) -> None:
    assert said(reply, Match(r"step \w+")) == "step one" + " step two"
    assert said(reply, Match(r"step \w+", which="last")).endswith(TOKENIZER.decode([reply.ids[max(
        Match(r"step two").resolve(reply))]]))  # fmt: skip
    assert len(Match("step", which="last").resolve(reply)) == 2
    tokens = Match("🙂").resolve(reply)
    assert len(tokens) > 1, "the face is several tokens, and every one of them is part of it"
    assert TOKENIZER.decode([reply.ids[i] for i in tokens]).strip() == "🙂"


def test_named_groups_are_span_names(reply: ReplyPrompt) -> None:
    names = chosen(reply, r"match:step (?P<number>\w+): (?P<verdict>yes|no)")
    by_name = {name: [i for i in names if names[i] == name] for name in ("number", "verdict")}
    assert TOKENIZER.decode([reply.ids[i] for i in by_name["number"]]).split() == ["one", "two"]
    assert TOKENIZER.decode([reply.ids[i] for i in by_name["verdict"]]).split() == ["yes", "no"]
    assert set(names.values()) == {"number", "verdict"}


def test_a_decision_is_at_the_token_that_predicts_it(reply: ReplyPrompt) -> None:
    names = chosen(reply, "decision")
    assert sorted(names.values()) == ["label", "verdict", "verdict"]
    for token, name in names.items():
        following = TOKENIZER.decode(list(reply.ids[token + 1 :]))
        assert following.startswith({"label": "", "verdict": (" yes", " no")}[name]) or (
            name == "label" and not following
        )
    assert list(chosen(reply, "decision:label")) == [len(reply.ids) - 1]
    first = reply_prompt(render(Example("q", text="the fox"), TOKENIZER), TOKENIZER("yes")["input_ids"], TOKENIZER,
                         decisions=[("label", 0)])  # fmt: skip
    assert Decision().resolve(first) == (first.n_before - 1,), "the first token of a reply is predicted by the prompt"


def test_sentence_ends_and_all_stay_inside_the_reply(reply: ReplyPrompt) -> None:
    assert All("answer").resolve(reply) == tuple(range(reply.n_before, len(reply.ids)))
    ends = SentenceEnds("answer").resolve(reply)
    assert [reply.text[: reply.offsets[i][1]][-3:] for i in ends] == ["es.", "no."]


RULES = [r"match:\[SIG=\w+\]", r"match_last:(?P<a>x{1,3})\,?y(?:,|[^,])", "match:[]a,]b", "decision", "decision:label",
         "fraction:0,0.25,1", "all:answer"]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_names_round_trip_alone_and_in_a_list(name: str) -> None:
    (rule,) = parse_positions(name)
    assert parse_positions(rule.name) == [rule]
    assert parse_positions(f"last,{rule.name} , stride:2")[1] == rule


def test_a_bare_comma_of_a_pattern_is_escaped_in_its_name() -> None:
    rule = Match("a,b[,],c")
    assert parse_positions(f"{rule.name}, last")[0] == Match(r"a\,b[,]\,c")
    prompt = reply_prompt(render(Example("q", text="x"), TOKENIZER), TOKENIZER("a,b,,c")["input_ids"], TOKENIZER)
    assert rule.resolve(prompt) == Match(r"a\,b[,]\,c").resolve(prompt)


@pytest.mark.parametrize("wrong", ["match:(a", "match:", "match:[a", "fraction:2", "fraction:0.5,0.1", "match: a"])
def test_wrong_rules_are_refused_when_they_are_read(wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong.split(":")[0]):
        parse_positions(wrong)


def test_a_catastrophic_pattern_ends_in_time(reply: ReplyPrompt) -> None:
    text = "".join("ab"[i % 2] for i in range(60)) + "!"
    long = reply_prompt(render(Example("q7", text="x"), TOKENIZER), TOKENIZER(text)["input_ids"], TOKENIZER)
    start = time.monotonic()
    with pytest.raises(ValueError, match="q7"):
        Match(r"(?:a|b|ab)+[a-z]*\1?(?:(a|b)+)+$").resolve(long)
    assert time.monotonic() - start < 20


def test_a_rule_that_selects_nothing_says_so(reply: ReplyPrompt) -> None:
    for rule in (Match("zebra"), Decision("order")):
        with pytest.raises(NothingSelectedError, match="q"):
            rule.resolve(reply)
    plain = render(Example("q", text="the fox"), TOKENIZER)
    for rule in (Decision(), Fraction((1.0,))):
        with pytest.raises(ValueError, match="--replies"):
            rule.resolve(plain)
    assert Match("fox").resolve(plain), "a pattern searches a prompt where there is no reply"


def along(model: Model, written: list[Written], asked: list[Prompt], out: Path) -> ActivationCache:
    examples = [Example(prompt.example_id, text="x") for prompt in asked]
    made = [reply_prompt(p, one.ids, model.tokenizer) for p, one in zip(asked, written, strict=True)]
    sites = "resid_post.*, attn_out.1"
    return extract_replies(model, made, examples, out=out, sites=sites, positions="all:answer, fraction:0",
                           max_bytes="1GB", progress=False)  # fmt: skip


def while_generating(
    model: Model, asked: list[Prompt], n: int, sites: tuple[str, ...]
) -> list[dict[str, torch.Tensor]]:
    """Per prompt and site the activations [token, d_model] at the last prompt token and each token that was fed back.

    Recorded inside `transformers.generate`, which pads on the left and keeps a KV cache: another engine and other
    batches than those of the cache, whose rows are padded on the right.
    """
    from transformers import GenerationConfig

    batch = pad([prompt.ids for prompt in asked], side="left")
    config = GenerationConfig(max_new_tokens=n, do_sample=False, pad_token_id=0)
    held, model.causal_lm.generation_config = model.causal_lm.generation_config, GenerationConfig()
    generate: Any = model.module.generate
    with record(model, list(sites), stop=False) as acts:
        generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config)
    model.causal_lm.generation_config = held
    steps = [{str(site): part for site, part in one.acts.items()} for one in acts.passes]
    return [{site: torch.stack([step[site][row, -1] for step in steps]) for site in sites} for row in range(len(asked))]


def twenty() -> list[Prompt]:
    return [*prompts(seed=0), *prompts(seed=1)][:20]


def renamed(asked: list[Prompt]) -> list[Prompt]:
    """The prompts with ids of their own, and with offsets, which token lists have none of."""
    return [replace(p, example_id=f"p{k}", offsets=((0, 0),) * len(p.ids)) for k, p in enumerate(asked)]


@pytest.fixture
def exact_recurrence(family: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Recurrent layers in float64 instead of float32, which transformers casts to whatever the model's dtype.

    They compute exp(a - b) of sums over the row, pads included, so that in float32 left padding alone moves an
    activation by 1.3e-4 of the largest; in float64 by 4e-15.
    """
    if family != "qwen3_5":
        return False
    to = torch.Tensor.to
    double = {torch.float32: torch.float64}
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **how: to(
        self, *(double.get(one, one) if isinstance(one, torch.dtype) else one for one in args), **how))  # fmt: skip
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return True


def test_activations_along_replies_equal_those_while_generating(
    family: str, exact_recurrence: bool, tmp_path: Path
) -> None:
    """20 replies of unequal lengths, relative 1e-5 in float32: right padding, as the cache reads them, against left
    padding in one pass, and against what is recorded while `transformers.generate` writes them with a KV cache."""
    model, asked = model_of(family), renamed(twenty())
    if exact_recurrence:
        model.module.double()
    n = 24
    written = write(model, asked, Decoding(), new_tokens=n)
    assert [one.ids for one in written] == generated(model, asked)
    assert len({len(one.ids) for one in written}) > 3
    cache = along(model, written, asked, tmp_path / "cache")
    sites = ("resid_post.0", f"resid_post.{model.n_layers - 1}", "attn_out.1")
    fed = while_generating(model, asked, n, sites)
    left = pad([(*p.ids, *one.ids) for p, one in zip(asked, written, strict=True)], side="left")
    with record(model, list(sites)) as acts:
        model(left.input_ids, attention_mask=left.attention_mask)
    rows = cache.rows
    for site in sites:
        feats = cache.read_rows(site)
        for k, (one, steps) in enumerate(zip(written, fed, strict=True)):
            mine = rows[(rows["example"] == k) & (rows["position_name"] == "all:answer")]
            first = rows[(rows["example"] == k) & (rows["position_name"] == "fraction:0")]
            assert mine["token_id"].tolist() == list(one.ids)
            assert mine["reply_token"].tolist() == list(range(len(one.ids)))
            ours = feats[torch.tensor([*first.index, *mine.index])]
            assert relative(ours, acts[site][k, -len(ours) :]) < 1e-5, (site, k)
            # the last token of a reply is never fed back, so `generate` has no activation at it
            assert relative(ours[:-1], steps[site][: len(one.ids)]) < 1e-5, (site, k)


def test_rows_say_where_in_the_reply_they_are(tmp_path: Path) -> None:
    model, asked = model_of("qwen2"), renamed(prompts())
    written = write(model, asked, Decoding(), new_tokens=24)
    cache = along(model, written, asked, tmp_path / "cache")
    rows = cache.rows[cache.rows["position_name"] == "all:answer"]
    lengths = rows.groupby("example")["reply_token"].transform("max") + 1
    assert torch.allclose(
        torch.tensor(rows["reply_fraction"].to_numpy()),
        torch.tensor(((rows["reply_token"] + 1) / lengths).to_numpy()),
    )
    assert set(rows["span"]) == {"answer"}
    start = cache.rows[cache.rows["position_name"] == "fraction:0"]
    assert set(start["reply_token"]) == {-1}
    assert set(start["reply_fraction"]) == {0.0}
    assert set(start["span"]) == {"0"}
