"""Splits of BBQ in which no story is on two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from interp.prompt import Example

SIDES = {"train": 0.6, "select": 0.2, "test": 0.2}
MAX_QUADS = 16


def split_by_story(
    examples: Sequence[Example],
    *,
    seed: int,
    sides: Mapping[str, float | int] = SIDES,
    max_quads_per_template: int | None = MAX_QUADS,
) -> dict[str, list[Example]]:
    """Examples per side, each in the order given; whole stories, and therefore whole quads, on one side.

    Stories are shuffled by the seed within the category that most of their items are of, and dealt out so that every
    side comes as near to its share of the items as whole stories allow. Splitting by template instead leaks: names
    and labels twins tell the same story under two template ids.

    Args:
        sides: share of each side; they are scaled to sum to 1.
        max_quads_per_template: quads kept of one template, drawn by the seed; templates have 2 to 120 of them.
    Raises:
        ValueError: a share that is not positive, a cap below one, fewer stories than sides.
    """
    if not sides or min(sides.values()) <= 0:
        raise ValueError(f"sides: expected positive shares, got {dict(sides)}. Leave out a side that is to be empty.")
    kept = _capped(examples, max_quads_per_template, seed)
    stories: dict[str, list[Example]] = defaultdict(list)
    for example in kept:
        stories[example.groups["story"]].append(example)
    if len(stories) < len(sides):
        raise ValueError(f"sides: expected at least {len(sides)} stories, got {len(stories)}. Load more categories.")
    side_of = _deal(stories, sides, seed)
    out: dict[str, list[Example]] = {side: [] for side in sides}
    for example in kept:
        out[side_of[example.groups["story"]]].append(example)
    used = [{e.groups["story"] for e in part} for part in out.values()]
    assert sum(map(len, used)) == len(set().union(*used)), "a story is on two sides"
    return out


def _deal(stories: Mapping[str, Sequence[Example]], sides: Mapping[str, float | int], seed: int) -> dict[str, str]:
    by_category: dict[str, list[str]] = defaultdict(list)
    for name, items in stories.items():
        categories = [e.groups["category"] for e in items]
        by_category[max(sorted(set(categories)), key=categories.count)].append(name)
    total, rng, side_of = sum(sides.values()), Random(seed), {}
    for category in sorted(by_category):
        names = sorted(by_category[category])
        rng.shuffle(names)
        n_items = sum(len(stories[n]) for n in names)
        given = dict.fromkeys(sides, 0)
        for name in names:
            due = {side: share / total * n_items - given[side] for side, share in sides.items()}
            side = max(due, key=lambda s: due[s])
            side_of[name] = side
            given[side] += len(stories[name])
    return side_of


def _capped(examples: Sequence[Example], cap: int | None, seed: int) -> list[Example]:
    if cap is None:
        return list(examples)
    if cap < 1:
        raise ValueError(f"max_quads_per_template: expected at least 1, got {cap}. Use None for all.")
    quads: dict[str, dict[str, None]] = defaultdict(dict)
    for example in examples:
        quads[example.groups["template"]][example.groups["quad"]] = None
    kept: set[str] = set()
    for template, names in quads.items():
        kept.update(Random(f"{seed}/{template}").sample(list(names), min(cap, len(names))))
    return [e for e in examples if e.groups["quad"] in kept]
