"""Named spans of texts that only a user knows: numbered lines of a procedure, sentences of a scenario."""

from __future__ import annotations

import re

from interp.tasks.procedural.render import Spans

# "3. ", "3) ", "Step 3: ", "(3) " or "- 3. " at the start of a line
_STEP_LINE = re.compile(r"^[ \t]*(?:[-*•][ \t]+)?\(?(?:step[ \t]+)?(\d{1,3})[.):][ \t]+\S.*?(?=[ \t]*$)", re.I | re.M)
_SENTENCE = re.compile(r"\S(?:.*?[.!?][\"'”’)\]]*(?=\s|$)|.*$)", re.M)
_ABBREVIATION = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|No|St|vs|e\.g|i\.e|approx)|\b[A-Z])\.$")


def step_spans(procedure: str) -> Spans:
    """`step_k` -> the line that begins with number k, number included. The first line of a number counts."""
    spans: Spans = {}
    for match in _STEP_LINE.finditer(procedure):
        start = match.start() + len(match.group()) - len(match.group().lstrip())
        spans.setdefault(f"step_{int(match.group(1))}", (start, match.end()))
    return spans


def event_spans(scenario: str) -> Spans:
    """`event_k` -> the k-th sentence (or line without a full stop) of a scenario, from 1."""
    spans: Spans = {}
    start: int | None = None
    for match in _SENTENCE.finditer(scenario):
        start = match.start() if start is None else start
        rest = scenario[match.end() :].split("\n", 1)[0].lstrip()
        if rest and (rest[0].islower() or _ABBREVIATION.search(match.group())):
            continue
        spans[f"event_{len(spans) + 1}"] = (start, match.end())
        start = None
    return spans
