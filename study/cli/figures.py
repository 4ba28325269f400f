"""`diptych figures` and `diptych report`: what the tables of a run folder show; no model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic.dataclasses import dataclass

from study.cli.common import takes
from study.option_types import InFolder, Names, OutFile
from study.options import STRICT, option


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FiguresOptions:
    """Which pictures of a run."""

    run: Path = option(is_argument=True)
    style: Literal["paper", "notebook"] = option(
        "paper", "Width of the figures: paper (one column) or notebook (one page)."
    )
    format: Names = option(("pdf", "svg", "png"), "File formats: pdf, svg, png, separated by commas.")
    out: Path | None = option(None, "Output folder; default: RUN/figures-STYLE.")


@click.command()
@takes(FiguresOptions)
def figures(options: FiguresOptions) -> None:
    """Draw the figures of RUN from its tables alone: without a model, and with the same bytes every time.

    Each picture comes with its rows (csv) and its caption (txt). The study's own figures are in RUN/figures.
    """
    from study.figures import save
    from study.figures.save import PICTURES
    from study.report.draw import figures_of_run

    run, chosen = options.run, options.format
    unknown = [word for word in chosen if word not in PICTURES]
    if unknown or not chosen:
        raise ValueError(f"--format {','.join(chosen)}: expected some of {', '.join(PICTURES)}.")
    if not (run / "tables").is_dir():
        raise ValueError(f"{run}: no tables; expected a folder that `diptych study run ... --out` wrote.")
    folder, n = options.out or run / f"figures-{options.style}", 0
    for stem, drawn in figures_of_run(run, wide=options.style == "notebook"):
        if isinstance(drawn, str):
            click.echo(f"note: {stem} was not drawn: {drawn}", err=True)
            continue
        n += 1
        click.echo(save(drawn, folder / stem, formats=chosen)[chosen[0]])
    if not n:
        raise ValueError(f"{run}: none of its tables could be drawn; the notes say why.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ReportOptions:
    """The page of a run."""

    run: InFolder = option(is_argument=True)
    out: OutFile | None = option(None, "File to write; default: RUN/report.html.")


@click.command()
@takes(ReportOptions)
def report(options: ReportOptions) -> None:
    """Write RUN/report.html: claims, headline, figures, examples and provenance in one file. No model is loaded.

    An unfinished run gets a report too: it names each failed step with its cause.
    """
    from study.report import write_report

    path = write_report(options.run, options.out)
    click.echo(f"report   {path} ({path.stat().st_size / 1024:,.0f} KiB; open it in any browser)")
