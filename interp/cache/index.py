"""Index from rows to bytes of files, built from SEALED.json or from the records of a partial cache; its summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from interp.cache.errors import ChecksumError, UnsealedCacheError
from interp.cache.layout import SiteSpec, header_of, row_offsets
from interp.cache.manifest import EXAMPLES, MANIFEST, SEALED, read_json, read_manifest
from interp.cache.plan import format_bytes


@dataclass(frozen=True)
class ShardEntry:
    """One shard for reading; `file` is None if it is not committed yet (partial caches only)."""

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
    """All data needed to find a row on disk; `single[rule]` is True if the rule gave one row in every example."""

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
            NotACacheError: the folder has neither.
            UnsealedCacheError: shards or the seal are missing, and allow_partial is False.
            ChecksumError: a file is not what was written.
        """
        try:
            return cls._load(root, allow_partial=allow_partial)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
            raise ChecksumError(
                f"{root}: {SEALED} or {MANIFEST} does not have the content that was written "
                f"({type(error).__name__}: {error!s:.100}). Restore it; or delete SEALED.json and run the "
                "extraction again, which rewrites it."
            ) from error

    @classmethod
    def _load(cls, root: Path, *, allow_partial: bool) -> CacheIndex:
        if (root / SEALED).exists():
            sealed = read_json(root / SEALED)
            if xxhash.xxh3_128_hexdigest((root / MANIFEST).read_bytes()) != sealed["files"][MANIFEST]:
                raise ChecksumError(
                    f"{root / SEALED} seals a different {MANIFEST} from the one in the folder: files of two "
                    "caches were mixed up, or one was changed. Restore both; `diptych cache verify --hash` "
                    "checks every file."
                )
            return cls._make(sealed, [ShardEntry(i, *_tuples(entry)) for i, entry in enumerate(sealed["shards"])], True)
        manifest = read_manifest(root)
        bounds = manifest["layout"]["shards"]
        entries = [_from_record(root, manifest["plan_id"], i, bound) for i, bound in enumerate(bounds)]
        missing = [entry.index for entry in entries if entry.file is None]
        if not allow_partial:
            raise UnsealedCacheError(
                f"{root}: not finished: {len(missing)} of {len(entries)} shards are missing (first: {missing[:8]}), "
                f"and {SEALED} was not written. Run the same extraction again to resume it; or open with "
                "allow_partial=True to read the shards that exist.",
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
        """The header that the data file of a shard must have."""
        return header_of(
            list(self.sites.values()),
            self.plan_id,
            shard.index,
            rows=(shard.start, shard.stop),
            examples=shard.examples,
        )

    @cached_property
    def site_number(self) -> Mapping[str, int]:
        return {site: number for number, site in enumerate(self.sites)}

    def segments(self, position: str | None) -> list[Segment]:
        """The rows of one rule, or all rows, as one segment per shard, in row order."""
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
            f"{path}: expected the record of shard {index} of plan {plan_id}, got that of shard {record['shard']} of "
            f"plan {record['plan_id']}: files of two shards or caches were mixed up. Delete it and run the extraction "
            "again."
        )
    return replace(shard, **{key: record[key] for key in ("file", "bytes", "xxh3_128", "header_bytes")})


def _tuples(entry: list[Any]) -> Iterable[Any]:
    return (tuple(value) if isinstance(value, list) else value for value in entry)


def summary_text(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> str:
    """Summary of a cache as text: one line per fact, aligned."""
    facts = _facts(root, manifest, index)
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def summary_html(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> str:
    """The same facts as an HTML table."""
    lines = (
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _facts(root, manifest, index).items()
    )
    return f"<table>{''.join(lines)}</table>"


def _facts(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> dict[str, str]:
    identity, checkpoint = manifest["identity"], _mapping(_mapping(manifest["environment"]).get("checkpoint"))
    done = sum(shard.file is not None for shard in index.shards)
    rules = list(index.single)
    counts = [sum(shard.runs[k] for shard in index.shards) for k in range(len(rules))]
    return {
        "cache": f"{root} (plan {index.plan_id}, {'sealed' if index.sealed else 'NOT finished'})",
        "model": _named(identity["model"], checkpoint.get("base"), checkpoint.get("revision")),
        "adapter": _named(identity["adapter"], checkpoint.get("adapter"), checkpoint.get("adapter_revision")),
        "examples": f"{index.n_examples:,}",
        "rows": ", ".join(f"{rule}: {count:,}" for rule, count in zip(rules, counts, strict=True)),
        "sites": ", ".join(format_sites(index.sites)),
        "shards": f"{done:,} of {len(index.shards):,}, {format_bytes(sum(shard.bytes for shard in index.shards))}",
    }


def format_sites(sites: Iterable[str]) -> list[str]:
    """["resid_post.0", "resid_post.1", "resid_post.5", "z.2.3"] -> ["resid_post.0-1,5", "z.2.3"]."""
    out: list[str] = []
    layers: dict[str, list[int]] = {}
    for site in sites:
        kind, _, layer = site.partition(".")
        if layer.isdigit():
            layers.setdefault(kind, []).append(int(layer))
        else:
            out.append(site)
    return [f"{kind}.{_ranges(sorted(numbers))}" for kind, numbers in layers.items()] + out


def _ranges(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: a summary of a cache made without a checkpoint has no names."""
    return value if isinstance(value, Mapping) else {}


def _named(part: object, place: str | None, revision: str | None) -> str:
    """Where a part of the checkpoint came from, its revision, and the first digits of its digest."""
    if not isinstance(part, Mapping):
        return "none" if part is None else str(part)
    digest = str(part.get("weights_sha256") or part.get("sha256") or "")[:12]
    names = [place or part.get("id") or part.get("base"), revision, digest and f"(sha256 {digest}...)"]
    return " ".join(str(name) for name in names if name)
