"""The command of an analysis that another package adds: its options, one study of that analysis alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from pydantic.dataclasses import dataclass

from study.analyses.registry import analysis
from study.cli.common import CheckpointOptions, takes
from study.load_options import LoadOptions
from study.options import STRICT, option
from study.task_options import TaskOptions


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RunOptions:
    """Of the command alone."""

    out: Path = option(help="Run folder; an interrupted run continues.")
    quiet: bool = option(False, "Show no progress bars.")


def added_command(name: str) -> click.Command:
    """`diptych NAME`: runs the analysis on a checkpoint or pair, into a run folder with tables, figures and report.

    Raises:
        ValueError: as `study.analyses.registry.analysis`.
    """
    chosen = analysis(name)
    more = "Tables, figures and a report are written into --out; the same command continues where it was stopped."

    @click.command(name, help=f"{chosen.help}\n\n{more}", short_help=chosen.help)
    @takes(CheckpointOptions, LoadOptions, TaskOptions, chosen.options, RunOptions)
    def command(
        checkpoint: CheckpointOptions, load: LoadOptions, items: TaskOptions, options: object, command: RunOptions
    ) -> None:
        _run(name, checkpoint, load, items, options, command)

    return command


def _run(
    name: str,
    checkpoint: CheckpointOptions,
    load: LoadOptions,
    items: TaskOptions,
    options: object,
    command: RunOptions,
) -> None:
    from interp.checkpoint import CheckpointPair
    from interp.tasks.protocol import load_task
    from study.cli.study import summary
    from study.config.sections import Study
    from study.run.runner import run_study

    what = checkpoint.resolve()
    if checkpoint.merge:
        raise click.UsageError("--merge: a study adds no adapter into the weights. Leave it out.")
    further = items.further(load_task(items.path).examples)
    if checkpoint.is_embedded and items.rendering is None:
        items = replace(items, rendering="log")
    is_pair = isinstance(what, CheckpointPair)
    study = Study(
        name=name,
        task=replace(items, options=further),
        load=load,
        pair=what if is_pair else None,
        checkpoint=None if is_pair else what,
        is_embedded=checkpoint.is_embedded,
        seed=items.seed or 0,
        added={name: options},
    )
    finished = run_study(study, command.out, say=click.echo, progress=not command.quiet)
    click.echo(summary(finished, command.out))
    if finished.failed:
        raise click.exceptions.Exit(1)
