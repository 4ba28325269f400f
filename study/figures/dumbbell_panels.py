"""The panels of figure 01 and everything around the marks: names, counts, printed differences, legends, footnotes."""

from __future__ import annotations

from dataclasses import dataclass

from study.figures import canvas
from study.figures.dumbbell_rows import Dumbbell, Row
from study.figures.frame import Page
from study.figures.mpl import Axes, DataFrame, Style
from study.figures.style import LABEL, MEMBERS, NOTE, TICK, colour

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
        return canvas.size_of(self.members)[0]

    @property
    def narrow(self) -> bool:
        """True where the difference has room for two ticks only."""
        return self.difference is not None and canvas.size_of(self.difference)[0] < 1.1

    @classmethod
    def on(cls, given: tuple[Axes, ...], of: Dumbbell) -> Panels:
        """Panels of a composite: the caller has placed the axes."""
        members, difference = (*given, None)[:2]
        assert members is not None
        w = canvas.figure_of(members).get_size_inches()[0]
        wide, tall = canvas.size_of(members)
        row_in = tall / (of.rows[-1].y + 1.1)
        row_in = tall / (of.rows[-1].y + 1.1 + _strip(of, row_in, wide))
        apart = w if difference is None else w * (difference.get_position().x0 - members.get_position().x0)
        stacked = _key_width(of.table, w) > apart
        columns = (_n_column(of.rows), _value_column(of.rows))
        return cls(members, difference, [row.label for row in of.rows], *columns, row_in, stacked, own=False)

    @classmethod
    def fitted(cls, of: Dumbbell, page: Page) -> Panels:
        """Axes on a new figure, sized from the text that stands around them."""
        total, rows, narrow = page.total, of.rows, page.width == "icml"
        labels = [canvas.wrap(row.label, size=LABEL, max_in=(0.25 if narrow else 0.29) * total) for row in rows]
        row_in = max(_ROW, 0.115 * max(label.count("\n") + 1 for label in labels) + 0.05)
        n_column, value_column, paired = _n_column(rows), _value_column(rows), of.paired > 0
        left = _PAD + max(canvas.widest(labels, size=LABEL), canvas.text_width("cell", size=NOTE)) + n_column
        gap, share = (0.24, 0.58) if narrow else (_GAP, 0.69)
        room = total - left - _PAD - (value_column + gap if paired else 0.08)
        share = share if paired else 1.0
        notes = canvas.wrap(_footnotes(of), size=NOTE, max_in=total - 2 * _PAD)
        bottom = 0.11 * (notes.count("\n") + 1) + 0.06 + _AXIS
        tall = (rows[-1].y + 1.1 + _strip(of, row_in, share * room)) * row_in
        stacked = paired and _key_width(of.table, total) > share * room + gap
        figure = canvas.new_figure(total, bottom + tall + (2 if stacked else 1) * _LEGEND + 0.08)
        members = canvas.axes_in(figure, left, bottom, share * room, tall)
        beside = (left + share * room + gap, bottom, (1 - share) * room, tall)
        difference = canvas.axes_in(figure, *beside) if paired else None
        canvas.write(figure, _PAD, 0.05, notes, va="bottom", ha="left", linespacing=1.25)
        return cls(members, difference, labels, n_column, value_column, row_in, stacked, own=True)

    def finish(self, of: Dumbbell) -> None:
        """Row names, counts, printed differences, verdict, legends: everything around the marks."""
        depth = of.rows[-1].y + 0.6 + _strip(of, self.row_in, self._inches)
        for ax in (self.members, self.difference):
            if ax is not None:
                canvas.bare(ax)
                ax.set(ylim=(depth, -0.5), yticks=[])
        self._names(of.rows)
        self._rule(of.rows)
        self._control_label(of)
        self._legends(of.table)
        if self.difference is not None:
            self._differences(self.difference, of.rows)

    def _names(self, rows: list[Row]) -> None:
        style: Style = {"fontsize": self.text, "ha": "right", "va": "center", "color": colour("ink")}
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

    def _control_label(self, of: Dumbbell) -> None:
        words = _control_text(of, self._inches)
        if not words:
            return
        level = float(of.controls.median())
        is_right = canvas.widest(words.split("\n"), size=NOTE) + 0.05 > (1 - _control_share(of)) * self._inches
        by, ha = ((-3, 2), "right") if is_right else ((3, 2), "left")
        style: Style = {"va": "bottom", "fontsize": NOTE, "color": colour("ink2"), "linespacing": 1.1}
        canvas.note(self.members, level, self.members.get_ylim()[0], words, "data", by, ha=ha, **style)

    def _differences(self, ax: Axes, rows: list[Row]) -> None:
        for row in rows:
            weight, role = ("bold", "ink") if row.significant else ("normal", "ink2")
            style: Style = {"fontsize": self.text, "va": "center", "fontweight": weight, "color": colour(role)}
            canvas.beside(ax, row.y, row.diff_text, x=1, dx=0.06, **style)
        if rows[0].verdict and self.row_in > 0.17:  # in lower rows only the caption has room for it
            plate = {"facecolor": colour("paper"), "edgecolor": "none", "pad": 0.8}
            style = {"fontsize": NOTE, "ha": "right", "va": "center", "bbox": plate, "color": colour("ink")}
            end = self.value_column - (0.0 if self.own else 0.06)
            canvas.beside(ax, rows[0].y + 0.55, rows[0].verdict, x=1, dx=end, **style)

    def _legends(self, table: DataFrame) -> None:
        page = canvas.figure_of(self.members).get_size_inches()[0]
        entries = [canvas.key_entry(role, label) for role, label in _key(table, page).items()]
        canvas.legend_above(self.members, entries, lift=0.05 + _LEGEND * self.stacked)
        if self.difference is not None:
            entries = [
                canvas.key_entry("ink", "Holm p ≤ .05", shape="o"),
                canvas.key_entry("control", "n.s.", filled=False, shape="o"),
            ]
            canvas.legend_above(self.difference, entries, lift=0.05, right=self.stacked)


