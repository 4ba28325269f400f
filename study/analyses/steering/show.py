"""Figures and the headline of a dose study, made from its tables alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.io.read import read_frame
from interp.label_mass import mass_note
from steering.arms import CONTROLS
from study.analyses.eval.one_answer import MEANING, said
from study.text import aligned

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn


class Panel(NamedTuple):
    """How a score is drawn: its name, its unit, its smallest and largest level."""

    name: str
    unit: str
    bounds: tuple[float, float]


_RATE, _SIGNED = (0.0, 1.0), (-1.0, 1.0)
PANELS = {
    "margin": Panel("logit margin", "log p(toward) − log p(away), nats", (-math.inf, math.inf)),
    "amb_commit_bias": Panel("commit bias", "2 P(stereo | commit) − 1", _SIGNED),
    "coverage": Panel("coverage", "share", _RATE),
    "s_amb": Panel("s_AMB", "(1 − accuracy) × bias", _SIGNED),
    "accuracy": Panel("accuracy", "share right", _RATE),
    "p_gold": Panel("p(gold)", "probability among labels", _RATE),
    "acc_disambig": Panel("acc. disambig", "accuracy", _RATE),
    "abstain_disambig": Panel("abstain disambig", "share", _RATE),
    "kl": Panel("KL", "nats, last token", (0.0, math.inf)),
}
"""The scores that have a panel, in the order of the panels."""
_TABLE = ("site", "arm", "name", "metric", "alpha", "draw", "length", "value", "lo", "hi", "band_lo", "band_hi", "band",
          "change_lo", "change_hi", "interval")  # fmt: skip
_SLOPES = ("member", "layer", "arm", "name", "metric", "slope", "lo", "hi", "null_lo", "null_hi", "n", "n_groups",
           "control_difference", "control_difference_lo", "control_difference_hi")  # fmt: skip
_TRANSFER = ("vector_from", "applied_to", "layer", "metric", "slope", "lo", "hi", "null_lo", "null_hi", "p", "n")
READING = (
    "Positive alpha moves toward the first class. controls: random and label-shuffled directions, 95 %. minus random: "
    "slope minus the mean slope of random directions. p: against either sort (the larger where both are there). A "
    "slope inside the controls' is no effect."
)


def members(out: Path) -> dict[str, Path]:
    """Folder of each member that has a finished table.

    Raises:
        ValueError: there is none.
    """
    found = {
        path.parent.name: path.parent
        for path in sorted(out.rglob("table.csv"))
        if (path.parent / "slopes.csv").exists()
    }
    if not found:
        raise ValueError(f"{out} holds no finished dose study. Run diptych steer dose ... --out {out} first.")
    return found


def figures(out: Path) -> dict[str, Drawn | str]:
    """Dose-response of every member and layer, and the bias plane where the task has one. Of one whose table cannot be
    drawn, why."""
    from study.figures import bias_plane, cosines, dose_response
    from study.figures.drawn import tried

    drawn: dict[str, Drawn | str] = {}
    if (out / "cosines.csv").exists():
        drawn["cosines"] = tried(lambda: cosines(read_frame(out / "cosines.csv")))
    for member, folder in members(out).items():
        table = read_frame(folder / "table.csv", _TABLE)
        for site, rows in table.groupby("site", sort=False):
            shown = dose_rows(rows)
            if len(shown):
                drawn[f"{member}-{site}-dose"] = tried(lambda shown=shown: dose_response(shown))
        if (folder / "plane.csv").exists():
            plane = read_frame(folder / "plane.csv", ("site", "arm", "name", "coverage", "commit_bias", "cov_yy"))
            for site, rows in plane.groupby("site", sort=False):
                shown = plane_rows(rows, table[table["site"] == site])
                if len(shown):
                    drawn[f"{member}-{site}-plane"] = tried(lambda shown=shown: bias_plane(shown))
    return drawn


def dose_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one site in the columns of `study.figures.dose_response`; scores without a value, or
    that no arm moves at any strength, are left out."""
    import pandas as pd

    arms = {"direction": "direction", "orthogonalized": "orthogonalized"}
    arms |= dict.fromkeys(CONTROLS, "control")
    rows = table[table["arm"].isin(list(arms)) & table["metric"].isin(PANELS)].copy()
    known = rows["value"].notna() & rows["lo"].notna()
    known &= rows["band_lo"].notna() | (rows["arm"] != "direction")
    undefined = set(rows.loc[~known, "metric"])
    rows = rows[~rows["metric"].isin(undefined)]
    spread = rows.groupby("metric")["value"].agg(lambda values: values.max() - values.min())
    rows = rows[rows["metric"].isin(spread.index[spread > 1e-9])]  # a score that nothing moves needs no panel
    if not len(rows):
        return rows
    main = rows["arm"] == "direction"
    start = rows.merge(rows[main & (rows["alpha"] == 0)][["metric", "value"]], on="metric", suffixes=("", "_at_0"))
    rows["lo"], rows["hi"] = (_ends(rows, start["value_at_0"].to_numpy(), end) for end in ("lo", "hi"))
    labels = rows["arm"] + rows["draw"].astype(str)
    rows["draw"] = pd.factorize(labels)[0]
    rows["p"] = rows["p_max"] if "p_max" in rows else float("nan")
    sorts = [name for name in CONTROLS if (table["arm"] == name).any()]
    own = bool((table.loc[table["arm"] == "shuffled", "length"] != 1).any())
    first = table[table["arm"] == "direction"].iloc[0]
    rows["arm_label"] = rows["arm"].map(
        {"direction": first["name"], "orthogonalized": "orthogonalised, equal norm"}
    ).fillna(" + ".join(sorts) + " directions of equal norm" + (", shuffled at their own" if own else ""))  # fmt: skip
    rows["arm"] = rows["arm"].map(arms)
    rows["metric_unit"] = [PANELS[name].unit for name in rows["metric"]]
    rows["place"] = [list(PANELS).index(name) for name in rows["metric"]]
    rows["metric"] = [PANELS[name].name for name in rows["metric"]]
    words = "largest |z| over strengths, step-down"
    rows = rows.sort_values("place", kind="stable").drop(columns=["member", "place"], errors="ignore")
    rows["interval"] = rows["interval"].where(rows["band_lo"].isna() | (rows["alpha"] == 0), rows["band"])
    return rows.assign(unit=rows.get("item_unit", "items"), guard=float("nan"), correction=words)


