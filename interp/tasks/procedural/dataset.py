"""A data set of any size on a balanced grid: each original with several of its perturbations, labels half and half."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from interp.tasks.procedural.cells import Item, item
from interp.tasks.procedural.generate import DEFAULT, GeneratorConfig, Split, originals
from interp.tasks.procedural.latent import Instance
from interp.tasks.procedural.records import record_of, to_row
from interp.tasks.procedural.render import Rendering

# One row per original, six originals per round. Labels are 17 to 17; on either side 3 of the 17 sound like the other
# label; exceptions hold, lines are shuffled and words are replaced about equally often on both sides.
_EXCEPTION = ("exception_trigger", "exception_handled", "baseline_noncompliant", "adversarial_surface_compliant")
_BINDING = ("ord_swap_flip", "ord_swap_rebind", "step_reorder_invalid")
_RULES = ("prerequisite_omission", "hierarchy_violation", "adversarial_surface_noncompliant")
_KEPT = ("lexical_paraphrase_compliant", "distractor_injection_compliant", "adversarial_surface_compliant")
_BROKEN = ("baseline_noncompliant_aligned", "lexical_paraphrase_noncompliant", "distractor_injection_noncompliant")
GRID: tuple[tuple[str, ...], ...] = (
    ("baseline_compliant", *_EXCEPTION),
    ("baseline_compliant", *_EXCEPTION),
    ("baseline_compliant", *_BINDING, "ord_swap_keep_listing"),
    ("baseline_compliant", *_BINDING, "exception_handled"),
    ("baseline_compliant", *_RULES, *_KEPT),
    ("baseline_compliant", *_RULES, *_BROKEN),
)
_MAX_TRIES = 100


def generate_items(seed: int, *, split: Split | None = None, config: GeneratorConfig = DEFAULT) -> Iterator[Item]:
    """Endless items of `GRID` in rounds of 34; no procedure comes from two originals, no item of an original twice."""
    stream = originals(Random(f"{seed}/{split}/grid"), split=split, config=config)
    for index, base in enumerate(stream):
        made: list[Instance] = []
        for cell in GRID[index % len(GRID)]:
            drawn = _new_item(base, cell, index, made, key=f"{seed}/grid", split=split)
            made.append(drawn.instance)
            yield drawn


def _new_item(base: Instance, cell: str, index: int, made: list[Instance], *, key: str, split: Split | None) -> Item:
    """An item that differs from those `made` from the same original: two random edits may coincide."""
    for attempt in range(_MAX_TRIES):
        drawn = item(base, cell, index, key=key, split=split, attempt=attempt)
        if drawn.instance not in made:
            return drawn
    raise AssertionError(f"{cell}: {_MAX_TRIES} draws from one original gave nothing new")


def generate_records(
    n: int,
    seed: int = 0,
    *,
    rendering: Rendering = "plain",
    split: Split | None = None,
    config: GeneratorConfig = DEFAULT,
) -> list[dict[str, Any]]:
    """`n` records as JSON-ready dicts, all texts distinct; a longer run begins with the shorter one.

    Args:
        n: how many.
        seed: of everything drawn.
        rendering: plain English or the log of the embedded pair.
        split: only procedures of this split; None draws all three (80, 10, 10 of 100), each record naming its own.
        config: how originals are drawn.
    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1; got {n}.")
    items = islice(generate_items(seed, split=split, config=config), n)
    return [to_row(record_of(drawn, rendering=rendering)) for drawn in items]
