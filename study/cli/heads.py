"""`diptych heads`: the effect of every attention head of a checkpoint, or of both members of a pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.analyses.heads.options import HeadsOptions, MatchOptions, ShowOptions, SweepOptions, SweptItems
from study.cli.common import CheckpointOptions, say_sizes, takes
from study.cli.lazy import DefaultGroup
from study.load_options import LoadOptions

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


@heads.command()
@takes(CheckpointOptions, LoadOptions, SweptItems, HeadsOptions, SweepOptions)
def sweep(
    checkpoint: CheckpointOptions, load: LoadOptions, items: SweptItems, options: HeadsOptions, command: SweepOptions
) -> None:
    """Sweep all heads into --out: table.csv, selected.csv, cumulative.csv, order_swap.csv, figures/.

    The word `sweep` may be omitted.
    """
    from interp.checkpoint import CheckpointPair
    from study.analyses.heads.figures import figures
    from study.analyses.heads.run import run_heads
    from study.analyses.heads.show import headline
    from study.analyses.heads.size import layouts_of, n_of
    from study.analyses.heads.tables import FILES, tables_of_heads, write_tables
    from study.figures.save import save_all

    what, out = checkpoint.resolve(), command.out
    if options.n is None:
        members = what.members.values() if isinstance(what, CheckpointPair) else [what]
        loading = {key: value for key, value in checkpoint.loading(load).items() if key != "merge"}
        options = replace(options, n=n_of(options, layouts_of(members, loading)))
    assert options.n is not None
    if not command.quiet:
        say_sizes(what, checkpoint.loading(load), f"{options.n} pairs")
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
    click.echo(f"tables: {', '.join(str(out / f'{FILES[name]}.csv') for name in tables)}")


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


@heads.command()
@takes(ShowOptions)
def show(options: ShowOptions) -> None:
    """Show every definition of δ for one head, with interval, n, p and control; or the largest effects."""
    from study.analyses.heads.show import headline, show_head

    one, folder = options.head, options.folder
    click.echo(show_head(folder, one, base=options.base) if one else headline(folder))


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
