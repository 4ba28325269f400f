"""The command of an analysis that another package adds: its options, one study of that analysis alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from study.analyses.registry import analysis
from study.cli.common import (
    checkpoint_options,
    load_options,
    resolve_checkpoints,
    task_options,
    user_errors_as_messages,
)
from study.options import command_options, options_from

_TASK = ("data", "per_cell", "seed", "split", "rendering", "where", "limit")


def added_command(name: str) -> click.Command:
    """`diptych NAME`: runs the analysis on a checkpoint or pair, into a run folder with tables, figures and report.

    Raises:
        ValueError: as `study.analyses.registry.analysis`.
    """
    chosen = analysis(name)

    @click.command(name, help=f"{chosen.help}\n\nTables, figures and a report are written into --out; the same command "
                   "continues where it was stopped.", short_help=chosen.help)  # fmt: skip
    @checkpoint_options
    @load_options
    @task_options
    @command_options(chosen.options, omit=[key for key in _TASK if key in _fields(chosen.options)])
    @click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder; resumable.")
    @click.option("--quiet", is_flag=True, help="No progress bars.")
    @user_errors_as_messages
    def command(out: Path, quiet: bool, **values: Any) -> None:
        _run(name, out, quiet, values)

    return command


def _fields(options: type) -> set[str]:
    from dataclasses import fields

    return {one.name for one in fields(options)}  # pyright: ignore[reportArgumentType]


def _run(name: str, out: Path, quiet: bool, values: dict[str, Any]) -> None:
    from interp.tasks.protocol import load_task
    from study.cli.common import given_to_task
    from study.cli.study import summary
    from study.config.sections import LoadSection, Study, TaskSection
    from study.embedded import EMBEDDED
    from study.run.runner import run_study

    what, loading = resolve_checkpoints(values)
    if loading.pop("merge", False):
        raise click.UsageError("--merge: a study adds no adapter into the weights. Leave it out.")
    items = {key: values[key] for key in _TASK if values[key] not in (None, ())}
    if values["pair"] == EMBEDDED:
        items.setdefault("rendering", "log")
    more = given_to_task(load_task(values["task"]).examples, values["more"])
    members: dict[str, Any] = {"pair" if values["pair"] else "checkpoint": what}
    study = Study(
        name=name,
        task=TaskSection(path=values["task"], options=more, **items),
        load=LoadSection(**loading),
        is_embedded=values["pair"] == EMBEDDED,
        seed=values["seed"] or 0,
        added={name: options_from(analysis(name).options, values)},
        **members,
    )
    finished = run_study(study, out, say=click.echo, progress=not quiet)
    click.echo(summary(finished, out))
    if finished.failed:
        raise click.exceptions.Exit(1)
