"""Tidy tables of an evaluation: one estimate per row, with its interval, its n and the control it is compared with.

`control` in `table.csv` is what a model without the skill would reach (one label always, chance); blank where a metric
has none. `pair.csv` has one row per cell: both members, their paired difference and its tests: `p_groups` with groups
as the unit, `p_holm`, which corrects it over the cells, and `p_mcnemar` with items as the unit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.io.frames import write_frame
from interp.label_mass import mass_note
from interp.remedy import remedy
from interp.stats.calibration import N_BINS
from interp.tasks.protocol import cell_role
from study.analyses.eval.one_answer import of_answers, with_columns

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
BESIDE = ("control_difference", "control_difference_lo", "control_difference_hi")
COLUMNS = ("member", "cell", "metric", "value", "lo", "hi", "n", "n_groups", "interval", "control", *BESIDE,
           "cell_role", "banner", "note", "mode", "label_mass", "top_answer", "top_share", "is_degenerate")  # fmt: skip


def row(
    member: str, cell: str, metric: str, estimate: stats.Estimate, *, interval: str, control: float | None = None,
    note: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One row of `table.csv`."""
    return {
        "member": member, "cell": cell, "metric": metric, "value": estimate.value, "lo": estimate.lo, "hi": estimate.hi,
        "n": estimate.n, "n_groups": estimate.n_groups, "interval": estimate.interval_kind(interval),
        "control": control, "note": note, "mode": "",
    }  # fmt: skip


def group_of(frame: pd.DataFrame, task: Any = None) -> np.ndarray | None:
    """The independent unit of each answer: the task's `GROUP`, else the first group of the examples, else the item.

    None where every answer is a unit of its own. Several samples of one item are never independent of each other.
    """
    names = [column for column in frame.columns if column.startswith("group.")]
    wanted = f"group.{task.GROUP}" if hasattr(task, "GROUP") else None
    chosen = wanted if wanted in names else next(iter(names), "id")
    units = frame[chosen].astype(str).to_numpy()
    return None if len(set(units)) == len(units) else units


def rate(
    values: np.ndarray, groups: np.ndarray | None, unit: str, *, items: np.ndarray | None = None
) -> tuple[stats.Estimate, str]:
    """A rate with Wilson's interval, at the effective number of items where they come in groups; and its name.

    Args:
        items: which item each value answers, where items were asked several times.
    """
    if groups is None:
        return stats.wilson(int(values.sum()), len(values)), "Wilson"
    if len(set(groups)) < 2:
        return stats.wilson(int(values.sum()), len(values)), f"Wilson, as if items of the one {unit} were independent"
    return stats.wilson_clustered(values, groups=groups, items=items), f"Wilson at the effective n by {unit}"


