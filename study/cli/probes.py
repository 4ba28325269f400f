"""`diptych probes`: sweep a cache, read its probes on another one, draw what was found, look closer at one site."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from study.analyses.along.options import AlongCommand, AlongOptions
from study.analyses.cache.options import CachedItems, ReplyOptions
from study.analyses.probes.options import (
    CompareOptions,
    EraseOptions,
    FiguresOptions,
    MdlOptions,
    ProbesOptions,
    RecallOptions,
    SiteOptions,
    SweepOptions,
    TransferOptions,
)
from study.cli.common import CheckpointOptions, one_thread, say_sizes, takes
from study.cli.wrapped import WrappedGroup
from study.load_options import LoadOptions

if TYPE_CHECKING:
    import pandas as pd


@click.group(cls=WrappedGroup)
def probes() -> None:
    """Fit linear probes per layer, each number next to its null and its controls."""


@probes.command()
@takes(SweepOptions, ProbesOptions)
def sweep(command: SweepOptions, options: ProbesOptions) -> None:
    """Fit every kind of probe at every layer and position of CACHE; writes table, scores and directions into --out.

    Layer and C are chosen on DEV, and TEST is scored once. A finished sweep is shown, not run again.
    """
    from study.analyses.probes.run import run_sweep

    one_thread()
    out = command.out
    result = run_sweep(options, command, say=partial(click.echo, err=True))
    click.echo("\n".join(result.sentences))
    click.echo(f"\ntable       {out / 'table.csv'} (and parquet): {len(result.table)} estimates")
    click.echo(f"directions  {out / 'directions.safetensors'}: unit vectors in raw units, with bias and spread")


@probes.command()
@takes(CheckpointOptions, LoadOptions, CachedItems, ReplyOptions, AlongCommand, AlongOptions)
def along(
    checkpoint: CheckpointOptions,
    load: LoadOptions,
    items: CachedItems,
    replies: ReplyOptions,
    command: AlongCommand,
    options: AlongOptions,
) -> None:
    """Score PROBES at every token of the replies that the members wrote, each read by the member that wrote it.

    PROBES is a finished sweep, or a folder with one per member. Items are scored by probes that were fitted without
    their group. Writes tokens.parquet (one row per token), replies.parquet and along.csv into --out: AUROC after each
    part of a reply, and the part at which it first exceeds the level of the null. Pooling is chosen on DEV.
    """
    from study.analyses.along.figures import along_figure
    from study.analyses.along.run import run_along
    from study.analyses.along.show import along_lines
    from study.figures import save

    what, loading = checkpoint.resolve(), checkpoint.loading(load)
    say_sizes(what, loading)
    how = {"probes": command.probes, "out": command.out, "seed": command.seed, "say": partial(click.echo, err=True)}
    done = run_along(what, checkpoint.examples(items), options, replies, loading=loading, **how)
    click.echo("\n".join(along_lines(done.table)))
    click.echo(f"\ntable   {command.out / 'along.csv'} (and parquet): {len(done.table)} estimates")
    click.echo(f"tokens  {command.out / 'tokens.parquet'}: one row per token")
    drawn = along_figure(done.table)
    click.echo(f"note: no figure: {drawn}" if isinstance(drawn, str) else save(drawn, command.out / "decodable")["png"])


@probes.command()
@takes(FiguresOptions)
def figures(options: FiguresOptions) -> None:
    """Draw every SWEEP (one per checkpoint) into shared figures: by layer, selectivity, transfer.

    Checkpoints with names other than engaged, heuristic and base get these styles in order. Folders without a sweep are
    left out.
    """
    from study.analyses.probes.figures import cosine_figures
    from study.analyses.probes.figures import figures as drawn_figures
    from study.analyses.probes.store import read_sweep
    from study.analyses.probes.tables import tables_of
    from study.figures import save

    paths = _sweeps(options.folders)
    results = [read_sweep(path) for path in paths]
    out = options.out or paths[0] / "figures"
    n_drawn = 0
    for stem, drawn in (*drawn_figures(tables_of(paths), explain=True), *cosine_figures(results)):
        name = stem.removeprefix("probes-")
        if isinstance(drawn, str):
            click.echo(f"note: {name} was not drawn: {drawn}", err=True)
            continue
        n_drawn += 1
        click.echo(save(drawn, out / name)["png"])
    if not n_drawn:
        raise ValueError(f"none of the figures of {', '.join(map(str, paths))} could be drawn; the notes say why.")


def _sweeps(folders: Sequence[str]) -> list[Path]:
    """The sweeps among the arguments."""
    from study.analyses.probes.store import is_sweep

    found: list[Path] = []
    for text in folders:
        found += sorted(Path().glob(text)) if any(c in text for c in "*?[") else [Path(text)]
    swept = [path for path in found if is_sweep(path)]
    if not swept:
        raise ValueError(
            f"{', '.join(folders)}: no finished sweep; expected folders that `diptych probes sweep ... --out` wrote."
        )
    return swept


@probes.command()
@takes(TransferOptions)
def transfer(options: TransferOptions) -> None:
    """Apply the probes of SWEEP to CACHE (the same examples, another checkpoint), next to both ceilings.

    Writes SWEEP/transfer/NAME.csv. Undefined between models of different width: use --align ridge, or `probes compare`.
    """
    from study.analyses.probes.transfer import transfer_lines, transfer_sweep

    one_thread()
    table, path = transfer_sweep(options)
    click.echo(transfer_lines(table))
    click.echo(f"\ntable  {path}")


@probes.command()
@takes(CompareOptions)
def compare(options: CompareOptions) -> None:
    """Compare two sweeps of the same rows by their scores only: widths and depths may differ."""
    from probes import compare_scores
    from study.analyses.probes.store import read_sweep

    sweeps = read_sweep(options.first), read_sweep(options.second)
    table = compare_scores(*sweeps, kind=options.kind, target=options.target)
    click.echo(table.T.to_string(header=False))


def _show(table: pd.DataFrame) -> None:
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


@probes.command()
@takes(SiteOptions, MdlOptions)
def mdl(sites: SiteOptions, options: MdlOptions) -> None:
    """Compute the online code length per site: bits to send the labels to a receiver who has the activations.

    Compression compares it with a code that knows only the label frequencies: 1.00 means that the activations do not
    help. The control is the same on permuted labels.
    """
    from study.analyses.probes.checks import mdl as run

    one_thread()
    _show(run(sites, options))


@probes.command()
@takes(SiteOptions, EraseOptions)
def erase(sites: SiteOptions, options: EraseOptions) -> None:
    """Erase the label from a site (LEACE) and refit the probe: AUROC before and after, on held-out groups."""
    from study.analyses.probes.checks import erase as run

    one_thread()
    _show(run(sites, options))


@probes.command()
@takes(SiteOptions, RecallOptions)
def recall(sites: SiteOptions, options: RecallOptions) -> None:
    """Measure recall at a bounded false-positive rate, out of fold.

    Recall is the share of positives above the threshold that at most --max-fpr of the negatives pass.
    Each fold has its own threshold. The control is the same probe on permuted labels, 99 times (logistic: 19).
    """
    from study.analyses.probes.checks import recall as run

    one_thread()
    _show(run(sites, options))
