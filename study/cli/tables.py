"""`diptych tables`: the tidy tables of a run, printed or described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic.dataclasses import dataclass

from study.cli.common import takes
from study.option_types import Count
from study.options import STRICT, option

if TYPE_CHECKING:
    import pandas as pd

_KEYS = (
    "member", "cell", "mode", "target", "position", "site", "head", "kind", "pairs", "half", "arm", "alpha", "k",
    "split", "role", "variant", "metric",
)  # fmt: skip


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TablesOptions:
    """Which rows of which tables."""

    runs: tuple[Path, ...] = option(is_argument=True, metavar="RUN...")
    table: str | None = option(None, "Table to print in full; default: list the tables.")
    where: tuple[str, ...] = option(
        (), "Print only these rows, e.g. --where metric=accuracy.", metavar="COLUMN=VALUE", is_repeated=True
    )
    limit: Count = option(40, "Largest number of rows to print.")
    columns: bool = option(False, "Explain every column.")


@click.command()
@takes(TablesOptions)
def tables(options: TablesOptions) -> None:
    """Print the tables of RUN: value [95 % interval], n, control and p of every row.

    The files in RUN/tables are plain Parquet and CSV, which DuckDB, pandas and polars can read. Several runs are
    combined into one table: repeats over seeds with their spread, trained pairs as units of a random-effects interval.
    """
    from study.analyses.registry import analyses
    from study.combine import combine, combined_text
    from study.schema import COLUMNS, TABLES, read_table, read_tables

    analyses()  # declares the columns of other packages

    name, where, limit = options.table, options.where, options.limit
    if options.columns:
        click.echo("\n".join(f"{key:20} {column.means}" for key, column in COLUMNS.items()))
        return
    run, *others = options.runs
    if others:
        if name is None:
            raise ValueError("several runs: name the table that is combined, e.g. --table pair.")
        found = _chosen(combine(options.runs, name), where)
        click.echo(combined_text(found.head(limit)))
        _say_rest(len(found) - limit, "narrow it with --where.")
        return

    if name is None:
        found = read_tables(run)
        if not found:
            raise ValueError(f"{run}: no tables; expected a folder that `diptych study run ... --out` wrote.")
        for key, table in found.items():
            click.echo(f"{key:18} {len(table):6} rows  {TABLES.get(key, '')}")
        return
    table = _chosen(read_table(run, name), where)
    click.echo(_text(table.head(limit)))
    _say_rest(len(table) - limit, f"{run}/tables/{name}.csv holds them all.")


def _chosen(table: pd.DataFrame, where: tuple[str, ...]) -> pd.DataFrame:
    """Rows where every named column has the value."""
    for text in where:
        column, equals, value = text.partition("=")
        if not equals or column not in table.columns:
            raise ValueError(f"--where {text}: expected COLUMN=VALUE with a column out of {', '.join(table.columns)}.")
        table = table[table[column].map(_shown) == value]
    return table


def _say_rest(count: int, where: str) -> None:
    if count > 0:
        click.echo(f"... {count} more rows; --limit shows them, {where}")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(table: pd.DataFrame) -> str:
    """Rows with the keys that vary, then value, interval, n, control and p."""
    from study.run.attempt import clean
    from study.text import aligned, interval

    keys = [key for key in _KEYS if key in table and (table[key].nunique() > 1 or key == "metric")]
    lines = [[*keys, "value [95 %]", "n", "groups", "control", "p", "adjusted", "note"]]
    for row in table.to_dict("records"):
        known = row["value"] == row["value"]
        spread = interval(row["value"], row["lo"], row["hi"]) if known else "–"
        numbers = ["" if row[k] != row[k] else f"{row[k]:.0f}" for k in ("n", "n_groups")]
        control = "" if row["control_value"] != row["control_value"] else f"{row['control_value']:.3f} "
        ps = ["" if row[k] != row[k] else f"{row[k]:.2g}" for k in ("p", "p_adjusted")]
        named = [clean(_shown(row[key])) for key in keys]
        lines.append([*named, spread, *numbers, control + row["control"], *ps, clean(row["note"])[:80]])
    return aligned(lines)
