"""Direct labels: a place beside its line where a label covers no other line and no other label, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.figures import canvas
from study.figures.mpl import Axes, Style
from study.figures.style import NOTE


@dataclass(frozen=True)
class Labelled:
    """A line with the text that names it: data x and y, colour and weight of the text; no text where it is avoided."""

    x: Sequence[float]
    y: Sequence[float]
    text: str = ""
    colour: str = ""
    weight: str = "normal"


def label_lines(
    ax: Axes, lines: Sequence[Labelled], *, avoid: Sequence[Labelled] = (), size: float = NOTE + 0.4
) -> bool:
    """Write every label beside its line, or none of them.

    Args:
        avoid: further lines that no label may cover.

    Returns:
        False where some label found no free place; nothing was written and a legend is due.
    """
    scale = np.array(canvas.size_of(ax))
    paths = [_inches(ax, line, scale) for line in lines]
    others = [_inches(ax, line, scale) for line in avoid]
    taken: list[np.ndarray] = []
    for line, own in zip(lines, paths, strict=True):
        extent = np.array([canvas.text_width(line.text, size=size, weight=line.weight), 1.25 * size / 72])
        place = _free_place(own, [*paths, *others], taken, extent, scale)
        if place is None:
            return False
        taken.append(np.array([place, place + extent]))
    for line, rectangle in zip(lines, taken, strict=True):
        x, y = rectangle.mean(axis=0) / scale
        style: Style = {"color": line.colour, "fontweight": line.weight, "fontsize": size, "zorder": 6}
        ax.text(x, y, line.text, transform=ax.transAxes, ha="center", va="center", **style)
    return True


def place_note(
    ax: Axes, note: Labelled, *, avoid: Sequence[Labelled] = (), taken: list[np.ndarray], size: float = NOTE + 0.4
) -> None:
    """Write one label beside its line or point where it covers the least of the lines and no other label.

    Args:
        avoid: lines (or single points) that the label should not cover.
        taken: rectangles of earlier labels, in inches from the corner of the axes; the new one is added.
    """
    scale = np.array(canvas.size_of(ax))
    own = _inches(ax, note, scale)
    paths = [_inches(ax, line, scale) for line in [note, *avoid]]
    lines = note.text.count("\n") + 1
    extent = np.array([canvas.text_width(note.text, size=size, weight=note.weight), 1.25 * lines * size / 72])
    corner = _least_covered(own, np.concatenate(paths), taken, extent, scale)
    taken.append(np.array([corner, corner + extent]))
    x, y = (corner + extent / 2) / scale
    style: Style = {"color": note.colour, "fontweight": note.weight, "fontsize": size, "zorder": 7}
    ax.text(x, y, note.text, transform=ax.transAxes, ha="center", va="center", linespacing=1.2, **style)


def _least_covered(
    own: np.ndarray, points: np.ndarray, taken: Sequence[np.ndarray], extent: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Lower left corner of the place with the least under it, then the nearest to its line."""
    sides = [(x, y) for y in (1, -1, 0) for x in (0, 1, -1) if x or y]
    starts = own[:: max(len(own) // 30, 1)][::-1]
    best, corner = np.inf, own[-1]
    for gap in (0.05, 0.1, 0.16, 0.24, 0.34, 0.5, 0.7):
        if best <= 8 * gap:
            break  # nothing farther away can cost less
        for side in sides:
            for low in starts - extent / 2 + np.array(side) * (extent / 2 + gap):
                high = low + extent
                if (low < 0.01).any() or (high > scale - 0.01).any():
                    continue
                if any((low < other[1] + 0.03).all() and (high > other[0] - 0.03).all() for other in taken):
                    continue
                covered = ((points > low - 0.02) & (points < high + 0.02)).all(axis=1).sum()
                cost = float(covered) + 8 * gap
                if cost < best:
                    best, corner = cost, low
    return np.clip(corner, 0.01, np.maximum(scale - extent - 0.01, 0.01))


def _inches(ax: Axes, line: Labelled, scale: np.ndarray) -> np.ndarray:
    """The line sampled densely along its points, in inches from the lower left corner of the axes."""
    corners = np.column_stack([np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)])
    if np.ptp(corners, axis=0).any():
        at = np.linspace(0, len(corners) - 1, 200)
        corners = np.column_stack([np.interp(at, np.arange(len(corners)), column) for column in corners.T])
    return ax.transAxes.inverted().transform(ax.transData.transform(corners)) * scale


def _free_place(
    own: np.ndarray, paths: Sequence[np.ndarray], taken: Sequence[np.ndarray], extent: np.ndarray, scale: np.ndarray
) -> np.ndarray | None:
    """Lower left corner of the free place nearest to the line, from its right end to its left."""
    margin = np.array([0.03, 0.025])
    for gap in (0.035, 0.08, 0.14):
        for centre in own[:: max(len(own) // 40, 1)][::-1]:
            for side in (1, -1):
                corner = centre - extent / 2 + np.array([0, side * (extent[1] / 2 + gap)])
                corner[0] = min(max(corner[0], 0.02), scale[0] - extent[0] - 0.02)
                low, high = corner - margin, corner + extent + margin
                if (low < 0).any() or (high > scale + margin).any():
                    continue
                if any((((path > low) & (path < high)).all(axis=1)).any() for path in paths):
                    continue
                if any((low < other[1]).all() and (high > other[0]).all() for other in taken):
                    continue
                return corner
    return None
