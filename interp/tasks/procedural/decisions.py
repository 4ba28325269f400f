"""Where an audit decides: the words of a trace that have to be looked up or compared, with what the rules say there.

A decision is found in any trace, a member's own included, by the words in front of it; the right word is that of the
gold trace (`replies.trace`, written by the rule engine) at the same place:

    exception_lookup   [SIG=EXCEPTION] storm _            present or absent
    step_lookup        [SIG=STEP] 2 _                     the role that step 2 needs
    event_lookup       [SIG=FIND] form _                  the event that did it, of step 2
    order_verdict      [SIG=CHECK] first third _          after or late
    label              [SIG=DECIDE] _

So a decision in front of which a member already went wrong (a step that is not due, an event that is not there) is no
site: no word would be right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from interp.example import Example
from interp.tasks.decision_sites import DecisionSite
from interp.tasks.procedural.replies import SEGMENT, decision_prefix, signals_of
from interp.tasks.procedural.vocabulary import ANYONE, LABELS, ORDINALS, ROLES

DECISION_SITES = {
    "exception_lookup": "whether the condition of an exception holds",
    "step_lookup": "which role a step needs",
    "event_lookup": "which event carried a step out",
    "order_verdict": "whether that event comes after the one that it must follow",
    "label": "compliant or noncompliant",
}
_SIGNALS = {"EXCEPTION": "exception_lookup", "STEP": "step_lookup", "FIND": "event_lookup", "CHECK": "order_verdict"}
# what stands between a signal and the word that is decided, and that word
_FORMS: Mapping[str, Mapping[str, str]] = {
    "log": {
        "exception_lookup": r"(\s*\S+)\s+(\S+)",
        "step_lookup": r"(\s*\d+(?:\s+(?:instead|also))?)\s+(\S+)",
        "event_lookup": r"(\s*\S+)\s+(\S+)",
        "order_verdict": r"(\s*\S+\s+\S+)\s+(\S+)",
    },
    "plain": {
        "exception_lookup": r"(\s*[^:\n]+:)\s+(\w+)",
        "step_lookup": r"(\s*\d+(?:\s+(?:instead|also))?:)\s+(\w+)",
        "event_lookup": r"(\s*[^:\n]+:)\s+(event \d+|\w+)",
        "order_verdict": r"(\s*[^:\n]+:)\s+(\w+)",
    },
}
_OPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    rendering: {
        "exception_lookup": ("present", "absent"),
        "step_lookup": (ANYONE, *ROLES),
        "event_lookup": events,
        "order_verdict": ("after", "late"),
    }
    for rendering, events in (("log", ORDINALS), ("plain", tuple(f"event {k + 1}" for k in range(len(ORDINALS)))))
}


class _Place(NamedTuple):
    """A decision as a trace words it: which step's, what is stated in front of it, where it stands in the text, and
    the word that was chosen."""

    name: str
    key: str
    stated: str
    end: int
    word: str


def decision_sites(example: Example, text: str) -> tuple[DecisionSite, ...]:
    """The decisions of a reply, in its order; the label's, which every reply reaches, last.

    Only the label where the example has no gold trace (rows of your own without `trace`).
    """
    rendering, gold = str(example.metadata.get("rendering")), example.metadata.get("trace")
    before, out = decision_prefix(text, example), []
    if isinstance(gold, str) and rendering in _FORMS:
        right = {(place.name, place.key, place.stated): place.word for place in _places(gold, rendering)}
        for place in _places(text, rendering, signals_of(example)):
            options = _OPTIONS[rendering][place.name]
            answer = right.get((place.name, place.key, place.stated))
            if answer in options:
                out.append(DecisionSite(place.name, text[: place.end], answer, options, place.key))
    if example.label is not None:
        out.append(DecisionSite("label", before, str(example.label), LABELS))
    return tuple(out)


def gold_reply(example: Example) -> str | None:
    """The gold trace of an example, label included; None for rows that have none."""
    trace = example.metadata.get("trace")
    return trace if isinstance(trace, str) else None


def _places(text: str, rendering: str, signals: Mapping[str, str] | None = None) -> Iterator[_Place]:
    """Every decision of a trace but the label's. A key that occurs again is another decision: it gets a number.

    `signals` as in `interp.tasks.procedural.replies.parse_trace`.
    """
    step, seen = "", Counter[tuple[str, str]]()
    for part in SEGMENT.finditer(text):
        name = _SIGNALS.get((signals or {}).get(part[1], part[1]))
        found = re.match(_FORMS[rendering][name], part[2]) if name else None
        if name is None or found is None:
            continue
        stated = " ".join(found[1].split()).rstrip(":")
        if name == "step_lookup":
            step = stated
        key = stated if name == "exception_lookup" else step
        seen[name, key] += 1
        number = f" ({seen[name, key]})" if seen[name, key] > 1 else ""
        yield _Place(name, key + number, stated, part.start(2) + found.end(1), found[2])
