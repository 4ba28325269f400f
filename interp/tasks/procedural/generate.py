"""Seeded draws of latent instances: compliant originals, shuffled latents, overlays, cells, the training distribution.

Every function takes the random generator it draws from; the same seed gives the same items, and a longer run of a
cell begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from interp.tasks.procedural.latent import (
    Event,
    Instance,
    Procedure,
    Proviso,
    ProvisoKind,
    Scenario,
    Step,
    procedure_id,
)
from interp.tasks.procedural.vocabulary import ACTIONS, DOMAINS, TONES, tones

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """How originals are drawn. The defaults are those of the embedded pair.

    Attributes:
        n_steps: shortest and longest procedure.
        p_restricted: chance that a step is restricted to the upper rank (at least one is).
        p_senior: chance that an unrestricted step is done by the upper rank.
        max_extra: at most this many events that no step asks for (uniform from 0); they keep "how many events" and
            "is anything skipped" from telling the label.
        p_extra_skipped: chance that such an event is an overt omission.
        proviso_kinds: kinds of exception; `waive` makes the two exception cells undefined.
        in_order: False draws procedures in which only the prerequisites order the steps.
    """

    n_steps: tuple[int, int] = (3, 5)
    p_restricted: float = 0.4
    p_senior: float = 0.3
    max_extra: int = 2
    p_extra_skipped: float = 0.65
    proviso_kinds: tuple[ProvisoKind, ...] = ("replace",)
    in_order: bool = True


DEFAULT = GeneratorConfig()


def split_of(procedure_hash: str) -> Split:
    """The split of a procedure: test for a tenth of the hashes, validation for another, train for the rest."""
    bucket = int(procedure_hash[:4], 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def original(rng: Random, config: GeneratorConfig = DEFAULT, *, split: Split | None = None) -> Instance:
    """A compliant instance with a compliant-sounding tone, its exception not triggered, every cell defined on it.

    Args:
        rng, config: where it comes from.
        split: procedures are drawn until one is in this split; None takes the first.
    """
    while True:
        procedure, spare = _procedure(rng, config)
        if split is None or split_of(procedure_id(procedure)) == split:
            break
    name = procedure.domain
    events = [_performed(rng, config, name, step) for step in procedure.steps]
    for action in spare[: rng.randint(0, config.max_extra)]:
        actor = rng.choice(DOMAINS[name].roles).word
        events.insert(rng.randint(0, len(events)), Event(actor, action, rng.random() >= config.p_extra_skipped))
    facts = _facts(rng, name, procedure.provisos[0].condition, holds=False)
    return Instance(procedure, Scenario(facts, tuple(events), rng.choice(tones(1, held_out=False))))


def originals(
    rng: Random, *, split: Split | None = None, config: GeneratorConfig = DEFAULT, seen: set[str] | None = None
) -> Iterator[Instance]:
    """Endless originals of one split, no procedure twice. `seen` may be shared to keep several streams disjoint."""
    seen = set() if seen is None else seen
    while True:
        instance = original(rng, config, split=split)
        key = procedure_id(instance.procedure)
        if key not in seen:
            seen.add(key)
            yield instance


def shuffled(rng: Random, config: GeneratorConfig = DEFAULT, *, split: Split | None = None) -> Instance:
    """A latent in which nothing can be guessed from the usual order.

    Events: a full permutation (.6), one exchange (.2) or in order; up to 2 removed; actors at random in half; each
    skipped with .15. The exception holds in half, and is then followed in half (.1 where it does not hold). Lines are
    listed in random order in half. One draw in six leaves order, actors and events intact and follows the exception, so
    that the label is not constant.
    """
    base = original(rng, config, split=split)
    procedure, name = base.procedure, base.procedure.domain
    proviso = procedure.provisos[0]
    holds, clean = rng.random() < 0.5, rng.random() < 1 / 6
    events = list(base.scenario.events)
    followed = holds if clean else rng.random() < (0.5 if holds else 0.1)
    if proviso.step is not None and followed:
        normal = procedure.steps[proviso.number - 1].action
        at = next(i for i, e in enumerate(events) if e.action == normal)
        events[at + (proviso.kind == "add") : at + 1] = [_performed(rng, config, name, proviso.step)]
    if not clean:
        events = _disordered(rng, name, events)
    if rng.random() < 0.5:
        procedure = replace(procedure, listing=tuple(rng.sample(procedure.listing, len(procedure.listing))))
    facts = _facts(rng, name, proviso.condition, holds=holds)
    return Instance(procedure, Scenario(facts, tuple(events), rng.randrange(len(TONES))))


def _disordered(rng: Random, name: str, events: list[Event]) -> list[Event]:
    for _ in range(rng.choice((0, 0, 1, 2))):
        del events[rng.randrange(len(events))]
    draw = rng.random()
    if draw < 0.6:
        rng.shuffle(events)
    elif draw < 0.8 and len(events) > 1:
        a, b = rng.sample(range(len(events)), 2)
        events[a], events[b] = events[b], events[a]
    if rng.random() < 0.5:
        words = [role.word for role in DOMAINS[name].roles]
        events = [replace(e, actor=rng.choice(words)) for e in events]
    return [replace(e, done=False) if rng.random() < 0.15 else e for e in events]


def _procedure(rng: Random, config: GeneratorConfig) -> tuple[Procedure, Sequence[str]]:
    """A procedure, and actions of its domain that it does not use."""
    name = rng.choice(tuple(DOMAINS))
    n = rng.randint(*config.n_steps)
    actions = rng.sample(DOMAINS[name].actions, n + 1 + config.max_extra)
    while not any(ACTIONS[a].observable for a in actions[: n - 1]):
        actions = rng.sample(DOMAINS[name].actions, n + 1 + config.max_extra)
    ranks = [int(rng.random() < config.p_restricted) for _ in range(n)]
    if not any(ranks):
        ranks[rng.randrange(n)] = 1
    kind = rng.choice(config.proviso_kinds)
    instead = None if kind == "waive" else Step(actions[n], int(rng.random() < config.p_restricted))
    proviso = Proviso(rng.choice(DOMAINS[name].conditions), rng.randint(1, n), kind, instead)
    procedure = Procedure(
        name,
        rng.choice(DOMAINS[name].institutions),
        tuple(Step(a, r) for a, r in zip(actions[:n], ranks, strict=True)),
        _needs(rng, config, actions[:n]),
        (proviso,),
        tuple(range(1, n + 1)),
        config.in_order,
    )
    return procedure, actions[n + 1 :]


def _needs(rng: Random, config: GeneratorConfig, actions: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """One prerequisite with an observable first step; without a total order, each other pair with chance .4."""
    n = len(actions)
    early = rng.choice([i for i in range(1, n) if ACTIONS[actions[i - 1]].observable])
    needs = {(rng.randint(early + 1, n), early)}
    if not config.in_order:
        needs |= {(j, i) for i in range(1, n) for j in range(i + 1, n + 1) if rng.random() < 0.4}
    return tuple(sorted(needs))


def _performed(rng: Random, config: GeneratorConfig, name: str, step: Step) -> Event:
    low, high = DOMAINS[name].roles[0].word, DOMAINS[name].roles[-1].word
    return Event(high if step.rank or rng.random() < config.p_senior else low, step.action)


def _facts(rng: Random, name: str, condition: str, *, holds: bool) -> tuple[tuple[str, bool], ...]:
    """The governing condition and one other of the domain, in random order, so that a mention is no cue."""
    other = rng.choice([c for c in DOMAINS[name].conditions if c != condition])
    facts = [(condition, holds), (other, rng.random() < 0.5)]
    rng.shuffle(facts)
    return tuple(facts)
