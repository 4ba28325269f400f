"""The oracle's prompt as tokens: rendered once, slots placed by character offsets, then checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from interp.oracle.formats import render_prefix
from interp.oracle.spec import OracleSpec
from interp.prompt import Example, Message, Prompt, render
from interp.template import apply_template

_SENTINEL = "diptych-sentinel-7c02"


@dataclass(frozen=True)
class OraclePrompt:
    """One question about activations, as the oracle sees it.

    Attributes:
        text, ids: rendered chat with generation prompt, then the answer where there is one.
        slots: token of each placeholder in reading order; vectors go in in this order.
        layers: source layer of each slot.
        answer_start: first token of the answer; len(ids) where there is none.
    """

    text: str
    ids: tuple[int, ...]
    slots: tuple[int, ...]
    layers: tuple[int, ...]
    answer_start: int


def render_question(
    spec: OracleSpec,
    tokenizer: Any,
    *,
    layers: Sequence[int],
    counts: Sequence[int],
    question: str,
    answer: str | None = None,
    end_of_turn: bool = False,
) -> OraclePrompt:
    """The prompt of one question about `counts[i]` activations of block `layers[i]`.

    Args:
        answer: teacher-forced text after the generation prompt.
        end_of_turn: append what the chat template writes after an answer ("<|im_end|>\\n"), as training does.
    Raises:
        ValueError: a placeholder that is not one token or that merges with its neighbours, an empty question, a
            tokenizer without offsets, an answer that merges with the prompt.
    """
    if not question.strip():
        raise ValueError("question: expected text, got nothing.")
    if end_of_turn and answer is None:
        raise ValueError("end_of_turn=True: there is no answer to end.")
    prefix = render_prefix(spec.format, spec.placeholders, layers=layers, counts=counts, flat=spec.flat)
    closing = turn_end(tokenizer) if end_of_turn else ""
    example = Example(
        id="oracle question",
        messages=(Message("user", prefix.text + question),),
        answer=None if answer is None else answer + closing,
    )
    prompt = render(example, tokenizer, thinking=thinking_switch(tokenizer, spec.enable_thinking))
    start = prompt.spans["prompt"][0] - _stripped(prefix.text + question, prompt)
    slots = tuple(_token_at(prompt, start + mark) for mark in prefix.marks)
    expected = [placeholder_id(tokenizer, p) for p in _placeholder_of_slots(spec, prefix.layers, layers)]
    _check_slots(prompt, slots, expected, spec)
    return OraclePrompt(prompt.text, prompt.ids, slots, prefix.layers, prompt.n_prompt)


def placeholder_id(tokenizer: Any, placeholder: str) -> int:
    """The one token of a placeholder. Raises ValueError where the tokenizer splits it."""
    ids = tokenizer.encode(placeholder, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"placeholder {placeholder!r}: this tokenizer makes {len(ids)} tokens of it, expected one. The oracle was "
            f"trained on another tokenizer, or its spec names the wrong placeholder."
        )
    return int(ids[0])


def thinking_switch(tokenizer: Any, wanted: bool | None) -> bool | None:
    """`wanted` where the chat template has a thinking switch, else None (the original passes it in vain, too)."""
    if wanted is None:
        return None
    return wanted if _has_switch(getattr(tokenizer, "chat_template", "") or "", tokenizer) else None


def turn_end(tokenizer: Any) -> str:
    """What the chat template writes after an assistant's text, e.g. "<|im_end|>\\n"."""
    text = apply_template(tokenizer, [("user", "u"), ("assistant", _SENTINEL)], generation_prompt=False)
    return text.rpartition(_SENTINEL)[2]


@lru_cache(maxsize=8)
def _has_switch(template: str, tokenizer: Any) -> bool:
    texts = {apply_template(tokenizer, [("user", _SENTINEL)], thinking=on) for on in (False, True)}
    return len(texts) == 2


def _stripped(content: str, prompt: Prompt) -> int:
    """Characters that the chat template strips off the front of the user's message."""
    start, end = prompt.spans["prompt"]
    return content.index(prompt.text[start:end])


def _token_at(prompt: Prompt, character: int) -> int:
    return next(i for i, (a, b) in enumerate(prompt.offsets) if a <= character < b)


def _placeholder_of_slots(spec: OracleSpec, slots: Sequence[int], layers: Sequence[int]) -> list[str]:
    if len(spec.placeholders) == 1:
        return [spec.placeholders[0]] * len(slots)
    of = dict(zip(layers, spec.placeholders, strict=True))
    return [of[layer] for layer in slots]


def _check_slots(prompt: Prompt, slots: tuple[int, ...], expected: list[int], spec: OracleSpec) -> None:
    for number, (slot, want) in enumerate(zip(slots, expected, strict=True)):
        if prompt.ids[slot] != want:
            raise ValueError(
                f"oracle prompt, slot {number}: expected the placeholder {want} at token {slot}, found "
                f"{prompt.ids[slot]} ({prompt.tokens[slot]!r}): it merged with its neighbours or was stripped. "
                f"Format {spec.format!r} with placeholder {spec.placeholder!r} does not fit this tokenizer."
            )
    if len(set(slots)) != len(slots):
        raise ValueError("oracle prompt: two placeholders fell into one token; this tokenizer joins them.")


def with_answer(prompt: OraclePrompt, answer: str | tuple[int, ...] | None) -> OraclePrompt:
    """The prompt followed by generated tokens; text was rendered into it before."""
    if not answer or isinstance(answer, str):
        return prompt
    return replace(prompt, ids=prompt.ids[: prompt.answer_start] + answer)
