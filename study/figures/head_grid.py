"""The layer × head grid that figures 05 and 08 share: cells, significant dots, named heads, marginals, colour bar."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats import rejects
from study.figures import canvas
from study.figures.marks import Marks, reference
from study.figures.mpl import Axes, DataFrame, ScalarMappable, Style
from study.figures.numbers import tick_text
from study.figures.style import NOTE, TICK, MapName, colour, colour_map

_NEAT = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
LABEL_INCHES = 0.27  # from the axes to the name of a vertical axis
_DOT = 2.2  # points, at most


def place_of(name: str) -> tuple[int, int]:
    """(layer, head) of `L19.H17`.

    Raises:
        ValueError: the name of a set of heads, or none at all.
    """
    match = re.fullmatch(r"L(\d+)\.H(\d+)", name)
    if match is None:
        raise ValueError(f"a map has one cell per head; {name!r} is not the name of one head, such as 'L19.H17'.")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Grid:
    """Head effects as arrays [layer, head]; NaN where the layer has no such head."""

    value: np.ndarray
    significant: np.ndarray
    null: np.ndarray
    named: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, table: DataFrame, *, n_layers: int | None) -> Grid:
        """Arrays from one row per head; `named` is true of heads that were named before the sweep."""
        layer, head = np.array([place_of(name) for name in table["head"]]).T
        shape = (max(int(layer.max()) + 1, n_layers or 0), int(head.max()) + 1)
        arrays = [np.full(shape, np.nan) for _ in range(3)]
        for array, column in zip(arrays, ("value", "p_adjusted", "null_max95"), strict=True):
            array[layer, head] = table[column].to_numpy(dtype=float)
        is_named = table["named"].to_numpy(dtype=bool)
        named = tuple(zip(layer[is_named].tolist(), head[is_named].tolist(), strict=True))
        return cls(arrays[0], rejects(arrays[1]), arrays[2], named)

    @property
    def limit(self) -> float:
        """Symmetric colour limit: the 99.5th percentile of |value|, rounded up to a neat step.

        At least three times the null limit, so that what is inside the null stays pale, also where nothing is found.
        """
        percentile = float(np.nanpercentile(np.abs(self.value), 99.5))
        return neat_ceiling(max(percentile, 3 * self.common_null) or 1.0)

    @property
    def common_null(self) -> float:
        """The null limit: one for all heads, or the median of limits that differ by head."""
        return float(np.nanmedian(self.null))


def neat_ceiling(x: float) -> float:
    """The smallest neat number (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten) that is >= x > 0."""
    power = 10.0 ** math.floor(math.log10(x))
    return next(step * power for step in _NEAT if step * power >= x * (1 - 1e-9))


def _neat_floor(x: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is <= x > 0."""
    power = 10.0 ** math.floor(math.log10(x))
    return max(step * power for step in (1, 2, 5) if step * power <= x * (1 + 1e-9))


