"""Figures 05 and 08: which heads matter, and which of them changed by training, as layer × head maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.head_grid import Grid, box_named, draw_bar, draw_grid, draw_margins, place_of
from study.figures.mpl import Artist, Figure, ScalarMappable
from study.figures.numbers import MINUS, decimals, estimate_of, fixed, p_equals
from study.figures.style import NOTE, MapName, Width, colour_map, text_colour

_LEFT, _SIDE, _TOP = 0.41, 0.38, 0.42  # inches: ticks and label; right and top marginals
_BAR, _BAR_TICKS, _PAD = 0.08, 0.29, 0.05
_TALLEST = 1.7  # a map is at most this many times as high as wide; cells are square below that


@dataclass(frozen=True)
class _Map:
    """A map: its table, the cells, and whether it is of a difference of members."""

    table: DataFrame
    grid: Grid
    signed: bool

    def one(self, column: str, default: str | None = None) -> str | None:
        return checks.only_value(
            self.table, column, figure="head_difference" if self.signed else "head_map", default=default
        )

    @property
    def size(self) -> str:
        return checks.sample_size(self.table, figure="head_difference" if self.signed else "head_map")

    @property
    def at(self) -> str:
        return checks.at_site(self.table, figure="head_difference" if self.signed else "head_map")

    @property
    def correction(self) -> str:
        return "paired max-|t| FWER p ≤ .05" if self.signed else "FWER p ≤ .05 (max-|t|)"

    @property
    def count(self) -> int:
        return int(np.isfinite(self.grid.value).sum())


def _draw(page: Page, of: _Map) -> Axes:
    if page.own:
        ax = _whole(page, of)
    else:
        (ax,) = page.given
        shade = draw_grid(ax, of.grid, _cmap(of), _titles(of), page.marks)
        bar = ax.inset_axes((1.02, 0, 0.035, 1))
        draw_bar(bar, shade, of.grid)
        bar.set_ylabel(_unit(of), fontsize=NOTE, labelpad=2)
        canvas.legend_above(ax, _key(of), columns=2)
    box_named(ax, of.grid, [f"L{layer}.H{head}" for layer, head in of.grid.named])
    return ax


def _key(of: _Map) -> list[Artist]:
    """The legend of a map in a composite, where nothing stands around it."""
    ends = ("more in engaged", "more in heuristic") if of.signed else ("helps", "hurts")
    colours = [colour_map(_cmap(of))(0.9), colour_map(_cmap(of))(0.1)]
    found, named = int(of.grid.significant.sum()), "named before the sweep"
    return [
        *(canvas.patch_entry(shade, text) for shade, text in zip(colours, ends, strict=True)),
        canvas.key_entry("ink", f"p ≤ .05: {found} of {of.count}", shape="o", bar=False),
        *([canvas.key_entry("ink", named, shape="s", filled=False, bar=False)] if of.grid.named else []),
    ]


def _unit(of: _Map) -> str:
    """Metric and unit of the colour bar."""
    return ", ".join(filter(None, [str(of.one("metric", "δ")), str(of.one("metric_unit") or "")]))


def _cmap(of: _Map) -> MapName:
    return "member_diverging" if of.signed else "effect_diverging"


def _whole(page: Page, of: _Map) -> Axes:
    """The figure with marginals and colour bar; returns the axes of the map."""
    n_layers, n_heads = of.grid.value.shape
    wide = page.total - _LEFT - 0.07 - _SIDE - 0.12 - _BAR - _BAR_TICKS - _PAD
    tall = min(n_layers * min(wide / n_heads, 0.42), _TALLEST * wide)
    foot = f"● {of.correction}, {of.count} heads.  {'same items, ' if of.signed else ''}{of.size}."
    foot = canvas.wrap(foot, size=NOTE, max_in=page.total - 2 * _PAD)
    bottom = 0.36 + 0.11 * (foot.count("\n") + 1) + 0.05
    height = bottom + tall + 0.07 + _TOP + 0.06
    figure = canvas.new_figure(page.total, height)
    ax = canvas.axes_in(figure, _LEFT, bottom, wide, tall)
    top = canvas.axes_in(figure, _LEFT, bottom + tall + 0.07, wide, _TOP)
    right = canvas.axes_in(figure, _LEFT + wide + 0.07, bottom, _SIDE, tall)
    shade = draw_grid(ax, of.grid, _cmap(of), _titles(of), page.marks)
    draw_margins(top, right, of.grid)
    canvas.write(figure, _PAD, 0.04, foot, va="bottom", ha="left", linespacing=1.25)
    upper = min(bottom + tall, height - 0.08) if tall > 1.3 else height - 0.06
    _colour_bar(figure, shade, of, left=page.total - _PAD - _BAR_TICKS - _BAR, upper=upper, lower=bottom)
    return ax


def _colour_bar(figure: Figure, shade: ScalarMappable, of: _Map, *, left: float, upper: float, lower: float) -> None:
    """The bar with its unit above and what its lines mean below."""
    head, foot = _bar_words(of)
    size = min(max(upper - lower - 0.12 * (len(head) + len(foot)) - 0.12, 0.35), 1.6)
    top = upper - 0.12 * len(head) - 0.06
    draw_bar(canvas.axes_in(figure, left, top - size, _BAR, size), shade, of.grid)
    edge = figure.get_size_inches()[0] - _PAD + 0.03
    for lines, start, points in ((head, upper, NOTE + 0.4), (foot, top - size - 0.06, NOTE)):
        for row, (text, role) in enumerate(lines):
            canvas.write(
                figure, edge, start - 0.12 * row, text, size=points, va="top", ha="right", linespacing=1.2
            ).set_color(text_colour(role))


def _bar_words(of: _Map) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Lines above and below the colour bar, each with the role that colours it."""
    metric, unit = str(of.one("metric", "δ")), of.one("metric_unit")
    if of.signed:
        above = [(f"Δ {metric}", "ink"), ("more in", "engaged"), ("engaged", "engaged")]
        return above, [("more in", "heuristic"), ("heuristic", "heuristic")]
    return [(metric, "ink")] + [(str(unit), "ink")] * (unit is not None), [("lines:", "ink2"), ("95 % null", "ink2")]


