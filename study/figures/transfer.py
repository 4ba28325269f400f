"""Figure 04: whether a probe trained on one checkpoint and layer reads another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.head_grid import draw_cells, grid_ticks, neat_ceiling
from study.figures.mpl import ScalarMappable, Style
from study.figures.multiples import Room
from study.figures.numbers import estimate_of, short, tick_text
from study.figures.style import LABEL, MEMBERS, NOTE, TICK, Width, colour, colour_map

FIGURE = "transfer"
_NUMBERS = "train_layer test_layer value lo hi chance n train_d_feature test_d_feature"
_BAR, _SIDE = 0.08, 0.5  # inches: the colour bar, and all that stands right of the blocks


@dataclass(frozen=True)
class _Transfer:
    """The table, its checkpoints in drawn order, and chance."""

    table: DataFrame
    names: list[str]
    chance: float
    metric: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        return list(product(self.names, self.names))

    def rows(self, block: tuple[str, str]) -> DataFrame:
        columns = (self.table[f"{end}_checkpoint"].astype(str) for end in ("train", "test"))
        a, b = (column == name for column, name in zip(columns, block, strict=True))
        return self.table[a & b]


def _read(table: DataFrame) -> _Transfer:
    for what, left, right in (("d_model", "train_d_feature", "test_d_feature"), ("base", "train_base", "test_base")):
        if left in table.columns and right in table.columns:
            _refuse_apart(table, what, left, right)
    found = [str(name) for name in dict.fromkeys([*table["train_checkpoint"], *table["test_checkpoint"]])]
    names = sorted(found, key=lambda name: (MEMBERS[::-1].index(name) if name in MEMBERS else 9, found.index(name)))
    have = set(zip(table["train_checkpoint"].astype(str), table["test_checkpoint"].astype(str), strict=True))
    missing = [f"{a} → {b}" for a, b in product(names, names) if (a, b) not in have]
    if missing:
        raise ValueError(
            f"figure {FIGURE!r}: no rows for {', '.join(missing)}. A transfer is compared with its two ceilings; "
            "no empty block is drawn."
        )
    return _Transfer(table, names, float(table["chance"].iloc[0]), checks.metric_name(table, FIGURE))


def _refuse_apart(table: DataFrame, what: str, left: str, right: str) -> None:
    """Refuse what is no transfer: two widths, or two bases."""
    apart = np.flatnonzero(table[left].to_numpy() != table[right].to_numpy())
    if apart.size:
        row = table.iloc[int(apart[0])]
        raise ValueError(
            f"figure {FIGURE!r}: {row['train_checkpoint']} has {what} {row[left]}, {row['test_checkpoint']} has "
            f"{row[right]}: a direction of one does not exist in the other. Transfer needs equal width and a "
            "shared basis; compare the scores of the two on the same rows instead."
        )


def _draw(page: Page, of: _Transfer) -> Axes:
    across = len(of.names)
    room = Room(left=0.45, right=_SIDE + 0.1, gap=0.13, bottom=0.4, between=0.16)
    wide = (page.total - room.left - room.right - room.gap * (across - 1)) / across
    shape = (float(of.table["train_layer"].max()) + 1) / (float(of.table["test_layer"].max()) + 1)
    titles = [f"{a} → {b}" for a, b in of.blocks]
    panels = page.panels(titles, tall=min(wide * shape, 1.4 * wide), room=room, most=across)
    shade = _shade(of)
    for index, (ax, block) in enumerate(zip(panels.axes, of.blocks, strict=True)):
        _draw_block(page, ax, of.rows(block), shade, index)
        ax.tick_params(labelleft=panels.is_first(index), labelbottom=panels.is_last(index))
    _around(panels.axes, of, shade)
    return panels.axes[0]


def _shade(of: _Transfer) -> ScalarMappable:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    above = np.clip(of.table["value"].to_numpy(dtype=float) - of.chance, 0, None)
    top = neat_ceiling(max(float(np.percentile(above, 99.5)), 0.05))
    return ScalarMappable(Normalize(of.chance, of.chance + top), colour_map("sequential"))


def _draw_block(page: Page, ax: Axes, rows: DataFrame, shade: ScalarMappable, index: int) -> None:
    """One block: a hatched ground, and coloured cells where the probe reads."""
    size_x, size_y = int(rows["test_layer"].max()) + 1, int(rows["train_layer"].max()) + 1
    ax.set(xlim=(-0.5, size_x - 0.5), ylim=(-0.5, size_y - 0.5))
    tested = rows[["train_layer", "test_layer"]].to_numpy(dtype=int)
    style: Style = {"face": colour("null"), "linewidth": 0, "zorder": 0}
    if len(tested) == size_x * size_y:
        canvas.box(ax, -0.5, -0.5, size_x, size_y, edge=colour("faint"), hatch="///", **style)
    else:
        for row, column in tested:
            canvas.box(ax, column - 0.5, row - 0.5, 1, 1, **style)
    shown = rows[_reads(rows)].sort_values(["train_layer", "test_layer"])
    titles = {
        f"block{index}-{int(r.train_layer)}-{int(r.test_layer)}": f"trained at layer {int(r.train_layer)} of "
        f"{r.train_checkpoint}, applied at layer {int(r.test_layer)} of {r.test_checkpoint}: {estimate_of(r)}"
        for r in checks.records(shown)
    }
    if len(shown):
        cells = shown[["train_layer", "test_layer"]].to_numpy(dtype=int)
        draw_cells(ax, cells, shown["value"].to_numpy(), shade, titles, page.marks)
    end = max(size_x, size_y) - 0.5
    ax.plot([-0.5, end], [-0.5, end], color=colour("on_heatmap_dark"), linewidth=0.5, linestyle=(0, (2, 2)), zorder=4)
    ax.set_xticks(_few(size_x))
    ax.set_yticks(_few(size_y))
    canvas.bare(ax, keep=("left", "bottom", "top", "right"))


def _reads(table: DataFrame) -> np.ndarray:
    """True of cells whose interval lies above chance."""
    return (table["lo"] > table["chance"]).to_numpy()


def _few(count: int) -> list[int]:
    """First, middle and last layer: the blocks are small."""
    return sorted({0, count // 2, count - 1}) if count > 3 else grid_ticks(count)


def _around(axes: list[Axes], of: _Transfer, shade: ScalarMappable) -> None:
    """Names of the two axes, the colour bar with its unit, and what the hatch means."""
    from matplotlib.patches import Rectangle

    figure = canvas.figure_of(axes[0])
    w, h = figure.get_size_inches()
    boxes = [ax.get_position() for ax in axes]
    x0, x1 = min(b.x0 for b in boxes) * w, max(b.x1 for b in boxes) * w
    y0, y1 = min(b.y0 for b in boxes) * h, max(b.y1 for b in boxes) * h
    middle: Style = {"size": LABEL, "role": "ink", "ha": "center", "va": "center"}
    canvas.write(figure, (x0 + x1) / 2, y0 - 0.3, "test layer", **middle)
    canvas.write(figure, 0.11, (y0 + y1) / 2, "train layer", rotation=90, **middle)
    tall = min(1.5, (y1 - y0) - 0.62)
    left, top = x1 + 0.12, y1 - 0.18
    clipped = bool((of.table["value"] > shade.get_clim()[1]).any())
    bar_axes = canvas.axes_in(figure, left, top - tall, _BAR, tall)
    bar = figure.colorbar(shade, cax=bar_axes, extend="max" if clipped else "neither", extendfrac=0.05)
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    least, largest = shade.get_clim()
    ticks = canvas.locator(4 if tall > 0.7 else 2).tick_values(least, largest)
    ticks = [t for t in ticks if least - 1e-9 <= t <= largest + 1e-9]
    bar.set_ticks(ticks, labels=[tick_text(t) for t in ticks])
    bar.ax.tick_params(labelsize=TICK, length=2, pad=2)
    canvas.write(figure, left, y1, of.metric, size=NOTE + 0.4, role="ink", ha="left", va="top")
    patch: Style = {"facecolor": colour("null"), "edgecolor": colour("faint"), "hatch": "//////"}
    low = top - tall - 0.27
    patch |= {"transform": figure.transFigure, "linewidth": 0}
    figure.add_artist(Rectangle((left / w, low / h), 0.12 / w, 0.12 / h, **patch))
    canvas.write(figure, left, low - 0.05, "n.s.", va="top", ha="left")


def _caption(of: _Transfer) -> Caption:
    one = {name: checks.only_value(of.table, name, figure=FIGURE) for name in ("variant", "train_base", "target")}
    target, variant = (f" for {one['target']}" if one["target"] else ""), one["variant"]
    how = f"trained on one checkpoint and layer and applied to another ({', '.join(of.names)})"
    base = f", shared base {one['train_base']}" if one["train_base"] else ""
    kind = checks.interval_kind(of.table, figure=FIGURE)
    return Caption(
        what=[
            f"{of.metric} of probes{target} {how}" + (f", {variant}" if variant else ""),
            f"Width {int(of.table['train_d_feature'].iloc[0])}{base}",
        ],
        n=f"{checks.sample_size(of.table, figure=FIGURE)}, none of them used in training",
        interval=f"Hatched: the 95 % {kind} interval includes chance ({short(of.chance)}) or lies below it; "
        f"point-wise, {len(of.table)} cells",
        control="Colour starts at chance; dashed: same layer",
    )


def _alt(of: _Transfer) -> list[str]:
    parts = [f"Transfer of probes, {of.metric}"]
    for a, b in of.blocks:
        rows = of.rows((a, b))
        best = checks.records(rows.loc[[rows["value"].idxmax()]])[0]
        most = checks.largest_of(best, len(rows), best.value, best.lo, best.hi)
        place = f"from layer {int(best.train_layer)} to layer {int(best.test_layer)}"
        parts.append(f"{a} to {b}: {int(_reads(rows).sum())} of {len(rows)} cells above chance, best {most} {place}")
    return parts


_ROLES = Roles(
    f"train_checkpoint test_checkpoint metric n_groups interval {_NUMBERS}",
    finite=_NUMBERS,
    mark="train_checkpoint train_layer test_checkpoint test_layer",
    same="metric chance variant target kind",
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=9, read=_read)


def transfer(table: DataFrame, *, width: Width = "icml") -> Drawn:
    """Train layer against test layer for every pair of checkpoints; colour starts at chance, n.s. is hatched grey.

    Only for checkpoints whose residual streams are one space: equal width and, where given, one base. A cell is hatched
    where its interval includes chance or lies below it.

    Args:
        table: rows of the schema table `probes_transfer`, of one kind, target and variant: one per (train_checkpoint,
            train_layer, test_checkpoint, test_layer). Optional: `train_base, test_base` (what the checkpoints were
            trained from).
        width: final width.
    Raises:
        ValueError: a column is missing or holds NaN, widths or bases differ, a block is missing, or a cell repeats.
    Source: FIGURES 04; probes §A5 figure 3.
    """
    return SPEC.drawn(table, width=width)
