"""The rule engine: what each step of a procedure gets in a scenario, and the label that follows.

The label is always computed here. Perturbations declare what they expect; they never assign it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp.tasks.procedural.latent import Instance, Procedure, Scenario, Step
from interp.tasks.procedural.vocabulary import ROLES

Verdict = Literal["ok", "missing", "skipped", "order", "role"]
Mode = Literal["plain", "instead", "also", "waived"]
VERDICTS: tuple[Verdict, ...] = ("ok", "missing", "skipped", "order", "role")


@dataclass(frozen=True, slots=True)
class StepAudit:
    """The finding on one step.

    Attributes:
        number: step number; an added step carries the number that it follows.
        mode: plain, instead (an exception replaced it), also (an exception added it), waived (nothing is due).
        step: what is due after exceptions.
        event: index of the first event with that action, None where there is none.
        anchor: index of the event that it must come after, None where nothing precedes it.
        late: the event comes before its anchor.
        short: the actor's rank is below the required one.
        verdict: missing, skipped, order, role (checked in that order), or ok.
    """

    number: int
    mode: Mode
    step: Step
    event: int | None
    anchor: int | None
    late: bool
    short: bool
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Audit:
    """All findings on an instance. `triggers[i]` says whether the i-th exception's condition holds."""

    label: Literal["compliant", "noncompliant"]
    steps: tuple[StepAudit, ...]
    triggers: tuple[bool, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each due step, in the order audited."""
        return tuple(step.verdict for step in self.steps)


def plan(procedure: Procedure, triggers: tuple[bool, ...]) -> list[tuple[int, Mode, Step]]:
    """The steps due, by number, once the exceptions whose condition holds are applied.

    Where several exceptions name the same step, the last one that replaces or waives it counts.
    """
    due: list[tuple[int, Mode, Step]] = []
    active = [p for p, holds in zip(procedure.provisos, triggers, strict=True) if holds]
    for number, step in enumerate(procedure.steps, 1):
        mode: Mode = "plain"
        also: list[tuple[int, Mode, Step]] = []
        for proviso in active:
            if proviso.number != number:
                continue
            if proviso.kind == "waive":
                mode = "waived"
            elif proviso.step is None:
                raise ValueError(f"exception '{proviso.condition}' of kind '{proviso.kind}' needs a step, got None.")
            elif proviso.kind == "replace":
                mode, step = "instead", proviso.step
            else:
                also.append((number, "also", proviso.step))
        due.append((number, mode, step))
        due.extend(also)
    return due


def audit(instance: Instance) -> Audit:
    """Judge a scenario by its procedure.

        verdict_k = missing   no event has the action of step k
                    skipped   the first such event is an explicit omission
                    order     its position is before its anchor
                    role      rank(actor) < rank(step)
                    ok        otherwise
        label     = compliant iff every verdict is ok

    The anchor of a step is the event of the previous found step (`in_order`), else the latest found event among its
    prerequisites; an overt omission is not found. For a complete scenario "some step is before the previous one" is the
    same as "not sorted".
    """
    procedure, scenario = instance.procedure, instance.scenario
    holds = dict(scenario.facts)
    triggers = tuple(holds.get(p.condition, False) for p in procedure.provisos)
    first = _first_events(scenario)
    event_of: dict[int, int] = {}
    previous: int | None = None
    out = []
    for number, mode, step in plan(procedure, triggers):
        if mode == "waived":
            out.append(StepAudit(number, mode, step, None, None, False, False, "ok"))
            continue
        anchor = previous if procedure.in_order else _latest_prerequisite(procedure, number, mode, event_of)
        finding = _judge(scenario, number, mode, step, first.get(step.action), anchor)
        if finding.event is not None and finding.verdict != "skipped":
            previous = finding.event
            event_of[number] = max(finding.event, event_of.get(number, -1))
        out.append(finding)
    label = "compliant" if all(f.verdict == "ok" for f in out) else "noncompliant"
    return Audit(label, tuple(out), triggers)


def _judge(scenario: Scenario, number: int, mode: Mode, step: Step, event: int | None, anchor: int | None) -> StepAudit:
    if event is None:
        return StepAudit(number, mode, step, None, anchor, False, False, "missing")
    told = scenario.events[event]
    if not told.done:
        return StepAudit(number, mode, step, event, anchor, False, False, "skipped")
    late = anchor is not None and event < anchor
    short = ROLES[told.actor].rank < step.rank
    return StepAudit(number, mode, step, event, anchor, late, short, "order" if late else "role" if short else "ok")


def _first_events(scenario: Scenario) -> dict[str, int]:
    first: dict[str, int] = {}
    for position, event in enumerate(scenario.events):
        first.setdefault(event.action, position)
    return first


def _latest_prerequisite(procedure: Procedure, number: int, mode: Mode, event_of: dict[int, int]) -> int | None:
    """Without a total order: the last found event among the prerequisites; an added step also follows its own step."""
    needed = [early for late, early in procedure.needs if late == number] + [number] * (mode == "also")
    before = [event_of[early] for early in needed if early in event_of]
    return max(before) if before else None
