"""`diptych eval`: answers of one checkpoint or of a pair; `score`, `compare`, `figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from study.analyses.eval.options import EvalOptions
from study.cli.common import (
    checkpoint_options,
    given_to_task,
    load_options,
    more_task_options,
    read_data,
    resolve_checkpoints,
    task_options,
    user_errors_as_messages,
)
from study.options import command_options, options_from


class EvalGroup(click.Group):
    """`diptych eval --pair ...` evaluates; `diptych eval score|compare|figures` are sub-commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise click.UsageError(
                "nothing to do. Give --base, --checkpoint or --pair, or score, compare or figures.", ctx
            )
        return super().parse_args(ctx, args if args[0] in {*self.commands, "--help", "-h"} else ["run", *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "(--base ID | --checkpoint FILE | --pair FILE) --task T --out FOLDER")
        formatter.write_usage(ctx.command_path, "(score | compare | figures) ...")


@click.group(cls=EvalGroup, name="eval")
def evaluate() -> None:
    """Answers of a model, or of a pair on the same items, and their tables.

    See `diptych eval run --help` for the options of an evaluation; `run` may be left out.
    """


@evaluate.command()
@checkpoint_options
@load_options
@task_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of answers and tables; resumable.")
@click.option("--mode", type=click.Choice(["generate", "labels"]), default="generate", show_default=True,
              help="Let the model write its answer, or only score the task's labels after the prompt.")  # fmt: skip
@command_options(EvalOptions)
@click.option("--no-figures", is_flag=True, help="Tables only.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@user_errors_as_messages
def run(out: Path, mode: str, no_figures: bool, quiet: bool, **options: Any) -> None:
    """Answers and tables: OUT/<member>/answers.parquet, OUT/table.csv, OUT/pair.csv for a pair, and OUT/figures.

    Every number has its interval, n and control; see the columns in the README. --seed draws the items (and the
    samples); interrupt it whenever you like, the same command continues.
    """
    from interp.io.paths import shown
    from interp.tasks.protocol import load_task
    from study.analyses.eval.run import run_eval
    from study.analyses.eval.show import bannered, headline

    checkpoints, loading = resolve_checkpoints(options)
    chosen = options_from(EvalOptions, options, generate=mode == "generate")
    examples = read_data(options, shared=("seed",))
    items = {key: options[key] for key in ("data", "seed", "split", "per_cell", "rendering", "limit")}
    items |= {"data": shown(options["data"])} if options["data"] else {}
    items |= {"task_options": list(options["more"])} if options["more"] else {}
    items |= {"where": list(options["where"])} if options["where"] else {}
    evaluation = run_eval(
        checkpoints,
        options["task"],
        examples,
        out=out,
        options=chosen,
        loading=loading,
        progress=not quiet,
        reply_seed=options["seed"] or 0,
        provenance={"items": items},
    )
    click.echo(bannered(options["task"], headline(evaluation.tables), table=evaluation.tables["eval"]))
    if not no_figures:
        from study.analyses.eval.figures import figures

        task = load_task(options["task"])
        _draw(figures(evaluation.tables, answers=evaluation.answers, task=task), out / "figures")


def _draw(drawn: Any, out: Path) -> None:
    """Save figures and say where they are, and which could not be drawn."""
    from study.figures.save import save_all

    paths, reasons = save_all(drawn, out)
    for reason in reasons:
        click.echo(f"note: {reason}", err=True)
    if paths:
        click.echo(f"figures: {', '.join(str(path) for path in paths)}")


@evaluate.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the figures; default: FOLDER/figures.")
@user_errors_as_messages
def figures(folder: Path, out: Path | None) -> None:
    """Draw the evaluation in FOLDER again, from its tables and answers: accuracy per cell, and the task's own."""
    from study.analyses.eval.figures import figures_of

    _draw(figures_of(folder), out or folder / "figures")


@evaluate.command()
@click.option("--task", required=True, help="Import path of a task, e.g. interp.tasks.bbq.")
@click.option("--data", required=True, help="The task's data.")
@more_task_options
@click.option("--answers", required=True, type=click.Path(path_type=Path), help="JSON lines, one answer per item.")
@click.option("--set", "tags", help="Of BBQ: as_published scores Physical_appearance with the paper's tags.")
@click.option("--unparsed", type=click.Choice(["exclude", "wrong"]), help="Of BBQ: what a null answer is (exclude).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstraps behind the intervals.")
@click.option("--name", help="What the table calls the system; default: the name of the file.")
@click.option("--out", type=click.Path(path_type=Path), help="Table, as .csv or .parquet.")
@user_errors_as_messages
def score(task: str, answers: Path, seed: int, name: str | None, out: Path | None, **options: Any) -> None:
    """Score answers of another system, from a file; no model is loaded."""
    from interp.tasks.protocol import load_task
    from study.analyses.eval.scored import score_answers
    from study.analyses.eval.show import bannered, score_lines

    module: Any = load_task(task)
    tags = {"tags": options["tags"]} if options["tags"] else {}
    more = given_to_task(module.examples, options["more"])
    unparsed = {"unparsed": options["unparsed"]} if options["unparsed"] else {}
    _check_taken(task, module.examples, more, {key: f"--task-option {key}" for key in more})
    _check_taken(task, module.examples, tags, {"tags": "--set"})
    _check_taken(task, getattr(module, "score_report", None), unparsed, {"unparsed": "--unparsed"})
    examples = module.examples(options["data"], **more, **tags)
    table = score_answers(module, examples, answers, out=out, member=name, seed=seed, **unparsed)
    click.echo(bannered(task, score_lines(table), table=table))


def _check_taken(task: str, function: Any, options: dict[str, Any], flags: dict[str, str]) -> None:
    import inspect

    parameters = inspect.signature(function).parameters if function else {}
    if unknown := [flags[key] for key in options if key not in parameters]:
        raise ValueError(f"{task} does not take {', '.join(unknown)}. Leave it out.")


@evaluate.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstraps behind the intervals.")
@click.option("--out", type=click.Path(path_type=Path), help="Table, as .csv or .parquet.")
@click.option("--figures", "drawings", type=click.Path(path_type=Path), help="Folder of figures of the change.")
@user_errors_as_messages
def compare(before: Path, after: Path, seed: int, out: Path | None, drawings: Path | None) -> None:
    """Compare two evaluations of the same items: AFTER minus BEFORE, paired.

    BEFORE and AFTER are folders of `diptych eval`, or of one member of it.
    """
    from interp.io.frames import write_frame
    from study.analyses.eval.compare import compare_evals
    from study.analyses.eval.show import bannered, change_lines

    table, task = compare_evals(before, after, seed=seed)
    if out is not None:
        write_frame(out, table)
    click.echo(bannered(task, change_lines(table), table=table))
    if drawings is not None:
        from study.analyses.eval.figures import comparison_figures

        _draw(comparison_figures(before, after, table), drawings)
