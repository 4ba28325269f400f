"""Small multiples: panels of one size in a grid, titles that fit, one legend above all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from study.figures import canvas
from study.figures.mpl import Artist, Axes, Style
from study.figures.style import LABEL

PAD, TITLE, LEGEND = 0.05, 0.13, 0.15
"""Inches: outer margin, one line of a title, one row of a legend."""
_TITLE_SIZES = (7.5, 7.0, 6.5)


@dataclass(frozen=True)
class Room:
    """Inches around and between panels."""

    left: float = 0.5
    right: float = 0.08
    gap: float = 0.14
    bottom: float = 0.4
    between: float = 0.3
    top: float = 0.0


@dataclass(frozen=True)
class Panels:
    """Axes in reading order, with how many stand side by side."""

    axes: list[Axes]
    across: int
    own: bool = True

    def is_first(self, index: int) -> bool:
        """True of the panels at the left edge."""
        return index % self.across == 0

    def is_last(self, index: int) -> bool:
        """True of the panels with nothing below them."""
        return index + self.across >= len(self.axes)

    def label(self, *, x: str = "", y: str = "") -> None:
        """Names of the axes, and numbers of the vertical one, where a panel stands at the left or has none below."""
        for index, ax in enumerate(self.axes):
            ax.tick_params(labelleft=self.is_first(index))
            if y and self.is_first(index):
                ax.set_ylabel(y)
            if x and self.is_last(index):
                ax.set_xlabel(x)


def small_multiples(
    titles: Sequence[str],
    total: float,
    *,
    tall: float,
    room: Room,
    entries: Sequence[Artist] = (),
    foot: float = 0.0,
    most: int = 4,
) -> Panels:
    """A new figure of this width with one titled panel per title, in rows of at most `most`.

    Args:
        titles:  set bold at the left above their panels, wrapped to their width.
        total:   width of the figure in inches.
        tall:    height of a panel in inches.
        room:    around and between the panels.
        entries: legend entries; their rows are set above everything.
        foot:    further room below, for a common label or a footnote.
        most:    panels side by side.
    """
    across = math.ceil(len(titles) / math.ceil(len(titles) / most))
    rows = math.ceil(len(titles) / across)
    wide = (total - room.left - room.right - room.gap * (across - 1)) / across
    size, words = fitted_titles(titles, wide)
    title_in = TITLE * max(text.count("\n") + 1 for text in words) + 0.05 if any(words) else 0.0
    legend = LEGEND * canvas.legend_rows(entries, total - 2 * PAD) + 0.06 if entries else 0.0
    pitch = tall + title_in + room.between
    height = foot + room.bottom + rows * tall + rows * title_in + (rows - 1) * room.between + room.top + legend + PAD
    figure = canvas.new_figure(total, height)
    axes = []
    for index, text in enumerate(words):
        row, column = divmod(index, across)
        bottom = foot + room.bottom + (rows - 1 - row) * pitch
        ax = canvas.axes_in(figure, room.left + column * (wide + room.gap), bottom, wide, tall)
        ax.set_title(text, fontsize=size, pad=3 + 72 * room.top, linespacing=1.1)
        axes.append(ax)
    panels = Panels(axes, across)
    if entries:
        legend_over(panels, entries, lift=title_in + room.top + 0.03)
    return panels


def given(axes: Axes | Sequence[Axes], titles: Sequence[str], *, figure: str) -> Panels:
    """The panels of a composite, whose axes the caller has placed.

    Raises:
        ValueError: not one axes per panel.
    """
    placed = list(axes) if isinstance(axes, Sequence) else [axes]
    if len(placed) != len(titles):
        raise ValueError(
            f"figure {figure!r}: {len(titles)} panels ({', '.join(titles)}) need as many axes, got {len(placed)}. "
            "Filter the table or pass one axes per panel."
        )
    w = canvas.figure_of(placed[0]).get_size_inches()[0]
    size, words = fitted_titles(titles, min(ax.get_position().width for ax in placed) * w)
    for ax, text in zip(placed, words, strict=True):
        ax.set_title(text, fontsize=size, pad=3, linespacing=1.1)
    return Panels(placed, len(placed), own=False)


def fitted_titles(titles: Sequence[str], inches: float) -> tuple[float, list[str]]:
    """The largest size at which no title is wider than its panel; at the smallest one they are wrapped."""
    for size in _TITLE_SIZES:
        if canvas.widest(titles, size=size, weight="bold") <= inches:
            return size, list(titles)
    size = _TITLE_SIZES[-1]
    return size, [canvas.wrap(title, size=size * 1.13, max_in=inches) for title in titles]  # bold is wider


def legend_over(panels: Panels, entries: Sequence[Artist], *, lift: float = TITLE + 0.08) -> None:
    """The legend above the first panel: from the left edge of an own figure, from the panel's in a composite."""
    ax = panels.axes[0]
    w = canvas.figure_of(ax).get_size_inches()[0]
    room = w - 2 * PAD if panels.own else w * (panels.axes[-1].get_position().x1 - ax.get_position().x0)
    columns = canvas.legend_columns(entries, room)
    canvas.legend_above(ax, entries, lift=lift, columns=columns, outdent=panels.own)


def common_x(panels: Panels, text: str, *, below: float = 0.3) -> None:
    """One name for the horizontal axes of all panels, centred under them."""
    figure = canvas.figure_of(panels.axes[0])
    w, h = figure.get_size_inches()
    boxes = [ax.get_position() for ax in panels.axes]
    middle = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
    bottom = min(box.y0 for box in boxes)
    words = canvas.wrap(text, size=LABEL, max_in=w - 2 * PAD)
    half = canvas.text_width(words, size=LABEL) / 2
    x = min(max(middle * w, half + PAD), w - half - PAD)
    style: Style = {"ha": "center", "va": "top", "linespacing": 1.1, "role": "ink"}
    canvas.write(figure, x, bottom * h - below + LABEL / 144, words, size=LABEL, **style)


def room_below(text: str, total: float) -> float:
    """Inches that a common name needs beyond its first line, in a figure of this width."""
    return 0.12 * canvas.wrap(text, size=LABEL, max_in=total - 2 * PAD).count("\n")


def share_y(panels: Panels, low: float, high: float, *, ticks: int = 5) -> None:
    """The same limits for all panels; numbers only at the left edge."""
    for index, ax in enumerate(panels.axes):
        ax.set_ylim(low, high)
        ax.yaxis.set_major_locator(canvas.locator(ticks))
        ax.tick_params(labelleft=panels.is_first(index))


def padded(values: Sequence[float], *, least: float = 0.0, share: float = 0.06) -> tuple[float, float]:
    """Limits that hold all values with some room at both ends and span at least `least`: noise does not fill a page."""
    low, high = float(min(values)), float(max(values))
    if high - low <= 1e-9 * max(1.0, abs(high)):  # one value, up to rounding: ticks that can be read
        least = max(least, 0.1 * abs(high), 0.01)
    pad = max(share * (high - low), (least - (high - low)) / 2, 1e-6)
    return low - pad, high + pad
