"""The low-entropy rendering of an instance, one word per blank-separated token, for the embedded pair.

Procedure: 1 anyone issue form . 2 supervisor photograph label . step 2 needs step 1 .
if storm then step 2 becomes supervisor review sample . Scenario: storm absent . refusal present .
form first issued by investigator . label second photographed by supervisor . mood proud and tidy .
Question: is this compliant ?
"""

from __future__ import annotations

from interp.tasks.procedural.latent import Event, Procedure, Proviso, Scenario, Step
from interp.tasks.procedural.vocabulary import ACTIONS, ANYONE, DISTRACTORS, DOMAINS, ORDINALS, TONES

Part = tuple[str, str]  # (span name or "", text)


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


def procedure_parts(procedure: Procedure) -> list[Part]:
    """Lines in listing order, then the order clause, the prerequisites, the exceptions."""
    parts = [(f"step_{n}", f"{n} {_due(procedure.domain, procedure.steps[n - 1])} .") for n in procedure.listing]
    if not procedure.in_order:
        parts.append(("", "in any order ."))
    parts.extend(("", f"step {late} needs step {early} .") for late, early in procedure.needs)
    parts.extend(("", _proviso(procedure.domain, p)) for p in procedure.provisos)
    return parts


def scenario_parts(scenario: Scenario) -> list[Part]:
    """Facts, then events with their ordinals and the distractors between them, then the tone."""
    parts = [("", f"{condition} {'present' if holds else 'absent'} .") for condition, holds in scenario.facts]
    sentences: dict[int, list[int]] = {}
    for before, index in scenario.distractors:
        sentences.setdefault(before, []).append(index)
    for position, event in enumerate(scenario.events):
        parts.extend(_distractors(sentences.get(position, ())))
        key, verb = event_words(event)
        parts.append((f"event_{position + 1}", f"{key} {ORDINALS[position]} {verb} by {event.actor} ."))
    parts.extend(_distractors(sentences.get(len(scenario.events), ())))
    parts.append(("tone", f"mood {' and '.join(TONES[scenario.tone].words)} ."))
    return parts


def _due(domain: str, step: Step) -> str:
    action = ACTIONS[step.action]
    return f"{requirement(domain, step.rank)} {action.verb} {action.key}"


def _proviso(domain: str, proviso: Proviso) -> str:
    head = f"if {proviso.condition} then step {proviso.number}"
    if proviso.step is None:
        return f"{head} waived ."
    if proviso.kind == "replace":
        return f"{head} becomes {_due(domain, proviso.step)} ."
    return f"{head} also needs {_due(domain, proviso.step)} ."


def _distractors(indices: tuple[int, ...] | list[int]) -> list[Part]:
    return [("", "{} stayed {} .".format(*DISTRACTORS[i].words)) for i in indices]
