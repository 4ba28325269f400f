"""Examples and rendering: what is refused, what the text and tokens are, where the spans land."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.example import holds_text
from interp.prompt import Example, Message, Prompt, render
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

SYSTEM_QWEN25 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" + SYSTEM_QWEN25 + "<|im_end|>\n' }}{% endif %}"
) + CHAT_TEMPLATE
DATE_HEADER = (
    "{{ '<|im_start|>system\nToday: 1 Jan\n\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
) + CHAT_TEMPLATE
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
) + CHAT_TEMPLATE


def folds_system(separator: str) -> str:
    """A template that puts the system text in front of the user's, whose header ends with a blank line (as Llama 3)."""
    return (
        "{% set first = '' %}{% if messages[0]['role'] == 'system' %}"
        "{% set first = messages[0]['content'] + '" + separator + "' %}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' }}"
        "{{ (first if loop.first else '') + m['content'] }}"
        "{% endfor %}{{ '<|im_start|>assistant\n' }}"
    )


TRIMS = CHAT_TEMPLATE.replace("m['content']", "m['content'] | trim")
SHOUTS = CHAT_TEMPLATE.replace("m['content']", "m['content'] | upper")
NO_SWITCH = CHAT_TEMPLATE.split("{% if enable_thinking")[0] + "{% endif %}"


def user(content: str, **kw) -> Example:
    return Example("q1", (Message("user", content),), **kw)


def with_template(template: str | None):
    tok = tiny_tokenizer()
    tok.chat_template = template
    return tok


# --- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, ["id", "''"]),
        ({"messages": ()}, ["messages", "neither"]),
        ({"text": "raw"}, ["messages", "both"]),
        ({"messages": (Message("robot", "hi"),)}, ["messages[0].role", "'robot'", "system, user, assistant"]),
        ({"messages": (Message("user", " \n"),)}, ["messages[0].content", "' \\n'"]),
        ({"messages": (Message("user", "a"), Message("assistant", "b"))}, ["messages[1].role", "'answer'"]),
        ({"label": float("nan")}, ["label", "finite", "nan"]),
        ({"answer": ""}, ["answer", "''"]),
        ({"spans": {"x": (0, 99)}}, ["spans.x", "[0, 99]", "<= 5"]),
        ({"spans": {"x": (2, 2)}}, ["spans.x", "[2, 2]"]),
        ({"spans": {"x": (-1, 2)}}, ["spans.x", "[-1, 2]"]),
        ({"spans": {"answer": (0, 2)}}, ["spans", "'answer'", "Rename"]),
        ({"spans": {"a:b": (0, 2)}}, ["spans", "'a:b'"]),
    ],
)
def test_a_wrong_example_is_refused_naming_the_field_and_what_came(change, words):
    with pytest.raises(ValueError, match="field") as error:
        replace(user("hello"), **change)
    assert all(w in str(error.value) for w in words), str(error.value)


def test_a_raw_text_of_blanks_is_refused():
    with pytest.raises(ValueError, match="field 'text'"):
        Example("q1", text="  \n")


# --- the rendered text and its tokens -------------------------------------------------------------------------------


def test_prompt_is_what_generation_starts_from(tokenizer):
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the quick fox ?"}]
    prompt = render(Example("q1", tuple(Message(**m) for m in chat)), tokenizer)
    expected = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=True)
    assert list(prompt.ids) == expected["input_ids"]
    assert prompt.text == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(prompt.ids) == prompt.text
    assert prompt.tokens == tuple(tokenizer.convert_ids_to_tokens(list(prompt.ids)))


def test_hashes_are_of_ids_and_text_and_change_with_them(tokenizer):
    prompt = render(user("the fox"), tokenizer)
    packed = b"".join(struct.pack("<I", i) for i in prompt.ids)
    assert prompt.sha256 == hashlib.sha256(packed).hexdigest()
    assert prompt.text_sha256 == hashlib.sha256(prompt.text.encode()).hexdigest()
    other = render(user("the dog"), tokenizer)
    assert (other.sha256, other.text_sha256) != (prompt.sha256, prompt.text_sha256)
    assert render(user("the fox"), tokenizer) == prompt


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda s: holds_text(s) and not set(s) & set("\0\r")), st.data())
def test_offsets_and_spans_give_back_any_text_and_any_span_of_it(content, data):
    tok = tiny_tokenizer()
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start + 1, len(content)))
    prompt = render(user(content, spans={"s": (start, end)}, answer="yes"), tok)
    assert {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()} == {
        "prompt": content,
        "answer": "yes",
        "s": content[start:end],
    }
    hit = prompt.tokens_in(*prompt.spans["s"])
    covered = [i for i, (a, b) in enumerate(prompt.offsets) if set(range(a, b)) & set(range(*prompt.spans["s"]))]
    assert list(hit) == covered
    assert content[start:end] in tok.decode([prompt.ids[i] for i in hit])


def test_no_system_message_is_added_and_one_put_in_by_the_template_is_recorded():
    assert render(user("hello"), with_template(CHAT_TEMPLATE)).template_system is None
    inserted = render(user("hello"), with_template(DEFAULT_SYSTEM))
    assert inserted.template_system == f"<|im_start|>system\n{SYSTEM_QWEN25}"
    assert inserted.text.startswith(inserted.template_system)
    given_one = Example("q1", (Message("system", "be brief"), Message("user", "hello")))
    assert render(given_one, with_template(DEFAULT_SYSTEM)).template_system is None


def test_a_dated_header_counts_as_inserted_and_folding_or_refusing_templates_do_not():
    assert render(user("hello"), with_template(DATE_HEADER)).template_system == "<|im_start|>system\nToday: 1 Jan\n\n"
    assert render(user("hello"), with_template(REFUSES_SYSTEM)).template_system is None
    for separator in ("", "\n\n", "\n"):
        assert render(user("hello"), with_template(folds_system(separator))).template_system is None


