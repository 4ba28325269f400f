"""`diptych probes transfer` and `compare`: probes of one sweep read on another checkpoint, or beside another sweep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import listed, one_thread, user_errors_as_messages

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from probes.result import SweepResult


@click.command(context_settings={"show_default": True})
@click.argument("folder", metavar="SWEEP", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--all-layers", is_flag=True, help="Every train layer at every test layer, in all four directions.")
@click.option(
    "--align", type=click.Choice(["none", "ridge"]), default="none", help="Map between widths, with its control."
)
@click.option("--kinds", help="Kinds of probes to read; default: logistic and massmean where swept.")
@click.option("--name", help="What tables call the checkpoint of CACHE; default: its folder's name.")
@user_errors_as_messages
def transfer(folder: Path, cache: Path, all_layers: bool, align: str, **options: Any) -> None:
    """Probes of SWEEP read on CACHE (the same examples, another checkpoint), beside both ceilings.

    Writes SWEEP/transfer/NAME.csv. Undefined between widths: then --align ridge, or `probes compare`.
    """
    from interp.cache import ActivationCache
    from interp.io.frames import write_table
    from probes.kinds import carried
    from study.analyses.probes.store import read_settings, read_sweep

    one_thread()
    settings, result = read_settings(folder), read_sweep(folder)
    swept = {key[3] for key in result.directions}
    kinds = listed(options["kinds"] or "") or carried(swept)
    how: dict[str, Any] = dict(kinds=kinds, align=align)
    with ActivationCache.open(cache) as other:
        name = options["name"] or cache.resolve().name
        if all_layers:
            table = _four_blocks(result, folder / settings["cache"], settings["identity"]["cache"], other, name, how)
        else:
            table = _transfer(result, other, checkpoint=name, **how)
    write_table(table, folder, f"transfer/{_file_name(name)}")
    click.echo(_transfer_lines(table))
    click.echo(f"\ntable  {folder / 'transfer' / _file_name(name)}.csv")


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--kind", default="ridge", show_default=True, help="Of probe.")
@click.option("--target", help="Where several were swept.")
@user_errors_as_messages
def compare(first: Path, second: Path, kind: str, target: str | None) -> None:
    """Two sweeps of the same rows by their scores alone: widths and depths may differ."""
    from probes import compare_scores
    from study.analyses.probes.store import read_sweep

    table = compare_scores(read_sweep(first), read_sweep(second), kind=kind, target=target)
    click.echo(table.T.to_string(header=False))


def _four_blocks(
    result: SweepResult, path: Path, plan_id: str, other: ActivationCache, name: str, how: Mapping[str, Any]
) -> Any:
    """A -> A, A -> B, B -> A and B -> B over all layers; B's probes are fitted here, on the rows and splits of A's."""
    import pandas as pd

    from interp.cache import ActivationCache
    from probes.across import refit

    if not path.exists():
        raise ValueError(
            f"--all-layers reads the cache that was swept too, and it is not at {os.path.normpath(path)} any more. "
            "Put it back, or leave --all-layers out."
        )
    with ActivationCache.open(path) as own:
        if own.plan_id != plan_id:
            raise ValueError(f"{path} is not the cache that was swept (plan {own.plan_id}, swept {plan_id}).")
        own_name = str(result.table["member"].iloc[0])
        options = dict(how, mode="all-layers")
        if name == own_name:
            raise ValueError(f"both checkpoints are called {name!r}: name the one of CACHE with --name.")
        there = refit(result, other, kinds=how["kinds"], checkpoint=name)
        sides = ((result, own, own_name), (result, other, name), (there, own, own_name), (there, other, name))
        parts = [_transfer(probe, cache, checkpoint=called, **options) for probe, cache, called in sides]
    return pd.concat(parts, ignore_index=True)


def _transfer(result: SweepResult, cache: ActivationCache, **options: Any) -> Any:
    from probes import transfer as run

    return run(result, cache, **options)


def _transfer_lines(table: Any) -> str:
    """The best cells by raw AUROC, beside their ceilings, for a terminal."""
    from study.text import aligned, interval

    rows = table[
        (table["metric"] == "auroc")
        & ~table["selected"]
        & table["variant"].isin(["raw", "aligned", "aligned-shuffled"])
    ]
    head = ["trained on", "site", "read on", "site", "kind", "how", "AUROC [95 %]", "minus own probe's [95 %]"]
    lines = [head]
    for row in rows.sort_values("value", ascending=False).head(12).to_dict("records"):
        lines.append(
            [row["train_checkpoint"], row["train_site"], row["test_checkpoint"], row["test_site"], row["kind"],
             row["variant"], interval(row["value"], row["lo"], row["hi"]),
             interval(row["drop"], row["drop_lo"], row["drop_hi"], signed=True)]
        )  # fmt: skip
    return aligned(lines)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
