"""Figure 06: how large the largest head effects are, how sure, and against what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats import rejects
from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import point, reference, triple
from study.figures.mpl import Style
from study.figures.numbers import MINUS, estimate_of, p_equals
from study.figures.style import LABEL, NOTE, Width, colour

FIGURE = "top_heads"
_ROW, _GAP = 0.18, 0.08  # inches
_VALUE = NOTE + 0.4


@dataclass(frozen=True)
class _Chosen:
    """The heads that are drawn, largest first, the named ones among them, and where they were chosen."""

    table: DataFrame
    named: set[str]
    on_other_half: bool
    metric: str


def _read(table: DataFrame, *, k: int = 12, always: Sequence[str] = ()) -> _Chosen:
    if k < 1:
        raise ValueError(f"figure {FIGURE!r}: k = {k}; at least one head is drawn.")
    report, select = (table[table["half"] == half] for half in ("report", "select"))
    if len(report) == 0:
        raise ValueError(
            f"figure {FIGURE!r}: no row of half 'report'. Heads are reported on the half on which they were not chosen."
        )
    checks.require_known(always, list(report["head"]), what="head in always=", figure=FIGURE)
    named = set(report.loc[report["named"].astype(bool), "head"]) if "named" in report.columns else set()
    by_size = (select if len(select) else report).sort_values("value", key=abs, ascending=False, kind="stable")
    rows = report[report["head"].isin({*by_size["head"].head(k), *always, *named})]
    metric = str(checks.only_value(rows, "metric", figure=FIGURE, default="effect"))
    rows = rows.sort_values("value", key=abs, ascending=False, kind="stable")
    return _Chosen(rows, named, bool(len(select)), metric)


def _draw(page: Page, of: _Chosen) -> Axes:
    rows, values = checks.records(of.table), [estimate_of(row) for row in checks.records(of.table)]
    legend = 0.16 * (2 if page.width == "icml" else 1)
    size: Style = {"tall": (len(rows) + 0.2) * _ROW, "below": 0.41, "above": legend + 0.07}
    names = [row.head for row in rows]
    ax = page.axes(lambda: canvas.row_axes(page.total, names, values, size=_VALUE, weight="bold", gap=_GAP, **size))
    null = of.table["null_max95"].to_numpy(dtype=float)
    edges = np.concatenate([[-0.6], np.arange(len(rows) - 1) + 0.5, [len(rows) - 0.4]])
    ax.stairs(null, edges, baseline=-null, orientation="horizontal", fill=True, color=colour("null"), zorder=0)
    reference(ax, x=0, style="solid")
    for index, (row, text) in enumerate(zip(rows, values, strict=True)):
        beyond = bool(rejects(row.p_adjusted))
        control = f"control {row.control_value:.3g}".replace("-", MINUS)
        title = f"{row.head}: {text}, {p_equals(row.p_adjusted)}, {control}, n = {int(row.n)}"
        point(ax, row.control_value, index, "control", filled=False, size=3.4, zorder=3.5)
        role = "ink" if beyond else "ink2"
        page.marks.estimate(ax, triple(row), index, role, f"{index}", title, filled=beyond, marker="s")
        _write(ax, index, row.head, text, is_named=row.head in of.named, beyond=beyond)
    ax.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.margins(x=0.04)
    canvas.bare(ax)
    unit = checks.only_value(of.table, "metric_unit", figure=FIGURE)
    ax.set_xlabel(f"{of.metric}{f', {unit}' if unit else ''} (reported half)")
    _legend(ax)
    return ax


def _write(ax: Axes, y: float, head: str, text: str, *, is_named: bool, beyond: bool) -> None:
    """The name on the left, boxed where it was named in advance, and the value on the right."""
    shade = colour("ink" if beyond else "ink2")
    style: Style = {"va": "center", "fontweight": "bold" if beyond and is_named else "normal", "color": shade}
    frame = {
        "boxstyle": "square,pad=0.15",
        "facecolor": "none",
        "edgecolor": shade,
        "linewidth": 0.9 if beyond else 0.4,
    }
    boxed: Style = {"bbox": frame} if is_named else {}
    canvas.beside(ax, y, head, dx=-_GAP, ha="right", fontsize=LABEL, **style, **boxed)
    canvas.beside(ax, y, text, x=1, dx=_GAP, ha="left", fontsize=_VALUE, **style)


def _legend(ax: Axes) -> None:
    entries = [
        canvas.key_entry("ink", "FWER p ≤ .05", shape="s"),
        canvas.key_entry("ink2", "n.s.", shape="s", filled=False),
        canvas.key_entry("control", "norm-matched control", filled=False, bar=False),
        canvas.patch_entry("null", "max-over-heads null, 95 %"),
    ]
    narrow = canvas.figure_of(ax).get_size_inches()[0] < 4
    canvas.legend_above(ax, entries, lift=0.05, columns=2 if narrow else 4, outdent=narrow)


def _caption(of: _Chosen) -> Caption:
    chosen = "chosen on the other half" if of.on_other_half else "of the reported half"
    names, at = ", ".join(sorted(of.named)), checks.at_site(of.table, figure=FIGURE)
    return Caption(
        what=f"The {len(of.table)} heads with the largest {of.metric}{at}, {chosen}, reported on held-out items",
        reading=f"Box: named before the sweep ({names}), bold where beyond the null" if names else "",
        n=checks.sample_size(of.table, figure=FIGURE),
        interval=f"Bars: 95 % {checks.interval_kind(of.table, figure=FIGURE)}",
        control=[
            "Filled: p ≤ .05, max-|t| over all heads; hollow: not",
            "△ norm-matched control head; grey: 95 % of the max-over-heads null",
        ],
    )


def _alt(of: _Chosen) -> list[str]:
    rows = checks.records(of.table)
    beyond = sum(bool(rejects(row.p_adjusted)) for row in rows)
    text = f"Forest plot of {len(rows)} heads: {beyond} beyond the null"
    return [text, f"Largest: {rows[0].head} {estimate_of(rows[0])}"] + [
        f"Named head {row.head} {estimate_of(row)}, place {place}, "
        f"{'beyond' if rejects(row.p_adjusted) else 'within'} the null"
        for place, row in enumerate(rows, start=1)
        if row.head in of.named
    ]


_ROLES = Roles(
    "head value lo hi control_value null_max95 p_adjusted half n interval",
    finite="value lo hi control_value null_max95 p_adjusted n",
    mark="head half",
    known={"half": ("select", "report")},
)
SPEC = FigureSpec(
    FIGURE, _ROLES, _draw, _caption, _alt, rank=4, word="top", read=_read, rows=lambda of: of.table.sort_index()
)


def top_heads(
    table: DataFrame, *, k: int = 12, always: Sequence[str] = (), width: Width = "icml", ax: Axes | None = None
) -> Drawn:
    """The k largest head effects, each with interval, printed value, control head and max-over-heads null.

    Heads are chosen on the half `select` and drawn from the half `report`; a table that holds only `report` has been
    chosen from elsewhere and is cut by its own size. A head that was named in advance is always a row, its name boxed.
    Bold ink is for heads beyond the null.

    Args:
        table:  the schema table `heads_selected`, of one member, kind and metric. Optional: `named`.
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
    return SPEC.drawn(table, width=width, ax=ax, k=k, always=always)
