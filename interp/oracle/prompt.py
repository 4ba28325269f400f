"""The oracle's prompt: formats of published oracles, rendered as tokens; wordings of one question.

Slots are located by character offsets, then every slot is checked against the placeholder's token id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from random import Random
from typing import Any

from interp.oracle.spec import FORMATS, Format, OracleSpec
from interp.prompt import Example, Message, Prompt, render
from interp.template import apply_template

_SENTINEL = "diptych-sentinel-7c02"  # text that occurs in no chat template
OPTIONS = "{choices}"


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
        ValueError: the placeholder is not one token or merges with its neighbours, the question is empty, the tokenizer
            has no offsets, or the answer merges with the prompt.
    """
    if not question.strip():
        raise ValueError("question: expected text, got nothing.")
    if end_of_turn and answer is None:
        raise ValueError("end_of_turn=True needs an answer to end; got answer=None.")
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
    """Token id of a placeholder. Raises ValueError if the tokenizer splits it into several."""
    ids = tokenizer.encode(placeholder, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"placeholder {placeholder!r}: this tokenizer makes {len(ids)} tokens of it, expected one. The oracle was "
            f"trained on another tokenizer, or its spec names the wrong placeholder."
        )
    return int(ids[0])


def thinking_switch(tokenizer: Any, enabled: bool | None) -> bool | None:
    """`enabled` if the chat template has a thinking switch, else None (such a template ignores the argument)."""
    if enabled is None:
        return None
    return enabled if _has_switch(getattr(tokenizer, "chat_template", "") or "", tokenizer) else None


def turn_end(tokenizer: Any) -> str:
    """Text that the chat template appends to an assistant's turn, e.g. "<|im_end|>\\n"."""
    text = apply_template(tokenizer, [("user", "u"), ("assistant", _SENTINEL)], generation_prompt=False)
    return text.rpartition(_SENTINEL)[2]


@lru_cache(maxsize=8)
def _has_switch(template: str, tokenizer: Any) -> bool:  # `template` is part of the cache key: it can be reassigned
    texts = {apply_template(tokenizer, [("user", _SENTINEL)], thinking=on) for on in (False, True)}
    return len(texts) == 2


def _stripped(content: str, prompt: Prompt) -> int:
    """Number of characters that the chat template strips from the front of the user's message."""
    start, end = prompt.spans["prompt"]
    return content.index(prompt.text[start:end])


def _token_at(prompt: Prompt, character: int) -> int:
    return next(i for i, (a, b) in enumerate(prompt.offsets) if a <= character < b)


def _placeholder_of_slots(spec: OracleSpec, slot_layers: Sequence[int], layers: Sequence[int]) -> list[str]:
    if len(spec.placeholders) == 1:
        return [spec.placeholders[0]] * len(slot_layers)
    by_layer = dict(zip(layers, spec.placeholders, strict=True))
    return [by_layer[layer] for layer in slot_layers]


def _check_slots(prompt: Prompt, slots: tuple[int, ...], expected: list[int], spec: OracleSpec) -> None:
    for number, (slot, placeholder) in enumerate(zip(slots, expected, strict=True)):
        if prompt.ids[slot] != placeholder:
            raise ValueError(
                f"oracle prompt, slot {number}: expected the placeholder's token id {placeholder} at token {slot}, got "
                f"{prompt.ids[slot]} ({prompt.tokens[slot]!r}): it merged with its neighbours or was stripped. "
                f"Format {spec.format!r} with placeholder {spec.placeholder!r} does not fit this tokenizer."
            )
    if len(set(slots)) != len(slots):
        raise ValueError("oracle prompt: two placeholders fell into one token; this tokenizer joins them.")


def with_answer(prompt: OraclePrompt, answer: str | tuple[int, ...] | None) -> OraclePrompt:
    """The prompt followed by generated token ids. An answer given as text is already part of the rendered prompt."""
    if not answer or isinstance(answer, str):
        return prompt
    return replace(prompt, ids=prompt.ids[: prompt.answer_start] + answer)


@dataclass(frozen=True)
class Prefix:
    """The text before the question and the character offset of each placeholder, in reading order.

    Attributes:
        text:   ends with a line break.
        marks:  offset of each placeholder's visible character: of the "?" in " ?".
        layers: source layer of each placeholder; vectors are injected in this order.
    """

    text: str
    marks: tuple[int, ...]
    layers: tuple[int, ...]


def render_prefix(
    format: Format, placeholders: Sequence[str], *, layers: Sequence[int], counts: Sequence[int], flat: bool = False
) -> Prefix:
    """The prefix of one format. With layers 9, 18 and two positions each ("\\n" is a line break):

        A   Layer: 18\\n ? ? \\n                          one layer
        A'  Layer: 9\\n ? ? \\nLayer: 18\\n ? ? \\n        A once per layer
        B   L9: ? ? L18: ? ?.\\n
        D   Layer: 9, 18\\n @ ? @ ? \\n                   position by position; placeholders may differ by layer
        E   L9: ¶ ¶ L18: ¶ ¶\\n, or flat: ¶ ¶ ¶ ¶\\n       placeholder " ¶"

    Args:
        placeholders: one for all layers, or one per layer.
        layers: block indices, in the order in which they are written.
        counts: positions of each layer.
        flat: format E without layer names.
    Raises:
        ValueError: the format is unknown, or the counts do not fit it.
    Source: dataset_utils.py of adamkarvonen/activation_oracles (A), of its multi-layer fork (A'), and of
        ceselder/cot-oracle (B, D, E).
    """
    _check(format, placeholders, layers, counts, flat)
    marks = list(placeholders) * len(layers) if len(placeholders) == 1 else list(placeholders)
    page = _Page()
    _WRITERS[format](page, list(zip(layers, counts, marks, strict=True)), flat)
    return page.prefix()


