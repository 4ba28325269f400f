"""Figures 05 and 08: which heads matter, and which of them changed by training, as layer × head maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.head_grid import Grid, box_named, draw_bar, draw_grid, draw_margins, place_of
from study.figures.marks import Marks
from study.figures.numbers import MINUS, decimals, fixed, format_estimate, format_p
from study.figures.style import NOTE, MapName, Width, styled, text_colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

DIFFERENCE_COLUMNS = ("layer", "head", "value", "p_adjusted", "null_max95", "named", "n", "n_groups")
MAP_COLUMNS = (*DIFFERENCE_COLUMNS, "metric", "kind", "positions")

_LEFT, _SIDE, _TOP = 0.41, 0.38, 0.42  # inches: ticks and label; right and top marginals
_BAR, _BAR_TICKS, _PAD = 0.08, 0.29, 0.05
_TALLEST = 1.7  # a map is at most this many times as high as wide; cells are square below that


@dataclass(frozen=True)
class _Kind:
    """What differs between the two maps."""

    figure: str
    cmap: MapName
    columns: tuple[str, ...]
    correction: str
    signed: bool


_EFFECT = _Kind("head_map", "effect_diverging", MAP_COLUMNS, "FWER p ≤ .05 (max-|t|)", False)
_DIFFERENCE = _Kind("head_difference", "member_diverging", DIFFERENCE_COLUMNS, "paired max-|t| FWER p ≤ .05", True)


def head_map(table: DataFrame, *, width: Width = "icml", n_layers: int | None = None, ax: Axes | None = None) -> Drawn:
    """The effect of every head of one model; green helps, magenta hurts, zero is white.

    A dot marks max-|t| p ≤ .05; a box marks a head named before the sweep. Beside the map the sum over heads of each
    layer, above it the largest |effect| of each head index over the null band; dark bars hold a significant head.
    Colour limits are symmetric: the 99.5th percentile of |value|, at least three times the null limit.

    Args:
        table: one row per head: `layer` (0-based), `head` (`L19.H17`), `value`, `p_adjusted`, `null_max95` (95 % limit
            of the max-|t| null in the unit of the value), `named` (bool), `n`, `n_groups`, `metric`, `kind` (of
            change), `positions`. Optional: `lo, hi` (shown on hover), `metric_unit`, `n_perm`, `unit`, `group_unit`,
            `model`, `dtype`.
        width: final width; unused where `ax` is given.
        n_layers: layers of the model, where the last ones have no heads; layers without rows are hatched.
        ax:    axes of a composite: the map and its colour bar alone, no marginals.
    Raises:
        ValueError: a column is missing or holds NaN, a head is repeated, or the metric varies.
    Source: FIGURES 05.
    """
    return _draw(table, _EFFECT, width=width, n_layers=n_layers, ax=ax)


def head_difference(
    table: DataFrame, *, width: Width = "icml", n_layers: int | None = None, ax: Axes | None = None
) -> Drawn:
    """Engaged minus heuristic for every head, on the same items; blue is more in the engaged member.

    Only for members of one architecture, in which a head of one is the head of the other. Otherwise as `head_map`.

    Args:
        table: one row per head: `layer, head, value, p_adjusted, null_max95, named, n, n_groups`. Optional: `metric`,
            `metric_unit`, `kind`, `positions`, `lo, hi`, and those of `head_map`.
        width, n_layers, ax: as in `head_map`.
    Raises:
        ValueError: as in `head_map`.
    Source: FIGURES 08.
    """
    return _draw(table, _DIFFERENCE, width=width, n_layers=n_layers, ax=ax)


def _draw(table: DataFrame, kind: _Kind, *, width: Width, n_layers: int | None, ax: Axes | None) -> Drawn:
    numeric = ("layer", "value", "p_adjusted", "null_max95", "n")
    checks.require(table, kind.columns, figure=kind.figure, numeric=numeric)
    checks.require_unique(table, ("head",), figure=kind.figure)
    grid = Grid.of(table, n_layers=n_layers)
    names = [f"L{layer}.H{head}" for layer, head in grid.named]
    marks = Marks()
    with styled():
        if ax is None:
            ax = _whole(table, grid, kind, width, marks)
        else:
            shade = draw_grid(ax, grid, kind.cmap, _titles(table, kind), marks)
            draw_bar(ax.inset_axes((1.02, 0, 0.035, 1)), shade, grid)
        box_named(ax, grid, names)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table, grid, kind), _alt(table, grid, kind), marks.titles)


def _whole(table: DataFrame, grid: Grid, kind: _Kind, width: Width, marks: Marks) -> Axes:
    """The figure with marginals and colour bar; returns the axes of the map."""
    n_layers, n_heads = grid.value.shape
    total = width_in(width)
    wide = total - _LEFT - 0.07 - _SIDE - 0.12 - _BAR - _BAR_TICKS - _PAD
    tall = min(n_layers * min(wide / n_heads, 0.42), _TALLEST * wide)
    foot = canvas.wrap(_footer(table, grid, kind), size=NOTE, max_in=total - 2 * _PAD)
    bottom = 0.36 + 0.11 * (foot.count("\n") + 1) + 0.05
    height = bottom + tall + 0.07 + _TOP + 0.06
    figure = canvas.new_figure(total, height)
    ax = canvas.axes_in(figure, _LEFT, bottom, wide, tall)
    top = canvas.axes_in(figure, _LEFT, bottom + tall + 0.07, wide, _TOP)
    right = canvas.axes_in(figure, _LEFT + wide + 0.07, bottom, _SIDE, tall)
    shade = draw_grid(ax, grid, kind.cmap, _titles(table, kind), marks)
    draw_margins(top, right, grid)
    canvas.write(figure, _PAD, 0.04, foot, va="bottom", ha="left", linespacing=1.25)
    upper = min(bottom + tall, height - 0.08) if tall > 1.3 else height - 0.06
    _colour_bar(figure, shade, grid, table, kind, left=total - _PAD - _BAR_TICKS - _BAR, upper=upper, lower=bottom)
    return ax


def _colour_bar(
    figure: Any, shade: Any, grid: Grid, table: DataFrame, kind: _Kind, *, left: float, upper: float, lower: float
) -> None:
    """The bar with its unit above and what its lines mean below."""
    head, foot = _bar_words(table, kind)
    size = min(max(upper - lower - 0.12 * (len(head) + len(foot)) - 0.12, 0.35), 1.6)
    top = upper - 0.12 * len(head) - 0.06
    draw_bar(canvas.axes_in(figure, left, top - size, _BAR, size), shade, grid)
    style: dict[str, Any] = {"ha": "right", "linespacing": 1.2}
    edge = figure.get_size_inches()[0] - _PAD + 0.03
    for row, (text, role) in enumerate(head):
        write = canvas.write(figure, edge, upper - 0.12 * row, text, va="top", size=NOTE + 0.4, **style)
        write.set_color(text_colour(role))
    for row, (text, role) in enumerate(foot):
        write = canvas.write(figure, edge, top - size - 0.06 - 0.12 * row, text, va="top", **style)
        write.set_color(text_colour(role))


def _bar_words(table: DataFrame, kind: _Kind) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Lines above and below the colour bar, each with the role that colours it."""
    metric = str(checks.only_value(table, "metric", figure=kind.figure, default="δ"))
    unit = checks.only_value(table, "metric_unit", figure=kind.figure)
    if not kind.signed:
        return [(metric, "ink")] + [(str(unit), "ink")] * (unit is not None), [
            ("lines:", "ink2"),
            ("95 % null", "ink2"),
        ]
    above = [(f"Δ {metric}", "ink"), ("more in", "engaged"), ("engaged", "engaged")]
    return above, [("more in", "heuristic"), ("heuristic", "heuristic")]