def _titles(of: _Map) -> dict[str, str]:
    titles = {}
    for row in checks.records(of.table):
        draws = getattr(row, "n_perm", None)
        p = p_equals(row.p_adjusted, permutations=None if draws is None or checks.is_absent(draws) else int(draws))
        has_ends = hasattr(row, "lo") and hasattr(row, "hi")
        text = estimate_of(row, signed=of.signed) if has_ends else _bare(row.value, row.null_max95, signed=of.signed)
        titles[place_of(row.head)] = f"{row.head}: {text}, {p}"
    return {f"L{layer}H{head}": titles[layer, head] for layer, head in sorted(titles)}


def _bare(value: float, null: float, *, signed: bool) -> str:
    """A value of a map, with the decimals that its null limit supports."""
    return fixed(value, decimals(null) if null > 0 else 4, signed=signed)


def _caption(of: _Map) -> Caption:
    words = {"ablation": of.one("kind"), "positions": of.one("positions")}
    how = ", ".join(f"{word} {value}" for word, value in words.items() if value is not None)
    metric = of.one("metric") or "effect"
    what = f"engaged {MINUS} heuristic, {metric}" if of.signed else str(metric)
    clipped = int((np.abs(np.nan_to_num(of.grid.value)) > of.grid.limit).sum())
    varies = " (median over heads)" if np.nanmax(of.grid.null) > 1.01 * np.nanmin(of.grid.null) else ""
    return Caption(
        what=f"Head effects by layer and head{of.at}: {what}" + (f" ({how})" if how else ""),
        reading=(
            "Box: named before the sweep" if of.grid.named else "",
            "Right: sum over heads; top: largest absolute effect; dark where a head is significant",
        ),
        n=f"{of.size}; {of.count} heads, {int(of.grid.significant.sum())} beyond the null",
        interval=f"● {of.correction}; limits of the 95 % max-|t| null{varies} as two lines on the colour bar, and as "
        "the grey band above the map",
        control=(),
        notes=(
            f"Colour limits ±{of.grid.limit:.3g} (99.5th percentile, at least 3 × the null), "
            + ("1 head" if clipped == 1 else f"{clipped} heads")
            + " beyond",
            "Hatched: no head" if bool(np.isnan(of.grid.value).any()) else "",
        ),
    )


