"""What each perturbation does, whether it flips the label, and what it leaves alone: one table of frozen rows.

The published cards name the perturbations but do not define them; these definitions are ours. To override one, pass
`table={**PERTURBATIONS, name: replace(PERTURBATIONS[name], flips=...)}` to whatever takes a `table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType

from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.latent import Event, Instance, Scenario
from interp.tasks.procedural.twins import rebind, relist, renumber, reorder_pair, scramble
from interp.tasks.procedural.vocabulary import ACTIONS, DISTRACTORS, DOMAINS, TONES, tones

Edit = Callable[[Random, Instance], Instance]
FLIPPING = ("baseline_noncompliant", "step_reorder_invalid", "prerequisite_omission")
FLIPPING += ("hierarchy_violation", "exception_trigger", "ord_swap_flip")


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One row of the table.

    Attributes:
        name: the published perturbation name, or `ord_swap`.
        variant: what distinguishes rows of one name; empty where there is only one.
        edit: `(rng, parent) -> instance`.
        flips: whether the label differs from the parent's; the engine is asked afterwards.
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
