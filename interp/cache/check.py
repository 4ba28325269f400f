"""Compare every file of a cache with its commit record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from interp.cache.errors import CacheError, ChecksumError, MissingShardError
from interp.cache.index import CacheIndex, ShardEntry, record_path
from interp.cache.layout import shard_header, tensor_table
from interp.cache.manifest import MANIFEST, SEALED, read_examples, read_json, read_manifest, read_rows
from interp.cache.reader import file_digest, read_header
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


def _check_seal(root: Path, index: CacheIndex) -> None:
    """SEALED.json is what the manifest and the commit records make of it, to the last field."""
    manifest = read_manifest(root)
    records = [read_json(record_path(root, shard.index)) for shard in index.shards]
    if read_json(root / SEALED) != sealed_of(manifest["layout"], manifest["plan_id"], records):
        raise ChecksumError(
            f"{root / SEALED}: disagrees with {MANIFEST} and the commit records. Delete it and run the extraction "
            "again, which writes it anew."
        )


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
        if entry.get("shape") != shape or header_bytes + entry.get("data_offsets", [-1])[0] != offset:
            raise ChecksumError(f"shard {shard.index}, site {site}: the header of {path} disagrees with the record.")
    expected = shard_header(
        list(index.sites.values()), shard.stop - shard.start, {"plan_id": index.plan_id, "shard": str(shard.index)}
    )
    with path.open("rb") as file:
        if file.read(len(expected)) != expected or header_bytes != len(expected):
            raise ChecksumError(
                f"shard {shard.index}: the header of {path} is not the one that was written. Restore the file."
            )
    if level == "hash" and file_digest(path) != shard.xxh3_128:
        raise ChecksumError(
            f"shard {shard.index}: the bytes of {path} do not hash to what was committed. Restore it, or delete "
            f"{record_path(root, shard.index)} and {root / SEALED} and run the extraction again."
        )
