"""Order-swap twins as examples: a base and an exp prompt of the same words, which flip the label or keep it."""

from __future__ import annotations

from random import Random

from interp.prompt import Example, Message
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import Split
from interp.tasks.procedural.latent import Instance, procedure_id
from interp.tasks.procedural.order_swaps import matched_twins
from interp.tasks.procedural.render import Rendering, render
from interp.tasks.procedural.twins import Twin


def twin_examples(
    n: int, *, seed: int = 0, split: Split = "test", rendering: Rendering = "plain", question: str | None = None
) -> list[tuple[Example, Example]]:
    """(original, twin) of `n` procedures, each once with a swap that flips the label and once with one that keeps it.

    Metadata `kind` is "flip" (the set F) or "keep" (K), `index` where the exchange begins, `direction` whether the
    original is compliant ("forward"); directions alternate, so that no constant answer is right in more than half.

    Raises:
        ValueError: an unknown rendering.
    """
    found = []
    for matched in matched_twins(Random(seed), n, split=split):
        for kind, twin in (("flip", matched.flip), ("keep", matched.keep)):
            assert twin.flips == (kind == "flip")
            pair = _examples(twin, kind, matched.direction, rendering, question, number=len(found) // 2)
            found.append(pair)
    return found


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
            metadata=metadata,
        )

    return example(twin.original, "original"), example(twin.twin, "twin")
