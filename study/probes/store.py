"""A sweep of probes on disk: its table, its scores, its directions, and what it was made from.

table.parquet, table.csv   one row per estimate
scores.npz                 ids, split, labels, held-out scores of every row
directions.safetensors     unit directions in raw units; bias, norm, mean and std in its header
settings.json              options, cache and versions; written last, so a folder that has it is whole
transfer/NAME.csv          probes of this sweep read on another cache
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.io.files import replace
from interp.io.lock import writer_lock
from probes.result import SweepResult

if TYPE_CHECKING:
    import pandas as pd

SETTINGS, TABLE, SCORES, DIRECTIONS = "settings.json", "table.parquet", "scores.npz", "directions.safetensors"
_DIRECTION = "direction|"
_NUMBERS = ("norm", "bias", "mean", "std")


def is_sweep(folder: Path) -> bool:
    """Whether the folder holds a finished sweep."""
    return (folder / SETTINGS).is_file()


def finished(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether this very sweep is there already; a folder is never filled by two.

    Args:
        identity: everything that changes a number (cache, columns, options); JSON values.
    Raises:
        ValueError: the folder holds another sweep, naming what differs, or files of something else.
    """
    if is_sweep(folder):
        held, asked = read_settings(folder)["identity"], json.loads(json.dumps(identity))
        differing = sorted(key for key in {*held, *asked} if held.get(key) != asked.get(key))
        if differing:
            shown = "; ".join(f"{key}: {held.get(key)!r:.60} there, {asked.get(key)!r:.60} asked" for key in differing)
            raise ValueError(f"{folder} holds another sweep ({shown}). Choose another --out, or delete the folder.")
        return True
    own = (TABLE, "table.csv", SCORES, DIRECTIONS)
    strange = [path.name for path in folder.glob("*") if path.name not in own and not path.name.startswith(".")]
    if strange:
        raise ValueError(f"{folder} holds {', '.join(sorted(strange)[:3])} and no sweep. Choose another --out.")
    return False


def write_sweep(result: SweepResult, folder: Path, identity: Mapping[str, Any], **notes: Any) -> None:
    """Write every file, each whole or not at all, `settings.json` last.

    Args:
        notes: what is good to know but changes no number (where the cache was, versions).
    Raises:
        CacheBusyError: another process writes this folder.
    """
    with writer_lock(folder):
        arrays = result.arrays()
        directions = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_DIRECTION)}
        write_table(result.table, folder, "table")
        replace(folder, folder / SCORES, _npz(arrays))
        replace(folder, folder / DIRECTIONS, _safetensors(directions))
        settings = {"identity": dict(identity), "sweep": dict(result.settings), **notes}
        replace(folder, folder / SETTINGS, (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode())


def write_table(table: pd.DataFrame, folder: Path, stem: str) -> None:
    """`stem.parquet` and `stem.csv` of a tidy table."""
    (folder / stem).parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    replace(folder, folder / f"{stem}.parquet", buffer.getvalue())
    replace(folder, folder / f"{stem}.csv", table.to_csv(index=False, lineterminator="\n").encode())


def read_settings(folder: Path) -> dict[str, Any]:
    """What `write_sweep` said of a sweep.

    Raises:
        ValueError: no finished sweep in the folder.
    """
    if not is_sweep(folder):
        raise ValueError(
            f"{folder}: no finished sweep (no {SETTINGS}). Run `diptych probes sweep CACHE --out {folder}`."
        )
    return json.loads((folder / SETTINGS).read_text())


def read_sweep(folder: Path) -> SweepResult:
    """The result that was written.

    Raises:
        ValueError: no finished sweep in the folder, or one of an earlier version.
    """
    import pandas as pd
    from safetensors import safe_open

    settings = read_settings(folder)
    with np.load(folder / SCORES) as file:
        arrays = {name: file[name] for name in file.files}
    if "is_crossed" not in arrays:
        raise ValueError(f"{folder}: a sweep of an earlier version, which tested no group twice. Sweep again.")
    with safe_open(folder / DIRECTIONS, framework="pt") as file:  # type: ignore[no-untyped-call]
        numbers = file.metadata()
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            rest = [json.loads(numbers[name])[key] for key in _NUMBERS]
            arrays[_DIRECTION + name] = np.concatenate([file.get_tensor(name).numpy(), np.array(rest, np.float32)])
    return SweepResult.from_arrays(pd.read_parquet(folder / TABLE), arrays, settings["sweep"])


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _safetensors(directions: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.torch import save

    units = {name.removeprefix(_DIRECTION): torch.from_numpy(values[:-4].copy()) for name, values in directions.items()}
    numbers = {
        name.removeprefix(_DIRECTION): json.dumps(dict(zip(_NUMBERS, values[-4:].tolist(), strict=True)))
        for name, values in directions.items()
    }
    return save(units, metadata=numbers)
