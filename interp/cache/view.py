"""A cache over the shards of another one, with other columns of its examples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xxhash

from interp.cache.manifest import EXAMPLES, MANIFEST, ROWS, SEALED, read_json, to_json, with_digest
from interp.cache.tables import to_parquet
from interp.io.files import replace


def with_examples(cache: Path, folder: Path, examples: Any) -> Path:
    """A view of a finished cache in `folder`, sealed with its own examples; it moves with the folder that holds both.

    Args:
        examples: Arrow table, one row per example of the cache, in its order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SEALED).unlink(missing_ok=True)
    link = folder / "shards"
    if not link.is_symlink():
        os.symlink(os.path.relpath(cache / "shards", folder), link)
    table = to_parquet(examples)
    for name, data in ((MANIFEST, (cache / MANIFEST).read_bytes()), (ROWS, (cache / ROWS).read_bytes()),
                       (EXAMPLES, table)):  # fmt: skip
        replace(folder, folder / name, data)
    sealed = read_json(cache / SEALED)
    sealed["files"][EXAMPLES] = xxhash.xxh3_128_hexdigest(table)
    replace(folder, folder / SEALED, to_json(with_digest(sealed), indent=None))
    return folder
