"""`diptych pair`: build the embedded pair from nothing, and say what the shipped one is."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.common import one_thread, user_errors_as_messages


@click.group()
def pair() -> None:
    """The embedded pair: its weights and the recipe behind them."""


@pair.command()
@click.option("--seed", default=0, show_default=True, help="Of initialisation, data and order.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new or empty folder.")
@click.option("--test", is_flag=True, help="Score the test split too: once, for a pair that ships.")
@user_errors_as_messages
def build(seed: int, out: Path, test: bool) -> None:
    """Train base, engaged and heuristic from nothing on one CPU thread; fails if a gate does not hold."""
    from study.embedded.build import build as run
    from study.embedded.build import passed

    one_thread()
    record = run(seed, out, test=test, log=_log)
    for split in ("validation", "test"):
        for name, gate in record.get(split, {}).get("gates", {}).items():
            verdict = "pass" if gate["passed"] else "FAIL"
            click.echo(f"{split} {name}: {gate['value']:.4g} (bound {gate['bound']}) {verdict}")
    if not passed(record):
        raise click.ClickException(f"{out}: a gate does not hold; see pair.json.")


def _log(stage: str, step: int, value: float) -> None:
    if step % 20 == 19:
        click.echo(f"{stage} {step + 1}: {value:.4f}")


@pair.command()
def card() -> None:
    """Print the model cards of the shipped pair."""
    from study.embedded import weights_folder

    for member in ("base", "engaged", "heuristic"):
        click.echo((weights_folder() / member / "README.md").read_text())
