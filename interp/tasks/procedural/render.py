"""An instance as text: two renderings of the same latent values, with the character span of every named part.

"plain" is English for real models, a titled list of steps and a timed narrative:

    Stanford, laboratory safety manual, procedure 4821.
    1. Label the reaction flask.
    2. Lock the sample freezer (laboratory manager only).
    Carry out the steps in the order of their numbers.
    Step 2 requires that step 1 has been completed.
    Exception: if a spill has occurred, step 2 is replaced by: seal the waste drum.

    No spill had occurred. The alarm was sounding. At 08:40, laboratory assistant Dana Reed labeled the reaction flask.
    At 08:52, laboratory manager Omar Diaz locked the sample freezer. The work was calm and careful.

The procedure number and the names come from the procedure's hash, the times from the position, so twins share them.

"log" is the low-entropy rendering of the embedded pair, one word per space-separated token:

    Procedure: 1 anyone issue form . 2 supervisor photograph label . step 2 needs step 1 .
    if storm then step 2 becomes supervisor review sample . Scenario: storm absent . refusal present .
    form first issued by investigator . label second photographed by supervisor . mood proud and tidy .
    Question: is this compliant ?

Of texts that were not generated, the spans are numbered lines and sentences: `step_spans`, `event_spans`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from interp.tasks.procedural.latent import Event, Instance, Procedure, Proviso, Scenario, Step, procedure_id
from interp.tasks.procedural.vocabulary import (
    ACTIONS,
    ANYONE,
    CONDITIONS,
    DISTRACTORS,
    DOMAINS,
    ORDINALS,
    PLAIN_QUESTION,
    ROLES,
    TASK_QUESTION,
    TONES,
)

Rendering = Literal["plain", "log"]
Spans = dict[str, tuple[int, int]]
Part = tuple[str, str]  # (span name or "", text)
RENDERINGS: tuple[Rendering, ...] = ("plain", "log")
PLAIN_TEMPLATE = "Procedure:\n{procedure}\n\nScenario:\n{scenario}\n\nQuestion: {question}"
LOG_TEMPLATE = "Procedure: {procedure} Scenario: {scenario} Question: {question}"
_NAMES = (
    "Dana Reed", "Omar Diaz", "Lena Fox", "Igor Lund", "Mina Shah", "Paul Grant", "Ruth Cole", "Tomas Vega",
    "Alice Wood", "Ben Carter", "Clara Moss", "David Kim", "Elena Rossi", "Frank Hill", "Grace Lee", "Hugo Marsh",
)  # fmt: skip
_START, _STEP = 8 * 60 + 40, 12  # minutes after midnight of the first event, and between events
# "3. ", "3) ", "Step 3: ", "(3) " or "- 3. " at the start of a line
_STEP_LINE = re.compile(r"^[ \t]*(?:[-*•][ \t]+)?\(?(?:step[ \t]+)?(\d{1,3})[.):][ \t]+\S.*?(?=[ \t]*$)", re.I | re.M)
_SENTENCE = re.compile(r"\S(?:.*?[.!?][\"'”’)\]]*(?=\s|$)|.*$)", re.M)
_ABBREVIATION = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|No|St|vs|e\.g|i\.e|approx)|\b[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The user message and its parts.

    Attributes:
        text: the whole user message.
        procedure, scenario, question: the three sections, substrings of `text`.
        spans: name -> `[start, end)` in `text`: procedure, step_1.. (by number), scenario, event_1.., tone, question.
    """

    text: str
    procedure: str
    scenario: str
    question: str
    spans: Mapping[str, tuple[int, int]]


def render(instance: Instance, *, rendering: Rendering = "plain", question: str | None = None) -> Rendered:
    """The user message of an instance: procedure, scenario, question, in that order.

    Args:
        instance: what to word.
        rendering: "plain" English, or the "log" of the embedded pair.
        question: None asks for the label (`vocabulary.PLAIN_QUESTION`, `vocabulary.TASK_QUESTION`).
    Raises:
        ValueError: an unknown rendering.
    """
    check_rendering(rendering)
    if rendering == "log":
        procedure = join_parts(_log_procedure(instance.procedure), " ")
        scenario = join_parts(_log_scenario(instance.scenario), " ")
        return compose(procedure, scenario, question or TASK_QUESTION, template=LOG_TEMPLATE)
    procedure = join_parts(_plain_procedure(instance.procedure), "\n")
    scenario = join_parts(_plain_scenario(instance), " ")
    return compose(procedure, scenario, question or PLAIN_QUESTION, template=PLAIN_TEMPLATE)


