"""Rules that select tokens by what the text says: a regular expression, decisions of the task, fractions of a reply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import regex

from interp.position_words import without_bare_commas
from interp.prompt import Prompt
from interp.replies import ReplyPrompt

TIME_LIMIT = 2.0
"""Seconds that a regular expression may search one text."""


class NothingSelectedError(ValueError):
    """A rule selects no token of a text; of replies these are counted, not refused."""


@dataclass(frozen=True)
class Match:
    """Tokens that share a character with a match of a regular expression: `match:REGEX`, `match_last:REGEX`.

    The reply is searched, or the user's message where there is none. Of a pattern with named groups the tokens of the
    groups are selected, under their names: `match:(?P<step>\\d+) waived`.

    Attributes:
        pattern: as the package `regex` reads it, a superset of the standard library's.
        which: all tokens of each match (of each named group), or only the last.
    Raises:
        ValueError: a pattern that is none, or that matches nothing at all.
    """

    pattern: str
    which: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if not self.pattern or self.pattern != self.pattern.strip():
            raise ValueError(
                f"match: expected a regular expression without blanks around it, as in match:\\[SIG=\\w+\\], got "
                f"{self.pattern!r}. Write a blank at its edge as [ ]."
            )
        _compiled(self.pattern)

    @property
    def name(self) -> str:
        return f"match{'' if self.which == 'all' else '_last'}:{without_bare_commas(self.pattern)}"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(sorted(self.names(prompt)))

    def names(self, prompt: Prompt) -> dict[int, str]:
        """Token -> name of the group that it is in; "" where the pattern has none.

        Raises:
            NothingSelectedError: no match with a character in it.
            ValueError: the search takes longer than `TIME_LIMIT`.
        """
        where = prompt.spans.get("answer") or prompt.spans.get("prompt")
        if where is None:
            raise ValueError(f"{self.name} searches a text, and here only the number of tokens is known.")
        start, end = where
        named: dict[int, list[str]] = {}
        for name, left, right in matches(self.pattern, prompt.text[start:end], prompt.example_id):
            tokens = prompt.tokens_in(start + left, start + right)
            for token in tokens if self.which == "all" else tokens[-1:]:
                named.setdefault(token, [])
                named[token] += [name] if name not in named[token] else []
        if not named:
            raise NothingSelectedError(f"example {prompt.example_id!r}: {self.name} matches nothing in the text.")
        return {token: "+".join(names) for token, names in named.items()}


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"match:{pattern}: not a regular expression: {error}.") from None


def matches(pattern: str, text: str, example_id: str = "") -> list[tuple[str, int, int]]:
    """(name of the group, start, end) of each match with characters in it, or of each of its named groups.

    Raises:
        ValueError: the pattern is none, or its search of `text` takes longer than `TIME_LIMIT`.
    """
    compiled = _compiled(pattern)
    found: list[tuple[str, int, int]] = []
    try:
        for match in compiled.finditer(text, timeout=TIME_LIMIT):
            spans = {name: match.spans(name) for name in compiled.groupindex} or {"": [match.span()]}
            found += [(name, a, b) for name, some in spans.items() for a, b in some if a < b]
    except TimeoutError:
        raise ValueError(
            f"match:{pattern}: example {example_id!r} was searched for {TIME_LIMIT:g} s without an end ({len(text):,} "
            "characters). Avoid a repetition inside a repetition, as in (a+)+; write the pattern so that each text can "
            "match in one way only."
        ) from None
    return found


@dataclass(frozen=True)
class Decision:
    """The token behind which the task's rules say what comes next: `decision`, or one site of them, `decision:label`.

    It is the last token of the reply up to the decision, the one that predicts it; of replies alone.
    """

    site: str | None = None

    @property
    def name(self) -> str:
        return "decision" if self.site is None else f"decision:{self.site}"

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(sorted(self.names(prompt)))

    def names(self, prompt: Prompt) -> dict[int, str]:
        """Token -> decision site.

        Raises:
            NothingSelectedError: the reply reaches no such decision.
            ValueError: a prompt without a reply.
        """
        reply = _reply(prompt, self.name)
        named: dict[int, str] = {}
        for name, at in reply.decisions:
            if self.site in (None, name):
                token = max((k for k in range(reply.n_before, len(reply.ids)) if reply.offsets[k][0] < at),
                            default=reply.n_before - 1)  # fmt: skip
                named[token] = name
        if not named:
            raise NothingSelectedError(f"example {prompt.example_id!r}: the reply reaches no {self.name!r}.")
        return named


@dataclass(frozen=True)
class Fraction:
    """The token at which a share of the reply has been read: `fraction:0.1,0.25,1`; 0 is the last of the prompt.

    Of n tokens it is number ceil(share * n), counted from 1. Shares of a short reply may be the same token, whose name
    is then that of both, "0.1+0.25".
    """

    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        shares = self.shares
        if not shares or list(shares) != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] <= 1:
            raise ValueError(f"fraction: expected ascending numbers from 0 to 1, each once, got {shares}.")

    @property
    def name(self) -> str:
        return "fraction:" + ",".join(f"{share:.12g}" for share in self.shares)

    def resolve(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(sorted(self.names(prompt)))

    def names(self, prompt: Prompt) -> dict[int, str]:
        """Token -> the share, as it was written.

        Raises:
            NothingSelectedError: an empty reply. ValueError: a prompt without a reply.
        """
        reply = _reply(prompt, self.name)
        if reply.n_reply == 0:
            raise NothingSelectedError(f"example {prompt.example_id!r}: {self.name!r}: the reply is empty.")
        named: dict[int, list[str]] = {}
        for share in self.shares:
            # 0.3 * 10 is 3.0000000000000004 in floats, and must be token 3
            count = math.ceil(share * reply.n_reply - 1e-9)
            named.setdefault(reply.n_before - 1 + count, []).append(f"{share:.12g}")
        return {token: "+".join(shares) for token, shares in named.items()}


def _reply(prompt: Prompt, rule: str) -> ReplyPrompt:
    if not isinstance(prompt, ReplyPrompt):
        raise ValueError(
            f"example {prompt.example_id!r}: {rule!r} selects tokens of a reply, and this is a prompt alone. Give the "
            "replies of an evaluation (diptych cache --replies FOLDER)."
        )
    return prompt