def test_thinking_switch_reaches_the_template_and_none_leaves_its_default(tokenizer):
    plain, on, off = (render(user("hello"), tokenizer, thinking=t) for t in (None, True, False))
    assert off.text.endswith("<think>\n\n</think>\n\n")
    assert on.text == plain.text == off.text.removesuffix("<think>\n\n</think>\n\n")
    assert on.sha256 != off.sha256


def test_a_thinking_switch_that_the_template_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="no thinking switch"):
        render(user("hello"), with_template(NO_SWITCH), thinking=False)
    with pytest.raises(ValueError, match="raw text"):
        render(Example("q1", text="hello"), with_template(None), thinking=True)


# --- spans through templates ----------------------------------------------------------------------------------------


def test_the_last_user_message_is_found_where_its_words_occur_earlier_and_later():
    chat = (Message("user", "assistant"), Message("assistant", "user"), Message("user", "assistant"))
    prompt = render(Example("q1", chat, spans={"w": (0, 4)}), with_template(CHAT_TEMPLATE))
    start, end = prompt.spans["prompt"]
    assert prompt.text[:start].endswith("<|im_start|>user\n")
    assert prompt.text[end:] == "<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.spans["w"] == (start, start + 4)


def test_spans_follow_a_template_that_strips_blanks():
    content = "\n  the fox jumps  "
    spans = {"fox": (7, 10), "head": (0, 6), "tail": (11, 18)}
    prompt = render(user(content, spans=spans), with_template(TRIMS))
    found = {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}
    assert found == {"prompt": "the fox jumps", "fox": "fox", "head": "the", "tail": "jumps"}


def test_a_span_stripped_away_and_a_message_changed_by_the_template_are_errors():
    with pytest.raises(ValueError, match=r"'q1', field 'spans\.gap'.*strips \[0, 2\]"):
        render(user("  fox", spans={"gap": (0, 2)}), with_template(TRIMS))
    with pytest.raises(ValueError, match=r"'q1'.*changes the last user message"):
        render(user("fox"), with_template(SHOUTS))


# --- answers and raw text -------------------------------------------------------------------------------------------


def test_answer_is_appended_after_the_generation_prompt_and_leaves_the_prompt_tokens_alone(tokenizer):
    bare, forced = (
        render(user("is this compliant ?"), tokenizer),
        render(user("is this compliant ?", answer="yes"), tokenizer),
    )
    assert forced.text == bare.text + "yes"
    assert forced.ids[: len(bare.ids)] == bare.ids
    assert forced.n_prompt == len(bare.ids) == bare.n_prompt
    assert tokenizer.decode(forced.ids[forced.n_prompt :]) == "yes"


def test_an_answer_that_merges_with_the_prompt_is_an_error(tokenizer):
    with pytest.raises(ValueError, match=r"'q1', field 'answer': 'own fox' merges"):
        render(Example("q1", text="the quick br", answer="own fox"), tokenizer)
    assert render(Example("q1", text="the quick", answer=" brown fox"), tokenizer).text == "the quick brown fox"


def test_raw_text_gets_the_tokens_in_front_and_never_one_behind():
    from tokenizers.processors import TemplateProcessing

    tok = with_template(None)
    bos, eos = ("<|im_start|>", tok.convert_tokens_to_ids("<|im_start|>")), ("<|im_end|>", tok.eos_token_id)
    tok.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A {eos[0]}", special_tokens=[bos, eos])
    prompt = render(Example("q1", text="the fox", spans={"fox": (4, 7)}, answer=" jumps"), tok)
    assert prompt.ids[0] == bos[1]
    assert eos[1] not in prompt.ids
    assert tok.decode(prompt.ids[1:]) == prompt.text == "the fox jumps"
    assert prompt.text[slice(*prompt.spans["fox"])] == "fox"
    assert tok.decode(prompt.ids[prompt.n_prompt :]) == " jumps"


# --- refusals -------------------------------------------------------------------------------------------------------


def test_too_long_a_prompt_names_item_length_and_limit_and_nothing_is_cut(tokenizer):
    n = len(render(user("the quick fox", answer="yes"), tokenizer).ids)
    with pytest.raises(ValueError, match=rf"'q1'.*{n} tokens.*limit is {n - 1}"):
        render(user("the quick fox", answer="yes"), tokenizer, max_length=n - 1)
    assert len(render(user("the quick fox", answer="yes"), tokenizer, max_length=n).ids) == n
    with pytest.raises(ValueError, match="max_length"):
        render(user("fox"), tokenizer, max_length=0)


def test_a_slow_tokenizer_and_a_missing_template_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"fast.*Slow"):
        render(user("fox"), Slow())
    with pytest.raises(ValueError, match=r"'q1'.*no chat template.*'text'"):
        render(user("fox"), with_template(None))


def test_a_tokenizer_whose_template_ids_differ_is_refused(monkeypatch):
    tok = with_template(CHAT_TEMPLATE)
    real = tok.apply_chat_template

    def adds_bos(*args, **kw):
        out = real(*args, **kw)
        return {"input_ids": [1, *out["input_ids"]]} if kw.get("tokenize") else out

    monkeypatch.setattr(tok, "apply_chat_template", adds_bos)
    with pytest.raises(ValueError, match=r"'q1'.*apply_chat_template\(tokenize=True\)"):
        render(user("fox"), tok)


def test_a_prompt_without_spans_has_only_prompt_tokens():
    assert Prompt("b", text="", ids=(0, 0), offsets=((0, 0), (0, 0)), spans={}).n_prompt == 2
