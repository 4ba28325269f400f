"""The panels of figure 01 and everything around the marks: names, counts, printed differences, legends, footnotes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.figures import canvas
from study.figures.dumbbell_rows import Row, bounds, control_words, controls, interval_kinds
from study.figures.style import LABEL, MEMBERS, NOTE, TICK, Width, colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_ROW = 0.23  # inches
_PAD, _GAP = 0.05, 0.34  # inches: outer margin; between the two panels, for two tick labels side by side
_AXIS, _LEGEND = 0.36, 0.17  # inches: ticks and label below the panels; one legend row above them


@dataclass(frozen=True)
class Panels:
    """The axes, and the inches given to the columns of text around them."""

    members: Axes
    difference: Axes | None
    labels: list[str]
    n_column: float
    value_column: float
    row_in: float
    stacked: bool
    own: bool

    @property
    def text(self) -> float:
        """Size of the row names: smaller where the rows of a composite are low."""
        return min(LABEL, max(0.66 * 72 * self.row_in, 5.5))

    @property
    def mark(self) -> float:
        """Marker size in points."""
        return max(min(4.0, 0.26 * 72 * self.row_in, 2.4 + 0.7 * self._inches), 2.6)

    @property
    def _inches(self) -> float:
        """Width of the axes of the members."""
        return self.members.get_position().width * canvas.figure_of(self.members).get_size_inches()[0]

    @property
    def narrow(self) -> bool:
        """True where the difference has room for two ticks only."""
        if self.difference is None:
            return False
        return self.difference.get_position().width * canvas.figure_of(self.difference).get_size_inches()[0] < 1.1

    @classmethod
    def on(cls, ax: Axes | tuple[Axes, Axes], rows: list[Row], table: DataFrame) -> Panels:
        """Panels of a composite: the caller has placed the axes."""
        members, difference = ax if isinstance(ax, tuple) else (ax, None)
        w, h = canvas.figure_of(members).get_size_inches()
        box = members.get_position()
        row_in = box.height * h / (rows[-1].y + 1.1)
        row_in = box.height * h / (rows[-1].y + 1.1 + _strip(table, row_in, box.width * w))
        apart = w * (difference.get_position().x0 - box.x0) if difference is not None else w
        stacked = _key_width(table, w) > apart
        labels = [row.label for row in rows]
        columns = (_n_column(rows), _value_column(rows))
        return cls(members, difference, labels, *columns, row_in=row_in, stacked=stacked, own=False)

    @classmethod
    def fitted(cls, rows: list[Row], table: DataFrame, notes: str, width: Width) -> Panels:
        """Axes on a new figure, sized from the text that stands around them."""
        total = width_in(width)
        labels = [
            canvas.wrap(row.label, size=LABEL, max_in=(0.25 if width == "icml" else 0.29) * total) for row in rows
        ]
        row_in = max(_ROW, 0.115 * max(label.count("\n") + 1 for label in labels) + 0.05)
        n_column = _n_column(rows)
        paired = any(row.diff is not None for row in rows)
        left = _PAD + max(canvas.widest(labels, size=LABEL), canvas.text_width("cell", size=NOTE)) + n_column
        gap, share = (0.24, 0.58) if width == "icml" else (_GAP, 0.69)
        value_column = _value_column(rows)
        room = total - left - _PAD - (value_column + gap if paired else 0.08)
        share = share if paired else 1.0
        foot = 0.11 * (notes.count("\n") + 1) + 0.06 if notes else 0.02
        tall = (rows[-1].y + 1.1 + _strip(table, row_in, share * room)) * row_in
        stacked = paired and _key_width(table, total) > share * room + gap
        figure = canvas.new_figure(total, foot + _AXIS + tall + (2 if stacked else 1) * _LEGEND + 0.08)
        members = canvas.axes_in(figure, left, foot + _AXIS, share * room, tall)
        difference = None
        if paired:
            difference = canvas.axes_in(figure, left + share * room + gap, foot + _AXIS, (1 - share) * room, tall)
        if notes:
            canvas.write(figure, _PAD, 0.05, notes, va="bottom", ha="left", linespacing=1.25)
        columns = (n_column, value_column)
        return cls(members, difference, labels, *columns, row_in=row_in, stacked=stacked, own=True)

    def finish(self, rows: list[Row], table: DataFrame) -> None:
        """Row names, counts, printed differences, verdict, legends: everything around the marks."""
        depth = rows[-1].y + 0.6 + _strip(table, self.row_in, self._inches)
        for ax in (self.members, self.difference):
            if ax is not None:
                canvas.bare(ax)
                ax.set_ylim(depth, -0.5)
                ax.set_yticks([])
        self._names(rows)
        self._rule(rows)
        self._control_label(table)
        self._legends(table)
        if self.difference is not None:
            self._differences(rows)

    def _names(self, rows: list[Row]) -> None:
        style: dict[str, Any] = {"fontsize": self.text, "ha": "right", "va": "center", "color": colour("ink")}
        for row, label in zip(rows, self.labels, strict=True):
            canvas.beside(self.members, row.y, row.n, dx=-0.06, **style)
            canvas.beside(self.members, row.y, label, dx=-self.n_column, linespacing=1.05, **style)
        header = {**style, "fontsize": NOTE, "color": colour("ink2"), "va": "bottom"}
        canvas.beside(self.members, -0.5, "n", dx=-0.06, **header)
        canvas.beside(self.members, -0.5, "cell", dx=-self.n_column, **header)

    def _rule(self, rows: list[Row]) -> None:
        if not rows[0].verdict or len(rows) == 1:
            return
        y = rows[1].y - 0.62
        for ax in (self.members, self.difference):
            if ax is not None:
                ax.plot([0, 1], [y, y], transform=ax.get_yaxis_transform(), color=colour("ink2"), linewidth=0.6)

    def _control_label(self, table: DataFrame) -> None:
        words = _control_text(table, self._inches)
        if not words:
            return
        level = float(controls(table).median())
        right = canvas.widest(words.split("\n"), size=NOTE) + 0.05 > (1 - _control_share(table)) * self._inches
        self.members.annotate(
            words,
            (level, self.members.get_ylim()[0]),
            xytext=(-3 if right else 3, 2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom",
            fontsize=NOTE,
            color=colour("ink2"),
            linespacing=1.1,
        )

    def _differences(self, rows: list[Row]) -> None:
        assert self.difference is not None
        for row in rows:
            canvas.beside(
                self.difference,
                row.y,
                row.diff_text,
                x=1,
                dx=0.06,
                fontsize=self.text,
                va="center",
                fontweight="bold" if row.significant else "normal",
                color=colour("ink" if row.significant else "ink2"),
            )
        if rows[0].verdict and self.row_in > 0.17:  # in lower rows only the caption has room for it
            plate = {"facecolor": colour("paper"), "edgecolor": "none", "pad": 0.8}
            style: dict[str, Any] = {"fontsize": NOTE, "ha": "right", "va": "center", "bbox": plate}
            end = self.value_column - (0.0 if self.own else 0.06)
            canvas.beside(self.difference, rows[0].y + 0.55, rows[0].verdict, x=1, dx=end, color=colour("ink"), **style)

    def _legends(self, table: DataFrame) -> None:
        entries = [canvas.key_entry(role, label) for role, label in _key(table, _page(self.members)).items()]
        canvas.legend_above(self.members, entries, lift=0.05 + _LEGEND * self.stacked)
        if self.difference is not None:
            entries = [
                canvas.key_entry("ink", "Holm p ≤ .05", shape="o"),
                canvas.key_entry("control", "n.s.", filled=False, shape="o"),
            ]
            canvas.legend_above(self.difference, entries, lift=0.05, right=self.stacked)


def _strip(table: DataFrame, row_in: float, inches: float) -> float:
    """Rows below the last one, for the label of the control's line."""
    lines = _control_text(table, inches).count("\n") + 1
    return max(0.6, (0.03 + 0.1 * lines) / row_in) if len(controls(table)) else 0.0


