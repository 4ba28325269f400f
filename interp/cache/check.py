"""Compare every file of a cache with its commit record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from interp.cache.errors import CacheError, ChecksumError, MissingShardError
from interp.cache.index import CacheIndex, ShardEntry, record_path
from interp.cache.manifest import MANIFEST, SEALED, file_digests, read_examples, read_json, read_manifest, read_rows
from interp.cache.reader import check_header, file_digest
from interp.cache.store import check_size, sealed_of


def find_problems(root: Path, index: CacheIndex, level: str) -> tuple[CacheError, ...]:
    """One error per damaged file: tables and manifest, then shards in order.

    Args:
        level: "size" compares names, sizes, headers and records with the index; "hash" also reads every data byte.
    Raises:
        ValueError: another level.
    """
    if level not in ("size", "hash"):
        raise ValueError(f"level {level!r}: expected 'size' or 'hash'.")
    found: list[CacheError] = []
    checks: list[Callable[[], object]] = [lambda: read_rows(root, read_manifest(root)), lambda: read_examples(root)]
    checks += [lambda: _check_seal(root, index)] if index.sealed else []
    checks += [partial(_check_shard, root, index, shard, level) for shard in index.shards]
    for check in checks:
        try:
            check()
        except CacheError as error:
            found.append(error)
        except Exception as error:  # a damaged file may hold anything; this function says so and never fails itself
            found.append(ChecksumError(f"{root}: damaged ({type(error).__name__}: {error!s:.200}). Restore its files."))
    return tuple(found)


def problems_of(root: Path, level: str = "size") -> tuple[CacheError, ...]:
    """`find_problems` of a folder, finished or not; what keeps it from being opened is a problem too. Never fails.

    Raises:
        ValueError: a level other than "size" and "hash".
    """
    try:
        index = CacheIndex.load(root, allow_partial=True)
    except CacheError as error:
        return (error,)
    return find_problems(root, index, level)


def _check_seal(root: Path, index: CacheIndex) -> None:
    """SEALED.json is what the other files make of it, to the last field."""
    manifest = read_manifest(root)
    records = [read_json(record_path(root, shard.index)) for shard in index.shards]
    if read_json(root / SEALED) != sealed_of(manifest["layout"], manifest["plan_id"], records, file_digests(root)):
        raise ChecksumError(
            f"{root / SEALED}: disagrees with {MANIFEST}, the tables or the commit records. Delete it and run the "
            "extraction again, which writes it anew."
        )


def _check_shard(root: Path, index: CacheIndex, shard: ShardEntry, level: str) -> None:
    if shard.file is None:
        raise MissingShardError(f"shard {shard.index} of {root} was not extracted yet.")
    check_size(root, shard.file, shard.bytes, shard.index)
    record, path = read_json(record_path(root, shard.index)), root / "shards" / shard.file
    if (record["file"], record["bytes"], record["xxh3_128"]) != (shard.file, shard.bytes, shard.xxh3_128):
        raise ChecksumError(f"shard {shard.index}: its record and {SEALED} name different files. Restore both.")
    check_header(root, index, shard)
    if level == "hash" and file_digest(path) != shard.xxh3_128:
        raise ChecksumError(
            f"shard {shard.index}: the bytes of {path} do not hash to what was committed. Restore it, or delete "
            f"{record_path(root, shard.index)} and {root / SEALED} and run the extraction again."
        )
