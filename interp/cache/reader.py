"""Read rows of shards: exact ranges with preadv, each row compared with its checksum; checks of whole caches.

Two descriptors per file. One has the RANDOM hint: the kernel then reads exactly the pages of a row, not the
megabytes around it. The other has no hint, since whole blocks profit from read-ahead. Ranges of a request are announced
with WILLNEED ahead of the reads, so that the disk works on many of them at once.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from interp.cache.errors import CacheError, ChecksumError, MissingShardError, TruncatedShardError
from interp.cache.index import CacheIndex, Segment, ShardEntry, record_path
from interp.cache.manifest import MANIFEST, SEALED, file_digests, read_examples, read_json, read_manifest, read_rows
from interp.cache.store import byte_view, check_size, sealed_of

_OPEN_SHARDS = 300
_AHEAD_BYTES, _AHEAD_READS = 64_000_000, 256
Access = Literal["block", "random"]


@dataclass
class _OpenShard:
    """Descriptors of one data file, opened on first use, and its row checksums [site, row]."""

    path: Path
    descriptors: dict[Access, int]
    checksums: np.ndarray | None = None


@dataclass(frozen=True)
class _Read:
    segment: Segment
    site: str
    offset: int
    into: memoryview


class ShardFiles:
    """The open data files of one cache: at most 300, the least recently used is closed first.

    Not thread-safe. A forked process may keep using it: preadv has its own offset, so no file position is shared.
    """

    def __init__(self, root: Path, index: CacheIndex) -> None:
        self._root, self._index = root, index
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._verified: set[tuple[str, Segment]] = set()

    def read(self, sites: Sequence[str], segments: Sequence[Segment], access: Access) -> list[Float[Tensor, "row *d"]]:
        """The rows of the segments, in their order, for each site, in fresh memory.

        Raises:
            MissingShardError, TruncatedShardError, ChecksumError: with the shard and how to repair it.
        """
        n_rows = sum(segment.n_rows for segment in segments)
        specs = [self._index.sites[site] for site in sites]
        out = [torch.empty((n_rows, *spec.shape), dtype=spec.torch_dtype) for spec in specs]
        reads = [read for site, feats in zip(sites, out, strict=True) for read in self._plan(site, segments, feats)]
        self._execute(reads, access)
        return out

    def advise(self, site: str, segments: Iterable[Segment]) -> None:
        """Announce segments that will be read soon."""
        for segment in segments:
            self._announce(
                segment, self._offset(site, segment), segment.n_rows * self._index.sites[site].row_bytes, "block"
            )

    def close(self) -> None:
        while self._open:
            self._close_oldest()

    def _plan(self, site: str, segments: Sequence[Segment], feats: Tensor) -> list[_Read]:
        data, size, at, reads = byte_view(feats), self._index.sites[site].row_bytes, 0, []
        for segment in segments:
            end = at + segment.n_rows * size
            reads.append(_Read(segment, site, self._offset(site, segment), data[at:end]))
            at = end
        return reads

    def _offset(self, site: str, segment: Segment) -> int:
        shard = segment.shard
        n_rows = shard.stop - shard.start
        tensor = shard.header_bytes + self._index.offsets[site] * n_rows
        return tensor + segment.start * self._index.sites[site].row_bytes

    def _execute(self, reads: Sequence[_Read], access: Access) -> None:
        ahead = announced = 0
        for number, read in enumerate(reads):
            while announced < len(reads) and (
                announced <= number or (ahead < _AHEAD_BYTES and announced - number < _AHEAD_READS)
            ):
                coming = reads[announced]
                self._announce(coming.segment, coming.offset, len(coming.into), access)
                ahead, announced = ahead + len(coming.into), announced + 1
            _pread_all(
                self._descriptor(read.segment.shard, access), read.into, read.offset, self._path(read.segment.shard)
            )
            ahead -= len(read.into)
            self._verify(read)

    def _announce(self, segment: Segment, offset: int, size: int, access: Access) -> None:
        _advise(self._descriptor(segment.shard, access), offset, size, "WILLNEED")

    def _verify(self, read: _Read) -> None:
        key = (read.site, read.segment)
        if key in self._verified:
            return
        segment, size = read.segment, self._index.sites[read.site].row_bytes
        sums = self._checksums(segment.shard)[self._index.site_number[read.site]]
        for i, expected in enumerate(sums[segment.start : segment.stop].tolist()):
            if xxhash.xxh3_64_intdigest(read.into[i * size : (i + 1) * size]) != expected:
                raise ChecksumError(
                    f"shard {segment.shard.index}, site {read.site}, row {segment.shard.start + segment.start + i}: "
                    f"the bytes in {self._path(segment.shard)} are not those that were committed. "
                    "verify(level='hash') lists every damaged shard; restore it, or delete its record "
                    "(the .json next to it) and SEALED.json and run the extraction again."
                )
        if segment.n_rows > 1:  # a set of millions of single rows would cost more than hashing them again
            self._verified.add(key)

    def _checksums(self, shard: ShardEntry) -> np.ndarray:
        opened = self._shard(shard)
        if opened.checksums is None:
            n_sites, n_rows = len(self._index.sites), shard.stop - shard.start
            sums = np.empty((n_sites, n_rows), dtype="<u8")
            view = memoryview(sums.reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
            _pread_all(self._descriptor(shard, "block"), view, shard.header_bytes, opened.path)
            opened.checksums = sums
        return opened.checksums

    def _path(self, shard: ShardEntry) -> Path:
        return self._root / "shards" / str(shard.file)

    def _shard(self, shard: ShardEntry) -> _OpenShard:
        opened = self._open.get(shard.index)
        if opened is None:
            if shard.file is None:
                raise MissingShardError(
                    f"{self._root}: rows {shard.start}-{shard.stop - 1} (shard {shard.index}) were not extracted yet. "
                    "Run the extraction again to resume it."
                )
            check_size(self._root, shard.file, shard.bytes, shard.index)
            check_header(self._root, self._index, shard)
            if len(self._open) >= _OPEN_SHARDS:
                self._close_oldest()
            opened = self._open[shard.index] = _OpenShard(self._path(shard), {})
        else:
            self._open.move_to_end(shard.index)
        return opened

    def _descriptor(self, shard: ShardEntry, access: Access) -> int:
        opened = self._shard(shard)
        if access not in opened.descriptors:
            try:
                descriptor = os.open(opened.path, os.O_RDONLY)
            except OSError as error:
                raise MissingShardError(f"{opened.path}: cannot be read ({error.strerror}). Restore it.") from error
            if access == "random":
                _advise(descriptor, 0, 0, "RANDOM")
            opened.descriptors[access] = descriptor
            if opened.checksums is None:
                size = 8 * len(self._index.sites) * (shard.stop - shard.start)
                _advise(descriptor, shard.header_bytes, size, "WILLNEED")
        return opened.descriptors[access]

    def _close_oldest(self) -> None:
        _, opened = self._open.popitem(last=False)
        for descriptor in opened.descriptors.values():
            os.close(descriptor)


def check_header(root: Path, index: CacheIndex, shard: ShardEntry) -> None:
    """Check that the data file begins with the header of this shard: plan, number, rows, examples, tensor offsets.

    Raises:
        MissingShardError, ChecksumError: with how to repair it.
    """
    path, expected = root / "shards" / str(shard.file), index.header(shard)
    try:
        with path.open("rb") as file:
            header = file.read(len(expected))
    except OSError as error:
        raise MissingShardError(f"{path}: cannot be read ({error.strerror or error}). Restore it.") from error
    if header != expected or shard.header_bytes != len(expected):
        raise ChecksumError(
            f"shard {shard.index}: the header of {path} is not the one that was written for this shard of plan "
            f"{index.plan_id}: the file was changed, or is of another shard or cache. To make it again, delete "
            f"{record_path(root, shard.index)} and {root / SEALED}, and run the extraction."
        )


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length in bytes and content of a safetensors header.

    Raises:
        TruncatedShardError: the file ends inside the header.
        ChecksumError: the header is not JSON.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            text = file.read(length) if len(first) == 8 and length < 2**32 else b""
    except OSError as error:
        raise MissingShardError(f"{path}: cannot be read ({error.strerror or error}). Restore the file.") from error
    if not text or len(text) != length:
        raise TruncatedShardError(f"{path}: ends inside its header ({length} bytes announced). Restore the file.")
    try:
        return 8 + length, json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChecksumError(f"{path}: its header is not the one that was written ({error}).") from error


def file_digest(path: Path) -> str:
    """xxh3-128 of a file, read in pieces of 8 MB."""
    digest, piece = xxhash.xxh3_128(), bytearray(8 << 20)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(memoryview(piece)[:size])
    return digest.hexdigest()


def _advise(descriptor: int, offset: int, size: int, hint: Literal["WILLNEED", "RANDOM"]) -> None:
    if hasattr(os, "posix_fadvise"):  # macOS has none: reads are slower there, results equal
        os.posix_fadvise(descriptor, offset, size, getattr(os, f"POSIX_FADV_{hint}"))


def _pread_all(descriptor: int, into: memoryview, offset: int, path: Path) -> None:
    while into:
        size = os.preadv(descriptor, [into], offset)
        if size == 0:
            raise TruncatedShardError(
                f"{path}: ends at byte {offset:,}, expected {len(into):,} more bytes. Restore it."
            )
        into, offset = into[size:], offset + size


def find_problems(root: Path, index: CacheIndex, level: str) -> tuple[CacheError, ...]:
    """One error per damaged file: manifest and tables first, then shards in order.

    Args:
        level: "size" compares names, sizes, headers and records with the index; "hash" also reads every data byte.
    Raises:
        ValueError: unknown level.
    """
    if level not in ("size", "hash"):
        raise ValueError(f"level {level!r}: expected 'size' or 'hash'.")
    errors: list[CacheError] = []
    checks: list[Callable[[], object]] = [lambda: read_rows(root, read_manifest(root)), lambda: read_examples(root)]
    checks += [lambda: _check_seal(root, index)] if index.sealed else []
    checks += [partial(_check_shard, root, index, shard, level) for shard in index.shards]
    for check in checks:
        try:
            check()
        except CacheError as error:
            errors.append(error)
        except Exception as error:  # a damaged file may contain anything: report it as damage, do not fail
            errors.append(
                ChecksumError(f"{root}: damaged ({type(error).__name__}: {error!s:.200}). Restore its files.")
            )
    return tuple(errors)


def problems_of(root: Path, level: str = "size") -> tuple[CacheError, ...]:
    """`find_problems` of a folder, finished or not; a folder that cannot be opened gives the error of opening it.

    Raises:
        ValueError: unknown level.
    """
    try:
        index = CacheIndex.load(root, allow_partial=True)
    except CacheError as error:
        return (error,)
    return find_problems(root, index, level)


def _check_seal(root: Path, index: CacheIndex) -> None:
    """Check that SEALED.json equals what the other files imply, field by field."""
    manifest = read_manifest(root)
    records = [read_json(record_path(root, shard.index)) for shard in index.shards]
    if read_json(root / SEALED) != sealed_of(manifest["layout"], manifest["plan_id"], records, file_digests(root)):
        raise ChecksumError(
            f"{root / SEALED}: disagrees with {MANIFEST}, the tables or the commit records. Delete it and run the "
            "extraction again, which rewrites it."
        )


def _check_shard(root: Path, index: CacheIndex, shard: ShardEntry, level: str) -> None:
    if shard.file is None:
        raise MissingShardError(f"shard {shard.index} of {root} is not extracted yet.")
    check_size(root, shard.file, shard.bytes, shard.index)
    record, path = read_json(record_path(root, shard.index)), root / "shards" / shard.file
    if (record["file"], record["bytes"], record["xxh3_128"]) != (shard.file, shard.bytes, shard.xxh3_128):
        raise ChecksumError(f"shard {shard.index}: its record and {SEALED} name different files. Restore both.")
    check_header(root, index, shard)
    if level == "hash" and file_digest(path) != shard.xxh3_128:
        raise ChecksumError(
            f"shard {shard.index}: the digest of {path} is not the committed one. Restore it, or delete "
            f"{record_path(root, shard.index)} and {root / SEALED} and run the extraction again."
        )
