"""What a task must do to be evaluated, checked on its own examples: a list of findings that its author can run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from interp.prompt import Example
from interp.tasks.decision_sites import decision_sites, gold_reply, label_site, site_names
from interp.tasks.protocol import HOOKS, cell_role, decision_prefix, hook, labels_of, read_reply

_REPLIES = ("", "\x00", "I do not know.", "yes " * 5000)
_CONSTANTS = {"int": int, "str": str, "dict": dict}


@dataclass(frozen=True)
class Finding:
    """One check: what is expected of a task, and what this one does instead (empty where it passes)."""

    expected: str
    got: str

    @property
    def ok(self) -> bool:
        return not self.got


def check_task(task: Any, examples: Sequence[Example]) -> list[Finding]:
    """Check a task on some of its own examples; nothing is run through a model.

        problems = [finding for finding in check_task(my_task, my_task.examples("data")[:50]) if not finding.ok]

    Checked: the required functions are there; everything in `HOOKS` that the task defines takes the arguments that the
    library passes, or has the declared type, and no name is a misspelled hook; ids are unique; every example has a
    label and a group; a gold label parses to itself and scores correct; any other label scores wrong; replies without
    a label, empty ones and very long ones parse to None or a label and score a number; labels are distinct and none
    parses as another (the fault of reading "noncompliant" as "compliant"); a decision prefix is a beginning of its
    reply; decision sites are named, begin their reply, and have their right answer among their options; groups, cells,
    spellings, sides, counterfactuals, choice columns and twins refer to what the examples have.

    Example:
        >>> from interp.tasks import esi
        >>> [finding.expected for finding in check_task(esi, esi.examples(per_cell=1)) if not finding.ok]
        []
    """
    missing = [name for name in ("examples", "parse", "score") if hook(task, name) is None]
    findings = [Finding("functions examples, parse and score", f"missing: {', '.join(missing)}" if missing else "")]
    if missing:
        return findings
    if not examples:
        return [*findings, Finding("at least one example to check", "got none")]
    return findings + [Finding(expected, _first_fault(check, task, examples)) for expected, check in _CHECKS.items()]


Check = Callable[[Any, Sequence[Example]], Iterator[str]]
"""Yields a sentence for each fault; only the first is reported."""


def _first_fault(check: Check, task: Any, examples: Sequence[Example]) -> str:
    try:
        return next(check(task, examples), "")
    except Exception as error:  # a task of the user's may fail in any way; the finding says how
        return f"{type(error).__name__}: {error}"


def _hooks(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    for name, expected in HOOKS.items():
        value = getattr(task, name, None)
        if value is None:
            continue
        if expected.takes is None:
            if not isinstance(value, _CONSTANTS[expected.gives]):
                yield f"{name}: expected {expected.gives}, got {value!r:.60}"
        elif not callable(value):
            yield f"{name}: expected a function, got {value!r:.60}"
        else:
            yield from _signature_fault(name, value, expected.takes)


def _signature_fault(name: str, function: Callable[..., Any], takes: Sequence[str]) -> Iterator[str]:
    by_name = {parameter.rstrip("="): None for parameter in takes if parameter.endswith("=")}
    try:
        inspect.signature(function).bind(*(p for p in takes if not p.endswith("=")), **by_name)
    except TypeError as error:
        yield f"{name}{inspect.signature(function)}: called with ({', '.join(takes)}): {error}"


def _misspelled(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    undefined = [name for name in HOOKS if getattr(task, name, None) is None]
    for name in vars(task) if hasattr(task, "__dict__") else ():
        if name not in HOOKS and not name.startswith("_") and (near := get_close_matches(name, undefined, 1, 0.82)):
            yield f"{name} is not used; did you mean {near[0]}?"


def _unique(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    ids = [e.id for e in examples]
    for name in ids:
        if ids.count(name) > 1:
            yield f"id {name!r} occurs {ids.count(name)} times"


def _labelled(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    yield from (f"example {e.id!r} has no label" for e in examples if e.label is None)


def _grouped(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    yield from (
        f"example {e.id!r} has no groups, so intervals would treat items as independent"
        for e in examples
        if not e.groups
    )


def _group_names(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    groups = sorted({name for e in examples for name in e.groups})
    for constant in ("GROUP", "TOGETHER"):
        if (name := hook(task, constant)) is not None and groups and name not in groups:
            yield f"{constant} is {name!r}, the groups of the examples are {', '.join(groups)}"


def _cells(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    cells = {str(e.metadata.get("cell", "")) for e in examples}
    for cell in sorted(cells | set(hook(task, "CELL_ROLES") or {})):
        cell_role(task, cell)
    if notes := hook(task, "notes"):
        yield from (f"notes: {cell!r} is no cell of the examples" for cell in notes(examples) if cell not in cells)


def _gold(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        gold = str(example.label)
        for name, parsed in (("parses", task.parse(gold)), ("is read", read_reply(task, example, gold)[0])):
            if str(parsed) != gold:
                yield f"example {example.id!r}: gold label {gold!r} {name} as {parsed!r}"
        if task.score(example, gold).get("correct") != 1.0:
            yield f"example {example.id!r}: its gold label scores {task.score(example, gold)}"


def _labels(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        labels = labels_of(task, example)
        if len(set(labels)) != len(labels):
            yield f"example {example.id!r}: labels {labels} repeat"
        for label in labels:
            is_gold = task.parse(label) == task.parse(str(example.label))
            if task.parse(label) is None or is_gold != (task.score(example, label).get("correct") == 1.0):
                yield f"example {example.id!r}: label {label!r} parses to {task.parse(label)!r}"
        if len({task.parse(label) for label in labels}) != len(labels):
            yield f"example {example.id!r}: two of the labels {labels} parse to the same label label"


def _spellings(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    spell, labels = hook(task, "spellings"), labels_of(task, examples[0])
    spelled = [text for label in labels for text in spell(label)] if spell else []
    if len(set(spelled)) != len(spelled) or "" in spelled or (spell and len(spelled) < len(labels)):
        yield f"spellings of {', '.join(labels)}: expected at least one text for each, and no text twice, got {spelled}"


def _any_reply(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    for text in _REPLIES:
        scores = task.score(examples[0], text)
        if scores.get("correct") not in (0.0, 1.0) or (task.parse(text) is None and scores["correct"] != 0.0):
            yield f"reply {text[:20]!r} scores {scores}"


def _prefix(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    reply = f"because of this, {examples[0].label}"
    before = decision_prefix(task, reply)
    if not reply.startswith(before):
        yield f"decision_prefix({reply!r}) is {before!r}, which is not a beginning of it"
    for kind, text, label in (hook(task, "counterfactuals") or (lambda *_: ()))(examples[0], reply):
        if (parsed := task.parse(label)) != label:
            yield f"counterfactuals: {kind} expects {label!r} after {text[-20:]!r}, which parses to {parsed!r}"


def _sites(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    names, is_found = site_names(task), hook(task, "decision_sites") is not None
    if bool(names) != is_found:
        yield f"DECISION_SITES and decision_sites: expected both, got only {'the names' if names else 'the function'}"
    for example in examples if is_found else ():
        gold = gold_reply(task, example)
        for text in (*_REPLIES, f"because of this, {example.label}", *([] if gold is None else [gold])):
            yield from _site_faults(task, example, text, names)
        reached = {site.name for site in decision_sites(task, example, gold or str(example.label))}
        if label_site(task) not in reached:
            yield f"example {example.id!r}: a right reply never reaches {label_site(task)!r}, the site of the label"


def _site_faults(task: Any, example: Example, text: str, names: Sequence[str]) -> Iterator[str]:
    for site in decision_sites(task, example, text):
        where = f"example {example.id!r}, decision site {site.name!r}"
        if site.name not in names:
            yield f"{where}: DECISION_SITES names {', '.join(names)}"
        if not text.startswith(site.before):
            yield f"{where}: {site.before[-40:]!r} is no beginning of the reply {text[:40]!r}"
        if site.answer not in site.options or len(set(site.options)) != len(site.options) or len(site.options) < 2:
            yield f"{where}: expected different options with {site.answer!r} among them, got {site.options}"
        if site.name == label_site(task) and site.answer != str(example.label):
            yield f"{where}: it decides the label, {example.label!r}, but its answer is {site.answer!r}"


def _choices(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    n, sides, columns = len(labels_of(task, examples[0])), hook(task, "sides"), hook(task, "choice_columns")
    for example in examples if sides else ():
        if strange := {k for places in sides(example).values() for k in places} - set(range(n)):
            yield f"sides of example {example.id!r}: expected places of {n} labels, got {sorted(strange)}"
    if columns is None:
        return
    columns_by_name = columns(examples, np.zeros((len(examples), 2, n)))
    yield from (
        f"choice_columns: {name!r} has shape {np.shape(values)}, expected {(len(examples), 2)}"
        for name, values in columns_by_name.items()
        if np.shape(values) != (len(examples), 2)
    )
    for name, metric in (hook(task, "CHOICE_METRICS") or {}).items():
        if missing := set(metric.n) - set(columns_by_name):
            yield f"CHOICE_METRICS[{name!r}]: no choice column {', '.join(sorted(missing))}"


def _twins(task: Any, examples: Sequence[Example]) -> Iterator[str]:
    make = hook(task, "twin_examples")
    pairs = make(1) if make else ()
    yield from (
        f"twin_examples: expected (original, twin), got {pair!r:.80}"
        for pair in pairs
        if len(pair) != 2 or not all(isinstance(e, Example) for e in pair)
    )


_CHECKS: dict[str, Check] = {
    "hooks take the arguments that the library passes, constants have their type": _hooks,
    "no name is a misspelled hook": _misspelled,
    "every example has a unique id": _unique,
    "every example has a label": _labelled,
    "every example has at least one group": _grouped,
    "GROUP and TOGETHER are groups of the examples": _group_names,
    "roles are known, and notes are about cells of the examples": _cells,
    "a gold label parses to itself and scores correct": _gold,
    "labels are distinct, and each parses to itself": _labels,
    "spellings are texts of one label each": _spellings,
    "any reply, even an empty one, gets a score, and an unparsed one is wrong": _any_reply,
    "a decision prefix is a beginning of its reply, and counterfactuals expect a label": _prefix,
    "decision sites are named ones, begin their reply, and have their answer among their options": _sites,
    "sides and choice columns are about the labels and rows of the examples": _choices,
    "twins are pairs of examples": _twins,
}
