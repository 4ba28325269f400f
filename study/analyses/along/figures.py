"""The figure of probes along replies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from study.schema import DIFFERENCE

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn
    from study.figures.style import Size, Width


def along_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the figure: the reported pooling along shares of the reply, with decodable-at."""
    main = table.loc[(table["metric"] == "auroc") & (table["selected"] == True), "pooling"]  # noqa: E712 (nullable)
    is_drawn = table["metric"].isin(["auroc", "decodable_at"]) & table["role"].isin(["probe", "residual"])
    is_drawn &= (table["axis"] == "fraction") & table["pooling"].isin(set(main)) & (table["member"] != DIFFERENCE)
    rows = table[is_drawn].reset_index(drop=True)
    blank = [name for name in ("model", "adapter") if name in rows and (rows[name].isna() | (rows[name] == "")).all()]
    return rows.drop(columns=blank)  # a caption names models only where a study has named them


def figures(tables: Mapping[str, pd.DataFrame], *, width: Width | None = None) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure or why it was not drawn) of the table `along` of a run."""
    if "along" in tables:
        size: Size = {} if width is None else {"width": width}
        yield "along", along_figure(tables["along"], size)


def along_figure(table: pd.DataFrame, size: Size | None = None) -> Drawn | str:
    """The decodable-at curve of every member, or why it was not drawn.

    Args:
        table: the table `along`.
        size: width, if not the figure's own.
    """
    from study.figures import decodable
    from study.figures.drawn import tried

    return tried(lambda: decodable(along_rows(table), **(size or {})))
