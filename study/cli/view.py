"""`diptych view`: coloured tokens of both members side by side, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.analyses.cache.options import ReplyOptions
from study.cli.common import CheckpointOptions, takes
from study.load_options import LoadOptions
from study.option_types import Names
from study.options import STRICT, option
from study.task_options import ItemOptions

if TYPE_CHECKING:
    from study.view import View

FEWER = 4
"""Items of a view that runs models, where --n is not given: a pattern is the square of the tokens."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ViewOptions:
    """What is shown, and where the page is written."""

    folder: Path = option(is_argument=True)
    out: Path = option(Path("tokens.html"), "HTML file to write.")
    n: Annotated[int, Field(ge=1)] | None = option(None, f"Items; default: 40, or {FEWER} with --head or --lens.")
    head: str | None = option(None, "Show where this head looks, e.g. L1.H0; FOLDER is one of `diptych eval`.")
    lens: Names = option((), "Show the logit lens at these layers, e.g. 2,50%; FOLDER is one of `diptych eval`.")
    through: str | None = option(None, "Member that reads all replies; default: each member reads those that it wrote.")


@click.command()
@takes(CheckpointOptions, LoadOptions, ItemOptions, ViewOptions)
def view(checkpoint: CheckpointOptions, load: LoadOptions, items: ItemOptions, options: ViewOptions) -> None:
    """Show the tokens of FOLDER, both members side by side, coloured by a score; writes one HTML file.

    FOLDER is one of `diptych probes along`. With --head or --lens it is one of `diptych eval`, whose replies the
    checkpoint or pair reads again: name it, and the task and items of the evaluation. The file needs no network.
    """
    if options.head is None and not options.lens:
        _refuse_models(checkpoint, items)
        from study.view import of_replies

        made = of_replies(options.folder, n=options.n or 40, seed=items.seed or 0)
    else:
        made = _along_own(checkpoint, load, items, options)
    made.save(options.out)
    n_strips = sum(len(item.strips) for item in made.items)
    click.echo(f"{options.out}: {len(made.items)} items, {n_strips} replies, {options.out.stat().st_size / 1e6:.1f} MB")


def _refuse_models(checkpoint: CheckpointOptions, items: ItemOptions) -> None:
    if checkpoint.is_named or items.path:
        raise click.UsageError("--task and a checkpoint or pair: only with --head or --lens.")


def _along_own(checkpoint: CheckpointOptions, load: LoadOptions, items: ItemOptions, options: ViewOptions) -> View:
    from study.view.own import lens_of_replies, of_own_replies, pattern_of_replies

    if options.head is not None and options.lens:
        raise click.UsageError("--head and --lens: give one of the two.")
    if items.path is None:
        raise click.UsageError("--head and --lens run the models: name the task of the evaluation with --task.")
    if options.head is not None:
        make = pattern_of_replies(options.head)
    else:
        make = lens_of_replies([int(word) if word.lstrip("-").isdigit() else word for word in options.lens])
    replies = ReplyOptions(replies=options.folder, through=options.through)
    loading = checkpoint.loading(load)
    examples = checkpoint.examples(items)
    return of_own_replies(checkpoint.resolve(), examples, replies, make, n=options.n or FEWER, loading=loading)
