"""Adjacent-exchange twins on partially ordered procedures: flips and keeps from the same procedure, positions balanced.

Six steps with random prerequisites (each pair with chance .4) are carried out in a random order that respects them.
Exchanging two neighbouring steps flips the label iff one is a prerequisite of the other, so both kinds of twin exist in
most procedures, and a model that only notices *that* the order changed cannot distinguish them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random

from interp.prompt import Example, Message
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import GeneratorConfig, Split, originals
from interp.tasks.procedural.latent import Event, Instance, Procedure, procedure_id
from interp.tasks.procedural.perturb import Twin, adjacent_twins, demote
from interp.tasks.procedural.render import Rendering, render
from interp.tasks.procedural.replies import trace

POSET = GeneratorConfig(n_steps=(6, 6), in_order=False, max_extra=0)


@dataclass(frozen=True, slots=True)
class MatchedTwins:
    """A flipping and a keeping twin of one procedure.

    Attributes:
        flip: "forward" is compliant -> noncompliant; "backward" the same two texts with their roles exchanged.
        keep: both compliant ("forward"), or both noncompliant by the same rank violation ("backward").
        direction: forward or backward, alternating, so that "always noncompliant" scores one half.
    """

    flip: Twin
    keep: Twin
    direction: str


def matched_twins(
    rng: Random, n: int, *, split: Split | None = None, config: GeneratorConfig = POSET
) -> list[MatchedTwins]:
    """`n` matched pairs of twins, one per procedure; procedures without both kinds are passed over.

    Within a procedure the flip and the keep are chosen such that, over the whole set, each index is used about equally
    often on both sides.

    Raises:
        ValueError: a config with a total order, in which every exchange flips.
    """
    if config.in_order:
        raise ValueError("matched_twins: expected a config with in_order=False; with a total order nothing is kept.")
    out: list[MatchedTwins] = []
    excess: Counter[int] = Counter()  # flips minus keeps at each index
    for base in originals(rng, split=split, config=config):
        if len(out) == n:
            break
        instance = linear_extension(rng, base)
        twins = list(adjacent_twins(instance))
        pair = _closest([t for t in twins if t.flips], [t for t in twins if not t.flips], excess, rng)
        if pair is None:
            continue
        flip, keep = pair
        excess[flip.index] += 1
        excess[keep.index] -= 1
        out.append(_directed(rng, flip, keep, backward=len(out) % 2 == 1))
    return out


def linear_extension(rng: Random, instance: Instance) -> Instance:
    """The events of a compliant instance in a random order that respects the prerequisites."""
    procedure = instance.procedure
    waiting, order = list(range(1, len(procedure.steps) + 1)), []
    while waiting:
        ready = [k for k in waiting if not any(early in waiting for late, early in procedure.needs if late == k)]
        order.append(rng.choice(ready))
        waiting.remove(order[-1])
    return replace(instance, scenario=replace(instance.scenario, events=_told(instance, procedure, order)))


def _told(instance: Instance, procedure: Procedure, order: Sequence[int]) -> tuple[Event, ...]:
    by_action = {event.action: event for event in instance.scenario.events}
    told = tuple(by_action.pop(procedure.steps[k - 1].action) for k in order)
    return (*told, *by_action.values())


def _closest(
    flips: Sequence[Twin], keeps: Sequence[Twin], excess: Counter[int], rng: Random
) -> tuple[Twin, Twin] | None:
    """The pair that leaves the indices best balanced; ties at random."""
    pairs = list(product(flips, keeps))
    rng.shuffle(pairs)
    return min(pairs, key=lambda p: excess[p[0].index] - excess[p[1].index], default=None)


def _directed(rng: Random, flip: Twin, keep: Twin, *, backward: bool) -> MatchedTwins:
    if not backward:
        return MatchedTwins(flip, keep, "forward")
    broken = demote(rng, keep.original)
    kept = next(t for t in adjacent_twins(broken) if t.index == keep.index)
    return MatchedTwins(replace(flip, original=flip.twin, twin=flip.original), kept, "backward")


def twin_examples(
    n: int, *, seed: int = 0, split: Split = "test", rendering: Rendering = "plain", question: str | None = None
) -> list[tuple[Example, Example]]:
    """(original, twin) of `n` procedures, each once with a swap that flips the label and once with one that keeps it.

    Metadata `kind` is "flip" (the set F) or "keep" (K), `index` where the exchange begins, `direction` whether the
    original is compliant ("forward"); directions alternate, so that no constant answer is right in more than half.

    Raises:
        ValueError: an unknown rendering.
    """
    twins = []
    for matched in matched_twins(Random(seed), n, split=split):
        for kind, twin in (("flip", matched.flip), ("keep", matched.keep)):
            assert twin.flips == (kind == "flip")
            pair = _examples(twin, kind, matched.direction, rendering, question, number=len(twins) // 2)
            twins.append(pair)
    return twins


def _examples(
    twin: Twin, kind: str, direction: str, rendering: Rendering, question: str | None, *, number: int
) -> tuple[Example, Example]:
    name = f"{kind}-{number:04d}"
    group = procedure_id(twin.original.procedure)
    metadata = {"kind": kind, "index": twin.index, "direction": direction}

    def example(instance: Instance, role: str) -> Example:
        text = render(instance, rendering=rendering, question=question)
        return Example(
            id=f"{name}-{role}",
            messages=(Message("user", text.text),),
            label=audit(instance).label,
            groups={"procedure": group},
            spans=dict(text.spans),
            metadata={**metadata, "rendering": rendering, "trace": trace(instance, rendering=rendering)},
        )

    return example(twin.original, "original"), example(twin.twin, "twin")
