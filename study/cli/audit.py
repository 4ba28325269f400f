"""`diptych audit`: faults of a file of labels, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.cli.common import user_errors_as_messages

if TYPE_CHECKING:
    from interp.tasks.cot import Finding


@click.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The findings as a table, .csv or .parquet.")
@user_errors_as_messages
def audit(labels: Path, out: Path | None) -> None:
    """Audit LABELS, JSON lines with label and context, and problem, task, status, split, boundary where known.

    One line per audit: its number, its threshold, and what to do. Exits with 1 where one fails.
    """
    from interp.tasks.cot import audit as run
    from interp.tasks.cot import read_items

    findings = run(read_items(labels))
    report(findings, out)
    if any(finding.status == "fail" for finding in findings):
        raise click.exceptions.Exit(1)


def report(findings: list[Finding], out: Path | None) -> None:
    """One line per finding, and the table where it was asked for."""
    from dataclasses import asdict

    import pandas as pd

    from interp.io.frames import write_frame

    for finding in findings:
        click.echo(str(finding))
    if out is not None:
        write_frame(out, pd.DataFrame([asdict(finding) for finding in findings]))
