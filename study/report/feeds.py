"""From a study's tidy columns to the columns that each figure reads; nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

DIFFERENCE = "engaged - heuristic"


def dumbbell_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the dumbbell figure; cells without a comparison are left out."""
    import pandas as pd

    from study.analyses.eval.tables import dumbbell_rows

    wide = []
    for _, part in pairs.groupby("cell", sort=False):
        by = {row["member"]: row for row in part.to_dict("records")}
        apart = by.get(DIFFERENCE)
        if apart is None or apart["value"] != apart["value"]:
            continue
        row: dict[str, Any] = {key: apart.get(key) for key in ("cell", "cell_role", "n", "n_groups", "note")}
        for member in ("engaged", "heuristic"):
            row |= {member: by[member]["value"], f"{member}_lo": by[member]["lo"], f"{member}_hi": by[member]["hi"]}
        row |= {"diff": apart["value"], "diff_lo": apart["lo"], "diff_hi": apart["hi"], "p_holm": apart["p_adjusted"]}
        row |= {"interval": by["engaged"]["interval"], "diff_interval": apart["interval"]}
        row |= {"tost_verdict": apart["verdict"], "majority": by["engaged"]["control_value"]}
        wide.append(row)
    if not wide:
        raise ValueError("no cell in which the members can be compared.")
    return pd.DataFrame(dumbbell_rows(wide)).astype({"n": int, "n_groups": int})


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
