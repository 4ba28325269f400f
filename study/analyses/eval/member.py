"""Rows of one member in the table `eval`: accuracy, length and confidence per cell, with intervals and controls.

The control of a metric is the score of a baseline without the skill (a constant label, chance); otherwise blank.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from interp import stats
from interp.label_mass import mass_note
from interp.stats.calibration import N_BINS
from interp.tasks.protocol import Task, hook
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
BEYOND = ("control_difference", "control_difference_lo", "control_difference_hi")


def row(
    member: str,
    cell: str,
    metric: str,
    estimate: stats.Estimate,
    *,
    interval: str,
    control: float | None = None,
    note: str = "",
) -> Row:
    """One row of the table `eval`; `control` is what its baseline reaches."""
    spread = {"value": estimate.value, "lo": estimate.lo, "hi": estimate.hi}
    sizes = {"n": estimate.n, "n_groups": estimate.n_groups, "interval": estimate.interval_kind(interval)}
    return {"member": member, "cell": cell, "metric": metric, **spread, **sizes, "control_value": control, "note": note}


def group_of(frame: pd.DataFrame, task: Task | None = None) -> np.ndarray | None:
    """The independent unit of each answer: the task's `GROUP`, else the first group of the examples, else the item.

    None where every answer is a unit of its own. Several samples of one item are never independent of each other.
    """
    names = [column for column in frame.columns if column.startswith("group.")]
    named = f"group.{unit}" if (unit := hook(task, "GROUP")) else None
    unit = named if named in names else next(iter(names), "id")
    units = frame[unit].astype(str).to_numpy()
    return None if len(set(units)) == len(units) else units


def rate(
    values: np.ndarray, groups: np.ndarray | None, unit: str, *, items: np.ndarray | None = None
) -> tuple[stats.Estimate, str]:
    """A rate with its Wilson interval (at the effective number of items if they come in groups), and the name of the
    interval.

    Args:
        items: item of each value, if items were asked several times.
    """
    if groups is None:
        return stats.wilson(int(values.sum()), len(values)), "Wilson"
    if len(set(groups)) < 2:
        return stats.wilson(int(values.sum()), len(values)), f"Wilson, as if items of the one {unit} were independent"
    return stats.wilson_clustered(values, groups=groups, items=items), f"Wilson at the effective n by {unit}"


def member_rows(frame: pd.DataFrame, task: Task | None = None, *, seed: int = 0) -> list[Row]:
    """Accuracy, unparsed, unfinished, length and confidence, per cell and pooled; intervals respect the groups.

    The control of an accuracy is the accuracy in this cell of always giving the most common label of the whole grid, as
    in the table `pair`.
    """
    rows: list[Row] = []
    always = commonest(frame)
    member, unit = str(frame["member"].iloc[0]), unit_name(frame, task)
    cells = [*dict.fromkeys(frame["cell"]), *([ALL] if frame["cell"].nunique() > 1 else [])]
    for cell in cells:
        part = frame if cell == ALL else frame[frame["cell"] == cell]
        groups = group_of(part, task)
        majority = float((part["gold"].astype(str) == always).mean())
        rates = {"accuracy": part["score.correct"].to_numpy(float), "unparsed": part["label"].isna().to_numpy(float)}
        if part["text"].notna().any():
            rates["unfinished"] = (~part["finished"].astype(bool)).to_numpy(float)
        for metric, values in rates.items():
            estimate, interval = rate(values, groups, unit, items=part["id"].to_numpy())
            control = majority if metric == "accuracy" else None
            rows.append(row(member, cell, metric, estimate, interval=interval, control=control))
            if metric == "accuracy":
                rows[-1] |= beyond_one_label(values, part, groups, always)
        rows += _lengths(part, member, cell, groups) + _confidence(part, member, cell, groups, seed)
        rows += _on_rounding(part, member, cell, groups, unit)
        _add_mass(rows, part, cell)
    return rows


def _on_rounding(part: pd.DataFrame, member: str, cell: str, groups: np.ndarray | None, unit: str) -> list[Row]:
    """Share of answers whose margin over the runner-up is within what the dtype rounds; no row where none is."""
    if "within_rounding" not in part:
        return []
    has_margin = part["within_rounding"].notna().to_numpy()
    close = part["within_rounding"][has_margin].to_numpy(dtype=bool)
    if not close.any():
        return []
    groups = None if groups is None else np.asarray(groups)[has_margin]
    estimate, interval = rate(close.astype(float), groups, unit, items=part["id"].to_numpy()[has_margin])
    note = (
        f"{int(close.sum())} of {len(close)} answers depend on a margin that is within rounding: another batch, dtype "
        f"or machine may give the other label. Loading in float32 settles most that half precision leaves open"
    )
    return [row(member, cell, "within_rounding", estimate, interval=interval, note=note)]


def _add_mass(rows: list[Row], part: pd.DataFrame, cell: str) -> None:
    """Mean label mass of a cell in each of its rows, where labels were read off one distribution."""
    if "label_mass" not in part or part["label_mass"].isna().all():
        return
    mass = float(part["label_mass"].mean())
    for entry in rows:
        if entry["cell"] == cell:
            entry |= {"label_mass": mass, "note": "; ".join(filter(None, [entry["note"], mass_note(mass)]))}


def beyond_one_label(right: np.ndarray, part: pd.DataFrame, groups: np.ndarray | None, always: str) -> dict[str, float]:
    """Accuracy minus that of always answering `always` on the same items, with its paired interval; nothing where one
    item or one group gives none."""
    items = part["id"].astype(str).to_numpy()
    if len(set(items)) < 2 or (groups is not None and len(set(groups)) < 2):
        return {}
    constant = (part["gold"].astype(str) == always).to_numpy(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # its p is not used
        gap = stats.compare_items(right, constant, items=items, groups=groups).difference
    return dict(zip(BEYOND, (gap.value, gap.lo, gap.hi), strict=True))


def commonest(frame: pd.DataFrame) -> str:
    """The label that is gold most often over all items; of equally common ones, the first in the alphabet."""
    counts = frame.drop_duplicates("id")["gold"].astype(str).value_counts()
    return min(counts.index[counts == counts.iloc[0]])


def unit_name(frame: pd.DataFrame, task: Task | None) -> str:
    names = [column for column in frame.columns if column.startswith("group.")]
    return str(getattr(task, "GROUP", names[0].removeprefix("group."))) if names else "item"


def _lengths(part: pd.DataFrame, member: str, cell: str, groups: np.ndarray | None) -> list[Row]:
    n_units = len(part) if groups is None else len(set(groups))
    if part["text"].isna().all() or n_units < 2:
        return []
    tokens = stats.cluster_t(part["n_new_tokens"].to_numpy(float), groups=groups)
    return [row(member, cell, "new_tokens", tokens, interval=stats.RULE)]


def _confidence(part: pd.DataFrame, member: str, cell: str, groups: np.ndarray | None, seed: int) -> list[Row]:
    """Confidence on errors, per cell; over all cells also calibration of the probability of the answered label."""
    p = _probability_of_answer(part)
    has_p = ~np.isnan(p)  # not where the reply has no decision point
    if not has_p.any():
        return []
    p, right = p[has_p], part["score.correct"].to_numpy(float)[has_p]
    groups = None if groups is None else np.asarray(groups)[has_p]
    if not 0 < right.sum() < len(right) or min(_n_units(groups, right == 0), _n_units(groups, right == 1)) < 2:
        return []
    on_errors = stats.confidence_on_errors(p, right, groups=groups)
    rows = [row(member, cell, "confidence_on_errors", on_errors, interval=stats.RULE)]
    if cell != ALL or len(p) < N_BINS:
        return rows
    ece = stats.calibration_error(p, right, groups=groups, sampling=stats.Sampling(seed=seed))
    floor, kind = ece.floor.value, "bootstrap of the sampling error"
    note = f"expected value for a calibrated model {floor:.3f}"
    rows.append(row(member, cell, "ece", ece.ece, interval=kind, control=floor, note=note))
    base = float(right.mean() * (1 - right.mean()))
    rows.append(row(member, cell, "brier", stats.brier(p, right, groups=groups), interval=stats.RULE, control=base))
    area, kind = stats.auroc(p, right, groups=groups), "score interval over groups"
    note = f"{area.n_positive} right, {area.n_negative} wrong"
    rows.append(row(member, cell, "auroc", area.estimate, interval=kind, control=0.5, note=note))
    return rows


def _probability_of_answer(part: pd.DataFrame) -> np.ndarray:
    """Probability of the label that was answered [answer]; NaN where there is none."""
    columns = {c.removeprefix("p."): c for c in part.columns if c.startswith("p.")}
    rows = part.to_dict("records")
    return np.array([r[columns[r["label"]]] if r["label"] in columns else np.nan for r in rows], dtype=float)


def _n_units(groups: np.ndarray | None, chosen: np.ndarray) -> int:
    return int(chosen.sum()) if groups is None else len(set(groups[chosen]))
