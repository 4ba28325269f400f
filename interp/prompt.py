"""Prompts rendered from examples: the text, its tokens with character offsets, its named spans, its hash."""

from __future__ import annotations

import hashlib
import struct
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from interp.example import Example as Example
from interp.example import Message as Message
from interp.remedy import remedy
from interp.template import ChatTemplateError, apply_template, check_opens_turn, marker_of, rules_of, special_tokens

_SENTINEL = "diptych-sentinel-4f1c"
_PIECE = 4_000  # characters
_LONGEST = 1_000_000  # tokens, where no limit is given


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
        kept_as_text: control tokens written out in the messages, which stay the text that they are.
        dropped_bos: the raw text begins with the BOS token that the tokenizer would have put before it.
    """

    example_id: str
    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    spans: Mapping[str, tuple[int, int]]
    template_system: str | None = None
    tokens: tuple[str, ...] = ()
    kept_as_text: tuple[str, ...] = ()
    dropped_bos: bool = False

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
    """Template output: `text` ends with the generation prompt; `content` is the user's text at `at`, cut by `cut`.

    `marked` is `text` with the control tokens that messages hold as private characters; None where there are none.
    """

    text: str
    at: int
    content: str
    cut: int = 0
    system: str | None = None
    marked: str | None = None
    kept_as_text: tuple[str, ...] = ()


def render(example: Example, tokenizer: Any, *, thinking: bool | None = None, max_length: int | None = None) -> Prompt:
    """The prompt of one example: chat template with generation prompt, answer appended, tokenized once with offsets.

    No system message is added; one that the template adds by itself is recorded in `Prompt.template_system`.
    Raw `text` gets only the special tokens that the tokenizer puts in front (BOS), once if it begins with BOS itself.
    Control tokens written out in messages stay text; see `interp.template.PromptRules`.

    Args:
        thinking:   given to the template as `enable_thinking`; None leaves the template's own default.
        max_length: largest number of tokens allowed, answer included. Prompts are never truncated.
    Raises:
        ValueError: no fast tokenizer, no chat template, or one that opens no assistant turn, a thinking switch that the
            template does not have, a user message that the template alters, an answer that merges with the prompt's
            last token, a prompt too long.

    Example:
        >>> prompt = render(Example("a", text="the quick brown fox"), tokenizer)
        >>> prompt.text, prompt.spans["prompt"]
        ('the quick brown fox', (0, 19))
    """
    if not getattr(tokenizer, "is_fast", False):
        kind = type(tokenizer).__name__
        raise ValueError(f"tokenizer: expected a fast one (character offsets), got {kind}. Load it with use_fast=True.")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length: expected at least 1, got {max_length}. Use None for no limit.")
    chat = example.text is None
    if not chat and thinking is not None:
        raise ValueError(
            f"example {example.id!r}: thinking={thinking} has no meaning for a raw text; "
            f"{remedy('leave {thinking} out', 'leave it out')}."
        )
    rendered = _render_chat(example, tokenizer, thinking) if chat else _Rendered(example.content, 0, example.content)
    _refuse_far_too_long(example, tokenizer, rendered.text, max_length)
    prompt = _tokenize(example, tokenizer, rendered, special=not chat)
    _check_prefix(example, tokenizer, prompt, rendered, thinking)
    if max_length is not None and len(prompt.ids) > max_length:
        what = f"example {example.id!r}: the prompt has {len(prompt.ids)} tokens, the limit is {max_length}. "
        raise ValueError(what + "Shorten or drop the example, or raise max_length; nothing is cut silently.")
    return prompt


def _refuse_far_too_long(example: Example, tokenizer: Any, text: str, max_length: int | None) -> None:
    """Refuse a prompt of twice the limit or more by the characters per token of three pieces of it.

    Tokenizing 4 MB takes seconds and gigabytes. Only a text of more than 8 characters per allowed token is estimated.
    """
    what = f"the limit is {max_length}" if max_length else f"no model accepts more than {_LONGEST:,}"
    max_length = max_length or _LONGEST
    if len(text) <= max(8 * max_length, 6 * _PIECE):
        return
    starts = (0, len(text) // 2, len(text) - _PIECE)
    pieces = [len(tokenizer(text[at : at + _PIECE], add_special_tokens=False)["input_ids"]) for at in starts]
    estimate = round(len(text) * min(pieces) / _PIECE)
    if estimate >= 2 * max_length:
        raise ValueError(
            f"example {example.id!r}: the prompt has {len(text):,} characters, at least about {estimate:,} tokens; "
            f"{what}. Shorten or drop the example; nothing is cut silently."
        )


def render_all(
    examples: Sequence[Example], tokenizer: Any, *, thinking: bool | None = None, max_length: int | None = None
) -> list[Prompt]:
    """The prompt of every example; a warning about several of them is given once, with counts.

    Raises:
        ValueError: as `render`; names the first such example.
    Warns:
        UserWarning: items whose messages contain control tokens, which stay text; raw texts with a BOS of their own.
    """
    prompts = [render(example, tokenizer, thinking=thinking, max_length=max_length) for example in examples]
    marked = [prompt for prompt in prompts if prompt.kept_as_text]
    if marked:
        tokens = sorted({token for prompt in marked for token in prompt.kept_as_text})
        warnings.warn(
            f"{len(marked)} of {len(prompts)} items have control tokens in their messages ({', '.join(tokens[:5])}; "
            f"first item {marked[0].example_id!r}): kept as text. {remedy('{control_tokens:refuse} stops there.')}",
            stacklevel=2,
        )
    bos = [prompt.example_id for prompt in prompts if prompt.dropped_bos]
    if bos:
        warnings.warn(
            f"{len(bos)} of {len(prompts)} raw texts already begin with {tokenizer.bos_token!r} (first item "
            f"{bos[0]!r}): it is kept once, not doubled.",
            stacklevel=2,
        )
    return prompts


def joined(example: Example, before: str, label: str, delimiter: str = " ") -> str:
    """The assistant's text `before` and a label after it, as `Example.answer` takes it.

        (example.answer or "") + before + [delimiter] + label

    The delimiter is added after a text that does not end in whitespace: the assistant's own, or a raw prompt
    ("... Answer:" and "yes" give "... Answer: yes"). After a chat's header none is needed.

    Source: the target delimiter of lm-evaluation-harness, " " by default.
    """
    text = (example.answer or "") + before
    context = text or example.text or ""
    return text + (delimiter if context and not context[-1].isspace() else "") + label


def _template(tokenizer: Any, messages: Sequence[Message], thinking: bool | None, *, tokenize: bool = False) -> Any:
    return apply_template(tokenizer, [(m.role, m.content) for m in messages], thinking=thinking, tokenize=tokenize)


def _render_chat(example: Example, tokenizer: Any, thinking: bool | None) -> _Rendered:
    if not getattr(tokenizer, "chat_template", None):
        what = (
            f"example {example.id!r}: the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template. "
        )
        how = remedy("Render chats as plain text with {template:plain}, or give", "Give")
        raise ValueError(what + how + " raw 'text' instead of messages or prompt.")
    text = _template(tokenizer, example.messages, thinking)
    if thinking is not None and text == _template(tokenizer, example.messages, not thinking):
        what = f"thinking={thinking}: the chat template of {getattr(tokenizer, 'name_or_path', '')!r} has no thinking "
        raise ValueError(
            what + "switch (both settings render the same prompt). " + remedy("Leave {thinking} out.", "Leave it out.")
        )
    check_opens_turn(tokenizer, tuple(m.role for m in example.messages), thinking)
    at, content, cut = _locate_user(example, tokenizer, thinking, text)
    system = None
    if not any(m.role == "system" for m in example.messages):
        system = _inserted_system(example, tokenizer, thinking, text)
    marked, kept = _marked(example, tokenizer, thinking, text)
    return _Rendered(text, at, content, cut, system, marked, kept)


def _marked(example: Example, tokenizer: Any, thinking: bool | None, text: str) -> tuple[str | None, tuple[str, ...]]:
    """`text` with the control tokens of the messages marked, and which they are; (None, ()) where there are none."""
    tokens = special_tokens(tokenizer)
    places = {f"messages[{i}].content": m.content for i, m in enumerate(example.messages)}
    by_field = {where: [t for t in tokens if t in content] for where, content in places.items()}
    by_field = {where: present for where, present in by_field.items() if present}
    if not by_field:
        return None, ()
    where, present = next(iter(by_field.items()))
    if rules_of(tokenizer).control_tokens == "refuse":
        raise ValueError(
            f"example {example.id!r}, field '{where}': expected text without control tokens, got {', '.join(present)}. "
            f"Remove the item{remedy(', or keep them as text with {control_tokens:text}')}."
        )
    marker = marker_of(tokenizer)
    marked = _template(tokenizer, [replace(m, content=marker.mark(m.content)) for m in example.messages], thinking)
    if marker.unmark(marked) != text:
        raise ValueError(
            f"example {example.id!r}, field '{where}': the chat template acts on its control tokens "
            f"{', '.join(present)}, so they cannot be kept as text. Remove the item."
        )
    return marked, tuple(dict.fromkeys(token for tokens in by_field.values() for token in tokens))


def _locate_user(example: Example, tokenizer: Any, thinking: bool | None, text: str) -> tuple[int, str, int]:
    """(start of the last user message in `text`, the message as rendered, leading characters that were stripped)."""
    marked = (*example.messages[:-1], Message("user", _SENTINEL))
    before, sentinel, after = _template(tokenizer, marked, thinking).rpartition(_SENTINEL)
    content = example.content
    for kept in (content, content.strip(), content.rstrip(), content.lstrip()):
        if sentinel and text == before + kept + after:
            return len(before), kept, content.index(kept)
    what = f"example {example.id!r}: the chat template changes the last user message ({content[:60]!r}...), "
    raise ValueError(what + "so its characters cannot be located. Give the rendered prompt as raw 'text' instead.")


def _inserted_system(example: Example, tokenizer: Any, thinking: bool | None, text: str) -> str | None:
    """Text of a system turn that the template added by itself, located by rendering the chat with a marked one."""
    try:
        marked = _template(tokenizer, (Message("system", _SENTINEL), *example.messages), thinking)
    except ChatTemplateError:  # templates without a system role (Gemma 2) raise
        return None
    before, sentinel, after = marked.partition(_SENTINEL)
    # without a turn of its own it is put in front of the user's text, with or without a separator between them
    folded = after.startswith(example.messages[0].content) or len(before) + len(after) > len(text)
    if not sentinel or folded or not text.startswith(before) or not text.endswith(after):
        return None
    return text[: len(text) - len(after)]


def _tokenize(example: Example, tokenizer: Any, rendered: _Rendered, *, special: bool) -> Prompt:
    text, dropped = rendered.text + (example.answer or ""), False
    if rendered.marked is not None:
        ids, offsets = marker_of(tokenizer).encode(rendered.marked + (example.answer or ""))
    else:
        ids, offsets, dropped = _encode(tokenizer, text, special=special)
    spans = {"prompt": (rendered.at, rendered.at + len(rendered.content))}
    if example.answer is not None:
        spans["answer"] = (len(rendered.text), len(text))
    for name, (start, end) in example.spans.items():
        left, right = max(start - rendered.cut, 0), min(end - rendered.cut, len(rendered.content))
        if left >= right:
            what = f"example {example.id!r}, field 'spans.{name}': the chat template strips [{start}, {end}] away "
            raise ValueError(
                what + f"({example.content[start:end]!r} is whitespace at the edge). Move or drop the span."
            )
        spans[name] = (rendered.at + left, rendered.at + right)
    return Prompt(
        example_id=example.id,
        text=text,
        ids=tuple(ids),
        offsets=tuple(offsets),
        spans=spans,
        template_system=rendered.system,
        tokens=tuple(map(sys.intern, tokenizer.convert_ids_to_tokens(ids))),
        kept_as_text=rendered.kept_as_text,
        dropped_bos=dropped,
    )


def _encode(tokenizer: Any, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]], bool]:
    """(ids, character ranges, whether a second BOS was left out) of a text; `special` adds the tokens in front."""
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "truncation": False}
    out = tokenizer(text, add_special_tokens=special, **asked)
    ids, offsets = list(out["input_ids"]), [(int(a), int(b)) for a, b in out["offset_mapping"]]
    while special and ids and out["special_tokens_mask"][len(ids) - 1] and offsets[-1] == (0, 0):
        del ids[-1], offsets[-1]  # an end-of-text token after the text would become the last position
    bos = getattr(tokenizer, "bos_token_id", None)
    dropped = special and ids[:2] == [bos, bos] and offsets[0] == (0, 0) != offsets[1]
    return (ids[1:], offsets[1:], True) if dropped else (ids, offsets, False)


def _check_prefix(example: Example, tokenizer: Any, prompt: Prompt, rendered: _Rendered, thinking: bool | None) -> None:
    """Check that the prompt's tokens are those that generation would start from, with or without an answer after it."""
    if example.text is None and rendered.marked is None:
        expected = _template(tokenizer, example.messages, thinking, tokenize=True)
    elif example.answer is None:
        return
    else:
        special = example.text is not None
        expected = list(_tokenize(replace(example, answer=None), tokenizer, rendered, special=special).ids)
    n = len(expected)
    if list(prompt.ids[:n]) == expected and (len(prompt.ids) == n) == (example.answer is None):
        return
    if example.answer is not None:
        what = f"example {example.id!r}, field 'answer': {example.answer[:20]!r} merges with the prompt's last token "
        what += f"({rendered.text[-20:]!r}), so no position predicts it. "
        raise ValueError(what + "Move leading spaces or line breaks of the answer into the prompt.")
    what = f"example {example.id!r}: this tokenizer gives {n} ids through apply_chat_template(tokenize=True) but "
    what += f"{len(prompt.ids)} for the same text tokenized with offsets (add_special_tokens=False). "
    raise ValueError(what + "Generation would not see the recorded prompt; repair the tokenizer's special tokens.")
