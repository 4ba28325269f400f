"""Figure 03: whether a property is more decodable than an arbitrary label of the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.drawn import Drawn
from study.figures.labels import Labelled, label_lines
from study.figures.marks import Marks, curve, null_band, point
from study.figures.multiples import Panels, Room, common_x, given, legend_over, padded, share_y, small_multiples
from study.figures.numbers import MINUS, format_estimate
from study.figures.style import REFERENCE_LINE, Width, colour, styled, text_colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "selectivity"
COLUMNS = (
    "target", "member", "depth", "selectivity", "selectivity_lo", "selectivity_hi", "selectivity_null_hi", "n",
    "n_groups"
)  # fmt: skip
_ENDS = {"selectivity_lo": "lo", "selectivity_hi": "hi", "selectivity_null_hi": "null_hi"}
_APART = 0.085  # inches between marks, so that they stay marks


def selectivity(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Real minus control metric over relative depth, one panel per target, all on one scale.

    The band is the paired interval of the difference; grey is what one control label is better than another by. Marks
    stand only where the interval clears that null (where layers are dense, not on every such layer).

    Args:
        table: one row per (target, member, depth): `selectivity` with its paired `selectivity_lo, selectivity_hi`,
            `selectivity_null_hi` (95 % of control minus control; the null is symmetric), `n`, `n_groups`. Optional:
            `metric` (default AUROC), `layer` (shown on hover), `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per target.
    Raises:
        ValueError: a column is missing or holds NaN, a depth is outside 0 to 1, or a mark is repeated.
    Source: FIGURES 03; selectivity after Hewitt & Liang, arXiv 1909.03368.
    """
    numeric = tuple(name for name in COLUMNS if name not in ("target", "member", "n_groups"))
    checks.require(table, COLUMNS, figure=FIGURE, numeric=numeric)
    checks.require_unique(table, ("target", "member", "depth"), figure=FIGURE)
    if bool(((table["depth"] < 0) | (table["depth"] > 1)).any()):
        raise ValueError(f"figure {FIGURE!r}: column 'depth' must lie in 0 to 1: depth = (layer + 0.5) / n_layers.")
    rows = table.copy()
    table = table.drop(columns=["lo", "hi", "null_lo", "null_hi"], errors="ignore").rename(
        columns=_ENDS
    )  # not of value
    table = table.assign(null_lo=-table["null_hi"])
    checks.require(table, (), figure=FIGURE, numeric=("lo", "hi"))  # in ascending order
    curves, targets = curves_of(table, figure=FIGURE), [str(t) for t in table["target"].unique()]
    marks = Marks()
    with styled():
        entries = [canvas.patch_entry("null", "control-vs-control null, 95 %")]
        panels = (
            _panels(targets, [*_entries(curves), *entries], width) if ax is None else given(ax, targets, figure=FIGURE)
        )
        share_y(panels, *padded([0.0, *table["lo"], *table["hi"], *table["null_lo"], *table["null_hi"]], least=0.2))
        lines = [_draw(panel, curves, table, target, marks) for panel, target in zip(panels.axes, targets, strict=True)]
        if not _direct(panels, lines):
            entries = [*_entries(curves), *entries]
        legend_over(panels, entries)
        _name_axes(panels, table)
    shown = canvas.figure_of(panels.axes[0])
    return Drawn(shown, rows, _caption(table, curves, targets), _alt(table, curves, targets), marks.titles)


def _panels(targets: list[str], entries: list[Any], width: Width) -> Panels:
    total = width_in(width)
    room = Room(left=0.68, right=0.1, gap=0.14, bottom=0.4, between=0.24)
    return small_multiples(
        targets,
        total,
        tall=1.05 if width == "icml" else 1.2,
        room=room,
        entries=entries,
        most=2 if width == "icml" else 4,
    )


def _entries(curves: list[Curve]) -> list[Any]:
    return [canvas.line_entry(one.role, one.label, style=one.role, width=1.2) for one in curves]


