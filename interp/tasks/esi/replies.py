"""The level in a reply, by named rules; never a digit that may be a pain score or an age."""

from __future__ import annotations

import re

from interp.prompt import Example
from interp.tasks.decision_sites import DecisionSite
from interp.tasks.esi.cases import LEVELS

MAX_NEW_TOKENS = 1024
_ESI = re.compile(
    r"\besi(?:[\s-]*(?:triage\s+)?(?:level|score))?\s*(?:is|=|:|[-–])?\s*\**\s*([1-5])\b(?!\.\d)", re.IGNORECASE
)
_LEVEL = re.compile(
    r"(?<!pain )(?<!pain-)(?<!sugar )(?<!glucose )\b(?:triage\s+)?level\s*(?:is\s*)?[:=]?\s*\**\s*([1-5])\b(?!\.\d)",
    re.IGNORECASE,
)
_SOLE = re.compile(r"^\s*\**([1-5])\**\.?\s*$", re.MULTILINE)
_RANGE = re.compile(r"\**\s*(?:[-–/]|or\b|to\b)\s*\**(?:esi\s*|level\s*)*[1-5]\b", re.IGNORECASE)


def parse(text: str) -> str | None:
    """The level that a reply ends with, "1" to "5"; None where it has none, two, or was cut off while thinking."""
    return _read(text)[0]


def read(example: Example, text: str) -> tuple[str | None, str]:
    """(level, rule that found it), after the last </think>.

    esi        last "ESI 2", "ESI level: 2", "ESI-2"          sole_line  a line that is one digit
    level      last "level 2", "triage level: **2**"          ambiguous  a range, or rules that end differently
    truncated  thinking began and did not end                 unparsed   none of these
    """
    return _read(text)


def score(example: Example, text: str) -> dict[str, float]:
    """What a reply is worth; one without a level is wrong, and dangerous where the patient is urgent.

    correct, parsed   level == gold; a level was found
    adjacent          |level - gold| <= 1
    critical          gold <= 2 and level > gold, or no level          (definition D1)
    severe            level - gold >= 2, or gold <= 2 and level >= 3 or no level     (definition D2)
    """
    level, gold = parse(text), int(str(example.label))
    if level is None:
        urgent = float(gold <= 2)
        return {"correct": 0.0, "parsed": 0.0, "adjacent": 0.0, "critical": urgent, "severe": urgent}
    p = int(level)
    return {
        "correct": float(p == gold),
        "parsed": 1.0,
        "adjacent": float(abs(p - gold) <= 1),
        "critical": float(gold <= 2 and p > gold),
        "severe": float(p - gold >= 2 or (gold <= 2 and p >= 3)),
    }


def labels(example: Example) -> tuple[str, ...]:
    """The five levels, whatever the patient."""
    return LEVELS


def decision_prefix(text: str) -> str:
    """A reply up to the level that it states; empty where it states none in words."""
    matches = [m for pattern in (_ESI, _LEVEL) for m in pattern.finditer(text)]
    return text[: max(m.start(1) for m in matches)].rstrip() if matches and parse(text) is not None else ""


DECISION_SITES = {"level": "which level of urgency"}


def decision_sites(example: Example, text: str) -> tuple[DecisionSite, ...]:
    """The level that the reply ends with; its begin where it states none in words."""
    return (DecisionSite("level", decision_prefix(text), str(example.label), LEVELS),)


def _read(text: str) -> tuple[str | None, str]:
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        return None, "truncated"
    last = {name: _last(pattern, answer) for name, pattern in (("esi", _ESI), ("level", _LEVEL))}
    stated = {name: m for name, m in last.items() if m is not None}
    sole = {m[1] for m in _SOLE.finditer(answer)}
    if any(_RANGE.match(answer, m.end()) for m in stated.values()):
        return None, "ambiguous"
    if stated:
        final = {m[1] for m in stated.values()} | sole
        return (final.pop(), "esi" if "esi" in stated else "level") if len(final) == 1 else (None, "ambiguous")
    return (sole.pop(), "sole_line") if len(sole) == 1 else (None, "ambiguous" if sole else "unparsed")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = list(pattern.finditer(text))
    return matches[-1] if matches else None
