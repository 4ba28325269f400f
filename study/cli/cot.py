"""`diptych cot` labels the sentences of chains of thought with a model; `diptych audit` audits a file of labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic.dataclasses import dataclass

from study.chain_labels import LabelOptions
from study.cli.common import CheckpointOptions, takes
from study.load_options import LoadOptions
from study.options import STRICT, option

if TYPE_CHECKING:
    from interp.tasks.cot import Finding


@click.command()
@takes(CheckpointOptions, LoadOptions, LabelOptions)
def cot(checkpoint: CheckpointOptions, load: LoadOptions, options: LabelOptions) -> None:
    """Label every sentence of every chain with a model, into OUT/<member>-<label>.jsonl, and audit the labels.

    Every line has the label and the number that it was computed from, next to its control. Exits with 1 if an audit
    fails; the labels are written anyway. After a kill, the same command continues; labels made with other options, data
    or weights are not overwritten.
    """
    from study.chain_labels import label_members

    findings: list[Finding] = []
    for path, n in label_members(checkpoint.resolve(), checkpoint.loading(load), options):
        click.echo(f"{path}: {n} labels")
        findings += _audited(path)
    _fail(findings)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AuditOptions:
    """A file of labels."""

    labels: Path = option(is_argument=True)
    out: Path | None = option(None, "Also write the findings as a table, .csv or .parquet.")


@click.command()
@takes(AuditOptions)
def audit(options: AuditOptions) -> None:
    """Audit LABELS: JSON lines with label and context and, if available, problem, task, status, split, boundary.

    Prints one line per audit: its value, its threshold, and what to do. Exits with 1 if an audit fails.
    """
    findings = _audited(options.labels)
    if options.out is not None:
        import pandas as pd

        from interp.io.frames import write_frame

        write_frame(options.out, pd.DataFrame([asdict(finding) for finding in findings]))
    _fail(findings)


def _audited(path: Path) -> list[Finding]:
    """The findings on a file of labels, each printed on a line."""
    from interp.tasks.cot import audit as run
    from interp.tasks.cot import read_items

    findings = run(read_items(path))
    for finding in findings:
        click.echo(str(finding))
    return findings


def _fail(findings: list[Finding]) -> None:
    if any(finding.status == "fail" for finding in findings):
        raise click.exceptions.Exit(1)