def _draw(ax: Axes, curves: list[Curve], table: DataFrame, target: str, marks: Marks) -> list[Labelled]:
    """One panel; returns its lines, with the edges of their bands, for the direct labels."""
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], labels=["0", ".5", "1"])
    ax.axhline(0, color=colour("ink2"), linewidth=REFERENCE_LINE, zorder=1)
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0]
    lines = []
    for one in curves:
        rows = one.rows(table[table["target"] == target])
        if len(rows) == 0:
            continue
        null_band(ax, rows["depth"], rows["null_lo"], rows["null_hi"], half=0.05)
        drawn = curve(ax, rows["depth"], rows["selectivity"], rows["lo"], rows["hi"], one.role)
        words = ", ".join(f"{_where(row)} {_estimate(row)}" for row in checks.records(rows))
        marks.name(drawn, f"{_key(target)}-{one.role}", f"{target}, {one.label}: {words}")
        last = -1.0
        for row in checks.records(rows):
            if _clears(row) and (row.depth - last) * inches >= _APART:
                last = row.depth
                mark = point(ax, row.depth, row.selectivity, one.role, size=3.2)
                title = f"{target}, {one.label}, {_where(row)}: {_estimate(row)}, beyond the null"
                marks.name(mark, f"{_key(target)}-{one.role}-{row.Index}", title)
        shade = text_colour(one.role)
        lines.append(Labelled(list(rows["depth"]), list(rows["selectivity"]), one.label, shade, "bold"))
        lines += [Labelled(list(rows["depth"]), list(rows[edge]), "", shade) for edge in ("lo", "hi")]
    return lines


def _key(target: str) -> str:
    """A target as part of an id."""
    return "".join(c if c.isalnum() else "_" for c in target)


def _direct(panels: Panels, lines: list[list[Labelled]]) -> bool:
    """Names beside the lines of the last panel that has room for them; False where none has."""
    most = max(sum(bool(line.text) for line in own) for own in lines)
    for ax, own in list(zip(panels.axes, lines, strict=True))[::-1]:
        named = [line for line in own if line.text]
        if len(named) == most and label_lines(ax, named, avoid=[line for line in own if not line.text]):
            return True
    return False


def _clears(row: Any) -> bool:
    return bool(row.lo > row.null_hi or row.hi < row.null_lo)


def _where(row: Any) -> str:
    layer = getattr(row, "layer", None)
    return f"depth {row.depth:.2f}" if checks.is_absent(layer) else f"layer {int(layer)}"  # pyright: ignore[reportArgumentType]


def _estimate(row: Any) -> str:
    return format_estimate(row.selectivity, row.lo, row.hi, n=int(row.n), signed=True)


def _metric(table: DataFrame) -> str:
    name = str(checks.only_value(table, "metric", figure=FIGURE, default="AUROC"))
    return {"auroc": "AUROC"}.get(name, name.replace("_", " "))


def _name_axes(panels: Panels, table: DataFrame) -> None:
    for index, ax in enumerate(panels.axes):
        ax.tick_params(labelbottom=True)
        if panels.is_first(index):
            ax.set_ylabel(f"selectivity\n(real {MINUS} control {_metric(table)})", fontsize=6.5)
    common_x(panels, "relative depth  (layer + ½) / L")


def _caption(table: DataFrame, curves: list[Curve], targets: list[str]) -> str:
    from probes.metrics import INTERVALS

    return checks.sentences(
        f"Selectivity by relative depth for {', '.join(targets)} ({' and '.join(one.label for one in curves)}): "
        f"{_metric(table)} for the label {MINUS} {_metric(table)} for control labels of the same inputs",
        checks.sample_size(table, figure=FIGURE),
        f"Bands: point-wise 95 % {INTERVALS['auroc_gain']} of the paired difference",
        "Grey: 95 % of control minus control",
        "Marks: the interval clears that null, not on every layer where layers are dense"
        if bool(_cleared(table).any())
        else "No interval clears that null",
        checks.provenance(table),
    )


def _cleared(table: DataFrame) -> Any:
    return np.array([_clears(row) for row in checks.records(table)])


def _alt(table: DataFrame, curves: list[Curve], targets: list[str]) -> str:
    parts = []
    for target in targets:
        for one in curves:
            rows = one.rows(table[table["target"] == target])
            if len(rows) == 0:
                continue
            best = checks.records(rows.loc[[rows["selectivity"].idxmax()]])[0]
            count = int(_cleared(rows).sum())
            most = checks.largest_of(best, len(rows), best.selectivity, best.lo, best.hi, signed=True)
            parts.append(
                f"{target}, {one.label}: {count} of {len(rows)} layers beyond the null, largest {most} at "
                f"{_where(best)}"
            )
    return "Selectivity by depth. " + ". ".join(parts) + "."
