"""Figure 01: where the members part, on the same items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.dumbbell_panels import Panels, footnotes
from study.figures.dumbbell_rows import FIGURE, Row, alt, bounds, caption, controls, parts_of, rows_of
from study.figures.marks import Marks, interval, point
from study.figures.numbers import MINUS, format_estimate, format_p
from study.figures.style import REFERENCE_LINE, RULE_LINE, Width, colour, line, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def dumbbell(table: DataFrame, *, width: Width = "full", ax: Axes | tuple[Axes, Axes] | None = None) -> Drawn:
    """Accuracy of the members per cell, joined, and the paired difference with its own interval beside it.

    Rows run by the paired difference, largest first (by value where only one member was measured). The cell with a
    verdict is the training distribution: first row, ruled off, with its verdict. A difference is filled where its
    Holm p ≤ .05.

    Args:
        table: rows of the table `pair`, of one prompt mode: one row per (cell, member), `member` being engaged,
            heuristic, base, or "engaged - heuristic" for the paired difference, whose `value` is blank where the pair
            was not measured. Columns `cell, member, value, lo, hi, n, interval`; of differences `p_adjusted`,
            `verdict` (drawn where `cell_role` is training) and `note`. Optional: `metric` (default accuracy),
            `control_value` with `control` (the dashed line), `cell_role`, `model`, `dtype`, `n_groups`, `unit`,
            `group_unit`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite: a pair (members, difference), or one for the members alone.
    Returns:
        The figure; its rows are the whole table.
    Raises:
        ValueError: a column is missing or holds NaN, a member is unknown, a (cell, member) is repeated, or more than
            one cell has an equivalence verdict.
    Source: FIGURES 01; the verdict replaces the overlap band of procedural §4.3.
    """
    members, _ = parts_of(table)
    rows, notes = rows_of(table)
    marks = Marks()
    with styled():
        foot = footnotes(members, rows, notes, width)
        panel = Panels.fitted(rows, members, foot, width) if ax is None else Panels.on(ax, rows, members)
        _draw_members(panel.members, rows, members, marks, size=panel.mark)
        if panel.difference is not None:
            _draw_differences(panel.difference, rows, marks, size=panel.mark, narrow=panel.narrow)
        panel.finish(rows, members)
    return Drawn(canvas.figure_of(panel.members), table.copy(), caption(members, rows, notes), alt(rows), marks.titles)


def _draw_members(ax: Axes, rows: list[Row], members: DataFrame, marks: Marks, *, size: float) -> None:
    low, high = bounds(members)
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
    _draw_control(ax, rows, members)
    ax.xaxis.set_major_locator(canvas.locator(6))
    ax.set_xlabel(str(checks.only_value(members, "metric", figure=FIGURE, default="accuracy")))


def _draw_differences(ax: Axes, rows: list[Row], marks: Marks, *, size: float, narrow: bool) -> None:
    shown = [row for row in rows if row.diff is not None]
    edges = [edge for row in shown for edge in (row.diff.lo, row.diff.hi)]  # pyright: ignore[reportOptionalMemberAccess]
    low, high = min([0.0, *edges]), max([0.0, *edges])
    pad = 0.06 * max(high - low, 0.05)
    ax.set_xlim(low - pad, high + pad)
    ax.hlines([row.y for row in shown], low - pad, high + pad, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    ax.axvline(0, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    for index, row in enumerate(shown):
        diff, role = row.diff, "ink" if row.significant else "control"
        assert diff is not None
        interval(ax, (diff.lo, diff.hi), row.y, role)
        mark = point(ax, diff.value, row.y, role, filled=row.significant, marker="o", size=size)
        text = format_estimate(diff.value, diff.lo, diff.hi, n=int(diff.n), signed=True)
        title = f"{row.cell}, engaged {MINUS} heuristic: {text}, Holm p {_equals(format_p(diff.p_adjusted))}"
        marks.name(mark, f"diff-{index}", title)
    ax.set_xlabel(f"engaged {MINUS} heuristic")
    ax.xaxis.set_major_locator(canvas.locator(2 if narrow else 4))


def _draw_control(ax: Axes, rows: list[Row], members: DataFrame) -> None:
    """One line where the control reaches the same in all cells, a dash per row where it does not."""
    levels = controls(members)
    style: dict[str, Any] = {"color": colour("ink2"), "linewidth": REFERENCE_LINE, "zorder": 1}
    if levels.nunique() == 1 and len(levels) == len(rows):
        ax.axvline(float(levels.iloc[0]), linestyle=line("chance"), **style)
    else:
        for row in rows:
            if row.name in levels.index:
                ax.vlines(levels[row.name], row.y - 0.38, row.y + 0.38, linestyle=(0, (3, 1.5)), **style)


def _shifts(count: int) -> list[float]:
    """Offsets in rows that keep the bars of one row apart."""
    step = {1: 0.0, 2: 0.3, 3: 0.26}[count]
    return [step * (index - (count - 1) / 2) for index in range(count)]


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