def check_rendering(rendering: str) -> None:
    """Raise ValueError for a name that is no rendering."""
    if rendering not in RENDERINGS:
        raise ValueError(f"rendering '{rendering}': expected one of {', '.join(RENDERINGS)}.")


def compose(procedure: tuple[str, Spans], scenario: tuple[str, Spans], question: str, *, template: str) -> Rendered:
    """Put the sections into a template (fields {procedure}, {scenario}, {question}) and shift the spans."""
    head, rest = template.split("{procedure}")
    between, rest = rest.split("{scenario}")
    before_question, tail = rest.split("{question}")
    at_procedure = len(head)
    at_scenario = at_procedure + len(procedure[0]) + len(between)
    at_question = at_scenario + len(scenario[0]) + len(before_question)
    text = f"{head}{procedure[0]}{between}{scenario[0]}{before_question}{question}{tail}"
    spans = {"procedure": (at_procedure, at_procedure + len(procedure[0]))}
    spans |= {name: (a + at_procedure, b + at_procedure) for name, (a, b) in procedure[1].items()}
    spans["scenario"] = (at_scenario, at_scenario + len(scenario[0]))
    spans |= {name: (a + at_scenario, b + at_scenario) for name, (a, b) in scenario[1].items()}
    spans["question"] = (at_question, at_question + len(question))
    return Rendered(text, procedure[0], scenario[0], question, spans)


def join_parts(parts: Iterable[tuple[str, str]], separator: str) -> tuple[str, Spans]:
    """Join `(name, text)` parts; returns the text and the span of every named part."""
    spans: Spans = {}
    texts = []
    at = 0
    for name, text in parts:
        if name:
            spans[name] = (at, at + len(text))
        at += len(text) + len(separator)
        texts.append(text)
    return separator.join(texts), spans


def requirement(domain: str, rank: int) -> str:
    """The word for "needs at least this rank": the role of that rank, or `anyone` for rank 0."""
    if rank == 0:
        return ANYONE
    return next(role.word for role in DOMAINS[domain].roles if role.rank == rank)


def event_words(event: Event) -> tuple[str, str]:
    """(object, past form) as narrated; every wording but `plain` uses the synonym. A skipped event has no verb."""
    action = ACTIONS[event.action]
    if event.wording == "plain":
        return action.key, action.past if event.done else "skipped"
    return action.syn_key, action.syn_past if event.done else "skipped"


def _log_procedure(procedure: Procedure) -> list[Part]:
    """Lines in listing order, then the order clause, the prerequisites, the exceptions."""
    parts = [(f"step_{n}", f"{n} {_log_due(procedure.domain, procedure.steps[n - 1])} .") for n in procedure.listing]
    if not procedure.in_order:
        parts.append(("", "in any order ."))
    parts.extend(("", f"step {late} needs step {early} .") for late, early in procedure.needs)
    parts.extend(("", _log_proviso(procedure.domain, p)) for p in procedure.provisos)
    return parts


def _log_scenario(scenario: Scenario) -> list[Part]:
    """Facts, then events with their ordinals and the distractors between them, then the tone."""
    parts = [("", f"{condition} {'present' if holds else 'absent'} .") for condition, holds in scenario.facts]
    sentences: dict[int, list[int]] = {}
    for before, index in scenario.distractors:
        sentences.setdefault(before, []).append(index)
    for position, event in enumerate(scenario.events):
        parts.extend(_log_distractors(sentences.get(position, ())))
        key, verb = event_words(event)
        parts.append((f"event_{position + 1}", f"{key} {ORDINALS[position]} {verb} by {event.actor} ."))
    parts.extend(_log_distractors(sentences.get(len(scenario.events), ())))
    parts.append(("tone", f"mood {' and '.join(TONES[scenario.tone].words)} ."))
    return parts