def _alt(of: _Map) -> list[str]:
    n_layers, n_heads = of.grid.value.shape
    order = [int(index) for index in np.argsort(-np.abs(np.nan_to_num(of.grid.value)), axis=None)]

    def words(layer: int, head: int) -> str:
        text = _bare(float(of.grid.value[layer, head]), of.grid.common_null, signed=of.signed)
        return f"L{layer}.H{head} ({text}, {'beyond' if of.grid.significant[layer, head] else 'within'} the null)"

    count = f"{int(of.grid.significant.sum())} of {of.count} heads are beyond the max-t null"
    first = words(*divmod(order[0], n_heads))
    named = [
        f"Named head {words(layer, head)}: rank {order.index(layer * n_heads + head) + 1} by size"
        for layer, head in of.grid.named
    ]
    return [f"Map of {n_layers} layers by {n_heads} heads{of.at}: {count}", f"Largest: {first}", *named]


def _read(table: DataFrame, *, signed: bool, n_layers: int | None = None) -> _Map:
    return _Map(table, Grid.of(table, n_layers=n_layers), signed)


def _spec(name: str, needed: str, *, signed: bool, rank: int, word: str) -> FigureSpec[_Map]:
    roles = Roles(
        needed,
        finite="layer value p_adjusted null_max95 n",
        mark="head",
        same="metric metric_unit kind positions decision_site",
    )
    read = partial(_read, signed=signed)
    return FigureSpec(name, roles, _draw, _caption, _alt, rank=rank, word=word, read=read)


_NEEDED = "layer head value p_adjusted null_max95 named n n_groups"
MAP = _spec("head_map", f"{_NEEDED} metric kind positions", signed=False, rank=3, word="map")
DIFFERENCE = _spec("head_difference", _NEEDED, signed=True, rank=2, word="heads_difference")


def head_map(table: DataFrame, *, width: Width = "icml", n_layers: int | None = None, ax: Axes | None = None) -> Drawn:
    """The effect of every head of one model; green helps, magenta hurts, zero is white.

    A dot marks max-|t| p ≤ .05; a box marks a head named before the sweep. Beside the map the sum over heads of each
    layer, above it the largest |effect| of each head index over the null band; dark bars hold a significant head.
    Colour limits are symmetric: the 99.5th percentile of |value|, at least three times the null limit.

    Args:
        table: the schema table `heads`, of one member, kind, metric and, of a table with several, site.
            Optional: `lo, hi` (shown on hover), `n_perm`.
        width: final width; unused where `ax` is given.
        n_layers: layers of the model, where the last ones have no heads; layers without rows are hatched.
        ax:    axes of a composite: the map and its colour bar alone, no marginals.
    Raises:
        ValueError: a column is missing or holds NaN, a head is repeated, or the metric varies.
    Source: FIGURES 05.
    """
    return MAP.drawn(table, width=width, ax=ax, n_layers=n_layers)


def head_difference(
    table: DataFrame, *, width: Width = "icml", n_layers: int | None = None, ax: Axes | None = None
) -> Drawn:
    """Engaged minus heuristic for every head, on the same items; blue is more in the engaged member.

    Only for members of one architecture, in which a head of one is the head of the other. Otherwise as `head_map`.

    Args:
        table: the schema table `heads_difference`, of one kind.
        width, n_layers, ax: as in `head_map`.
    Raises:
        ValueError: as in `head_map`.
    Source: FIGURES 08.
    """
    return DIFFERENCE.drawn(table, width=width, ax=ax, n_layers=n_layers)
