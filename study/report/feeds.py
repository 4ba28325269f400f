"""From a study's tidy columns to the columns that each figure reads; nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def probe_tables(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """One table per member, in the columns of `probes.sweep`."""
    named = {"selected": "is_selected", "null_max95": "null_max_hi", "p_adjusted": "p_maxT", "member": "checkpoint"}
    out = rows.rename(columns=named).drop(columns=["model", "control", "control_value", "unit", "group_unit"])
    out["is_selected"] = out["is_selected"].fillna(False).astype(bool)
    counted = out["n"].notna() & out["n_groups"].notna()
    out = out[counted].astype({"n": int, "n_groups": int})
    return [part for _, part in out.groupby("checkpoint", sort=False)]


def transfer_tables(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Tables of probes read elsewhere, in the columns of `probes.transfer`; none without the ceilings of a figure."""
    out = rows.drop(columns=["model", "control", "control_value", "unit", "group_unit"])
    out = out.rename(columns={"selected": "is_selected"})
    wide = ["train_layer", "test_layer", "train_d_feature", "test_d_feature"]
    out = out[out[wide].notna().all(axis=1)].astype({"n": int, "n_groups": int, **dict.fromkeys(wide, int)})
    blocks = set(zip(out["train_checkpoint"], out["test_checkpoint"], strict=True))
    is_full = len(blocks) > 1 and all((a, a) in blocks and (b, a) in blocks for a, b in blocks)
    return [out] if is_full else []


def dose_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one member and site for the dose curves; a score that nothing moves is left to the table."""
    spread = rows.groupby("metric")["value"].agg(lambda v: v.max() - v.min())
    moving = [name for name in rows["metric"].unique() if spread[name] > 1e-6] or [rows["metric"].iloc[0]]
    rows = rows[rows["metric"].isin(moving)]
    return rows.astype({"n": int, "n_groups": int, "draw": int}).drop(columns=["model", "adapter"])
