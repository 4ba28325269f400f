"""`diptych steer dose | pair | figures`: what directions do at every strength, beside directions of equal length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from study.cli.common import (
    checkpoint_options,
    fail_in_users_words,
    load_options,
    one_thread,
    read_data,
    resolve_checkpoints,
    task_options,
)

_PATH = click.Path(path_type=Path)


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every dose study."""
    for option in reversed(
        [
            click.option("--alphas", default="-0.3:0.3:13", show_default=True, help="from:to:count, or numbers."),
            click.option("--unit", default="resid", show_default=True, help="Length of alpha = 1.",
                         type=click.Choice(["raw", "delta", "resid", "sd"])),
            click.option("--positions", default="last", show_default=True, help="Steered tokens: last, all, at:5, ..."),
            click.option("--layers", help="Of the direction file, e.g. 12,14; default: all that it holds."),
            click.option("--slot", default="auto", show_default=True,
                         help="Before the label: own (the model's own reply), or a text forced on all."),
            click.option("--prompt-baseline", "baseline", help="Instruction to compare with; '' for none."),
            click.option("--neutral", type=_PATH, help="Texts for perplexity, one per line; default: plain English."),
            click.option("--n-random", default=59, show_default=True,
                         help="Random directions of equal length; the smallest p is 1/(1 + n)."),
            click.option("--n-complement", default=5, show_default=True, help="Random ones orthogonal to all named."),
            click.option("--n-shuffled", default=59, show_default=True, help="Label-shuffled ones; needs the cache."),
            click.option("--shuffled-length", default="equal", show_default=True, type=click.Choice(["equal", "own"]),
                         help="Of shuffled ones: as long as the direction, or as long as shuffling made them."),
            click.option("--verify", default=0.0, show_default=True, help="Share of rows recomputed by hooked passes."),
            click.option("--min-class", "min_items", default=50, show_default=True, help="Fewest per class."),
            click.option("--min-groups", default=10, show_default=True, help="Fewest independent groups."),
            click.option("--boot", "n_resamples", default=2000, show_default=True, help="Resamples of an interval."),
            click.option("--out", required=True, type=_PATH, help="Folder of the study."),
            click.option("--no-figures", is_flag=True, help="Tables only."),
            click.option("--quiet", is_flag=True, help="No progress bar."),
        ]
    ):  # fmt: skip
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
@fail_in_users_words
def dose(direction: Path, orthogonal_to: tuple[Path, ...], cache: Path | None, labels: Path | None, target: str,
         strata: str, out: Path, **options: Any) -> None:  # fmt: skip
    """Steer a checkpoint at every strength, with every control, into --out.

    An interrupted run loses nothing: run the same command again. Tables: table.csv (levels and changes), slopes.csv,
    plane.csv, entangle.csv (bias against coverage), switch.csv, texts.csv (perplexity); figures/.
    """
    from steering.direction import Directions
    from study.analyses.steering.run import run_dose
    from study.analyses.steering.show import headline

    one_thread()
    if strata and not (strata.startswith("labels:") and labels):
        raise ValueError(f"--strata {strata!r}: expected labels:COLUMN, beside --labels; other strata are known.")
    study = _study(
        options,
        cache=cache,
        labels=None if labels is None else _classes(labels, target),
        strata=_classes(labels, strata.removeprefix("labels:")) if strata and labels else None,
    )
    held, against = Directions.load(direction), [Directions.load(path) for path in orthogonal_to]
    checkpoints, loading = resolve_checkpoints(options)
    run_dose(checkpoints, options["task"], read_data(options), held, out=out, study=study, against=against,
             loading=loading, progress=not options["quiet"])  # fmt: skip
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
@fail_in_users_words
def pair(engaged: Path, heuristic: Path, engaged_cache: Path | None, heuristic_cache: Path | None, out: Path,
         **options: Any) -> None:  # fmt: skip
    """Directions of both members: their cosine per layer, and each vector added in each member.

    Writes cosines.csv (with the ceiling that their own noise sets), transfer.csv (the 2×2), a dose study per member.
    """
    from interp.checkpoint import CheckpointPair
    from steering.direction import Directions
    from study.analyses.steering.pairs import run_pair
    from study.analyses.steering.show import pair_lines

    one_thread()
    checkpoints, loading = resolve_checkpoints(options)
    if not isinstance(checkpoints, CheckpointPair):
        raise click.UsageError("steer pair needs --pair: a YAML file of a pair, or 'embedded'.")
    held = {"engaged": Directions.load(engaged), "heuristic": Directions.load(heuristic)}
    caches = {role: path for role, path in (("engaged", engaged_cache), ("heuristic", heuristic_cache)) if path}
    run_pair(checkpoints, options["task"], read_data(options), held, out=out, study=_study(options), caches=caches,
             loading=loading, progress=not options["quiet"])  # fmt: skip
    _draw(out, skip=options["no_figures"])
    click.echo(pair_lines(out))


@click.command()
@click.argument("folder", type=_PATH)
@fail_in_users_words
def figures(folder: Path) -> None:
    """Draw the figures of a study again, from its tables alone, and print its slopes."""
    from study.analyses.steering.show import headline

    _draw(folder, skip=False)
    click.echo(headline(folder))


def _classes(path: Path, target: str) -> dict[str, str]:
    """Example id -> class, of a file that `steer fit --labels` reads."""
    from study.cli.steer import read_labels

    table = read_labels(path)
    if missing := {"id", target} - set(table.columns):
        raise ValueError(f"--labels {path}: no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}.")
    kept = table.dropna(subset=[target])
    return dict(zip(kept["id"].astype(str), kept[target].astype(str), strict=True))


def _study(options: dict[str, Any], **fitted: Any) -> Any:
    from study.analyses.steering.run import DoseStudy

    kept = (
        "alphas", "unit", "positions", "slot", "baseline", "n_random", "n_complement", "n_shuffled", "shuffled_length",
        "verify", "min_items", "min_groups", "n_resamples",
    )  # fmt: skip
    layers, neutral = options["layers"], options["neutral"]
    try:
        chosen = None if layers is None else tuple(int(part) for part in layers.split(","))
    except ValueError as error:
        raise ValueError(f"--layers {layers!r}: expected layer numbers separated by commas.") from error
    texts = None if neutral is None else tuple(filter(str.strip, neutral.read_text(encoding="utf-8").splitlines()))
    return DoseStudy(layers=chosen, neutral=texts, **fitted, seed=options["seed"] or 0,
                     **{key: options[key] for key in kept})  # fmt: skip


def _draw(out: Path, *, skip: bool) -> None:
    """Every figure of a study into its folder `figures`."""
    from study.analyses.steering.show import figures
    from study.figures.save import save_all

    for reason in [] if skip else save_all(figures(out).items(), out / "figures")[1]:
        click.echo(f"note: {reason}", err=True)
