"""The loaded tokenizer gives the ids of the checkpoint's own tokenizer.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp import Example, Model, render
from tests.real.kit import TEXTS

pytestmark = pytest.mark.quick
ODD = ("  two blanks", "tab\tand\nline", "Ünïcödé – 12,345.678 日本語", "a" * 40, "<b>&amp;</b>")


def test_ids_are_those_of_its_own_file(model: Model, checkpoint: Path) -> None:
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    for text in (*TEXTS, *ODD):
        ours = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ours == own.encode(text, add_special_tokens=False).ids, text


def test_a_prompt_is_the_template_s_own_text(model: Model) -> None:
    """Spans of a rendered prompt are where its ids say, with a chat template and without one."""
    prompt = render(Example("a", text=TEXTS[0]), model.tokenizer)
    assert TEXTS[0] in model.tokenizer.decode(prompt.ids)
