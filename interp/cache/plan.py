"""The plan of a cache, made before any model runs: rows, sites, shards, bytes and identity."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from interp.cache.errors import CacheFullError
from interp.cache.layout import (
    ExampleRows,
    PromptRow,
    ReplyColumns,
    RowTable,
    ShardSpec,
    SiteSpec,
    header_of,
    row_bytes,
)
from interp.io.digest import canonical_json, sha256_of
from interp.prompt import Example, Prompt
from interp.remedy import remedy
from interp.replies import ReplyPrompt

_UNITS = {"": 1, "B": 1} | {p + "B": 1000**i for i, p in enumerate("KMGTP", 1)}
_UNITS |= {p + "IB": 1024**i for i, p in enumerate("KMGTP", 1)}


@dataclass(frozen=True)
class CacheEstimate:
    """Size of a finished cache; `bytes` is the exact size of the shard files, without the two small tables."""

    rows: int
    bytes: int
    files: int
    shards: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {format_bytes(self.bytes)} in {self.files:,} files (shards: {self.shards:,})"


@dataclass(frozen=True, eq=False)
class CachePlan:
    """Everything about a cache that is known before a forward pass; made by `make_plan`.

    `plan_id` = first 16 hex digits of sha256(canonical JSON of `identity`): two plans with equal ids give the same
    numbers. `environment` (library versions) is written next to the identity and must not vary between runs.
    """

    rows: RowTable
    prompts: tuple[PromptRow, ...]
    sites: tuple[SiteSpec, ...]
    positions: tuple[str, ...]
    shards: tuple[ShardSpec, ...]
    identity: Mapping[str, object]
    environment: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def plan_id(self) -> str:
        return plan_id_of(self.identity)

    @property
    def shard_bounds(self) -> tuple[tuple[int, int], ...]:
        return tuple((shard.start, shard.stop) for shard in self.shards)

    def shard_bytes(self, index: int) -> int:
        """Exact size of one data file."""
        n_rows = self.shards[index].n_rows
        return len(self.header(index)) + n_rows * row_bytes(self.sites)

    def header(self, index: int) -> bytes:
        """The safetensors header of one data file."""
        shard = self.shards[index]
        rows, examples = (shard.start, shard.stop), (shard.example_start, shard.example_stop)
        return header_of(self.sites, self.plan_id, index, rows=rows, examples=examples)

    def estimate(self) -> CacheEstimate:
        """Rows, bytes and files of the finished cache (data + record per shard, 2 tables, manifest, seal)."""
        size = sum(self.shard_bytes(i) for i in range(len(self.shards)))
        return CacheEstimate(rows=len(self.rows), bytes=size, files=2 * len(self.shards) + 4, shards=len(self.shards))

    def check_disk(self, folder: str | Path, *, max_bytes: int | str | None = None) -> CacheEstimate:
        """Raise if the cache does not fit, before anything starts; returns the estimate otherwise.

        Args:
            folder:    folder of the cache; shards already committed there need no further space.
            max_bytes: budget for the finished cache, e.g. "40GB"; required for the position rules "all" and
                "all:answer".
        Raises:
            ValueError: one of these without max_bytes.
            CacheFullError: larger than max_bytes, or than the free space of the disk.
        """
        estimate, folder = self.estimate(), Path(folder)
        if whole := [name for name in self.positions if name in ("all", "all:answer") and max_bytes is None]:
            raise ValueError(
                f"positions {whole[0]!r} would write {estimate} to {folder}: "
                f"{remedy('pass an explicit {max_bytes}')} of at least {format_bytes(estimate.bytes)}, or "
                "choose fewer positions (last, span:<name>, stride:<n>)."
            )
        budget = None if max_bytes is None else parse_bytes(max_bytes)
        if budget is not None and estimate.bytes > budget:
            raise _full(f"max_bytes is {format_bytes(budget)}", folder, estimate, free=budget)
        present = sum(file.stat().st_size for file in folder.glob("shards/*/*.safetensors"))
        free = shutil.disk_usage(next(p for p in [folder, *folder.absolute().parents] if p.exists())).free
        if estimate.bytes - present > free:
            raise _full(f"the disk has {format_bytes(free)} free", folder, estimate, free=free)
        return estimate

    def work(self, index: int) -> list[ExampleRows]:
        """Rows and positions of each example of a shard, in example order (examples without rows are left out)."""
        shard = self.shards[index]
        example = self.rows.example[shard.start : shard.stop]
        order = np.argsort(example, kind="stable")
        examples, starts = np.unique(example[order], return_index=True)
        groups = np.split(order, starts[1:])
        position = self.rows.position[shard.start : shard.stop]
        return [
            ExampleRows(int(which), tuple(rows.tolist()), tuple(position[rows].tolist()))
            for which, rows in zip(examples, groups, strict=True)
        ]


def plan_id_of(identity: Mapping[str, object]) -> str:
    return sha256_of(identity)[:16]


def parse_bytes(size: int | str) -> int:
    """Bytes from 40_000_000_000 or "40GB" (decimal) or "40GiB" (binary).

    Raises:
        ValueError: not a number followed by a known unit.
    """
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"\s*([\d_]+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", size)
    unit = match and _UNITS.get(match[2].upper())
    if not match or unit is None:
        raise ValueError(f"size: expected a number of bytes or e.g. '500MB', '40GB', '2TB', '16GiB'; got {size!r}.")
    return round(float(match[1]) * unit)


def format_bytes(size: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} B"


def _full(limit: str, folder: Path, estimate: CacheEstimate, *, free: int) -> CacheFullError:
    return CacheFullError(
        f"{folder}: the plan needs {estimate}, but {limit}. Choose fewer sites or positions, fewer examples, or "
        "another disk. Nothing was started.",
        needed=estimate.bytes,
        free=free,
    )


TARGET_BYTES = 256_000_000
_REQUIRED = ("model", "adapter", "tokenizer", "numerics")
_OPTIONAL = ("batching", "interventions", "template_date", "replies")


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
    spans_by_rule: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> CachePlan:
    """The plan of a cache: its rows, their shards, and its identity.

    Args:
        prompts:           rendered prompts, in the order of the cache.
        positions_by_rule: rule name -> for each prompt its 0-based token indices, ascending, possibly none.
        sites:             one per stored tensor.
        identity_parts:    "model", "adapter", "tokenizer", "numerics" (JSON values; adapter may be None), and
                           optionally "batching" (the batch composition rule), "interventions", "template_date"
                           (passed to a chat template that reads the clock) and "replies" (who wrote them).
        examples:          the examples of the prompts, in the same order, for their labels, groups and metadata.
        target_bytes:      size of a shard; a shard has at least one example.
        decode:            text of a token id; without it the text is cut from the prompt by its offsets.
        environment:       library versions and other facts that do not vary between runs (no time, no host).
        spans_by_rule:     of replies: for each position of `positions_by_rule` the name of its span, or "".
    Raises:
        ValueError: duplicate ids, a position outside its prompt, lists of unequal length, or nothing to store.
    """
    _check_inputs(prompts, positions_by_rule, sites, identity_parts, examples)
    counts = np.array([[len(at) for at in lists] for lists in positions_by_rule.values()], dtype=np.int64).T
    target = parse_bytes(target_bytes)
    shards = tuple(_shards(counts, row_bytes(sites), target))
    rows = _rows(prompts, positions_by_rule, shards, decode)
    if any(isinstance(prompt, ReplyPrompt) for prompt in prompts):
        rows = replace(rows, reply=_reply_columns(prompts, rows, spans_by_rule or {}))
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
            raise ValueError(f"positions {rule!r}: expected a list per prompt ({len(prompts)}), got {len(lists)}.")
        for prompt, at in zip(prompts, lists, strict=True):
            if list(at) != sorted(set(at)) or (at and not 0 <= at[0] <= at[-1] < len(prompt.ids)):
                raise ValueError(
                    f"positions {rule!r}, example {prompt.example_id!r}: expected ascending token indices in "
                    f"0..{len(prompt.ids) - 1}, got {list(at)[:8]}."
                )
    if not sites or not any(any(map(len, lists)) for lists in positions_by_rule.values()):
        raise ValueError("nothing to store: expected at least one site, one example and one position.")


def _check_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{what} {twice!r} occurs more than once; it identifies activations, so it must be unique.")


def _shards(counts: np.ndarray, bytes_per_row: int, target: int) -> Iterator[ShardSpec]:
    """Fill shards greedily: a shard ends before the example that would take it over the target size."""
    sizes = counts.sum(axis=1) * bytes_per_row
    index = row = first = filled = 0
    for example in range(len(sizes) + 1):
        ends = example == len(sizes) or (filled > 0 and filled + sizes[example] > target)
        if ends and filled > 0:
            runs = tuple(counts[first:example].sum(axis=0).tolist())
            yield ShardSpec(index, row, row + sum(runs), first, example, runs)
            index, row, first, filled = index + 1, row + sum(runs), example, 0
        if example < len(sizes):
            filled += int(sizes[example])


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


def _reply_columns(
    prompts: Sequence[Prompt], rows: RowTable, spans_by_rule: Mapping[str, Sequence[Sequence[str]]]
) -> ReplyColumns:
    spans, tokens, fractions = [], [], []
    for example, rule, ordinal, at in zip(rows.example, rows.rule, rows.ordinal, rows.position, strict=True):
        prompt, names = prompts[example], spans_by_rule.get(rows.position_names[rule])
        fraction = prompt.fraction(int(at)) if isinstance(prompt, ReplyPrompt) else None
        spans.append(names[example][ordinal] if names else "")
        tokens.append(int(at) - prompt.n_prompt)
        fractions.append(np.nan if fraction is None else fraction)
    return ReplyColumns(tuple(spans), np.array(tokens, dtype=np.int32), np.array(fractions, dtype=np.float64))


def _prompt_row(prompt: Prompt, example: Example | None) -> PromptRow:
    facts = {} if example is None else {"label": example.label, "groups": example.groups, "metadata": example.metadata}
    return PromptRow(prompt.example_id, prompt.sha256, prompt.text_sha256, len(prompt.ids), **facts)


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
