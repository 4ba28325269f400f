"""Figure 04: whether a probe trained on one checkpoint and layer reads another."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.head_grid import draw_cells, grid_ticks, neat_ceiling
from study.figures.marks import Marks
from study.figures.multiples import Room, small_multiples
from study.figures.numbers import format_estimate, short
from study.figures.numbers import tick_text as short_tick
from study.figures.style import MEMBERS, NOTE, TICK, Width, colour, colour_map, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "transfer"
COLUMNS = (
    "train_checkpoint", "test_checkpoint", "train_layer", "test_layer", "value", "lo", "hi", "metric", "chance", "n",
    "n_groups", "train_d_feature", "test_d_feature", "interval"
)  # fmt: skip
_BAR, _SIDE = 0.08, 0.5  # inches: the colour bar, and all that stands right of the blocks


def transfer(table: DataFrame, *, width: Width = "icml") -> Drawn:
    """Train layer against test layer for every pair of checkpoints; colour starts at chance, n.s. is hatched grey.

    Only for checkpoints whose residual streams are one space: equal width and, where given, one base.

    Args:
        table: one row per (train_checkpoint, train_layer, test_checkpoint, test_layer): `value, lo, hi, n, n_groups`,
            `metric`, `chance`, `train_d_feature, test_d_feature` (widths of the residual streams), `interval` (its
            kind). Optional: `train_base, test_base` (what the checkpoints were trained from), `variant`, `target`,
            `kind`, `unit`, `group_unit`, `model`, `dtype`. A cell is hatched where its interval includes chance or
            lies below it.
        width: final width.
    Raises:
        ValueError: a column is missing or holds NaN, widths or bases differ, a block is missing, or a cell repeats.
    Source: FIGURES 04; probes §A5 figure 3.
    """
    names = _check(table)
    blocks = list(product(names, names))
    marks = Marks()
    with styled():
        total, across = width_in(width), len(names)
        room = Room(left=0.45, right=_SIDE + 0.1, gap=0.13, bottom=0.4, between=0.16)
        inches = (total - room.left - room.right - room.gap * (across - 1)) / across
        tall = min(inches * _shape(table), 1.4 * inches)
        panels = small_multiples([f"{a} → {b}" for a, b in blocks], total, tall=tall, room=room, most=across)
        shade = _shade(table)
        for index, (panel, (a, b)) in enumerate(zip(panels.axes, blocks, strict=True)):
            _draw(panel, table[(table["train_checkpoint"] == a) & (table["test_checkpoint"] == b)], shade, marks, index)
            panel.tick_params(labelleft=panels.is_first(index), labelbottom=panels.is_last(index))
        _around(panels.axes, table, shade)
    return Drawn(
        canvas.figure_of(panels.axes[0]), table.copy(), _caption(table, names), _alt(table, blocks), marks.titles
    )


def _check(table: DataFrame) -> list[str]:
    """The checkpoints in drawn order."""
    numeric = ("train_layer", "test_layer", "value", "lo", "hi", "chance", "n", "train_d_feature", "test_d_feature")
    checks.require(table, COLUMNS, figure=FIGURE, numeric=numeric)
    _check_space(table)
    key = ("train_checkpoint", "train_layer", "test_checkpoint", "test_layer")
    for name in ("metric", "chance", "variant", "target", "kind"):
        checks.only_value(table, name, figure=FIGURE)
    checks.require_unique(table, key, figure=FIGURE)
    found = [str(name) for name in dict.fromkeys([*table["train_checkpoint"], *table["test_checkpoint"]])]
    names = sorted(found, key=lambda name: (MEMBERS[::-1].index(name) if name in MEMBERS else 9, found.index(name)))
    have = set(zip(table["train_checkpoint"].astype(str), table["test_checkpoint"].astype(str), strict=True))
    missing = [f"{a} → {b}" for a, b in product(names, names) if (a, b) not in have]
    if missing:
        raise ValueError(
            f"figure {FIGURE!r}: no rows for {', '.join(missing)}. A transfer is read against its two ceilings; no "
            "empty block is drawn."
        )
    return names


def _check_space(table: DataFrame) -> None:
    """Refuse what is no transfer: two widths, or two bases."""
    for what, left, right in (("d_model", "train_d_feature", "test_d_feature"), ("base", "train_base", "test_base")):
        if left not in table.columns or right not in table.columns:
            continue
        apart = np.flatnonzero(table[left].to_numpy() != table[right].to_numpy())
        if apart.size:
            row = table.iloc[int(apart[0])]
            raise ValueError(
                f"figure {FIGURE!r}: {row['train_checkpoint']} has {what} {row[left]}, {row['test_checkpoint']} has "
                f"{row[right]}: a direction of one does not exist in the other. Transfer needs equal width and a "
                "shared basis; compare the scores of the two on the same rows instead."
            )


def _shape(table: DataFrame) -> float:
    return (float(table["train_layer"].max()) + 1) / (float(table["test_layer"].max()) + 1)


def _reads(table: DataFrame) -> Any:
    """True of cells whose interval lies above chance."""
    return (table["lo"] > table["chance"]).to_numpy()


def _shade(table: DataFrame) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    chance = float(table["chance"].iloc[0])
    above = np.clip(table["value"].to_numpy(dtype=float) - chance, 0, None)
    top = neat_ceiling(max(float(np.percentile(above, 99.5)), 0.05))
    return ScalarMappable(Normalize(chance, chance + top), colour_map("sequential"))


def _draw(ax: Axes, rows: DataFrame, shade: Any, marks: Marks, index: int) -> None:
    """One block: a hatched ground, and coloured cells where the probe reads."""
    from matplotlib.patches import Rectangle

    size_x, size_y = int(rows["test_layer"].max()) + 1, int(rows["train_layer"].max()) + 1
    ax.set(xlim=(-0.5, size_x - 0.5), ylim=(-0.5, size_y - 0.5))
    tested = rows[["train_layer", "test_layer"]].to_numpy(dtype=int)
    if len(tested) == size_x * size_y:
        style: dict[str, Any] = {"facecolor": colour("null"), "edgecolor": colour("faint"), "hatch": "///"}
        ax.add_patch(Rectangle((-0.5, -0.5), size_x, size_y, linewidth=0, zorder=0, **style))
    else:
        for row, column in tested:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour("null"), linewidth=0, zorder=0))
    shown = rows[_reads(rows)].sort_values(["train_layer", "test_layer"])
    titles = {
        f"block{index}-{int(r.train_layer)}-{int(r.test_layer)}": f"trained at layer {int(r.train_layer)} of "
        f"{r.train_checkpoint}, read at layer {int(r.test_layer)} of {r.test_checkpoint}: {_estimate(r)}"
        for r in checks.records(shown)
    }
    if len(shown):
        draw_cells(ax, shown[["train_layer", "test_layer"]].to_numpy(dtype=int), shown["value"], shade, titles, marks)
    end = max(size_x, size_y) - 0.5
    ax.plot([-0.5, end], [-0.5, end], color=colour("on_heatmap_dark"), linewidth=0.5, linestyle=(0, (2, 2)), zorder=4)
    ax.set_xticks(_few(size_x))
    ax.set_yticks(_few(size_y))
    canvas.bare(ax, keep=("left", "bottom", "top", "right"))


def _few(count: int) -> list[int]:
    """First, middle and last layer: the blocks are small."""
    return sorted({0, count // 2, count - 1}) if count > 3 else grid_ticks(count)


def _estimate(row: Any) -> str:
    return format_estimate(row.value, row.lo, row.hi, n=int(row.n))


def _around(axes: list[Axes], table: DataFrame, shade: Any) -> None:
    """Names of the two axes, the colour bar with its unit, and what the hatch means."""
    from matplotlib.patches import Rectangle

    figure = canvas.figure_of(axes[0])
    w, h = figure.get_size_inches()
    boxes = [ax.get_position() for ax in axes]
    x0, x1 = min(b.x0 for b in boxes) * w, max(b.x1 for b in boxes) * w
    y0, y1 = min(b.y0 for b in boxes) * h, max(b.y1 for b in boxes) * h
    canvas.write(figure, (x0 + x1) / 2, y0 - 0.3, "test layer", size=7, role="ink", ha="center", va="center")
    canvas.write(figure, 0.11, (y0 + y1) / 2, "train layer", size=7, role="ink", ha="center", va="center", rotation=90)
    tall = min(1.5, (y1 - y0) - 0.62)
    top = y1 - 0.18
    bar_axes = canvas.axes_in(figure, x1 + 0.12, top - tall, _BAR, tall)
    clipped = bool((table["value"] > shade.norm.vmax).any())
    bar = figure.colorbar(shade, cax=bar_axes, extend="max" if clipped else "neither", extendfrac=0.05)
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    ticks = canvas.locator(4 if tall > 0.7 else 2).tick_values(shade.norm.vmin, shade.norm.vmax)
    ticks = [t for t in ticks if shade.norm.vmin - 1e-9 <= t <= shade.norm.vmax + 1e-9]
    bar.set_ticks(ticks, labels=[short_tick(t) for t in ticks])
    bar.ax.tick_params(labelsize=TICK, length=2, pad=2)
    canvas.write(figure, x1 + 0.12, y1, _metric(table), size=NOTE + 0.4, role="ink", ha="left", va="top")
    patch: dict[str, Any] = {"facecolor": colour("null"), "edgecolor": colour("faint"), "hatch": "//////"}
    low = top - tall - 0.27
    figure.add_artist(
        Rectangle(((x1 + 0.12) / w, low / h), 0.12 / w, 0.12 / h, transform=figure.transFigure, linewidth=0, **patch)
    )
    canvas.write(figure, x1 + 0.12, low - 0.05, "n.s.", va="top", ha="left")


def _metric(table: DataFrame) -> str:
    name = str(checks.only_value(table, "metric", figure=FIGURE))
    return {"auroc": "AUROC"}.get(name, name.replace("_", " "))


def _caption(table: DataFrame, names: list[str]) -> str:
    variant = checks.only_value(table, "variant", figure=FIGURE)
    shared = checks.only_value(table, "train_base", figure=FIGURE)
    target = checks.only_value(table, "target", figure=FIGURE)
    return checks.sentences(
        f"{_metric(table)} of probes" + (f" for {target}" if target else "")
        + f" trained on one checkpoint and layer and read on another ({', '.join(names)})"
        + (f", {variant}" if variant else ""),
        f"Width {int(table['train_d_feature'].iloc[0])}" + (f", shared base {shared}" if shared else ""),
        f"{checks.sample_size(table, figure=FIGURE)}, none of them used in training",
        f"Hatched: the 95 % {checks.interval_kind(table, figure=FIGURE)} interval includes chance "
        f"({short(float(table['chance'].iloc[0]))}) or lies below it; point-wise, {len(table)} cells",
        "Colour starts at chance; dashed: same layer",
        checks.provenance(table)
    )  # fmt: skip


def _alt(table: DataFrame, blocks: list[tuple[str, str]]) -> str:
    parts = []
    for a, b in blocks:
        rows = table[(table["train_checkpoint"].astype(str) == a) & (table["test_checkpoint"].astype(str) == b)]
        best = checks.records(rows.loc[[rows["value"].idxmax()]])[0]
        parts.append(
            f"{a} to {b}: {int(_reads(rows).sum())} of {len(rows)} cells above chance, best "
            f"{checks.largest_of(best, len(rows), best.value, best.lo, best.hi)} from layer {int(best.train_layer)} to "
            f"layer {int(best.test_layer)}"
        )
    return f"Transfer of probes, {_metric(table)}. " + ". ".join(parts) + "."
