"""The `diptych` command. Sub-commands are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "data": ("study.cli.data:data", "Generate and audit task data."),
    "eval": ("study.cli.eval:evaluate", "Evaluate a checkpoint, or both members of a pair, on a task."),
    "pair": ("study.cli.pair:pair", "Build the embedded pair, or read its model cards."),
    "audit": ("study.cli.audit:audit", "Look for faults in a file of labels."),
    "cache": ("study.cli.cache:cache", "Record activations once and keep them on disk."),
    "heads": ("study.cli.heads:heads", "Effects of every attention head: sweep, then show one."),
    "report": ("study.cli.report:report", "One self-contained HTML file of a run folder."),
    "oracle": ("study.cli.oracle:oracle", "Ask an oracle about activations; every answer with its control."),
    "probes": ("study.cli.probes:probes", "Linear probes per layer of a cache, with their controls."),
    "study": ("study.cli.study:study", "A whole study in one command: run, plan, init."),
    "tables": ("study.cli.tables:tables", "Print the tables of a run."),
    "figures": ("study.cli.figures:figures", "Draw the figures of a run from its tables."),
}


class LazyGroup(click.Group):
    """A command group whose members are named by import path and imported only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diptych", prog_name="diptych")
def main() -> None:
    """Mechanistic interpretability of checkpoint pairs: no number without its control."""
