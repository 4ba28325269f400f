"""Cosines between directions over layers, compared with those of random directions of that width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, curve, null_band, point
from study.figures.multiples import Frame, given, legend_over, small_multiples
from study.figures.numbers import fixed
from study.figures.style import DATA_LINE, REFERENCE_LINE, Width, colour, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "cosines"
COLUMNS = ("a", "b", "layer", "cosine", "random_hi", "d")
_MOST = 12  # panels


def cosines(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Cosine of every pair of directions by layer, one panel per pair, over the band of random directions.

    The grey band, ±1.96/√d, is where 95 % of random directions fall. Marks beyond it are filled, marks inside are
    hollow. Black, because a direction belongs to neither member. A cosine has no interval unless it was refitted:
    `lo, hi` are drawn where the table has them, and the caption says so where it has not.

    Args:
        table: one row per (a, b, layer): names of two directions, `layer` (or `site`, such as resid_post.12), `cosine`,
            `random_hi` (95 % limit of |cos| of random directions), `d` (width). Optional: `lo, hi` with `interval`
            and `n` (refits), `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per pair.
    Raises:
        ValueError: a column is missing or holds NaN, |cosine| > 1, a mark repeats, or more than 12 pairs.
    Source: probes §A5 figure 4; band: a coordinate of a uniform unit vector is N(0, 1/d) for large d.
    """
    table = _with_layer(table)
    pairs = _check(table)
    titles = [f"{a} · {b}" for a, b in pairs]
    entries = [
        canvas.key_entry("ink", "beyond the random band", shape="o", bar=False),
        canvas.key_entry("ink", "inside", shape="o", filled=False, bar=False),
        canvas.patch_entry("null", "random directions, 95 %"),
    ]
    marks = Marks()
    with styled():
        if ax is None:
            frame = Frame(left=0.5, right=0.1, gap=0.14, bottom=0.4, between=0.34)
            panels = small_multiples(
                titles, width_in(width), tall=1.0, frame=frame, entries=entries, most=2 if width == "icml" else 4
            )
        else:
            panels = given(ax, titles, figure=FIGURE)
            legend_over(panels, entries)
        for index, (panel, (a, b)) in enumerate(zip(panels.axes, pairs, strict=True)):
            rows = table[(table["a"] == a) & (table["b"] == b)].sort_values("layer")
            _draw(panel, rows, table, marks, index)
            panel.tick_params(labelleft=panels.is_first(index))
            if panels.is_first(index):
                panel.set_ylabel("cosine")
            if panels.is_last(index):
                panel.set_xlabel("layer")
    return Drawn(canvas.figure_of(panels.axes[0]), table, _caption(table, pairs), _alt(table, pairs), marks.titles)


def _with_layer(table: DataFrame) -> DataFrame:
    """A copy with the column `layer`, read from `site` where it is missing."""
    if "layer" in table.columns or "site" not in table.columns:
        return table.copy()
    return table.assign(layer=[_layer_of(site) for site in table["site"]])


def _layer_of(site: object) -> int:
    from interp.site import Site

    layer = Site.parse(str(site)).layer
    if layer is None:
        raise ValueError(f"figure {FIGURE!r}: site {site} has no layer. Leave it out: the axis is depth.")
    return layer


def _check(table: DataFrame) -> list[tuple[str, str]]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("layer", "cosine", "random_hi", "d"))
    if "lo" in table.columns or "hi" in table.columns:
        needed = ("lo", "hi", "n", "interval")
        checks.require(table, needed, figure=FIGURE, numeric=("lo", "hi", "n"))
    checks.require_unique(table, ("a", "b", "layer"), figure=FIGURE)
    if bool((table["cosine"].abs() > 1 + 1e-6).any()):
        raise ValueError(
            f"figure {FIGURE!r}: column 'cosine' must lie in -1 to 1, found {table['cosine'].abs().max():g}."
        )
    pairs = list(dict.fromkeys(zip(table["a"], table["b"], strict=True)))
    if len(pairs) > _MOST:
        raise ValueError(
            f"figure {FIGURE!r}: {len(pairs)} pairs of directions; at most {_MOST} are read on one page. "
            "Filter `a`, `b`."
        )
    return pairs


def _draw(ax: Axes, rows: DataFrame, table: DataFrame, marks: Marks, index: int) -> None:
    from study.figures.depth import sparse_ticks

    n_layers = int(table["layer"].max()) + 1
    ax.set(xlim=(-0.5, n_layers - 0.5), ylim=(-1.05, 1.05), yticks=[-1, -0.5, 0, 0.5, 1])
    ax.set_yticklabels(["−1", "−.5", "0", ".5", "1"])
    ax.set_xticks(sparse_ticks(n_layers, ax))
    null_band(ax, rows["layer"], -rows["random_hi"], rows["random_hi"])
    ax.axhline(0, color=colour("ink2"), linewidth=REFERENCE_LINE, zorder=1)
    if "lo" in rows.columns:
        curve(ax, rows["layer"], rows["cosine"], rows["lo"], rows["hi"], "ink")
    elif len(rows) > 1:
        ax.plot(rows["layer"], rows["cosine"], color=colour("ink"), linewidth=DATA_LINE, zorder=3)
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0] / n_layers
    last = -1e9
    for row in checks.records(rows):
        beyond = abs(row.cosine) > row.random_hi
        if (row.layer - last) * inches < 0.055:
            continue
        last = row.layer
        mark = point(ax, row.layer, row.cosine, "ink", filled=beyond, marker="o", size=2.8)
        title = f"{row.a} · {row.b}, layer {int(row.layer)}: cosine {fixed(row.cosine, 3)}, random ±{row.random_hi:.3f}"
        marks.name(mark, f"cosine{index}-{int(row.layer)}", title)


def _caption(table: DataFrame, pairs: list[tuple[str, str]]) -> str:
    widths = sorted({int(d) for d in table["d"]})
    with_interval = "lo" in table.columns
    return checks.sentences(
        f"Cosine of {len(pairs)} pair{'s' if len(pairs) > 1 else ''} of directions by layer",
        f"n = {table['layer'].nunique()} layers, width d = {' / '.join(map(str, widths))}",
        f"Bands: 95 % {checks.interval_kind(table, figure=FIGURE)}, {checks.sample_size(table, figure=FIGURE)}"
        if with_interval
        else "Each cosine is that of two fitted directions, without an interval",
        "Grey: the null, 95 % of random directions of that width, per layer; filled: beyond it",
        checks.provenance(table),
    )


def _alt(table: DataFrame, pairs: list[tuple[str, str]]) -> str:
    parts: list[Any] = []
    for a, b in pairs:
        rows = table[(table["a"] == a) & (table["b"] == b)]
        best = checks.records(rows.loc[[rows["cosine"].abs().idxmax()]])[0]
        count = int((rows["cosine"].abs() > rows["random_hi"]).sum())
        parts.append(
            f"{a} and {b}: beyond the random band at {count} of {len(rows)} layers, largest {fixed(best.cosine, 2)} at "
            f"layer {int(best.layer)}"
        )
    return "Cosines by layer. " + ". ".join(parts) + "."
