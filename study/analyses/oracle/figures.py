"""Figures of what an oracle reads, from the schema tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from study.figures import oracle, oracle_confusion
from study.figures.drawn import Drawn
from study.figures.feed import Feed, draw_feeds
from study.figures.mpl import DataFrame
from study.figures.style import Width

FEEDS = (Feed("oracle", oracle, "oracle"), Feed("oracle_confusion", oracle_confusion, "confusion"))


def figures(tables: Mapping[str, DataFrame], *, width: Width | None = None) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure, or why it was not drawn) of the tables `oracle` and `oracle_confusion`, where they are given.

    Args:
        width: width of every figure; None: its own default.
    """
    return draw_feeds(FEEDS, tables, width=width)
