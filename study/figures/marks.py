"""Marks that carry their own words: each has an id in the SVG and a text shown on hover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from study.figures.mpl import Artist, Axes, Collection, Line2D, Record, Style
from study.figures.style import BAND_ALPHA, DATA_LINE, INTERVAL_LINE, REFERENCE_LINE, colour, line, marker

Triple = tuple[float, float, float]
"""An estimate with its interval: value, lo, hi."""


class Marks:
    """Collects the text of every mark of one figure by its id."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}

    def name(self, artist: Artist, key: str, title: str) -> None:
        """Give one artist the id `mark-<key>` and its hover text.

        Raises:
            AssertionError: two marks of one figure share a key.
        """
        gid = f"mark-{key}"
        assert gid not in self.titles, f"two marks are named {gid}"
        self.titles[gid] = title
        artist.set_gid(gid)

    def name_cells(self, collection: Collection, titles: Mapping[str, str]) -> None:
        """Give the members of a collection their ids, in order. The SVG writer knows only links for them."""
        named = {f"mark-{key}": title for key, title in titles.items()}
        assert not named.keys() & self.titles.keys(), "two marks share an id"
        self.titles.update(named)
        collection.set_urls(list(named))

    def estimate(
        self,
        ax: Axes,
        x: float | Triple,
        y: float | Triple,
        role: str,
        key: str,
        title: str,
        *,
        bar: Style | None = None,
        **style: Any,
    ) -> None:
        """A point on the bar of its interval, named; the one of x and y that is an estimate is (value, lo, hi).

        Args:
            bar: style of the bar; `style`: of the point.
        """
        (x, along_x), (y, along_y) = ((one[0], one[1:]) if isinstance(one, tuple) else (one, one) for one in (x, y))
        interval(ax, along_x, along_y, role, **(bar or {}))
        self.name(point(ax, x, y, role, **style), key, title)


def triple(row: Record) -> Triple:
    """`value, lo, hi` of a row of a table."""
    return row.value, row.lo, row.hi


def interval(ax: Axes, x: float | tuple[float, float], y: float | tuple[float, float], role: str, **kw: Any) -> None:
    """A bar without caps: x = (lo, hi) at height y, or y = (lo, hi) at x."""
    xs = x if isinstance(x, tuple) else (x, x)
    ys = y if isinstance(y, tuple) else (y, y)
    style: Style = {"linewidth": INTERVAL_LINE, "solid_capstyle": "butt", "zorder": 3, **kw}
    ax.plot(xs, ys, color=colour(role), clip_on=False, **style)


def point(ax: Axes, x: float, y: float, role: str, *, filled: bool = True, size: float = 4.0, **kw: Any) -> Line2D:
    """A marker of a role; hollow = not beyond its null after the stated correction."""
    style: Style = {"marker": marker(role), "zorder": 4, "linestyle": "none", "clip_on": False, **kw}
    if style["marker"] == "D":
        size *= 0.9  # a diamond of the same width looks larger than a circle
    face = colour(role if filled else "paper")
    (mark,) = ax.plot([x], [y], color=colour(role), markersize=size, markerfacecolor=face, markeredgewidth=0.9, **style)
    return mark


def curve(
    ax: Axes, x: ArrayLike, y: ArrayLike, lo: ArrayLike, hi: ArrayLike, role: str, *, style: str = "", zorder: float = 3
) -> Line2D:
    """The line of a role inside the band of its interval; one point alone becomes a mark on its bar.

    Args:
        style: name of the line style; that of the role where it is left out.
    """
    x, y, lo, hi = (np.asarray(values, dtype=float) for values in (x, y, lo, hi))
    if len(x) == 1:
        interval(ax, float(x[0]), (float(lo[0]), float(hi[0])), role)
        return point(ax, float(x[0]), float(y[0]), role, zorder=zorder)
    ax.fill_between(x, lo, hi, color=colour(role), alpha=BAND_ALPHA, linewidth=0, zorder=zorder - 1)
    (drawn,) = ax.plot(x, y, color=colour(role), linewidth=DATA_LINE, linestyle=line(style or role), zorder=zorder)
    return drawn


def null_band(ax: Axes, x: ArrayLike, lo: ArrayLike, hi: ArrayLike, *, half: float = 0.5) -> None:
    """The grey area of a null; around one point alone it is `half` wide to each side."""
    x, lo, hi = (np.asarray(values, dtype=float) for values in (x, lo, hi))
    if len(x) == 1:
        x, lo, hi = np.array([x[0] - half, x[0] + half]), lo.repeat(2), hi.repeat(2)
    ax.fill_between(x, lo, hi, color=colour("null"), linewidth=0, zorder=0)


def reference(ax: Axes, *, x: float | None = None, y: float | None = None, style: str = "chance", **kw: Any) -> None:
    """A vertical line at x or a horizontal one at y, to read values against; dashed where it is chance."""
    kw = {"color": colour("ink2"), "linewidth": REFERENCE_LINE, "linestyle": line(style), "zorder": 1, **kw}
    if x is not None:
        ax.axvline(x, **kw)
    if y is not None:
        ax.axhline(y, **kw)


def reference_diagonal(ax: Axes) -> None:
    """The dashed line of equal x and y from 0 to 1."""
    ax.plot([0, 1], [0, 1], color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
