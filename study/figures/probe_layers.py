"""Figure 02: how early and how well a property is decodable, after the layer was selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats import rejects
from study.figures import canvas, checks, depth
from study.figures.depth import Curve
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.labels import Labelled, place_note
from study.figures.marks import curve, null_band, reference, triple
from study.figures.mpl import Artist, Record, Style
from study.figures.multiples import Room, padded, share_y
from study.figures.numbers import estimate_of, format_value, short
from study.figures.style import Width, colour, line, marker, text_colour

FIGURE = "probe_by_layer"
_NUMBERS = "layer depth value lo hi n chance"
_SIGNS = {"o": "●", "D": "◆", "s": "■"}


@dataclass(frozen=True)
class _Layers:
    """Rows out of fold and on TEST, the checkpoints, and how nulls and bands are drawn."""

    table: DataFrame
    oof: DataFrame
    curves: list[Curve]
    ends: tuple[str, str]
    null_low: str

    @property
    def panels(self) -> list[list[Curve]]:
        """One panel for all, or one per checkpoint where bands would pile up or the null differs in n."""
        same = len({tuple(values) for values in self.oof.groupby("member")["n"].unique()}) == 1
        return [self.curves] if len(self.curves) <= 2 and same else [[one] for one in self.curves]

    @property
    def tests(self) -> DataFrame:
        return self.table[self.table["split"] == "test"]

    @property
    def scheme(self) -> str:
        return str(checks.only_value(self.table, "scheme", figure=FIGURE, default="permuted groups"))

    @property
    def metric(self) -> str:
        return checks.metric_name(self.table, FIGURE)

    @property
    def chance(self) -> str:
        default = "majority" if self.metric == "accuracy" else "constant score"
        label = checks.only_value(self.table, "chance_label", figure=FIGURE, default=default)
        return f"{label} {' / '.join(short(c) for c in sorted(set(self.table['chance'])))}"

    def test(self, one: Curve) -> list[Record]:
        return checks.records(one.rows(self.tests))

    def maxima(self, curves: Sequence[Curve]) -> set[float]:
        rows = self.oof[self.oof["member"].isin([one.name for one in curves])]
        return {round(float(value), 6) for value in rows["null_max95"]}


def _read(table: DataFrame) -> _Layers:
    oof, test = (table[table["split"] == split] for split in ("oof", "test"))
    has_band = {"band_lo", "band_hi"} <= set(table.columns)
    ends = ("band_lo", "band_hi") if has_band else ("lo", "hi")  # simultaneous over layers where the table has them
    has_low = "null_lo" in oof.columns and bool(oof["null_lo"].notna().any())  # a sweep may give one to TEST alone
    null_low = "null_lo" if has_low else "null_mean"
    nulls = ("null_mean", "null_hi", "null_max95", null_low, *(ends if has_band else ()))
    checks.require(oof, nulls, figure=FIGURE, numeric=nulls)
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
    curves = depth.with_layers(depth.curves_of(table, figure=FIGURE), oof, figure=FIGURE)
    return _Layers(table, oof, curves, ends, null_low)


def _draw(page: Page, of: _Layers) -> Axes:
    groups = of.panels
    titles = ["" if len(groups) == 1 else group[0].label for group in groups]
    above = depth.RULER * len(groups[0]) if depth.is_relative(groups[0]) else 0.0
    share = 0.45 if page.width == "icml" else 0.29 if len(groups) == 1 else 0.24
    room = Room(left=0.47, right=0.08, gap=0.16, bottom=0.37, between=0.4, top=above)
    layout: Style = {"tall": share * page.total, "most": 2 if page.width == "icml" else 4, "room": room}
    panels = page.panels(
        titles, entries=_entries(of, faceted=len(groups) > 1, own=page.own), lift=0.06 + above, **layout
    )
    share_y(panels, *_limits(of), ticks=7)
    for ax, group in zip(panels.axes, groups, strict=True):
        _draw_panel(page, ax, of, group)
    panels.axes[0].set_ylabel(of.metric)
    return panels.axes[0]


def _entries(of: _Layers, *, faceted: bool, own: bool) -> list[Artist]:
    """The legend; a panel of a composite has room for few words, and its caption says the rest."""
    deep = depth.is_relative(of.curves) or faceted
    each = "" if len(of.maxima(of.curves)) == 1 else ", each"
    split = " (OOF, DEV)" if own else ""
    names = [one.label + (f", {one.n_layers} layers" if deep else "") + split for one in of.curves]
    band, maximum = f"null: {of.scheme}, per layer 95 %", f"null: max over layers, 95 %{each}"
    lines = [
        canvas.line_entry(one.role, name, style=one.role, width=1.2) for one, name in zip(of.curves, names, strict=True)
    ]
    return [
        *lines,
        canvas.line_entry("ink2", maximum if own else "null, maximum", style="max_null", width=0.9),
        canvas.patch_entry("null", band if own else "null, per layer"),
        canvas.line_entry("ink2", of.chance),
    ]


def _limits(of: _Layers) -> tuple[float, float]:
    seen = [*of.table["lo"], *of.table["hi"], *of.table["chance"]]
    seen += [x for name in (of.null_low, "null_hi", "null_max95", *of.ends) for x in of.oof[name]]
    low, high = padded(seen, least=0.2)
    return low, high + 0.1 * (high - low)  # room for the label of the TEST mark


def _draw_panel(page: Page, ax: Axes, of: _Layers, curves: list[Curve]) -> None:
    relative = depth.is_relative(curves)
    depth.depth_axis(ax, curves)
    avoid: list[Labelled] = []
    taken: list[np.ndarray] = []
    maxima = of.maxima(curves)
    if len(maxima) == 1:
        reference(ax, y=next(iter(maxima)), style="max_null", linewidth=0.9)
    for one in curves:
        rows = one.rows(of.oof)
        x = depth.place(rows, relative=relative)
        null_band(ax, x, rows[of.null_low], rows["null_hi"])
        if len(maxima) > 1:
            ax.plot(x, rows["null_max95"], linewidth=0.9, linestyle=line("max_null"), color=text_colour(one.role))
        drawn = curve(ax, x, rows["value"], rows[of.ends[0]], rows[of.ends[1]], one.role)
        words = "; ".join(f"layer {int(r.layer)} {estimate_of(r)}" for r in checks.records(rows))
        page.marks.name(drawn, f"oof-{one.role}", f"{one.label}, out of fold: {words}")
        avoid += [Labelled(list(x), list(rows[name])) for name in ("value", *of.ends, "null_hi", "null_max95")]
    tests = [(one, row, row.depth if relative else row.layer) for one in curves for row in of.test(one)]
    avoid += [Labelled([x] * 2, [row.lo, row.hi]) for _, row, x in tests]
    for one, row, x in tests:
        _draw_test(page, ax, one, row, x)
        text = f"L{row.layer}  TEST {format_value(row.value, row.lo, row.hi, n=int(row.n))}"
        note = Labelled([x], [row.hi], text, text_colour(one.role), "bold")
        place_note(ax, note, avoid=avoid, taken=taken)
    for level in set(of.table.loc[of.table["member"].isin([one.name for one in curves]), "chance"]):
        reference(ax, y=level)


def _draw_test(page: Page, ax: Axes, one: Curve, row: Record, x: float) -> None:
    """The large mark at the selected layer, and its tick on the axis."""
    title = f"{one.label}, layer {row.layer}, TEST: {estimate_of(row)}, n = {int(row.n)}"
    style: Style = {"filled": _is_beyond(row), "size": 6.5, "zorder": 6, "bar": {"zorder": 5}}
    page.marks.estimate(ax, x, triple(row), one.role, f"test-{one.role}", title, **style)
    ax.plot([x, x], [0, 0.035], transform=ax.get_xaxis_transform(), color=colour(one.role), linewidth=1.6, zorder=6)


def _is_beyond(row: Record) -> bool:
    """True where TEST, at the layer chosen on DEV, is beyond its own null: p <= .05, else above its 95 %."""
    p = getattr(row, "p", None)
    return bool(row.value > row.null_hi) if p is None or checks.is_absent(p) else bool(rejects(p))


def _caption(of: _Layers) -> Caption:
    target, draws = (checks.only_value(of.table, name, figure=FIGURE) for name in ("target", "n_perm"))
    untested = [one.label for one in of.curves if not of.test(one)]
    signs = ", ".join(f"{one.label} ({_SIGNS[marker(one.role)]})" for one in of.curves)
    n_test = checks.sample_size(of.tests, figure=FIGURE) if len(of.tests) else ""
    kind = checks.interval_kind(of.table, figure=FIGURE)
    simultaneous = f"Bands: simultaneous 95 % over the layers; bars: 95 % {kind}"
    null = f"({of.scheme}{f', {int(draws)} draws' if draws else ''}); dotted: 95 % of its maximum over layers"
    return Caption(
        what=f"{of.metric} of a linear probe{f' for {target}' if target else ''} by layer: {signs}",
        n=f"Lines: out of fold on DEV, {checks.sample_size(of.oof, figure=FIGURE)}"
        + (f"; large marks: {_tested(of)}, {n_test}" if n_test else ""),
        interval=simultaneous if of.ends[0] == "band_lo" else f"Bands and bars: point-wise 95 % {kind}",
        control=[
            f"Grey: {'95 %' if of.null_low == 'null_lo' else 'mean to 95 %'} of the null per layer {null}",
            "Filled: TEST beyond its own null; hollow: not" if n_test else "",
            f"Dashed: {of.chance}",
        ],
        notes=[
            f"No TEST score: {', '.join(untested)}" if untested else "",
            "A decodable property is not shown to be used",
        ],
    )


def _tested(of: _Layers) -> str:
    """What a TEST mark is: held-out groups, or every group once where it holds as many as DEV."""
    n = dict(zip(of.oof["member"], of.oof["n_groups"], strict=True))
    if all(row.n_groups == n[row.member] for row in checks.records(of.tests)):
        return "TEST, every group once, each at the layer selected without it"
    return "TEST at the layer selected on DEV"


def _alt(of: _Layers) -> list[str]:
    parts = [f"{of.metric} by layer"]
    for one in of.curves:
        rows = one.rows(of.oof)
        above = rows[rows[of.ends[0]] > rows["null_max95"]]
        first = f"from layer {int(above['layer'].iloc[0])} on first" if len(above) else "at no layer"
        text = f"{one.label} ({one.n_layers} layers): the interval clears the max-over-layers null {first}"
        for row in of.test(one):
            verdict = "beyond" if _is_beyond(row) else "within"
            text += f"; TEST at layer {row.layer} {estimate_of(row)}, {verdict} its null"
        parts.append(text)
    return parts


_ROLES = Roles(
    f"member split metric null_mean null_hi null_max95 selected n_groups interval {_NUMBERS}",
    finite=_NUMBERS,
    mark="member layer split",
    same="metric target kind position cohort",
    known={"split": ("oof", "test")},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=7, word="layers", read=_read)


def probe_by_layer(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """A probe's metric over layers: out-of-fold lines, and one large mark for TEST at the selected layer.

    Grey is the per-layer null, the dotted line its maximum over layers, dashes a constant score. Models of different
    depth share relative depth, (layer + ½)/L, with one ruler each. More than two checkpoints, or checkpoints with
    different n (a null belongs to one n), get a panel each. The TEST mark is filled where it is beyond the null of
    its own row.

    Args:
        table: rows of the schema table `probes`, of one kind, target, position and kind of site, `split` oof or test; a
            test row stands at the selected layer. Optional: `band_lo, band_hi` (of oof rows: the band of the line,
            instead of `lo, hi`), `null_lo` (of oof rows; the null starts at `null_mean` without it), `p` (of test
            rows), `n_perm`, `scheme`, `chance_label`.
        width, ax: as of `FigureSpec.drawn`; one per panel.
    Raises:
        ValueError: a column is missing or holds NaN, a depth is not (layer + ½)/L, a mark is repeated, or a test row
            stands where no layer was selected.
    Source: FIGURES 02; probes §A5 figure 1.
    """
    return SPEC.drawn(table, width=width, ax=ax)
