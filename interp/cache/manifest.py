"""The manifest of a cache, written once; differences of two manifests; views of a cache with other example columns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from interp.cache.errors import ChecksumError, IdentityMismatchError, NotACacheError
from interp.cache.plan import CachePlan, plan_id_of
from interp.cache.tables import examples_table, from_parquet, rows_table, to_parquet
from interp.io.files import disk_errors, replace, sweep_temps, write_once

FORMAT, VERSION = "interp-cache", 2
MANIFEST, SEALED, ROWS, EXAMPLES = "manifest.json", "SEALED.json", "rows.parquet", "examples.parquet"
DIGEST, ABSENT = "digest", "(absent)"
_AGAIN = "and run the extraction again: it computes only what is missing."


@dataclass(frozen=True)
class Difference:
    """One field in which two identities differ; `field` is dotted, e.g. "adapter.sha256"."""

    field: str
    left: object
    right: object

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.left)} != {_short(self.right)}"


def create_cache(root: str | Path, plan: CachePlan) -> dict[str, Any]:
    """Create the folder of a plan, or join an existing one of the same plan; returns its manifest. Idempotent.

    Order: rows.parquet, then the manifest that carries its hash (first writer wins), then examples.parquet. The
    last is replaced when labels, groups or metadata changed: they describe the examples, not the activations, so
    correcting a label costs no forward pass; the seal, which has its digest, is deleted first and rewritten by
    `seal`. Temporary files of dead writers are removed, and a damaged rows.parquet is rewritten.

    Raises:
        IdentityMismatchError: the folder has a cache of another identity; names the fields that differ.
        CacheFullError: the disk is full.
    """
    root = Path(root)
    with disk_errors(root.absolute().parent, 0):
        (root / "shards").mkdir(parents=True, exist_ok=True)
    sweep_temps(root)
    if not (root / MANIFEST).exists():
        table = to_parquet(rows_table(plan))
        replace(root, root / ROWS, table)
        write_once(root, root / MANIFEST, to_json(_manifest(plan, table)))
    manifest = read_manifest(root)
    _check_identity(root, manifest, plan)
    if not _is_file(root / ROWS, manifest["tables"].get(ROWS)):
        _restore_rows(root, manifest, to_parquet(rows_table(plan)))
    examples = to_parquet(examples_table(plan.prompts))
    if not _is_file(root / EXAMPLES, xxhash.xxh3_128_hexdigest(examples)):
        (root / SEALED).unlink(missing_ok=True)
        replace(root, root / EXAMPLES, examples)
    return manifest


def _is_file(path: Path, digest: object) -> bool:
    try:
        return xxhash.xxh3_128_hexdigest(path.read_bytes()) == digest
    except OSError:
        return False


def _restore_rows(root: Path, manifest: Mapping[str, Any], rows: bytes) -> None:
    if xxhash.xxh3_128_hexdigest(rows) != manifest["tables"].get(ROWS):
        raise ChecksumError(
            f"{root / ROWS}: its digest is not that of the manifest, and this version of pyarrow writes other bytes. "
            "Restore the file, or extract into another folder."
        )
    replace(root, root / ROWS, rows)


def read_manifest(root: str | Path) -> dict[str, Any]:
    """The manifest of a cache, compared with its own identity hash.

    Raises:
        NotACacheError: no manifest in the folder, or one of a newer format.
        ChecksumError: the identity does not hash to the plan id.
    """
    manifest = read_json(Path(root) / MANIFEST)
    kinds = {"identity": dict, "plan_id": str, "layout": dict, "tables": dict}
    if absent := [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]:
        raise ChecksumError(f"{Path(root) / MANIFEST}: {', '.join(absent)} is not what was written. Delete it {_AGAIN}")
    if plan_id_of(manifest["identity"]) != manifest["plan_id"]:
        raise ChecksumError(
            f"{Path(root) / MANIFEST}: its identity hashes to {plan_id_of(manifest['identity'])}, but its plan_id is "
            f"{manifest['plan_id']}: the file was changed after it was written. Restore it, or extract again."
        )
    return manifest


def _members(path: Path) -> str:
    """The caches inside a folder that holds those of a pair, as advice; "" where there is none."""
    inside = sorted(str(one.parent) for one in path.parent.glob(f"*/{path.name}"))
    return f" It holds {len(inside)} caches; name one: {', '.join(inside)}." if inside else ""


def read_json(path: Path) -> dict[str, Any]:
    """One of the cache's own JSON files, with its format, version and own digest checked.

    Raises:
        NotACacheError: no such file, or one of another version.
        ChecksumError: the file is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotACacheError(
            f"{path.parent}: no {path.name}; expected a folder that `diptych cache ... --out` wrote.{_members(path)}"
        ) from None
    except OSError as error:
        raise ChecksumError(f"{path}: cannot be read ({error.strerror or error}). Restore it.") from error
    except (ValueError, RecursionError) as error:
        raise ChecksumError(f"{path}: not the JSON that was written ({error!s:.200}). Delete it {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ChecksumError(f"{path}: not the JSON that was written (expected an object). Delete it {_AGAIN}")
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise NotACacheError(
            f"{path}: format {content.get('format')!r} version {content.get('version')}; this release reads and writes "
            f"{FORMAT!r} version {VERSION}. Read it with the release that wrote it, or extract into another folder."
        )
    digest = content.pop(DIGEST, None)
    try:
        is_intact = digest == _digest(content)
    except (ValueError, RecursionError):  # NaN or lone surrogates, which are never written
        is_intact = False
    if not is_intact:
        raise ChecksumError(f"{path}: changed after it was written (its digest differs). Delete it {_AGAIN}")
    return content


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of one of the cache's JSON files, with the digest that `read_json` verifies."""
    return {**content, DIGEST: _digest(content)}


def _digest(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(to_json(content, indent=None))


def read_rows(root: Path, manifest: Mapping[str, Any]) -> Any:
    """rows.parquet as an Arrow table, compared with the digest in the manifest."""
    try:
        data = (root / ROWS).read_bytes()
    except OSError as error:
        raise ChecksumError(
            f"{root / ROWS}: cannot be read ({error.strerror or error}). Restore the file, or extract again."
        ) from error
    if xxhash.xxh3_128_hexdigest(data) != manifest["tables"].get(ROWS):
        raise ChecksumError(
            f"{root / ROWS}: its digest is not the one in the manifest. Restore the file, or extract again."
        )
    return from_parquet(data)


def read_examples(root: Path) -> Any:
    """examples.parquet as an Arrow table, compared with the digest in the seal, if there is one."""
    again = "Run the extraction again: it rewrites the table from its examples."
    try:
        data = (root / EXAMPLES).read_bytes()
        table = from_parquet(data)
    except (OSError, ValueError) as error:
        raise ChecksumError(f"{root / EXAMPLES}: damaged ({error}). {again}") from error
    if (root / SEALED).exists() and read_json(root / SEALED)["files"].get(EXAMPLES) != xxhash.xxh3_128_hexdigest(data):
        raise ChecksumError(f"{root / EXAMPLES}: its digest is not the one in the seal. {again}")
    return table


def file_digests(root: Path) -> dict[str, str]:
    """Digests of the three files that describe the rows of the shards."""
    return {name: xxhash.xxh3_128_hexdigest((root / name).read_bytes()) for name in (MANIFEST, ROWS, EXAMPLES)}


def diff_manifests(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    """The identity fields in which two manifests differ, in dotted names; empty when activations are the same."""
    a, b = _flatten(left["identity"]), _flatten(right["identity"])
    names = sorted(set(a) | set(b))
    differences = (Difference(name, a.get(name, ABSENT), b.get(name, ABSENT)) for name in names)
    return tuple(difference for difference in differences if difference.left != difference.right)


def to_json(content: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """The bytes of a JSON file of a cache: equal content gives equal bytes."""
    return (json.dumps(content, sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _manifest(plan: CachePlan, rows: bytes) -> dict[str, Any]:
    estimate = plan.estimate()
    content = {
        "format": FORMAT,
        "version": VERSION,
        "plan_id": plan.plan_id,
        "identity": plan.identity,
        "environment": plan.environment,
        "layout": layout_of(plan)
        | {
            "bytes": estimate.bytes,
            "shards": [[s.start, s.stop, s.example_start, s.example_stop, list(s.runs)] for s in plan.shards],
        },
        "tables": {ROWS: xxhash.xxh3_128_hexdigest(rows)},
    }
    return with_digest(json.loads(to_json(content)))


def layout_of(plan: CachePlan) -> dict[str, Any]:
    """Facts needed to read the shards: sizes, sites, and which rules gave one row per example."""
    single = []
    for rule in range(len(plan.positions)):
        examples = plan.rows.example[plan.rows.rule == rule]
        single.append(len(examples) == len(plan.prompts) and len(set(examples.tolist())) == len(examples))
    return {
        "rows": len(plan.rows),
        "examples": len(plan.prompts),
        "positions": [[name, one] for name, one in zip(plan.positions, single, strict=True)],
        "sites": [[site.site, list(site.shape), site.dtype] for site in plan.sites],
    }


def _check_identity(root: Path, manifest: Mapping[str, Any], plan: CachePlan) -> None:
    if manifest["plan_id"] == plan.plan_id:
        return
    differences = diff_manifests(manifest, {"identity": plan.identity})
    lines = "\n  ".join(map(str, differences))
    raise IdentityMismatchError(
        f"{root} holds another cache (plan {manifest['plan_id']}); this run is plan {plan.plan_id}. In the folder != "
        f"in this run:\n  {lines}\nChoose another folder for this run; the cache in this one was not changed.",
        fields=[difference.field for difference in differences],
    )


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, Mapping) and value:
        parts = (_flatten(part, f"{prefix}.{key}" if prefix else str(key)) for key, part in value.items())
        return {name: leaf for part in parts for name, leaf in part.items()}
    return {prefix: value}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def with_examples(cache: Path, folder: Path, examples: Any) -> Path:
    """A view of a finished cache: the same shards, with other columns of its examples, sealed in `folder`.

    The link to the shards is relative, so that both can be moved together.

    Args:
        examples: Arrow table, one row per example of the cache, in its order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SEALED).unlink(missing_ok=True)
    link = folder / "shards"
    if not link.is_symlink():
        os.symlink(os.path.relpath(cache / "shards", folder), link)
    table = to_parquet(examples)
    for name, data in (
        (MANIFEST, (cache / MANIFEST).read_bytes()),
        (ROWS, (cache / ROWS).read_bytes()),
        (EXAMPLES, table),
    ):
        replace(folder, folder / name, data)
    sealed = read_json(cache / SEALED)
    sealed["files"][EXAMPLES] = xxhash.xxh3_128_hexdigest(table)
    replace(folder, folder / SEALED, to_json(with_digest(sealed), indent=None))
    return folder
