"""Figure 03: whether a property is more decodable than an arbitrary label of the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.labels import Labelled, label_lines
from study.figures.marks import curve, null_band, point, reference
from study.figures.mpl import Record
from study.figures.multiples import Panels, Room, common_x, legend_over, padded, share_y
from study.figures.numbers import MINUS, estimate_of
from study.figures.style import Width, text_colour

FIGURE = "selectivity"
_NUMBERS = "depth selectivity selectivity_lo selectivity_hi selectivity_null_hi n"
_APART = 0.085  # inches between marks, so that they stay marks


@dataclass(frozen=True)
class _Selectivity:
    """The table with selectivity as `value, lo, hi, null_lo, null_hi`; its checkpoints, targets and metric."""

    table: DataFrame
    curves: list[Curve]
    targets: list[str]
    metric: str

    def rows(self, target: str, one: Curve) -> DataFrame:
        return one.rows(self.table[self.table["target"] == target])


def _read(table: DataFrame) -> _Selectivity:
    of_value = ["value", "lo", "hi", "null_lo", "null_hi"]
    names = ["selectivity", "selectivity_lo", "selectivity_hi", "selectivity_null_hi"]
    own = table.drop(columns=of_value, errors="ignore")
    own = own.rename(columns=dict(zip(names, ["value", "lo", "hi", "null_hi"], strict=True)))
    own = own.assign(null_lo=-own["null_hi"])  # the null is symmetric
    checks.require(own, (), figure=FIGURE, numeric=("lo", "hi"))  # in ascending order
    targets = [str(target) for target in own["target"].unique()]
    return _Selectivity(own, curves_of(own, figure=FIGURE), targets, checks.metric_name(own, FIGURE, "AUROC"))


def _draw(page: Page, of: _Selectivity) -> Axes:
    null = canvas.patch_entry("null", "control-vs-control null, 95 %")
    lines_key = [canvas.line_entry(one.role, one.label, style=one.role, width=1.2) for one in of.curves]
    room = Room(left=0.68, right=0.1, gap=0.14, bottom=0.4, between=0.24)
    narrow = page.width == "icml"
    panels = page.panels(
        of.targets, entries=[*lines_key, null], tall=1.05 if narrow else 1.2, room=room, most=2 if narrow else 4
    )
    table = of.table
    share_y(panels, *padded([0.0, *table["lo"], *table["hi"], *table["null_lo"], *table["null_hi"]], least=0.2))
    lines = [_draw_target(page, ax, of, target) for ax, target in zip(panels.axes, of.targets, strict=True)]
    legend_over(panels, [null] if _direct(panels, lines) else [*lines_key, null])
    for index, ax in enumerate(panels.axes):
        ax.tick_params(labelbottom=True)
        if panels.is_first(index):
            ax.set_ylabel(f"selectivity\n(real {MINUS} control {of.metric})", fontsize=6.5)
    common_x(panels, "relative depth  (layer + ½) / L")
    return panels.axes[0]


def _draw_target(page: Page, ax: Axes, of: _Selectivity, target: str) -> list[Labelled]:
    """One panel; returns its lines, with the edges of their bands, for the direct labels."""
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], labels=["0", ".5", "1"])
    reference(ax, y=0, style="solid")
    lines = []
    key = "".join(c if c.isalnum() else "_" for c in target)
    for one in of.curves:
        rows = of.rows(target, one)
        if len(rows) == 0:
            continue
        null_band(ax, rows["depth"], rows["null_lo"], rows["null_hi"], half=0.05)
        drawn = curve(ax, rows["depth"], rows["value"], rows["lo"], rows["hi"], one.role)
        words = ", ".join(f"{_where(row)} {estimate_of(row, signed=True)}" for row in checks.records(rows))
        page.marks.name(drawn, f"{key}-{one.role}", f"{target}, {one.label}: {words}")
        last = -1.0
        for row in checks.records(rows):
            if _clears(row) and (row.depth - last) * canvas.size_of(ax)[0] >= _APART:
                last = row.depth
                mark = point(ax, row.depth, row.value, one.role, size=3.2)
                title = f"{target}, {one.label}, {_where(row)}: {estimate_of(row, signed=True)}, beyond the null"
                page.marks.name(mark, f"{key}-{one.role}-{row.Index}", title)
        depth = list(rows["depth"])
        lines.append(Labelled(depth, list(rows["value"]), one.label, text_colour(one.role), "bold"))
        lines += [Labelled(depth, list(rows[edge])) for edge in ("lo", "hi")]
    return lines


def _direct(panels: Panels, lines: list[list[Labelled]]) -> bool:
    """Names beside the lines of the last panel that has room for them; False where none has."""
    most = max(sum(bool(line.text) for line in own) for own in lines)
    for ax, own in list(zip(panels.axes, lines, strict=True))[::-1]:
        named = [line for line in own if line.text]
        if len(named) == most and label_lines(ax, named, avoid=[line for line in own if not line.text]):
            return True
    return False


def _clears(row: Record) -> bool:
    return bool(row.lo > row.null_hi or row.hi < row.null_lo)


def _where(row: Record) -> str:
    layer = getattr(row, "layer", None)
    return f"depth {row.depth:.2f}" if layer is None or checks.is_absent(layer) else f"layer {int(layer)}"


def _caption(of: _Selectivity) -> Caption:
    from probes.metrics import INTERVALS

    who = f"{', '.join(of.targets)} ({' and '.join(one.label for one in of.curves)})"
    gain = f"{of.metric} for the label {MINUS} {of.metric} for control labels of the same inputs"
    marked = "Marks: the interval clears that null (not at every layer if there are many)"
    return Caption(
        what=f"Selectivity by relative depth for {who}: {gain}",
        n=checks.sample_size(of.table, figure=FIGURE),
        interval=f"Bands: point-wise 95 % {INTERVALS['auroc_gain']} of the paired difference",
        control=[
            "Grey: 95 % of control minus control",
            marked if any(map(_clears, checks.records(of.table))) else "No interval clears that null",
        ],
    )


def _alt(of: _Selectivity) -> list[str]:
    parts = ["Selectivity by depth"]
    for target in of.targets:
        for one in of.curves:
            rows = checks.records(of.rows(target, one))
            if not rows:
                continue
            best = max(rows, key=lambda row: row.value)
            most = checks.largest_of(best, len(rows), best.value, best.lo, best.hi, signed=True)
            count = f"{sum(map(_clears, rows))} of {len(rows)} layers beyond the null"
            parts.append(f"{target}, {one.label}: {count}, largest {most} at {_where(best)}")
    return parts


_ROLES = Roles(
    f"target member n_groups {_NUMBERS}",
    finite=_NUMBERS,
    mark="target member depth",
    same="metric",
    within={"depth": (0, 1)},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=8, read=_read)


def selectivity(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Real minus control metric over relative depth, one panel per target, all on one scale.

    The band is the paired interval of the difference; grey is what one control label is better than another by. Marks
    stand only where the interval clears that null (where layers are dense, not on every such layer).

    Args:
        table: out-of-fold rows of the schema table `probes`, of one kind, position and kind of site, with
            `selectivity`. Optional: `layer` (shown on hover).
        width, ax: as of `FigureSpec.drawn`; one per target.
    Raises:
        ValueError: a column is missing or holds NaN, a depth is outside 0 to 1, or a mark is repeated.
    Source: FIGURES 03; selectivity after Hewitt & Liang, arXiv 1909.03368.
    """
    return SPEC.drawn(table, width=width, ax=ax)