def _log_due(domain: str, step: Step) -> str:
    action = ACTIONS[step.action]
    return f"{requirement(domain, step.rank)} {action.verb} {action.key}"


def _log_proviso(domain: str, proviso: Proviso) -> str:
    head = f"if {proviso.condition} then step {proviso.number}"
    if proviso.step is None:
        return f"{head} waived ."
    if proviso.kind == "replace":
        return f"{head} becomes {_log_due(domain, proviso.step)} ."
    return f"{head} also needs {_log_due(domain, proviso.step)} ."


def _log_distractors(indices: tuple[int, ...] | list[int]) -> list[Part]:
    return [("", "{} stayed {} .".format(*DISTRACTORS[i].words)) for i in indices]


def _plain_procedure(procedure: Procedure) -> list[Part]:
    """Title, numbered lines in listing order, order clause, prerequisites, exceptions: one line each."""
    number = int(procedure_id(procedure)[:6], 16) % 9000 + 1000
    domain = procedure.domain
    parts = [("", f"{procedure.institution}, {DOMAINS[domain].title}, procedure {number}.")]
    for n in procedure.listing:
        text = _plain_due(domain, procedure.steps[n - 1])
        parts.append((f"step_{n}", f"{n}. {text[0].upper()}{text[1:]}."))
    if procedure.in_order:
        parts.append(("", "Carry out the steps in the order of their numbers."))
    else:
        parts.append(("", "The steps may be carried out in any order, except where stated."))
    parts.extend(("", f"Step {late} requires that step {early} has been completed.") for late, early in procedure.needs)
    parts.extend(("", _plain_proviso(domain, p)) for p in procedure.provisos)
    return parts


def _plain_scenario(instance: Instance) -> list[Part]:
    """Facts, timed events with the distractors between them, and the tone: one sentence each."""
    scenario = instance.scenario
    parts = [("", CONDITIONS[c].present if holds else CONDITIONS[c].absent) for c, holds in scenario.facts]
    people = _people(instance.procedure)
    for position, event in enumerate(scenario.events):
        parts.extend(("", DISTRACTORS[i].sentence) for before, i in scenario.distractors if before == position)
        hour, minute = divmod(_START + _STEP * position, 60)
        who = f"{ROLES[event.actor].title} {people[event.actor]}"
        parts.append((f"event_{position + 1}", f"At {hour:02d}:{minute:02d}, {who} {event_phrase(event)}."))
    end = len(scenario.events)
    parts.extend(("", DISTRACTORS[i].sentence) for before, i in scenario.distractors if before >= end)
    parts.append(("tone", TONES[scenario.tone].sentence))
    return parts


def event_phrase(event: Event) -> str:
    """What was done, in the event's wording."""
    action = ACTIONS[event.action]
    past, noun = {
        "plain": (action.past, action.noun),
        "alt": (action.alt_past, action.alt_noun),
        "held_out": (action.syn_past, action.syn_noun),
    }[event.wording]
    return f"{past} {noun}" if event.done else f"skipped the step concerning {noun}"


def _plain_due(domain: str, step: Step) -> str:
    action = ACTIONS[step.action]
    only = "" if step.rank == 0 else f" ({next(r.title for r in DOMAINS[domain].roles if r.rank == step.rank)} only)"
    return f"{action.verb} {action.noun}{only}"


def _plain_proviso(domain: str, proviso: Proviso) -> str:
    head = f"Exception: {CONDITIONS[proviso.condition].clause}, step {proviso.number}"
    if proviso.step is None:
        return f"{head} is waived."
    how = "is replaced by" if proviso.kind == "replace" else "must be followed by"
    return f"{head} {how}: {_plain_due(domain, proviso.step)}."


def _people(procedure: Procedure) -> dict[str, str]:
    """One person per role of the domain; neighbours in the list, so never the same name."""
    start = int(procedure_id(procedure)[6:10], 16)
    return {role.word: _NAMES[(start + k) % len(_NAMES)] for k, role in enumerate(DOMAINS[procedure.domain].roles)}


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
