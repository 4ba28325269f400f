"""`diptych study`: run, plan or begin a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.cli.common import one_thread, takes
from study.cli.wrapped import WrappedGroup
from study.option_types import Count, Names
from study.options import STRICT, option

if TYPE_CHECKING:
    from study.config import Study
    from study.run.runner import Finished

SETTINGS = ("procedural", "bbq", "cot", "esi", "embedded")


@click.group(cls=WrappedGroup)
def study() -> None:
    """From two checkpoints to tables, figures and a report."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class StudyFile:
    """A study and its run folder."""

    file: Path = option(is_argument=True, metavar="STUDY.YAML")
    out: Path | None = option(None, "Run folder; default: runs/NAME of the study.")
    overrides: tuple[str, ...] = option(
        (), "Override a value, e.g. --set eval.per_cell=50.", flag="--set", metavar="KEY=VALUE", is_repeated=True
    )

    def read(self, *more: str) -> tuple[Study, Path]:
        """The study with its overrides, and `more` of them, and the folder of its run."""
        from study.config import read_study
        from study.folders import STUDY

        file, overrides = self.file, (*self.overrides, *more)
        if file.is_dir():
            if not (file / STUDY).is_file():
                raise ValueError(f"{file}: no study file and no run folder (no {STUDY} in it).")
            return read_study(file / STUDY, overrides=overrides), self.out or file
        chosen = read_study(file, overrides=overrides)
        return chosen, self.out or Path("runs") / chosen.name


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RunOptions(StudyFile):
    """How a study is run."""

    only: tuple[str, ...] = option((), "Run only this step; can be repeated.", is_repeated=True)
    jobs: Count = option(1, "Number of independent steps that run at the same time.")
    seeds: str | None = option(
        None, "Run the study once with each seed, into OUT/seed-N, and print the spread.", metavar="N,N,..."
    )
    keep: bool = option(False, "Keep finished results even if other code computed them; the report says so.")
    quiet: bool = option(False, "Show no progress bars.")

    def repeats(self, chosen: Study, out: Path) -> dict[Path, Study]:
        """Folder -> study with its seed; the study itself where no seeds are given."""
        if self.seeds is None:
            return {out: chosen}
        numbers = [text.strip() for text in self.seeds.split(",")]
        if not all(text.isdigit() for text in numbers) or len(set(numbers)) < len(numbers):
            raise ValueError(f"--seeds {self.seeds}: expected different whole numbers, e.g. --seeds 0,1,2,3,4.")
        return {out / f"seed-{n}": self.read(f"seed={n}")[0] for n in numbers}


@study.command()
@takes(RunOptions)
def run(options: RunOptions) -> None:
    """Run every step of STUDY.YAML that is not done: eval, cache, probes, heads, ..., figures, report.

    Instead of the file you can name a run folder, which is then continued. You can interrupt the command at any time.
    """
    from study.run.runner import run_study

    chosen, out = options.read()
    _one_thread_on_cpu(chosen)
    repeats, failed = options.repeats(chosen, out), False
    how: dict[str, Any] = {"jobs": options.jobs, "only": options.only, "keep": options.keep}
    how["progress"] = not options.quiet and options.jobs == 1
    for folder, study in repeats.items():
        finished = run_study(study, folder, say=_say, **how)
        click.echo(summary(finished, folder))
        failed |= bool(finished.failed)
    if len(repeats) > 1 and not failed:
        click.echo("\n" + spread_of(list(repeats)))
    if failed:
        raise click.exceptions.Exit(1)


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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PlanOptions(StudyFile):
    """What is planned."""

    register: bool = option(False, "Register the claims, margins and seeds in the run folder.")
    measure: bool = option(False, "Load the models and time two items for better time estimates.")
    power: Annotated[float, Field(gt=0, lt=1)] | None = option(
        None, "Share of studies that should show an effect; prints the n that every planned claim needs for it."
    )
    assume: Names = option(
        (),
        "Assumption about data not yet seen, e.g. icc=0.2, discordance=0.05, head_sd=0.3.",
        metavar="KEY=VALUE",
        is_repeated=True,
    )


@study.command()
@takes(PlanOptions)
def plan(options: PlanOptions) -> None:
    """Show what will run, what is up to date, tokens, bytes, a rough time, the effects that n can show; run nothing.

    Reads configurations and tokenizers, no weights: a layer, head, site or position that a model lacks is an error.
    """
    from study.run.planner import plan_lines, registration_lines
    from study.run.power import Assumed, power_lines
    from study.task_options import read_once

    chosen, out = options.read()
    if options.measure:
        _one_thread_on_cpu(chosen)
    assumed = Assumed.of(options.assume)
    with read_once():
        click.echo("\n".join(plan_lines(chosen, out, measure=options.measure)))
        if shown := power_lines(chosen, power=options.power, assumed=assumed):
            click.echo("\n" + "\n".join(shown))
        if options.register:
            click.echo("\n" + "\n".join(registration_lines(chosen, out)))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class InitOptions:
    """Which published setting."""

    setting: Annotated[str, click.Choice(SETTINGS)] = option(is_argument=True)


@study.command()
@takes(InitOptions)
def init(options: InitOptions) -> None:
    """Print the complete study file of a published SETTING, ready to fill in: diptych study init bbq > study.yaml."""
    from importlib.resources import files

    text = files("study.settings").joinpath(f"{options.setting}.yaml").read_text(encoding="utf-8")
    click.echo(text, nl=False)


def _one_thread_on_cpu(study: Study) -> None:
    import os

    if study.load.device in ("auto", "cpu") and os.environ.get("OMP_NUM_THREADS") == "1":
        one_thread()


def _say(line: str) -> None:
    click.echo(line)


def summary(finished: Finished, out: Path) -> str:
    """What was run, what was found, what is where, and what failed."""
    from study.folders import FIGURES, REPORT, TABLES
    from study.known_truth.show import TABLE, text_of
    from study.report.run_folder import read_run_folder
    from study.report.run_ledger import found_lines
    from study.schema import read_table

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
    if TABLE in tables:
        lines += ["", text_of(read_table(out, TABLE))]
    return "\n".join(lines)


def _outputs(finished: Finished) -> set[str]:
    return {path for state in finished.state.steps.values() for path in state.outputs}
