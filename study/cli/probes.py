"""`diptych probes`: sweep a cache, read its probes on another one, draw what was found."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.io.paths import portable
from study.analyses.probes.choices import NONE
from study.analyses.probes.options import ProbesOptions
from study.cli.common import one_thread, user_errors_as_messages
from study.cli.lazy import LazyGroup
from study.options import command_options, options_from

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from probes.result import SweepResult

MEMBERS = {
    "transfer": ("study.cli.probes_transfer:transfer", "Probes of one sweep read on another checkpoint."),
    "compare": ("study.cli.probes_transfer:compare", "Two sweeps of the same rows by their scores alone."),
    "mdl": ("study.cli.probes_check:mdl", "Bits that it takes to send the labels, given the activations."),
    "erase": ("study.cli.probes_check:erase", "Erase the label from one site, and probe again."),
    "recall": ("study.cli.probes_check:recall", "Share of positives found at a bounded false-positive rate."),
}
"""Commands of this group that live in files of their own."""


@click.group(cls=LazyGroup, members=MEMBERS)
def probes() -> None:
    """Linear probes per layer, each number beside its null and its controls."""


@probes.command(context_settings={"show_default": True})
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="Column of the cache's examples: the label.")
@command_options(ProbesOptions, only=["groups"])
@click.option("--independent-because", default="", help="Why rows are independent, for --groups none.")
@click.option(
    "--base", type=click.Path(path_type=Path), help="Cache of the base checkpoint on the same data: a control."
)
@command_options(ProbesOptions, omit=["groups"])
@click.option("--seed", default=0, help="Of splits, permutations and resamples.")
@click.option("--name", help="What tables call the checkpoint; default: the name of the cache's folder.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Processes that sites are spread over.")
@click.option("--device", default="cpu", help="Where probes are fitted: cpu, cuda, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep.")
@user_errors_as_messages
def sweep(cache: Path, out: Path, base: Path | None, jobs: int, device: str, **given: Any) -> None:
    """Every layer, position and kind of probe over CACHE: table, scores and directions into --out.

    Layer and C are chosen on DEV, TEST is scored once. A cached sweep is shown, not run again.
    """
    from interp.cache import ActivationCache
    from study.analyses.probes.store import is_finished, read_sweep, sweep_store, write_sweep

    one_thread()
    options = options_from(ProbesOptions, given, targets=(given["target"],))
    more = {"seed": given["seed"], "name": given["name"] or cache.resolve().name}
    more["independent_because"] = given["independent_because"]
    with ExitStack() as stack:
        opened = stack.enter_context(ActivationCache.open(cache))
        below = None if base is None else stack.enter_context(ActivationCache.open(base))
        identity = {"cache": opened.plan_id, "examples": opened.examples_digest, **asdict(options), **more}
        identity |= {} if below is None else {"base": below.plan_id}
        notes = {"cache": portable(cache, out), "packages": _packages()}
        store = stack.enter_context(sweep_store(out, identity, **notes))
        if is_finished(store):
            click.echo(f"{out} is finished; nothing was run again.\n")
        else:
            write_sweep(store, _sweep(opened, options, base=below, jobs=jobs, device=device, **more))
    _show(read_sweep(out), out)


@probes.command()
@click.argument("folders", metavar="SWEEP...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures; default: SWEEP/figures of the first."
)
@user_errors_as_messages
def figures(folders: tuple[str, ...], out: Path | None) -> None:
    """Draw every SWEEP (one per checkpoint) into shared figures: by layer, selectivity, transfer.

    Checkpoints not named engaged, heuristic or base take these looks in order. What is no sweep is left out.
    """
    from study.analyses.probes.figures import cosine_figures
    from study.analyses.probes.figures import figures as drawn_figures
    from study.analyses.probes.store import read_sweep
    from study.analyses.probes.tables import tables_of
    from study.figures import save

    paths = _sweeps(folders)
    results = [read_sweep(path) for path in paths]
    out = out or paths[0] / "figures"
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


def _sweep(
    cache: ActivationCache, options: ProbesOptions, *, seed: int, name: str, independent_because: str, **how: Any
) -> SweepResult:
    """Run the sweep that the options name."""
    from interp.where import kept
    from probes import sweep as run
    from probes import sweep_design
    from study.analyses.probes.run import check_columns, sweep_arguments

    if options.groups == NONE and not independent_because.strip():
        raise ValueError(
            "--groups none says that rows are independent: say why with --independent-because, e.g. 'each row is "
            "another patient'. Rows of one template in train and test give accuracy without signal."
        )
    (target,) = options.targets
    keep = kept(cache.examples, options.where, n=len(cache.examples), option="--where")
    rows = cache.examples[keep]
    check_columns(rows, {"target": [target]}, options)
    arguments = sweep_arguments(cache, rows, target, options, seed=seed)
    same: dict[str, Any] = {key: arguments[key] for key in ("groups", "unit", "positive", "config")} | {
        "i_know": independent_because
    }
    click.echo("\n".join((*sweep_design(arguments["target"], **same).sentences, "")), err=True)
    return run(cache, keep=keep, checkpoint=name, **(arguments | same), **how)


def _show(result: SweepResult, out: Path) -> None:
    click.echo("\n".join(result.sentences))
    click.echo(f"\ntable       {out / 'table.csv'} (and parquet): {len(result.table)} estimates")
    click.echo(f"directions  {out / 'directions.safetensors'}: unit vectors in raw units, with bias and spread")


def _sweeps(folders: tuple[str, ...]) -> list[Path]:
    """The sweeps among the arguments; a pattern that no shell has expanded is expanded here."""
    from study.analyses.probes.store import is_sweep

    found: list[Path] = []
    for text in folders:
        found += sorted(Path().glob(text)) if any(c in text for c in "*?[") else [Path(text)]
    swept = [path for path in found if is_sweep(path)]
    if not swept:
        raise ValueError(
            f"{', '.join(folders)}: no finished sweep there. Run `diptych probes sweep CACHE --out FOLDER`."
        )
    return swept


def _packages() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "torch", "diptych")}
