"""A table as a file: CSV or Parquet, by the ending of its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.csv_text import csv_bytes
from interp.io.files import write_file

if TYPE_CHECKING:
    import pandas as pd


def write_frame(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, or as Parquet where the name ends in .parquet; atomically.

    Raises:
        ValueError: another ending.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .parquet. Rename it.")
    if path.suffix == ".parquet":
        write_file(path, table.to_parquet(index=False))
    else:
        write_file(path, csv_bytes(table, float_format="%.10g"))


def write_table(table: pd.DataFrame, folder: Path, name: str, *, float_format: str | None = None) -> tuple[Path, Path]:
    """`folder/<name>.parquet` and `.csv`, each written atomically; equal tables, equal bytes."""
    paths = folder / f"{name}.parquet", folder / f"{name}.csv"
    write_file(paths[0], table.to_parquet(index=False))
    write_file(paths[1], csv_bytes(table, float_format=float_format))
    return paths
