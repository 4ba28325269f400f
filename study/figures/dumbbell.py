"""Figure 01: where the members part, on the same items."""

from __future__ import annotations

from study.figures import canvas
from study.figures.dumbbell_panels import Panels
from study.figures.dumbbell_rows import FIGURE, Dumbbell, Row, alt, caption, read
from study.figures.frame import Axes, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import reference, triple
from study.figures.mpl import Style
from study.figures.numbers import MINUS, estimate_of, p_equals
from study.figures.style import MEMBERS, REFERENCE_LINE, RULE_LINE, Width, colour
from study.schema import DIFFERENCE


def _draw(page: Page, of: Dumbbell) -> Axes:
    panels = Panels.fitted(of, page) if page.own else Panels.on(page.given, of)
    _draw_members(page, panels.members, of, size=panels.mark)
    if panels.difference is not None:
        _draw_differences(page, panels.difference, of.rows, size=panels.mark, narrow=panels.narrow)
    panels.finish(of)
    return panels.members


def _draw_members(page: Page, ax: Axes, of: Dumbbell, *, size: float) -> None:
    low, high = of.bounds
    pad = 0.02 * (high - low)
    ax.set_xlim(low - pad, high + pad)
    ax.spines["bottom"].set_bounds(low, high)
    ax.hlines([row.y for row in of.rows], low, high, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    counter = 0
    for row in of.rows:
        joined = [row.by_member[role].value for role in ("engaged", "heuristic") if role in row.by_member]
        shade: Style = {"color": colour("ink2" if row.significant else "control"), "linewidth": 0.8}
        ax.plot(joined, [row.y] * len(joined), zorder=2, solid_capstyle="butt", **shade)
        count = len(row.by_member)
        step = {1: 0.0, 2: 0.3, 3: 0.26}[count]  # rows that keep the bars of one row apart
        for index, (role, est) in enumerate(row.by_member.items()):
            title = f"{row.cell}, {role}: {estimate_of(est)}, n = {int(est.n)}"
            y = row.y + step * (index - (count - 1) / 2)
            page.marks.estimate(ax, triple(est), y, role, f"{counter}", title, size=size)
            counter += 1
    _draw_control(ax, of)
    ax.xaxis.set_major_locator(canvas.locator(6))
    ax.set_xlabel(of.metric)


def _draw_control(ax: Axes, of: Dumbbell) -> None:
    """One line where the control reaches the same in all cells, a dash per row where it does not."""
    levels = of.controls
    if levels.nunique() == 1 and len(levels) == len(of.rows):
        reference(ax, x=float(levels.iloc[0]))
        return
    style: Style = {"color": colour("ink2"), "linewidth": REFERENCE_LINE, "zorder": 1}
    for row in of.rows:
        if row.name in levels.index:
            ax.vlines(levels[row.name], row.y - 0.38, row.y + 0.38, linestyle=(0, (3, 1.5)), **style)


def _draw_differences(page: Page, ax: Axes, rows: list[Row], *, size: float, narrow: bool) -> None:
    shown = [(row, row.diff) for row in rows if row.diff is not None]
    low, high = min([0.0, *(diff.lo for _, diff in shown)]), max([0.0, *(diff.hi for _, diff in shown)])
    pad = 0.06 * max(high - low, 0.05)
    ax.set_xlim(low - pad, high + pad)
    ax.hlines([row.y for row, _ in shown], low - pad, high + pad, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    reference(ax, x=0)
    for index, (row, diff) in enumerate(shown):
        estimate = f"{estimate_of(diff, signed=True)}, Holm {p_equals(diff.p_adjusted)}"
        title = f"{row.cell}, engaged {MINUS} heuristic: {estimate}"
        role = "ink" if row.significant else "control"
        page.marks.estimate(
            ax, triple(diff), row.y, role, f"diff-{index}", title, filled=row.significant, marker="o", size=size
        )
    ax.set_xlabel(f"engaged {MINUS} heuristic")
    ax.xaxis.set_major_locator(canvas.locator(2 if narrow else 4))


_ROLES = Roles(
    "cell member value lo hi n interval p_adjusted verdict note",
    mark="cell member",
    known={"member": (*MEMBERS, DIFFERENCE)},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, caption, alt, rank=1, read=read)


def dumbbell(table: DataFrame, *, width: Width = "full", ax: Axes | tuple[Axes, Axes] | None = None) -> Drawn:
    """Accuracy of the members per cell, joined, and the paired difference with its own interval beside it.

    Rows run by the paired difference, largest first (by value where only one member was measured). The cell with a
    verdict is the training distribution: first row, ruled off, with its verdict. A difference is filled where its
    Holm p ≤ .05.

    Args:
        table: the schema table `pair`, of one prompt mode: one row per (cell, member), and of the paired difference,
            whose `value` is blank where the pair was not measured; its `verdict` is drawn in the training cell.
            Optional: `metric` (default accuracy), `control_value` with `control` (the dashed line), `cell_role`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite: a pair (members, difference), or one for the members alone.
    Returns:
        The figure; its rows are the whole table.
    Raises:
        ValueError: a column is missing or holds NaN, a member is unknown, a (cell, member) is repeated, or more than
            one cell has an equivalence verdict.
    Source: FIGURES 01; the verdict replaces the overlap band of procedural §4.3.
    """
    return SPEC.drawn(table, width=width, ax=ax)