def _titles(table: DataFrame, kind: _Kind) -> dict[str, str]:
    titles = {}
    for row in table.to_dict("records"):
        p = format_p(row["p_adjusted"], permutations=_permutations(row))
        p = p if p.startswith("<") else f"= {p}"
        text = (
            format_estimate(row["value"], row["lo"], row["hi"], n=int(row["n"]), signed=kind.signed)
            if "lo" in row and "hi" in row
            else _bare(row["value"], row["null_max95"], signed=kind.signed)
        )
        titles[place_of(row["head"])] = f"{row['head']}: {text}, p {p}"
    return {f"L{layer}H{head}": titles[layer, head] for layer, head in sorted(titles)}


def _permutations(row: dict[Any, Any]) -> int | None:
    count = row.get("n_perm")
    return None if checks.is_absent(count) else int(count)  # pyright: ignore[reportArgumentType]


def _bare(value: float, null: float, *, signed: bool) -> str:
    """A value of a map, with the decimals that its null limit supports."""
    return fixed(value, decimals(null) if null > 0 else 4, signed=signed)


def _footer(table: DataFrame, grid: Grid, kind: _Kind) -> str:
    count = int(np.isfinite(grid.value).sum())
    same = "same items, " if kind.signed else ""
    return f"● {kind.correction}, {count} heads.  {same}{checks.sample_size(table, figure=kind.figure)}."


