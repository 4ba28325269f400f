"""Make the plan of a cache from prompts and resolved positions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from interp.cache.layout import SiteSpec, row_bytes
from interp.cache.plan import CachePlan, parse_bytes
from interp.cache.rows import PromptRow, RowTable, ShardSpec
from interp.io.digest import canonical_json, sha256_of
from interp.prompt import Example, Prompt

TARGET_BYTES = 256_000_000
_REQUIRED = ("model", "adapter", "tokenizer", "numerics")
_OPTIONAL = ("batching", "interventions", "template_date")


def make_plan(
    prompts: Sequence[Prompt],
    positions_by_rule: Mapping[str, Sequence[Sequence[int]]],
    sites: Sequence[SiteSpec],
    identity_parts: Mapping[str, object],
    *,
    examples: Sequence[Example] | None = None,
    target_bytes: int | str = TARGET_BYTES,
    decode: Callable[[int], str] | None = None,
    environment: Mapping[str, object] | None = None,
) -> CachePlan:
    """The plan of a cache: which rows, in which shards, under which identity.

    Args:
        prompts:           rendered prompts, in the order the cache keeps.
        positions_by_rule: rule name -> for each prompt its 0-based token indices, ascending, possibly none.
        sites:             one per stored tensor.
        identity_parts:    "model", "adapter", "tokenizer", "numerics" (JSON values; adapter may be None), and
                           optionally "batching" (the batch composition rule), "interventions" and "template_date"
                           (given to a chat template that reads the clock).
        examples:          the examples behind the prompts, same order: label, groups and metadata of each.
        target_bytes:      size of a shard; one shard always holds at least one example.
        decode:            text of a token id; without it the text is cut from the prompt by its offsets.
        environment:       library versions and other facts that do not vary between runs (no time, no host).
    Raises:
        ValueError: duplicate ids, a position outside its prompt, lists of unequal length, nothing to store.
    """
    _check_inputs(prompts, positions_by_rule, sites, identity_parts, examples)
    counts = np.array([[len(at) for at in lists] for lists in positions_by_rule.values()], dtype=np.int64).T
    target = parse_bytes(target_bytes)
    shards = tuple(_shards(counts, row_bytes(sites), target))
    rows = _rows(prompts, positions_by_rule, shards, decode)
    return CachePlan(
        rows=rows,
        prompts=tuple(_prompt_row(p, examples[i] if examples else None) for i, p in enumerate(prompts)),
        sites=tuple(sites),
        positions=tuple(positions_by_rule),
        shards=shards,
        identity=_identity(prompts, positions_by_rule, sites, identity_parts, shards, target),
        environment=dict(environment or {}),
    )


def _check_inputs(
    prompts: Sequence[Prompt],
    positions_by_rule: Mapping[str, Sequence[Sequence[int]]],
    sites: Sequence[SiteSpec],
    identity_parts: Mapping[str, object],
    examples: Sequence[Example] | None,
) -> None:
    missing = [key for key in _REQUIRED if key not in identity_parts]
    unknown = sorted(set(identity_parts) - {*_REQUIRED, *_OPTIONAL})
    if missing or unknown:
        raise ValueError(f"identity_parts: missing {missing}, unknown {unknown}; expected {[*_REQUIRED, *_OPTIONAL]}.")
    ids = [prompt.example_id for prompt in prompts]
    _check_unique("example id", ids)
    _check_unique("site", [site.site for site in sites])
    if examples is not None and [example.id for example in examples] != ids:
        raise ValueError("examples: expected the ids of the prompts, in their order.")
    for rule, lists in positions_by_rule.items():
        if len(lists) != len(prompts):
            raise ValueError(f"positions {rule!r}: {len(lists)} lists for {len(prompts)} prompts; expected one each.")
        for prompt, at in zip(prompts, lists, strict=True):
            if list(at) != sorted(set(at)) or (at and not 0 <= at[0] <= at[-1] < len(prompt.ids)):
                raise ValueError(
                    f"positions {rule!r}, example {prompt.example_id!r}: {list(at)[:8]}; expected ascending token "
                    f"indices in 0..{len(prompt.ids) - 1}."
                )
    if not sites or not any(any(map(len, lists)) for lists in positions_by_rule.values()):
        raise ValueError("nothing to store: expected at least one site, one example and one position.")


def _check_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{what} {twice!r} occurs more than once; activations are found by it, so it must be unique.")


def _shards(counts: np.ndarray, bytes_per_row: int, target: int) -> Iterator[ShardSpec]:
    """Cut examples greedily: a shard ends before the example that would take it over the target size."""
    sizes = counts.sum(axis=1) * bytes_per_row
    index = row = first = 0
    held = 0
    for example in range(len(sizes) + 1):
        ends = example == len(sizes) or (held > 0 and held + sizes[example] > target)
        if ends and held > 0:
            runs = tuple(counts[first:example].sum(axis=0).tolist())
            yield ShardSpec(index, row, row + sum(runs), first, example, runs)
            index, row, first, held = index + 1, row + sum(runs), example, 0
        if example < len(sizes):
            held += int(sizes[example])


def _rows(
    prompts: Sequence[Prompt],
    positions_by_rule: Mapping[str, Sequence[Sequence[int]]],
    shards: Sequence[ShardSpec],
    decode: Callable[[int], str] | None,
) -> RowTable:
    columns: tuple[list[int], ...] = ([], [], [], [], [])
    texts: list[str] = []
    for shard in shards:
        for rule, lists in enumerate(positions_by_rule.values()):
            for example in range(shard.example_start, shard.example_stop):
                prompt = prompts[example]
                for ordinal, at in enumerate(lists[example]):
                    token = prompt.ids[at]
                    for column, value in zip(columns, (example, rule, ordinal, at, token), strict=True):
                        column.append(value)
                    texts.append(decode(token) if decode else prompt.text[slice(*prompt.offsets[at])])
    return RowTable(
        example_ids=tuple(prompt.example_id for prompt in prompts),
        position_names=tuple(positions_by_rule),
        example=np.array(columns[0], dtype=np.int32),
        rule=np.array(columns[1], dtype=np.int16),
        ordinal=np.array(columns[2], dtype=np.int32),
        position=np.array(columns[3], dtype=np.int32),
        token_id=np.array(columns[4], dtype=np.int64),
        token_text=tuple(texts),
    )


def _prompt_row(prompt: Prompt, example: Example | None) -> PromptRow:
    known = {} if example is None else {"label": example.label, "groups": example.groups, "metadata": example.metadata}
    return PromptRow(prompt.example_id, prompt.sha256, prompt.text_sha256, len(prompt.ids), **known)


def _identity(
    prompts: Sequence[Prompt],
    positions_by_rule: Mapping[str, Sequence[Sequence[int]]],
    sites: Sequence[SiteSpec],
    parts: Mapping[str, object],
    shards: Sequence[ShardSpec],
    target: int,
) -> dict[str, object]:
    positions = {
        rule: sha256_of([[p.example_id, list(map(int, at))] for p, at in zip(prompts, lists, strict=True)])
        for rule, lists in positions_by_rule.items()
    }
    identity = dict(parts) | {
        "prompts": {"count": len(prompts), "sha256": sha256_of([[p.example_id, list(p.ids)] for p in prompts])},
        "positions": {"rules": list(positions_by_rule), "sha256": positions},
        "sites": [{"site": s.site, "shape": list(s.shape), "dtype": s.dtype} for s in sites],
        "sharding": {
            "target_bytes": target,
            "batching": parts.get("batching"),
            "bounds_sha256": sha256_of([[s.start, s.stop, s.example_start, s.example_stop] for s in shards]),
        },
    }
    identity.pop("batching", None)
    return json.loads(canonical_json(identity))
