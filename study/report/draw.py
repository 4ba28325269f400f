"""Figures of a run folder by name, or why one was not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from study.analyses.base import Named
from study.analyses.registry import analyses
from study.figures.drawn import tried
from study.figures.style import Size


def figures_of_run(run: Path, *, wide: bool = False) -> Iterator[Named]:
    """(stem, figure) of everything that the tables of a run allow, or (stem, why it was not drawn).

    Args:
        run: a run folder; only its tables are read.
        wide: every figure at the width of a page, for notebooks and slides; else at its width in print.
    """
    from study.report.headline_figure import headline
    from study.schema import read_tables

    analyses()  # declares the columns of other packages
    tables = read_tables(run)
    size: Size = {"width": "full"} if wide else {}
    for analysis in analyses().values():
        if analysis.figures is not None:
            yield from analysis.figures(tables, **size)
    if tables:
        yield "headline", tried(lambda: headline(tables))
