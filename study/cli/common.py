"""What every command has: its options from options classes, and errors in the user's own words, without a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic.dataclasses import dataclass

from interp.limits import refusal
from interp.progress import showing
from study.analyses.registry import added
from study.embedded import EMBEDDED
from study.options import STRICT, command_options, option, options_from
from study.rows import Row
from study.run.process import (
    Terminated,
    plain_warnings,
    terminable,
    user_errors,
    words,
)
from study.run.process import (
    one_thread as one_thread,
)

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.prompt import Example
    from study.load_options import LoadOptions
    from study.task_options import ItemOptions


def takes(*classes: type) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator of a command: it is called with one object of each options class, and its errors are messages.

    @click.command()
    @takes(ScanOptions)
    def scan(options: ScanOptions) -> None: ...
    """

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        def run(**values: object) -> None:
            objects = [options_from(options, values) for options in classes]
            with showing(not any(getattr(one, "quiet", False) for one in objects)):
                command(*objects)

        decorated = command_options(*classes)(user_errors_as_messages(functools.update_wrapper(run, command)))
        setattr(decorated, OPTIONS, classes)
        return decorated

    return decorate


OPTIONS = "__diptych_options__"
"""Attribute of a command's function: the options classes that it takes."""
_FIELDS = ("base", "adapter", "revision", "adapter_revision", "subfolder", "tokenizer")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CheckpointOptions:
    """Which checkpoint or pair, on the command line; a study file names it by `pair` or `checkpoint`."""

    base: str | None = option(None, "Hugging Face id or folder of the base model.")
    adapter: str | None = option(None, "Hugging Face id or folder of a PEFT adapter on the base.")
    revision: str | None = option(None, "Commit, tag or branch of the base.")
    adapter_revision: str | None = option(None, "Commit, tag or branch of the adapter.")
    subfolder: str | None = option(None, "Subfolder of the adapter inside its repository.")
    tokenizer: str | None = option(None, "Id or folder of the tokenizer; default: that of the adapter or the base.")
    name: str | None = option(None, "Name of the checkpoint in tables and figures.")
    checkpoint_file: str | None = option(
        None, "YAML file that describes one checkpoint; use it instead of --base.", flag="--checkpoint"
    )
    pair: str | None = option(
        None, "YAML file that describes a pair, or 'embedded' for the pair that ships with the package."
    )
    merge: bool = option(False, "Merge the adapter into the weights (this changes the rounding).")

    @property
    def is_named(self) -> bool:
        """Whether any checkpoint is."""
        return bool(self.base or self.checkpoint_file or self.pair)

    @property
    def is_embedded(self) -> bool:
        """Whether the pair of the package is asked."""
        return self.pair == EMBEDDED

    def resolve(self) -> Checkpoint | CheckpointPair:
        """The checkpoint or pair that the options name.

        Raises:
            click.UsageError: none of --base, --checkpoint and --pair, or more than one.
        """
        from interp.checkpoint import Checkpoint, CheckpointPair

        given = [key for key in ("base", "checkpoint_file", "pair") if getattr(self, key)]
        if len(given) != 1:
            raise click.UsageError("give exactly one of --base, --checkpoint and --pair.")
        if given != ["base"]:
            stray = [key for key in (*_FIELDS[1:], "name") if getattr(self, key)]
            stray += ["merge"] if self.pair and self.merge else []
            if stray:
                named = ", ".join(f"--{key.replace('_', '-')}" for key in stray)
                raise click.UsageError(
                    f"{named}: only with --base; write it into the file of --{given[0].split('_')[0]}."
                )
        if self.pair:
            from study.embedded import embedded_pair

            return embedded_pair() if self.is_embedded else CheckpointPair.from_yaml(self.pair)
        if self.checkpoint_file:
            return Checkpoint.from_yaml(self.checkpoint_file)
        assert self.base is not None
        chosen = {key: value for key in _FIELDS if (value := getattr(self, key))}
        return Checkpoint(name=self.name or Path(self.adapter or self.base).name, **chosen)

    def loading(self, load: LoadOptions) -> Row:
        """Arguments of `interp.load`, or of `interp.load_pair` for a pair."""
        from dataclasses import asdict

        return asdict(load) | ({} if self.pair else {"merge": self.merge})

    def examples(self, items: ItemOptions, *, default_seed: int | None = None) -> list[Example]:
        """The items that this checkpoint or pair is asked; those that a limit leaves out are counted in a warning."""
        return items.examples(default_seed=default_seed, is_embedded=self.is_embedded, says_rest=True)


def say_sizes(what: Checkpoint | CheckpointPair, loading: Mapping[str, object], *more: str) -> None:
    """Print on stderr what is derived from the size of the models and the memory at hand, and `more`.

    A checkpoint that cannot be read prints nothing: the command itself says why, after the checks of its items.
    """
    from interp.checkpoint import CheckpointPair
    from study.analyses.sizes import size_lines

    members = what.members if isinstance(what, CheckpointPair) else {what.name: what}
    with suppress(ValueError):
        for line in size_lines(members, loading):
            click.echo("; ".join([line, *more]), err=True)


CONTINUES = (
    "eval run",
    "cache extract",
    "heads sweep",
    "steer dose",
    "oracle ask",
    "oracle compare",
    "cot",
    "study run",
)
"""Commands that go on where they were stopped; `oracle train` does with --resume."""


def user_errors_as_messages(command: Callable[..., object]) -> Callable[..., object]:
    """Print what a user can act on as one message and exit with 1; DIPTYCH_TRACEBACK=1 shows where it came from.

    Ctrl-C and SIGTERM end with what the same command will do when it is run again, and exit with 130 or 143.
    """

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> object:
        with _own_options(), errors_as_messages():
            for name, value in kwargs.items():
                if why := refusal(name, value):
                    raise ValueError(f"{_option_of(name)}: {why}.")
            return command(*args, **kwargs)

    return run


def _own_options() -> AbstractContextManager[None]:
    """Errors name the options of the command that runs."""
    from interp.remedy import entered
    from study.doors import command_door

    context = click.get_current_context(silent=True)
    return entered(command_door(context.command.params if context else ()))


def _option_of(name: str) -> str:
    """The option whose value the command gets as `name`."""
    context = click.get_current_context(silent=True)
    options = [] if context is None else [p for p in context.command.params if isinstance(p, click.Option)]
    return {option.name: option.opts[0] for option in options}.get(name, f"--{name.replace('_', '-')}")


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """The one place where errors become messages; see `user_errors_as_messages`."""
    try:
        with terminable(), plain_warnings():
            yield
    except KeyboardInterrupt as error:
        if os.environ.get("DIPTYCH_TRACEBACK"):
            raise
        click.echo(f"\nStopped. {_when_run_again()}", err=True)
        raise click.exceptions.Exit(143 if isinstance(error, Terminated) else 130) from None
    except BrokenPipeError:
        raise  # click ends quietly where the reader of a pipe has gone
    except user_errors() as error:
        if os.environ.get("DIPTYCH_TRACEBACK"):
            raise
        raise click.ClickException(words(error)) from error


def _when_run_again() -> str:
    context = click.get_current_context(silent=True)
    name = "" if context is None else " ".join(context.command_path.split()[1:])
    if name == "oracle train":
        return "Run the same command again with --resume: it continues from the last checkpoint."
    if name in CONTINUES or name in added():
        return "Run the same command again: it continues where it stopped."
    return "Run the same command again."
