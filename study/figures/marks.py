"""Marks that carry their own words: each has an id in the SVG and a text shown on hover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures.style import INTERVAL_LINE, colour, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Marks:
    """Collects the text of every mark of one figure by its id."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}

    def name(self, artist: Any, key: str, title: str) -> None:
        """Give one artist the id `mark-<key>` and its hover text.

        Raises:
            AssertionError: two marks of one figure share a key.
        """
        gid = f"mark-{key}"
        assert gid not in self.titles, f"two marks are named {gid}"
        self.titles[gid] = title
        artist.set_gid(gid)

    def name_cells(self, collection: Any, titles: dict[str, str]) -> None:
        """Give the members of a collection their ids, in order. The SVG writer knows only links for them."""
        named = {f"mark-{key}": title for key, title in titles.items()}
        assert not named.keys() & self.titles.keys(), "two marks share an id"
        self.titles.update(named)
        collection.set_urls(list(named))


def interval(ax: Axes, x: float | tuple[float, float], y: float | tuple[float, float], role: str, **kw: Any) -> None:
    """A bar without caps: x = (lo, hi) at height y, or y = (lo, hi) at x."""
    xs = x if isinstance(x, tuple) else (x, x)
    ys = y if isinstance(y, tuple) else (y, y)
    style: dict[str, Any] = {"linewidth": INTERVAL_LINE, "solid_capstyle": "butt", "zorder": 3, **kw}
    ax.plot(xs, ys, color=colour(role), clip_on=False, **style)


def point(ax: Axes, x: float, y: float, role: str, *, filled: bool = True, size: float = 4.0, **kw: Any) -> Any:
    """A marker of a role; hollow = not beyond its null after the stated correction."""
    style: dict[str, Any] = {"marker": marker(role), "zorder": 4, **kw}
    if style["marker"] == "D":
        size *= 0.9  # a diamond of the same width looks larger than a circle
    (mark,) = ax.plot(
        [x],
        [y],
        color=colour(role),
        markersize=size,
        markerfacecolor=colour(role if filled else "paper"),
        markeredgewidth=0.9,
        linestyle="none",
        clip_on=False,
        **style,
    )
    return mark
