"""`diptych cache`: record activations; `plan`, `inspect` and `verify` a cache."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic.dataclasses import dataclass

from study.analyses.cache.options import CacheOptions
from study.cli.common import CheckpointOptions, takes
from study.cli.lazy import DefaultGroup
from study.load_options import LoadOptions
from study.options import STRICT, option
from study.task_options import ItemOptions

USAGE = ("(--base ID [--adapter ID] | --pair FILE) --data FILE --out FOLDER", "(plan | inspect | verify) ...")


@click.group(cls=DefaultGroup, default="extract", usage=USAGE)
def cache() -> None:
    """Record activations once and keep them on disk.

    An interrupted extraction continues. See `diptych cache extract --help` for its options.
    """


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CachedItems(ItemOptions):
    """Items of a task, or of a file without one."""

    path: str | None = option(
        None,
        "Import path of a task, e.g. interp.tasks.bbq, which reads --data in its own format.",
        flag="--task",
        param="task",
    )
    data: str | None = option(None, "JSON lines, JSON, CSV or Parquet file, a folder of them, or a dataset id.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ExtractOptions:
    """Of the command alone."""

    out: Path = option(help="Folder for the cache, or for both caches of a pair.")
    quiet: bool = option(False, "Show no progress bar.")


@cache.command()
@takes(CheckpointOptions, LoadOptions, CachedItems, CacheOptions, ExtractOptions)
def extract(
    checkpoint: CheckpointOptions, load: LoadOptions, items: CachedItems, options: CacheOptions, command: ExtractOptions
) -> None:
    """Record activations of a checkpoint, or of both members of a pair, into --out.

    The word `extract` may be omitted.
    """
    from interp.cache.extract import rank_and_world
    from study.analyses.cache.run import record_caches

    what, loading = checkpoint.resolve(), checkpoint.loading(load)
    made = record_caches(
        what, checkpoint.examples(items), out=command.out, options=options, loading=loading, progress=not command.quiet
    )
    for cached in made:
        click.echo(cached.inspect())
        if not cached.sealed:
            rank, world = rank_and_world()
            click.echo(f"rank {rank} of {world} has made its shards; {len(cached.missing())} are left to other ranks.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PlanOptions:
    """Of the command alone."""

    out: Path = option(Path(), "Output folder, to check its disk for free space.")


@cache.command()
@takes(CheckpointOptions, LoadOptions, CachedItems, CacheOptions, PlanOptions)
def plan(
    checkpoint: CheckpointOptions, load: LoadOptions, items: CachedItems, options: CacheOptions, command: PlanOptions
) -> None:
    """Print the rows, bytes and files of a planned cache, and refuse one that does not fit; no weights are read."""
    from interp.cache.request import preview
    from interp.checkpoint import CheckpointPair

    what, examples = checkpoint.resolve(), checkpoint.examples(items)
    members = what.members if isinstance(what, CheckpointPair) else {what.name: what}
    for role, member in members.items():
        planned = preview(member, examples, load=checkpoint.loading(load), **options.request())
        click.echo(f"{role}: {planned.check_disk(command.out, max_bytes=options.max_bytes)}")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class InspectOptions:
    """A cache on disk."""

    folder: Path = option(is_argument=True)


@cache.command()
@takes(InspectOptions)
def inspect(options: InspectOptions) -> None:
    """Show what a cache contains: model, sites, positions, rows, bytes."""
    from interp.cache import ActivationCache

    click.echo(ActivationCache.open(options.folder, allow_partial=True).inspect())


@dataclass(frozen=True, config=STRICT, kw_only=True)
class VerifyOptions(InspectOptions):
    """How a cache is checked."""

    hash: bool = option(False, "Read every byte and compare checksums.")
    size: bool = option(False, "Compare only file sizes (the default).")


@cache.command()
@takes(VerifyOptions)
def verify(options: VerifyOptions) -> None:
    """Check that a cache is complete and undamaged; exits with 1 and lists what is not."""
    from interp.cache.reader import problems_of

    problems = problems_of(options.folder, "hash" if options.hash else "size")
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        raise click.exceptions.Exit(1)
    checked = "every byte matches its checksum" if options.hash else "every file has its recorded size"
    click.echo(f"{options.folder}: {checked}.")
