"""Tidy tables of a study: one estimate per row, every column named and documented once, checked before it is written.

runs/x/tables/<table>.parquet and .csv. `COLUMNS` is the dictionary; `KEYS` are in every table, the others where they
mean something. A row that has a value has its interval and n; a row without one says why in `note`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.io.csv_text import csv_bytes
from interp.io.read import read_frame
from interp.label_mass import mass_note
from study.column_words import COLUMNS, KEYS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "KEYS", "TABLES", "check_table", "read_table", "read_tables", "tidy", "write_table"]

FOLDER = "tables"
TABLES = {
    "eval": "accuracy, unparsed, length, confidence and the task's own scores, per member and cell",
    "pair": "per cell: both members on the same items, and engaged minus heuristic with its tests",
    "heads": "effect of every head under every definition, per member and kind of change",
    "heads_selected": "main effect of every head on both halves of the pairs: chosen on one, reported on the other",
    "heads_difference": "engaged minus heuristic for every head, members of one architecture",
    "heads_cumulative": "what is left when the first k heads are removed together, beside random heads",
    "order_swap": "answers to order-swapped twins: binding, beside readers blind to order",
    "probes": "probes per layer with null, selectivity, TEST at the selected layer, and calibration",
    "probes_transfer": "probes of one checkpoint read on another, beside both ceilings",
    "steering": "dose curves of each direction and its random and shuffled controls",
    "steering_slopes": "one slope per direction, control and score",
    "oracle": "what an oracle reads from activations, beside its floors and matched shuffles",
}
"""Tables of the shipped steps; a step of your own may add others."""

_NUMBERS = ("value", "lo", "hi", "n")
_TEXT = ("analysis", "member", "metric", "interval")


def tidy(rows: pd.DataFrame | Sequence[Mapping[str, Any]], **same: Any) -> pd.DataFrame:
    """Rows with every key column, key columns first, in the order of `COLUMNS`; `same` fills what is the same in all.

    Raises:
        ValueError: a column that `COLUMNS` does not name.
    """
    import pandas as pd

    table = (rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))).assign(**same)
    unknown = [name for name in table.columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"columns {', '.join(map(repr, unknown))}: not in study.tables.COLUMNS. Document them there.")
    table = table.reindex(columns=[name for name in COLUMNS if name in KEYS or name in table.columns])
    return table.reset_index(drop=True)


def with_mass_note(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, noted where the labels hold little of the probability at the place where they are read."""
    if "label_mass" not in rows:
        return rows
    said = [mass_note(mass) for mass in rows["label_mass"].astype(float)]
    notes = ["; ".join(filter(None, both)) for both in zip(rows["note"], said, strict=True)]
    return rows.assign(note=notes)


def check_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table, if every number in it has its interval, n and provenance.

    Raises:
        ValueError: a missing or unknown column, no rows, a value without lo, hi or n, lo > hi, a row that has neither a
            value nor a note, or one that does not say which analysis, member, metric and interval it is of.
    """
    missing = [column for column in KEYS if column not in table.columns]
    unknown = [column for column in table.columns if column not in COLUMNS]
    if missing or unknown:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"table {name!r} {' and '.join(what)}. Build it with study.tables.tidy.")
    if not len(table):
        raise ValueError(f"table {name!r} has no rows.")
    numbers = table[list(_NUMBERS)].astype(float)
    known = numbers["value"].notna()
    for column in ("lo", "hi", "n"):
        _refuse(table, name, known & numbers[column].isna(), f"a value without {column}: no number without its control")
    _refuse(table, name, known & (numbers["lo"] > numbers["hi"]), "lo > hi")
    _refuse(table, name, known & (numbers["n"] < 1), "n below 1")
    _refuse(table, name, ~known & (table["note"].fillna("") == ""), "neither a value nor a note that says why not")
    for column in _TEXT:
        blank = table[column].isna() | (table[column].astype(str) == "")
        _refuse(table, name, blank & (known | (column != "interval")), f"no {column}")
    return table


def _refuse(table: pd.DataFrame, name: str, bad: Any, why: str) -> None:
    if bool(bad.any()):
        first = table[bad].iloc[0]
        keys = ("member", "cell", "target", "site", "head", "metric")
        where = ", ".join(f"{k} {first[k]}" for k in keys if k in table and str(first[k]) not in ("", "nan", "None"))
        raise ValueError(f"table {name!r}: {why} in {int(bad.sum())} of {len(table)} rows, first {where or 'row'}.")


def write_table(table: pd.DataFrame, folder: Path, name: str) -> tuple[Path, Path]:
    """`folder/<name>.parquet` and `.csv` of a checked table, each whole or not at all; the same table, the same bytes.

    Args:
        folder: the run's `tables`.
    Raises:
        ValueError: as `check_table`; OSError: no room.
    """
    from interp.io.files import TEMP, replace

    check_table(table, name)
    folder.mkdir(parents=True, exist_ok=True)
    table, buffer = _plain(table), io.BytesIO()
    table.to_parquet(buffer, index=False)
    paths = folder / f"{name}.parquet", folder / f"{name}.csv"
    replace(folder, paths[0], buffer.getvalue())
    replace(folder, paths[1], csv_bytes(table, float_format="%.10g"))
    with suppress(OSError):  # another writer may be using it
        (folder / TEMP).rmdir()
    return paths


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Each column as text, float or bool, so that every reader and every run sees the same types."""
    import pandas as pd

    out = {}
    for name in table.columns:
        column = table[name]
        if COLUMNS[name].kind == "number":
            out[name] = pd.to_numeric(column).astype("float64")
        elif COLUMNS[name].kind == "flag":
            out[name] = column.map(lambda v: None if pd.isna(v) else bool(v)).astype("boolean")
        else:
            out[name] = column.map(lambda v: "" if pd.isna(v) else str(v)).astype(object)
    return pd.DataFrame(out)


def read_table(run: Path, name: str) -> pd.DataFrame:
    """One table of a run folder.

    Raises:
        ValueError: the run has no such table (lists those it has), or a damaged one; as `check_table`.
    """
    path = run / FOLDER / f"{name}.parquet"
    if not path.is_file():
        known = ", ".join(p.stem for p in sorted((run / FOLDER).glob("*.parquet"))) or "none"
        raise ValueError(f"{run}: no table {name!r}. Tables: {known}.")
    return check_table(read_frame(path, do="Delete it and run the study again."), name)


def read_tables(run: Path) -> dict[str, pd.DataFrame]:
    """Every table of a run folder by name, in the order of `TABLES`."""
    found = {path.stem for path in (run / FOLDER).glob("*.parquet")}
    return {name: read_table(run, name) for name in [*(t for t in TABLES if t in found), *sorted(found - set(TABLES))]}
