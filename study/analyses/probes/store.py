"""A sweep of probes on disk: its table, its scores, its directions, and what it was made from.

plan.json                  options, cache and versions, written before anything is fitted
table.parquet, table.csv   one row per estimate
scores.npz                 ids, split, labels, held-out scores of every row
directions.safetensors     unit directions in raw units; bias, norm, mean and std in its header
items/sweep.item           settings, and the digest of each of these files; written last
transfer/NAME.csv          probes of this sweep read on another cache
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.io.files import DamagedFileError, write_file
from interp.io.frames import write_table
from interp.io.items import ItemStore, is_store, read_plan
from interp.loading.fingerprint import tensors_sha256
from probes.result import SweepResult
from study.rows import Row

if TYPE_CHECKING:
    pass

KIND, SWEEP = "sweep of probes", "sweep"
FORMAT = 2  # of the table: the columns of study.schema
TABLE, SCORES, DIRECTIONS = "table.parquet", "scores.npz", "directions.safetensors"
_FILES = (TABLE, "table.csv", SCORES, DIRECTIONS)
_DIRECTION, _PROBES = "direction|", "probes"
_NUMBERS = ("norm", "bias", "mean", "std")


def is_sweep(folder: Path) -> bool:
    """Whether the folder holds a finished sweep."""
    return is_store(folder) and read_plan(folder / "plan.json")["kind"] == KIND and SWEEP in _store(folder)


def sweep_store(folder: Path, identity: Mapping[str, object], **notes: object) -> AbstractContextManager[ItemStore]:
    """The folder of a sweep, held for writing; a folder is never filled by two.

    Args:
        identity: everything that changes a number (cache, columns, options); JSON values.
        notes: what is good to know but changes no number (where the cache was, versions).
    Raises: as `ItemStore.writing`.
    """
    return ItemStore.writing(folder, KIND, {**identity, "table": FORMAT}, notes=notes)


def is_finished(store: ItemStore) -> bool:
    """Whether this very sweep is cached, to the last byte; a damaged file is named."""
    return store.is_finished(SWEEP)


def write_sweep(store: ItemStore, result: SweepResult) -> None:
    """Write every file atomically, the item with their digests last."""
    folder, arrays = store.root, result.arrays()
    directions = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_DIRECTION)}
    write_table(result.table, folder, "table")
    write_file(folder / SCORES, _npz(arrays))
    write_file(folder / DIRECTIONS, _safetensors(directions))
    store.put_files(SWEEP, _FILES, settings=dict(result.settings))


def read_settings(folder: Path) -> Row:
    """What was asked of a sweep (`identity`), how it was made (`sweep`), and its notes.

    Raises:
        ValueError: no finished sweep in the folder.
    """
    if not is_sweep(folder):
        raise ValueError(f"{folder}: no finished sweep; expected a folder that `diptych probes sweep ... --out` wrote.")
    store = _store(folder)
    if store.identity.get("table") != FORMAT:
        raise ValueError(
            f"{folder}: a sweep of an earlier version, with other columns. Run it again into a new folder."
        )
    return {"identity": store.identity, "sweep": store.get_json(SWEEP)["settings"], **store.notes}


def read_sweep(folder: Path) -> SweepResult:
    """The result that was written.

    Raises:
        ValueError: no finished sweep in the folder.
        DamagedFileError: a file that is not what was written, by its name.
    """
    import pandas as pd
    from safetensors import safe_open

    settings = read_settings(folder)
    for name in _store(folder).altered(SWEEP):
        raise DamagedFileError(f"{folder / name}: not what was written, or gone. Run the same sweep again.")
    with np.load(folder / SCORES) as file:
        arrays = {name: file[name] for name in file.files}
    with safe_open(folder / DIRECTIONS, framework="pt") as file:  # type: ignore[no-untyped-call]
        numbers = json.loads(file.metadata()[_PROBES])
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            rest = [numbers[name][key] for key in _NUMBERS]
            arrays[_DIRECTION + name] = np.concatenate([file.get_tensor(name).numpy(), np.array(rest, np.float32)])
    return SweepResult.from_arrays(pd.read_parquet(folder / TABLE), arrays, settings["sweep"])


def _store(folder: Path) -> ItemStore:
    return ItemStore.reading(folder, KIND)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _safetensors(directions: Mapping[str, np.ndarray]) -> bytes:
    """Unit vectors by name; their numbers as one JSON text, as several metadata keys come in any order."""
    from safetensors.torch import save

    named = {name.removeprefix(_DIRECTION): values for name, values in sorted(directions.items())}
    units = {name: torch.from_numpy(values[:-4].copy()) for name, values in named.items()}
    numbers = {
        name: {**dict(zip(_NUMBERS, values[-4:].tolist(), strict=True)), "sha256": tensors_sha256({"": units[name]})}
        for name, values in named.items()
    }
    return save(units, metadata={_PROBES: json.dumps(numbers, sort_keys=True)})
