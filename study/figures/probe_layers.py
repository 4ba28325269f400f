"""Figure 02: how early and how well a property is decodable, after the layer was selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.stats import rejects
from study.figures import canvas, checks, depth
from study.figures.depth import Curve
from study.figures.drawn import Drawn
from study.figures.labels import Labelled, place_note
from study.figures.marks import Marks, curve, interval, null_band, point
from study.figures.multiples import Panels, Room, given, legend_over, padded, share_y, small_multiples
from study.figures.numbers import format_estimate, format_value, short
from study.figures.style import NOTE, REFERENCE_LINE, Width, colour, line, marker, styled, text_colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "probe_by_layer"
COLUMNS = (
    "member", "layer", "depth", "split", "metric", "value", "lo", "hi", "null_mean", "null_hi", "null_max95",
    "chance", "selected", "n", "n_groups", "interval"
)  # fmt: skip
SPLITS = ("oof", "test")
BAND = ("band_lo", "band_hi")
_ONE_VALUE = ("metric", "target", "kind", "position", "cohort")


def probe_by_layer(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """A probe's metric over layers: out-of-fold lines, and one large mark for TEST at the selected layer.

    Grey is the per-layer null, the dotted line its maximum over layers, dashes a constant score. Models of different
    depth share relative depth, (layer + ½)/L, with one ruler each. More than two checkpoints, or checkpoints with
    different n (a null belongs to one n), get a panel each. The TEST mark is filled where it is beyond the null of
    its own row.

    Args:
        table: one row per (member, layer, split): `member`, `layer` (from 0), `depth` = (layer + ½)/L, `split`
            (oof, test), `metric`, `value, lo, hi`, `null_mean`, `null_hi` (95 % of the layer's null), `null_max95`
            (95 % of the maximum over layers), `chance`, `selected` (bool), `n`, `n_groups`, `interval` (its kind). A
            test row stands at the selected layer. Optional: `band_lo, band_hi` (of oof rows, simultaneous over layers:
            the band of the line, instead of `lo, hi`), `null_lo` (of oof rows; the band starts at
            `null_mean` without it), `p` (of test rows), `n_perm`, `scheme`,
            `chance_label`, `target`, `kind`, `position`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per panel.
    Raises:
        ValueError: a column is missing or holds NaN, a depth is not (layer + ½)/L, a mark is repeated, or a test row
            stands where no layer was selected.
    Source: FIGURES 02; probes §A5 figure 1.
    """
    curves = _check(table)
    groups = _facets(table, curves)
    titles = ["" if len(groups) == 1 else group[0].label for group in groups]
    marks = Marks()
    with styled():
        entries = _entries(table, curves, faceted=len(groups) > 1)
        panels = _panels(titles, groups, entries, width) if ax is None else given(ax, titles, figure=FIGURE)
        if ax is not None:
            legend_over(panels, entries, lift=0.06 + _above(groups[0]))
        share_y(panels, *_limits(table), ticks=7)
        named: set[float] = set()
        for panel, group in zip(panels.axes, groups, strict=True):
            _draw(panel, group, table, marks, named)
        panels.axes[0].set_ylabel(_metric(table))
    drawn = table[table["split"].isin(SPLITS)].copy()
    return Drawn(canvas.figure_of(panels.axes[0]), drawn, _caption(table, curves), _alt(table, curves), marks.titles)


def _check(table: DataFrame) -> list[Curve]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("layer", "depth", "value", "lo", "hi", "n", "chance"))
    checks.require_known(table["split"], SPLITS, what="split", figure=FIGURE)
    for name in _ONE_VALUE:
        checks.only_value(table, name, figure=FIGURE)
    checks.require_unique(table, ("member", "layer", "split"), figure=FIGURE)
    oof, test = (table[table["split"] == split] for split in SPLITS)
    nulls = [name for name in BAND if name in table.columns] + ["null_lo"] * _has_low(oof)
    checks.require(oof, COLUMNS, figure=FIGURE, numeric=("null_mean", "null_hi", "null_max95", *nulls))
    checks.require_unique(test, ("member",), figure=FIGURE)
    chosen = oof[oof["selected"].astype(bool)]
    checks.require_unique(chosen, ("member",), figure=FIGURE)
    at = dict(zip(chosen["member"], chosen["layer"], strict=True))
    for row in checks.records(test):
        if at.get(row.member) != row.layer:
            raise ValueError(
                f"figure {FIGURE!r}: the test row of {row.member} is at layer {row.layer}, selected on DEV: "
                f"{at.get(row.member, 'none')}. TEST is scored once, where `selected` is true."
            )
    return depth.with_layers(depth.curves_of(table, figure=FIGURE), oof, figure=FIGURE)


def _facets(table: DataFrame, curves: list[Curve]) -> list[list[Curve]]:
    """One panel for all, or one per checkpoint where bands would pile up or the null differs in n."""
    n = table[table["split"] == "oof"].groupby("member")["n"].unique()
    same = len({tuple(values) for values in n}) == 1
    return [curves] if len(curves) <= 2 and same else [[one] for one in curves]


def _above(group: list[Curve]) -> float:
    return depth.RULER * len(group) if depth.is_relative(group) else 0.0


def _panels(titles: list[str], groups: list[list[Curve]], entries: list[Any], width: Width) -> Panels:
    total = width_in(width)
    tall = 0.29 * total if len(groups) == 1 else 0.24 * total
    if width == "icml":
        tall = 0.45 * total
    room = Room(left=0.47, right=0.08, gap=0.16, bottom=0.37, between=0.4, top=_above(groups[0]))
    return small_multiples(titles, total, tall=tall, room=room, entries=entries, most=2 if width == "icml" else 4)


def _entries(table: DataFrame, curves: list[Curve], *, faceted: bool) -> list[Any]:
    deep = depth.is_relative(curves) or faceted
    entries = [
        canvas.line_entry(
            one.role,
            one.label + (f", {one.n_layers} layers" if deep else "") + " (OOF, DEV)",
            style=one.role,
            width=1.2,
        )
        for one in curves
    ]
    if len(_maxima(table, curves)) == 1:
        entries.append(canvas.line_entry("ink2", "null: max over layers, 95 %", style="max_null", width=0.9))
    else:
        entries.append(canvas.line_entry("ink2", "null: max over layers, 95 %, each", style="max_null", width=0.9))
    entries.append(canvas.patch_entry("null", f"null: {_scheme(table)}, per layer 95 %"))
    return entries


def _scheme(table: DataFrame) -> str:
    return str(checks.only_value(table, "scheme", figure=FIGURE, default="permuted groups"))


def _metric(table: DataFrame) -> str:
    name = str(checks.only_value(table, "metric", figure=FIGURE))
    return {"auroc": "AUROC"}.get(name, name.replace("_", " "))


def _maxima(table: DataFrame, curves: Sequence[Curve]) -> set[float]:
    rows = table[(table["split"] == "oof") & table["member"].isin([one.name for one in curves])]
    return {round(float(value), 6) for value in rows["null_max95"]}


def _low(rows: DataFrame) -> Any:
    return rows["null_lo" if _has_low(rows) else "null_mean"]


def _has_low(oof: DataFrame) -> bool:
    """Whether the null per layer has a lower end; a sweep gives one to TEST alone."""
    return "null_lo" in oof.columns and bool(oof["null_lo"].notna().any())


def _ends(table: DataFrame) -> tuple[str, str]:
    """Columns of the band of a line: simultaneous where the table has it."""
    return BAND if set(BAND) <= set(table.columns) else ("lo", "hi")


def _limits(table: DataFrame) -> tuple[float, float]:
    oof = table[table["split"] == "oof"]
    seen = [*table["lo"], *table["hi"], *table["chance"], *_low(oof), *oof["null_hi"], *oof["null_max95"]]
    seen += [end for name in _ends(table) for end in oof[name]]
    low, high = padded(seen, least=0.2)
    is_low = min(seen) >= max(table["chance"]) - 0.1 * (high - low)
    below = 0.08 if is_low else 0.0  # room for the label under the chance line
    return low - below * (high - low), high + 0.1 * (high - low)  # and for that of the TEST mark


def _draw(ax: Axes, curves: list[Curve], table: DataFrame, marks: Marks, named: set[float]) -> None:
    relative = depth.is_relative(curves)
    depth.depth_axis(ax, curves)
    avoid: list[Labelled] = []
    maxima = _maxima(table, curves)
    if len(maxima) == 1:
        ax.axhline(*maxima, linewidth=0.9, linestyle=line("max_null"), color=colour("ink2"), zorder=1)
    for one in curves:
        rows = one.rows(table[table["split"] == "oof"])
        x = depth.place(rows, relative=relative)
        null_band(ax, x, _low(rows), rows["null_hi"])
        if len(maxima) > 1:
            ax.plot(x, rows["null_max95"], linewidth=0.9, linestyle=line("max_null"), color=text_colour(one.role))
        ends = _ends(table)
        drawn = curve(ax, x, rows["value"], rows[ends[0]], rows[ends[1]], one.role)
        words = "; ".join(f"layer {int(r.layer)} {_estimate(r)}" for r in checks.records(rows))
        marks.name(drawn, f"oof-{one.role}", f"{one.label}, out of fold: {words}")
        avoid += [Labelled(list(x), list(rows[name]), "", "") for name in ("value", *ends, "null_hi", "null_max95")]
    taken: list[Any] = []
    tests = [(one, row) for one in curves for row in _tests(table, one)]
    for _, row in tests:
        avoid.append(Labelled([row.depth if relative else row.layer] * 2, [row.lo, row.hi], "", ""))
    for one, row in tests:
        _draw_test(ax, one, row, row.depth if relative else row.layer, marks, avoid, taken)
    _draw_chance(ax, table[table["member"].isin([one.name for one in curves])], named, avoid, taken)


def _tests(table: DataFrame, one: Curve) -> list[Any]:
    return checks.records(one.rows(table[table["split"] == "test"]))


def _draw_test(ax: Axes, one: Curve, row: Any, x: float, marks: Marks, avoid: list[Labelled], taken: list[Any]) -> None:
    """The large mark at the selected layer, its tick on the axis, and its label."""
    interval(ax, x, (row.lo, row.hi), one.role, zorder=5)
    mark = point(ax, x, row.value, one.role, filled=_is_beyond(row), size=6.5, zorder=6)
    marks.name(mark, f"test-{one.role}", f"{one.label}, layer {row.layer}, TEST: {_estimate(row)}, n = {int(row.n)}")
    ax.plot([x, x], [0, 0.035], transform=ax.get_xaxis_transform(), color=colour(one.role), linewidth=1.6, zorder=6)
    text = f"L{row.layer}  TEST {format_value(row.value, row.lo, row.hi, n=int(row.n))}"
    place_note(ax, Labelled([x], [row.hi], text, text_colour(one.role), "bold"), avoid=avoid, taken=taken)


def _draw_chance(ax: Axes, rows: DataFrame, named: set[float], avoid: list[Labelled], taken: list[Any]) -> None:
    """A dashed line per level, labelled in the first panel that holds it."""
    for level in sorted(set(rows["chance"])):
        ax.axhline(level, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
        if level in named:
            continue
        named.add(level)
        low, high = ax.get_xlim()
        text = f"{_chance_label(rows)} {short(level)}"
        bottom, top = ax.get_ylim()
        if level - bottom < 0.2 * (top - bottom):  # under the line there is room, and nothing but the ends of bands
            style: dict[str, Any] = {"fontsize": NOTE + 0.4, "color": colour("ink2"), "ha": "right", "va": "top"}
            ax.annotate(text, (1, level), (-3, -2), ax.get_yaxis_transform(), "offset points", **style)
            continue
        place_note(ax, Labelled((high, low), (level, level), text, colour("ink2")), avoid=avoid, taken=taken)


def _chance_label(table: DataFrame) -> str:
    default = "majority" if checks.only_value(table, "metric", figure=FIGURE) == "accuracy" else "constant score"
    return str(checks.only_value(table, "chance_label", figure=FIGURE, default=default))


def _is_beyond(row: Any) -> bool:
    """True where TEST, at the layer chosen on DEV, is beyond its own null: p <= .05, else above its 95 %."""
    p = getattr(row, "p", None)
    return bool(row.value > row.null_hi) if p is None or checks.is_absent(p) else bool(rejects(p))


def _estimate(row: Any) -> str:
    return format_estimate(row.value, row.lo, row.hi, n=int(row.n))


def _caption(table: DataFrame, curves: list[Curve]) -> str:
    oof, test = (table[table["split"] == split] for split in SPLITS)
    target = checks.only_value(table, "target", figure=FIGURE)
    draws = checks.only_value(table, "n_perm", figure=FIGURE)
    untested = [one.label for one in curves if not _tests(table, one)]
    signs = ", ".join(f"{one.label} ({ {'o': '●', 'D': '◆', 's': '■'}[marker(one.role)] })" for one in curves)
    kind = checks.interval_kind(table, figure=FIGURE)
    return checks.sentences(
        f"{_metric(table)} of a linear probe" + (f" for {target}" if target else "") + f" by layer: {signs}",
        f"Lines: out of fold on DEV, {checks.sample_size(oof, figure=FIGURE)}"
        + (f"; large marks: {_tested(oof, test)}, {checks.sample_size(test, figure=FIGURE)}" if len(test) else ""),
        f"Bands: simultaneous 95 % over the layers; bars: 95 % {kind}"
        if _ends(table) == BAND
        else f"Bands and bars: point-wise 95 % {kind}",
        f"Grey: {'95 %' if _has_low(oof) else 'mean to 95 %'} of the null per layer ({_scheme(table)}"
        + (f", {int(draws)} draws" if draws else "")
        + "); dotted: 95 % of its maximum over layers",
        "Filled: TEST beyond its own null; hollow: not" if len(test) else "",
        f"Dashed: {_chance_label(table)}, {' / '.join(short(c) for c in sorted(set(table['chance'])))}",
        f"No TEST score: {', '.join(untested)}" if untested else "",
        "A decodable property is not shown to be used",
        checks.provenance(table),
    )


def _tested(oof: DataFrame, test: DataFrame) -> str:
    """What a TEST mark is: held-out groups, or every group once where it holds as many as DEV."""
    n = dict(zip(oof["member"], oof["n_groups"], strict=True))
    if all(row.n_groups == n[row.member] for row in checks.records(test)):
        return "TEST, every group once, each at the layer selected without it"
    return "TEST at the layer selected on DEV"


def _alt(table: DataFrame, curves: list[Curve]) -> str:
    parts = []
    for one in curves:
        rows = one.rows(table[table["split"] == "oof"])
        above = rows[rows[_ends(table)[0]] > rows["null_max95"]]
        first = f"from layer {int(above['layer'].iloc[0])} on first" if len(above) else "at no layer"
        text = f"{one.label} ({one.n_layers} layers): the interval clears the max-over-layers null {first}"
        tests = _tests(table, one)
        if tests:
            verdict = "beyond" if _is_beyond(tests[0]) else "within"
            text += f"; TEST at layer {tests[0].layer} {_estimate(tests[0])}, {verdict} its null"
        parts.append(text)
    return f"{_metric(table)} by layer. " + ". ".join(parts) + "."
