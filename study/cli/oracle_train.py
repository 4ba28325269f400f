"""`diptych oracle train` and `diptych oracle build`: train an oracle from a file, or rebuild the embedded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import one_thread, user_errors_as_messages

if TYPE_CHECKING:
    from interp.oracle.validate import Validation


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of checkpoints: best/, last/, ...")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--dry-run", is_flag=True, help="Build and audit the items, then stop.")
@click.option("--device", help="Instead of `load.device` of the recipe: cpu, cuda, cuda:1, ...")
@click.option("--load-dtype", help="Instead of `load.dtype`.")
@click.option("--device-map", help="Instead of `load.device_map`: 'auto' spreads the base over several GPUs.")
@click.option("--quantization", help="Instead of `load.quantization`: 4bit or 8bit (bitsandbytes).")
@click.option("--attn-implementation", help="Instead of `load.attn_implementation`: eager, sdpa, ...")
@click.option(
    "--every", default=50, show_default=True, type=click.IntRange(min=1), help="Print the loss every N steps."
)
@user_errors_as_messages
def train(recipe: Path, out: Path, resume: bool, dry_run: bool, every: int, **options: str | None) -> None:
    """Train an oracle adapter as the YAML file RECIPE says.

    Labels are audited before the first step. The best checkpoint by validation gap is kept in --out/best. Several GPUs:
    start it with `torchrun --nproc-per-node 8 --no-python diptych oracle train ...` (needs accelerate).
    """
    from study.analyses.oracle.training import TrainingFile, train_from_file

    source = TrainingFile.read(recipe)
    given = {("dtype" if key == "load_dtype" else key): value for key, value in options.items() if value is not None}
    source = replace(source, load={**source.load, **given})
    if dry_run:
        _dry_run(source)
        return

    def log(step: int, loss: float, validation: Validation | None) -> None:
        if step % every == 0 or validation is not None:
            click.echo(f"step {step}: loss {loss:.4f}")
        if validation is not None:
            _show(validation)

    done = train_from_file(source, out, resume=resume, log=log)
    for finding in done.findings:
        if finding.status == "fail":
            click.echo(str(finding))
    click.echo(f"best: step {done.best.step}, control gap {done.best.gap} nats per token, in {out / 'best'}")


@click.command()
@click.option("--seed", default=0, show_default=True, help="Of the adapters' weights, items and order.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new or empty folder.")
@user_errors_as_messages
def build(seed: int, out: Path) -> None:
    """Train the embedded oracle and its prior-only twin on one CPU thread; fails if a gate does not hold."""
    from study.embedded.oracle import build_oracle

    one_thread()
    record = build_oracle(out, seed=seed, log=_log)
    for name, gate in record["gates"].items():
        verdict = "pass" if gate["passed"] else "FAIL"
        click.echo(f"{name}: {gate['value']:.4g} (bound {gate['bound']}) {verdict}")
    if not all(gate["passed"] for gate in record["gates"].values()):
        raise click.ClickException(f"{out}: a gate does not hold; see oracle.json.")


def _dry_run(source: Any) -> None:
    from interp.oracle.items import audit_mixture, shares
    from study.analyses.oracle.training import prepare

    _, mixture = prepare(source)
    click.echo(", ".join(f"{task}: {n}" for task, n in shares(mixture.train).items()))
    for finding in audit_mixture(mixture):
        click.echo(str(finding))


def _log(stage: str, step: int, loss: float) -> None:
    if step % 50 == 0:
        click.echo(f"{stage} {step}: {loss:.4f}")


def _show(validation: Validation) -> None:
    click.echo(f"  control gap {validation.gap} nats per token")
    for task, score in validation.tasks.items():
        click.echo(
            f"    {task:<12} gap {score.gap}; accuracy {score.accuracy}, shuffled {score.accuracy_shuffled.value:.3f}"
        )