def _caption(table: DataFrame, grid: Grid, kind: _Kind) -> str:
    words = {"ablation": "kind", "positions": "positions"}
    settings = {word: checks.only_value(table, name, figure=kind.figure) for word, name in words.items()}
    metric = checks.only_value(table, "metric", figure=kind.figure) or "effect"
    how = ", ".join(f"{word} {value}" for word, value in settings.items() if value is not None)
    what = f"engaged {MINUS} heuristic, {metric}" if kind.signed else str(metric)
    clipped = int((np.abs(np.nan_to_num(grid.value)) > grid.limit).sum())
    varies = " (median over heads)" if np.nanmax(grid.null) > 1.01 * np.nanmin(grid.null) else ""
    gaps = bool(np.isnan(grid.value).any())
    return checks.sentences(
        f"Head effects by layer and head: {what}" + (f" ({how})" if how else ""),
        checks.sample_size(table, figure=kind.figure)
        + f"; {int(np.isfinite(grid.value).sum())} heads, {int(grid.significant.sum())} beyond the null",
        f"● {kind.correction}; limits of the 95 % max-|t| null{varies} as two lines on the colour bar"
        + ", and as the grey band above the map",
        "Box: named before the sweep" if grid.named else "",
        "Right: sum over heads; top: largest absolute effect; dark where a head is significant",
        f"Colour limits ±{grid.limit:.3g} (99.5th percentile, at least 3 × the null), "
        + ("1 head" if clipped == 1 else f"{clipped} heads")
        + " beyond",
        "Hatched: no head" if gaps else "",
        checks.provenance(table),
    )


def _alt(table: DataFrame, grid: Grid, kind: _Kind) -> str:
    n_layers, n_heads = grid.value.shape
    order = np.argsort(-np.abs(np.nan_to_num(grid.value)), axis=None)
    rank = {int(index): place + 1 for place, index in enumerate(order)}

    def words(layer: int, head: int) -> str:
        text = _bare(float(grid.value[layer, head]), grid.common_null, signed=kind.signed)
        return f"L{layer}.H{head} ({text}, {'beyond' if grid.significant[layer, head] else 'within'} the null)"

    named = [
        f"Named head {words(layer, head)}: rank {rank[layer * n_heads + head]} by size." for layer, head in grid.named
    ]
    first = words(*divmod(int(order[0]), n_heads))
    count = f"{int(grid.significant.sum())} of {int(np.isfinite(grid.value).sum())} heads are beyond the max-t null"
    return " ".join([f"Map of {n_layers} layers by {n_heads} heads: {count}. Largest: {first}.", *named])
