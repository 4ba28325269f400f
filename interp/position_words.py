"""The rules in a comma-separated string, where regular expressions and lists of numbers have commas of their own."""

from __future__ import annotations

import re

_MATCH = re.compile(r"\s*match(_last)?:")
_SHARE = re.compile(r"\d+(\.\d*)?|\.\d+")


def words_in(text: str) -> list[str]:
    """One word per rule, without the blanks around it.

    A comma of a regular expression belongs to it inside brackets and behind a backslash; numbers after `fraction:`
    belong to it.

    Example:
        >>> words_in("match:a{1,3}, fraction:0.1,0.5, last")
        ['match:a{1,3}', 'fraction:0.1,0.5', 'last']
    """
    words: list[str] = []
    at = 0
    while at <= len(text):
        end = _end_of_pattern(text, at) if _MATCH.match(text, at) else (text + ",").index(",", at)
        word = text[at:end].strip()
        if words and words[-1].startswith("fraction:") and _SHARE.fullmatch(word):
            words[-1] += f",{word}"
        else:
            words.append(word)
        at = end + 1
    return words


def without_bare_commas(pattern: str) -> str:
    """The regular expression with a backslash before every comma at which `words_in` would end it."""
    at = 0
    while (at := _end_of_pattern(pattern, at)) < len(pattern):
        pattern = f"{pattern[:at]}\\{pattern[at:]}"
        at += 2
    return pattern


def shares_in(text: str) -> tuple[float, ...] | None:
    """The numbers of `fraction:0.1,0.5`; None where one is none."""
    parts = text.split(",")
    return tuple(map(float, parts)) if all(_SHARE.fullmatch(part) for part in parts) else None


def _end_of_pattern(text: str, at: int) -> int:
    """Place of the first comma that ends a regular expression; the end of the text where there is none."""
    depth, set_at = 0, -1  # set_at: place behind the [ that is open, at which a ] is a character of the set
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif set_at >= 0:
            if char == "^" and at == set_at:
                set_at += 1
            elif char == "]" and at > set_at:
                set_at = -1
        elif char == "[":
            set_at = at + 1
        elif char in "({":
            depth += 1
        elif char in ")}":
            depth -= 1
        elif char == "," and depth <= 0:
            return at
        at += 1
    return len(text)
