"""Figure 01: where the members part, on the same items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.dumbbell_panels import Panels, footnotes
from study.figures.dumbbell_rows import FIGURE, Row, alt, bounds, caption, check, rows_of
from study.figures.marks import Marks, interval, point
from study.figures.numbers import MINUS, format_estimate, format_p
from study.figures.style import (
    REFERENCE_LINE,
    RULE_LINE,
    Width,
    colour,
    line,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def dumbbell(
    table: DataFrame,
    *,
    width: Width = "full",
    ax: Axes | tuple[Axes, Axes] | None = None,
) -> Drawn:
    """Accuracy of the members per cell, joined, and the paired difference with its own interval beside it.

    Rows run by the paired difference, largest first (by value where only one member was measured). The cell with a
    `tost_verdict` is the training distribution: first row, ruled off, with its verdict. A difference is filled where
    its Holm p ≤ .05.

    Args:
        table: one row per (cell, member): `cell, member, value, lo, hi, n`; of the pair, repeated in the rows of a
            cell: `diff, diff_lo, diff_hi, p_holm` (blank where the pair was not measured); `tost_verdict` and `note`
            (blank for most cells); the kinds of interval, `interval` and `diff_interval`. Optional: `metric`
            (default accuracy), `chance` with `chance_label`, `model`, `dtype`, `n_groups`, `unit`, `group_unit`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite: a pair (members, difference), or one for the members alone.
    Returns:
        The figure; its rows are the whole table.
    Raises:
        ValueError: a column is missing or holds NaN, a member is unknown, a (cell, member) is repeated, more than one
            cell has an equivalence verdict, or rows of one cell disagree on their difference.
    Source: FIGURES 01; the verdict replaces the overlap band of procedural §4.3.
    """
    check(table)
    rows, notes = rows_of(table)
    marks = Marks()
    with styled():
        foot = footnotes(table, notes, width)
        panel = Panels.fitted(rows, table, foot, width) if ax is None else Panels.on(ax, rows, table)
        _draw_members(panel.members, rows, table, marks, size=panel.mark)
        if panel.difference is not None:
            _draw_differences(panel.difference, rows, marks, size=panel.mark, narrow=panel.narrow)
        panel.finish(rows, table)
    return Drawn(
        canvas.figure_of(panel.members), table.copy(), caption(table, rows, notes), alt(rows, table), marks.titles
    )


def _draw_members(ax: Axes, rows: list[Row], table: DataFrame, marks: Marks, *, size: float) -> None:
    low, high = bounds(table)
    pad = 0.02 * (high - low)
    ax.set_xlim(low - pad, high + pad)
    ax.spines["bottom"].set_bounds(low, high)
    ax.hlines([row.y for row in rows], low, high, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    counter = 0
    for row in rows:
        joined = [row.by_member[role].value for role in ("engaged", "heuristic") if role in row.by_member]
        ax.plot(
            joined,
            [row.y] * len(joined),
            color=colour("ink2" if row.significant else "control"),
            linewidth=0.8,
            zorder=2,
            solid_capstyle="butt",
        )
        for shift, (role, est) in zip(_shifts(len(row.by_member)), row.by_member.items(), strict=True):
            interval(ax, (est.lo, est.hi), row.y + shift, role)
            mark = point(ax, est.value, row.y + shift, role, size=size)
            text = format_estimate(est.value, est.lo, est.hi, n=int(est.n))
            marks.name(mark, f"{counter}", f"{row.cell}, {role}: {text}, n = {int(est.n)}")
            counter += 1
    _draw_chance(ax, rows, table)
    ax.xaxis.set_major_locator(canvas.locator(6))
    ax.set_xlabel(str(checks.only_value(table, "metric", figure=FIGURE, default="accuracy")))


def _draw_differences(ax: Axes, rows: list[Row], marks: Marks, *, size: float, narrow: bool) -> None:
    shown = [row for row in rows if row.diff is not None]
    edges = [edge for row in shown for edge in (row.diff.diff_lo, row.diff.diff_hi)]  # pyright: ignore[reportOptionalMemberAccess]
    low, high = min([0.0, *edges]), max([0.0, *edges])
    pad = 0.06 * max(high - low, 0.05)
    ax.set_xlim(low - pad, high + pad)
    ax.hlines([row.y for row in shown], low - pad, high + pad, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    ax.axvline(0, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    for index, row in enumerate(shown):
        diff, role = row.diff, "ink" if row.significant else "control"
        assert diff is not None
        interval(ax, (diff.diff_lo, diff.diff_hi), row.y, role)
        mark = point(ax, diff.diff, row.y, role, filled=row.significant, marker="o", size=size)
        text = format_estimate(diff.diff, diff.diff_lo, diff.diff_hi, n=int(diff.n), signed=True)
        title = f"{row.cell}, engaged {MINUS} heuristic: {text}, Holm p {_equals(format_p(diff.p_holm))}"
        marks.name(mark, f"diff-{index}", title)
    ax.set_xlabel(f"engaged {MINUS} heuristic")
    ax.xaxis.set_major_locator(canvas.locator(2 if narrow else 4))


def _draw_chance(ax: Axes, rows: list[Row], table: DataFrame) -> None:
    """One line where the chance level is common to all cells, a dash per row where it is not."""
    if "chance" not in table.columns:
        return
    by_cell = table.dropna(subset=["chance"]).groupby("cell", sort=False)["chance"].first()
    style: dict[str, Any] = {"color": colour("ink2"), "linewidth": REFERENCE_LINE, "zorder": 1}
    if by_cell.nunique() == 1 and len(by_cell) == len(rows):
        ax.axvline(float(by_cell.iloc[0]), linestyle=line("chance"), **style)
    else:
        for row in rows:
            if row.cell in by_cell.index:
                ax.vlines(by_cell[row.cell], row.y - 0.38, row.y + 0.38, linestyle=(0, (3, 1.5)), **style)


def _shifts(count: int) -> list[float]:
    """Offsets in rows that keep the bars of one row apart."""
    step = {1: 0.0, 2: 0.3, 3: 0.26}[count]
    return [step * (index - (count - 1) / 2) for index in range(count)]


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
