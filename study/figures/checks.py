"""What a table must hold before it is drawn, and the words of a caption, both read from its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures.mpl import Record
from study.figures.numbers import format_estimate, plural

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_NAMING = (
    "cell", "target", "checkpoint", "system", "metric", "cohort", "head", "layer", "arm", "alpha", "k", "draw",
    "member", "gold", "pred"
)  # fmt: skip


def require(table: DataFrame, columns: Sequence[str], *, figure: str, numeric: Sequence[str] = ()) -> None:
    """Refuse a table that lacks columns, rows, or numbers.

    Args:
        table:   one row per estimate.
        columns: columns that must exist.
        numeric: those of them in which every entry must be a finite number.
        figure:  name of the figure, for the message.
    Raises:
        ValueError: a column is missing (all missing ones are named), the table is empty, an entry is NaN or
            infinite (column and row are named), lo > hi, or n < 1.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(
            f"figure {figure!r}: the table lacks {_columns(missing)}; it has "
            f"{', '.join(map(str, table.columns))}. No number is drawn without its interval, its n and its null: "
            "write them where the number is computed."
        )
    if len(table) == 0:
        raise ValueError(f"figure {figure!r}: the table has no rows.")
    for name in numeric:
        _require_finite(table, name, figure)
    if {"lo", "hi"} <= set(numeric) and bool((table["lo"] > table["hi"]).any()):
        row = _describe(table, int(np.flatnonzero(table["lo"] > table["hi"])[0]))
        raise ValueError(f"figure {figure!r}: lo > hi in {row}. Bounds are in ascending order.")
    if "n" in numeric and bool((table["n"] < 1).any()):
        row = _describe(table, int(np.flatnonzero(table["n"] < 1)[0]))
        raise ValueError(f"figure {figure!r}: n is below 1 in {row}. A number stands on the items behind it.")


def _require_finite(table: DataFrame, name: str, figure: str) -> None:
    try:
        values = table[name].to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"figure {figure!r}: column {name!r} must hold numbers ({error}).") from error
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"figure {figure!r}: column {name!r} is NaN or infinite in {bad.size} of {len(values)} rows, "
            f"first in {_describe(table, int(bad[0]))}. Compute it or leave the row out of the table."
        )


def require_known(values: Iterable[object], known: Sequence[object], *, what: str, figure: str) -> None:
    """Raises ValueError naming entries that are not among `known`."""
    unknown = sorted({str(value) for value in values if value not in known})
    if unknown:
        raise ValueError(
            f"figure {figure!r}: unknown {what} {', '.join(unknown)}. Known: {', '.join(map(str, known))}."
        )


def require_unique(table: DataFrame, key: Sequence[str], *, figure: str) -> None:
    """Raises ValueError where two rows share a key: two numbers for one mark."""
    twice = np.flatnonzero(table.duplicated(list(key)).to_numpy())
    if twice.size:
        row = _describe(table, int(twice[0]))
        raise ValueError(f"figure {figure!r}: {row} repeats {', '.join(key)}. Filter the table to one row per mark.")


def only_value(table: DataFrame, column: str, *, figure: str, default: object = None) -> Any:
    """The one value of a column that must not vary, or `default` where the column is absent.

    Raises:
        ValueError: the column holds several values, so that no single caption is true of the figure.
    """
    if column not in table.columns:
        return default
    values = [value for value in table[column].unique() if not is_absent(value)]
    if len(values) > 1:
        listed = ", ".join(map(str, values[:5]))
        raise ValueError(
            f"figure {figure!r}: column {column!r} must hold one value, it holds {listed}. Draw one figure for each."
        )
    return values[0] if values else default


def metric_name(table: DataFrame, figure: str, default: str | None = None) -> str:
    """The one metric of a table as it is written: `AUROC` for `auroc`, spaces for underscores."""
    name = str(only_value(table, "metric", figure=figure, default=default))
    return {"auroc": "AUROC"}.get(name, name.replace("_", " "))


def at_site(table: DataFrame, *, figure: str) -> str:
    """` at the step lookup`: the one decision site of a table; nothing of a task that names none."""
    site = only_value(table, "decision_site", figure=figure)
    return "" if is_absent(site) else f" at the {str(site).replace('_', ' ')}"


def interval_kind(table: DataFrame, *, figure: str, column: str = "interval") -> str:
    """Which interval was computed, in words, from its column; rows that say "none: ..." do not count next to others.

    Raises:
        ValueError: the column is blank or holds several kinds.
    """
    is_one = ~table[column].astype(str).str.startswith("none: ") if column in table.columns else None
    kind = only_value(table[is_one] if is_one is not None and is_one.any() else table, column, figure=figure)
    if is_absent(kind):
        raise ValueError(f"figure {figure!r}: column {column} must name the interval that was computed.")
    return str(kind)


def records(table: DataFrame) -> list[Record]:
    """The rows as named tuples."""
    return list(table.itertuples())  # pyright: ignore[reportReturnType]


def is_absent(value: object) -> bool:
    """True for None, NaN and blank text: how a table represents a missing value."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def largest_of(row: Record, count: int, value: float, lo: float, hi: float, *, signed: bool = False) -> str:
    """An estimate that was picked as the largest of `count` rows, with the interval that holds for whichever it is."""
    from interp.stats import Estimate, picked_among

    groups = getattr(row, "n_groups", None)
    n_groups = int(row.n) if is_absent(groups) else int(groups)  # pyright: ignore[reportArgumentType]
    found = picked_among(Estimate(float(value), float(lo), float(hi), int(row.n), n_groups), count)
    text = format_estimate(found.value, found.lo, found.hi, n=found.n, signed=signed)
    return text if count == 1 else f"{text} (simultaneous over {count})"


def sample_size(table: DataFrame, *, figure: str) -> str:
    """`n = 96 pairs, 41 procedures`; a range where rows differ.

    Columns: `n`, and where present `n_groups`, `unit` (default `items`), `group_unit` (default `groups`).
    """
    unit = only_value(table, "unit", figure=figure, default="items")
    text = f"n = {_range(table['n'])} {unit}"
    if "n_groups" in table.columns and bool(table["n_groups"].notna().all()):
        unit = plural(str(only_value(table, "group_unit", figure=figure, default="groups")))
        text += f", {_range(table['n_groups'])} {unit}"
    return text


def provenance(table: DataFrame) -> str:
    """`engaged: Qwen2.5-7B; float32`, from the columns `model` (per `member` where there is one) and `dtype`."""
    parts = []
    if "model" in table.columns:
        keys = ["member", "model"] if "member" in table.columns else ["model"]
        pairs = table[keys].dropna().drop_duplicates()
        parts += [": ".join(map(str, row)) for row in pairs.itertuples(index=False)]
    if "dtype" in table.columns:
        parts += sorted({str(value) for value in table["dtype"].dropna()})
    return "; ".join(parts)


def sentences(*parts: str) -> str:
    """Parts joined as sentences; empty ones are left out."""
    return " ".join(part if part.endswith((".", "?", "!")) else part + "." for part in parts if part)


def _range(values: Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _describe(table: DataFrame, row: int) -> str:
    keys = [name for name in _NAMING if name in table.columns][:3]
    named = ", ".join(f"{name} {table[name].iloc[row]}" for name in keys)
    return f"row {row}" + (f" ({named})" if named else "")
