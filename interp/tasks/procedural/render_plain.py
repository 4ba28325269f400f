"""The plain-English rendering of an instance, for real models: a titled list of steps, then a timed narrative.

    Stanford, laboratory safety manual, procedure 4821.
    1. Label the reaction flask.
    2. Lock the sample freezer (laboratory manager only).
    Carry out the steps in the order of their numbers.
    Step 2 requires that step 1 has been completed.
    Exception: if a spill has occurred, step 2 is replaced by: seal the waste drum.

    No spill had occurred. The alarm was sounding. At 08:40, laboratory assistant Dana Reed labeled the reaction flask.
    At 08:52, laboratory manager Omar Diaz locked the sample freezer. The work was calm and careful.

The procedure number and the names come from the procedure's hash, the times from the position, so twins share them.
"""

from __future__ import annotations

from interp.tasks.procedural.latent import Event, Instance, Procedure, Proviso, Step, procedure_id
from interp.tasks.procedural.render_log import Part
from interp.tasks.procedural.vocabulary import ACTIONS, CONDITIONS, DISTRACTORS, DOMAINS, ROLES, TONES

_NAMES = (
    "Dana Reed", "Omar Diaz", "Lena Fox", "Igor Lund", "Mina Shah", "Paul Grant", "Ruth Cole", "Tomas Vega",
    "Alice Wood", "Ben Carter", "Clara Moss", "David Kim", "Elena Rossi", "Frank Hill", "Grace Lee", "Hugo Marsh",
)  # fmt: skip
_START, _STEP = 8 * 60 + 40, 12  # minutes after midnight of the first event, and between events


def procedure_parts(procedure: Procedure) -> list[Part]:
    """Title, numbered lines in listing order, order clause, prerequisites, exceptions: one line each."""
    number = int(procedure_id(procedure)[:6], 16) % 9000 + 1000
    domain = procedure.domain
    parts = [("", f"{procedure.institution}, {DOMAINS[domain].title}, procedure {number}.")]
    for n in procedure.listing:
        text = _due(domain, procedure.steps[n - 1])
        parts.append((f"step_{n}", f"{n}. {text[0].upper()}{text[1:]}."))
    if procedure.in_order:
        parts.append(("", "Carry out the steps in the order of their numbers."))
    else:
        parts.append(("", "The steps may be carried out in any order, except where stated."))
    parts.extend(("", f"Step {late} requires that step {early} has been completed.") for late, early in procedure.needs)
    parts.extend(("", _proviso(domain, p)) for p in procedure.provisos)
    return parts


def scenario_parts(instance: Instance) -> list[Part]:
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


def _due(domain: str, step: Step) -> str:
    action = ACTIONS[step.action]
    only = "" if step.rank == 0 else f" ({next(r.title for r in DOMAINS[domain].roles if r.rank == step.rank)} only)"
    return f"{action.verb} {action.noun}{only}"


def _proviso(domain: str, proviso: Proviso) -> str:
    head = f"Exception: {CONDITIONS[proviso.condition].clause}, step {proviso.number}"
    if proviso.step is None:
        return f"{head} is waived."
    how = "is replaced by" if proviso.kind == "replace" else "must be followed by"
    return f"{head} {how}: {_due(domain, proviso.step)}."


def _people(procedure: Procedure) -> dict[str, str]:
    """One person per role of the domain; neighbours in the list, so never the same name."""
    start = int(procedure_id(procedure)[6:10], 16)
    return {role.word: _NAMES[(start + k) % len(_NAMES)] for k, role in enumerate(DOMAINS[procedure.domain].roles)}
