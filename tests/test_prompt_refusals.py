"""Texts that no prompt is made of: invisible characters, half a surrogate pair, far more than the context."""

from __future__ import annotations

import pytest

from interp.prompt import Example, Message, render
from tests.tiny import tiny_tokenizer


def user(content: str, **kw) -> Example:
    return Example("q1", (Message("user", content),), **kw)


@pytest.mark.parametrize(
    "nothing", [" \u200b ", "\ufeff", "\u2060\n", "\u3164", "\u2800", "\u00ad", "\u202e", "\ufe0f"]
)
def test_a_prompt_of_invisible_characters_is_refused(nothing):
    with pytest.raises(ValueError, match=r"'q1', field 'messages\[0\].content'"):
        user(nothing)
    with pytest.raises(ValueError, match="'r', field 'text'"):
        Example("r", text=nothing)
    assert user(nothing + "。").content == nothing + "。"


@pytest.mark.parametrize("bad", ["a\ud800b", "\udfff", "a\x00b"])
@pytest.mark.parametrize(
    "where",
    ["id", "text", "answer", "label", "groups.g", "metadata.note", "metadata.turns[1].text", "messages[0].content"],
)
def test_half_a_surrogate_pair_or_nul_is_refused_in_every_field(where, bad):
    fields = {"id": "q", "text": "fox", "answer": "yes", "label": "a", "groups": {"g": "1"},
              "metadata": {"note": "n", "turns": [{"text": "a"}, {"text": "b"}]}}  # fmt: skip
    if where == "messages[0].content":
        fields = {"id": "q", "messages": (Message("user", bad),)}
    elif where == "groups.g":
        fields["groups"] = {"g": bad}
    elif where == "metadata.note":
        fields["metadata"]["note"] = bad
    elif where.startswith("metadata"):
        fields["metadata"]["turns"][1]["text"] = bad
    else:
        fields[where] = bad
    with pytest.raises(ValueError, match="character") as error:
        Example(**fields)
    assert f"field '{where}'" in str(error.value)
    str(error.value).encode()


def test_a_prompt_far_over_the_limit_is_refused_without_tokenizing_it():
    tok, seen = tiny_tokenizer(), []
    real = type(tok).__call__

    class Counting(type(tok)):
        def __call__(self, text, *args, **kw):
            seen.append(len(text))
            return real(self, text, *args, **kw)

    tok.__class__ = Counting
    with pytest.raises(ValueError, match=r"'r': the prompt has 4,000,000 characters, .*the limit is 2048"):
        render(Example("r", text="the fox " * 500_000), tok, max_length=2048)
    assert sum(seen) < 50_000
    n = len(
        render(Example("r", text=" " * 30_000 + "fox"), tok).ids
    )  # an honest text of long tokens is counted exactly
    assert len(render(Example("r", text=" " * 30_000 + "fox"), tok, max_length=n).ids) == n
