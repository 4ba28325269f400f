"""The frame of every figure: one check of its table, one page, one order of its caption, one form of its alt text.

A figure is a file with a `FigureSpec` and a function that calls `FigureSpec.drawn`:

    SPEC = FigureSpec("spread", Roles("cell value lo hi n interval", finite="value lo hi n", mark="cell"),
                      draw=_draw, caption=_caption, alt=_alt, rank=20)

    def spread(table, *, width="neurips", ax=None):
        return SPEC.drawn(table, width=width, ax=ax)

`_draw(page, table)` draws on axes of the page and returns one of them; `_caption(table)` returns a `Caption`;
`_alt(table)` returns sentences. A line in an analysis's `FEEDS` (`study.figures.feed`) has it drawn in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks
from study.figures.mpl import Artist, Axes, DataFrame
from study.figures.multiples import Panels, Room, given, legend_over, small_multiples
from study.figures.style import Width, styled, width_in
from study.schema import COLUMNS

__all__ = ["SPECS", "Axes", "Caption", "DataFrame", "Drawn", "FigureSpec", "Page", "Roles", "spec_of"]
T = TypeVar("T")
Words = str | Sequence[str]


@dataclass(frozen=True)
class Roles:
    """What the columns of a figure's table are for. Names are separated by spaces; their meaning is that of
    `study.schema.COLUMNS`.

    Attributes:
        needed: columns that must exist.
        finite: those that hold a finite number in every row.
        mark:   one row for each combination of their values, so that no mark has two numbers.
        same:   one value in the whole figure, where the column exists, so that one caption is true of all of it.
        known:  column -> the values that it may hold.
        within: column -> its bounds.
    """

    needed: str
    finite: str = ""
    mark: str = ""
    same: str = ""
    known: Mapping[str, Sequence[object]] = field(default_factory=dict)
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def check(self, table: DataFrame, *, figure: str) -> None:
        """Refuse a table that a figure cannot be drawn from.

        Raises:
            ValueError: a column is missing, the table is empty, a number is NaN or infinite, lo > hi, a value is
                unknown or out of bounds, a mark is repeated, or a column that must hold one value holds several.
        """
        checks.require(table, self.needed.split(), figure=figure, numeric=self.finite.split())
        for name, values in self.known.items():
            if name in table.columns:
                checks.require_known(table[name], values, what=name.replace("_", " "), figure=figure)
        for name, (low, high) in self.within.items():
            if name in table.columns and bool(((table[name] < low - 1e-9) | (table[name] > high + 1e-9)).any()):
                means = f" ({COLUMNS[name].means})" if name in COLUMNS else ""
                found = f"found {table[name].min():g} to {table[name].max():g}"
                raise ValueError(f"figure {figure!r}: column {name!r} must lie in {low:g} to {high:g}{means}, {found}.")
        for name in self.same.split():
            checks.only_value(table, name, figure=figure)
        if self.mark:
            checks.require_unique(table, self.mark.split(), figure=figure)


@dataclass(frozen=True)
class Caption:
    """The parts of a caption, written in this order; each is a sentence or several. The models and the dtype follow.

    Attributes:
        what:     what is drawn, of whom.
        reading:  how the marks are read, and in which order they stand.
        n:        items and independent groups.
        interval: which interval, or that there is none and why.
        control:  the null or control, the test against it and its correction.
        notes:    what else must be known.
        last:     the last sentence, after the models: what every figure of the task must say.
    """

    what: Words
    n: Words
    interval: Words
    control: Words
    reading: Words = ()
    notes: Words = ()
    last: str = ""

    def text(self, table: DataFrame) -> str:
        """The caption of a figure of this table."""
        first = (self.what, self.reading, self.n, self.interval, self.control, self.notes)
        parts = (*first, checks.provenance(table), self.last)
        return checks.sentences(*(one for part in parts for one in ([part] if isinstance(part, str) else part)))


@dataclass
class Page:
    """Where a figure is drawn: a page of its own of this width, or axes that the caller of a composite has placed."""

    name: str
    width: Width
    given: tuple[Axes, ...]
    marks: Marks = field(default_factory=Marks)

    @property
    def own(self) -> bool:
        return not self.given

    @property
    def total(self) -> float:
        """Width of a page of its own in inches."""
        return width_in(self.width)

    def axes(self, make: Callable[[], Axes]) -> Axes:
        """The axes of a figure with one panel: those given, or new ones."""
        return self.given[0] if self.given else make()

    def panels(
        self,
        titles: Sequence[str],
        *,
        tall: float,
        room: Room,
        entries: Sequence[Artist] = (),
        lift: float | None = None,
        most: int = 4,
        foot: float = 0.0,
    ) -> Panels:
        """One titled panel per title under one legend, on a page of its own or on the axes that were given.

        Args:
            lift: of the legend over given axes, in inches; None leaves room for a title.
        """
        if self.own:
            return small_multiples(titles, self.total, tall=tall, room=room, entries=entries, most=most, foot=foot)
        panels = given(self.given, titles, figure=self.name)
        if entries:
            legend_over(panels, entries, **({} if lift is None else {"lift": lift}))
        return panels


SPECS: dict[str, FigureSpec[Any]] = {}
"""Every figure by name, in the order in which their files are read."""


@dataclass(frozen=True)
class FigureSpec(Generic[T]):
    """A figure: which table it reads, how it is drawn, and what it says.

    Attributes:
        name:    of its function, and in its messages.
        roles:   of the columns of its table.
        draw:    draws on the page and returns one of the axes.
        caption, alt: its words; `alt` states what the picture is, then the finding with its numbers, by sentences.
        rank:    place among the figures of a block of the report, smallest first.
        word:    part of the names of its files, by which the report knows them; several with spaces; its name without.
        read:    (table, **options) -> what `draw`, `caption` and `alt` get, checked further; the table without it.
        rows:    the rows drawn, of what was read; the whole table without it.
    """

    name: str
    roles: Roles
    draw: Callable[[Page, T], Axes]
    caption: Callable[[T], Caption]
    alt: Callable[[T], Sequence[str]]
    rank: int
    word: str = ""
    read: Callable[..., T] | None = None
    rows: Callable[[T], DataFrame] | None = None

    def __post_init__(self) -> None:
        SPECS[self.name] = self

    def drawn(
        self, table: DataFrame, *, width: Width, ax: Axes | Sequence[Axes] | None = None, **options: Any
    ) -> Drawn:
        """The figure of a table.

        Args:
            width: final width; unused where `ax` is given.
            ax: axes of a composite, one per panel.
            options: of `read`.
        Raises:
            ValueError: the table lacks what the figure must show; nothing was drawn.
        """
        self.roles.check(table, figure=self.name)
        read: Any = table if self.read is None else self.read(table, **options)
        placed = () if ax is None else tuple(ax) if isinstance(ax, Sequence) else (ax,)
        with styled():
            page = Page(self.name, width, placed)
            shown = self.draw(page, read)
        rows = (table if self.rows is None else self.rows(read)).copy()
        alt = checks.sentences(*self.alt(read))
        return Drawn(canvas.figure_of(shown), rows, self.caption(read).text(_table_of(read)), alt, page.marks.titles)


def spec_of(stem: str) -> FigureSpec[Any] | None:
    """The figure that files of this name hold, by the last part of the name that is a word of one."""
    by_word = {word: spec for spec in SPECS.values() for word in (spec.word or spec.name).split()}
    return next((by_word[part] for part in reversed(stem.split("-")) if part in by_word), None)


def _table_of(read: Any) -> DataFrame:
    """The table that names the models: what was read, or its attribute `table`."""
    return getattr(read, "table", read)
