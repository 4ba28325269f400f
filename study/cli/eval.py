"""`diptych eval`: answers of one checkpoint or of a pair; `score`, `compare`, `figures`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.analyses.eval.options import CompareOptions, EvalOptions, FiguresOptions, RunOptions, ScoreOptions
from study.cli.common import CheckpointOptions, say_sizes, takes
from study.cli.lazy import DefaultGroup
from study.load_options import LoadOptions
from study.task_options import ItemOptions, TaskOptions

if TYPE_CHECKING:
    from study.analyses.base import Named

USAGE = ("(--base ID | --checkpoint FILE | --pair FILE) --task T --out FOLDER", "(score | compare | figures) ...")


@click.group(cls=DefaultGroup, name="eval", default="run", usage=USAGE)
def evaluate() -> None:
    """Evaluate a model, or both members of a pair on the same items.

    See `diptych eval run --help` for the options of an evaluation; the word `run` may be omitted.
    """


@evaluate.command()
@takes(CheckpointOptions, LoadOptions, TaskOptions, RunOptions, EvalOptions)
def run(
    checkpoint: CheckpointOptions, load: LoadOptions, items: TaskOptions, command: RunOptions, options: EvalOptions
) -> None:
    """Write answers and tables: OUT/<member>/answers.parquet, OUT/table.csv, OUT/figures, and OUT/pair.csv for a pair.

    Every number has its interval, n and control; the README explains the columns. --seed determines the items (and the
    samples). You can interrupt the command at any time; the same command continues.
    """
    from interp.tasks.protocol import load_task
    from study.analyses.eval.run import FILES, run_eval
    from study.analyses.eval.show import bannered, headline

    what = checkpoint.resolve()
    if not command.quiet:
        say_sizes(what, checkpoint.loading(load))
    evaluation = run_eval(
        what,
        items.path,
        # a task that takes no seed is no error: it is that of sampled replies too
        checkpoint.examples(replace(items, seed=None), default_seed=items.seed),
        out=command.out,
        options=replace(options, generate=command.mode == "generate"),
        loading=checkpoint.loading(load),
        progress=not command.quiet,
        reply_seed=items.seed or 0,
        provenance={"items": _provenance(items)},
    )
    click.echo(bannered(items.path, headline(evaluation.tables), table=evaluation.tables["eval"]))
    written = [str(command.out / file) for name, file in FILES.items() if name in evaluation.tables]
    click.echo(f"tables: {', '.join(written)}")
    if not command.no_figures:
        from study.analyses.eval.figures import figures

        drawn = figures(evaluation.tables, answers=evaluation.answers, task=load_task(items.path))
        _draw(drawn, command.out / "figures")


def _provenance(items: ItemOptions) -> Mapping[str, object]:
    """Which items, as a manifest keeps it: paths by their names."""
    from interp.io.paths import shown

    content = {key: value for key, value in asdict(items).items() if key not in ("path", "where", "options")}
    content |= {"data": shown(items.data)} if items.data else {}
    named = {"task_options": items.options, "where": items.where}
    return content | {key: list(value) for key, value in named.items() if value}


def _draw(drawn: Iterable[Named], out: Path) -> None:
    """Save figures and say where they are, and which could not be drawn."""
    from study.figures.save import save_all

    paths, reasons = save_all(drawn, out)
    for reason in reasons:
        click.echo(f"note: {reason}", err=True)
    if paths:
        click.echo(f"figures: {', '.join(str(path) for path in paths)}")


@evaluate.command()
@takes(FiguresOptions)
def figures(options: FiguresOptions) -> None:
    """Redraw the figures of the evaluation in FOLDER, from its tables and answers."""
    from study.analyses.eval.figures import figures_of

    _draw(figures_of(options.folder), options.out or options.folder / "figures")


@evaluate.command()
@takes(ScoreOptions)
def score(options: ScoreOptions) -> None:
    """Score answers of another system, from a file; no model is loaded."""
    from interp.tasks.protocol import load_evaluated_task
    from study.analyses.eval.scored import score_answers
    from study.analyses.eval.show import bannered, score_lines
    from study.task_options import given_to_task

    task = load_evaluated_task(options.task)
    tags = {"tags": options.tags} if options.tags else {}
    more = given_to_task(task.examples, options.options)
    unparsed = {"unparsed": options.unparsed} if options.unparsed else {}
    _check_taken(options.task, task.examples, {key: f"--task-option {key}" for key in more})
    _check_taken(options.task, task.examples, dict.fromkeys(tags, "--set"))
    _check_taken(options.task, getattr(task, "score_report", None), dict.fromkeys(unparsed, "--unparsed"))
    examples = task.examples(options.data, **more, **tags)
    table = score_answers(
        task, examples, options.answers, out=options.out, member=options.name, seed=options.seed, **unparsed
    )
    click.echo(bannered(options.task, score_lines(table), table=table))


def _check_taken(task: str, function: Callable[..., object] | None, flags: Mapping[str, str]) -> None:
    """No argument is given that the function does not take; `flags`: argument -> its flag."""
    parameters = inspect.signature(function).parameters if function else {}
    if unknown := [flag for key, flag in flags.items() if key not in parameters]:
        raise ValueError(f"{task} does not take {', '.join(unknown)}. Leave it out.")


@evaluate.command()
@takes(CompareOptions)
def compare(options: CompareOptions) -> None:
    """Compare two evaluations of the same items: AFTER minus BEFORE, paired.

    BEFORE and AFTER are folders of `diptych eval`, or of one member of it.
    """
    from interp.io.frames import write_frame
    from study.analyses.eval.compare import compare_evals
    from study.analyses.eval.show import bannered, change_lines

    table, task = compare_evals(options.before, options.after, seed=options.seed)
    if options.out is not None:
        write_frame(options.out, table)
    click.echo(bannered(task, change_lines(table), table=table))
    if options.figures is not None:
        from study.analyses.eval.figures import comparison_figures

        _draw(comparison_figures(options.before, options.after, table), options.figures)
