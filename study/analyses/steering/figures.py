"""Figures of dose curves, from their tables: `diptych steer`, the figures of a study, and notebooks draw with this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from study.analyses.steering.panels import panel_name
from study.figures import bias_plane, cosines, dose_response
from study.figures.drawn import Drawn
from study.figures.feed import Feed, draw_feeds
from study.figures.mpl import DataFrame
from study.figures.style import Width


def dose_rows(rows: DataFrame) -> DataFrame:
    """Rows of one member and site, scores by the names of their panels, without those that nothing changes."""
    spread = rows.groupby("metric")["value"].agg(lambda values: values.max() - values.min())
    moving = [name for name in rows["metric"].unique() if spread[name] > 1e-6] or [rows["metric"].iloc[0]]
    return rows[rows["metric"].isin(moving)].assign(metric=lambda kept: kept["metric"].map(panel_name))


FEEDS = (
    Feed("cosines", cosines, "steering cosines"),
    Feed("steering", dose_response, "steering {member} {at} {site}", dose_rows),
    Feed("plane", bias_plane, "steering {of_member} {site} plane", lambda rows: rows.drop(columns="of_member")),
)


def figures(tables: Mapping[str, DataFrame], *, width: Width | None = None) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn): the dose curves of every member and site.

    Of a folder of `diptych steer` also the bias plane, where the task has one, and the cosines of the directions of two
    members (`study.analyses.steering.tables.folder_tables`).

    Args:
        width: width of every figure; None: its own default.
    """
    levels = tables.get("steering")
    if levels is not None and "decision_site" in levels and levels["decision_site"].nunique() > 1:
        tables = {**tables, "steering": levels.assign(at=levels["decision_site"])}  # a word in the names of files
    return draw_feeds(FEEDS, tables, width=width)
