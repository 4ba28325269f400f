"""Order-swapped twins: the same words bound in another order, with the flips and the keeps matched within a procedure.

A pair (i, j) of step numbers, chosen once per procedure, crosses two procedures with two scenarios, all four of equal
length and equal multiset of words, plus a placebo:

                          scenario as told     events of i and j exchanged
    procedure as written  compliant            noncompliant  (reorder_pair)
    numbers exchanged     noncompliant         compliant     (renumber; rebind)

    renumber   F   the numbers of two lines exchanged in place, all else untouched      compliant -> noncompliant
    rebind     F   the same exchange, on the scenario with the events exchanged         noncompliant -> compliant
    relist     K   the two lines change places, each with its number                    label kept

F is the flip set, K the keep set. Seen from the original, the lower right corner is a second member of K: both changed.

An exception follows its line, so pairs leave that line alone; prerequisite sentences keep their numbers.
`adjacent_twins` is the other family: two neighbouring executed steps exchanged, which flips iff something orders them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from random import Random

from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.latent import Instance, procedure_id


@dataclass(frozen=True, slots=True)
class Twin:
    """An original with its twin. `flips` is the engine's answer, `index` where the exchange begins (0-based)."""

    original: Instance
    twin: Instance
    index: int
    flips: bool


def renumber(rng: Random, instance: Instance) -> Instance:
    """The numbers of the pair exchanged in place: each line stays where it is and gets the other's number."""
    return _exchange_numbers(instance, *swap_pair(instance))


def rebind(rng: Random, instance: Instance) -> Instance:
    """The inverse use of `renumber`: the exchange of two numbers that makes a reordered scenario compliant.

    Raises:
        ValueError: no single exchange makes the instance compliant.
    """
    for i, j in _free_pairs(instance):
        twin = _exchange_numbers(instance, i, j)
        if audit(twin).label == "compliant":
            return twin
    raise ValueError("ord_swap rebind: no exchange of two step numbers makes this scenario compliant.")


def relist(rng: Random, instance: Instance) -> Instance:
    """The two lines of the pair change places and keep their numbers; nothing that is meant changes."""
    i, j = swap_pair(instance)
    exchange = {i: j, j: i}
    listing = tuple(exchange.get(n, n) for n in instance.procedure.listing)
    return replace(instance, procedure=replace(instance.procedure, listing=listing))


def reorder_pair(rng: Random, instance: Instance) -> Instance:
    """The events of the pair exchanged: what `rebind` starts from."""
    return exchange_events(instance, *_positions(instance, *swap_pair(instance)))


def scramble(rng: Random, instance: Instance) -> Instance:
    """Two due events exchanged such that the label becomes noncompliant.

    Raises:
        ValueError: no exchange of two events breaks a constraint.
    """
    due = [s.event for s in audit(instance).steps if s.event is not None]
    pairs = list(combinations(due, 2))
    rng.shuffle(pairs)
    for a, b in pairs:
        twin = exchange_events(instance, a, b)
        if audit(twin).label == "noncompliant":
            return twin
    raise ValueError("step_reorder_invalid: no two events of this scenario are ordered by a constraint.")


def swap_pair(instance: Instance) -> tuple[int, int]:
    """The pair of step numbers that the four twins of a procedure share, spread evenly by the procedure's hash.

    Raises:
        ValueError: no pair away from an exception's line changes the label when its numbers are exchanged.
    """
    pairs = _free_pairs(instance)
    if not instance.procedure.in_order:
        pairs = [p for p in pairs if audit(_exchange_numbers(instance, *p)).label == "noncompliant"]
    if not pairs:
        raise ValueError("ord_swap: no two steps away from an exception are ordered by a constraint; draw another.")
    return pairs[int(procedure_id(instance.procedure)[4:8], 16) % len(pairs)]


def adjacent_twins(instance: Instance) -> Iterator[Twin]:
    """Every twin made by exchanging two due events that follow each other among the due events of the scenario."""
    label = audit(instance).label
    due = sorted(s.event for s in audit(instance).steps if s.event is not None)
    for index, (a, b) in enumerate(pairwise(due)):
        twin = exchange_events(instance, a, b)
        yield Twin(instance, twin, index, audit(twin).label != label)


def exchange_events(instance: Instance, a: int, b: int) -> Instance:
    """Events at positions a and b change places, each with its actor and wording."""
    events = list(instance.scenario.events)
    events[a], events[b] = events[b], events[a]
    return replace(instance, scenario=replace(instance.scenario, events=tuple(events)))


def _exchange_numbers(instance: Instance, i: int, j: int) -> Instance:
    procedure = instance.procedure
    exchange = {i: j, j: i}
    steps = list(procedure.steps)
    steps[i - 1], steps[j - 1] = steps[j - 1], steps[i - 1]
    listing = tuple(exchange.get(n, n) for n in procedure.listing)
    provisos = tuple(replace(p, number=exchange.get(p.number, p.number)) for p in procedure.provisos)
    return replace(instance, procedure=replace(procedure, steps=tuple(steps), listing=listing, provisos=provisos))


def _free_pairs(instance: Instance) -> list[tuple[int, int]]:
    bound = {p.number for p in instance.procedure.provisos}
    return list(combinations([n for n in range(1, len(instance.procedure.steps) + 1) if n not in bound], 2))


def _positions(instance: Instance, i: int, j: int) -> tuple[int, int]:
    at = {e.action: k for k, e in reversed(list(enumerate(instance.scenario.events)))}
    steps = instance.procedure.steps
    return at[steps[i - 1].action], at[steps[j - 1].action]
