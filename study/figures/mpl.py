"""Types of matplotlib and pandas by one name each: neither package is imported before a figure is drawn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
else:
    Axes = DataFrame = Figure = Any

__all__ = ["Axes", "DataFrame", "Figure"]
