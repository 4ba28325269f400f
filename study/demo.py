"""The whole study on the embedded pair in one command; prints the path of its report.

    python -m study.demo [--out runs/demo] [--per-cell 30] [--training 480] [--seed 5]

Independent steps run at the same time, one thread each; a second run finds everything up to date.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that contend for two cores are slower than one

import time
from collections.abc import Sequence
from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), help="Folder of the run.")
@click.option("--per-cell", type=click.IntRange(min=2), default=30, help="Items per cell.")
@click.option("--training", type=click.IntRange(min=2), default=480, help="Items of the training distribution.")
@click.option("--seed", default=5, help="Seed of the items.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, help="Steps at a time.")
def main(out: Path, per_cell: int, training: int, seed: int, jobs: int) -> None:
    """Evaluate, cache, probe, ablate, draw, report: the embedded pair from end to end."""
    from study.cli.common import user_errors_as_messages

    user_errors_as_messages(demo)(out, per_cell=per_cell, training=training, seed=seed, jobs=jobs)


def demo(out: Path, *, per_cell: int, training: int, seed: int, jobs: int = 2, overrides: Sequence[str] = ()) -> None:
    """Run the study that `diptych study init embedded` prints; print its findings and the path of its report.

    Args:
        per_cell: items of each cell except the training distribution, which has `training` in the evaluation.
        overrides: as `diptych study run --set`, e.g. "steering=false".
    Raises:
        ValueError: a step failed; its cause was printed before.
    """
    from importlib.resources import as_file, files

    from study.analyses.eval.show import headline
    from study.cli.study import summary
    from study.config import read_study
    from study.run.runner import run_study
    from study.schema import read_tables

    began = time.monotonic()
    with as_file(files("study.settings").joinpath("embedded.yaml")) as path:
        counts = [f"{section}.per_cell={per_cell}" for section in ("task", "cache")]
        counts.append(f"task.sizes.training_distribution={training}")
        study = read_study(path, overrides=[*counts, f"seed={seed}", *overrides])
    finished = run_study(study, out, jobs=jobs, say=click.echo)
    if "pair" in (tables := read_tables(out)):
        click.echo("\n" + headline(tables))
    click.echo(summary(finished, out))
    click.echo(f"{time.monotonic() - began:.0f} s")
    if finished.failed:
        raise ValueError(f"{', '.join(finished.failed)} did not finish; the cause is above.")


if __name__ == "__main__":
    main()
