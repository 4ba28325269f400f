"""`diptych steer`: fit directions on a cache, show and export them, and what they do at every strength."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from study.analyses.steering.options import (
    DoseFiles,
    DoseOptions,
    DrawnFolder,
    ExportOptions,
    FitFiles,
    FitOptions,
    PairFiles,
    ShowOptions,
    StudyFiles,
)
from study.cli.common import CheckpointOptions, one_thread, takes
from study.cli.wrapped import WrappedGroup
from study.load_options import LoadOptions
from study.task_options import TaskOptions

if TYPE_CHECKING:
    from steering import Directions


@click.group(cls=WrappedGroup)
def steer() -> None:
    """Steering directions: differences of means, orthogonalized, and their dose curves with controls."""


@steer.command()
@takes(FitFiles, FitOptions)
def fit(files: FitFiles, options: FitOptions) -> None:
    """Fit a direction at every chosen site of CACHE and write them to --out.

    A file with a direction fitted with other options, data or labels is not overwritten.
    """
    from interp.cache import ActivationCache
    from interp.io import writer_lock
    from interp.io.digest import safe_name
    from steering.store import refuse_other
    from study.analyses.steering.fit import directions_text, fit_directions, identity_of

    one_thread()
    out = files.out
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: expected a name ending in .safetensors.")
    with writer_lock(out.parent, name=safe_name(out.stem)), ActivationCache.open(files.cache) as cache:
        identity = identity_of(cache, options)
        refuse_other(out, identity)
        directions = fit_directions(cache, options)
        directions.save(out, identity=identity)
    click.echo(directions_text(directions))
    click.echo(f"\nwritten to {out} and {out.with_suffix('.json').name}: {len(directions)} directions")


@steer.command()
@takes(ShowOptions)
def show(options: ShowOptions) -> None:
    """Show the statistics of the directions in a file, one row per site."""
    from steering import Direction, Directions
    from study.analyses.steering.fit import directions_text

    directions = Directions.load(options.path)
    if options.site is not None or len(directions) == 1:
        click.echo(Direction.load(options.path, options.site).report())
        return
    click.echo(directions_text(directions))


@steer.command()
@takes(ExportOptions, CheckpointOptions, LoadOptions)
def export(options: ExportOptions, checkpoint: CheckpointOptions, load: LoadOptions) -> None:
    """Export directions for other programs; the default checkpoint is the one on which they were fitted."""
    from interp.site import match_sites
    from steering import Directions

    directions = Directions.load(options.path)
    if options.sites:
        chosen = match_sites(options.sites, list(map(str, directions)))
        directions = Directions({directions[one].site: directions[one] for one in chosen})
    if options.format == "gguf":
        _gguf(directions, options)
    else:
        _hf_weights(directions, options, checkpoint, load)


def _gguf(directions: Directions, options: ExportOptions) -> None:
    from steering import export_gguf

    out, unit = options.out or options.path.with_suffix(".gguf"), options.unit
    hint = options.model_hint or next(iter(directions.values())).provenance.get("model_type")
    if not hint:
        raise ValueError("--model-hint: the directions do not say which architecture they are for; name it, as qwen2.")
    export_gguf(directions, out, model_hint=str(hint), alpha=options.alpha, unit=unit)
    click.echo(f"{out}: control vector for {hint}, layers: {len(directions)}, strength: {options.alpha:g} {unit}")
    click.echo(
        f"llama-cli -m MODEL.gguf --control-vector-scaled {out.name} SCALE adds SCALE times it at every position"
    )


def _hf_weights(
    directions: Directions, options: ExportOptions, named: CheckpointOptions, load_options: LoadOptions
) -> None:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.loading import load
    from steering import export_hf
    from steering.export import source_checkpoint

    path = options.path
    if len(directions) != 1:
        raise ValueError(
            f"{path} holds {len(directions)} directions; choose one with --sites, e.g. {next(iter(directions))}."
        )
    direction = next(iter(directions.values()))
    checkpoint = named.resolve() if named.is_named else Checkpoint.from_mapping(source_checkpoint(direction), str(path))
    if isinstance(checkpoint, CheckpointPair):
        raise click.UsageError("--pair names two checkpoints; name the one to export with --checkpoint or --base.")
    loading = named.loading(load_options)
    loading["merge"] = checkpoint.adapter is not None
    out = options.out or path.with_name(path.stem + "-ablated")
    done = export_hf(load(checkpoint, **loading), direction, out)
    untied = "; the unembedding now has weights of its own" if done.untied else ""
    click.echo(f"{out}: {checkpoint.name} without {direction.label!r}: {len(done.tensors)} tensors projected")
    click.echo(f"left along it on a probe prompt: {done.leftover:.1e} of the residual norm{untied}")


@steer.command()
@takes(CheckpointOptions, LoadOptions, TaskOptions, DoseFiles, DoseOptions)
def dose(
    checkpoint: CheckpointOptions, load: LoadOptions, items: TaskOptions, files: DoseFiles, options: DoseOptions
) -> None:
    """Steer a checkpoint at every strength, with every control; writes into --out.

    An interrupted run loses nothing: run the same command again. Tables: table.csv (levels and changes), slopes.csv,
    plane.csv, entangle.csv (bias against coverage), switch.csv, texts.csv (perplexity); figures/.
    """
    from steering.direction import Directions
    from study.analyses.steering.fit import classes_of
    from study.analyses.steering.run import run_dose
    from study.analyses.steering.show import headline

    one_thread()
    labels, strata = files.labels, files.strata
    if strata and not (strata.startswith("labels:") and labels):
        raise ValueError(
            f"--strata {strata!r}: expected labels:COLUMN, with --labels; other strata are read from the cache."
        )
    chosen = replace(
        options,
        cache=files.cache,
        labels=None if labels is None else classes_of(labels, files.target),
        strata=classes_of(labels, strata.removeprefix("labels:")) if strata and labels else None,
        neutral=files.texts(),
        seed=items.seed or 0,
    )
    directions, against = Directions.load(files.direction), [Directions.load(path) for path in files.orthogonal_to]
    what, examples = checkpoint.resolve(), checkpoint.examples(items)
    how: dict[str, Any] = {"loading": checkpoint.loading(load), "progress": not files.quiet}
    run_dose(what, items.path, examples, directions, out=files.out, options=chosen, against=against, **how)
    _draw(files)
    click.echo(headline(files.out))
    click.echo(f"tables: {', '.join(str(path) for path in sorted(files.out.rglob('table.csv')))}")


@steer.command()
@takes(CheckpointOptions, LoadOptions, TaskOptions, PairFiles, DoseOptions)
def pair(
    checkpoint: CheckpointOptions, load: LoadOptions, items: TaskOptions, files: PairFiles, options: DoseOptions
) -> None:
    """Compare the directions of both members: their cosine per layer, and each vector added in each member.

    Writes cosines.csv (with the ceiling set by their own noise), transfer.csv (the 2×2) and a dose study per member.
    """
    from interp.checkpoint import CheckpointPair
    from steering.direction import Directions
    from study.analyses.steering.run import run_pair
    from study.analyses.steering.show import pair_lines

    one_thread()
    what = checkpoint.resolve()
    if not isinstance(what, CheckpointPair):
        raise click.UsageError("steer pair needs --pair: a YAML file of a pair, or 'embedded'.")
    directions = {"engaged": Directions.load(files.engaged), "heuristic": Directions.load(files.heuristic)}
    caches = {"engaged": files.engaged_cache, "heuristic": files.heuristic_cache}
    run_pair(
        what,
        items.path,
        checkpoint.examples(items),
        directions,
        out=files.out,
        options=replace(options, neutral=files.texts(), seed=items.seed or 0),
        caches={role: path for role, path in caches.items() if path},
        loading=checkpoint.loading(load),
        progress=not files.quiet,
    )
    _draw(files)
    click.echo(pair_lines(files.out))


@steer.command()
@takes(DrawnFolder)
def figures(options: DrawnFolder) -> None:
    """Redraw the figures of a dose study from its tables alone, and print its slopes."""
    from study.analyses.steering.show import headline

    _draw(StudyFiles(out=options.folder))
    click.echo(headline(options.folder))


def _draw(files: StudyFiles) -> None:
    """Every figure of a study into its folder `figures`."""
    from study.analyses.steering.figures import figures
    from study.analyses.steering.tables import folder_tables
    from study.figures.save import save_all

    if files.no_figures:
        return
    drawn = ((name[len("steering-") :], one) for name, one in figures(folder_tables(files.out)))
    for reason in save_all(drawn, files.out / "figures")[1]:
        click.echo(f"note: {reason}", err=True)
