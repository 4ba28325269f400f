"""Types of matplotlib and pandas by one name each: neither package is imported before a figure is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text
    from matplotlib.ticker import Locator
    from pandas import DataFrame

    class Record:
        """A row of a table as a named tuple: an attribute per column, where pandas' own type gives a Scalar."""

        def __getattr__(self, column: str, /) -> Any: ...
else:
    Artist = Axes = Collection = DataFrame = Figure = Line2D = Locator = Patch = Record = ScalarMappable = Text = Any

Style = dict[str, Any]
"""Keywords of matplotlib's artists, whose types its stubs leave open as well."""

__all__ = [
    "Artist", "Axes", "Collection", "DataFrame", "Figure", "Line2D", "Locator", "Patch", "Record", "ScalarMappable",
    "Style", "Text",
]  # fmt: skip
