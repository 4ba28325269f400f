"""Commit shards atomically and once; then seal the cache.

A shard exists if and only if its commit record exists. "Byte-identical" (after any number of kills and restarts)
covers manifest.json, rows.parquet, examples.parquet, every data file, every record and SEALED.json. What differs
between runs (time, seconds) goes to `.runs/<digest of host and pid>.jsonl`, outside that set; `.tmp/` and
`.writer/` belong to running writers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from interp.cache.errors import (
    CacheError,
    IdentityMismatchError,
    MissingShardError,
    NonDeterministicShard,
    NonFiniteActivationError,
    TruncatedShardError,
    UnsealedCacheError,
)
from interp.cache.index import record_path
from interp.cache.layout import ShardSpec, file_order, tensor_table
from interp.cache.manifest import FORMAT, SEALED, VERSION, file_digests, layout_of, read_json, to_json, with_digest
from interp.cache.plan import CachePlan
from interp.io.files import (
    disk_errors,
    fsync_dir,
    host,
    publish,
    sweep_temps,
    temp_path,
    umask_mode,
    write_durable,
    write_once,
)

RUNS = ".runs"


def pending(root: str | Path, plan: CachePlan, *, rank: int = 0, world: int = 1) -> list[int]:
    """Shards that this rank still has to make: `shard % world == rank` without a commit record."""
    return [i for i in range(rank, len(plan.shards), world) if not record_path(Path(root), i).exists()]


def commit_shard(
    root: str | Path,
    plan: CachePlan,
    shard_index: int,
    tensors: Mapping[str, Float[Tensor, "row *feature"]],
    env: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Write one shard and publish it; returns its commit record, or that of another writer who was first.

    Order, so that a kill between any two steps leaves either nothing or a complete shard: (1) return if the record
    exists; (2) write the data to a temp name; (3) mode, xxh3-128, fsync; (4) rename to a name that carries the
    hash, so that different bytes never share a name; (5) write and sync the record under a temp name, sync the
    folder; (6) link the record to its name: the first writer wins; (7) remove the temp, sync the folder.

    Args:
        tensors: site -> rows of this shard in row order, on any device, in the plan's dtype.
        env:     facts of this run, JSON values; they go to `.runs/`, never into the record.
    Raises:
        ValueError: sites, shapes or dtypes are not those of the plan.
        NonFiniteActivationError: a value is NaN or infinite; names example, site and position; nothing is written.
        CacheFullError: the disk is full; nothing of this shard is visible, everything committed before stays.
    Warns:
        NonDeterministicShard: another writer committed different bytes for this shard first; those are kept.
    Source: tests/test_cache_store.py kills the process before each call into the file system.
    """
    root, shard, started = Path(root), plan.shards[shard_index], time.time()
    final = record_path(root, shard_index)
    if final.exists():
        return read_json(final)
    data = _checked(plan, shard, tensors)
    size = plan.shard_bytes(shard_index)
    _make_folder(root, final.parent)
    temp, record_temp = temp_path(root, f"{shard_index:06d}"), temp_path(root, f"{shard_index:06d}-record")
    with disk_errors(root, size, temp, record_temp):
        digest = _write_data(temp, _chunks(plan, shard_index, data))
        name = f"{shard_index:06d}.{digest[:16]}.safetensors"
        record = _record(plan, shard, f"{final.parent.name}/{name}", size, digest)
        os.rename(temp, final.parent / name)
        write_durable(record_temp, to_json(with_digest(record)))
        fsync_dir(final.parent)
        won = publish(record_temp, final)
        record_temp.unlink(missing_ok=True)
        fsync_dir(final.parent)
    _log_run(root, shard_index, started, env or {})
    return record if won else _yield_to_winner(final, record)


def seal(root: str | Path, plan: CachePlan) -> dict[str, Any]:
    """Write SEALED.json, the index of a finished cache; any rank may call it, any number of times.

    Raises:
        UnsealedCacheError: some shards have no record; names them.
        MissingShardError, TruncatedShardError: a data file is missing or has another size than its record.
    """
    root = Path(root)
    if (seal := _sealed(root)) is not None:
        return seal
    missing = pending(root, plan)
    if missing:
        raise UnsealedCacheError(
            f"{root}: cannot be sealed: {len(missing)} of {len(plan.shards)} shards are not committed "
            f"(first: {missing[:8]}). Run the extraction again to resume it.",
            missing=missing,
        )
    records = [read_json(record_path(root, i)) for i in range(len(plan.shards))]
    for record in records:
        check_size(root, record["file"], record["bytes"], record["shard"])
        _remove_orphans(root, record)
    sealed = sealed_of(layout_of(plan), plan.plan_id, records, file_digests(root))
    write_once(root, root / SEALED, to_json(with_digest(json.loads(to_json(sealed))), indent=None))
    sweep_temps(root)
    return read_json(root / SEALED)