def _strip(of: Dumbbell, row_in: float, inches: float) -> float:
    """Rows below the last one, for the label of the control's line."""
    lines = _control_text(of, inches).count("\n") + 1
    return max(0.6, (0.03 + 0.1 * lines) / row_in) if of.control else 0.0


def _control_text(of: Dumbbell, inches: float) -> str:
    """The words of the control's line, wrapped so that they stay on one side of it, inside axes of this width."""
    if not of.control:
        return ""
    share = _control_share(of)
    return canvas.wrap(of.control, size=NOTE, max_in=max(share, 1 - share) * inches - 0.08)


def _control_share(of: Dumbbell) -> float:
    """Where the control's line stands between the left end of the axes (0) and the right (1)."""
    low, high = of.bounds
    return (float(of.controls.median()) - low) / (high - low)


def _key(table: DataFrame, page: float) -> dict[str, str]:
    """Label of each member in the legend: with its model where that fits into half the page."""
    roles = [role for role in MEMBERS if role in set(table["member"])]
    labels = {role: _member_label(role, table) for role in roles}
    wide = canvas.text_width("".join(labels.values()), size=TICK) + 0.4 * len(labels) > 0.5 * page
    return {role: role for role in roles} if wide else labels


def _key_width(table: DataFrame, page: float) -> float:
    labels = _key(table, page).values()
    return sum(canvas.text_width(label, size=TICK) + 0.31 for label in labels)


def _footnotes(of: Dumbbell) -> str:
    """Notes of noisy cells and the kinds of interval."""
    kind, diff_kind = of.intervals
    bars = f"Bars: 95 % {kind}" + (f" (left), {diff_kind} (right)." if diff_kind else ".")
    return "  ".join([f"{mark} {note.rstrip('.')}." for mark, note in of.notes.items()] + [bars])


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
