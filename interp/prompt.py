"""Examples and the prompts they render to: one text, its tokens with character offsets, its named spans, its hash."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

ROLES = ("system", "user", "assistant")
RESERVED_SPANS = ("prompt", "answer")
SPAN_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_SENTINEL = "diptych-sentinel-4f1c"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One item: a chat (`messages`, ending with the user) or a raw `text`, and what is known about it.

    Attributes:
        spans:  named character ranges [start, end) inside the last user message, or inside `text`.
        answer: assistant text put after the generation prompt, teacher-forced.
        groups: what must not be split across folds (template, procedure, subject).
    Raises:
        ValueError: empty id, neither or both of messages and text, unknown role, empty content, a chat that does not
            end with the user, a span that is empty or out of range, a label that is not finite, an empty answer.
    """

    id: str
    messages: tuple[Message, ...] = ()
    label: str | int | float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    answer: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("field 'id': expected a non-empty string, came ''. Give every example its own id.")
        if bool(self.messages) == (self.text is not None):
            came = "both" if self.messages else "neither"
            raise self._wrong("messages", f"expected either messages or a raw text, came {came}. Give exactly one.")
        self._check_messages()
        if self.text is not None and not self.text.strip():
            raise self._wrong("text", f"expected text, came {self.text!r}. Remove the example or fill it in.")
        if self.answer == "":
            raise self._wrong("answer", "expected text, came ''. Leave the field out where there is no answer.")
        if isinstance(self.label, float) and not math.isfinite(self.label):
            raise self._wrong("label", f"expected a finite number, came {self.label}. Leave it out where unknown.")
        for name, (start, end) in self.spans.items():
            self._check_span(name, start, end)

    @property
    def content(self) -> str:
        """The text that spans refer to: the last user message, or the raw text."""
        return self.text if self.text is not None else self.messages[-1].content

    def _wrong(self, where: str, what: str) -> ValueError:
        return ValueError(f"example {self.id!r}, field '{where}': {what}")

    def _check_messages(self) -> None:
        for i, message in enumerate(self.messages):
            if message.role not in ROLES:
                what = f"expected one of {', '.join(ROLES)}, came {message.role!r}. Rename the role."
                raise self._wrong(f"messages[{i}].role", what)
            if not message.content.strip():
                what = f"expected text, came {message.content!r}. Fill it in or remove the message."
                raise self._wrong(f"messages[{i}].content", what)
        if self.messages and self.messages[-1].role != "user":
            last = len(self.messages) - 1
            what = f"expected the chat to end with 'user', came {self.messages[-1].role!r}. "
            raise self._wrong(f"messages[{last}].role", what + "Put assistant text that is to be read into 'answer'.")

    def _check_span(self, name: str, start: int, end: int) -> None:
        if not SPAN_NAME.fullmatch(name) or name in RESERVED_SPANS:
            what = (
                f"expected a name of letters, digits, _ . - other than {' and '.join(RESERVED_SPANS)}, came {name!r}."
            )
            raise self._wrong("spans", what + " Rename the span.")
        if not 0 <= start < end <= len(self.content):
            what = f"expected 0 <= start < end <= {len(self.content)} (length of the last user message or text), "
            what += f"came [{start}, {end}]. Count characters, not bytes or tokens."
            raise self._wrong(f"spans.{name}", what)


@dataclass(frozen=True)
class Prompt:
    """An example as the model sees it. Token indices count from the first real token, never from padding.

    Attributes:
        text:    the rendered prompt, followed by the answer where there is one.
        ids:     token ids of `text` from one tokenization.
        offsets: per token its character range [start, end) in `text`; several tokens share one multi-byte character.
        spans:   character ranges in `text`: "prompt" (the last user message or raw text), "answer", the example's own.
        template_system: text of a system turn that the chat template put in by itself, up to the end of its content.
        tokens:  vocabulary strings of `ids`.
    """

    example_id: str
    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    spans: Mapping[str, tuple[int, int]]
    template_system: str | None = None
    tokens: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the token ids as little-endian uint32, in hex: what the model was given."""
        return hashlib.sha256(struct.pack(f"<{len(self.ids)}I", *self.ids)).hexdigest()

    @cached_property
    def text_sha256(self) -> str:
        """SHA-256 of the text in UTF-8, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def n_prompt(self) -> int:
        """How many tokens precede the answer; all of them where there is none."""
        if "answer" not in self.spans:
            return len(self.ids)
        start = self.spans["answer"][0]
        return next(i for i, (_, end) in enumerate(self.offsets) if end > start)

    def tokens_in(self, start: int, end: int) -> range:
        """Token indices that share at least one character with [start, end) of `text`, and those between them."""
        hits = [i for i, (left, right) in enumerate(self.offsets) if left < end and right > start]
        return range(hits[0], hits[-1] + 1) if hits else range(0)


