"""A command group whose help gives one whole sentence per command."""

from __future__ import annotations

import click

_SENTENCE = 1000  # characters; longer than any first sentence of a docstring


class WrappedGroup(click.Group):
    """A group whose help gives the first sentence of each command in full: wrapped, not cut off as click does."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.help_lines())

    def help_lines(self) -> list[tuple[str, str]]:
        return [(name, command.get_short_help_str(_SENTENCE)) for name, command in sorted(self.commands.items())]
