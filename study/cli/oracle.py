"""`diptych oracle`: ask about activations, test an oracle's wiring, compare two members, train an oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.analyses.oracle.options import AskOptions, CompareOptions, OracleNames
from study.cli.common import one_thread, takes
from study.load_options import DeviceOptions
from study.option_types import Count, InFile
from study.options import STRICT, option
from study.task_options import ItemOptions

if TYPE_CHECKING:
    from interp.oracle.validate import Validation
    from study.analyses.oracle.training import TrainingFile


@click.group()
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SelftestOptions:
    """Texts of a self-test, and its items."""

    task: str | None = option(None, "Import path of a task whose items are the texts; default: plain English passages.")
    data: str | None = option(None, "Data of the task.")
    options: tuple[str, ...] = option(
        (),
        "Option of the task itself; can be repeated.",
        flag="--task-option",
        metavar="KEY=VALUE",
        is_repeated=True,
    )
    n: Annotated[int, Field(ge=16)] = option(64, "Number of items.")
    limit: Annotated[int, Field(ge=2)] = option(32, "Number of texts.")
    seed: int = option(0, "Seed of the items.")


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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RecipeDevice:
    """What stands in place of the `load` of a recipe, where it is given."""

    device: str | None = option(None, "Overrides `load.device` of the recipe: cpu, cuda, cuda:1, ...")
    dtype: str | None = option(None, "Overrides `load.dtype` of the recipe.", flag="--load-dtype", param="load_dtype")
    device_map: str | None = option(
        None, "Overrides `load.device_map` of the recipe; 'auto' spreads the base over several GPUs."
    )
    quantization: str | None = option(None, "Overrides `load.quantization` of the recipe: 4bit or 8bit (bitsandbytes).")
    attn_implementation: str | None = option(
        None, "Overrides `load.attn_implementation` of the recipe: eager, sdpa, ..."
    )

    def given(self) -> dict[str, str]:
        """What is given."""
        return {key: value for key, value in vars(self).items() if isinstance(value, str)}


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainOptions:
    """A training run."""

    recipe: InFile = option(is_argument=True)
    out: Path = option(help="Folder for the checkpoints: best/, last/, ...")
    resume: bool = option(False, "Continue from the last checkpoint in --out.")
    dry_run: bool = option(False, "Build and audit the items, then stop.")
    every: Count = option(50, "Print the loss every N steps.")


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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BuildOptions:
    """What is trained from nothing."""

    seed: int = option(0, "Seed of the adapters' weights, the items and their order.")
    out: Path = option(help="Output folder; it must be new or empty.")


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
