"""`diptych verify`: coverage and level of the statistics on data with the structure of yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import click
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.cli.common import takes
from study.option_types import Count, Share
from study.options import STRICT, option


@dataclass(frozen=True, config=STRICT, kw_only=True)
class VerifyOptions:
    """Studies that are simulated: the structure of their data, and how many."""

    groups: Annotated[int, Field(ge=2)] = option(help="Number of independent groups (procedures, stories).")
    size: Count = option(help="Mean number of examples per group.")
    equal: bool = option(True, "Group sizes: all equal, or spread over a factor of ten.", flag="--equal/--unequal")
    icc: Share = option(0.3, "Intraclass correlation: how similar the examples of a group are.")
    shape: Literal["gaussian", "skewed", "binary"] = option("binary", "Shape of the distribution of the values.")
    mean: float = option(0.8, "True mean; a rate for binary values.")
    positive: Annotated[float, Field(gt=0, lt=1)] = option(
        0.5, "Share of positive examples (and of positive groups) for AUROC."
    )
    studies: Count = option(400, "Number of simulated studies.")
    seed: int = option(0, "Seed of the simulation.")
    out: Path | None = option(None, "Also write the rows as a table, .csv or .parquet.")


@click.command()
@takes(VerifyOptions)
def verify(options: VerifyOptions) -> None:
    """Simulate studies like yours: do the intervals cover, and do the tests keep their error rates?

    Needs no model and no data. Exits with 1 if a promise is broken.
    """
    from interp.stats import Design, group_sizes
    from interp.stats import verify as run

    sizes = group_sizes(options.groups, options.size, equal=options.equal)
    design = Design(sizes, icc=options.icc, shape=options.shape, mean=options.mean)
    found = run(design, n_studies=options.studies, positive=options.positive, seed=options.seed)
    click.echo(str(found))
    if options.out is not None:
        from interp.io.frames import write_frame

        write_frame(options.out, found.table())
    if found.broken:
        raise click.exceptions.Exit(1)
