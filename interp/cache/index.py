"""Which bytes of which file hold which rows: built from SEALED.json alone, or from the records of a partial cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from interp.cache.errors import ChecksumError, UnsealedCacheError
from interp.cache.layout import SiteSpec, header_of, row_offsets
from interp.cache.manifest import EXAMPLES, MANIFEST, SEALED, read_json, read_manifest


@dataclass(frozen=True)
class ShardEntry:
    """One shard as a reader sees it; `file` is None while it has not been committed (partial caches only)."""

    index: int
    start: int
    stop: int
    examples: tuple[int, int]
    runs: tuple[int, ...]
    file: str | None = None
    bytes: int = 0
    xxh3_128: str = ""
    header_bytes: int = 0


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of one shard, counted from the shard's first row."""

    shard: ShardEntry
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class CacheIndex:
    """Everything needed to find a row on disk; `single[rule]` says the rule gave one row in every example."""

    plan_id: str
    sealed: bool
    n_rows: int
    n_examples: int
    single: Mapping[str, bool]
    sites: Mapping[str, SiteSpec]
    offsets: Mapping[str, int]
    shards: tuple[ShardEntry, ...]
    examples_digest: str = ""

    @classmethod
    def load(cls, root: Path, *, allow_partial: bool) -> CacheIndex:
        """Read SEALED.json and compare the manifest with it; without a seal, the manifest and every commit record.

        Raises:
            NotACacheError: neither is there.
            UnsealedCacheError: shards are missing (or the seal is), and allow_partial is False.
            ChecksumError: a file does not hold what was written.
        """
        try:
            return cls._load(root, allow_partial=allow_partial)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
            raise ChecksumError(
                f"{root}: {SEALED} or {MANIFEST} is not what was written ({type(error).__name__}: {error!s:.100}). "
                "Restore it; or delete SEALED.json and run the extraction again, which writes it anew."
            ) from error

    @classmethod
    def _load(cls, root: Path, *, allow_partial: bool) -> CacheIndex:
        if (root / SEALED).exists():
            sealed = read_json(root / SEALED)
            if xxhash.xxh3_128_hexdigest((root / MANIFEST).read_bytes()) != sealed["files"][MANIFEST]:
                raise ChecksumError(
                    f"{root / SEALED} seals another {MANIFEST} than the one in the folder: files of two caches were "
                    f"mixed up, or one was changed. Restore both; `diptych cache verify --hash` looks at every file."
                )
            return cls._make(sealed, [ShardEntry(i, *_tuples(entry)) for i, entry in enumerate(sealed["shards"])], True)
        manifest = read_manifest(root)
        bounds = manifest["layout"]["shards"]
        entries = [_from_record(root, manifest["plan_id"], i, bound) for i, bound in enumerate(bounds)]
        missing = [entry.index for entry in entries if entry.file is None]
        if not allow_partial:
            raise UnsealedCacheError(
                f"{root}: not finished: {len(missing)} of {len(entries)} shards are missing (first: {missing[:8]}), "
                f"and {SEALED} was not written. Run the same extraction again, it continues; or open with "
                "allow_partial=True to read what is there.",
                missing=missing,
            )
        return cls._make(manifest["layout"] | {"plan_id": manifest["plan_id"]}, entries, False)

    @classmethod
    def _make(cls, layout: Mapping[str, Any], entries: Iterable[ShardEntry], sealed: bool) -> CacheIndex:
        sites = [SiteSpec(site, tuple(shape), dtype) for site, shape, dtype in layout["sites"]]
        return cls(
            plan_id=layout["plan_id"],
            sealed=sealed,
            n_rows=layout["rows"],
            n_examples=layout["examples"],
            single=dict(layout["positions"]),
            sites={site.site: site for site in sites},
            offsets=row_offsets(sites),
            shards=tuple(entries),
            examples_digest=layout["files"][EXAMPLES] if sealed else "",
        )

    def header(self, shard: ShardEntry) -> bytes:
        """The first bytes that the data file of a shard must have."""
        return header_of(list(self.sites.values()), self.plan_id, shard.index, rows=(shard.start, shard.stop),
                         examples=shard.examples)  # fmt: skip

    @cached_property
    def site_number(self) -> Mapping[str, int]:
        return {site: number for number, site in enumerate(self.sites)}

    def segments(self, position: str | None) -> list[Segment]:
        """The rows of one rule, or all rows, as one segment per shard; in row order."""
        if position is None:
            return [Segment(shard, 0, shard.stop - shard.start) for shard in self.shards]
        rule = list(self.single).index(position)
        starts = [(shard, sum(shard.runs[:rule])) for shard in self.shards]
        return [Segment(s, at, at + s.runs[rule]) for s, at in starts if s.runs[rule]]

    def segments_of_rows(self, rows: np.ndarray) -> list[Segment]:
        """Ascending unique row numbers as runs of consecutive rows."""
        if not len(rows):
            return []
        shard_of = np.searchsorted([shard.start for shard in self.shards], rows, side="right") - 1
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shard_of) != 0)) + 1
        firsts, lasts = [0, *breaks.tolist()], [*(breaks - 1).tolist(), len(rows) - 1]
        out = []
        for first, last in zip(firsts, lasts, strict=True):
            shard = self.shards[shard_of[first]]
            out.append(Segment(shard, int(rows[first]) - shard.start, int(rows[last]) - shard.start + 1))
        return out


def record_path(root: Path, shard: int) -> Path:
    return root / "shards" / f"{shard // 1000:02d}" / f"{shard:06d}.json"


def _from_record(root: Path, plan_id: str, index: int, bound: list[Any]) -> ShardEntry:
    start, stop, first, last, runs = bound
    shard = ShardEntry(index, start, stop, (first, last), tuple(runs))
    path = record_path(root, index)
    if not path.exists():
        return shard
    record = read_json(path)
    is_own = (record["plan_id"], record["shard"]) == (plan_id, index)
    if not is_own or [record["rows"], record["examples"], record["runs"]] != [[start, stop], [first, last], runs]:
        raise ChecksumError(
            f"{path}: the record of shard {record['shard']} of plan {record['plan_id']}, expected shard {index} of "
            f"plan {plan_id}: files of two shards or caches were mixed up. Delete it and run the extraction again."
        )
    return replace(shard, **{key: record[key] for key in ("file", "bytes", "xxh3_128", "header_bytes")})


def _tuples(entry: list[Any]) -> Iterable[Any]:
    return (tuple(value) if isinstance(value, list) else value for value in entry)
