"""Figures of what an oracle reads, from the schema tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from study.figures.drawn import tried

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn
    from study.figures.style import Width


def figures(tables: Mapping[str, pd.DataFrame], *, width: Width | None = None) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure, or why it was not drawn) of the tables `oracle` and `oracle_confusion`, where they are given.

    Args:
        width: of every figure; None: its own default.
    """
    from study.figures import oracle, oracle_confusion

    size: dict[str, Any] = {} if width is None else {"width": width}
    if "oracle" in tables:
        yield "oracle", tried(lambda: oracle(tables["oracle"], **size))
    if "oracle_confusion" in tables:
        yield "confusion", tried(lambda: oracle_confusion(tables["oracle_confusion"], **size))