@dataclass(frozen=True)
class _Rendered:
    """Template output: `text` ends with the generation prompt; `content` is the user's text at `at`, cut by `cut`."""

    text: str
    at: int
    content: str
    cut: int = 0
    system: str | None = None


def render(example: Example, tokenizer: Any, *, thinking: bool | None = None, max_length: int | None = None) -> Prompt:
    """The prompt of one example: chat template with generation prompt, answer appended, tokenized once with offsets.

    No system message is added; one that the template adds by itself is recorded in `Prompt.template_system`.
    Raw `text` gets only the special tokens that the tokenizer puts in front (BOS).

    Args:
        thinking:   given to the template as `enable_thinking`; None leaves the template's own default.
        max_length: most tokens allowed, answer included. Nothing is ever cut.
    Raises:
        ValueError: no fast tokenizer, no chat template, a thinking switch that the template does not have, a user
            message that the template alters, an answer that merges with the prompt's last token, a prompt too long.
    """
    if not getattr(tokenizer, "is_fast", False):
        came = type(tokenizer).__name__
        raise ValueError(
            f"tokenizer: expected a fast one (character offsets), came {came}. Load it with use_fast=True."
        )
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length: expected at least 1, came {max_length}. Use None for no limit.")
    chat = example.text is None
    if not chat and thinking is not None:
        raise ValueError(
            f"example {example.id!r}: thinking={thinking} has no meaning for a raw text; use thinking=None."
        )
    done = _render_chat(example, tokenizer, thinking) if chat else _Rendered(example.content, 0, example.content)
    prompt = _tokenize(example, tokenizer, done, special=not chat)
    _check_prefix(example, tokenizer, prompt, done, thinking)
    if max_length is not None and len(prompt.ids) > max_length:
        what = f"example {example.id!r}: the prompt has {len(prompt.ids)} tokens, the limit is {max_length}. "
        raise ValueError(what + "Shorten or drop the example, or raise max_length; nothing is cut silently.")
    return prompt


def _template(tokenizer: Any, messages: tuple[Message, ...], thinking: bool | None, *, tokenize: bool = False) -> Any:
    chat = [{"role": m.role, "content": m.content} for m in messages]
    switch = {} if thinking is None else {"enable_thinking": thinking}
    # return_dict is explicit because its default differs between transformers 4 and 5
    out = tokenizer.apply_chat_template(
        chat, tokenize=tokenize, add_generation_prompt=True, return_dict=tokenize, **switch
    )
    return list(out["input_ids"]) if tokenize else out


def _render_chat(example: Example, tokenizer: Any, thinking: bool | None) -> _Rendered:
    if not getattr(tokenizer, "chat_template", None):
        what = (
            f"example {example.id!r}: the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template. "
        )
        raise ValueError(what + "Give base models a raw 'text' instead of messages or prompt.")
    text = _template(tokenizer, example.messages, thinking)
    if thinking is not None and text == _template(tokenizer, example.messages, not thinking):
        what = f"thinking={thinking}: the chat template of {getattr(tokenizer, 'name_or_path', '')!r} has no thinking "
        raise ValueError(what + "switch (both settings render the same prompt). Use thinking=None.")
    at, content, cut = _locate_user(example, tokenizer, thinking, text)
    system = None
    if not any(m.role == "system" for m in example.messages):
        system = _inserted_system(example, tokenizer, thinking, text)
    return _Rendered(text, at, content, cut, system)


