"""Figures of a head sweep, from its tables: `diptych heads`, the figures of a study, and notebooks draw with this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from study.figures.drawn import rows_by, stem, tried

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn
    from study.figures.style import Width


def figures(
    tables: Mapping[str, pd.DataFrame], *, width: Width = "icml", every_pair: bool = False
) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn): a map and a forest of every sweep, the heads removed together of every
    member, the difference of the members.

    Args:
        every_pair: also of pairs that keep the answer and of pairs that the model solves; these are left to the tables
            otherwise.
    """
    from study.figures import cumulative_ablation, head_difference, head_map, top_heads

    parts = (
        ("heads", "map", lambda rows: head_map(map_rows(rows), width=width)),
        ("heads_selected", "top", lambda rows: top_heads(forest_rows(rows), width=width)),
    )
    for name, word, draw in parts:
        for (member, kind, pairs), rows in rows_by(_shown(tables.get(name), every_pair), "member", "kind", "pairs"):
            yield stem("heads", member, kind, *pairs.split(", "), word), tried(partial(draw, rows))
    for (member,), rows in rows_by(tables.get("heads_cumulative"), "member"):
        name = stem("heads", member, "cumulative")
        yield name, tried(lambda rows=rows: cumulative_ablation(cumulative_rows(rows), width=width))
    for (kind,), rows in rows_by(tables.get("heads_difference"), "kind"):
        yield stem("heads_difference", kind), tried(lambda rows=rows: head_difference(map_rows(rows), width=width))


def main_metric(rows: pd.DataFrame) -> str:
    """The metric that a figure of these rows shows: the first main metric of `interp.heads.METRICS` that they have.

    Raises:
        ValueError: the rows have no main metric.
    """
    from interp.heads import METRICS

    names = [name for name, metric in METRICS.items() if metric.is_main]
    present = [name for name in names if (rows["metric"] == name).any()]
    if not present:
        raise ValueError(f"no metric out of {', '.join(names)}.")
    return present[0]


def map_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the main effect of single heads."""
    return rows[(rows["metric"] == main_metric(rows)) & rows["layer"].notna()]


def forest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the main effect that have an interval and a control: a head alone in its layer has no control head, and
    one that changes every group by the same amount no interval."""
    has_all = rows[["control_value", "lo", "hi"]].notna().all(axis=1)
    return rows[(rows["metric"] == main_metric(rows)) & has_all]


def cumulative_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one member; only a member that has a colour of its own keeps its name."""
    from study.figures.style import MEMBERS

    return rows if set(rows["member"]) <= set(MEMBERS) else rows.drop(columns="member")


def _shown(table: pd.DataFrame | None, every_pair: bool) -> pd.DataFrame | None:
    return table if table is None or every_pair else table[table["pairs"].isin(["all", "flip"])]
