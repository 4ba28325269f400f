"""`diptych steer dose | pair | figures`: what directions do at every strength, and controls of equal length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from study.analyses.steering.options import DoseOptions
from study.cli.common import (
    checkpoint_options,
    load_options,
    one_thread,
    read_data,
    read_labels,
    resolve_checkpoints,
    task_options,
    user_errors_as_messages,
)
from study.options import command_options, options_from

_PATH = click.Path(path_type=Path)


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every dose study."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress bar."),
        click.option("--no-figures", is_flag=True, help="Tables only."),
        click.option("--out", required=True, type=_PATH, help="Folder of the study."),
        click.option("--neutral", type=_PATH, help="Texts for perplexity, one per line; default: plain English."),
        command_options(DoseOptions),
    ):
        command = option(command)
    return command


@click.command()
@checkpoint_options
@load_options
@task_options
@click.option("--direction", required=True, type=_PATH, help="File of `steer fit`.")
@click.option("--orthogonal-to", multiple=True, type=_PATH, help="What it must not be confused with; repeatable.")
@click.option("--cache", type=_PATH, help="The cache that it was fitted on: adds label-shuffled controls.")
@click.option("--labels", type=_PATH, help="The file of classes that `steer fit` had, if it had one.")
@click.option("--target", default="label", show_default=True, help="Its column.")
@click.option("--strata", default="", help="labels:COLUMN where `steer fit` balanced by a column of that file.")
@study_options
@user_errors_as_messages
def dose(
    direction: Path,
    orthogonal_to: tuple[Path, ...],
    cache: Path | None,
    labels: Path | None,
    target: str,
    strata: str,
    out: Path,
    **options: Any,
) -> None:
    """Steer a checkpoint at every strength, with every control, into --out.

    An interrupted run loses nothing: run the same command again. Tables: table.csv (levels and changes), slopes.csv,
    plane.csv, entangle.csv (bias against coverage), switch.csv, texts.csv (perplexity); figures/.
    """
    from steering.direction import Directions
    from study.analyses.steering.run import run_dose
    from study.analyses.steering.show import headline

    one_thread()
    if strata and not (strata.startswith("labels:") and labels):
        raise ValueError(
            f"--strata {strata!r}: expected labels:COLUMN, with --labels; other strata are read from the cache."
        )
    dose_options = _options(
        options,
        cache=cache,
        labels=None if labels is None else _classes(labels, target),
        strata=_classes(labels, strata.removeprefix("labels:")) if strata and labels else None,
    )
    directions, against = Directions.load(direction), [Directions.load(path) for path in orthogonal_to]
    checkpoints, loading = resolve_checkpoints(options)
    how: dict[str, Any] = {"out": out, "loading": loading, "progress": not options["quiet"]}
    run_dose(checkpoints, options["task"], read_data(options), directions, options=dose_options, against=against, **how)
    _draw(out, skip=options["no_figures"])
    click.echo(headline(out))


@click.command()
@checkpoint_options
@load_options
@task_options
@click.option("--engaged", required=True, type=_PATH, help="Direction file fitted on the engaged member.")
@click.option("--heuristic", required=True, type=_PATH, help="Direction file fitted on the heuristic member.")
@click.option("--engaged-cache", type=_PATH, help="Its cache: adds label-shuffled controls.")
@click.option("--heuristic-cache", type=_PATH, help="The same of the heuristic member.")
@study_options
@user_errors_as_messages
def pair(
    engaged: Path, heuristic: Path, engaged_cache: Path | None, heuristic_cache: Path | None, out: Path, **options: Any
) -> None:
    """Directions of both members: their cosine per layer, and each vector added in each member.

    Writes cosines.csv (with the ceiling that their own noise sets), transfer.csv (the 2×2), a dose study per member.
    """
    from interp.checkpoint import CheckpointPair
    from steering.direction import Directions
    from study.analyses.steering.run import run_pair
    from study.analyses.steering.show import pair_lines

    one_thread()
    checkpoints, loading = resolve_checkpoints(options)
    if not isinstance(checkpoints, CheckpointPair):
        raise click.UsageError("steer pair needs --pair: a YAML file of a pair, or 'embedded'.")
    directions = {"engaged": Directions.load(engaged), "heuristic": Directions.load(heuristic)}
    caches = {role: path for role, path in (("engaged", engaged_cache), ("heuristic", heuristic_cache)) if path}
    how: dict[str, Any] = {"out": out, "loading": loading, "progress": not options["quiet"]}
    items, own = read_data(options), _options(options)
    run_pair(checkpoints, options["task"], items, directions, options=own, caches=caches, **how)
    _draw(out, skip=options["no_figures"])
    click.echo(pair_lines(out))


@click.command()
@click.argument("folder", type=_PATH)
@user_errors_as_messages
def figures(folder: Path) -> None:
    """Draw the figures of a study again, from its tables alone, and print its slopes."""
    from study.analyses.steering.show import headline

    _draw(folder, skip=False)
    click.echo(headline(folder))


def _classes(path: Path, target: str) -> dict[str, str]:
    """Example id -> class, of a file that `steer fit --labels` reads."""
    table = read_labels(path)
    if missing := {"id", target} - set(table.columns):
        raise ValueError(f"--labels {path}: no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}.")
    kept = table.dropna(subset=[target])
    return dict(zip(kept["id"].astype(str), kept[target].astype(str), strict=True))


def _options(values: dict[str, Any], **fitted: Any) -> DoseOptions:
    """The options that were given; `--neutral` is a file of texts."""
    neutral: Path | None = values["neutral"]
    lines = None if neutral is None else neutral.read_text(encoding="utf-8").splitlines()
    texts = None if lines is None else tuple(filter(str.strip, lines))
    curve = {name: value for name, value in values.items() if name not in ("neutral", "seed", "cache", "labels")}
    return options_from(DoseOptions, curve, neutral=texts, seed=values["seed"] or 0, **fitted)


def _draw(out: Path, *, skip: bool) -> None:
    """Every figure of a study into its folder `figures`."""
    from study.analyses.steering.figures import figures
    from study.analyses.steering.tables import folder_tables
    from study.figures.save import save_all

    if skip:
        return
    drawn = ((name[len("steering-") :], one) for name, one in figures(folder_tables(out)))
    for reason in save_all(drawn, out / "figures")[1]:
        click.echo(f"note: {reason}", err=True)
