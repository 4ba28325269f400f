"""What probes along replies show, in sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from study.analyses.along.member import FORCED, PROBE, RESIDUAL
from study.analyses.base import ShownTable, Tables
from study.rows import Row
from study.schema import DIFFERENCE

if TYPE_CHECKING:
    import pandas as pd

_NONE = "no confounds"
_WORDS = {"fraction": "of the reply", "tokens": "tokens"}


def along_lines(table: pd.DataFrame) -> list[str]:
    """decodable-at of each member, as scored and without the confounds, and both compared.

    Args:
        table: the table `along`.
    """
    out: list[str] = []
    for member in dict.fromkeys(table["member"]):
        rows = table[table["member"] == member].to_dict("records")
        out += list(_difference(rows) if member == DIFFERENCE else _member(member, rows))
    return out


def _member(member: str, rows: list[Row]) -> Iterator[str]:
    first = rows[0]
    yield f"{member}: {first['target']} by {first['kind']} at {first['site']} of {first['train_checkpoint']}"
    crossings = [row for row in rows if row["metric"] == "decodable_at"]
    for role, words in ((PROBE, "as scored"), (RESIDUAL, "without the confounds"), (FORCED, "forced answers")):
        parts = [_place(row) for row in crossings if row["role"] == role]
        if parts:
            yield f"  decodable at, {words}: {'; '.join(parts)}"
    ends = [r for r in rows if r["metric"] == "auroc" and r["axis"] == "fraction" and bool(r["selected"] is True)]
    for row in ends:
        if row["role"] == PROBE and row["at"] in (ends[0]["at"], ends[-1]["at"]):
            level = _number(row.get("null_max95", np.nan))
            yield f"  AUROC at {row['at']:g} of the reply: {_interval(row)}, level of the null {level}"
    alone = next((r for r in rows if r["role"] == "confounds" and r["axis"] == "fraction"), None)
    if alone is not None:
        yield f"  AUROC of the {alone['control']} alone: {_interval(alone)}"
    for row in (r for r in rows if r["metric"] == "auroc_gain" and r["role"] == PROBE):
        yield f"  AUROC at the last decision minus {row['control'].lower().replace('auroc', 'AUROC')}: {_interval(row)}"


def _difference(rows: list[Row]) -> Iterator[str]:
    for row in (r for r in rows if r["metric"] == "decodable_at"):
        text = row["note"] if np.isnan(row["value"]) else f"{_interval(row)} {_WORDS[row['axis']]}"
        yield f"{DIFFERENCE}, decodable at: {text}"


def _place(row: Row) -> str:
    words = _WORDS[row["axis"]]
    return f"at no place ({words})" if np.isnan(row["value"]) else f"{_at(row)} {words}"


def _interval(row: Row) -> str:
    return f"{row['value']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]" if not np.isnan(row["value"]) else str(row["note"])


def _number(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.3f}"


def shown(tables: Tables) -> ShownTable | None:
    """Where each member is decodable, as scored and without the confounds, for the report; None without the table."""
    table = tables.get("along")
    if table is None:
        return None
    rows: list[tuple[str, ...]] = []
    for member in dict.fromkeys(table["member"]):
        own = table[(table["member"] == member) & (table["metric"] == "decodable_at")].to_dict("records")
        of = {(row["role"], row["axis"]): _at(row) for row in own}
        wanted = ((PROBE, "fraction"), (PROBE, "tokens"), (RESIDUAL, "fraction"))
        rows += (
            [
                (
                    str(member),
                    *(
                        of.get(key, _NONE if key[0] == RESIDUAL and member != DIFFERENCE else "not compared")
                        for key in wanted
                    ),
                )
            ]
            if of
            else []
        )
    if not rows:
        return None
    heads = ("member", "share of the reply", "tokens", "share, without the confounds")
    caption = f"First place at which the AUROC of {table['target'].iloc[0]} exceeds the null, with 95 % intervals."
    return ShownTable(caption, heads, tuple(rows))


def _at(row: Row) -> str:
    """decodable-at with its interval in a cell of a table."""
    if np.isnan(row["value"]):
        return str(row["note"]) if row["member"] == DIFFERENCE else "at no place"
    high = "none" if np.isinf(row["hi"]) else f"{row['hi']:g}"
    return f"{row['value']:g} [{row['lo']:g}, {high}]"
