"""Options that several commands share, and errors in the user's own words instead of a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.prompt import Example

_CHECKPOINT = ("base", "adapter", "revision", "adapter_revision", "subfolder")
_LOADING = ("dtype", "device", "device_map", "quantization", "attn_implementation", "merge")


def checkpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a checkpoint or a pair."""
    for option in reversed(
        [
            click.option("--base", help="Hugging Face id or folder of the base model."),
            click.option("--adapter", help="Hugging Face id or folder of a PEFT adapter on it."),
            click.option("--revision", help="Commit, tag or branch of the base."),
            click.option("--adapter-revision", help="Commit, tag or branch of the adapter."),
            click.option("--subfolder", help="Folder of the adapter inside its repository."),
            click.option("--name", help="What tables and figures call the checkpoint."),
            click.option("--checkpoint", "checkpoint_file", help="YAML file of one checkpoint, in place of --base."),
            click.option("--pair", help="YAML file of a pair, in place of --base."),
        ]
    ):
        command = option(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how weights are held; `interp.load` documents them."""
    for option in reversed(
        [
            click.option(
                "--load-dtype", default="auto", show_default=True, help="bf16 on CUDA, fp32 on CPU by default."
            ),
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
            click.option("--device-map", help="'auto' spreads a model over several GPUs."),
            click.option("--quantization", help="4bit or 8bit (bitsandbytes)."),
            click.option("--attn-implementation", help="eager, sdpa, ..."),
            click.option("--merge", is_flag=True, help="Add the adapter into the weights (other rounding)."),
        ]
    ):
        command = option(command)
    return command


def resolve_checkpoints(options: Mapping[str, Any]) -> tuple[Checkpoint | CheckpointPair, dict[str, Any]]:
    """The checkpoint or pair that the options name, and how to load it.

    Raises:
        click.UsageError: none of --base, --checkpoint and --pair, or more than one.
    """
    from interp.checkpoint import Checkpoint, CheckpointPair

    given = [key for key in ("base", "checkpoint_file", "pair") if options[key]]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --base, --checkpoint and --pair.")
    loading = {key: options["load_dtype" if key == "dtype" else key] for key in _LOADING}
    if options["pair"]:
        loading.pop("merge")
        return CheckpointPair.from_yaml(options["pair"]), loading
    if options["checkpoint_file"]:
        return Checkpoint.from_yaml(options["checkpoint_file"]), loading
    fields = {key: options[key] for key in _CHECKPOINT if options[key]}
    name = options["name"] or Path(options["adapter"] or options["base"]).name
    return Checkpoint(name=name, **fields), loading


def read_data(options: Mapping[str, Any]) -> list[Example]:
    """The examples of --data, read by --task where one is given, cut to --limit."""
    from interp.tasks.protocol import load_task
    from interp.tasks.records import read_examples

    examples = (
        load_task(options["task"]).examples(options["data"]) if options["task"] else read_examples(options["data"])
    )
    return list(examples)[: options["limit"]]


def fail_in_users_words(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print what a user can mend as one message and exit with 1; DIPTYCH_TRACEBACK=1 shows where it came from."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if os.environ.get("DIPTYCH_TRACEBACK") or not isinstance(error, _user_errors()):
                raise
            raise click.ClickException(str(error)) from error

    return run


def _user_errors() -> tuple[type[Exception], ...]:
    from interp.cache.errors import CacheError

    return (ValueError, OSError, ImportError, CacheError)
