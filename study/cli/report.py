"""`diptych report`: the report of a run folder, from its tables and figures alone."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.common import user_errors_as_messages


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it; RUN/report.html.")
@user_errors_as_messages
def report(run: Path, out: Path | None) -> None:
    """Write RUN/report.html: claims, headline, figures, examples and provenance in one file. No model is loaded.

    A run that is not finished gets a report too: what failed is named with its cause.
    """
    from study.report import write_report

    path = write_report(run, out)
    click.echo(f"report   {path} ({path.stat().st_size / 1024:,.0f} KiB; open it in any browser)")
