"""What each perturbation does, whether it flips the label, and what it leaves alone: one table of frozen rows.

The published cards name the perturbations but do not define them; these definitions are ours. To override one, pass
`table={**PERTURBATIONS, name: replace(PERTURBATIONS[name], flips=...)}` to whatever takes a `table`.

Order-swapped twins have the same words bound in another order. A pair (i, j) of step numbers, chosen once per
procedure, crosses two procedures with two scenarios, all four of equal length and equal multiset of words, plus a
placebo:

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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from random import Random
from types import MappingProxyType

from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.latent import Event, Instance, Scenario, procedure_id
from interp.tasks.procedural.vocabulary import ACTIONS, DISTRACTORS, DOMAINS, TONES, tones

Edit = Callable[[Random, Instance], Instance]
FLIPPING = ("baseline_noncompliant", "step_reorder_invalid", "prerequisite_omission")
FLIPPING += ("hierarchy_violation", "exception_trigger", "ord_swap_flip")


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One row of the table.

    Attributes:
        name: the published perturbation name, or `ord_swap`.
        variant: distinguishes rows with the same name; empty if there is only one.
        edit: `(rng, parent) -> instance`.
        flips: whether the label differs from the parent's; the rule engine checks this afterwards.
        parent: "compliant": the original. "noncompliant": the original after a random flipping edit with a tone that
            agrees. "reordered": the original with the events of its pair exchanged.
        keeps: what stays as in the parent: procedure, facts, events, actors, order, wording, tone, distractors;
            "tokens": the multiset of words of the log prompt; "length": their number.
    """

    name: str
    variant: str
    edit: Edit
    flips: bool
    parent: str
    keeps: frozenset[str]


def unchanged(rng: Random, instance: Instance) -> Instance:
    """The parent itself."""
    return instance


def skip(rng: Random, instance: Instance) -> Instance:
    """One due event becomes an overt omission."""
    at = rng.choice(due_events(instance))
    return _with_event(instance, at, replace(instance.scenario.events[at], done=False))


def omit_prerequisite(rng: Random, instance: Instance) -> Instance:
    """The event of a step that another step needs is left out silently; only observable actions are eligible."""
    steps = {s.number: s for s in audit(instance).steps if s.event is not None}
    early = sorted({e for _, e in instance.procedure.needs if e in steps and ACTIONS[steps[e].step.action].observable})
    if not early:
        raise ValueError("prerequisite_omission: no prerequisite with an observable, narrated action; draw another.")
    at = steps[rng.choice(early)].event
    events = instance.scenario.events
    scenario = replace(instance.scenario, events=tuple(e for i, e in enumerate(events) if i != at))
    return replace(instance, scenario=_shift_distractors(scenario, len(events)))


def demote(rng: Random, instance: Instance) -> Instance:
    """The actor of a rank-restricted step is replaced by one of a lower rank."""
    bound = [s for s in audit(instance).steps if s.event is not None and s.step.rank > 0]
    if not bound:
        raise ValueError("hierarchy_violation: the procedure restricts no step by rank; draw another.")
    chosen = rng.choice(bound)
    assert chosen.event is not None
    lower = [r.word for r in DOMAINS[instance.procedure.domain].roles if r.rank < chosen.step.rank]
    told = instance.scenario.events[chosen.event]
    return _with_event(instance, chosen.event, replace(told, actor=rng.choice(lower)))


def trigger(rng: Random, instance: Instance) -> Instance:
    """The condition of the exception holds, and the actor keeps to the normal path."""
    return replace(instance, scenario=_hold(instance))


def handle(rng: Random, instance: Instance) -> Instance:
    """The condition of the exception holds, and the path that the exception asks for is followed."""
    proviso = instance.procedure.provisos[0]
    normal = instance.procedure.steps[proviso.number - 1].action
    at = next(i for i, e in enumerate(instance.scenario.events) if e.action == normal)
    scenario, events = _hold(instance), list(instance.scenario.events)
    if proviso.kind == "waive":
        del events[at]
    else:
        assert proviso.step is not None
        roles = [r.word for r in DOMAINS[instance.procedure.domain].roles if r.rank >= proviso.step.rank]
        done = Event(rng.choice(roles), proviso.step.action, wording=events[at].wording)
        events[at + (proviso.kind == "add") : at + 1] = [done]
    return replace(instance, scenario=replace(scenario, events=tuple(events)))


def reword(rng: Random, instance: Instance) -> Instance:
    """Every narrated action and the tone in held-out words; the procedure text is untouched."""
    scenario = instance.scenario
    events = tuple(replace(e, wording="held_out") for e in scenario.events)
    tone = rng.choice(tones(TONES[scenario.tone].polarity, held_out=True))
    return replace(instance, scenario=replace(scenario, events=events, tone=tone))


