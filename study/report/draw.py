"""Figures of a run folder by name, or why one was not drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.figures.drawn import tried

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn

Tables = Mapping[str, "pd.DataFrame"]
Named = tuple[str, "Drawn | str"]


def figures_of_run(run: Path, *, wide: bool = False) -> Iterator[Named]:
    """(stem, figure) of everything that the tables of a run allow, or (stem, why it was not drawn).

    Args:
        run: a run folder; only its tables are read.
        wide: every figure at the width of a page, for notebooks and slides; else at its width in print.
    """
    from study.schema import read_tables

    tables = read_tables(run)
    size: dict[str, Any] = {"width": "full"} if wide else {}
    for part in (_pairs, _heads, _probes, _scores, _headline):
        yield from part(tables, size)


def _pairs(tables: Tables, size: dict[str, Any]) -> Iterator[Named]:
    from study.analyses.eval.figures import figures

    yield from figures(tables, **size)


def _heads(tables: Tables, size: dict[str, Any]) -> Iterator[Named]:
    from study.analyses.heads.figures import figures

    yield from figures(tables, **size)


def _probes(tables: Tables, size: dict[str, Any]) -> Iterator[Named]:
    from study.analyses.probes.figures import figures

    yield from figures(tables, **size)


def _scores(tables: Tables, size: dict[str, Any]) -> Iterator[Named]:
    """Dose curves of every member and site, and what an oracle reads."""
    from study.analyses.oracle.figures import figures as oracle_figures
    from study.analyses.steering.figures import figures as dose_figures

    yield from dose_figures(tables, **size)
    yield from oracle_figures(tables, **size)


def _headline(tables: Tables, size: dict[str, Any]) -> Iterator[Named]:
    from study.report.headline_figure import headline

    if tables:
        yield "headline", tried(lambda: headline(tables))
