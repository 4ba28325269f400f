"""Schema tables of probes: what a sweep and a transfer computed, with the control and provenance of every row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.schema import tidy

if TYPE_CHECKING:
    import pandas as pd


def probe_table(sweep: pd.DataFrame, *, target: str = "", **same: object) -> pd.DataFrame:
    """The table `probes` of one sweep. The control of an AUROC is its null; the control of an accuracy is the more
    frequent label.

    Args:
        sweep:  `SweepResult.table`.
        target: column of the labels, which then stands before each target: `label=noncompliant`.
        same:   columns that are the same in all rows.
    """
    import numpy as np

    rows = _named(sweep, target)
    is_area = rows["metric"] == "auroc"
    is_rate = rows["metric"].isin(["accuracy", "balanced_accuracy"])
    has_null = is_area & rows["null_mean"].notna()
    rows["chance"] = np.where(is_area | (rows["metric"] == "balanced_accuracy"), 0.5, np.nan)
    constant = np.where(rows["metric"] == "accuracy", rows["majority"], 0.5)
    rows["control_value"] = np.where(has_null, rows["null_mean"], np.where(is_area | is_rate, constant, np.nan))
    words = np.where(is_area | is_rate, "constant answer", "")
    rows["control"] = np.where(has_null, "same search on permuted labels", words)
    rows["correction"] = np.where(rows["p_adjusted"].notna(), "step-down max-T over sites, Holm over targets", "")
    is_blank = rows["value"].isna() & (rows["note"].fillna("") == "")
    rows["note"] = np.where(is_blank, "undefined: one class or one group in this part", rows["note"])
    no_interval = rows["value"].notna() & rows["lo"].isna()
    rows.loc[no_interval, "note"] = "no interval could be computed, so no value is given"
    rows.loc[no_interval, "value"] = np.nan
    return tidy(rows, analysis="probes", unit="rows", **same)


def transfer_table(transfer: pd.DataFrame, *, target: str = "", **same: object) -> pd.DataFrame:
    """The table `probes_transfer` of one transfer; `member` is the checkpoint that the probes are read on.

    Args:
        transfer: of `probes.transfer`.
        target, same: as for `probe_table`.
    """
    rows = _named(transfer, target)
    rows["n_groups"] = rows["n_groups"].astype(float)
    rows = rows.assign(member=rows["test_checkpoint"], control="the probe fitted there, paired (drop)", chance=0.5)
    return tidy(rows, analysis="probes", unit="rows", **same)


def tables_of(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """`probes`, and `probes_transfer` where probes were read elsewhere, of finished sweeps on disk."""
    import pandas as pd

    sweeps = [probe_table(pd.read_parquet(folder / "table.parquet")) for folder in folders]
    transfers = [transfer_table(pd.read_parquet(p)) for folder in folders for p in transfer_files(folder)]
    tables = {"probes": pd.concat(sweeps, ignore_index=True)}
    return tables | ({"probes_transfer": pd.concat(transfers, ignore_index=True)} if transfers else {})


def transfer_files(folder: Path) -> list[Path]:
    """Tables of the probes of a sweep that were read on other checkpoints."""
    return sorted(folder.glob("transfer/*.parquet"))


def _named(table: pd.DataFrame, target: str) -> pd.DataFrame:
    return table.assign(target=f"{target}=" + table["target"].astype(str)) if target else table.copy()