class _Page:
    """Text under construction, with the offset and layer of every placeholder."""

    def __init__(self) -> None:
        self.text = ""
        self.marks: list[int] = []
        self.layers: list[int] = []

    def write(self, text: str) -> None:
        self.text += text

    def put(self, placeholder: str, layer: int) -> None:
        self.marks.append(len(self.text) + len(placeholder) - len(placeholder.lstrip()))
        self.layers.append(layer)
        self.text += placeholder

    def prefix(self) -> Prefix:
        return Prefix(self.text, tuple(self.marks), tuple(self.layers))


_Blocks = list[tuple[int, int, str]]


def _a(page: _Page, blocks: _Blocks, flat: bool) -> None:
    for layer, count, placeholder in blocks:
        page.write(f"Layer: {layer}\n")
        for _ in range(count):
            page.put(placeholder, layer)
        page.write(" \n")  # without the blank, Qwen's pre-tokenizer makes one unit of " ?\n"


def _named(page: _Page, blocks: _Blocks) -> None:
    for number, (layer, count, placeholder) in enumerate(blocks):
        page.write(f"{' ' if number else ''}L{layer}:")
        for _ in range(count):
            page.put(placeholder, layer)


def _b(page: _Page, blocks: _Blocks, flat: bool) -> None:
    _named(page, blocks)
    page.write(".\n")


def _d(page: _Page, blocks: _Blocks, flat: bool) -> None:
    page.write(f"Layer: {', '.join(str(layer) for layer, _, _ in blocks)}\n")
    for _ in range(blocks[0][1]):
        for layer, _, placeholder in blocks:
            page.put(placeholder, layer)
    page.write(" \n")


def _e(page: _Page, blocks: _Blocks, flat: bool) -> None:
    if flat:
        for layer, count, placeholder in blocks:
            for _ in range(count):
                page.put(placeholder, layer)
    else:
        _named(page, blocks)
    page.write("\n")


_WRITERS: dict[str, Callable[[_Page, _Blocks, bool], None]] = {"A": _a, "A'": _a, "B": _b, "D": _d, "E": _e}


def _check(format: str, placeholders: Sequence[str], layers: Sequence[int], counts: Sequence[int], flat: bool) -> None:
    if format not in FORMATS:
        raise ValueError(f"oracle prompt format: expected one of {', '.join(FORMATS)}, got {format!r}.")
    if not layers or len(counts) != len(layers) or min(counts) < 1:
        raise ValueError(
            f"oracle prompt: expected one count >= 1 per layer, got layers {list(layers)}, counts {list(counts)}."
        )
    if len(set(layers)) != len(layers):
        raise ValueError(f"oracle prompt: expected different layers, got {list(layers)}.")
    if len(placeholders) not in (1, len(layers)):
        raise ValueError(
            f"oracle prompt: expected one placeholder, or one per layer ({len(layers)}), got {len(placeholders)}."
        )
    if format == "A" and len(layers) > 1:
        raise ValueError(f"oracle prompt format A has one layer, got {list(layers)}; use A' for several.")
    if format == "D" and len(set(counts)) > 1:
        raise ValueError(
            f"oracle prompt format D is written position by position: expected equal counts, got {list(counts)}."
        )
    if flat and format != "E":
        raise ValueError(f"flat=True: only format E has a flat prefix, got format {format!r}.")


def phrasings_of(questions: Sequence[str], choices: Sequence[str], n_orders: int, seed: int) -> list[str]:
    """Every wording of a question with every order of its choices; the first has the choices in their given order."""
    orders = [list(choices)]
    rng = Random(f"{seed}/orders")
    for _ in range(1000):
        if len(orders) >= n_orders:
            break
        trial = rng.sample(list(choices), len(choices))
        orders += [trial] if trial not in orders else []
    filled = [q.replace(OPTIONS, ", ".join(order)) for q in questions for order in orders]
    return list(dict.fromkeys(filled))


def check_choices(tokenizer: Any, question: str, choices: Sequence[str], n_orders: int, end_of_turn: bool) -> None:
    """Check that the choices can be compared by likelihood.

    Raises:
        ValueError: fewer than two different choices; a choice that is a prefix of another, unless the end of the turn
            is counted; `n_orders` > 1 for a question that does not list the choices.
    """
    if len(choices) < 2 or len(set(choices)) != len(choices):
        raise ValueError(f"choices: expected at least two different ones, got {list(choices)}.")
    if n_orders > 1 and OPTIONS not in question:
        raise ValueError(f"n_orders={n_orders}: the question does not list the choices; put {OPTIONS} into it.")
    ids = {c: tuple(tokenizer.encode(c, add_special_tokens=False)) for c in choices}
    for short, long in product(choices, choices):
        if short != long and ids[long][: len(ids[short])] == ids[short] and not end_of_turn:
            raise ValueError(
                f"choices: {short!r} is a prefix of {long!r}, so it is always the likelier one. Pass end_of_turn=True."
            )
