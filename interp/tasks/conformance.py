"""What a task must do to be evaluated, as a list of findings that its author can run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from interp.prompt import Example
from interp.tasks.protocol import decision_prefix, labels_of

_REPLIES = ("", "\x00", "I do not know.", "yes " * 5000)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: what is expected of a task, and what this one does instead (empty: all is well)."""

    expected: str
    came: str

    @property
    def ok(self) -> bool:
        return not self.came


def check_task(task: Any, examples: Sequence[Example]) -> list[Finding]:
    """Check a task on some of its own examples; nothing is run through a model.

        problems = [finding for finding in check_task(my_task, my_task.examples("data")[:50]) if not finding.ok]

    Checked: the functions are there; ids are unique; every example has a label and a group; a gold label parses to
    itself and scores correct; any other label scores wrong; replies without a label, empty ones and very long ones
    parse to None or a label and score a number; labels are distinct and none parses as another (the fault of reading
    "noncompliant" as "compliant"); a decision prefix is a beginning of its reply.
    """
    missing = [name for name in ("examples", "parse", "score") if not callable(getattr(task, name, None))]
    findings = [Finding("functions examples, parse and score", f"missing: {', '.join(missing)}" if missing else "")]
    if missing:
        return findings
    if not examples:
        return [*findings, Finding("at least one example to check", "none were given")]
    return findings + [Finding(expected, _first(check, task, examples)) for expected, check in _CHECKS.items()]


def _first(check: Callable[[Any, Sequence[Example]], str], task: Any, examples: Sequence[Example]) -> str:
    try:
        return check(task, examples)
    except Exception as error:  # a task of the user's may fail in any way; the finding says how
        return f"{type(error).__name__}: {error}"


def _unique(task: Any, examples: Sequence[Example]) -> str:
    ids = [e.id for e in examples]
    twice = next((i for i in ids if ids.count(i) > 1), None)
    return "" if twice is None else f"id {twice!r} occurs {ids.count(twice)} times"


def _labelled(task: Any, examples: Sequence[Example]) -> str:
    bare = next((e.id for e in examples if e.label is None), None)
    return "" if bare is None else f"example {bare!r} has no label"


def _grouped(task: Any, examples: Sequence[Example]) -> str:
    bare = next((e.id for e in examples if not e.groups), None)
    return "" if bare is None else f"example {bare!r} has no groups, so no interval can respect them"


def _gold(task: Any, examples: Sequence[Example]) -> str:
    for example in examples:
        said = str(example.label)
        if str(task.parse(said)) != said:
            return f"example {example.id!r}: gold label {said!r} parses to {task.parse(said)!r}"
        if task.score(example, said).get("correct") != 1.0:
            return f"example {example.id!r}: its gold label scores {task.score(example, said)}"
    return ""


def _labels(task: Any, examples: Sequence[Example]) -> str:
    for example in examples:
        labels = labels_of(task, example)
        if len(set(labels)) != len(labels):
            return f"example {example.id!r}: labels {labels} repeat"
        for label in labels:
            if task.parse(label) is None or (task.parse(label) == task.parse(str(example.label))) != (
                task.score(example, label).get("correct") == 1.0
            ):
                return f"example {example.id!r}: label {label!r} parses to {task.parse(label)!r}"
        if len({task.parse(label) for label in labels}) != len(labels):
            return f"example {example.id!r}: two of the labels {labels} parse to the same"
    return ""


def _any_reply(task: Any, examples: Sequence[Example]) -> str:
    for text in _REPLIES:
        scores = task.score(examples[0], text)
        if scores.get("correct") not in (0.0, 1.0) or (task.parse(text) is None and scores["correct"] != 0.0):
            return f"reply {text[:20]!r} scores {scores}"
    return ""


def _prefix(task: Any, examples: Sequence[Example]) -> str:
    reply = f"because of this, {examples[0].label}"
    before = decision_prefix(task, reply)
    return "" if reply.startswith(before) else f"decision_prefix({reply!r}) is {before!r}, which is no beginning of it"


_CHECKS: dict[str, Callable[[Any, Sequence[Example]], str]] = {
    "every example has an id of its own": _unique,
    "every example has a label": _labelled,
    "every example has at least one group": _grouped,
    "a gold label parses to itself and scores correct": _gold,
    "labels are distinct, and each parses to itself": _labels,
    "any reply, even an empty one, gets a score, and an unparsed one is wrong": _any_reply,
    "a decision prefix is a beginning of its reply": _prefix,
}