def _control_text(table: DataFrame, inches: float) -> str:
    """The words of the control's line, wrapped so that they stay on one side of it, inside axes of this width."""
    words = control_words(table)
    if not words:
        return ""
    share = _control_share(table)
    return canvas.wrap(words, size=NOTE, max_in=max(share, 1 - share) * inches - 0.08)


def _control_share(table: DataFrame) -> float:
    """Where the control's line stands between the left end of the axes (0) and the right (1)."""
    low, high = bounds(table)
    return (float(controls(table).median()) - low) / (high - low)


def _page(ax: Axes) -> float:
    return canvas.figure_of(ax).get_size_inches()[0]


def _key(table: DataFrame, page: float) -> dict[str, str]:
    """Label of each member in the legend: with its model where that fits into half the page."""
    roles = [role for role in MEMBERS if role in set(table["member"])]
    labels = {role: _member_label(role, table) for role in roles}
    wide = canvas.text_width("".join(labels.values()), size=TICK) + 0.4 * len(labels) > 0.5 * page
    return {role: role for role in roles} if wide else labels


def _key_width(table: DataFrame, page: float) -> float:
    labels = _key(table, page).values()
    return sum(canvas.text_width(label, size=TICK) + 0.31 for label in labels)


def footnotes(table: DataFrame, rows: list[Row], notes: dict[str, str], width: Width) -> str:
    """Notes of noisy cells and the kinds of interval, wrapped to the figure."""
    kind, diff_kind = interval_kinds(table, rows)
    bars = f"Bars: 95 % {kind}" + (f" (left), {diff_kind} (right)." if diff_kind else ".")
    text = "  ".join([f"{mark} {note.rstrip('.')}." for mark, note in notes.items()] + [bars])
    return canvas.wrap(text, size=NOTE, max_in=width_in(width) - 2 * _PAD)


def _member_label(role: str, table: DataFrame) -> str:
    """The member, with its model where members have different ones."""
    if "model" not in table.columns or table["model"].dropna().nunique() < 2:
        return role
    models = table.loc[table["member"] == role, "model"].dropna().unique()
    return f"{role}, {str(models[0]).rsplit('/', 1)[-1]}" if len(models) == 1 else role


def _n_column(rows: list[Row]) -> float:
    return canvas.widest([row.n for row in rows], size=LABEL) + 0.06 + 0.09


def _value_column(rows: list[Row]) -> float:
    return canvas.widest([row.diff_text for row in rows], size=LABEL, weight="bold") + 0.06
