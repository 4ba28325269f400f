"""Command groups: members imported when they are called, and one member that may be left out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from interp.remedy import did_you_mean
from study.analyses.registry import added, analysis
from study.cli.wrapped import WrappedGroup


class LazyGroup(WrappedGroup):
    """A group with members named by import path, `{name: ("module:attribute", line of help)}`, next to plain ones."""

    def __init__(self, *args: Any, members: Mapping[str, tuple[str, str]] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.members = dict(members or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.members]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.members:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.members[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), attribute)

    def help_lines(self) -> list[tuple[str, str]]:
        return [*super().help_lines(), *((name, text) for name, (_, text) in self.members.items())]


class DefaultGroup(WrappedGroup):
    """A group with a command whose name may be left out where options follow: `diptych cache --base ...` extracts."""

    def __init__(self, *args: Any, default: str = "", usage: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.default, self.usage = default, usage

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            *others, last = (name for name in self.commands if name != self.default)
            raise click.UsageError(
                f"nothing to do. Give options to {self.default}, or {', '.join(others)} or {last}.", ctx
            )
        if not args[0].startswith("-") and args[0] not in self.commands:
            known = ", ".join(self.commands)
            hint = did_you_mean(args[0], self.commands)
            raise click.UsageError(f"no command {args[0]!r}; there are {known}.{hint}", ctx)
        return super().parse_args(ctx, args if args[0] in {*self.commands, "--help", "-h"} else [self.default, *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for line in self.usage:
            formatter.write_usage(ctx.command_path, line)


class RootGroup(LazyGroup):
    """The whole command line: whatever goes wrong below, import of a command included, ends as a message.

    Analyses of other packages (`study.analyses.registry`) have a command each.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *added()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in added():
            from study.cli.added import added_command

            return added_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        if added():
            with formatter.section("Commands of other packages"):
                formatter.write_dl([(name, _help_of(name)) for name in added()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except ValueError as error:  # --help lists what other packages add
            raise click.ClickException(str(error)) from error

    def invoke(self, ctx: click.Context) -> Any:
        from study.cli.common import errors_as_messages

        with errors_as_messages():
            return super().invoke(ctx)


def _help_of(name: str) -> str:
    """One line of another package's analysis; of one that cannot be imported, the reason: the others stay usable."""
    try:
        return analysis(name).help
    except ValueError as error:
        return str(error)
