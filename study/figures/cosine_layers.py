"""Cosines between directions over layers, compared with those of random directions of that width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.figures import canvas, checks
from study.figures.depth import sparse_ticks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import curve, null_band, point, reference
from study.figures.multiples import Room
from study.figures.numbers import fixed
from study.figures.style import DATA_LINE, Width, colour

FIGURE = "cosines"
_MOST = 12  # panels
_WITH_INTERVAL = Roles("lo hi n interval", finite="lo hi n")


@dataclass(frozen=True)
class _Cosines:
    """The table with the column `layer`, and its pairs of directions."""

    table: DataFrame
    pairs: list[tuple[str, str]]

    def rows(self, pair: tuple[str, str]) -> DataFrame:
        rows = self.table[(self.table["a"] == pair[0]) & (self.table["b"] == pair[1])]
        return rows.sort_values("layer")


def _read(table: DataFrame) -> _Cosines:
    if "layer" not in table.columns:
        table = table.assign(layer=[_layer_of(site) for site in table["site"]])
    checks.require(table, ("layer",), figure=FIGURE, numeric=("layer",))
    checks.require_unique(table, ("a", "b", "layer"), figure=FIGURE)
    if "lo" in table.columns or "hi" in table.columns:
        _WITH_INTERVAL.check(table, figure=FIGURE)
    pairs = list(dict.fromkeys(zip(table["a"], table["b"], strict=True)))
    if len(pairs) > _MOST:
        raise ValueError(
            f"figure {FIGURE!r}: {len(pairs)} pairs of directions; at most {_MOST} fit on one page. Filter `a`, `b`."
        )
    return _Cosines(table, pairs)


def _layer_of(site: object) -> int:
    from interp.site import Site

    layer = Site.parse(str(site)).layer
    if layer is None:
        raise ValueError(f"figure {FIGURE!r}: site {site} has no layer. Leave it out: the axis is depth.")
    return layer


def _draw(page: Page, of: _Cosines) -> Axes:
    entries = [
        canvas.key_entry("ink", "beyond the random band", shape="o", bar=False),
        canvas.key_entry("ink", "inside", shape="o", filled=False, bar=False),
        canvas.patch_entry("null", "random directions, 95 %"),
    ]
    titles = [f"{a} · {b}" for a, b in of.pairs]
    room = Room(left=0.5, right=0.1, gap=0.14, bottom=0.4, between=0.34)
    panels = page.panels(titles, tall=1.0, room=room, entries=entries, most=2 if page.width == "icml" else 4)
    for index, (ax, pair) in enumerate(zip(panels.axes, of.pairs, strict=True)):
        _draw_pair(page, ax, of.rows(pair), int(of.table["layer"].max()) + 1, index)
    panels.label(x="layer", y="cosine")
    return panels.axes[0]


def _draw_pair(page: Page, ax: Axes, rows: DataFrame, n_layers: int, index: int) -> None:
    ax.set(xlim=(-0.5, n_layers - 0.5), ylim=(-1.05, 1.05))
    ax.set_yticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−.5", "0", ".5", "1"])
    ax.set_xticks(sparse_ticks(n_layers, ax))
    null_band(ax, rows["layer"], -rows["random_hi"], rows["random_hi"])
    reference(ax, y=0, style="solid")
    if "lo" in rows.columns:
        curve(ax, rows["layer"], rows["cosine"], rows["lo"], rows["hi"], "ink")
    elif len(rows) > 1:
        ax.plot(rows["layer"], rows["cosine"], color=colour("ink"), linewidth=DATA_LINE, zorder=3)
    inches, last = canvas.size_of(ax)[0] / n_layers, -1e9
    for row in checks.records(rows):
        if (row.layer - last) * inches < 0.055:
            continue
        last = row.layer
        mark = point(ax, row.layer, row.cosine, "ink", filled=_is_beyond(row), marker="o", size=2.8)
        title = f"{row.a} · {row.b}, layer {int(row.layer)}: cosine {fixed(row.cosine, 3)}, random ±{row.random_hi:.3f}"
        page.marks.name(mark, f"cosine{index}-{int(row.layer)}", title)


def _is_beyond(row: object) -> bool:
    return abs(row.cosine) > row.random_hi  # pyright: ignore[reportAttributeAccessIssue]


def _caption(of: _Cosines) -> Caption:
    widths = " / ".join(str(d) for d in sorted({int(d) for d in of.table["d"]}))
    interval = "Each cosine is between two fitted directions and has no interval"
    if "lo" in of.table.columns:
        kind, n = checks.interval_kind(of.table, figure=FIGURE), checks.sample_size(of.table, figure=FIGURE)
        interval = f"Bands: 95 % {kind}, {n}"
    return Caption(
        what=f"Cosine of {len(of.pairs)} pair{'s' if len(of.pairs) > 1 else ''} of directions by layer",
        n=f"n = {of.table['layer'].nunique()} layers, width d = {widths}",
        interval=interval,
        control="Grey: the null, 95 % of random directions of that width, per layer; filled: beyond it",
    )


def _alt(of: _Cosines) -> list[str]:
    parts = ["Cosines by layer"]
    for a, b in of.pairs:
        rows = checks.records(of.rows((a, b)))
        best, count = max(rows, key=lambda row: abs(row.cosine)), sum(map(_is_beyond, rows))
        largest = f"largest {fixed(best.cosine, 2)} at layer {int(best.layer)}"
        parts.append(f"{a} and {b}: beyond the random band at {count} of {len(rows)} layers, {largest}")
    return parts


_ROLES = Roles("a b cosine random_hi d", finite="cosine random_hi d", within={"cosine": (-1, 1)})
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=11, read=_read, rows=lambda of: of.table)


def cosines(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Cosine of every pair of directions by layer, one panel per pair, over the band of random directions.

    The grey band, ±1.96/√d, is where 95 % of random directions fall. Marks beyond it are filled, marks inside are
    hollow. Black, because a direction belongs to neither member. A cosine has no interval unless it was refitted:
    `lo, hi` are drawn where the table has them, and the caption says so where it has not.

    Args:
        table: one row per (a, b, layer): names of two directions, `layer` (or `site`, such as resid_post.12), `cosine`,
            `random_hi` (95 % limit of |cos| of random directions), `d` (width). Optional: `lo, hi` with `interval`
            and `n` (refits).
        width, ax: as of `FigureSpec.drawn`; one per pair.
    Raises:
        ValueError: a column is missing or holds NaN, |cosine| > 1, a mark repeats, or more than 12 pairs.
    Source: probes §A5 figure 4; band: a coordinate of a uniform unit vector is N(0, 1/d) for large d.
    """
    return SPEC.drawn(table, width=width, ax=ax)
