"""What a cache will hold, decided before any model runs: rows, sites, shards, bytes and identity."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from interp.cache.errors import CacheFullError
from interp.cache.layout import SiteSpec, header_of, row_bytes
from interp.cache.rows import ExampleRows, PromptRow, RowTable, ShardSpec
from interp.io.digest import sha256_of
from interp.remedy import remedy

_UNITS = {"": 1, "B": 1} | {p + "B": 1000**i for i, p in enumerate("KMGTP", 1)}
_UNITS |= {p + "IB": 1024**i for i, p in enumerate("KMGTP", 1)}


@dataclass(frozen=True)
class CacheEstimate:
    """Size of a finished cache; `bytes` counts the shard files exactly and leaves out the two small tables."""

    rows: int
    bytes: int
    files: int
    shards: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {format_bytes(self.bytes)} in {self.files:,} files ({self.shards:,} shards)"


@dataclass(frozen=True, eq=False)
class CachePlan:
    """Everything about a cache that is known before a forward pass; made by `make_plan`.

    `plan_id` = first 16 hex digits of sha256(canonical JSON of `identity`): two plans with one id give the same
    numbers. `environment` (library versions) is written beside the identity and must not vary between runs.
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
        """Refuse a cache that does not fit, before anything starts; returns the estimate otherwise.

        Args:
            folder:    where it is going; bytes of shards already committed there are not needed again.
            max_bytes: budget for the finished cache, e.g. "40GB"; must be given for the position rule "all".
        Raises:
            ValueError: rule "all" without max_bytes.
            CacheFullError: larger than max_bytes, or than the free space of the disk.
        """
        estimate, folder = self.estimate(), Path(folder)
        if "all" in self.positions and max_bytes is None:
            raise ValueError(
                f"positions 'all' would write {estimate} to {folder}: {remedy('pass an explicit {max_bytes}')} of at "
                f"least {format_bytes(estimate.bytes)}, or choose fewer positions (last, span:<name>, stride:<n>)."
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
        """What one shard needs from each of its examples, in example order (examples without rows are left out)."""
        shard = self.shards[index]
        example = self.rows.example[shard.start : shard.stop]
        order = np.argsort(example, kind="stable")
        found, starts = np.unique(example[order], return_index=True)
        groups = np.split(order, starts[1:])
        position = self.rows.position[shard.start : shard.stop]
        return [
            ExampleRows(int(which), tuple(rows.tolist()), tuple(position[rows].tolist()))
            for which, rows in zip(found, groups, strict=True)
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
        raise ValueError(f"size {size!r}: expected a number of bytes or e.g. '500MB', '40GB', '2TB', '16GiB'.")
    return round(float(match[1]) * unit)


def format_bytes(size: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} B"


def _full(limit: str, folder: Path, estimate: CacheEstimate, *, free: int) -> CacheFullError:
    return CacheFullError(
        f"{folder}: the plan needs {estimate}, and {limit}. Choose fewer sites or positions, fewer examples, or "
        "another disk. Nothing was started.",
        needed=estimate.bytes,
        free=free,
    )