def _sealed(root: Path) -> dict[str, Any] | None:
    """The existing seal, or None; a seal that is damaged or of other files is deleted with a warning."""
    if not (root / SEALED).exists():
        return None
    try:
        seal = read_json(root / SEALED)
    except CacheError as error:
        seal, why = {}, str(error)
    else:
        why = f"{root / SEALED}: it seals other tables than those in the folder."
    if seal.get("files") == file_digests(root):
        return seal
    warnings.warn(f"{why} It is rewritten.", stacklevel=3)
    (root / SEALED).unlink()
    return None


def drop_damaged(root: str | Path, plan: CachePlan, *, rank: int = 0, world: int = 1) -> None:
    """Delete the records of this rank's shards whose data file is missing or of another shard, so that they are remade.

    Names, sizes and headers are checked; data bytes are verified when they are read, and by `verify --hash`.

    Raises:
        IdentityMismatchError: an intact record of another cache.
    Warns: of each damaged shard, by its file.
    """
    root = Path(root)
    for shard in range(rank, len(plan.shards), world):
        path = record_path(root, shard)
        if path.exists() and (why := _fault(root, plan, shard)):
            warnings.warn(f"{why} The record {path} is deleted, and shard {shard} is remade.", stacklevel=2)
            (root / SEALED).unlink(missing_ok=True)
            path.unlink()


def _fault(root: Path, plan: CachePlan, shard: int) -> str:
    """Fault of a committed shard; "" if there is none."""
    path = record_path(root, shard)
    try:
        record = read_json(path)
    except CacheError as error:
        return str(error)
    file, digest = str(record.get("file")), str(record.get("xxh3_128"))
    name = f"{path.parent.name}/{shard:06d}.{digest[:16]}.safetensors"
    if file != name or record != _record(plan, plan.shards[shard], file, plan.shard_bytes(shard), digest):
        if record.get("plan_id") != plan.plan_id:
            raise IdentityMismatchError(
                f"{path} is a record of another cache (plan {record.get('plan_id')}; this run is plan "
                f"{plan.plan_id}). Move it away, or choose another folder.",
                fields=["plan_id"],
            )
        return f"{path}: the record of another shard."
    try:
        check_size(root, file, plan.shard_bytes(shard), shard)
        expected = plan.header(shard)
        with (root / "shards" / file).open("rb") as opened:
            return "" if opened.read(len(expected)) == expected else f"{root / 'shards' / file}: the header of another."
    except CacheError as error:
        return str(error).split(" To make it again")[0]


def check_size(root: Path, file: str, size: int, shard: int) -> None:
    """Check that the data file of a shard exists and has the committed size.

    Raises:
        MissingShardError, TruncatedShardError: with how to repair it.
    """
    path = root / "shards" / file
    redo = f"To make it again, delete {record_path(root, shard)} and {root / SEALED}, and run the extraction."
    try:
        actual = path.stat().st_size
    except OSError as error:
        raise MissingShardError(
            f"shard {shard}: {path} was committed but is missing ({error.strerror}). {redo}"
        ) from None
    if actual != size:
        raise TruncatedShardError(
            f"shard {shard}: {path}: expected {size:,} bytes (its record), got {actual:,}. {redo}"
        )


def row_checksums(feats: Float[Tensor, "row *feature"]) -> list[int]:
    """xxh3-64 of the bytes of each row, as unsigned integers."""
    data, size = byte_view(feats), feats[0].numel() * feats.element_size() if len(feats) else 0
    return [xxhash.xxh3_64_intdigest(data[i * size : (i + 1) * size]) for i in range(len(feats))]


