"""`diptych audit`: faults of a file of labels, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.common import fail_in_users_words


@click.command()
@click.argument("labels", type=click.Path(path_type=Path))
@fail_in_users_words
def audit(labels: Path) -> None:
    """Audit LABELS, JSON lines with label and context, and problem, task, status, split, boundary where known.

    One line per audit: its number, its threshold, and what to do. Exits with 1 where one fails.
    """
    from interp.tasks.cot import audit as run
    from interp.tasks.cot import read_items

    found = run(read_items(labels))
    for finding in found:
        click.echo(str(finding))
    if any(finding.status == "fail" for finding in found):
        raise click.exceptions.Exit(1)
