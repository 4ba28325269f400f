"""Forest of a probe's metric by cohort, at the layer that was selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.multiples import PAD, legend_over, padded
from study.figures.multiples import Panels as _Panels
from study.figures.numbers import format_estimate, short
from study.figures.style import (
    LABEL,
    NOTE,
    REFERENCE_LINE,
    RULE_LINE,
    Width,
    colour,
    line,
    styled,
    text_colour,
    width_in,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "probe_cohorts"
COLUMNS = (
    "cohort", "member", "layer", "metric", "value", "lo", "hi", "null_lo", "null_hi", "chance", "n", "n_groups",
    "interval"
)  # fmt: skip
WHOLE = "all"
_SLOT = 0.135  # inches per mark of a row
_GAP = 0.08


def probe_cohorts(table: DataFrame, *, width: Width = "neurips", ax: Axes | None = None) -> Drawn:
    """The probe's metric in every cohort, such as perturbation types, at the layer chosen beforehand.

    The row `all` stands first, ruled off; the others run by the value of the first checkpoint. Grey is the null of each
    row; a mark is hollow where its interval reaches into it.

    Args:
        table: one row per (cohort, member): `layer` (one per checkpoint), `metric`, `value, lo, hi`, `null_lo,
            null_hi` (95 % of the row's null), `chance`, `n`, `n_groups`, `interval` (its kind). Optional:
            `target`, `split`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite.
    Raises:
        ValueError: a column is missing or holds NaN, a mark repeats, the metric or chance varies, or a checkpoint has
            several layers (the layer is chosen before the cohorts are looked at).
    Source: probes §A5 figure 6.
    """
    curves = _check(table)
    order = _order(table, curves)
    marks = Marks()
    with styled():
        entries = _entries(curves, table)
        slot = _SLOT * len(curves) + 0.08
        own = ax is None
        ax = _axes(table, order, slot, entries, width) if ax is None else ax
        _draw(ax, table, curves, order, marks)
        _text(ax, table, curves, order, values=own)
        legend_over(_Panels([ax], 1, own=own), entries, lift=0.16)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table, curves, order), _alt(table, curves), marks.titles)


def _check(table: DataFrame) -> list[Curve]:
    numeric = ("layer", "value", "lo", "hi", "null_lo", "null_hi", "chance", "n")
    checks.require(table, COLUMNS, figure=FIGURE, numeric=numeric)
    for name in ("metric", "chance", "target", "split"):
        checks.only_value(table, name, figure=FIGURE)
    checks.require_unique(table, ("cohort", "member"), figure=FIGURE)
    for name, rows in table.groupby("member", sort=False):
        if rows["layer"].nunique() > 1:
            listed = ", ".join(str(layer) for layer in sorted(rows["layer"].unique()))
            raise ValueError(
                f"figure {FIGURE!r}: {name} has rows at layers {listed}. The layer is chosen on DEV, "
                "before cohorts are looked at: keep its rows."
            )
    return curves_of(table, figure=FIGURE)


def _order(table: DataFrame, curves: list[Curve]) -> list[str]:
    """Cohorts from the top: the whole first, then by the value of the first checkpoint that has them."""
    value: dict[str, float] = {}
    for one in reversed(curves):
        rows = one.rows(table)
        value |= dict(zip(rows["cohort"].astype(str), rows["value"], strict=True))
    return sorted(value, key=lambda name: (name != WHOLE, -value[name]))


def _axes(table: DataFrame, order: list[str], slot: float, entries: list[Any], width: Width) -> Axes:
    total = width_in(width)
    left = PAD + canvas.widest(_labels(order, total), size=LABEL) + _GAP
    right = PAD + canvas.widest([*_values(table), "value [95 %], n"], size=NOTE) + _GAP
    rule = 0.35 if WHOLE in order and len(order) > 1 else 0
    tall = (len(order) + rule + 0.1) * slot
    legend = 0.15 * canvas.legend_rows(entries, total - 2 * PAD) + 0.12
    figure = canvas.new_figure(total, 0.4 + tall + legend + 0.14)
    return canvas.axes_in(figure, left, 0.4, total - left - right, tall)


def _labels(order: list[str], total: float) -> list[str]:
    return [canvas.wrap(name, size=LABEL, max_in=0.28 * total) for name in order]


def _values(table: DataFrame) -> list[str]:
    return [f"{_estimate(row)}, {int(row.n)}" for row in checks.records(table)]


def _estimate(row: Any) -> str:
    return format_estimate(row.value, row.lo, row.hi, n=int(row.n))


def _places(order: list[str]) -> dict[str, float]:
    ruled = order[0] == WHOLE
    return {name: index + 0.35 * (ruled and index > 0) for index, name in enumerate(order)}


def _shift(index: int, count: int) -> float:
    """Offset in rows of one checkpoint's mark."""
    return (index - (count - 1) / 2) * _SLOT / (_SLOT * count + 0.08)


def _is_beyond(row: Any) -> bool:
    return bool(row.lo > row.null_hi or row.hi < row.null_lo)


def _draw(ax: Axes, table: DataFrame, curves: list[Curve], order: list[str], marks: Marks) -> None:
    from matplotlib.patches import Rectangle

    places = _places(order)
    ax.set_xlim(
        *padded([*table["lo"], *table["hi"], *table["null_lo"], *table["null_hi"], *table["chance"]], least=0.2)
    )
    ax.set_ylim(max(places.values()) + 0.55, -0.55)
    ax.set_yticks([])
    canvas.bare(ax)
    chance = float(table["chance"].iloc[0])
    ax.axvline(chance, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    half = 0.5 / len(curves) * 0.8
    for index, one in enumerate(curves):
        for row in checks.records(one.rows(table)):
            y = places[str(row.cohort)] + _shift(index, len(curves))
            style: dict[str, Any] = {"facecolor": colour("null"), "linewidth": 0, "zorder": 0}
            ax.add_patch(Rectangle((row.null_lo, y - half), row.null_hi - row.null_lo, 2 * half, **style))
            interval(ax, (row.lo, row.hi), y, one.role)
            mark = point(ax, row.value, y, one.role, filled=_is_beyond(row))
            verdict = "beyond" if _is_beyond(row) else "not beyond"
            marks.name(
                mark, f"{one.role}-{row.Index}",
                f"{row.cohort}, {one.label}, layer {int(row.layer)}: {_estimate(row)}, {verdict} the null, "
                f"n = {int(row.n)}"
            )  # fmt: skip
    if order[0] == WHOLE and len(order) > 1:
        ax.axhline(0.675, color=colour("ink2"), linewidth=RULE_LINE, zorder=1)
    ax.xaxis.set_major_locator(canvas.locator(6))
    ax.set_xlabel(f"{_metric(table)}, layer {_layers(table, curves)}")


def _layers(table: DataFrame, curves: list[Curve]) -> str:
    each = {one.label: int(one.rows(table)["layer"].iloc[0]) for one in curves}
    if len(set(each.values())) == 1:
        return str(next(iter(each.values())))
    return ", ".join(f"{layer} ({name})" for name, layer in each.items())


def _text(ax: Axes, table: DataFrame, curves: list[Curve], order: list[str], *, values: bool) -> None:
    """Names at the left, values with n at the right, each in the colour of its checkpoint."""
    places, total = _places(order), canvas.figure_of(ax).get_size_inches()[0]
    for name, label in zip(order, _labels(order, total), strict=True):
        style: dict[str, Any] = {
            "fontsize": LABEL,
            "ha": "right",
            "va": "center",
            "color": colour("ink"),
            "linespacing": 1.05,
        }
        canvas.beside(ax, places[name], label, dx=-_GAP, **style)
    if not values:
        return
    canvas.beside(
        ax, ax.get_ylim()[1], "value [95 %], n", x=1, dx=_GAP, fontsize=NOTE, va="bottom", color=colour("ink2")
    )
    for index, one in enumerate(curves):
        for row in checks.records(one.rows(table)):
            y = places[str(row.cohort)] + _shift(index, len(curves))
            shade = text_colour(one.role) if len(curves) > 1 else colour("ink")
            text = f"{_estimate(row)}, {int(row.n)}"
            canvas.beside(ax, y, text, x=1, dx=_GAP, fontsize=NOTE, va="center", color=shade)


def _entries(curves: list[Curve], table: DataFrame) -> list[Any]:
    return [
        *(canvas.key_entry(one.role, one.label) for one in curves),
        canvas.key_entry("ink2", "not beyond its null", filled=False, shape="o"),
        canvas.patch_entry("null", "null, 95 %"),
        canvas.line_entry("ink2", f"chance {short(float(table['chance'].iloc[0]))}"),
    ]


def _metric(table: DataFrame) -> str:
    name = str(checks.only_value(table, "metric", figure=FIGURE))
    return {"auroc": "AUROC"}.get(name, name.replace("_", " "))


def _caption(table: DataFrame, curves: list[Curve], order: list[str]) -> str:
    split, target = (checks.only_value(table, name, figure=FIGURE) for name in ("split", "target"))
    return checks.sentences(
        f"{_metric(table)} of the probe" + (f" for {target}" if target else "") + f" in {len(order)} cohorts at layer "
        + _layers(table, curves) + (f" ({split})" if split else ""),
        f"Rows by value of {curves[0].label}; {checks.sample_size(table, figure=FIGURE)} per cohort",
        f"Bars: 95 % {checks.interval_kind(table, figure=FIGURE)}, point-wise",
        "Grey: 95 % of the null of each row; hollow: the interval reaches into it",
        f"Dashed: chance, {short(float(table['chance'].iloc[0]))}",
        checks.provenance(table)
    )  # fmt: skip


def _alt(table: DataFrame, curves: list[Curve]) -> str:
    parts = []
    for one in curves:
        rows = one.rows(table)
        each = checks.records(rows[rows["cohort"] != WHOLE] if (rows["cohort"] != WHOLE).any() else rows)
        low, high = min(each, key=lambda r: r.value), max(each, key=lambda r: r.value)
        parts.append(
            f"{one.label}: {sum(map(_is_beyond, each))} of {len(each)} cohorts beyond their null, highest "
            f"{high.cohort} {_estimate(high)}, lowest {low.cohort} {_estimate(low)}"
        )
    return "Forest plot by cohort. " + ". ".join(parts) + "."
