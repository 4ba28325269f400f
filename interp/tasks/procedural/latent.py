"""What an instance is before it is worded: frozen values of a procedure and a scenario, and their JSON form.

Step numbers are 1-based and are what the procedure text prints; events are counted from 0 in the order narrated.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from interp.io.read import checked
from interp.tasks.procedural.vocabulary import ACTIONS, CONDITIONS, DISTRACTORS, DOMAINS, ROLES, TONES

ProvisoKind = Literal["replace", "waive", "add"]
Wording = Literal["plain", "alt", "held_out"]


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: an action key and the lowest rank that may carry it out."""

    action: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Proviso:
    """An exception: where `condition` holds, step `number` is replaced by `step`, waived, or followed by `step`."""

    condition: str
    number: int
    kind: ProvisoKind = "replace"
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Procedure:
    """Numbered steps with their constraints.

    Attributes:
        domain, institution: keys of `vocabulary.DOMAINS` and the body that issued it.
        steps: step number k is `steps[k - 1]`.
        needs: prerequisite edges `(later, earlier)` as step numbers.
        provisos: the exceptions.
        listing: step numbers in the order in which their lines are printed; a permutation of 1..n.
        in_order: True: the steps must be done in the order of their numbers. False: only `needs` constrains order.
    """

    domain: str
    institution: str
    steps: tuple[Step, ...]
    needs: tuple[tuple[int, int], ...]
    provisos: tuple[Proviso, ...]
    listing: tuple[int, ...]
    in_order: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """Something narrated: `actor` (a role word) did an action, or explicitly skipped it (`done` False)."""

    actor: str
    action: str
    done: bool = True
    wording: Wording = "plain"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happened.

    Attributes:
        facts: `(condition, holds)` in the order stated.
        events: the events in narrated order, which is the order in which they took place.
        distractors: `(before, index)`: sentence `index` of `vocabulary.DISTRACTORS` stands before event `before`.
        tone: index into `vocabulary.TONES`.
    """

    facts: tuple[tuple[str, bool], ...]
    events: tuple[Event, ...]
    tone: int
    distractors: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A procedure and a scenario to be judged by it."""

    procedure: Procedure
    scenario: Scenario


def procedure_id(procedure: Procedure) -> str:
    """Hash of a procedure up to the numbering and listing of its steps: 16 hex digits of sha1.

    Two procedures share it iff they have the same domain, the same set of (action, rank) and the same exceptions named
    by action. Numbers are left out because `ord_swap` renumbers, and a twin must stay in the split of its original.
    """
    steps = procedure.steps
    lines = sorted(f"{s.action}/{s.rank}" for s in steps)
    for p in procedure.provisos:
        target = f"{p.step.action}/{p.step.rank}" if p.step else "-"
        lines.append(f"{p.condition}>{p.kind}>{steps[p.number - 1].action}>{target}")
    return hashlib.sha1(f"{procedure.domain}|{'|'.join(lines)}".encode()).hexdigest()[:16]


def to_json(instance: Instance) -> dict[str, Any]:
    """The instance as JSON-ready dicts and lists; `from_json` inverts it exactly."""
    return _plain(asdict(instance))


def from_json(data: dict[str, Any]) -> Instance:
    """Rebuild an `Instance` from `to_json`.

    Raises:
        ValueError: a field is missing, unknown, or has the wrong form; the message names it.
    """
    instance: Instance = checked(Instance, _exact(Instance, data, "latent"), "latent", "")
    check_words(instance)
    return instance


def check_words(instance: Instance) -> None:
    """Every key is one of the vocabulary and every number one of the procedure: what can be audited and worded.

    Raises:
        ValueError: names the first that is not.
    """
    p, s = instance.procedure, instance.scenario
    steps, n = [*p.steps, *(v.step for v in p.provisos if v.step is not None)], len(p.steps)
    named = {
        "procedure.domain": ({p.domain}, DOMAINS),
        "procedure.steps.action": ({step.action for step in steps} | {e.action for e in s.events}, ACTIONS),
        "procedure.steps.rank": ({step.rank for step in steps}, {role.rank for role in ROLES.values()}),
        "procedure.needs": ({number for edge in p.needs for number in edge}, range(1, n + 1)),
        "procedure.provisos.condition": ({v.condition for v in p.provisos} | {c for c, _ in s.facts}, CONDITIONS),
        "procedure.provisos.number": ({v.number for v in p.provisos}, range(1, n + 1)),
        "scenario.events.actor": ({e.actor for e in s.events}, ROLES),
        "scenario.tone": ({s.tone}, range(len(TONES))),
        "scenario.distractors": ({i for _, i in s.distractors}, range(len(DISTRACTORS))),
        "scenario.distractors.before": ({at for at, _ in s.distractors}, range(len(s.events) + 1)),
    }
    for where, (got, allowed) in named.items():
        if strange := [value for value in got if value not in allowed]:
            some = (
                f"0 to {len(allowed) - 1}"
                if isinstance(allowed, range) and allowed.start == 0
                else ", ".join(map(str, allowed))
            )
            raise ValueError(f"latent.{where}: expected one of {some:.200}, got {strange[0]!r:.60}.")
    if sorted(p.listing) != list(range(1, n + 1)):
        raise ValueError(f"latent.procedure.listing: expected each of 1 to {n} once, got {list(p.listing)!r:.100}.")


def _exact(kind: type, data: object, where: str) -> dict[str, Any]:
    """`data`, if it and the objects in it have exactly the fields of `kind` and its parts."""
    names = [f.name for f in fields(kind)]
    if not isinstance(data, dict) or set(data) != set(names):
        got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{where}: expected an object with exactly the fields {names}, got {got}.")
    for name, inner in _INNER.get(kind, {}).items():
        value = data[name]
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            _exact(inner, one, f"{where}.{name}")
    return data


_INNER: dict[type, dict[str, type]] = {
    Instance: {"procedure": Procedure, "scenario": Scenario},
    Procedure: {"steps": Step, "provisos": Proviso},
    Proviso: {"step": Step},
    Scenario: {"events": Event},
}
"""Fields that hold objects."""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
