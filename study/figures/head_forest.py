"""Figure 06: how large the largest head effects are, how sure, and against what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.stats import rejects
from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.numbers import format_estimate, format_p
from study.figures.style import LABEL, NOTE, Width, colour, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "top_heads"
COLUMNS = ("head", "value", "lo", "hi", "control_value", "null_max95", "p_adjusted", "half", "n", "interval")
HALVES = ("select", "report")

_ROW, _PAD, _GAP = 0.18, 0.05, 0.08  # inches
_AXIS, _LEGEND = 0.36, 0.16
_VALUE = NOTE + 0.4


def top_heads(
    table: DataFrame,
    *,
    k: int = 12,
    always: Sequence[str] = (),
    width: Width = "icml",
    ax: Axes | None = None,
) -> Drawn:
    """The k largest head effects, each with interval, printed value, control head and max-over-heads null.

    Heads are chosen on the half `select` and drawn from the half `report`; a table that holds only `report` has been
    chosen from elsewhere and is cut by its own size. A head that was named beforehand is always a row,
    its name boxed. Bold ink is for heads beyond the null.

    Args:
        table:  one row per head and half: `head` (`L19.H17`), `value, lo, hi, n`, `control_value` (a norm-matched
            head), `null_max95` (95 % limit of the max-over-heads null), `p_adjusted`, `half`, `interval` (its kind).
            Optional: `named` (bool), `metric`, `metric_unit`, `n_groups`, `unit`, `group_unit`, `model`, `dtype`,
            `n_perm`.
        k:      rows, at least 1; heads of `always` and named heads come on top of these.
        always: heads that are a row whatever their size.
        width:  final width; unused where `ax` is given.
        ax:     axes of a composite.
    Returns:
        The figure; its rows are the drawn ones, of the half `report`.
    Raises:
        ValueError: a column is missing or holds NaN, a half is unknown, k < 1, or a head of `always` is not there.
    Source: FIGURES 06.
    """
    rows, named = _choose(table, k, always)
    marks = Marks()
    with styled():
        ax = _axes(rows, width) if ax is None else ax
        _draw(ax, rows, named, marks)
        _text(ax, rows, named)
    drawn = table.loc[sorted(rows.index)]
    return Drawn(canvas.figure_of(ax), drawn, _caption(rows, named, table), _alt(rows, named), marks.titles)


def _choose(table: DataFrame, k: int, always: Sequence[str]) -> tuple[DataFrame, set[str]]:
    numeric = ("value", "lo", "hi", "control_value", "null_max95", "p_adjusted", "n")
    checks.require(table, COLUMNS, figure=FIGURE, numeric=numeric)
    checks.require_known(table["half"], HALVES, what="half", figure=FIGURE)
    checks.require_unique(table, ("head", "half"), figure=FIGURE)
    if k < 1:
        raise ValueError(f"figure {FIGURE!r}: k = {k}; at least one head is drawn.")
    report = table[table["half"] == "report"]
    if len(report) == 0:
        raise ValueError(f"figure {FIGURE!r}: no row of half 'report'. Heads are reported where they were not chosen.")
    checks.require_known(always, list(report["head"]), what="head in always=", figure=FIGURE)
    named = set(report.loc[report["named"].astype(bool), "head"]) if "named" in report.columns else set()
    chosen_on = table[table["half"] == "select"] if bool((table["half"] == "select").any()) else report
    ranked = chosen_on.assign(size=chosen_on["value"].abs()).sort_values("size", ascending=False, kind="stable")
    chosen = {*ranked["head"].head(k), *always, *named}
    rows = report[report["head"].isin(chosen)]
    return rows.loc[rows["value"].abs().sort_values(ascending=False, kind="stable").index], named


def _axes(rows: DataFrame, width: Width) -> Axes:
    total = width_in(width)
    left = _PAD + canvas.widest(list(rows["head"]), size=LABEL, weight="bold") + _GAP
    right = _PAD + canvas.widest(_values(rows), size=_VALUE, weight="bold") + _GAP
    tall = (len(rows) + 0.2) * _ROW
    legend = _LEGEND * (2 if width == "icml" else 1)
    figure = canvas.new_figure(total, _PAD + _AXIS + tall + legend + 0.07)
    return canvas.axes_in(figure, left, _PAD + _AXIS, total - left - right, tall)


def _values(rows: DataFrame) -> list[str]:
    return [format_estimate(row.value, row.lo, row.hi, n=int(row.n)) for row in checks.records(rows)]


def _draw(ax: Axes, rows: DataFrame, named: set[str], marks: Marks) -> None:
    y = np.arange(len(rows))
    null = rows["null_max95"].to_numpy(dtype=float)
    edges = np.concatenate([[-0.6], y[:-1] + 0.5, [len(rows) - 0.4]])
    ax.stairs(null, edges, baseline=-null, orientation="horizontal", fill=True, color=colour("null"), zorder=0)
    ax.axvline(0, color=colour("ink2"), linewidth=0.7, zorder=1)
    for index, row in enumerate(checks.records(rows)):
        role = "ink" if rejects(row.p_adjusted) else "ink2"
        interval(ax, (row.lo, row.hi), index, role)
        point(ax, row.control_value, index, "control", filled=False, size=3.4, zorder=3.5)
        mark = point(ax, row.value, index, role, filled=bool(rejects(row.p_adjusted)), marker="s")
        text, p = format_estimate(row.value, row.lo, row.hi, n=int(row.n)), format_p(row.p_adjusted)
        control = f"control {row.control_value:.3g}".replace("-", "−")
        p = p if p.startswith("<") else f"= {p}"
        marks.name(mark, f"{index}", f"{row.head}: {text}, p {p}, {control}, n = {int(row.n)}")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.margins(x=0.04)
    canvas.bare(ax)
    metric = checks.only_value(rows, "metric", figure=FIGURE, default="effect")
    unit = checks.only_value(rows, "metric_unit", figure=FIGURE)
    ax.set_xlabel(", ".join([str(metric), *([str(unit)] if unit else [])]) + " (reported half)")


def _text(ax: Axes, rows: DataFrame, named: set[str]) -> None:
    """Names on the left, values on the right, the key above."""
    for index, (row, text) in enumerate(zip(checks.records(rows), _values(rows), strict=True)):
        beyond = bool(rejects(row.p_adjusted))
        shade = colour("ink" if beyond else "ink2")
        style: dict[str, Any] = {"va": "center", "fontweight": "bold" if beyond and row.head in named else "normal"}
        box = {
            "boxstyle": "square,pad=0.15",
            "facecolor": "none",
            "edgecolor": shade,
            "linewidth": 0.9 if beyond else 0.4,
        }
        name: dict[str, Any] = {**style, "bbox": box} if row.head in named else style
        canvas.beside(ax, index, row.head, dx=-_GAP, ha="right", fontsize=LABEL, color=shade, **name)
        canvas.beside(ax, index, text, x=1, dx=_GAP, ha="left", fontsize=_VALUE, color=shade, **style)
    entries = [
        canvas.key_entry("ink", "FWER p ≤ .05", shape="s"),
        canvas.key_entry("ink2", "n.s.", shape="s", filled=False),
        canvas.key_entry("control", "norm-matched control", filled=False, bar=False),
        canvas.patch_entry("null", "max-over-heads null, 95 %"),
    ]
    narrow = canvas.figure_of(ax).get_size_inches()[0] < 4
    canvas.legend_above(ax, entries, lift=0.05, columns=2 if narrow else 4, outdent=narrow)


def _caption(rows: DataFrame, named: set[str], table: DataFrame) -> str:
    kind = checks.interval_kind(rows, figure=FIGURE)
    chosen = "chosen on the other half" if bool((table["half"] == "select").any()) else "of the reported half"
    metric = checks.only_value(rows, "metric", figure=FIGURE, default="effect")
    return checks.sentences(
        f"The {len(rows)} heads with the largest {metric}, {chosen}, reported on held-out items",
        checks.sample_size(rows, figure=FIGURE),
        f"Bars: 95 % {kind}",
        "Filled: p ≤ .05, max-|t| over all heads; hollow: not",
        "△ norm-matched control head; grey: 95 % of the max-over-heads null",
        f"Box: named before the sweep ({', '.join(sorted(named))}), bold where beyond the null" if named else "",
        checks.provenance(rows),
    )


def _alt(rows: DataFrame, named: set[str]) -> str:
    records = checks.records(rows)
    first = records[0]
    beyond = sum(bool(rejects(row.p_adjusted)) for row in records)
    largest = format_estimate(first.value, first.lo, first.hi, n=int(first.n))
    text = f"Forest plot of {len(records)} heads: {beyond} beyond the null. Largest: {first.head} {largest}."
    for place, row in enumerate(records, start=1):
        if row.head in named:
            verdict = "beyond" if rejects(row.p_adjusted) else "within"
            estimate = format_estimate(row.value, row.lo, row.hi, n=int(row.n))
            text += f" Named head {row.head} {estimate}, place {place}, {verdict} the null."
    return text
