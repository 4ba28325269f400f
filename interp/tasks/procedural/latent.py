"""What an instance is before it is worded: frozen values of a procedure and a scenario, and their JSON form.

Step numbers are 1-based and are what the procedure text prints; events are counted from 0 in the order narrated.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

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
        events: in the order narrated, which is the order in which they took place.
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
    proc, scen = _take(Instance, data, "latent").values()
    p, s = _take(Procedure, proc, "latent.procedure"), _take(Scenario, scen, "latent.scenario")
    p["steps"] = tuple(Step(**_take(Step, x, "latent.procedure.steps")) for x in p["steps"])
    p["needs"] = tuple((int(a), int(b)) for a, b in p["needs"])
    p["provisos"] = tuple(_proviso(x) for x in p["provisos"])
    p["listing"] = tuple(p["listing"])
    s["facts"] = tuple((str(c), bool(h)) for c, h in s["facts"])
    s["events"] = tuple(Event(**_take(Event, x, "latent.scenario.events")) for x in s["events"])
    s["distractors"] = tuple((int(a), int(b)) for a, b in s["distractors"])
    return Instance(Procedure(**p), Scenario(**s))


def _proviso(data: dict[str, Any]) -> Proviso:
    row = _take(Proviso, data, "latent.procedure.provisos")
    if row["step"] is not None:
        row["step"] = Step(**_take(Step, row["step"], "latent.procedure.provisos.step"))
    return Proviso(**row)


def _take(cls: type, data: object, where: str) -> dict[str, Any]:
    """The fields of `cls` out of `data`, in declared order; all must be there and nothing else."""
    names = [f.name for f in fields(cls)]
    if not isinstance(data, dict) or set(data) != set(names):
        came = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{where}: expected an object with exactly the fields {names}; came {came}.")
    return {name: data[name] for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
