"""An example: a chat or a raw text, with its label, groups and spans; invalid ones are refused here."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

ROLES = ("system", "user", "assistant")
RESERVED_SPANS = ("prompt", "answer")
SPAN_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")  # NUL, and halves of surrogate pairs: no UTF-8, so no tokens
# Characters that Unicode counts as letters or signs and that render as nothing: joiners, fillers, selectors.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def holds_text(text: str) -> bool:
    """Whether a text has a visible character: one that is not blank, control or invisible."""
    return any(unicodedata.category(c) not in ("Zs", "Zl", "Zp", "Cc", "Cf") and not _BLANK.match(c) for c in text)


def unreadable(text: str) -> str | None:
    """The first character of a text that has no UTF-8 (NUL, half a surrogate pair), in words; None if there is none."""
    match = _NOT_TEXT.search(text)
    return None if match is None else f"{match[0]!a} at character {match.start()}"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One item: a chat (`messages`, ending with the user) or a raw `text`, with its label and metadata.

    Attributes:
        spans:  named character ranges [start, end) inside the last user message, or inside `text`.
        answer: assistant text after the generation prompt, teacher-forced.
        groups: units that must not be split across folds (template, procedure, subject).
    Raises:
        ValueError: empty id, neither or both of messages and text, unknown role, empty content, a chat that does not
            end with the user, a span that is empty or out of range, a label that is not finite, an empty answer.

    Example:
        >>> Example("q1", (Message("user", "Is ice cold?"),), label="yes", groups={"topic": "ice"}).content
        'Is ice cold?'
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
            raise ValueError("field 'id': expected a non-empty string, got ''. Give every example its own id.")
        self._check_characters()
        if bool(self.messages) == (self.text is not None):
            which = "both" if self.messages else "neither"
            raise self._wrong("messages", f"expected either messages or a raw text, got {which}. Give exactly one.")
        self._check_messages()
        if self.text is not None and not holds_text(self.text):
            raise self._wrong("text", f"expected text, got {self.text!r}. Remove the example or fill it in.")
        if self.answer == "":
            raise self._wrong("answer", "expected text, got ''. Leave the field out if there is no answer.")
        if isinstance(self.label, float) and not math.isfinite(self.label):
            raise self._wrong("label", f"expected a finite number, got {self.label}. Leave it out if it is unknown.")
        for name, (start, end) in self.spans.items():
            self._check_span(name, start, end)

    @property
    def content(self) -> str:
        """The text that spans refer to: the last user message, or the raw text."""
        return self.text if self.text is not None else self.messages[-1].content

    def _wrong(self, where: str, what: str) -> ValueError:
        return ValueError(f"example {self.id!r}, field '{where}': {what}")

    def _check_characters(self) -> None:
        """Refuse characters that have no UTF-8 in any field: the tokenizer or a table would fail much later."""
        texts = {"id": self.id, "text": self.text, "answer": self.answer, "label": self.label}
        texts |= {
            f"messages[{i}].{key}": getattr(m, key) for i, m in enumerate(self.messages) for key in ("role", "content")
        }
        texts |= {f"groups.{key}": f"{key}{value}" for key, value in self.groups.items()}
        for where, text in (*texts.items(), *_texts_in(self.metadata, "metadata")):
            if isinstance(text, str) and (what := unreadable(text)) is not None:
                raise self._wrong(
                    where, f"expected text, got {what}. Remove that character, or save the file again as UTF-8."
                )

    def _check_messages(self) -> None:
        for i, message in enumerate(self.messages):
            if message.role not in ROLES:
                what = f"expected one of {', '.join(ROLES)}, got {message.role!r}. Rename the role."
                raise self._wrong(f"messages[{i}].role", what)
            if not holds_text(message.content):
                what = f"expected text, got {message.content!r}. Fill it in or remove the message."
                raise self._wrong(f"messages[{i}].content", what)
        if self.messages and self.messages[-1].role != "user":
            last = len(self.messages) - 1
            what = f"expected the chat to end with 'user', got {self.messages[-1].role!r}. "
            raise self._wrong(f"messages[{last}].role", what + "Put assistant text that should be read into 'answer'.")

    def _check_span(self, name: str, start: int, end: int) -> None:
        if not SPAN_NAME.fullmatch(name) or name in RESERVED_SPANS:
            what = f"expected a name of letters, digits, _ . - other than {' and '.join(RESERVED_SPANS)}, got {name!r}."
            raise self._wrong("spans", what + " Rename the span.")
        if not 0 <= start < end <= len(self.content):
            what = f"expected 0 <= start < end <= {len(self.content)} (length of the last user message or text), "
            what += f"got [{start}, {end}]. Count characters, not bytes or tokens."
            raise self._wrong(f"spans.{name}", what)


def _texts_in(value: object, where: str) -> list[tuple[str, str]]:
    """Every text inside a value of metadata, with its place."""
    if isinstance(value, str):
        return [(where, value)]
    if isinstance(value, Mapping):
        return [
            pair for key, inner in value.items() for pair in ((where, str(key)), *_texts_in(inner, f"{where}.{key}"))
        ]
    if isinstance(value, list | tuple):
        return [pair for i, inner in enumerate(value) for pair in _texts_in(inner, f"{where}[{i}]")]
    return []