def _locate_user(example: Example, tokenizer: Any, thinking: bool | None, text: str) -> tuple[int, str, int]:
    """Where the last user message is in `text`, as it stands there, and how many leading characters it lost."""
    marked = (*example.messages[:-1], Message("user", _SENTINEL))
    before, found, after = _template(tokenizer, marked, thinking).rpartition(_SENTINEL)
    content = example.content
    for kept in (content, content.strip(), content.rstrip(), content.lstrip()):
        if found and text == before + kept + after:
            return len(before), kept, content.index(kept)
    what = f"example {example.id!r}: the chat template changes the last user message ({content[:60]!r}...), "
    raise ValueError(what + "so that its characters cannot be placed. Give the rendered prompt as raw 'text' instead.")


def _inserted_system(example: Example, tokenizer: Any, thinking: bool | None, text: str) -> str | None:
    """Text of a system turn in `text` that nobody gave, found by rendering the chat once more with a marked one."""
    from jinja2 import TemplateError

    try:
        marked = _template(tokenizer, (Message("system", _SENTINEL), *example.messages), thinking)
    except TemplateError:  # templates without a system role (Gemma 2) refuse it
        return None
    before, found, after = marked.partition(_SENTINEL)
    # without a turn of its own it is put in front of the user's text, with or without a separator between them
    folded = after.startswith(example.messages[0].content) or len(before) + len(after) > len(text)
    if not found or folded or not text.startswith(before) or not text.endswith(after):
        return None
    return text[: len(text) - len(after)]


def _tokenize(example: Example, tokenizer: Any, done: _Rendered, *, special: bool) -> Prompt:
    text = done.text + (example.answer or "")
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "truncation": False}
    out = tokenizer(text, add_special_tokens=special, **asked)
    ids, offsets = list(out["input_ids"]), [(int(a), int(b)) for a, b in out["offset_mapping"]]
    while special and ids and out["special_tokens_mask"][len(ids) - 1] and offsets[-1] == (0, 0):
        del ids[-1], offsets[-1]  # an end-of-text put behind the text would become the last position
    spans = {"prompt": (done.at, done.at + len(done.content))}
    if example.answer is not None:
        spans["answer"] = (len(done.text), len(text))
    for name, (start, end) in example.spans.items():
        left, right = max(start - done.cut, 0), min(end - done.cut, len(done.content))
        if left >= right:
            what = f"example {example.id!r}, field 'spans.{name}': the chat template strips [{start}, {end}] away "
            raise ValueError(
                what + f"({example.content[start:end]!r} is whitespace at the edge). Move or drop the span."
            )
        spans[name] = (done.at + left, done.at + right)
    return Prompt(
        example_id=example.id,
        text=text,
        ids=tuple(ids),
        offsets=tuple(offsets),
        spans=spans,
        template_system=done.system,
        tokens=tuple(map(sys.intern, tokenizer.convert_ids_to_tokens(ids))),
    )


def _check_prefix(example: Example, tokenizer: Any, prompt: Prompt, done: _Rendered, thinking: bool | None) -> None:
    """The prompt's own tokens must be those that generation would start from, with or without the answer behind."""
    if example.text is None:
        expected = _template(tokenizer, example.messages, thinking, tokenize=True)
    elif example.answer is None:
        return
    else:
        expected = list(_tokenize(replace(example, answer=None), tokenizer, done, special=True).ids)
    n = len(expected)
    if list(prompt.ids[:n]) == expected and (len(prompt.ids) == n) == (example.answer is None):
        return
    if example.answer is not None:
        what = f"example {example.id!r}, field 'answer': {example.answer[:20]!r} merges with the prompt's last token "
        what += f"({done.text[-20:]!r}), so no position predicts it. "
        raise ValueError(what + "Move leading blanks or line breaks between prompt and answer.")
    what = f"example {example.id!r}: this tokenizer gives {n} ids through apply_chat_template(tokenize=True) but "
    what += f"{len(prompt.ids)} for the same text tokenized with offsets (add_special_tokens=False). "
    raise ValueError(what + "Generation would not see the recorded prompt; repair the tokenizer's special tokens.")
