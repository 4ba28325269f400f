"""The slopes of a folder of dose curves as text, and the 2×2 of vectors and checkpoints; read from its tables alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.read import read_frame
from interp.label_mass import mass_note
from study.analyses.eval.one_answer import MEANING, said
from study.analyses.steering.tables import members
from study.text import aligned

if TYPE_CHECKING:
    import pandas as pd

_SLOPES = ("member", "layer", "arm", "arm_label", "metric", "value", "lo", "hi", "null_lo", "null_hi", "n", "n_groups",
           "control_difference", "control_difference_lo", "control_difference_hi")  # fmt: skip
_TRANSFER = ("vector_from", "applied_to", "layer", "metric", "value", "lo", "hi", "null_lo", "null_hi", "p", "n")
READING = (
    "Positive alpha moves toward the first class. controls: random and label-shuffled directions, 95 %. minus "
    "random: slope minus the mean slope of random directions. p: against either kind (the larger if both exist). "
    "A slope inside the range of the controls is not an effect."
)


def headline(out: Path) -> str:
    """Slopes of the main arms of every member, each next to its controls."""
    lines = [["member", "layer", "arm", "score", "slope [95 %]", "controls 95 %", "minus random [95 %]", "p", "n"]]
    notes = []
    for member, folder in members(out).items():
        slopes = read_frame(folder / "slopes.csv", _SLOPES)
        mass = slopes["label_mass"].iloc[0] if "label_mass" in slopes and len(slopes) else None
        notes += [f"note: {member}: {text}"] if (text := mass_note(mass)) else []
        notes += [f"note: {text}"] if (text := one_answer_note(slopes, member)) else []
        shown = slopes[slopes["arm"].isin(["direction", "orthogonalized", "nuisance", "transferred"])]
        for row in shown.to_dict("records"):
            if row["metric"].startswith("switch ") or row["value"] != row["value"]:
                continue
            p, null = row.get("p"), _range(row["null_lo"], row["null_hi"])
            n, tested = f"{row['n']:.0f} ({row['n_groups']:.0f})", "" if p is None or p != p else f"{p:.3f}"
            slope = _spread(row["value"], row["lo"], row["hi"])
            apart = [row[f"control_difference{end}"] for end in ("", "_lo", "_hi")]
            beyond = _spread(*apart) if apart[1] == apart[1] else "–"
            lines.append(
                [member, f"{row['layer']:.0f}", row["arm_label"], row["metric"], slope, null, beyond, tested, n]
            )
    return "\n".join([aligned(lines), READING, *notes])


def one_answer_note(rows: pd.DataFrame, member: str) -> str:
    """The note on a member that gives one answer at strength 0, from the columns of its tables."""
    if not len(rows) or not rows.get("is_degenerate", rows["metric"].isna()).any():
        return ""
    row = rows[rows["is_degenerate"].astype(bool)].iloc[0]
    return f"{said(member, str(row['top_answer']), float(row['top_share']))} {MEANING}"


def _cosines(out: Path) -> pd.DataFrame:
    return read_frame(out / "cosines.csv", ("layer", "cosine", "ceiling", "corrected", "random_hi", "n"))


def pair_lines(out: Path) -> str:
    """Cosines per layer next to their ceiling, then the 2×2 of vectors and checkpoints."""
    lines, read = [["layer", "cosine", "ceiling", "corrected", "random 95 %", "n"]], _cosines(out)
    notes = [str(note) for note in read["note"].dropna().unique()] if "note" in read else []
    for row in read.to_dict("records"):
        numbers = [row[key] for key in ("cosine", "ceiling", "corrected", "random_hi")]
        cells = ["–" if x != x else f"{x:.2f}".replace("-", "−") for x in numbers]
        lines.append([f"{row['layer']:.0f}", *cells, f"{row['n']:.0f}"])
    cells = [["vector of", "added in", "layer", "score", "slope [95 %]", "controls 95 %", "p", "n"]]
    transfer = read_frame(out / "transfer.csv", _TRANSFER)
    has_sites = "decision_site" in transfer and transfer["decision_site"].nunique() > 1
    for row in transfer.to_dict("records"):
        null, slope = _range(row["null_lo"], row["null_hi"]), _spread(row["value"], row["lo"], row["hi"])
        cells.append(
            [
                row["vector_from"],
                row["applied_to"],
                f"{row['layer']:.0f}",
                f"{row['metric']} at {row['decision_site']}" if has_sites else row["metric"],
                slope,
                null,
                "" if row["p"] != row["p"] else f"{row['p']:.3f}",
                f"{row['n']:.0f}",
            ]
        )
    return "\n".join([aligned(lines), *notes, "", aligned(cells), READING])


def _spread(value: float, lo: float, hi: float) -> str:
    """`+0.82 [+0.76, +0.90]` to three digits, whatever the size."""
    value, lo, hi = (round(x, 12) + 0.0 for x in (value, lo, hi))  # a mean of zeros is 0, not 5e-17
    return f"{value:+.3g} [{lo:+.3g}, {hi:+.3g}]".replace("-", "−")


def _range(lo: float, hi: float) -> str:
    return f"[{lo:+.3g}, {hi:+.3g}]".replace("-", "−") if lo == lo else "–"
