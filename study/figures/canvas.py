"""Paper: a figure of fixed size, axes placed in inches, text measured before it is set."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from study.figures.mpl import Artist, Axes, Figure, Line2D, Locator, Patch, Style, Text
from study.figures.style import INTERVAL_LINE, LABEL, NOTE, RGBA, TICK, colour, line, marker


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, on the Agg canvas; pyplot's state is not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def axes_in(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes with their lower left corner and size in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def write(figure: Figure, x: float, y: float, text: str, *, size: float = NOTE, role: str = "ink2", **kw: Any) -> Text:
    """Text at inches from the lower left corner of the figure."""
    w, h = figure.get_size_inches()
    return figure.text(x / w, y / h, text, fontsize=size, color=colour(role), **kw)


def text_width(text: str, *, size: float, weight: str = "normal") -> float:
    """Width in inches of the widest line of `text` in the figure's font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    lines = text.split("\n")
    return max(text_to_path.get_text_width_height_descent(part, font, ismath=False)[0] for part in lines) / 72


def widest(texts: Sequence[str], *, size: float, weight: str = "normal") -> float:
    """Width in inches of the widest of several texts, 0 for none."""
    return max((text_width(text, size=size, weight=weight) for text in texts), default=0.0)


def wrap(text: str, *, size: float, max_in: float) -> str:
    """`text` with line breaks so that no line is wider than `max_in` inches, where words allow it.

    It breaks after a space, `_`, `-` or `/`; a piece that is too wide by itself is cut between characters. Nothing
    is dropped.
    """
    lines = [""]
    for piece in re.findall(r"[^\s_/-]*[_/-]|[^\s_/-]+\s*|\s+", text):
        for part in _pieces(piece, size=size, max_in=max_in):
            if lines[-1] and text_width((lines[-1] + part).rstrip(), size=size) > max_in:
                lines.append("")
            lines[-1] += part
    return "\n".join(part.rstrip() for part in lines)


def _pieces(piece: str, *, size: float, max_in: float) -> list[str]:
    if text_width(piece.rstrip(), size=size) <= max_in:
        return [piece]
    cut = max((k for k in range(1, len(piece)) if text_width(piece[:k], size=size) <= max_in), default=1)
    return [piece[:cut], *_pieces(piece[cut:], size=size, max_in=max_in)] if cut < len(piece) else [piece]


def key_entry(role: str, label: str, *, filled: bool = True, shape: str = "", bar: bool = True) -> Line2D:
    """A legend entry drawn as the role is drawn in the figure: marker on its interval bar, hollow where n.s."""
    from matplotlib.lines import Line2D

    face = {"markersize": 4, "markerfacecolor": colour(role if filled else "paper"), "markeredgewidth": 0.9}
    style: Style = {"marker": shape or marker(role), "linewidth": INTERVAL_LINE if bar else 0, **face}
    return Line2D([], [], color=colour(role), linestyle="solid", label=label, **style)


