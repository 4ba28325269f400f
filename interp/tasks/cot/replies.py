"""What a reply to a problem answers: by named rules, after the thoughts, never mined from inside them."""

from __future__ import annotations

import re
from fractions import Fraction

from interp.prompt import Example

MAX_NEW_TOKENS = 1024
_CLOSE = "</think>"
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_SAID = re.compile(r"\b(?:final\s+)?answer\s*(?:is|:|=)+\s*\**\s*([^\n]+?)\**(?:\.(?=\s|$)|$|\n)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_LONGEST = 12  # words of a reply that is nothing but the answer


def parse(text: str) -> str | None:
    """The answer of a reply, or None; see `read`."""
    return _find(text)[0]


def read(example: Example, text: str) -> tuple[str | None, str]:
    """(answer, rule that found it) of a reply.

    boxed     the last LaTeX box        hashes    what follows the last "####"
    said      the last "answer is ..." or "Answer: ..."
    whole     a reply of one line of at most 12 words is the answer
    truncated thoughts were opened and not closed: they are not searched

    The answer is returned as `plain` spells it; `score` decides whether it equals the gold one.
    """
    return _find(text)


def score(example: Example, text: str) -> dict[str, float]:
    """correct: the answer equals the gold one (`same_answer`; unparsed is wrong). parsed: there is one."""
    answer = parse(text)
    right = answer is not None and same_answer(answer, str(example.label))
    return {"correct": float(right), "parsed": float(answer is not None)}


def same_answer(a: str, b: str) -> bool:
    """Equal as numbers where both are numbers (5.50 and 11/2, 1,000 and 1000), else equal as `plain` text."""
    x, y = number_of(a), number_of(b)
    return x == y if x is not None and y is not None else plain(a).casefold() == plain(b).casefold()


def number_of(text: str) -> Fraction | None:
    """The number that a text is, not merely contains; None where it is none."""
    bare = plain(text)
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        return Fraction(re.sub(r"[$€£,]", "", bare))
    except (ValueError, ZeroDivisionError):
        return None


def plain(text: str) -> str:
    """An answer without LaTeX dollars, emphasis, quotes, a final full stop and repeated spaces."""
    text = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}|\\[,;! ]", r"\1", text)
    text = " ".join(text.split()).strip("*_`\"' ")
    if text.count("$") == 2 and text.startswith("$") and text.endswith("$"):
        text = text[1:-1]
    return text.removesuffix(".").strip("*_`\"' ")


def _find(text: str) -> tuple[str | None, str]:
    before, closed, after = text.rpartition(_CLOSE)
    if not closed and "<think>" in before + after:
        return None, "truncated"
    for rule, pattern in (("boxed", _BOXED), ("hashes", _HASHES), ("said", _SAID)):
        answers = [plain(m[1]) for m in pattern.finditer(after)]
        if answers and answers[-1]:
            return answers[-1], rule
    lines = after.strip().splitlines()
    if len(lines) == 1 and len(lines[0].split()) <= _LONGEST and any(c.isalnum() for c in plain(lines[0])):
        return plain(lines[0]), "whole"
    return None, "unparsed"