def member_table(frame: pd.DataFrame, task: Any = None, *, seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy, unparsed, unfinished, length and confidence, per cell and pooled; intervals respect the groups.

    The control of an accuracy is what always answering the commonest label of the whole grid reaches in the cell, the
    same reader as `majority` of the pair's table.
    """
    rows, always = [], commonest(frame)
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


def _on_rounding(part: pd.DataFrame, member: str, cell: str, groups: Any, unit: str) -> list[dict[str, Any]]:
    """Share of answers whose margin over the runner-up is within what the dtype rounds; no row where none is."""
    if "within_rounding" not in part:
        return []
    known = part["within_rounding"].notna().to_numpy()
    close = part["within_rounding"][known].to_numpy(dtype=bool)
    if not close.any():
        return []
    kept = None if groups is None else np.asarray(groups)[known]
    estimate, interval = rate(close.astype(float), kept, unit, items=part["id"].to_numpy()[known])
    note = (
        f"{int(close.sum())} of {len(close)} answers hang on a margin that is within rounding: another batch, dtype or "
        f"machine may give the other label. Load with dtype float32 to settle them"
    )
    return [row(member, cell, "within_rounding", estimate, interval=interval, note=note)]


def _add_mass(rows: list[dict[str, Any]], part: pd.DataFrame, cell: str) -> None:
    """Mean label mass of a cell in each of its rows, where labels were read off one distribution."""
    if "label_mass" not in part or part["label_mass"].isna().all():
        return
    mass = float(part["label_mass"].mean())
    for one in rows:
        if one["cell"] == cell:
            one |= {"label_mass": mass, "note": "; ".join(filter(None, [one["note"], mass_note(mass)]))}


def beyond_one_label(right: np.ndarray, part: pd.DataFrame, groups: np.ndarray | None, always: str) -> dict[str, float]:
    """Accuracy minus that of always answering `always` on the same items, with its paired interval; nothing where one
    item or one group gives none."""
    items = part["id"].astype(str).to_numpy()
    if len(set(items)) < 2 or (groups is not None and len(set(groups)) < 2):
        return {}
    constant = (part["gold"].astype(str) == always).to_numpy(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # its p is not used
        found = stats.compare_items(right, constant, items=items, groups=groups).difference
    return dict(zip(BESIDE, (found.value, found.lo, found.hi), strict=True))


def commonest(frame: pd.DataFrame) -> str:
    """The label that is gold most often over all items; of equally common ones, the first in the alphabet."""
    counts = frame.drop_duplicates("id")["gold"].astype(str).value_counts()
    return min(counts.index[counts == counts.iloc[0]])


def unit_name(frame: pd.DataFrame, task: Any) -> str:
    names = [column for column in frame.columns if column.startswith("group.")]
    return str(getattr(task, "GROUP", names[0].removeprefix("group."))) if names else "item"


def _lengths(part: pd.DataFrame, member: str, cell: str, groups: np.ndarray | None) -> list[dict[str, Any]]:
    n_units = len(part) if groups is None else len(set(groups))
    if part["text"].isna().all() or n_units < 2:
        return []
    tokens = stats.cluster_t(part["n_new_tokens"].to_numpy(float), groups=groups)
    return [row(member, cell, "new_tokens", tokens, interval=stats.RULE)]


def _confidence(part: pd.DataFrame, member: str, cell: str, groups: Any, seed: int) -> list[dict[str, Any]]:
    """Calibration of the probability of the label that was answered, pooled, and confidence on errors per cell."""
    names = {c.removeprefix("p."): c for c in part.columns if c.startswith("p.")}
    p = np.array([row[names[row["label"]]] if row["label"] in names else np.nan for row in part.to_dict("records")])
    has_p = ~np.isnan(p.astype(float))  # not where the reply has no decision point
    known, p = part[has_p], p[has_p].astype(float)
    if known.empty:
        return []
    right = known["score.correct"].to_numpy(float)
    groups = None if groups is None else np.asarray(groups)[has_p]
    rows = []
    if 0 < right.sum() < len(right) and _n_units(groups, right == 0) > 1 and _n_units(groups, right == 1) > 1:
        on_errors = stats.confidence_on_errors(p, right, groups=groups)
        rows.append(row(member, cell, "confidence_on_errors", on_errors, interval=stats.RULE))
        if cell == ALL and len(p) >= N_BINS:
            ece = stats.calibration_error(p, right, groups=groups, sampling=stats.Sampling(seed=seed))
            note = f"floor of a calibrated reader {ece.floor.value:.3f}"
            rows.append(
                row(
                    member,
                    cell,
                    "ece",
                    ece.ece,
                    interval="bootstrap of the sampling error",
                    control=ece.floor.value,
                    note=note,
                )
            )
            brier = stats.brier(p, right, groups=groups)
            base = float(right.mean() * (1 - right.mean()))
            rows.append(row(member, cell, "brier", brier, interval=stats.RULE, control=base))
            area = stats.auroc(p, right, groups=groups)
            note = f"{area.n_positive} right, {area.n_negative} wrong"
            rows.append(row(member, cell, "auroc", area.estimate, interval="score interval over groups", control=0.5,
                            note=note))  # fmt: skip
    return rows


def _n_units(groups: np.ndarray | None, chosen: np.ndarray) -> int:
    return int(chosen.sum()) if groups is None else len(set(groups[chosen]))


def pair_table(
    engaged: pd.DataFrame, heuristic: pd.DataFrame, task: Any = None, *, margin: float = stats.MARGIN, seed: int = 0
) -> list[dict[str, Any]]:
    """One row per cell: both accuracies, the paired difference with a clustered interval, its tests, equivalence.

    p_groups    `interp.stats.mean_test` with the group as the unit (exact McNemar where every item is its own group)
    p_holm      p_groups, Holm-corrected over the cells that can be compared; what tables and figures show
    p_mcnemar   exact McNemar with the item as the unit: only_engaged against only_heuristic, the items on which the
                share of right replies is higher for the one or the other; too small where items of a group agree
    majority    accuracy of always answering the label that is commonest over all cells
    margin      largest difference that counts as equal;  cell_role: what the cell is for, as the task says
    note        where so few groups cannot reach Holm's first step at 0.05 whatever the effect

    `n` counts items; several replies to one item are one unit. A cell with one item or one group has both accuracies
    and no comparison. The equivalence verdict has its own margin and no correction.

    Raises:
        ValueError: the two did not answer the same items, each as often.
    """
    joined = _same_items(engaged, heuristic)
    first = commonest(joined)
    rows = [
        _pair_row(joined[joined["cell"] == cell], cell, first, task, margin, seed)
        for cell in dict.fromkeys(joined["cell"])
    ]
    tested = [entry for entry in rows if entry["p_groups"] is not None]
    for entry in rows:
        entry |= {"cell_role": cell_role(task, entry["cell"]), "margin": margin}
    for entry, adjusted in zip(tested, stats.holm([r["p_groups"] for r in tested]) if tested else [], strict=True):
        entry["p_holm"] = float(adjusted)
        entry["note"] = floor_note(entry["n_groups"], len(tested), unit_name(joined, task))
    return rows


def floor_note(n_groups: int, n_cells: int, unit: str) -> str:
    """What so few units can never show: the smallest p of G signs is 2^(1 - G), and Holm's first step multiplies it."""
    floor = 2.0 ** (1 - n_groups)
    if stats.rejects(floor * n_cells):
        return ""
    return (
        f"{n_groups} units by {unit}: p_groups cannot be below {floor:.2g}, Holm p not below "
        f"{min(1.0, floor * n_cells):.2g} for the strongest of {n_cells} cells"
    )


def _pair_row(part: pd.DataFrame, cell: str, first: str, task: Any, margin: float, seed: int) -> dict[str, Any]:
    a, b = part["score.correct"].to_numpy(float), part["score.correct_heuristic"].to_numpy(float)
    groups = group_of(part, task)
    head = {"cell": cell, "n": part["id"].nunique(), "n_groups": len(part) if groups is None else len(set(groups))}
    unit = unit_name(part, task)
    tail = {"interval": "Wilson" if groups is None else f"Wilson at the effective n by {unit}"}
    tail |= {"diff_interval": "Newcombe, paired" if groups is None else f"Newcombe at the effective n by {unit}"}
    tail |= {"majority": float((part["gold"].astype(str) == first).mean()), "p_holm": None, "note": ""}
    if head["n_groups"] < 2:
        known = {m: stats.wilson(int(x.sum()), len(x)) for m, x in (("engaged", a), ("heuristic", b))}
        blank = {"diff": None, "diff_lo": None, "diff_hi": None, "only_engaged": None, "only_heuristic": None}
        blank |= {"p_groups": None, "p_mcnemar": None, "tost_verdict": "not compared: one item or one group"}
        return head | _spread("engaged", known["engaged"]) | _spread("heuristic", known["heuristic"]) | blank | tail
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # `note` says it
        items, sampling = part["id"].to_numpy(), stats.Sampling(seed=seed)
        compared = stats.compare_paired(a, b, groups=groups, items=items, sampling=sampling, margin=margin)
    items = part.groupby("id", sort=False)[["score.correct", "score.correct_heuristic"]].mean()
    more, fewer = (int((sign * (items.iloc[:, 0] - items.iloc[:, 1]) > 1e-9).sum()) for sign in (1, -1))
    tests = {"only_engaged": more, "only_heuristic": fewer, "p_groups": compared.p_groups}
    tests |= {"p_mcnemar": stats.mcnemar(more, fewer).p, "tost_verdict": compared.equivalence.wording}
    sides = _spread("engaged", compared.a) | _spread("heuristic", compared.b)
    return head | sides | _spread("diff", compared.difference_groups) | tests | tail


def _spread(name: str, estimate: stats.Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_lo": estimate.lo, f"{name}_hi": estimate.hi}


def _same_items(engaged: pd.DataFrame, heuristic: pd.DataFrame) -> pd.DataFrame:
    key = ["id", "sample"]
    if set(engaged["id"]) != set(heuristic["id"]):
        only = sorted(set(engaged["id"]) ^ set(heuristic["id"]))
        raise ValueError(f"the members answered different items: {len(only)} of them in one only, first {only[0]!r}.")
    asked = [set(zip(f["id"], f["sample"], strict=True)) for f in (engaged, heuristic)]
    if asked[0] != asked[1]:
        which = sorted(asked[0] ^ asked[1])
        first = f"first item {which[0][0]!r}, sample {which[0][1]}"
        raise ValueError(
            f"the members have different samples of the same items: {len(which)} in one only, {first}. "
            + remedy("Evaluate both with the same {eval.samples}.")
        )
    return engaged.merge(heuristic[[*key, "score.correct"]], on=key, suffixes=("", "_heuristic"), validate="one_to_one")


def dumbbell_rows(
    pairs: Sequence[Mapping[str, Any]],
    *,
    notes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the dumbbell figure from those of `pair.csv`: one per cell and member, the difference on both.

    The verdict of equivalence is shown in training cells, where it is claimed; the others are compared only.

    Args:
        notes: cell -> footnote, such as known label noise; beside what `pair.csv` notes itself.
    """
    shared = ("diff", "diff_lo", "diff_hi", "p_holm", "n", "n_groups")
    kinds = {key: " or ".join(dict.fromkeys(p[key] for p in pairs)) for key in ("interval", "diff_interval")}
    pooled = sum(p["n"] * p["majority"] for p in pairs) / sum(p["n"] for p in pairs)
    return [
        {"cell": p["cell"].replace("_", " "), "member": m, "value": p[m], "lo": p[f"{m}_lo"], "hi": p[f"{m}_hi"]}
        | {key: p[key] for key in shared}
        | kinds
        | {"tost_verdict": p["tost_verdict"] if p.get("cell_role") == "training" else ""}
        | {"chance": pooled, "chance_label": "always answers one label, all cells"}
        | {"note": "; ".join(filter(None, ((notes or {}).get(p["cell"], ""), p["note"])))}
        for p in pairs
        for m in ("engaged", "heuristic")
    ]


def write_tables(
    frames: Mapping[str, pd.DataFrame],
    task: Any,
    out: Path,
    *,
    extra: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    margin: float = stats.MARGIN,
    notes: Mapping[str, str] | None = None,
) -> None:
    """`table.csv` of all members, the task's report and `extra` included; `pair.csv` where both are there.

    Args:
        margin: largest difference in accuracy that counts as equal.
        notes: cell -> what must be known of its items (label noise), put into the notes of `pair.csv`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for frame in frames.values():
        for mode, part in by_mode(frame).items():
            found = member_table(part, task, seed=seed)
            if callable(getattr(task, "report", None)):
                found += task.report(part, seed=seed)
            rows += [dict.fromkeys(COLUMNS) | r | {"mode": mode} for r in found]
        if "mode" in frame and callable(getattr(task, "mode_report", None)):
            rows += [dict.fromkeys(COLUMNS) | r | {"mode": "between"} for r in task.mode_report(frame, seed=seed)]
    tops = {
        (member, mode): of_answers(part, task)
        for member, frame in frames.items() for mode, part in {**by_mode(frame), "between": frame}.items()
    }  # fmt: skip
    rows = with_banner(task, [*rows, *map(dict, extra)])
    rows = [r | {"cell_role": cell_role(task, str(r["cell"]))} for r in rows]
    rows = [
        one for r in rows
        for one in with_columns([r], tops.get((str(r["member"]), str(r["mode"] or ""))), str(r["member"]), task)
    ]  # fmt: skip
    write_frame(out / "table.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    if {"engaged", "heuristic"} <= set(frames):
        sides = by_mode(frames["engaged"]), by_mode(frames["heuristic"])
        for mode in sides[0]:
            pairs = pair_table(sides[0][mode], sides[1][mode], task, margin=margin, seed=seed)
            for entry in pairs:
                entry["note"] = "; ".join(filter(None, ((notes or {}).get(entry["cell"], ""), entry["note"])))
            constant = {
                f"{role}_degenerate": bool((found := tops[role, mode]) and found.is_degenerate)
                for role in ("engaged", "heuristic")
            }
            pairs = [{**entry, **constant} for entry in with_banner(task, pairs)]
            write_frame(out / (f"pair_{mode}.csv" if mode else "pair.csv"), pd.DataFrame(pairs))


def with_banner(task: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the task's `BANNER` ("Not for clinical use.") as a column and at the head of every note."""
    banner = str(getattr(task, "BANNER", ""))
    if not banner:
        return list(rows)
    notes = [str(row.get("note") or "") for row in rows]
    return [
        {**row, "banner": banner, "note": note if note.startswith(banner) else f"{banner} {note}".strip()}
        for row, note in zip(rows, notes, strict=True)
    ]


def by_mode(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Answers of every prompt mode, "" where there are none."""
    return {str(m): part for m, part in frame.groupby("mode", sort=False)} if "mode" in frame else {"": frame}