def distract(rng: Random, instance: Instance, *, held_out: bool = True) -> Instance:
    """One or two irrelevant sentences at random places among the events."""
    choices = [i for i, d in enumerate(DISTRACTORS) if d.held_out == held_out]
    picked = rng.sample(choices, rng.randint(1, 2))
    n = len(instance.scenario.events)
    placed = sorted((rng.randint(0, n), i) for i in picked)
    return replace(instance, scenario=replace(instance.scenario, distractors=tuple(placed)))


def oppose(rng: Random, instance: Instance) -> Instance:
    """The tone of the other polarity."""
    tone = rng.choice(tones(-TONES[instance.scenario.tone].polarity, held_out=False))
    return replace(instance, scenario=replace(instance.scenario, tone=tone))


def break_any(rng: Random, instance: Instance) -> Instance:
    """A random flipping edit."""
    return PERTURBATIONS[rng.choice(FLIPPING)].edit(rng, instance)


def due_events(instance: Instance) -> list[int]:
    """Positions of the events that some due step is matched with."""
    return [s.event for s in audit(instance).steps if s.event is not None]


def _with_event(instance: Instance, at: int, event: Event) -> Instance:
    events = instance.scenario.events
    return replace(instance, scenario=replace(instance.scenario, events=(*events[:at], event, *events[at + 1 :])))


def _hold(instance: Instance) -> Scenario:
    condition = instance.procedure.provisos[0].condition
    facts = tuple((c, True if c == condition else holds) for c, holds in instance.scenario.facts)
    return replace(instance.scenario, facts=facts)


def _shift_distractors(scenario: Scenario, n: int) -> Scenario:
    return replace(scenario, distractors=tuple((min(at, n - 1), i) for at, i in scenario.distractors))


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


_ALL = frozenset({"procedure", "facts", "events", "actors", "order", "wording", "tone", "distractors"})
_BINDING = frozenset({"facts", "events", "actors", "order", "wording", "tone", "distractors", "tokens", "length"})
_ROWS = (
    ("baseline_compliant", "", unchanged, False, "compliant", _ALL | {"tokens", "length"}),
    ("baseline_noncompliant", "", skip, True, "compliant", _ALL - {"events"}),
    ("baseline_noncompliant", "aligned", unchanged, False, "noncompliant", _ALL | {"tokens", "length"}),
    ("lexical_paraphrase", "compliant", reword, False, "compliant", (_ALL - {"wording", "tone"}) | {"length"}),
    ("lexical_paraphrase", "noncompliant", reword, False, "noncompliant", (_ALL - {"wording", "tone"}) | {"length"}),
    ("step_reorder_invalid", "", scramble, True, "compliant", (_ALL - {"order"}) | {"tokens", "length"}),
    ("prerequisite_omission", "", omit_prerequisite, True, "compliant", _ALL - {"events", "distractors"}),
    ("hierarchy_violation", "", demote, True, "compliant", (_ALL - {"actors"}) | {"length"}),
    ("exception_trigger", "", trigger, True, "compliant", (_ALL - {"facts"}) | {"length"}),
    ("exception_trigger", "exception_handled", handle, False, "compliant", _ALL - {"facts", "events", "actors"}),
    ("distractor_injection", "compliant", distract, False, "compliant", _ALL - {"distractors"}),
    ("distractor_injection", "noncompliant", distract, False, "noncompliant", _ALL - {"distractors"}),
    ("adversarial_surface_compliant", "", oppose, False, "compliant", (_ALL - {"tone"}) | {"length"}),
    ("adversarial_surface_noncompliant", "", break_any, True, "compliant", frozenset({"tone", "wording"})),
    ("ord_swap", "flip", renumber, True, "compliant", _BINDING),
    ("ord_swap", "rebind", rebind, True, "reordered", _BINDING),
    ("ord_swap", "reordered", reorder_pair, True, "compliant", (_ALL - {"order"}) | {"tokens", "length"}),
    ("ord_swap", "keep_listing", relist, False, "compliant", _BINDING),
)


def cell_name(name: str, variant: str) -> str:
    """Key of a row: the variant alone for `exception_handled`, otherwise `name` or `name_variant`."""
    return variant if variant == "exception_handled" else f"{name}_{variant}" if variant else name


PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {cell_name(row[0], row[1]): Perturbation(*row) for row in _ROWS}
)


def parent_of(rng: Random, original: Instance, row: Perturbation) -> Instance:
    """The instance that `row` edits, from a compliant original with a compliant-sounding tone."""
    if row.parent == "compliant":
        return original
    if row.parent == "reordered":
        return reorder_pair(rng, original)
    return oppose(rng, break_any(rng, original))