def line_entry(role: str, label: str, *, style: str = "chance", width: float = 0.7) -> Line2D:
    """A legend entry for a line without marks."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour(role), linestyle=line(style), linewidth=width, label=label)


def patch_entry(role: str | RGBA, label: str) -> Patch:
    """A legend entry for an area, in the colour of a role or another one."""
    from matplotlib.patches import Patch

    return Patch(facecolor=colour(role) if isinstance(role, str) else role, edgecolor="none", label=label)


def legend_above(
    ax: Axes,
    entries: Sequence[Artist],
    *,
    lift: float = 0.06,
    right: bool = False,
    columns: int = 0,
    outdent: bool = False,
) -> None:
    """One legend row above the axes, never inside the data.

    Args:
        lift:  inches between the axes and the legend.
        right: end at the right end of the axes, not start at the left one.
        columns: entries per row; 0 puts all in one row.
        outdent: start at the left edge of the figure, over the names of the rows.
    """
    box = ax.get_position()
    w, h = figure_of(ax).get_size_inches()
    place = ((0.05 / w - box.x0) / box.width if outdent else float(right), 1 + lift / (box.height * h))
    pads = {"borderpad": 0, "borderaxespad": 0, "handlelength": 1.5, "handletextpad": 0.5}
    apart: Style = {"columnspacing": 1.3, "labelspacing": 0.35, "fontsize": TICK, **pads}
    where = "lower right" if right else "lower left"
    columns = columns or len(entries)
    ax.legend(handles=list(entries), loc=where, bbox_to_anchor=place, ncols=columns, **apart).set_clip_on(False)


def legend_columns(entries: Sequence[Artist], room: float) -> int:
    """Columns of a legend in as few rows as fit into this many inches; entries run down the columns."""
    widths = [1.03 * text_width(str(entry.get_label()), size=TICK) + 0.2 for entry in entries]
    for rows in range(1, len(widths)):
        columns = math.ceil(len(widths) / rows)
        sizes = [len(widths) // columns + (k < len(widths) % columns) for k in range(columns)]  # as matplotlib fills
        starts = [sum(sizes[:k]) for k in range(columns)]
        total = sum(max(widths[a : a + size]) for a, size in zip(starts, sizes, strict=True))
        if total + 0.12 * (columns - 1) <= room:
            return columns
    return 1


def legend_rows(entries: Sequence[Artist], room: float) -> int:
    """Rows of that legend."""
    return math.ceil(len(entries) / legend_columns(entries, room))


def bare(ax: Axes, *, keep: Sequence[str] = ("bottom",)) -> None:
    """Hide every spine that is not kept."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in keep)


def beside(ax: Axes, y: float, text: str, *, dx: float = 0.0, x: float = 0.0, **kw: Any) -> None:
    """Text at height y of the data, `dx` inches from the axes' left (x = 0) or right (x = 1) end."""
    note(ax, x, y, text, ("axes fraction", "data"), (72 * dx, 0), annotation_clip=False, **kw)


def note(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    where: str | tuple[str, str] = "data",
    by: tuple[float, float] = (0, 0),
    **kw: Any,
) -> None:
    """Text `by` so many points from a place, whose x and y are of the data or fractions of the axes (`where`)."""
    ax.annotate(text, (x, y), xycoords=where, xytext=by, textcoords="offset points", **kw)


def row_axes(
    total: float,
    names: Sequence[str],
    values: Sequence[str],
    *,
    tall: float,
    below: float,
    above: float,
    size: float = NOTE,
    weight: str = "normal",
    gap: float = 0.08,
    name_gap: float | None = None,
) -> Axes:
    """Axes of a new figure for a table of rows, between names at the left and values at the right.

    Args:
        tall: height of the axes; below, above: inches around them.
        size: points of the values; weight: of names and values.
        gap: inches between the axes and the values; name_gap: and the names, with what else stands there.
    """
    left = 0.05 + widest(names, size=LABEL, weight=weight) + (gap if name_gap is None else name_gap)
    right = 0.05 + widest(values, size=size, weight=weight) + gap
    return axes_in(new_figure(total, below + tall + above), left, below, total - left - right, tall)


def figure_of(ax: Axes) -> Figure:
    """The figure that owns the axes, also from inside a sub-figure."""
    figure = ax.get_figure(root=True)
    assert figure is not None, "axes without a figure"
    return figure  # pyright: ignore[reportReturnType]


def box(
    ax: Axes, x: float, y: float, width: float, height: float, face: str | RGBA = "none", edge: str = "none", **kw: Any
) -> Patch:
    """A rectangle from its corner, in the unit of the axes."""
    from matplotlib.patches import Rectangle

    return ax.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, **kw))


def size_of(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes in inches."""
    (w, h), box = figure_of(ax).get_size_inches(), ax.get_position()
    return box.width * w, box.height * h


def locator(ticks: int, *, integer: bool = False) -> Locator:
    """At most this many intervals between ticks, on 1, 2, 2.5 or 5."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(ticks, integer=integer, steps=[1, 2, 2.5, 5, 10])


def room_above(ax: Axes, inches: float) -> None:
    """Make the figure of its only axes higher by this much, above the axes; the axes keep their size."""
    figure = figure_of(ax)
    w, h = figure.get_size_inches()
    box = ax.get_position()
    figure.set_size_inches(w, h + inches)
    ax.set_position((box.x0, box.y0 * h / (h + inches), box.width, box.height * h / (h + inches)))
