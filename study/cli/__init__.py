"""The `diptych` command. Sub-commands are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import click

from study.cli.lazy import RootGroup

COMMANDS = {
    "data": ("study.cli.data:data", "Generate and audit task data."),
    "eval": ("study.cli.eval:evaluate", "Evaluate a checkpoint, or both members of a pair, on a task."),
    "pair": ("study.cli.pair:pair", "Build the embedded pair, or read its model cards."),
    "cot": ("study.cli.cot:cot", "Label the sentences of chains of thought with a model, and audit the labels."),
    "audit": ("study.cli.cot:audit", "Audit a file of labels."),
    "cache": ("study.cli.cache:cache", "Record activations once and keep them on disk."),
    "heads": ("study.cli.heads:heads", "Sweep the effects of every attention head, then show one."),
    "report": ("study.cli.figures:report", "Write the report of a run as one self-contained HTML file."),
    "oracle": ("study.cli.oracle:oracle", "Ask an oracle about activations; every answer comes with its control."),
    "probes": ("study.cli.probes:probes", "Fit linear probes per layer of a cache, with their controls."),
    "steer": ("study.cli.steer:steer", "Fit, steer and export directions."),
    "study": ("study.cli.study:study", "Run a whole study: init, plan, run."),
    "tables": ("study.cli.tables:tables", "Print the tables of a run."),
    "view": ("study.cli.view:view", "Show tokens coloured by a score, both members side by side, as one HTML file."),
    "verify": (
        "study.cli.verify:verify",
        "Simulate studies like yours: interval coverage and error rates of the tests.",
    ),
    "figures": ("study.cli.figures:figures", "Draw the figures of a run from its tables."),
}


@click.group(cls=RootGroup, members=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diptych", prog_name="diptych")
def main() -> None:
    """Mechanistic interpretability of checkpoint pairs: no number without its control."""
