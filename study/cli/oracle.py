"""`diptych oracle`: ask about activations, test an oracle's wiring, compare two members, train an oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from study.analyses.oracle.options import (
    AskOptions,
    BuildOptions,
    CompareOptions,
    OracleNames,
    RecipeDevice,
    SelftestOptions,
    TrainOptions,
)
from study.cli.common import one_thread, takes
from study.cli.wrapped import WrappedGroup
from study.load_options import DeviceOptions
from study.task_options import ItemOptions

if TYPE_CHECKING:
    from interp.oracle.validate import Validation
    from study.analyses.oracle.training import TrainingFile


@click.group(cls=WrappedGroup)
def oracle() -> None:
    """Ask an oracle about activations; every answer is compared with control activations."""


@oracle.command()
@takes(OracleNames, DeviceOptions, AskOptions)
def ask(names: OracleNames, device: DeviceOptions, options: AskOptions) -> None:
    """Ask one question about every reading of a cache; the answer is free text, or a choice with --choices.

    A folder holds one question. A different question is refused; the same question is shown, not asked again.
    """
    from study.analyses.oracle.ask import ask as run

    one_thread()
    click.echo(run(names, device, options, say=click.echo, note=lambda text: click.echo(f"note: {text}", err=True)))


@oracle.command()
@takes(OracleNames, DeviceOptions, SelftestOptions)
def selftest(names: OracleNames, device: DeviceOptions, options: SelftestOptions) -> None:
    """Test whether the declared wiring fits the adapter better than every known mistake.

    The result is stored for these weights and this spec. Exits with 1 if the test fails.
    """
    from study.analyses.oracle.ask import check_wiring

    one_thread()
    items = ItemOptions(path=options.task, data=options.data, limit=options.limit, options=options.options)
    texts = items.examples(says_rest=True) if options.task else None
    result = check_wiring(names, device, n=options.n, seed=options.seed, texts=texts, limit=options.limit)
    click.echo(str(result))
    if not result.passed:
        raise click.exceptions.Exit(1)


@oracle.command()
@takes(CompareOptions, OracleNames, DeviceOptions)
def compare(options: CompareOptions, names: OracleNames, device: DeviceOptions) -> None:
    """Ask the same question at the same positions of two caches, with a paired test over problems."""
    from study.analyses.oracle.ask import compare as run

    one_thread()
    click.echo(run(names, device, options))


@oracle.command()
@takes(TrainOptions, RecipeDevice)
def train(options: TrainOptions, device: RecipeDevice) -> None:
    """Train an oracle adapter as the YAML file RECIPE says.

    Labels are audited before the first step. The checkpoint with the largest validation gap is kept in --out/best. For
    several GPUs, start it with `torchrun --nproc-per-node 8 --no-python diptych oracle train ...` (needs accelerate).
    """
    from study.analyses.oracle.training import TrainingFile, train_from_file

    source = TrainingFile.read(options.recipe)
    source = replace(source, load={**source.load, **device.given()})
    if options.dry_run:
        _dry_run(source)
        return

    def log(step: int, loss: float, validation: Validation | None) -> None:
        if step % options.every == 0 or validation is not None:
            click.echo(f"step {step}: loss {loss:.4f}")
        if validation is not None:
            click.echo("\n".join(_validation_lines(validation)))

    done = train_from_file(source, options.out, resume=options.resume, log=log)
    for finding in done.findings:
        if finding.status == "fail":
            click.echo(str(finding))
    best = options.out / "best"
    click.echo(f"best: step {done.best.step}, control gap {done.best.gap} nats per token, in {best}")


def _dry_run(source: TrainingFile) -> None:
    from interp.oracle.items import audit_mixture, shares
    from study.analyses.oracle.training import prepare

    _, mixture = prepare(source)
    click.echo(", ".join(f"{task}: {n}" for task, n in shares(mixture.train).items()))
    for finding in audit_mixture(mixture):
        click.echo(str(finding))


def _validation_lines(validation: Validation) -> list[str]:
    tasks = [
        f"    {task:<12} gap {score.gap}; accuracy {score.accuracy}, shuffled {score.accuracy_shuffled.value:.3f}"
        for task, score in validation.tasks.items()
    ]
    return [f"  control gap {validation.gap} nats per token", *tasks]


@oracle.command()
@takes(BuildOptions)
def build(options: BuildOptions) -> None:
    """Train the embedded oracle and its prior-only counterpart on one CPU thread; fails if a gate fails."""
    from study.cli.pair import gate_lines
    from study.embedded.oracle import build_oracle

    def log(stage: str, step: int, loss: float) -> None:
        if step % 50 == 0:
            click.echo(f"{stage} {step}: {loss:.4f}")

    one_thread()
    gates = build_oracle(options.out, seed=options.seed, log=log)["gates"]
    click.echo("\n".join(gate_lines(gates)))
    if not all(gate["passed"] for gate in gates.values()):
        raise click.ClickException(f"{options.out}: a gate does not hold; see oracle.json.")
