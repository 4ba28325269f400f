"""Probes of a finished sweep read on another checkpoint's cache: `diptych probes transfer`, from options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.remedy import remedy
from study.analyses.probes.options import TransferOptions

if TYPE_CHECKING:
    import pandas as pd

    from interp.cache import ActivationCache
    from probes.result import SweepResult


def transfer_sweep(options: TransferOptions) -> tuple[pd.DataFrame, Path]:
    """The table of a transfer and its file, `SWEEP/transfer/NAME.csv`.

    Raises:
        ValueError: no finished sweep; a cache that is not there any more; two checkpoints of one name; as
            `probes.transfer`.
    """
    from interp.cache import ActivationCache
    from interp.io.frames import write_table
    from probes import transfer
    from probes.kinds import carried
    from study.analyses.probes.store import read_settings, read_sweep

    folder = options.folder
    settings, result = read_settings(folder), read_sweep(folder)
    kinds = options.kinds or carried({key[3] for key in result.directions})
    how: dict[str, Any] = {"kinds": kinds, "align": options.align}
    with ActivationCache.open(options.cache) as other:
        name = options.name or options.cache.resolve().name
        if options.all_layers:
            swept = folder / settings["cache"], settings["identity"]["cache"]
            table = _four_blocks(result, *swept, other, name, how)
        else:
            table = transfer(result, other, checkpoint=name, **how)
    file = "transfer/" + "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    write_table(table, folder, file)
    return table, folder / f"{file}.csv"


def _four_blocks(
    result: SweepResult, path: Path, plan_id: str, other: ActivationCache, name: str, how: dict[str, Any]
) -> pd.DataFrame:
    """A -> A, A -> B, B -> A and B -> B over all layers; B's probes are fitted here, on the rows and splits of A's."""
    import pandas as pd

    from interp.cache import ActivationCache
    from probes import transfer
    from probes.across import refit

    if not path.exists():
        raise ValueError(
            f"{remedy('{all_layers}')} reads the cache that was swept too, and it is not at {os.path.normpath(path)} "
            f"any more. {remedy('Put it back, or leave {all_layers} out.')}"
        )
    with ActivationCache.open(path) as own:
        if own.plan_id != plan_id:
            raise ValueError(f"{path} is not the cache that was swept (plan {own.plan_id}, swept {plan_id}).")
        own_name = str(result.table["member"].iloc[0])
        if name == own_name:
            raise ValueError(f"both checkpoints are called {name!r}: {remedy('name the one of CACHE with {name}.')}")
        there = refit(result, other, kinds=how["kinds"], checkpoint=name)
        sides = ((result, own, own_name), (result, other, name), (there, own, own_name), (there, other, name))
        parts = [transfer(probe, cache, checkpoint=called, mode="all-layers", **how) for probe, cache, called in sides]
    return pd.concat(parts, ignore_index=True)


def transfer_lines(table: pd.DataFrame) -> str:
    """The best cells by raw AUROC, next to their ceilings, for a terminal."""
    from study.text import aligned, interval

    raw = table["variant"].isin(["raw", "aligned", "aligned-shuffled"])
    rows = table[(table["metric"] == "auroc") & ~table["selected"] & raw]
    names = ("train_checkpoint", "train_site", "test_checkpoint", "test_site", "kind", "variant")
    lines = [["trained on", "site", "read on", "site", "kind", "how", "AUROC [95 %]", "minus own probe's [95 %]"]]
    for row in rows.sort_values("value", ascending=False).head(12).to_dict("records"):
        drop = interval(row["drop"], row["drop_lo"], row["drop_hi"], signed=True)
        lines.append([*(row[name] for name in names), interval(row["value"], row["lo"], row["hi"]), drop])
    return aligned(lines)
