"""Tables as CSV that a spreadsheet shows and never runs, and the same cells back again."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_STARTS = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: with ' in front where it begins with = + - @, tab or return.

    Plain numbers stay as they are; `live` gives the text back.

    Example:
        >>> inert("=1+1"), inert("-0.5"), inert("'=x")
        ("'=1+1", '-0.5', "''=x")
    """
    return f"'{text}" if _STARTS.match(text) and not _NUMBER.fullmatch(text) else text


def live(text: str) -> str:
    """The text that `inert` was given."""
    return text[1:] if text.startswith("'") and _STARTS.match(text) else text


def csv_bytes(table: pd.DataFrame, *, float_format: str | None = None) -> bytes:
    """The table as CSV in UTF-8, one line per row, every text cell and column name inert; equal tables, equal bytes."""
    safe = _mapped(table, inert)
    text = safe.to_csv(index=False, lineterminator="\n", float_format=float_format)
    if "\r" in text:  # Python quotes no cell for a return in it, and every reader takes that for the end of the row
        quoting = csv.QUOTE_NONNUMERIC
        text = safe.to_csv(index=False, lineterminator="\n", float_format=float_format, quoting=quoting)
    return text.encode()


def with_live_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from `csv_bytes`, with the texts that it was made of."""
    return _mapped(table, live)


def _mapped(table: pd.DataFrame, change: Any) -> pd.DataFrame:
    def cell(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    renamed = table.rename(columns={name: cell(name) for name in table.columns if cell(name) != name})
    for name, kind in zip(renamed.columns, renamed.dtypes, strict=True):
        if not (kind.kind in "biufcmM" if hasattr(kind, "kind") else False):
            renamed[name] = renamed[name].astype(object).map(cell)
    return renamed
