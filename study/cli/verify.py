"""`diptych verify`: coverage and level of the statistics on data with the structure of yours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.cli.common import user_errors_as_messages

if TYPE_CHECKING:
    from interp.stats.promises import Shape


@click.command()
@click.option("--groups", type=click.IntRange(min=2), required=True, help="Independent groups (procedures, stories).")
@click.option("--size", type=click.IntRange(min=1), required=True, help="Examples of a group on average.")
@click.option(
    "--equal/--unequal", default=True, show_default=True, help="All of that size, or spread over a factor of ten."
)
@click.option("--icc", type=click.FloatRange(0, 1, max_open=True), default=0.3, show_default=True,
              help="Intraclass correlation: how alike the examples of a group are.")  # fmt: skip
@click.option("--shape", type=click.Choice(["gaussian", "skewed", "binary"]), default="binary", show_default=True)
@click.option("--mean", type=float, default=0.8, show_default=True, help="True mean; a rate for binary values.")
@click.option("--positive", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5, show_default=True,
              help="Share of positive examples, and of positive groups, for AUROC.")  # fmt: skip
@click.option("--studies", type=click.IntRange(min=1), default=400, show_default=True, help="Simulated studies.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="The rows as a table, .csv or .parquet.")
@user_errors_as_messages
def verify(
    groups: int, size: int, equal: bool, icc: float, shape: Shape, mean: float, positive: float, studies: int,
    seed: int, out: Path | None,
) -> None:  # fmt: skip
    """Simulate studies like yours: do the intervals cover, do the tests err as often as they say?

    Needs no model and no data. Exits with 1 where a promise is broken.
    """
    from interp.stats import Design, group_sizes
    from interp.stats import verify as run

    design = Design(group_sizes(groups, size, equal=equal), icc=icc, shape=shape, mean=mean)
    found = run(design, n_studies=studies, positive=positive, seed=seed)
    click.echo(str(found))
    if out is not None:
        from interp.io.frames import write_frame

        write_frame(out, found.table())
    if found.broken:
        raise click.exceptions.Exit(1)
