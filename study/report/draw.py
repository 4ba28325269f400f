"""Figures of a run by name, or why one was not drawn; step figures draws them, from the tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.base import Context, Named, Step, Work
from study.analyses.registry import analyses
from study.figures.drawn import tried
from study.figures.style import Size
from study.folders import FIGURES

if TYPE_CHECKING:
    from study.config import Study


def figures_of_run(run: Path, *, wide: bool = False) -> Iterator[Named]:
    """(stem, figure) of everything that the tables of a run allow, or (stem, why it was not drawn).

    Args:
        run: a run folder; only its tables are read.
        wide: every figure at the width of a page, for notebooks and slides; else at its width in print.
    """
    from study.known_truth.show import TABLE
    from study.report.headline_figure import headline
    from study.schema import read_tables

    analyses()  # declares the columns of other packages
    tables = read_tables(run, without=(TABLE,))  # which is written at the same time
    size: Size = {"width": "full"} if wide else {}
    for analysis in analyses().values():
        if analysis.figures is not None:
            yield from analysis.figures(tables, **size)
    if tables:
        yield "headline", tried(lambda: headline(tables))


def run(context: Context) -> list[str]:
    """Draw into `figures/`; a figure that a table does not allow is named with its reason."""
    section = context.section
    drawn, notes = draw(context.root, formats=section.formats, wide=section.style == "notebook")
    if not drawn:
        raise ValueError(f"nothing could be drawn: {'; '.join(notes) or 'there are no tables'}.")
    return notes


def draw(root: Path, *, formats: tuple[str, ...], wide: bool) -> tuple[list[str], list[str]]:
    """(stems of the figures that were drawn, notes on those that were not)."""
    from study.figures import save

    drawn, notes = [], []
    for stem, figure in figures_of_run(root, wide=wide):
        if isinstance(figure, str):
            notes.append(f"{stem} was not drawn: {figure}")
            continue
        save(figure, root / FIGURES / stem, formats=formats)
        drawn.append(stem)
    return drawn, notes


def outputs(context: Context) -> list[Path]:
    """Every file that was drawn."""
    return sorted(path for path in (context.root / FIGURES).glob("*") if path.is_file())


def plan(_: Study) -> Work:
    """Some seconds; nothing is computed."""
    return Work(note="drawn from the tables")


def code(_: Study) -> list[Callable[..., object]]:
    """What draws: the figures of every analysis."""
    return [one.figures for one in analyses().values() if one.figures is not None]


STEP = Step("figures", run, after=True, plan=plan, outputs=outputs, sections=(), code=code)
