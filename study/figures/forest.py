"""Rows of estimates, each beside its own control: accuracy per cell, per rule, or the parts of a change."""

from __future__ import annotations

from dataclasses import dataclass

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import point, reference, triple
from study.figures.mpl import Record, Style
from study.figures.numbers import estimate_of, fixed
from study.figures.style import LABEL, MEMBERS, NOTE, RULE_LINE, Width, colour, text_colour

FIGURE = "forest"
_ROW, _GAP = 0.19, 0.08  # inches
_NAME = 1.9  # widest name before it is broken


@dataclass(frozen=True)
class _Forest:
    """The table, its rows with their text and height, and its members; "" where it has none."""

    table: DataFrame
    rows: list[Record]
    texts: list[str]
    members: list[str]
    signed: bool

    def one(self, column: str, default: str = "") -> str:
        return str(checks.only_value(self.table, column, figure=FIGURE, default=default) or "")

    @property
    def cells(self) -> list[str]:
        return list(dict.fromkeys(self.table["cell"]))

    @property
    def step(self) -> float:
        """Rows from cell to cell; the members of a cell stand together."""
        return len(self.members) + 0.3 * (len(self.members) > 1)

    def place(self, row: Record) -> float:
        return self.cells.index(row.cell) * self.step + self.members.index(_member(row))

    @property
    def controls(self) -> list[float]:
        return [row.control_value for row in self.rows if not checks.is_absent(row.control_value)]


def _read(table: DataFrame) -> _Forest:
    members = list(dict.fromkeys(table["member"])) if "member" in table.columns else [""]
    checks.require_unique(table, ("cell", "member") if members != [""] else ("cell",), figure=FIGURE)
    if len(members) > 3:
        raise ValueError(f"figure {FIGURE!r}: at most three members in one figure, got {', '.join(members)}.")
    rows = checks.records(table)
    signed = bool(checks.only_value(table, "is_difference", figure=FIGURE, default=False))
    return _Forest(table, rows, [estimate_of(row, signed=signed) for row in rows], members, signed)


def _member(row: Record) -> str:
    return str(getattr(row, "member", ""))


def _role(member: str) -> str:
    return member if member in MEMBERS else "ink"


def _draw(page: Page, of: _Forest) -> Axes:
    ax = page.axes(lambda: _axes(page.total, of))
    _fit(ax, of)
    for k, (row, text) in enumerate(zip(of.rows, of.texts, strict=True)):
        _draw_row(page, ax, of, row, text, f"{k}")
    sizes = canvas.widest([f"{int(row.n)}" for row in of.rows], size=NOTE)
    style: Style = {
        "va": "center",
        "ha": "right",
        "fontsize": LABEL,
        "linespacing": 1.05,
        "color": colour("ink"),
    }
    for index, cell in enumerate(of.cells):
        middle = index * of.step + (len(of.members) - 1) / 2
        canvas.beside(ax, middle, _wrapped(cell), dx=-sizes - 2 * _GAP, **style)
    canvas.beside(ax, -0.9, "n", dx=-_GAP, ha="right", fontsize=NOTE, va="center", color=colour("ink2"))
    entries = [canvas.key_entry(_role(m), m, shape="" if m in MEMBERS else "o") for m in of.members if m]
    if not of.signed and of.controls:
        entries.append(canvas.key_entry("base", of.one("control", "control"), filled=False, bar=False, shape="s"))
    if entries:
        canvas.legend_above(ax, entries, lift=0.05)
    return ax


def _axes(total: float, of: _Forest) -> Axes:
    tall = (len(of.cells) * of.step + 0.2) * _ROW
    sizes = canvas.widest([f"{int(row.n)}" for row in of.rows], size=NOTE)
    gaps: Style = {"gap": 1.5 * _GAP, "name_gap": sizes + 2.5 * _GAP, "size": NOTE + 0.4}
    banner = of.one("banner")
    names = [_wrapped(cell) for cell in of.cells]
    ax = canvas.row_axes(total, names, of.texts, tall=tall, below=0.41 + 0.14 * bool(banner), above=0.3, **gaps)
    if banner:
        canvas.write(canvas.figure_of(ax), 0.05, 0.05, banner, va="bottom", ha="left")
    return ax


