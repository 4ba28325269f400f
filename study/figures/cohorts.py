"""Forest of a probe's metric by cohort, at the layer that was selected."""

from __future__ import annotations

from dataclasses import dataclass

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import reference, triple
from study.figures.mpl import Artist, Record
from study.figures.multiples import PAD, Panels, legend_over, padded
from study.figures.numbers import estimate_of, short
from study.figures.style import LABEL, NOTE, RULE_LINE, Width, colour, text_colour

FIGURE = "probe_cohorts"
_NUMBERS = "layer value lo hi null_lo null_hi chance n"
WHOLE = "all"
_SLOT = 0.135  # inches per mark of a row
_GAP = 0.08


@dataclass(frozen=True)
class _Cohorts:
    """The table, its checkpoints, and its cohorts from the top with their places in rows."""

    table: DataFrame
    curves: list[Curve]
    places: dict[str, float]
    chance: float
    metric: str

    @property
    def is_ruled(self) -> bool:
        return WHOLE in self.places and len(self.places) > 1

    @property
    def layers(self) -> str:
        each = {one.label: int(one.rows(self.table)["layer"].iloc[0]) for one in self.curves}
        if len(set(each.values())) == 1:
            return str(next(iter(each.values())))
        return ", ".join(f"{layer} ({name})" for name, layer in each.items())


def _read(table: DataFrame) -> _Cohorts:
    for name, rows in table.groupby("member", sort=False):
        if rows["layer"].nunique() > 1:
            listed = ", ".join(str(layer) for layer in sorted(rows["layer"].unique()))
            raise ValueError(
                f"figure {FIGURE!r}: {name} has rows at layers {listed}. The layer is chosen on DEV, before "
                "cohorts are examined: keep only its rows."
            )
    curves = curves_of(table, figure=FIGURE)
    value: dict[str, float] = {}
    for one in reversed(curves):  # by the value of the first checkpoint that has the cohort
        rows = one.rows(table)
        value |= dict(zip(rows["cohort"].astype(str), rows["value"], strict=True))
    order = sorted(value, key=lambda name: (name != WHOLE, -value[name]))
    below = 0.35 if order[0] == WHOLE else 0.0
    places = {name: index + below * (index > 0) for index, name in enumerate(order)}
    return _Cohorts(table, curves, places, float(table["chance"].iloc[0]), checks.metric_name(table, FIGURE))


def _draw(page: Page, of: _Cohorts) -> Axes:
    entries = [
        *(canvas.key_entry(one.role, one.label) for one in of.curves),
        canvas.key_entry("ink2", "not beyond its null", filled=False, shape="o"),
        canvas.patch_entry("null", "null, 95 %"),
        canvas.line_entry("ink2", f"chance {short(of.chance)}"),
    ]
    ax = page.axes(lambda: _axes(page.total, of, entries))
    _fit(ax, of)
    for index, one in enumerate(of.curves):
        shift = (index - (len(of.curves) - 1) / 2) * _SLOT / (_SLOT * len(of.curves) + 0.08)  # in rows
        for row in checks.records(one.rows(of.table)):
            _draw_row(page, ax, of, one, row, of.places[str(row.cohort)] + shift)
    for name, y in of.places.items():
        label = _label(name, canvas.figure_of(ax).get_size_inches()[0])
        canvas.beside(
            ax, y, label, dx=-_GAP, color=colour("ink"), fontsize=LABEL, ha="right", va="center", linespacing=1.05
        )
    if page.own:
        top, ink = ax.get_ylim()[1], colour("ink2")
        canvas.beside(ax, top, "value [95 %], n", x=1, dx=_GAP, fontsize=NOTE, va="bottom", color=ink)
    legend_over(Panels([ax], 1, own=page.own), entries, lift=0.16)
    return ax


def _axes(total: float, of: _Cohorts, entries: list[Artist]) -> Axes:
    names = [_label(name, total) for name in of.places]
    tall = (len(of.places) + 0.35 * of.is_ruled + 0.1) * (_SLOT * len(of.curves) + 0.08)
    above = 0.15 * canvas.legend_rows(entries, total - 2 * PAD) + 0.26
    values = [*(_value(row) for row in checks.records(of.table)), "value [95 %], n"]
    return canvas.row_axes(total, names, values, tall=tall, below=0.4, above=above, gap=_GAP)


def _label(name: str, total: float) -> str:
    return canvas.wrap(name, size=LABEL, max_in=0.28 * total)


