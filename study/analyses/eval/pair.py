"""Rows of the table `pair`: per cell both members on the same items, and engaged minus heuristic with its tests."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from interp import stats
from interp.checkpoint import MEMBERS
from interp.remedy import remedy
from interp.tasks.protocol import Task, cell_role
from study.analyses.eval.member import commonest, group_of, unit_name
from study.rows import Row
from study.schema import DIFFERENCE

if TYPE_CHECKING:
    import pandas as pd

CONSTANT = "always gives the most common label"
"""Control of an accuracy: the label that is most common over all cells, as the answer to every item."""


def pair_rows(
    engaged: pd.DataFrame,
    heuristic: pd.DataFrame,
    task: Task | None = None,
    *,
    margin: float = stats.MARGIN,
    seed: int = 0,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Three rows per cell: the accuracy of each member, and their paired difference.

    A difference has a clustered interval and these columns of its own:

    p           `interp.stats.mean_test` with the group as the unit (exact McNemar where every item is its own group)
    p_adjusted  p, Holm-corrected over the cells that can be compared
    p_items     exact McNemar with the item as the unit: only_engaged against only_heuristic, the items on which the
                share of right replies is higher for the one or the other; too small where items of a group agree
    verdict     equivalence at `margin`, which has no correction
    note        where so few groups cannot reach Holm's first step at 0.05 whatever the effect

    `n` counts items; several replies to one item are one unit. In a cell with one item or one group the difference
    has no value.

    Args:
        margin: largest difference that counts as equal.
        notes: cell -> what must be known of its items (label noise); begins the note of the difference.
    Raises:
        ValueError: the two did not answer the same items, each as often.
    """
    joined = _same_items(engaged, heuristic)
    first = commonest(joined)
    cells = {cell: joined[joined["cell"] == cell] for cell in dict.fromkeys(joined["cell"])}
    rows = [row for cell, part in cells.items() for row in _rows_of_cell(part, cell, first, task, margin, seed)]
    differences = [row for row in rows if row["member"] == DIFFERENCE]
    tested = [row for row in differences if row["p"] is not None]
    for row, adjusted in zip(tested, stats.holm([r["p"] for r in tested]) if tested else [], strict=True):
        row["p_adjusted"] = float(adjusted)
        row["note"] = floor_note(row["n_groups"], len(tested), unit_name(joined, task))
    for row in differences:
        row["note"] = "; ".join(filter(None, ((notes or {}).get(row["cell"], ""), row["note"])))
    return rows


def floor_note(n_groups: int, n_cells: int, unit: str) -> str:
    """What so few units can never show: the smallest p of G signs is 2^(1 - G), and Holm's first step multiplies it."""
    floor = 2.0 ** (1 - n_groups)
    if stats.rejects(floor * n_cells):
        return ""
    return (
        f"{n_groups} units by {unit}: p cannot be below {floor:.2g}, Holm p not below "
        f"{min(1.0, floor * n_cells):.2g} for the strongest of {n_cells} cells"
    )


def _rows_of_cell(part: pd.DataFrame, cell: str, first: str, task: Task | None, margin: float, seed: int) -> list[Row]:
    right = [part[name].to_numpy(float) for name in ("score.correct", "score.correct_heuristic")]
    groups, unit = group_of(part, task), unit_name(part, task)
    n_groups = len(part) if groups is None else len(set(groups))
    by = "" if groups is None else f" at the effective n by {unit}"
    shared = {"cell": cell, "cell_role": cell_role(task, cell), "n": part["id"].nunique(), "n_groups": n_groups}
    if n_groups < 2:
        sides = [stats.wilson(int(x.sum()), len(x)) for x in right]
        tests: Row = dict.fromkeys(("value", "lo", "hi", "only_engaged", "only_heuristic", "p", "p_items"))
        tests["verdict"] = "not compared: one item or one group"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # `note` says it
            items, sampling = part["id"].to_numpy(), stats.Sampling(seed=seed)
            compared = stats.compare_paired(*right, groups=groups, items=items, sampling=sampling, margin=margin)
        sides = [compared.a, compared.b]
        more, fewer = _items_better(part)
        tests = _spread(compared.difference_groups) | {"only_engaged": more, "only_heuristic": fewer}
        tests |= {"p": compared.p_groups, "p_items": stats.mcnemar(more, fewer).p}
        tests["verdict"] = compared.equivalence.wording
    majority = float((part["gold"].astype(str) == first).mean())
    accuracy = {"metric": "accuracy", "interval": f"Wilson{by}", "control": CONSTANT, "control_value": majority}
    members = [shared | accuracy | {"member": m} | _spread(side) for m, side in zip(MEMBERS, sides, strict=True)]
    difference = {"member": DIFFERENCE, "metric": "accuracy_difference", "is_difference": True, "margin": margin}
    difference |= {"interval": f"Newcombe{by or ', paired'}", "control": "no difference", "control_value": 0.0}
    difference |= {"p_adjusted": None, "correction": "Holm over cells", "note": ""}
    return [*members, shared | difference | tests]


def _items_better(part: pd.DataFrame) -> tuple[int, int]:
    """Items on which the share of right replies is higher for the engaged member, and for the heuristic."""
    items = part.groupby("id", sort=False)[["score.correct", "score.correct_heuristic"]].mean()
    gap = items.iloc[:, 0] - items.iloc[:, 1]
    return int((gap > 1e-9).sum()), int((gap < -1e-9).sum())


def _spread(estimate: stats.Estimate) -> Row:
    return {"value": estimate.value, "lo": estimate.lo, "hi": estimate.hi}


def _same_items(engaged: pd.DataFrame, heuristic: pd.DataFrame) -> pd.DataFrame:
    key = ["id", "sample"]
    if only := sorted(set(engaged["id"]) ^ set(heuristic["id"])):
        raise ValueError(f"the members answered different items: {len(only)} are in only one, first {only[0]!r}.")
    replies = [set(zip(f["id"], f["sample"], strict=True)) for f in (engaged, heuristic)]
    if which := sorted(replies[0] ^ replies[1]):
        first = f"first item {which[0][0]!r}, sample {which[0][1]}"
        raise ValueError(
            f"the members have different samples of the same items: {len(which)} in only one, {first}. "
            + remedy("Evaluate both with the same {eval.samples}.")
        )
    return engaged.merge(heuristic[[*key, "score.correct"]], on=key, suffixes=("", "_heuristic"), validate="one_to_one")
