"""`diptych heads`: the effect of every attention head of a checkpoint, or of both members of a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from interp.io.csv_text import csv_bytes
from study.analyses.heads.options import HeadsOptions
from study.cli.common import (
    checkpoint_options,
    given_to_task,
    load_options,
    more_task_options,
    read_data,
    resolve_checkpoints,
    user_errors_as_messages,
    where_option,
)
from study.embedded import EMBEDDED
from study.options import command_options, help_of, options_from


class HeadsGroup(click.Group):
    """`diptych heads --checkpoint ...` sweeps; `diptych heads show` reads a folder."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise click.UsageError("nothing to do. Give --checkpoint and --out to sweep, or show and a folder.", ctx)
        return super().parse_args(ctx, args if args[0] in {*self.commands, "--help", "-h"} else ["sweep", *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "(--base ID [--adapter ID] | --pair FILE) --task TASK --out FOLDER")
        formatter.write_usage(ctx.command_path, "show FOLDER [--head L19.H17]")
        formatter.write_usage(ctx.command_path, "match A[:MEMBER] B[:MEMBER] --control C[:MEMBER] --out FOLDER")


@click.group(cls=HeadsGroup)
def heads() -> None:
    """Effects of attention heads: exact, all of them, every number with its control.

    A sweep resumes where it stopped. See `diptych heads sweep --help` for its options.
    """


@heads.command()
@checkpoint_options
@load_options
@click.option("--task", required=True, help="Import path of a task; one with twins can be patched.")
@click.option("--data", help="Examples in the task's own format; then heads are ablated, not patched.")
@command_options(HeadsOptions, only=["n"])
@click.option("--seed", default=0, show_default=True, help="Of the items, the halves and the bootstraps.")
@click.option("--split", help="Whose items: train, validation, test.")
@click.option("--rendering", help="Of generated items: plain, or log for the embedded pair.")
@where_option
@more_task_options
@command_options(HeadsOptions, omit=["n", "named"])
@click.option("--named", multiple=True, help=help_of(HeadsOptions)["named"])
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep.")
@click.option("--no-figures", is_flag=True, help="Tables only.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@user_errors_as_messages
def sweep(out: Path, quiet: bool, no_figures: bool, **options: Any) -> None:
    """Sweep all heads into --out: table.csv, selected.csv, cumulative.csv, order_swap.csv, figures/. The word may be
    left out."""
    from study.analyses.heads.figures import figures
    from study.analyses.heads.run import run_heads
    from study.analyses.heads.show import headline
    from study.analyses.heads.tables import tables_of_heads, write_tables
    from study.figures.save import save_all

    checkpoints, loading = resolve_checkpoints(options)
    sweep, seed = options_from(HeadsOptions, options), options["seed"]
    members = run_heads(
        checkpoints,
        options["task"],
        _items(options),
        out=out,
        options=sweep,
        seed=seed,
        loading=loading,
        progress=not quiet,
    )
    tables = tables_of_heads(out, members, sweep, seed=seed)
    write_tables(tables, out)
    if not no_figures:
        drawn = ((name[len("heads-") :], one) for name, one in figures(tables, every_pair=True))
        for reason in save_all(drawn, out / "figures")[1]:
            click.echo(f"note: {reason}", err=True)
    click.echo(headline(out))


@heads.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--head", help="A head such as L19.H17; without one, the largest effects.")
@click.option("--base", default=0, show_default=True, type=click.IntRange(0, 1), help="How heads are counted.")
@user_errors_as_messages
def show(folder: Path, head: str | None, base: int) -> None:
    """Every definition of δ for one head, with interval, n, p and control; or the largest effects."""
    from study.analyses.heads.show import headline, show_head

    click.echo(show_head(folder, head, base=base) if head else headline(folder))


@heads.command()
@click.argument("a", metavar="A[:MEMBER]")
@click.argument("b", metavar="B[:MEMBER]")
@click.option("--control", required=True, help="FOLDER[:MEMBER] of another checkpoint of A's base: the self-match.")
@click.option("--window", default=0.15, show_default=True, help="Largest difference in relative depth.")
@click.option("--perm", "n_permutations", default=1000, show_default=True, type=click.IntRange(min=19))
@click.option("--seed", default=0, show_default=True, help="Of the permutations.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of match.csv and its figure.")
@user_errors_as_messages
def match(a: str, b: str, control: str, out: Path, **options: Any) -> None:
    """Which heads of B do to the same items what heads of A do; sizes may differ (7B and 14B).

    The null permutes B's items; the control says what r a head that must have a counterpart gets.
    """
    from interp.io.files import write_file
    from study.analyses.heads.match import match_table, read_sweeps
    from study.figures import match_heads, save

    names = tuple(Path(word).name.rpartition(":")[2] for word in (a, b, control))
    sides = [read_sweeps(word) for word in (a, b, control)]
    table = match_table(*sides, names=(names[0], names[1], names[2]), **options)
    write_file(out / "match.csv", csv_bytes(table))
    save(match_heads(table), out / "match_heads")
    beyond = table[(table["arm"] == "match") & table["mutual"].eq(True) & (table["r"] > table["null_max95"])]
    shown = beyond.sort_values("r", ascending=False)[
        ["layer_a", "head_a", "layer_b", "head_b", "r", "margin", "p", "n"]
    ]
    click.echo(
        shown.head(12).to_string(index=False, float_format=lambda v: f"{v:.3g}")
        if len(shown)
        else "No mutual pair is more alike than the largest of a permutation."
    )
    click.echo(f"\ntable  {out / 'match.csv'}\nfigure {out / 'match_heads.png'}")


def _items(options: dict[str, Any]) -> Any:
    """Twins of a task that makes them, else its examples."""
    from interp.tasks.protocol import load_task
    from interp.where import twins_where

    task: Any = load_task(options["task"])
    if options["data"] or not callable(getattr(task, "twin_examples", None)):
        return read_data({**options, "limit": options["n"]}, shared=("seed",))
    arguments = {key: options[key] for key in ("seed", "split", "rendering") if options[key] is not None}
    arguments |= given_to_task(task.twin_examples, options["more"])
    if options["pair"] == EMBEDDED:
        arguments.setdefault("rendering", "log")
    return twins_where(task.twin_examples(options["n"], **arguments), options["where"], option="--where")
