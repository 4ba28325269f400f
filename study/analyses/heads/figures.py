"""Figures of a head sweep, from its tables: `diptych heads`, the figures of a study, and notebooks draw with this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from study.figures import cumulative_ablation, head_difference, head_map, top_heads
from study.figures.drawn import Drawn
from study.figures.feed import Feed, draw_feeds
from study.figures.mpl import DataFrame
from study.figures.style import MEMBERS, Width


def main_metric(rows: DataFrame) -> str:
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


def map_rows(rows: DataFrame) -> DataFrame:
    """Rows of the main effect of single heads."""
    return rows[(rows["metric"] == main_metric(rows)) & rows["layer"].notna()]


def forest_rows(rows: DataFrame) -> DataFrame:
    """Rows of the main effect that have an interval and a control: a head alone in its layer has no control head, and
    one that changes every group by the same amount no interval."""
    has_all = rows[["control_value", "lo", "hi"]].notna().all(axis=1)
    return rows[(rows["metric"] == main_metric(rows)) & has_all]


def cumulative_rows(rows: DataFrame) -> DataFrame:
    """Rows of one member; only a member that has a colour of its own keeps its name."""
    return rows if set(rows["member"]) <= set(MEMBERS) else rows.drop(columns="member")


def with_sites(table: DataFrame) -> DataFrame:
    """The rows of decision sites that a member reaches; all rows of a task that names none."""
    if "decision_site" not in table:
        return table
    rows = table[table["n_reached"].fillna(1) > 0] if "n_reached" in table else table
    return rows.assign(decision_site=rows["decision_site"].fillna("").astype(str))


def at_strongest_site(table: DataFrame) -> DataFrame:
    """The rows of the decision site where the main effect of some single head is largest.

    Raises:
        ValueError: no member reaches any site.
    """
    table = with_sites(table)
    if not len(table):
        raise ValueError("no member reaches a decision site.")
    if "decision_site" not in table:
        return table
    rows = map_rows(table)
    size = rows["value"].abs().groupby(rows["decision_site"]).max()
    return table[table["decision_site"] == size.idxmax()]


FEEDS = (
    Feed("heads", head_map, "heads {member} {decision_site} {kind} {pairs} map", map_rows),
    Feed("heads_selected", top_heads, "heads {member} {decision_site} {kind} {pairs} top", forest_rows),
    Feed("heads_cumulative", cumulative_ablation, "heads {member} {decision_site} cumulative", cumulative_rows),
    Feed("heads_difference", head_difference, "heads_difference {decision_site} {kind}", map_rows),
)


def figures(
    tables: Mapping[str, DataFrame], *, width: Width | None = None, every_pair: bool = False
) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn): at every decision site a map and a forest of every sweep, the heads
    removed together of every member, the difference of the members.

    Args:
        width: width of every figure; None: its own default.
        every_pair: also of pairs that keep the answer and of pairs that the model solves; these are left to the tables
            otherwise.
    """
    own = {feed.table: with_sites(tables[feed.table]) for feed in FEEDS if feed.table in tables}
    main = {
        name: table if every_pair or "pairs" not in table else table[table["pairs"].isin(["all", "flip"])]
        for name, table in own.items()
    }
    return draw_feeds(FEEDS, main, width=width)
