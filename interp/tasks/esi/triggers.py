"""Trigger words of the rule-aware reward in a narrative, and whether they speak of now, of the past, or of absence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Polarity = Literal["present", "negated", "historical"]
TRIGGERS: Mapping[str, tuple[str, int]] = {
    "intubation": (r"\b(?:re-?)?intubat\w*", 1),
    "chest tube": (r"\bchest tubes?\b", 1),
    "central line": (r"\bcentral (?:venous )?lines?\b", 1),
    "open fracture": (r"\bopen (?:\w+ ){0,2}fractures?\b", 2),
    "penetrating": (r"\bpenetrating\b", 2),
}
"""Rule -> (pattern, least urgent level that it allows)."""
_CLAUSE = re.compile(r"[.;:!?\n]|,\s*(?:but|and then)\b|\bbut\b|\bhowever\b")
_NO = r"(?:no|not|without|den(?:y|ies|ied)|declin\w+|refus\w+|negative for|never|ruled out|rules out|absence of|nor)"
_BEFORE_NO = re.compile(rf"\b{_NO}\b(?:\W+\w+){{0,6}}\W*$|n['’]t\b(?:\W+\w+){{0,6}}\W*$", re.IGNORECASE)
_GONE = r"ruled out|excluded|not (?:needed|required|seen|placed|present|performed)"
_AFTER_NO = re.compile(rf"^\W*(?:\w+\W+){{0,3}}(?:was |were |is |has been )?(?:{_GONE})", re.IGNORECASE)
_SEASON = r"last (?:year|month|week|winter|summer|spring|fall)|in (?:19|20)\d\d|as a child"
_AGO = r"(?:\d+|a|one|two|three|several|many) (?:years?|months?) (?:ago|earlier|back)"
_HISTORY = r"history of|hx of|h/o|previous(?:ly)?|prior|formerly|status post|s/p"
_PAST = re.compile(rf"\b(?:{_HISTORY}|{_SEASON}|{_AGO})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Trigger:
    """One trigger in a text: its rule, its characters [start, end), and what the clause says of it."""

    rule: str
    span: tuple[int, int]
    polarity: Polarity

    @property
    def level(self) -> int:
        """The least urgent level that the rule allows where the trigger is present."""
        return TRIGGERS[self.rule][1]


def rules(text: str) -> tuple[Trigger, ...]:
    """Every trigger of a text, in order.

    Negation and past are looked for inside the clause only: "no chest tube", "declined intubation", "intubated last
    year". A pattern without this fires on all of them; `fires` is that pattern.
    """
    mentions = []
    for rule, (pattern, _) in TRIGGERS.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            mentions.append(Trigger(rule, match.span(), _polarity(text, *match.span())))
    return tuple(sorted(mentions, key=lambda t: (t.span, t.rule)))


def fires(text: str) -> tuple[str, ...]:
    """Rules whose pattern matches, negated or not: what a model that reacts to words alone would use."""
    return tuple(rule for rule, (pattern, _) in TRIGGERS.items() if re.search(pattern, text, re.IGNORECASE))


def polarity_of(text: str, rule: str) -> str:
    """What a text says of one rule: present where any mention is, else negated or historical, else absent."""
    polarities = [t.polarity for t in rules(text) if t.rule == rule]
    return next((p for p in ("present", "negated", "historical") if p in polarities), "absent")


def _polarity(text: str, start: int, end: int) -> Polarity:
    left = max((m.end() for m in _CLAUSE.finditer(text, 0, start)), default=0)
    after = _CLAUSE.search(text, end)
    before, behind = text[left:start], text[end : after.start() if after else len(text)]
    if _BEFORE_NO.search(before) or _AFTER_NO.search(behind):
        return "negated"
    return "historical" if _PAST.search(before) or _PAST.search(behind) else "present"