def _value(row: Record) -> str:
    return f"{estimate_of(row)}, {int(row.n)}"


def _is_beyond(row: Record) -> bool:
    return bool(row.lo > row.null_hi or row.hi < row.null_lo)


def _fit(ax: Axes, of: _Cohorts) -> None:
    """Limits, lines to read against, and the name of the axis."""
    table = of.table
    ends = [table[name] for name in ("lo", "hi", "null_lo", "null_hi", "chance")]
    ax.set(ylim=(max(of.places.values()) + 0.55, -0.55), yticks=[], xlabel=f"{of.metric}, layer {of.layers}")
    ax.set_xlim(*padded([float(x) for column in ends for x in column], least=0.2))
    canvas.bare(ax)
    reference(ax, x=of.chance)
    if of.is_ruled:
        reference(ax, y=0.675, style="solid", linewidth=RULE_LINE)
    ax.xaxis.set_major_locator(canvas.locator(6))


def _draw_row(page: Page, ax: Axes, of: _Cohorts, one: Curve, row: Record, y: float) -> None:
    half = 0.5 / len(of.curves) * 0.8
    width = row.null_hi - row.null_lo
    canvas.box(ax, row.null_lo, y - half, width, 2 * half, face=colour("null"), linewidth=0, zorder=0)
    verdict = "beyond" if _is_beyond(row) else "not beyond"
    title = (
        f"{row.cohort}, {one.label}, layer {int(row.layer)}: {estimate_of(row)}, {verdict} the null, n = {int(row.n)}"
    )
    page.marks.estimate(ax, triple(row), y, one.role, f"{one.role}-{row.Index}", title, filled=_is_beyond(row))
    if page.own:
        shade = text_colour(one.role) if len(of.curves) > 1 else colour("ink")
        canvas.beside(ax, y, _value(row), x=1, dx=_GAP, fontsize=NOTE, va="center", color=shade)


def _caption(of: _Cohorts) -> Caption:
    split, target = (checks.only_value(of.table, name, figure=FIGURE) for name in ("split", "target"))
    where = f"in {len(of.places)} cohorts at layer {of.layers}" + (f" ({split})" if split else "")
    return Caption(
        what=f"{of.metric} of the probe{f' for {target}' if target else ''} {where}",
        reading=f"Rows by value of {of.curves[0].label}",
        n=f"{checks.sample_size(of.table, figure=FIGURE)} per cohort",
        interval=f"Bars: 95 % {checks.interval_kind(of.table, figure=FIGURE)}, point-wise",
        control=[
            "Grey: 95 % of the null of each row; hollow: the interval reaches into it",
            f"Dashed: chance, {short(of.chance)}",
        ],
    )


def _alt(of: _Cohorts) -> list[str]:
    parts = ["Forest plot by cohort"]
    for one in of.curves:
        rows = one.rows(of.table)
        each = checks.records(rows[rows["cohort"] != WHOLE] if (rows["cohort"] != WHOLE).any() else rows)
        low, high = min(each, key=lambda r: r.value), max(each, key=lambda r: r.value)
        count = f"{sum(map(_is_beyond, each))} of {len(each)} cohorts beyond their null"
        ends = f"highest {high.cohort} {estimate_of(high)}, lowest {low.cohort} {estimate_of(low)}"
        parts.append(f"{one.label}: {count}, {ends}")
    return parts


_ROLES = Roles(
    f"cohort member metric n_groups interval {_NUMBERS}",
    finite=_NUMBERS,
    mark="cohort member",
    same="metric chance target split",
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=12, word="cohorts", read=_read)


def probe_cohorts(table: DataFrame, *, width: Width = "neurips", ax: Axes | None = None) -> Drawn:
    """The probe's metric in every cohort, such as perturbation types, at the layer chosen in advance.

    The row `all` stands first, ruled off; the others run by the value of the first checkpoint. Grey is the null of each
    row; a mark is hollow where its interval reaches into it.

    Args:
        table: TEST rows of the schema table `probes` at the selected layer: one per (cohort, member), with the null of
            each row.
        width, ax: as of `FigureSpec.drawn`.
    Raises:
        ValueError: a column is missing or holds NaN, a mark repeats, the metric or chance varies, or a checkpoint has
            several layers (the layer is chosen before the cohorts are looked at).
    Source: probes §A5 figure 6.
    """
    return SPEC.drawn(table, width=width, ax=ax)
