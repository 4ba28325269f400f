"""From the tables of a run to its figures: which rows each figure is drawn from, and the names of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from study.figures.drawn import Drawn, rows_by, stem, tried
from study.figures.mpl import DataFrame, Style
from study.figures.style import Width


@dataclass(frozen=True)
class Feed:
    """A figure of a run, drawn once for every combination of the values of some columns of a table.

    Attributes:
        table: name of the table.
        draw:  figure function, as of `study.figures`.
        files: words of the names of its files; a column in braces stands for its values, each of which has a figure:
            "heads {member} {kind} map". A column that the table lacks is left out.
        rows:  rows of one figure -> rows as the figure reads them.
    """

    table: str
    draw: Callable[..., Drawn]
    files: str
    rows: Callable[[DataFrame], DataFrame] = lambda rows: rows

    def drawn(self, table: DataFrame, size: Style) -> Iterator[tuple[str, Drawn | str]]:
        """(stem, figure or why it was not drawn) of every combination."""
        words = [word for word in self.files.split() if not word.startswith("{") or word[1:-1] in table]
        columns = [word[1:-1] for word in words if word.startswith("{")]
        for values, rows in rows_by(table, *columns):
            of = dict(zip(columns, values, strict=True))
            parts = [part for word in words for part in of.get(word.strip("{}"), word).split(", ")]
            yield stem(*parts), tried(lambda rows=rows: self.draw(self.rows(rows), **size))


def draw_feeds(
    feeds: Iterable[Feed], tables: Mapping[str, DataFrame], *, width: Width | None = None
) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn) of everything that the tables allow, in the order of the feeds.

    Args:
        width: width of every figure; None: its own default.
    """
    size = {} if width is None else {"width": width}
    for feed in feeds:
        if feed.table in tables:
            yield from feed.drawn(tables[feed.table], size)
