"""Rows of estimates, each beside its own control: accuracy per cell, per rule, or the parts of a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.numbers import fixed, format_estimate
from study.figures.style import LABEL, MEMBERS, NOTE, RULE_LINE, Width, colour, styled, text_colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "forest"
COLUMNS = ("cell", "value", "lo", "hi", "n", "control_value", "interval")
_ROW, _PAD, _GAP, _AXIS, _LEGEND = 0.19, 0.05, 0.08, 0.36, 0.2  # inches
_NAME = 1.9  # widest name before it is broken


def forest(table: DataFrame, *, width: Width = "neurips", ax: Axes | None = None) -> Drawn:
    """One row per cell with value, interval, n and the control beside it; filled where the interval excludes it.

    Args:
        table: one row per cell, or per cell and member: `cell` (its name), `value, lo, hi, n`, `control_value` (what a
            baseline without the skill reaches, or 0 of a change; blank where there is none), `interval` (its kind).
            Optional: `member` (engaged, heuristic, base; others are black), `metric`, `control` (its name),
            `is_difference` (a change: one value), `n_groups`, `unit`, `group_unit`, `title`, `banner` (put under the
            figure), `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite.
    Returns:
        The figure; its rows are the whole table, in its order.
    Raises:
        ValueError: a column is missing or holds NaN, a (cell, member) repeats, or more than three members.
    """
    members = _check(table)
    marks = Marks()
    with styled():
        ax = _axes(table, members, width) if ax is None else ax
        _draw(ax, table, members, marks)
        _words(ax, table, members)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table, members), _alt(table, members), marks.titles)


def _check(table: DataFrame) -> list[str]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("value", "lo", "hi", "n"))
    named = ["cell", "member"] if "member" in table.columns else ["cell"]
    checks.require_unique(table, named, figure=FIGURE)
    for name in ("metric", "control", "is_difference", "title", "banner"):
        checks.only_value(table, name, figure=FIGURE)
    members = list(dict.fromkeys(table["member"])) if "member" in table.columns else [""]
    if len(members) > 3:
        raise ValueError(f"figure {FIGURE!r}: at most three members in one figure, got {', '.join(members)}.")
    return members


def _signed(table: DataFrame) -> bool:
    return bool(checks.only_value(table, "is_difference", figure=FIGURE, default=False))


def _names(table: DataFrame) -> list[str]:
    return [canvas.wrap(str(cell), size=LABEL, max_in=_NAME) for cell in dict.fromkeys(table["cell"])]


def _texts(table: DataFrame) -> list[str]:
    signed = _signed(table)
    return [format_estimate(r.value, r.lo, r.hi, n=int(r.n), signed=signed) for r in checks.records(table)]


def _axes(table: DataFrame, members: list[str], width: Width) -> Axes:
    total = width_in(width)
    sizes = [f"{int(n)}" for n in table["n"]]
    left = _PAD + canvas.widest(_names(table), size=LABEL) + canvas.widest(sizes, size=NOTE) + 2.5 * _GAP
    right = _PAD + canvas.widest(_texts(table), size=NOTE + 0.4) + 1.5 * _GAP
    tall = (len(_names(table)) * len(members) + 0.3 * len(_names(table)) * (len(members) > 1) + 0.2) * _ROW
    foot = 0.14 if checks.only_value(table, "banner", figure=FIGURE) else 0.0
    figure = canvas.new_figure(total, _PAD + _AXIS + foot + tall + _LEGEND + 0.1)
    ax = canvas.axes_in(figure, left, _PAD + _AXIS + foot, total - left - right, tall)
    if foot:
        canvas.write(figure, 0.05, 0.05, str(checks.only_value(table, "banner", figure=FIGURE)), va="bottom", ha="left")
    return ax


def _places(table: DataFrame, members: list[str]) -> dict[tuple[Any, str], float]:
    """Height of every mark; members of a cell stand together, cells apart."""
    step = len(members) + 0.3 * (len(members) > 1)
    cells = list(dict.fromkeys(table["cell"]))
    return {(c, m): i * step + k for i, c in enumerate(cells) for k, m in enumerate(members)}


def _draw(ax: Axes, table: DataFrame, members: list[str], marks: Marks) -> None:
    at = _places(table, members)
    controls = [r.control_value for r in checks.records(table) if not checks.is_absent(r.control_value)]
    low, high = min([*table["lo"], *controls]), max([*table["hi"], *controls])
    low, high = (min(low, 0.0), max(high, 0.0)) if _signed(table) else (min(low, 0.0), max(high, 1.0))
    pad = 0.03 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(max(at.values()) + 0.6, -0.6), yticks=[])
    ax.hlines(list(at.values()), low, high, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    if _signed(table):
        ax.axvline(0, color=colour("ink2"), linewidth=0.7, zorder=1)
    canvas.bare(ax)
    ax.spines["bottom"].set_bounds(low, high)
    for k, (row, text) in enumerate(zip(checks.records(table), _texts(table), strict=True)):
        member = str(getattr(row, "member", ""))
        y, role = at[row.cell, member], _role(member)
        interval(ax, (row.lo, row.hi), y, role)
        words = f"{row.cell}{', ' if member else ''}{member}: {text}, n = {int(row.n)}"
        beyond = True
        if not checks.is_absent(row.control_value):
            beyond = not row.lo <= row.control_value <= row.hi
            if not _signed(table):
                point(ax, row.control_value, y, "base", filled=False, marker="s", size=3.4, zorder=3.5)
                words += f", control {row.control_value:.3g}"
        shape: dict[str, Any] = {} if role in MEMBERS else {"marker": "o"}
        marks.name(point(ax, row.value, y, role, filled=beyond, **shape), f"{k}", words)
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.set_xlabel(str(checks.only_value(table, "metric", figure=FIGURE, default="value")))


def _role(member: str) -> str:
    return member if member in MEMBERS else "ink"


def _words(ax: Axes, table: DataFrame, members: list[str]) -> None:
    """Names and n on the left, values on the right, the key above."""
    at, sizes = _places(table, members), [f"{int(n)}" for n in table["n"]]
    room = canvas.widest(sizes, size=NOTE) + 2 * _GAP
    style: dict[str, Any] = {"va": "center", "color": colour("ink")}
    for cell, name in zip(dict.fromkeys(table["cell"]), _names(table), strict=True):
        middle = sum(at[cell, m] for m in members) / len(members)
        canvas.beside(ax, middle, name, dx=-room, ha="right", fontsize=LABEL, linespacing=1.05, **style)
    for row, text, size in zip(checks.records(table), _texts(table), sizes, strict=True):
        member = str(getattr(row, "member", ""))
        y, shade = at[row.cell, member], text_colour(member) if member in MEMBERS else colour("ink")
        canvas.beside(ax, y, size, dx=-_GAP, ha="right", fontsize=NOTE, va="center", color=colour("ink2"))
        canvas.beside(ax, y, text, x=1, dx=_GAP, ha="left", fontsize=NOTE + 0.4, va="center", color=shade)
    canvas.beside(ax, -0.9, "n", dx=-_GAP, ha="right", fontsize=NOTE, va="center", color=colour("ink2"))
    entries = [canvas.key_entry(_role(m), m, shape="" if m in MEMBERS else "o") for m in members if m]
    if not _signed(table) and any(not checks.is_absent(c) for c in table["control_value"]):
        entries.append(canvas.key_entry("base", _control(table), filled=False, bar=False, shape="s"))
    if entries:
        canvas.legend_above(ax, entries, lift=0.05)


def _control(table: DataFrame) -> str:
    return str(checks.only_value(table, "control", figure=FIGURE, default="control"))


def _caption(table: DataFrame, members: list[str]) -> str:
    who = checks.only_value(table, "title", figure=FIGURE, default="") or " and ".join(m for m in members if m)
    metric = checks.only_value(table, "metric", figure=FIGURE, default="Value")
    kinds = " or ".join(dict.fromkeys(str(k) for k in table["interval"]))
    against = "0" if _signed(table) else "the control □"
    return checks.sentences(
        f"{metric}{' of ' + str(who) if who else ''}, by row",
        checks.sample_size(table, figure=FIGURE),
        f"Bars: 95 % {kinds}, no correction over rows",
        f"Filled: the interval excludes {against}; hollow: it does not",
        "" if _signed(table) else f"□ {_control(table)}",
        checks.provenance(table),
        str(checks.only_value(table, "banner", figure=FIGURE, default="") or ""),
    )


def _alt(table: DataFrame, members: list[str]) -> str:
    parts = []
    for row, text in zip(checks.records(table), _texts(table), strict=True):
        who = f" {row.member}" if members != [""] else ""
        control = "" if checks.is_absent(row.control_value) else f" against {fixed(row.control_value, 2)}"
        parts.append(f"{row.cell}{who} {text}{control}")
    return f"{len(table)} estimates. {'; '.join(parts)}."