def byte_view(feats: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return memoryview(feats.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]


def _checked(plan: CachePlan, shard: ShardSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    expected = [site.site for site in plan.sites]
    if set(tensors) != set(expected):
        absent, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        raise ValueError(f"shard {shard.index}: sites missing {absent}, not in the plan {extra}.")
    data = {}
    for site in plan.sites:
        feats, shape = tensors[site.site], (shard.n_rows, *site.shape)
        if tuple(feats.shape) != shape or feats.dtype != site.torch_dtype:
            got = f"{list(feats.shape)} {feats.dtype}"
            raise ValueError(f"shard {shard.index}, {site.site}: expected {list(shape)} {site.dtype}, got {got}.")
        data[site.site] = feats.detach().to("cpu").contiguous()
        _check_finite(plan, shard, site.site, data[site.site])
    return data


def _check_finite(plan: CachePlan, shard: ShardSpec, site: str, feats: Tensor) -> None:
    # A NaN or infinity anywhere makes the sum one; the sum costs 1/15 of isfinite(), which then finds the rows.
    if torch.isfinite(feats.sum(dtype=torch.promote_types(feats.dtype, torch.float32))):
        return
    bad = (~torch.isfinite(feats.flatten(1))).any(dim=1).nonzero().flatten().tolist()
    if not bad:
        return  # finite values whose sum overflows
    row = plan.rows[shard.start + bad[0]]
    raise NonFiniteActivationError(
        f"example {row.example_id!r}, site {site}, position {row.position} ({row.position_name!r}, token "
        f"{row.token_text!r}): the activation is NaN or infinite ({len(bad)} of {shard.n_rows} rows of shard "
        f"{shard.index}). Nothing of this shard was written. float16 overflows where bfloat16 does not; otherwise "
        "look at the checkpoint's weights, or leave the example out.",
        example_id=row.example_id,
        site=site,
        position=row.position,
    )


def _chunks(plan: CachePlan, shard_index: int, data: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    yield plan.header(shard_index)
    for site in plan.sites:
        yield b"".join(digest.to_bytes(8, "little") for digest in row_checksums(data[site.site]))
    for site in file_order(plan.sites):
        yield byte_view(data[site.site])


def _write_data(temp: Path, chunks: Iterator[bytes | memoryview]) -> str:
    digest = xxhash.xxh3_128()
    with open(temp, "wb", buffering=0) as file:
        for chunk in chunks:
            digest.update(chunk)
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
        os.fchmod(file.fileno(), umask_mode())
        os.fsync(file.fileno())
    return digest.hexdigest()


def _record(plan: CachePlan, shard: ShardSpec, file: str, size: int, digest: str) -> dict[str, Any]:
    header_bytes = len(plan.header(shard.index))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "plan_id": plan.plan_id,
        "shard": shard.index,
        "file": file,
        "rows": [shard.start, shard.stop],
        "examples": [shard.example_start, shard.example_stop],
        "runs": list(shard.runs),
        "bytes": size,
        "xxh3_128": digest,
        "header_bytes": header_bytes,
        "tensors": tensor_table(plan.sites, shard.n_rows, header_bytes),
    }
    return json.loads(to_json(content))


def _yield_to_winner(final: Path, mine: Mapping[str, Any]) -> dict[str, Any]:
    winner = read_json(final)
    if winner["file"] != mine["file"]:
        (final.parents[1] / mine["file"]).unlink(missing_ok=True)
        warnings.warn(
            f"shard {mine['shard']}: another writer committed {winner['file']} first and this one made "
            f"{mine['file']}; the first is kept. Different GPU types or library versions give different low bits.",
            NonDeterministicShard,
            stacklevel=3,
        )
    return winner


def _make_folder(root: Path, folder: Path) -> None:
    if not folder.exists():
        with disk_errors(root, 0):
            folder.mkdir(parents=True, exist_ok=True)
            fsync_dir(folder.parent)


def _remove_orphans(root: Path, record: Mapping[str, Any]) -> None:
    """Delete data files of writers that lost, or died between rename and record: no record can refer to them."""
    kept = root / "shards" / record["file"]
    for path in kept.parent.glob(f"{record['shard']:06d}.*.safetensors"):
        if path != kept:
            path.unlink(missing_ok=True)


def sealed_of(
    layout: Mapping[str, Any], plan_id: str, records: Sequence[Mapping[str, Any]], files: Mapping[str, str]
) -> dict[str, Any]:
    """The content of SEALED.json, from the layout of the plan, every commit record, and digests of the other files."""
    keys = ("rows", "examples", "runs", "file", "bytes", "xxh3_128", "header_bytes")
    return {key: layout[key] for key in ("rows", "examples", "positions", "sites")} | {
        "format": FORMAT,
        "version": VERSION,
        "plan_id": plan_id,
        "n_shards": len(records),
        "bytes": sum(record["bytes"] for record in records),
        "files": dict(files),
        "shards": [[*record["rows"], *(record[key] for key in keys[1:])] for record in records],
    }


def _log_run(root: Path, shard: int, started: float, env: Mapping[str, object]) -> None:
    now = time.time()
    line = {"shard": shard, "committed_unix": now, "wall_s": now - started, **env}
    writer = hashlib.sha256(f"{host()}.{os.getpid()}".encode()).hexdigest()[:12]  # a shared cache must not name hosts
    with suppress(OSError):  # the shard is committed: a log line lost to a full disk is no error
        (root / RUNS).mkdir(exist_ok=True)
        with open(root / RUNS / f"{writer}.jsonl", "a") as file:
            file.write(json.dumps(line, default=str) + "\n")
