"""`diptych pair`: build the embedded pair from nothing, and say what the shipped one is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from pydantic.dataclasses import dataclass

from study.cli.common import one_thread, takes
from study.cli.wrapped import WrappedGroup
from study.options import STRICT, option
from study.rows import Row


@click.group(cls=WrappedGroup)
def pair() -> None:
    """The embedded pair: its weights and the recipe behind them."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BuildOptions:
    """What is trained from nothing."""

    seed: int = option(0, "Seed of the initialisation, the data and their order.")
    out: Path = option(help="Output folder; it must be new or empty.")
    test: bool = option(False, "Also score the test split; do this once, for the pair that ships.")


@pair.command()
@takes(BuildOptions)
def build(options: BuildOptions) -> None:
    """Train base, engaged and heuristic from scratch on one CPU thread; fails if a gate fails."""
    from study.embedded.build import build as run
    from study.embedded.build import passed

    def log(stage: str, step: int, value: float) -> None:
        if step % 20 == 19:
            click.echo(f"{stage} {step + 1}: {value:.4f}")

    one_thread()
    record = run(options.seed, options.out, test=options.test, log=log)
    for split in ("validation", "test"):
        for line in gate_lines(record.get(split, {}).get("gates", {})):
            click.echo(f"{split} {line}")
    if not passed(record):
        raise click.ClickException(f"{options.out}: a gate does not hold; see pair.json.")


def gate_lines(gates: Mapping[str, Row]) -> list[str]:
    """A line per gate: its value, its bound and whether it holds."""
    return [
        f"{name}: {gate['value']:.4g} (bound {gate['bound']}) {'pass' if gate['passed'] else 'FAIL'}"
        for name, gate in gates.items()
    ]


@pair.command()
@takes()
def card() -> None:
    """Print the model cards of the shipped pair."""
    from study.embedded import weights_folder

    for member in ("base", "engaged", "heuristic"):
        click.echo((weights_folder() / member / "README.md").read_text())
