"""A command group whose help gives one whole sentence per command, and which suggests one for a misspelled name."""

from __future__ import annotations

import click

from interp.remedy import did_you_mean

_SENTENCE = 1000  # characters; longer than any first sentence of a docstring


class WrappedGroup(click.Group):
    """A group whose help gives the first sentence of each command in full: wrapped, not cut off as click does."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.help_lines())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(
                f"no command {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}", ctx
            )
        return super().resolve_command(ctx, args)

    def help_lines(self) -> list[tuple[str, str]]:
        return [(name, command.get_short_help_str(_SENTENCE)) for name, command in sorted(self.commands.items())]
