"""Figures of dose curves, from their tables: `diptych steer`, the figures of a study, and notebooks draw with this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from study.figures.drawn import rows_by, stem, tried

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn
    from study.figures.style import Width


def figures(tables: Mapping[str, pd.DataFrame], *, width: Width = "full") -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn): the dose curves of every member and site.

    Of a folder of `diptych steer` also the bias plane, where the task has one, and the cosines of the directions of two
    members (`study.analyses.steering.tables.folder_tables`).
    """
    from study.figures import bias_plane, cosines, dose_response

    if "cosines" in tables:
        yield "steering-cosines", tried(lambda: cosines(tables["cosines"]))
    for (member, site), rows in rows_by(tables.get("steering"), "member", "site"):
        yield stem("steering", member, site), tried(lambda rows=rows: dose_response(dose_rows(rows), width=width))
    for (member, site), rows in rows_by(tables.get("plane"), "of_member", "site"):
        drawn = tried(lambda rows=rows: bias_plane(rows.drop(columns="of_member")))
        yield stem("steering", member, site, "plane"), drawn


def dose_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one member and site without the scores that nothing changes; these are left to the table."""
    spread = rows.groupby("metric")["value"].agg(lambda values: values.max() - values.min())
    moving = [name for name in rows["metric"].unique() if spread[name] > 1e-6] or [rows["metric"].iloc[0]]
    return rows[rows["metric"].isin(moving)]