def _ends(rows: pd.DataFrame, start: Any, end: str) -> Any:
    """Level at 0 plus the simultaneous band of the paired change, of controls its pointwise interval, as far as levels
    can go; at 0 the level's own interval."""
    level = start + rows[f"band_{end}"].fillna(rows[f"change_{end}"])
    least, most = ([PANELS[str(name)].bounds[k] for name in rows["metric"]] for k in (0, 1))
    return rows[end].where(rows["alpha"] == 0, level.clip(least, most))


def plane_rows(plane: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Coverage and commit bias of the direction and its controls, in the columns of `study.figures.bias_plane`."""
    import pandas as pd

    main = plane[plane["arm"].isin(["direction", "orthogonalized"])].dropna(
        subset=["coverage", "commit_bias", "cov_yy"]
    )
    main = main[main["effective_groups"] > 2]
    main = main.assign(system=main["name"], member="direction")
    top = table["alpha"].max()
    wide = table[(table["arm"] == "random") & (table["alpha"] == top)].pivot_table(
        index="draw", columns="metric", values="value"
    )  # fmt: skip
    if not len(main) or not {"coverage", "amb_commit_bias"} <= set(wide.columns):
        return main.iloc[:0]
    rest = pd.DataFrame({
        "system": "random", "member": "control", "alpha": top, "coverage": wide["coverage"],
        "commit_bias": wide["amb_commit_bias"], "n": main["n"].iloc[0], "n_groups": main["n_groups"].iloc[0],
        "interval": main["interval"].iloc[0],
    }).dropna(subset=["coverage", "commit_bias"])  # fmt: skip
    return pd.concat([main, rest], ignore_index=True).drop(columns=["model", "dtype"], errors="ignore")


def headline(out: Path) -> str:
    """Slopes of the main arms of every member, each beside its controls."""
    lines = [["member", "layer", "arm", "score", "slope [95 %]", "controls 95 %", "minus random [95 %]", "p", "n"]]
    notes = []
    for member, folder in members(out).items():
        slopes = read_frame(folder / "slopes.csv", _SLOPES)
        mass = slopes["label_mass"].iloc[0] if "label_mass" in slopes and len(slopes) else None
        notes += [f"note: {member}: {text}"] if (text := mass_note(mass)) else []
        notes += [f"note: {text}"] if (text := one_answer_note(slopes, member)) else []
        shown = slopes[slopes["arm"].isin(["direction", "orthogonalized", "nuisance", "transferred"])]
        for row in shown.to_dict("records"):
            if row["metric"].startswith("switch ") or row["slope"] != row["slope"]:
                continue
            p, null = row.get("p"), _range(row["null_lo"], row["null_hi"])
            n, tested = f"{row['n']:.0f} ({row['n_groups']:.0f})", "" if p is None or p != p else f"{p:.3f}"
            slope = _spread(row["slope"], row["lo"], row["hi"])
            apart = [row[f"control_difference{end}"] for end in ("", "_lo", "_hi")]
            beyond = _spread(*apart) if apart[1] == apart[1] else "–"
            lines.append([member, f"{row['layer']:.0f}", row["name"], row["metric"], slope, null, beyond, tested, n])
    return "\n".join([aligned(lines), READING, *notes])


def one_answer_note(rows: pd.DataFrame, member: str) -> str:
    """What must be said of a member that gives one answer at strength 0, from the columns of its tables."""
    if not len(rows) or not rows.get("is_degenerate", rows["metric"].isna()).any():
        return ""
    row = rows[rows["is_degenerate"].astype(bool)].iloc[0]
    return f"{said(member, str(row['top_answer']), float(row['top_share']))} {MEANING}"


def _cosines(out: Path) -> pd.DataFrame:
    return read_frame(out / "cosines.csv", ("layer", "cosine", "ceiling", "corrected", "random_hi", "n"))


def pair_lines(out: Path) -> str:
    """Cosines per layer beside their ceiling, then the 2×2 of vectors and checkpoints."""
    lines, read = [["layer", "cosine", "ceiling", "corrected", "random 95 %", "n"]], _cosines(out)
    notes = [str(note) for note in read["note"].dropna().unique()] if "note" in read else []
    for row in read.to_dict("records"):
        numbers = [row[key] for key in ("cosine", "ceiling", "corrected", "random_hi")]
        cells = ["–" if x != x else f"{x:.2f}".replace("-", "−") for x in numbers]
        lines.append([f"{row['layer']:.0f}", *cells, f"{row['n']:.0f}"])
    cells = [["vector of", "added in", "layer", "score", "slope [95 %]", "controls 95 %", "p", "n"]]
    for row in read_frame(out / "transfer.csv", _TRANSFER).to_dict("records"):
        null, slope = _range(row["null_lo"], row["null_hi"]), _spread(row["slope"], row["lo"], row["hi"])
        cells.append([row["vector_from"], row["applied_to"], f"{row['layer']:.0f}", row["metric"], slope, null,
                      "" if row["p"] != row["p"] else f"{row['p']:.3f}", f"{row['n']:.0f}"])  # fmt: skip
    return "\n".join([aligned(lines), *notes, "", aligned(cells), READING])


def _spread(value: float, lo: float, hi: float) -> str:
    """`+0.82 [+0.76, +0.90]` to three digits, whatever the size."""
    value, lo, hi = (round(x, 12) + 0.0 for x in (value, lo, hi))  # a mean of zeros is 0, not 5e-17
    return f"{value:+.3g} [{lo:+.3g}, {hi:+.3g}]".replace("-", "−")


def _range(lo: float, hi: float) -> str:
    return f"[{lo:+.3g}, {hi:+.3g}]".replace("-", "−") if lo == lo else "–"
