"""An instance as text: two renderings of the same latent values, with the character span of every named part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from interp.tasks.procedural import render_log, render_plain
from interp.tasks.procedural.latent import Instance
from interp.tasks.procedural.vocabulary import PLAIN_QUESTION, TASK_QUESTION

Rendering = Literal["plain", "log"]
Spans = dict[str, tuple[int, int]]
RENDERINGS: tuple[Rendering, ...] = ("plain", "log")
PLAIN_TEMPLATE = "Procedure:\n{procedure}\n\nScenario:\n{scenario}\n\nQuestion: {question}"
LOG_TEMPLATE = "Procedure: {procedure} Scenario: {scenario} Question: {question}"


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
        procedure = join_parts(render_log.procedure_parts(instance.procedure), " ")
        scenario = join_parts(render_log.scenario_parts(instance.scenario), " ")
        return compose(procedure, scenario, question or TASK_QUESTION, template=LOG_TEMPLATE)
    procedure = join_parts(render_plain.procedure_parts(instance.procedure), "\n")
    scenario = join_parts(render_plain.scenario_parts(instance), " ")
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