def _wrapped(cell: object) -> str:
    return canvas.wrap(str(cell), size=LABEL, max_in=_NAME)


def _fit(ax: Axes, of: _Forest) -> None:
    places = [of.place(row) for row in of.rows]
    low, high = min([*of.table["lo"], *of.controls]), max([*of.table["hi"], *of.controls])
    low, high = min(low, 0.0), max(high, 0.0 if of.signed else 1.0)
    pad = 0.03 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(max(places) + 0.6, -0.6), yticks=[], xlabel=of.one("metric", "value"))
    ax.hlines(places, low, high, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    if of.signed:
        reference(ax, x=0, style="solid")
    canvas.bare(ax)
    ax.spines["bottom"].set_bounds(low, high)
    ax.xaxis.set_major_locator(canvas.locator(5))


def _draw_row(page: Page, ax: Axes, of: _Forest, row: Record, text: str, key: str) -> None:
    member, y = _member(row), of.place(row)
    title = f"{row.cell}{', ' if member else ''}{member}: {text}, n = {int(row.n)}"
    has_control = not checks.is_absent(row.control_value)
    if has_control and not of.signed:
        point(ax, row.control_value, y, "base", filled=False, marker="s", size=3.4, zorder=3.5)
        title += f", control {row.control_value:.3g}"
    style: Style = {"filled": not (has_control and row.lo <= row.control_value <= row.hi)}
    style |= {} if member in MEMBERS else {"marker": "o"}
    page.marks.estimate(ax, triple(row), y, _role(member), key, title, **style)
    shade = text_colour(member) if member in MEMBERS else colour("ink")
    canvas.beside(ax, y, f"{int(row.n)}", dx=-_GAP, ha="right", fontsize=NOTE, va="center", color=colour("ink2"))
    canvas.beside(ax, y, text, x=1, dx=_GAP, ha="left", fontsize=NOTE + 0.4, va="center", color=shade)


def _caption(of: _Forest) -> Caption:
    who = of.one("title") or " and ".join(m for m in of.members if m)
    kinds = " or ".join(dict.fromkeys(str(kind) for kind in of.table["interval"]))
    control = of.one("control", "control")
    return Caption(
        what=f"{of.one('metric', 'Value')}{' of ' + who if who else ''}, by row",
        n=checks.sample_size(of.table, figure=FIGURE),
        interval=f"Bars: 95 % {kinds}, no correction over rows",
        control=[
            f"Filled: the interval excludes {'0' if of.signed else 'the control □'}; hollow: it does not",
            "" if of.signed else f"□ {control}",
        ],
        last=of.one("banner"),
    )


def _alt(of: _Forest) -> list[str]:
    parts = []
    for row, text in zip(of.rows, of.texts, strict=True):
        who = f" {row.member}" if of.members != [""] else ""
        against = "" if checks.is_absent(row.control_value) else f" against {fixed(row.control_value, 2)}"
        parts.append(f"{row.cell}{who} {text}{against}")
    return [f"{len(of.rows)} estimates", "; ".join(parts)]


_ROLES = Roles(
    "cell value lo hi n control_value interval",
    finite="value lo hi n",
    same="metric control is_difference title banner",
)
SPEC = FigureSpec(
    FIGURE, _ROLES, _draw, _caption, _alt, rank=19, word="accuracy rules changes decomposition", read=_read
)


def forest(table: DataFrame, *, width: Width = "neurips", ax: Axes | None = None) -> Drawn:
    """One row per cell with value, interval, n and the control beside it; filled where the interval excludes it.

    Args:
        table: one row per cell, or per cell and member, in the columns of `study.schema`: `control_value` is what a
            baseline without the skill reaches, or 0 of a change; blank where there is none. Optional: `member` (black
            unless engaged, heuristic or base), `metric`, `control` (its name), `is_difference` (a change: one value),
            `title`, `banner` (put under the figure).
        width, ax: as of `FigureSpec.drawn`.
    Returns:
        The figure; its rows are the whole table, in its order.
    Raises:
        ValueError: a column is missing or holds NaN, a (cell, member) repeats, or more than three members.
    """
    return SPEC.drawn(table, width=width, ax=ax)
