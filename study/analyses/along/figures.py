"""The figure of probes along replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.schema import DIFFERENCE

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn


def along_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the figure: the reported pooling along shares of the reply, with decodable-at."""
    main = table.loc[(table["metric"] == "auroc") & (table["selected"] == True), "pooling"]  # noqa: E712 (nullable)
    is_drawn = table["metric"].isin(["auroc", "decodable_at"]) & table["role"].isin(["probe", "residual"])
    is_drawn &= (table["axis"] == "fraction") & table["pooling"].isin(set(main)) & (table["member"] != DIFFERENCE)
    return table[is_drawn].reset_index(drop=True)


def along_figure(table: pd.DataFrame) -> Drawn | str:
    """The decodable-at curve of every member, or why it was not drawn.

    Args:
        table: the table `along`.
    """
    from study.figures import decodable
    from study.figures.drawn import tried

    return tried(lambda: decodable(along_rows(table)))
