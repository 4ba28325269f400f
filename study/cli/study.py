"""`diptych study`: run, plan or begin a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import user_errors_as_messages

if TYPE_CHECKING:
    from study.config import Study
    from study.run.runner import Finished

SETTINGS = ("procedural", "bbq", "cot", "esi", "embedded")


@click.group()
def study() -> None:
    """From two checkpoints to tables, figures and a report, in one command."""


@study.command(context_settings={"show_default": True})
@click.argument("file", metavar="STUDY.YAML", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default: runs/NAME of the study.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. --set eval.per_cell=50.")
@click.option("--only", multiple=True, help="Run this step alone (may be given again).")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Steps at a time that do not read each other.")
@click.option("--seeds", metavar="N,N,...", help="Run it once with each seed, into OUT/seed-N; prints their spread.")
@click.option("--keep", is_flag=True, help="Take finished work as it is although other code made it, and say so.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@user_errors_as_messages
def run(
    file: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int,
    seeds: str | None,
    keep: bool,
    quiet: bool,
) -> None:
    """Run every step of STUDY.YAML that is not done: eval, cache, probes, heads, ..., figures, report.

    A run folder may be named in place of the file: it is gone on with. Interrupt it whenever you like.
    """
    from study.run.process import one_thread
    from study.run.runner import run_study

    chosen, out = _read(file, overrides, out)
    if chosen.load.device in ("auto", "cpu"):
        _one_thread_on_cpu(one_thread)
    repeats = _repeats(file, overrides, chosen, out, seeds)
    failed = False
    for folder, study in repeats.items():
        finished = run_study(study, folder, jobs=jobs, only=only, keep=keep, say=_say, progress=not quiet and jobs == 1)
        click.echo(summary(finished, folder))
        failed |= bool(finished.failed)
    if len(repeats) > 1 and not failed:
        click.echo("\n" + spread_of(list(repeats)))
    if failed:
        raise click.exceptions.Exit(1)


def _repeats(file: Path, overrides: tuple[str, ...], chosen: Study, out: Path, seeds: str | None) -> dict[Path, Study]:
    """Folder -> study with its seed; the study itself where no seeds are given."""
    if seeds is None:
        return {out: chosen}
    numbers = [text.strip() for text in seeds.split(",")]
    if not all(text.isdigit() for text in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds {seeds}: expected different whole numbers, e.g. --seeds 0,1,2,3,4.")
    return {out / f"seed-{n}": _read(file, (*overrides, f"seed={n}"), out)[0] for n in numbers}


def spread_of(runs: list[Path]) -> str:
    """The pair's table, or else the first that every repeat has, with its spread over the repeats."""
    from study.combine import combine, combined_text
    from study.schema import TABLES, read_tables

    shared = set.intersection(*(set(read_tables(run)) for run in runs))
    name = next((name for name in ("pair", *TABLES) if name in shared), None)
    if name is None:
        return "no table that all repeats have."
    more = " ".join(str(run) for run in runs)
    return f"{combined_text(combine(runs, name))}\n\ndiptych tables {more} --table NAME shows the others."


@study.command()
@click.argument("file", metavar="STUDY.YAML", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default: runs/NAME of the study.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, e.g. --set eval.per_cell=50.")
@click.option("--register", "to_register", is_flag=True, help="Write claims, margins and seeds into the run folder.")
@click.option("--measure", is_flag=True, help="Load the models and time two items; times follow from these.")
@user_errors_as_messages
def plan(file: Path, out: Path | None, overrides: tuple[str, ...], to_register: bool, measure: bool) -> None:
    """What will run, what is up to date, tokens, bytes and a rough time. Nothing is started.

    Configurations and tokenizers are read, no weights: a layer, head, site or position that a model lacks is an error.
    """
    from study.cli.common import one_thread
    from study.run.planner import plan_lines, registration_lines

    chosen, out = _read(file, overrides, out)
    if measure and chosen.load.device in ("auto", "cpu"):
        _one_thread_on_cpu(one_thread)
    click.echo("\n".join(plan_lines(chosen, out, measure=measure)))
    if to_register:
        click.echo("\n" + "\n".join(registration_lines(chosen, out)))


@study.command()
@click.argument("setting", type=click.Choice(SETTINGS))
def init(setting: str) -> None:
    """Print the complete study file of a published SETTING, ready to fill in: diptych study init bbq > study.yaml."""
    from importlib.resources import files

    text = files("study.settings").joinpath(f"{setting}.yaml").read_text(encoding="utf-8")
    click.echo(text, nl=False)


def _read(file: Path, overrides: tuple[str, ...], out: Path | None) -> tuple[Study, Path]:
    from study.config import read_study
    from study.folders import STUDY

    if file.is_dir():
        if not (file / STUDY).is_file():
            raise ValueError(f"{file}: no study file and no run folder (no {STUDY} in it).")
        return read_study(file / STUDY, overrides=overrides), out or file
    chosen = read_study(file, overrides=overrides)
    return chosen, out or Path("runs") / chosen.name


def _one_thread_on_cpu(one_thread: Any) -> None:
    import os

    if os.environ.get("OMP_NUM_THREADS") == "1":
        one_thread()


def _say(line: str) -> None:
    click.echo(line)


def summary(finished: Finished, out: Path) -> str:
    """What was run, what was found, what is where, and what failed."""
    from study.folders import FIGURES, REPORT, TABLES
    from study.report.run_folder import read_run_folder
    from study.report.run_ledger import found_lines

    lines = [""]
    if not finished.ran:
        lines.append(f"{out}: everything is up to date; nothing to run.")
    lines += [f"{name} {state.status}: {state.cause}" for name, state in finished.state.steps.items() if state.cause]
    tables = sorted({Path(p).stem for p in _outputs(finished) if p.startswith(f"{TABLES}/")})
    n_figures = len({Path(p).stem for p in _outputs(finished) if p.startswith(f"{FIGURES}/")})
    lines += [*found_lines(read_run_folder(out)), ""] if tables else []
    lines += [f"tables   {out / TABLES}: {', '.join(tables)}"] if tables else []
    lines += [f"figures  {out / FIGURES}: {n_figures}"] if n_figures else []
    if REPORT in _outputs(finished):
        lines.append(f"report   {out / REPORT}")
    return "\n".join(lines)


def _outputs(finished: Finished) -> set[str]:
    return {path for state in finished.state.steps.values() for path in state.outputs}
