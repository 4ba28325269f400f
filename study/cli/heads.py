"""`diptych heads`: the effect of every attention head of a checkpoint, or of both members of a pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.analyses.heads.options import HeadsOptions
from study.cli.common import CheckpointOptions, Quiet, takes
from study.cli.lazy import DefaultGroup
from study.load_options import LoadOptions
from study.option_types import Count
from study.options import STRICT, option
from study.task_options import TaskOptions

if TYPE_CHECKING:
    from interp.prompt import Example

USAGE = (
    "(--base ID [--adapter ID] | --pair FILE) --task TASK [--at SITE,...] --out FOLDER",
    "show FOLDER [--head L19.H17]",
    "match A[:MEMBER] B[:MEMBER] --control C[:MEMBER] --out FOLDER",
)


@click.group(cls=DefaultGroup, default="sweep", usage=USAGE)
def heads() -> None:
    """Compute the exact effect of every attention head, each with its control.

    An interrupted sweep continues. See `diptych heads sweep --help` for its options.
    """


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweptItems(TaskOptions):
    """Twins of a task that makes them, else its examples; `HeadsOptions.n` says how many."""

    path: str = option(
        help="Import path of a task; heads can be patched if the task has twins.", flag="--task", param="task"
    )
    data: str | None = option(None, "Examples in the task's own format; heads are then ablated, not patched.")
    limit: Count | None = option(None, is_command=False)
    per_cell: Count | None = option(None, is_command=False)
    seed: int | None = option(0, "Seed of the items, the halves and the bootstraps.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweepOptions(Quiet):
    """Of the command alone."""

    out: Path = option(help="Folder for the sweep.")


@heads.command()
@takes(CheckpointOptions, LoadOptions, SweptItems, HeadsOptions, SweepOptions)
def sweep(
    checkpoint: CheckpointOptions, load: LoadOptions, items: SweptItems, options: HeadsOptions, command: SweepOptions
) -> None:
    """Sweep all heads into --out: table.csv, selected.csv, cumulative.csv, order_swap.csv, figures/.

    The word `sweep` may be omitted.
    """
    from study.analyses.heads.figures import figures
    from study.analyses.heads.run import run_heads
    from study.analyses.heads.show import headline
    from study.analyses.heads.tables import tables_of_heads, write_tables
    from study.figures.save import save_all

    what, out = checkpoint.resolve(), command.out
    members = run_heads(
        what,
        items.path,
        _swept(checkpoint, items, options.n),
        out=out,
        options=options,
        seed=items.seed or 0,
        loading=checkpoint.loading(load),
        progress=not command.quiet,
    )
    tables = tables_of_heads(out, members, options, seed=items.seed or 0)
    write_tables(tables, out)
    if not command.no_figures:
        drawn = ((name[len("heads-") :], one) for name, one in figures(tables, every_pair=True))
        for reason in save_all(drawn, out / "figures")[1]:
            click.echo(f"note: {reason}", err=True)
    click.echo(headline(out))


def _swept(checkpoint: CheckpointOptions, items: SweptItems, n: int) -> list[Example] | list[tuple[Example, Example]]:
    """Twins of a task that makes them, else its examples."""
    from interp.tasks.protocol import hook, load_task
    from interp.where import twins_where

    make = hook(load_task(items.path), "twin_examples")
    if items.data or make is None:
        # a task that takes no seed is no error: it is that of the halves and the bootstraps too
        return checkpoint.examples(replace(items, limit=n, seed=None), default_seed=items.seed)
    arguments = items.arguments(make, is_embedded=checkpoint.is_embedded)
    return twins_where(make(n, **arguments), items.where, option="--where")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ShowOptions:
    """What is shown of a sweep."""

    folder: Path = option(is_argument=True)
    head: str | None = option(None, "Head to show, such as L19.H17; default: the heads with the largest effects.")
    base: Annotated[int, Field(ge=0, le=1)] = option(0, "Index from which layers and heads are counted: 0 or 1.")


@heads.command()
@takes(ShowOptions)
def show(options: ShowOptions) -> None:
    """Show every definition of δ for one head, with interval, n, p and control; or the largest effects."""
    from study.analyses.heads.show import headline, show_head

    one, folder = options.head, options.folder
    click.echo(show_head(folder, one, base=options.base) if one else headline(folder))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MatchOptions:
    """Which sweeps are matched."""

    a: str = option(is_argument=True, metavar="A[:MEMBER]")
    b: str = option(is_argument=True, metavar="B[:MEMBER]")
    control: str = option(help="FOLDER[:MEMBER] of another checkpoint on A's base; matching A with it is the control.")
    at: str | None = option(None, "Decision site of the sweeps; may be left out where there is only one.")
    window: float = option(0.15, "Largest difference in relative depth.")
    n_permutations: Annotated[int, Field(ge=19)] = option(1000, "Number of permutations of B's items.", flag="--perm")
    seed: int = option(0, "Seed of the permutations.")
    out: Path = option(help="Folder for match.csv and its figure.")


@heads.command()
@takes(MatchOptions)
def match(options: MatchOptions) -> None:
    """Match heads of A and B by their effects on the same items; the models may differ in size (7B and 14B).

    The null permutes B's items; the control gives the r of heads that must have a counterpart.
    """
    from interp.io.csv_text import csv_bytes
    from interp.io.files import write_file
    from study.analyses.heads.match import match_lines, match_table, read_sweeps
    from study.figures import match_heads, save

    words, out = (options.a, options.b, options.control), options.out
    a, b, control = (Path(word).name.rpartition(":")[2] for word in words)
    how = {"window": options.window, "n_permutations": options.n_permutations, "seed": options.seed}
    sweeps = [read_sweeps(word, at=options.at) for word in words]
    table = match_table(*sweeps, names=(a, b, control), **how)
    write_file(out / "match.csv", csv_bytes(table))
    save(match_heads(table), out / "match_heads")
    click.echo(match_lines(table))
    click.echo(f"\ntable  {out / 'match.csv'}\nfigure {out / 'match_heads.png'}")
