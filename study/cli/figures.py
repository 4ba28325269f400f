"""`diptych figures`: draw every figure that the tables of a run allow."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.common import user_errors_as_messages


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--style", type=click.Choice(["paper", "notebook"]), default="paper",
              help="paper: at the width of a column; notebook: at that of a page.")  # fmt: skip
@click.option("--format", "formats", default="pdf,svg,png", help="Out of pdf, svg, png, separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; default: RUN/figures-STYLE.")
@user_errors_as_messages
def figures(run: Path, style: str, formats: str, out: Path | None) -> None:
    """Draw the figures of RUN from its tables alone: no model, the same bytes every time.

    Beside each picture lie its rows (csv) and its caption (txt). RUN/figures holds those of the study itself.
    """
    from study.figures import save
    from study.figures.save import PICTURES
    from study.report.draw import figures_of_run

    chosen = tuple(word.strip() for word in formats.split(",") if word.strip())
    unknown = [word for word in chosen if word not in PICTURES]
    if unknown or not chosen:
        raise ValueError(f"--format {formats}: expected some of {', '.join(PICTURES)}.")
    if not (run / "tables").is_dir():
        raise ValueError(f"{run}: no tables. Run `diptych study run study.yaml --out {run}` first.")
    folder, n = out or run / f"figures-{style}", 0
    for stem, drawn in figures_of_run(run, wide=style == "notebook"):
        if isinstance(drawn, str):
            click.echo(f"note: {stem} was not drawn: {drawn}", err=True)
            continue
        n += 1
        click.echo(save(drawn, folder / stem, formats=chosen)[chosen[0]])
    if not n:
        raise ValueError(f"{run}: none of its tables could be drawn; the notes say why.")
