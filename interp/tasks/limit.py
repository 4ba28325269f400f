"""At most so many items of a task, spread over its cells and groups."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from interp.prompt import Example


def spread(examples: Sequence[Example], n: int | None) -> list[Example]:
    """At most `n` examples in their order, taken in turn from every cell, in a cell in turn from every group.

    The first rows of a file are often of one category and a few of its groups, and the first of a group of one
    polarity or one order of options; numbers about them say nothing of the rest. Which groups come first, and which
    examples of a group, follows from a digest of their names: it is as good as drawn, the same in every run, and does
    not depend on the order of the file. A cell is the metadata key `cell`; groups are the example's, the first named
    outermost.

    Args:
        n: None for all.
    """
    if n is None or len(examples) <= n:
        return list(examples)
    names = list(dict.fromkeys(name for e in examples for name in e.groups))
    keys = [(str(e.metadata.get("cell", "")), *(e.groups.get(name, e.id) for name in names), e.id) for e in examples]
    return [examples[i] for i in sorted(_in_turn(list(range(len(examples))), keys, 0)[:n])]


def _in_turn(chosen: list[int], keys: Sequence[tuple[str, ...]], depth: int) -> list[int]:
    """The chosen indices, one of every part in turn; parts by the key at `depth`, ordered inside by the next one."""
    if len(chosen) < 2 or depth == len(keys[0]):
        return chosen
    parts: dict[str, list[int]] = {}
    for i in chosen:
        parts.setdefault(keys[i][depth], []).append(i)
    turns = [_in_turn(parts[name], keys, depth + 1) for name in sorted(parts, key=_digest)]
    return [turn[k] for k in range(max(map(len, turns))) for turn in turns if k < len(turn)]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
