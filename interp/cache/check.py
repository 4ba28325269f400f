"""Compare every file of a cache with its commit record."""

from __future__ import annotations

from pathlib import Path

from interp.cache.errors import CacheError, ChecksumError, MissingShardError
from interp.cache.index import CacheIndex, ShardEntry, record_path
from interp.cache.layout import tensor_table
from interp.cache.manifest import SEALED, read_examples, read_json, read_manifest, read_rows
from interp.cache.reader import file_digest, read_header
from interp.cache.store import check_size


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
    try:
        manifest = read_manifest(root)
        read_rows(root, manifest)
        read_examples(root)
    except CacheError as error:
        found.append(error)
    for shard in index.shards:
        try:
            _check_shard(root, index, shard, level)
        except CacheError as error:
            found.append(error)
    return tuple(found)


def _check_shard(root: Path, index: CacheIndex, shard: ShardEntry, level: str) -> None:
    if shard.file is None:
        raise MissingShardError(f"shard {shard.index} of {root} was not extracted yet.")
    check_size(root, shard.file, shard.bytes, shard.index)
    record, path = read_json(record_path(root, shard.index)), root / "shards" / shard.file
    if (record["file"], record["bytes"], record["xxh3_128"]) != (shard.file, shard.bytes, shard.xxh3_128):
        raise ChecksumError(f"shard {shard.index}: its record and {SEALED} name different files. Restore both.")
    header_bytes, header = read_header(path)
    for site, (offset, shape, _) in tensor_table(
        list(index.sites.values()), shard.stop - shard.start, header_bytes
    ).items():
        entry = header.get(site, {})
        if entry.get("shape") != shape or header_bytes + entry["data_offsets"][0] != offset:
            raise ChecksumError(f"shard {shard.index}, site {site}: the header of {path} disagrees with the record.")
    if level == "hash" and file_digest(path) != shard.xxh3_128:
        raise ChecksumError(
            f"shard {shard.index}: the bytes of {path} do not hash to what was committed. Restore it, or delete "
            f"{record_path(root, shard.index)} and {root / SEALED} and run the extraction again."
        )
