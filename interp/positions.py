"""Rules that select tokens of a prompt, each with a string form, resolved by character offsets.

Indices are 0-based and count from the first real token, so padding and batch composition do not change them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, Protocol, runtime_checkable

from interp.example import SPAN_NAME
from interp.position_words import shares_in, words_in
from interp.prompt import Prompt
from interp.reply_positions import Decision, Fraction, Match, NothingSelectedError
from interp.sentences import STYLES, Style, sentence_records


@runtime_checkable
class Positions(Protocol):
    """A rule: its `name` is its string form (`parse_positions(rule.name) == [rule]`), `resolve` applies it."""

    @property
    def name(self) -> str: ...

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        """Token indices of `prompt`, ascending, at least one. Raises ValueError if the rule selects none."""
        ...


@dataclass(frozen=True)
class Last:
    """The last n tokens of the prompt, answer included: `last`, `last:5`."""

    n: int = 1

    def __post_init__(self) -> None:
        _at_least_one("last", self.n)

    @property
    def name(self) -> str:
        return "last" if self.n == 1 else f"last:{self.n}"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        n = len(prompt.ids)
        if n < self.n:
            raise ValueError(
                f"example {prompt.example_id!r}: {self.name!r} asks for {self.n} tokens, the prompt has {n}."
            )
        return tuple(range(n - self.n, n))


@dataclass(frozen=True)
class Answer:
    """The position that predicts the first answer token, i.e. the last token before the answer: `answer`."""

    @property
    def name(self) -> str:
        return "answer"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        if prompt.n_prompt == 0:
            raise ValueError(
                f"example {prompt.example_id!r}: 'answer': no token precedes the answer; add a prompt text."
            )
        return (prompt.n_prompt - 1,)


@dataclass(frozen=True)
class Span:
    """Tokens that share a character with a named span, all or the first or last of them: `span:scenario:last`."""

    span: str
    which: Literal["all", "first", "last"] = "all"

    def __post_init__(self) -> None:
        _check_span_name(self.span)
        if self.which not in ("all", "first", "last"):
            raise ValueError(f"span {self.span!r}: expected which= all, first or last, got {self.which!r}.")

    @property
    def name(self) -> str:
        return f"span:{self.span}" + ("" if self.which == "all" else f":{self.which}")

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        tokens = _tokens_of(prompt, self.span, self.name)
        return {"all": tokens, "first": tokens[:1], "last": tokens[-1:]}[self.which]


@dataclass(frozen=True)
class SentenceEnds:
    """The last token of each sentence of a span: `sentence_ends`, `sentence_ends:scenario`, `sentence_ends:v2`.

    Attributes:
        span:  which span; None means "answer" where the prompt has one, else "prompt".
        style: "offsets", or "v2" to reproduce the boundaries of an older corpus with their faults.
    """

    span: str | None = None
    style: Style = "offsets"

    def __post_init__(self) -> None:
        if self.span is not None:
            _check_span_name(self.span)
        if self.span in STYLES:
            raise ValueError(
                f"sentence_ends: a span cannot be named {self.span!r}, which is the name of a style. Rename it."
            )
        if self.style not in STYLES:
            raise ValueError(f"sentence_ends: expected a style of {', '.join(STYLES)}, got {self.style!r}.")

    @property
    def name(self) -> str:
        parts = ["sentence_ends", self.span, None if self.style == "offsets" else self.style]
        return ":".join(p for p in parts if p)

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        span = self.span or ("answer" if "answer" in prompt.spans else "prompt")
        _range_of(prompt, span, self.name)
        ends = tuple(dict.fromkeys(s.boundary for s in sentence_records(prompt, span=span, style=self.style)))
        return ends or _nothing(prompt, span, self.name, "no sentence")


@dataclass(frozen=True)
class Stride:
    """Every n-th token of the whole prompt or of one span, counted from its first, and its last: `stride:8:answer`."""

    n: int
    span: str | None = None

    def __post_init__(self) -> None:
        _at_least_one("stride", self.n)
        if self.span is not None:
            _check_span_name(self.span)

    @property
    def name(self) -> str:
        return f"stride:{self.n}" + (f":{self.span}" if self.span else "")

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        tokens = _tokens_of(prompt, self.span, self.name) if self.span else tuple(range(len(prompt.ids)))
        return tuple(dict.fromkeys((*tokens[:: self.n], tokens[-1])))


@dataclass(frozen=True)
class All:
    """Every token, or every one of a span: `all`, `all:answer`."""

    span: str | None = None

    def __post_init__(self) -> None:
        if self.span is not None:
            _check_span_name(self.span)

    @property
    def name(self) -> str:
        return f"all:{self.span}" if self.span else "all"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        return _tokens_of(prompt, self.span, self.name) if self.span else tuple(range(len(prompt.ids)))


@dataclass(frozen=True)
class PromptTokens:
    """Every token before the answer: `prompt`. While a model generates: its prompt."""

    @property
    def name(self) -> str:
        return "prompt"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        if prompt.n_prompt == 0:
            raise ValueError(f"example {prompt.example_id!r}: 'prompt': no token precedes the answer.")
        return tuple(range(prompt.n_prompt))


@dataclass(frozen=True)
class Generated:
    """The positions that predict the answer, and what follows: `generated`.

    The last token before the answer and every token of it. While a model generates these are the last prompt token and
    each token that it has written; for a prompt alone, the last token.
    """

    @property
    def name(self) -> str:
        return "generated"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(range(max(prompt.n_prompt - 1, 0), len(prompt.ids)))


@dataclass(frozen=True)
class From:
    """Every token from index `first` on: `from:12`. While a model generates, its new tokens too."""

    first: int

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"from: expected a token number from 0 on, got {self.first}. Use last:n for the end.")

    @property
    def name(self) -> str:
        return f"from:{self.first}"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        n = len(prompt.ids)
        if self.first >= n:
            what = f"example {prompt.example_id!r}: {self.name!r} begins after the last token; "
            raise ValueError(what + f"the prompt has {n} (0-{n - 1}).")
        return tuple(range(self.first, n))


@dataclass(frozen=True)
class At:
    """Fixed indices, the same for every example: `at:0+5`. Counting from the end is `last:n`; negatives are refused."""

    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.indices or list(self.indices) != sorted(set(self.indices)) or self.indices[0] < 0:
            what = f"at: expected ascending indices from 0, each once, got {self.indices}. "
            raise ValueError(what + "Use last:n to count from the end.")

    @property
    def name(self) -> str:
        return "at:" + "+".join(map(str, self.indices))

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        n = len(prompt.ids)
        if self.indices[-1] >= n:
            what = f"example {prompt.example_id!r}: {self.name!r} asks for token {self.indices[-1]}, "
            raise ValueError(what + f"the prompt has {n} (0-{n - 1}): {prompt.text[:60]!r}...")
        return self.indices


FORMS = (
    "last, last:N, answer, span:NAME, span:NAME:first, span:NAME:last, "
    "sentence_ends, sentence_ends:SPAN, sentence_ends:v2, stride:N, stride:N:SPAN, at:0+5, all, all:SPAN, "
    "prompt, generated, from:N, match:REGEX, match_last:REGEX, and of replies decision, decision:SITE, "
    "fraction:0.1,0.5"
)


def parse_positions(spec: str | Positions | Sequence[str | Positions]) -> list[Positions]:
    """The rules in a comma-separated string or a list; rule objects in the list are kept.

    A comma inside the brackets of a regular expression belongs to it, as does an escaped one: `match:a{1,3}\\,b, last`.

    Example:
        >>> [rule.name for rule in parse_positions("last, span:scenario:last")]
        ['last', 'span:scenario:last']

    Raises:
        ValueError: nothing given, an unknown or malformed rule (the valid forms are listed), the same rule twice.
    """
    parts = [spec] if isinstance(spec, str | Positions) else list(spec)
    words = [words_in(part) if isinstance(part, str) else [part] for part in parts]
    if not parts or any("" in some for some in words):
        raise ValueError(f"positions: expected rules separated by commas, got {spec!r}. Valid forms: {FORMS}.")
    rules = [_parse_one(word) if isinstance(word, str) else word for some in words for word in some]
    names = [r.name for r in rules]
    if twice := [n for n in dict.fromkeys(names) if names.count(n) > 1]:
        raise ValueError(f"positions: {twice[0]!r} is given twice. Give each rule only once.")
    return rules


def parse_position(spec: str | Positions) -> Positions:
    """The one rule that a string names.

    Raises:
        ValueError: as `parse_positions`; several rules.
    """
    rules = parse_positions(spec)
    if len(rules) != 1:
        raise ValueError(f"positions {spec!r}: expected one rule, got {len(rules)}.")
    return rules[0]


_MATCH = re.compile(r"(match|match_last):(.*)", re.DOTALL)


def _parse_one(word: str) -> Positions:
    if found := _MATCH.fullmatch(word):
        return Match(found[2], "all" if found[1] == "match" else "last")
    kind, *rest = word.split(":")
    match kind, rest:
        case "all", [span]:
            return All(span)
        case "decision", []:
            return Decision()
        case "decision", [site]:
            return Decision(site)
        case "fraction", [text] if shares := shares_in(text):
            return Fraction(shares)
        case "last", []:
            return Last()
        case "last", [n] if n.isdecimal():
            return Last(int(n))
        case "answer", []:
            return Answer()
        case "all", []:
            return All()
        case "prompt", []:
            return PromptTokens()
        case "generated", []:
            return Generated()
        case "from", [n] if n.isdecimal():
            return From(int(n))
        case "span", [span]:
            return Span(span)
        case "span", [span, ("all" | "first" | "last") as which]:
            return Span(span, which)
        case "sentence_ends", []:
            return SentenceEnds()
        case "sentence_ends", [("offsets" | "v2") as style]:
            return SentenceEnds(style=style)
        case "sentence_ends", [span]:
            return SentenceEnds(span)
        case "sentence_ends", [span, ("offsets" | "v2") as style]:
            return SentenceEnds(span, style)
        case "stride", [n] if n.isdecimal():
            return Stride(int(n))
        case "stride", [n, span] if n.isdecimal():
            return Stride(int(n), span)
        case "at", [indices] if all(i.isdecimal() for i in indices.split("+")):
            return At(tuple(map(int, indices.split("+"))))
    near = get_close_matches(kind, _KINDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near and near[0] != kind else ""
    raise ValueError(f"positions {word!r} is not a rule.{hint} Valid forms: {FORMS}.")


_KINDS = ("last", "answer", "span", "sentence_ends", "stride", "at", "all", "prompt", "generated", "from", "match")
_KINDS += ("match_last", "decision", "fraction")


def span_names(rule: Positions, prompt: Prompt) -> tuple[str, ...]:
    """Name of the span that each token of `rule.resolve(prompt)` is in; "" where the rule gives none.

    It is the span of `span:NAME` and `all:NAME`, the named group of a regular expression, the decision site, or the
    share of `fraction`.
    """
    if isinstance(rule, Match | Decision | Fraction):
        return tuple(name for _, name in sorted(rule.names(prompt).items()))
    return (getattr(rule, "span", None) or "",) * len(rule.resolve(prompt))


def _at_least_one(rule: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"{rule}: expected a count of at least 1, got {n}.")


def _check_span_name(span: str) -> None:
    if not SPAN_NAME.fullmatch(span):
        raise ValueError(f"span name: expected letters, digits, _ . - (a letter first), got {span!r}.")


def _range_of(prompt: Prompt, span: str, rule: str) -> tuple[int, int]:
    if span not in prompt.spans:
        has = ", ".join(sorted(prompt.spans))
        what = f"example {prompt.example_id!r}: {rule!r} needs the span {span!r}; its spans are: {has}. "
        raise ValueError(what + f"Add it to the example's 'spans' or drop the rule. Prompt: {prompt.text[:60]!r}...")
    return prompt.spans[span]


def _tokens_of(prompt: Prompt, span: str, rule: str) -> tuple[int, ...]:
    return tuple(prompt.tokens_in(*_range_of(prompt, span, rule))) or _nothing(prompt, span, rule, "no token")


def _nothing(prompt: Prompt, span: str, rule: str, what: str) -> tuple[int, ...]:
    start, end = prompt.spans[span]
    text = prompt.text[start:end]
    excerpt = text if len(text) <= 60 else text[:60] + "..."
    where = f"example {prompt.example_id!r}: {rule!r} finds {what} in the span {span!r} ({excerpt!r}). "
    raise NothingSelectedError(where + "Correct the span or drop the example.")
