"""The depth axis: integer layers where all models are equally deep, else relative depth with one ruler per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from study.figures import canvas
from study.figures.head_grid import grid_ticks
from study.figures.mpl import Style
from study.figures.style import MEMBERS, NOTE, TICK, colour, text_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

RULER = 0.165
"""Inches that one layer ruler takes above the axes."""


@dataclass(frozen=True)
class Curve:
    """One checkpoint of a figure: its name, its role (which decides colour and marker), its number of layers."""

    name: str
    role: str
    n_layers: int = 0

    @property
    def label(self) -> str:
        return self.name

    def rows(self, table: DataFrame) -> DataFrame:
        """Its rows in the order of depth."""
        own = table[table["member"] == self.name]
        return own.sort_values("depth", kind="stable") if "depth" in table.columns else own


def curves_of(table: DataFrame, *, figure: str) -> list[Curve]:
    """The checkpoints of the column `member`, engaged first. One with another name takes the first free role.

    Raises:
        ValueError: more checkpoints than there are roles, each of which has one colour.
    """
    names = list(dict.fromkeys(map(str, table["member"])))
    if len(names) > len(MEMBERS):
        raise ValueError(
            f"figure {figure!r}: {len(names)} checkpoints ({', '.join(names)}); a figure shows at most {len(MEMBERS)}."
        )
    free = iter([role for role in MEMBERS if role not in names])
    roles = {name: name if name in MEMBERS else next(free) for name in names}
    return [Curve(name, own) for role in MEMBERS for name, own in roles.items() if own == role]


def with_layers(curves: Sequence[Curve], table: DataFrame, *, figure: str) -> list[Curve]:
    """The same checkpoints with their number of layers L, from  depth = (layer + ½) / L.

    Raises:
        ValueError: a depth is outside (0, 1), or no one L gives the depths of a checkpoint.
    """
    out = []
    for curve in curves:
        rows = curve.rows(table)
        layer, depth = (rows[name].to_numpy(dtype=float) for name in ("layer", "depth"))
        found = (layer + 0.5) / np.where(depth > 0, depth, np.nan)
        n_layers = round(float(np.nanmedian(found))) if np.isfinite(found).any() else 0
        if n_layers < 1 or not np.allclose(depth * n_layers, layer + 0.5, atol=0.05) or layer.max() >= n_layers:
            raise ValueError(
                f"figure {figure!r}: depths of {curve.name} are not (layer + ½)/L for one number of layers L "
                f"(layer {layer[0]:g} has depth {depth[0]:g}). Points stay where their layers are: write "
                "depth = (layer + 0.5) / n_layers, layers counted from 0."
            )
        out.append(Curve(curve.name, curve.role, n_layers))
    return out


def is_relative(curves: Sequence[Curve]) -> bool:
    """True where the models differ in depth, so that only relative depth is common."""
    return len({curve.n_layers for curve in curves}) > 1


def place(rows: DataFrame, *, relative: bool) -> np.ndarray:
    """Where the rows stand: their layer, or their relative depth."""
    return rows["depth" if relative else "layer"].to_numpy(dtype=float)


def depth_axis(ax: Axes, curves: Sequence[Curve]) -> None:
    """Limits, ticks and name of the horizontal axis, and the rulers above it where depths differ."""
    if not is_relative(curves):
        n_layers = curves[0].n_layers
        ax.set_xlim(-0.5, n_layers - 0.5)
        ax.set_xticks(sparse_ticks(n_layers, ax))
        ax.set_xlabel("layer")
        return
    ax.set_xlim(0, 1)
    ax.set_xlabel("relative depth  (layer + ½) / L")
    ax.xaxis.set_major_locator(canvas.locator(5))
    for row, curve in enumerate(curves):
        _ruler(ax, curve, RULER * row)


def sparse_ticks(n_layers: int, ax: Axes) -> list[int]:
    """Layer ticks as on a map, thinned until their labels stand apart."""
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0]
    ticks = grid_ticks(n_layers)
    while len(ticks) > 2 and inches * (ticks[-1] - ticks[-2]) / n_layers < 0.2:
        ticks = ticks[::2] if len(ticks) % 2 else ticks[:-1][::2]
    return ticks


def _ruler(ax: Axes, curve: Curve, lift: float) -> None:
    """The layers of one model along relative depth, `lift` inches above the axes, in its colour."""
    h = ax.get_position().height * canvas.figure_of(ax).get_size_inches()[1]
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0]
    y = 1 + lift / h
    style: Style = {"transform": ax.get_xaxis_transform(), "clip_on": False, "color": colour(curve.role)}
    ax.plot([0, 1], [y, y], linewidth=0.8, zorder=5, **style)
    step = next(s for s in (1, 2, 4, 8, 16, 32, 64, 128) if curve.n_layers / s <= max(inches / 0.45, 2))
    for layer in range(0, curve.n_layers, step):
        x = (layer + 0.5) / curve.n_layers
        ax.plot([x, x], [y, y + 0.03 / h], linewidth=0.6, zorder=5, **style)
        ax.text(
            x,
            y + 0.04 / h,
            str(layer),
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=TICK - 0.5 if TICK - 0.5 > NOTE else NOTE,
            color=text_colour(curve.role),
        )
