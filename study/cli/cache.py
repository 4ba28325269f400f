"""`diptych cache`: record activations; `plan`, `inspect` and `verify` a cache."""

from __future__ import annotations

import click

from study.analyses.cache.options import (
    CachedItems,
    CacheOptions,
    ExtractOptions,
    InspectOptions,
    PlanOptions,
    ReplyOptions,
    VerifyOptions,
)
from study.cli.common import CheckpointOptions, say_sizes, takes
from study.cli.lazy import DefaultGroup
from study.load_options import LoadOptions

USAGE = ("(--base ID [--adapter ID] | --pair FILE) --data FILE --out FOLDER", "(plan | inspect | verify) ...")


@click.group(cls=DefaultGroup, default="extract", usage=USAGE)
def cache() -> None:
    """Record activations once and keep them on disk.

    An interrupted extraction continues. See `diptych cache extract --help` for its options.
    """


@cache.command()
@takes(CheckpointOptions, LoadOptions, CachedItems, CacheOptions, ReplyOptions, ExtractOptions)
def extract(
    checkpoint: CheckpointOptions,
    load: LoadOptions,
    items: CachedItems,
    options: CacheOptions,
    replies: ReplyOptions,
    command: ExtractOptions,
) -> None:
    """Record activations of a checkpoint, or of both members of a pair, into --out.

    With --replies, along the replies of an evaluation of the same items: the prompt and the token ids that were
    generated are read again, by the member that wrote them or by another one (--through). Replies that are empty or
    unfinished, and those in which a position rule selects nothing, are counted.

    The word `extract` may be omitted.
    """
    from interp.cache.extract import rank_and_world
    from study.analyses.cache.run import record_caches, record_replies

    what, loading = checkpoint.resolve(), checkpoint.loading(load)
    if not command.quiet:
        say_sizes(what, loading)
    examples, progress = checkpoint.examples(items), not command.quiet
    if replies.replies is not None:
        read = record_replies(
            what,
            examples,
            out=command.out,
            options=options,
            replies=replies,
            loading=loading,
            progress=progress,
        )
        made = [one.cache for one in read if one.cache is not None]
        click.echo("\n".join(line for one in read for line in one.lines))
    else:
        _refuse_without_replies(replies)
        made = record_caches(what, examples, out=command.out, options=options, loading=loading, progress=progress)
    for cached in made:
        click.echo(cached.inspect())
        if not cached.sealed:
            rank, world = rank_and_world()
            click.echo(f"rank {rank} of {world} has made its shards; {len(cached.missing())} are left to other ranks.")


def _refuse_without_replies(options: ReplyOptions) -> None:
    defaults = ReplyOptions()
    given = [name for name in ("through", "mode", "unfinished") if getattr(options, name) != getattr(defaults, name)]
    if given:
        raise ValueError(f"--{given[0]}: only with --replies.")


@cache.command()
@takes(CheckpointOptions, LoadOptions, CachedItems, CacheOptions, PlanOptions)
def plan(
    checkpoint: CheckpointOptions, load: LoadOptions, items: CachedItems, options: CacheOptions, command: PlanOptions
) -> None:
    """Print the rows, bytes and files of a planned cache, and refuse one that does not fit; no weights are read."""
    from interp.cache.request import preview
    from interp.checkpoint import CheckpointPair

    what, examples = checkpoint.resolve(), checkpoint.examples(items)
    say_sizes(what, checkpoint.loading(load))
    members = what.members if isinstance(what, CheckpointPair) else {what.name: what}
    for role, member in members.items():
        planned = preview(member, examples, load=checkpoint.loading(load), **options.request())
        click.echo(f"{role}: {planned.check_disk(command.out, max_bytes=options.max_bytes)}")


@cache.command()
@takes(InspectOptions)
def inspect(options: InspectOptions) -> None:
    """Show what a cache contains: model, sites, positions, rows, bytes."""
    from interp.cache import ActivationCache

    click.echo(ActivationCache.open(options.folder, allow_partial=True).inspect())


@cache.command()
@takes(VerifyOptions)
def verify(options: VerifyOptions) -> None:
    """Check that a cache is complete and undamaged; otherwise list the faults and exit with 1."""
    from interp.cache.reader import problems_of

    problems = problems_of(options.folder, "hash" if options.hash else "size")
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        raise click.exceptions.Exit(1)
    checked = "every byte matches its checksum" if options.hash else "every file has its recorded size"
    click.echo(f"{options.folder}: {checked}.")
