"""Rows of tidy tables as the claims read them: typed columns, blanks as None."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from interp.checkpoint import MEMBERS
from study.ledger import Measured
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]


def rows(tables: Tables, name: str, **wanted: object) -> list[Row]:
    """Rows of a table that have a value, where every named column equals what is wanted (or is in a tuple of it); none
    where a column is not there."""
    table = tables.get(name)
    if table is None or any(column not in table.columns for column in wanted):
        return []
    keep = table["value"].notna()
    for column, value in wanted.items():
        if not keep.any():
            return []
        keep &= table[column].isin(value) if isinstance(value, tuple) else table[column] == value
    part = table[keep.fillna(False).astype(bool)]
    names, columns = [str(name) for name in part.columns], [part[name].tolist() for name in part.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def members_of(found: Iterable[Row]) -> list[str]:
    """Members that claims are made of: engaged and heuristic where rows have them, else whoever they are of (a single
    checkpoint), in the order of the rows."""
    named = dict.fromkeys(str(row["member"]) for row in found)
    return [name for name in MEMBERS if name in named] or list(named)


def is_blank(value: Any) -> bool:
    """None, NaN, NA or blank text: how a table represents a missing value."""
    if value is None or isinstance(value, str):
        return not value
    try:
        return math.isnan(float(value))
    except TypeError:
        return True  # pandas.NA has no float


def number(row: Row, column: str) -> float | None:
    """A number of a row, or None where it is blank or absent."""
    value = row.get(column)
    return None if is_blank(value) else float(value)  # type: ignore[arg-type]


def flag(row: Row, column: str) -> bool:
    """A flag of a row; a blank is False."""
    value = row.get(column)
    return not is_blank(value) and bool(value)


def one_answer(row: Row) -> str:
    """Why a row cannot carry a claim: it rests on answers of a member that gives the same answer to everything; else
    ""."""
    if not flag(row, "is_degenerate"):
        return ""
    share = number(row, "top_share")
    if share is None:
        return "a member gives the same answer to everything"
    member = row.get("top_answer_member")
    member = row.get("member") if is_blank(member) else member
    return f"{member} answers {row.get('top_answer')!r} to {100 * share:.3g} % of items, whatever the question"


def bounds(row: Row, column: str = "") -> tuple[float, float] | None:
    """95 % interval of a quantity of a row: `lo`, `hi` of its value, `<column>_lo`, `<column>_hi` of another; None
    where either end is blank."""
    ends = [number(row, f"{column}_{end}" if column else end) for end in ("lo", "hi")]
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def measured(row: Row, *, name: str = "", signed: bool = False) -> Measured:
    """The estimate of a table row; its interval as it is there."""
    value, lo, hi = (float(row[key]) for key in ("value", "lo", "hi"))
    return Measured(
        value,
        lo,
        hi,
        **size_of(row),
        name=name,
        unit=str(row.get("metric_unit") or ""),
        signed=signed,
        label_mass=number(row, "label_mass"),
    )


def size_of(row: Row) -> Row:
    """How many items and groups a row is of, and what they are called, as `Measured` takes them."""
    groups, called = number(row, "n_groups"), (row.get("unit") or "items", row.get("group_unit") or "groups")
    return {
        "n": int(row["n"]),
        "n_groups": None if groups is None else int(groups),
        "items": str(called[0]),
        "groups": str(called[1]),
    }


def words(name: object) -> str:
    """A name of a table in words."""
    return str(name).replace("_", " ")
