"""From a study's tidy columns to the columns that each figure reads; nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def dose_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one member and site for the dose curves; a score that nothing moves is left to the table."""
    spread = rows.groupby("metric")["value"].agg(lambda v: v.max() - v.min())
    moving = [name for name in rows["metric"].unique() if spread[name] > 1e-6] or [rows["metric"].iloc[0]]
    rows = rows[rows["metric"].isin(moving)]
    return rows.astype({"n": int, "n_groups": int, "draw": int}).drop(columns=["model", "adapter"])
