"""`diptych cache`: record activations; `plan`, `inspect` and `verify` a cache."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from study.analyses.cache.options import CacheOptions
from study.cli.common import (
    checkpoint_options,
    item_options,
    load_options,
    read_data,
    resolve_checkpoints,
    user_errors_as_messages,
)
from study.options import command_options, options_from


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what is recorded of which examples."""
    options = (
        click.option("--task", help="Import path of a task, e.g. interp.tasks.bbq; reads --data in its own format."),
        click.option("--data", help="JSON lines, JSON, CSV or Parquet file, folder, or dataset id."),
        command_options(CacheOptions),
        item_options,
    )
    for add in reversed(options):
        command = add(command)
    return command


class CacheGroup(click.Group):
    """`diptych cache --base ...` extracts; `diptych cache plan|inspect|verify` are sub-commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            raise click.UsageError("nothing to do. Give --base and --out to extract, or plan, inspect or verify.", ctx)
        if not args[0].startswith("-") and args[0] not in self.commands:
            near = get_close_matches(args[0], self.commands, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no command {args[0]!r}; there are {', '.join(self.commands)}.{hint}", ctx)
        return super().parse_args(ctx, args if args[0] in {*self.commands, "--help", "-h"} else ["extract", *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "(--base ID [--adapter ID] | --pair FILE) --data FILE --out FOLDER")
        formatter.write_usage(ctx.command_path, "(plan | inspect | verify) ...")


@click.group(cls=CacheGroup)
def cache() -> None:
    """Record activations once and keep them on disk.

    Extraction resumes where it stopped. See `diptych cache extract --help` for its options.
    """


@cache.command()
@checkpoint_options
@load_options
@request_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the cache (or of a pair's caches)."
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@user_errors_as_messages
def extract(out: Path, quiet: bool, **options: Any) -> None:
    """Record activations of a checkpoint, or of both members of a pair, into --out. May be left out."""
    from interp.cache import extract as run
    from interp.cache import extract_pair
    from interp.cache.extract import rank_and_world
    from interp.checkpoint import CheckpointPair
    from interp.loading import load

    checkpoints, loading = resolve_checkpoints(options)
    examples = read_data(options)
    request = options_from(CacheOptions, options)
    kwargs: dict[str, Any] = {"out": out, "max_bytes": request.max_bytes, "progress": not quiet, **request.request()}
    if isinstance(checkpoints, CheckpointPair):
        caches = list(extract_pair(checkpoints, examples, load=loading, **kwargs).values())
    else:
        caches = [run(load(checkpoints, **loading), examples, **kwargs)]
    for cached in caches:
        click.echo(cached.inspect())
        if not cached.sealed:
            rank, world = rank_and_world()
            click.echo(f"rank {rank} of {world} has made its shards; {len(cached.missing())} are left to other ranks.")


@cache.command()
@checkpoint_options
@load_options
@request_options
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Disk to check for room.")
@user_errors_as_messages
def plan(out: Path, **options: Any) -> None:
    """Print rows, bytes and files of a cache, and refuse what does not fit; no weight is read."""
    from interp.cache.request import preview
    from interp.checkpoint import CheckpointPair

    checkpoints, loading = resolve_checkpoints(options)
    members = checkpoints.members if isinstance(checkpoints, CheckpointPair) else {checkpoints.name: checkpoints}
    examples, request = read_data(options), options_from(CacheOptions, options)
    for role, checkpoint in members.items():
        planned = preview(checkpoint, examples, load=loading, **request.request())
        click.echo(f"{role}: {planned.check_disk(out, max_bytes=request.max_bytes)}")


@cache.command()
@click.argument("folder", type=click.Path(path_type=Path))
@user_errors_as_messages
def inspect(folder: Path) -> None:
    """Say what a cache holds: model, sites, positions, rows, bytes."""
    from interp.cache import ActivationCache

    click.echo(ActivationCache.open(folder, allow_partial=True).inspect())


@cache.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--hash", "level", flag_value="hash", help="Read every byte and compare checksums.")
@click.option("--size", "level", flag_value="size", default="size", help="Compare file sizes only (the default).")
@user_errors_as_messages
def verify(folder: Path, level: str) -> None:
    """Prove that a cache is whole; exits with 1 and names what is not."""
    from interp.cache.reader import problems_of

    problems = problems_of(folder, "hash" if level == "hash" else "size")
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        raise click.exceptions.Exit(1)
    checked = "every byte matches its checksum" if level == "hash" else "every file has its recorded size"
    click.echo(f"{folder}: {checked}.")