def draw_grid(ax: Axes, grid: Grid, cmap: MapName, titles: dict[str, str], marks: Marks) -> ScalarMappable:
    """Cells, hatched gaps, dots and boxes on one axes; returns what a colour bar needs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shade = ScalarMappable(Normalize(-grid.limit, grid.limit), colour_map(cmap))
    present = np.argwhere(np.isfinite(grid.value))
    draw_cells(ax, present, grid.value[tuple(present.T)], shade, titles, marks)
    n_layers, n_heads = grid.value.shape
    ax.set(xlim=(-0.5, n_heads - 0.5), ylim=(-0.5, n_layers - 0.5), xlabel="head", ylabel="layer")
    ax.yaxis.set_label_coords(-LABEL_INCHES / (cell_inches(ax)[0] * n_heads), 0.5)
    ax.set_xticks(grid_ticks(n_heads))
    ax.set_yticks(grid_ticks(n_layers))
    canvas.bare(ax, keep=("left", "bottom", "top", "right"))
    _hatch_gaps(ax, grid)
    _dots(ax, grid)
    return shade


def draw_cells(
    ax: Axes, places: np.ndarray, values: np.ndarray, shade: ScalarMappable, titles: dict[str, str], marks: Marks
) -> None:
    """Unit squares around (row, column) places, coloured by value; each has its words."""
    from matplotlib.collections import PolyCollection

    corner = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = np.asarray(places)[:, None, ::-1] + corner[None]
    faces = shade.to_rgba(values)
    cells = PolyCollection(list(squares), facecolors=faces, edgecolors=faces, linewidths=0.15, antialiaseds=False)
    ax.add_collection(cells, autolim=False)
    marks.name_cells(cells, titles)


def grid_ticks(count: int) -> list[int]:
    step = 7 if count in (14, 28, 56) else 8 if count > 20 else 4 if count > 10 else 2 if count > 5 else 1
    ticks = list(range(0, count, step))
    if count - 1 - ticks[-1] >= 0.75 * step:
        ticks.append(count - 1)
    return ticks


def _hatch_gaps(ax: Axes, grid: Grid) -> None:
    """Layers without heads are hatched, never shown as zeros; so are heads that a layer lacks."""
    style: Style = {"face": colour("paper"), "edge": colour("control"), "hatch": "//////", "linewidth": 0}
    for layer, row in enumerate(np.isnan(grid.value)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        for start, stop in edges.reshape(-1, 2):
            canvas.box(ax, start - 0.5, layer - 0.5, stop - start, 1, **style)


def _dots(ax: Axes, grid: Grid) -> None:
    """A dot in each significant cell (a star would hide the colour), light on dark cells."""
    size = min(_DOT, 0.32 * 72 * min(cell_inches(ax)))
    for dark in (False, True):
        chosen = np.argwhere(grid.significant & (_is_dark(grid) == dark))
        if len(chosen):
            shade = colour("on_heatmap_light" if dark else "on_heatmap_dark")
            ax.plot(chosen[:, 1], chosen[:, 0], "o", color=shade, markersize=size, markeredgewidth=0, zorder=5)


def _is_dark(grid: Grid) -> np.ndarray:
    return np.abs(np.nan_to_num(grid.value)) > 0.62 * grid.limit


def cell_inches(ax: Axes) -> tuple[float, float]:
    """Width and height of one cell in inches."""
    (w, h), (x0, x1), (y0, y1) = canvas.size_of(ax), ax.get_xlim(), ax.get_ylim()
    return w / (x1 - x0), h / (y1 - y0)


def box_named(ax: Axes, grid: Grid, labels: Sequence[str]) -> None:
    """A box around every head named before the sweep, with its name in the cell, or beside it where it covers least.

    Bold ink is for heads beyond the null; a named head that does nothing gets a thin box and a plain name.
    """
    placed: list[_Place] = []
    cell_w, cell_h = cell_inches(ax)
    light, dark = colour("on_heatmap_light"), colour("on_heatmap_dark")  # cells keep their colours on a dark page
    for (layer, head), label in zip(grid.named, labels, strict=True):
        is_found = bool(grid.significant[layer, head])
        frame: Style = {"edge": dark, "linewidth": 1.1 if is_found else 0.5, "zorder": 6, "clip_on": False}
        canvas.box(ax, head - 0.5, layer - 0.5, 1, 1, fill=False, **frame)
        style: Style = {"fontsize": NOTE, "fontweight": "bold" if is_found else "normal", "va": "center"}
        inside = next((text for text in _as_lines(label) if _fits(text, cell_w, cell_h, is_found)), "")
        if inside:
            y = layer + 0.5 - (0.075 + 0.045 * inside.count("\n")) / cell_h
            shade = light if _is_dark(grid)[layer, head] else dark
            ax.text(head, y, inside, ha="center", color=shade, linespacing=1.0, **style)
            continue
        w = (canvas.text_width(label, size=NOTE + 0.4, weight=style["fontweight"]) + 0.04) / cell_w
        place = _clearest(grid, layer, head, (w, 0.12 / cell_h), (0.12 / cell_w, min(1.0, 0.16 / cell_h)), placed)
        placed.append(place)
        (x0, y0), (x1, y1) = place.leader
        ax.plot([x0, x1], [y0, y1], color=dark, linewidth=0.7 if is_found else 0.4, zorder=6)
        style |= {"fontsize": NOTE + 0.4, "ha": "left" if x1 > x0 else "right", "color": dark, "zorder": 7}
        ax.text(x1, y1, label, bbox={"facecolor": light, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}, **style)


def _as_lines(label: str) -> tuple[str, str]:
    """A name in one line, and broken before its head."""
    return label, label.replace(".", ".\n", 1)


def _fits(text: str, cell_w: float, cell_h: float, is_bold: bool) -> bool:
    """Whether a name has room in its cell; that of a head beyond the null above the dot in the middle."""
    width = canvas.text_width(text, size=NOTE, weight="bold" if is_bold else "normal") + 0.04
    height = 0.08 + 0.09 * (1 + text.count("\n"))
    return width < 0.95 * cell_w and (2 * height - 0.06 if is_bold else height) < cell_h


@dataclass(frozen=True)
class _Place:
    """A label beside its cell: left, lower, right, upper end, and the line from the cell to it."""

    box: tuple[float, float, float, float]
    leader: tuple[tuple[float, float], tuple[float, float]]

    def meets(self, other: _Place) -> bool:
        """True where the boxes overlap or the lines cross."""
        (a, b), (c, d) = self.leader, other.leader
        crosses = _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0
        left, low, right, high = self.box
        x0, y0, x1, y1 = other.box
        return crosses or (left < x1 and x0 < right and low < y1 and y0 < high)


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _clearest(
    grid: Grid, layer: int, head: int, size: tuple[float, float], step: tuple[float, float], placed: Sequence[_Place]
) -> _Place:
    """The place for a label of this size (in cells) that covers the least effect, `step` cells from its head."""
    n_layers, n_heads = grid.value.shape
    (w, h), gap = size, 0.5 + step[0]
    weight = np.abs(np.nan_to_num(grid.value)) / grid.limit + 10 * grid.significant
    for row, column in grid.named:
        weight[row, column] += 100

    def at(side: int, up: float) -> _Place:
        near, y = head + gap * side, layer + up
        left = min(near, near + side * w)
        return _Place((left, y - h / 2, left + w, y + h / 2), ((head + 0.5 * side, layer), (near, y)))

    def cost(place: _Place) -> float:
        left, low, right, high = place.box
        if left < -0.5 or right > n_heads - 0.5 or low < -0.5 or high > n_layers - 0.5:
            return math.inf
        rows, columns = (slice(max(round(a), 0), round(b) + 1) for a, b in ((low, high), (left, right)))
        (x0, y0), (x1, y1) = place.leader
        meets = 1000 * any(place.meets(other) for other in placed)
        return meets + float(weight[rows, columns].sum()) + 0.15 * abs(y1 - y0) / step[1] + 0.05 * (x1 < x0)

    lifts = [0.0, *(sign * k * step[1] for k in (1, 2, 3, 4, 6) for sign in (1, -1))]
    return min((at(side, up) for side in (1, -1) for up in lifts), key=cost)


def draw_margins(top: Axes, right: Axes, grid: Grid) -> None:
    """Largest |effect| per head over the null band, and the sum over heads per layer; dark where significant."""
    n_layers, n_heads = grid.value.shape
    size = np.nan_to_num(np.abs(grid.value))
    row = size.argmax(axis=0)
    null = np.nan_to_num(grid.null[row, np.arange(n_heads)])
    edges = np.arange(n_heads + 1) - 0.5
    top.stairs(null, edges, fill=True, color=colour("null"), zorder=0)
    top.bar(np.arange(n_heads), size.max(axis=0), width=0.72, color=_shades(grid.significant, axis=0))
    sums = np.nansum(grid.value, axis=1)
    right.barh(np.arange(n_layers), sums, 0.72, color=_shades(grid.significant, axis=1))
    reference(right, x=0, style="solid", linewidth=0.6, zorder=2)
    top.set(xlim=(-0.5, n_heads - 0.5), xticks=[], ylim=(0, max(float(size.max()), float(null.max())) * 1.08 or 1.0))
    right.set(ylim=(-0.5, n_layers - 0.5), yticks=[])
    top.set_ylabel("max |·|", fontsize=TICK)
    top.yaxis.set_label_coords(-LABEL_INCHES / canvas.size_of(top)[0], 0.5)
    right.set_xlabel("Σ heads", fontsize=TICK)
    canvas.bare(top, keep=("left",))
    canvas.bare(right)
    upper = _neat_floor(top.get_ylim()[1])
    top.set_yticks([0, upper], labels=["0", tick_text(upper)])
    _one_tick(right, float(sums.min()), float(sums.max()))


def _one_tick(ax: Axes, low: float, high: float) -> None:
    """One neat value, and zero where there is room for both: the panel is too narrow for more."""
    extreme = high if high >= -0.5 * low else low
    ax.margins(x=0.12)
    if extreme == 0:
        ax.set_xticks([0], labels=["0"])
        return
    size = _neat_floor(abs(extreme))
    text = tick_text(math.copysign(size, extreme))
    left, right = ax.get_xlim()
    apart = size / (right - left) * canvas.size_of(ax)[0]
    zero = [0.0] if apart - canvas.text_width(text, size=TICK) * (1 if extreme < 0 else 0.5) > 0.06 else []
    ax.set_xticks([*zero, math.copysign(size, extreme)], labels=["0"] * len(zero) + [text])
    if extreme < 0:
        ax.get_xticklabels()[-1].set_horizontalalignment("left")


def _shades(is_dark: np.ndarray, *, axis: int) -> list[str]:
    return [colour("base" if one else "faint") for one in np.any(is_dark, axis=axis)]


def draw_bar(ax: Axes, shade: ScalarMappable, grid: Grid) -> None:
    """Vertical colour bar with the null limits as two lines; arrows at its ends where colours are clipped."""
    low, high = np.nanmin(grid.value) < -grid.limit, np.nanmax(grid.value) > grid.limit
    extend = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    bar = canvas.figure_of(ax).colorbar(shade, cax=ax, extend=extend[bool(low), bool(high)], extendfrac=0.05)
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    steps = (-2, -1, 0, 1, 2) if canvas.size_of(ax)[1] > 0.75 else (-2, 0, 2)
    ticks = [step * grid.limit / 2 for step in steps]
    bar.set_ticks(ticks, labels=[tick_text(x) for x in ticks])
    bar.ax.tick_params(labelsize=TICK, length=2, pad=2)
    if grid.common_null <= grid.limit:
        bar.ax.hlines([-grid.common_null, grid.common_null], 0, 1, color=colour("on_heatmap_dark"), linewidth=0.7)
