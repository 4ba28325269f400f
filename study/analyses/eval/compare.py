"""Two evaluations of the same items, paired: accuracy per cell with its tests, and the task's own changes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from interp import stats
from interp.io.read import read_frame
from interp.remedy import remedy
from interp.tasks.protocol import Task, hook, load_task
from study.analyses.eval.member import ALL, group_of, unit_name
from study.analyses.eval.pair import floor_note
from study.analyses.eval.store import ANSWERS, identity_of
from study.analyses.eval.tables import with_banner
from study.rows import Row
from study.schema import COLUMNS, tidy, typed

if TYPE_CHECKING:
    import pandas as pd


def read_eval(folder: Path) -> tuple[pd.DataFrame, str]:
    """(answers, import path of the task) of one member: the folder of a member, or of an evaluation that has only one.

    Raises:
        ValueError: no answers, or several members or modes to choose from.
    """
    paths = [folder / ANSWERS] if (folder / ANSWERS).exists() else sorted(folder.glob(f"**/{ANSWERS}"))
    if len(paths) != 1:
        names = ", ".join(str(path.parent) for path in paths) or "none"
        raise ValueError(f"{folder}: expected the answers of one member of `diptych eval`, found {names}. Name one.")
    columns = ("id", "sample", "cell", "gold", "score.correct")
    return read_frame(paths[0], columns), str(identity_of(paths[0].parent).get("task"))


def compare_evals(before: Path, after: Path, *, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """(`compare_frames` of two folders of `diptych eval`, import path of their task).

    Raises:
        ValueError: as `read_eval`; two tasks.
    """
    (a, task_a), (b, task_b) = read_eval(before), read_eval(after)
    if task_a != task_b:
        raise ValueError(f"{before} is an evaluation of {task_a}, {after} of {task_b}: nothing can be compared.")
    return compare_frames(a, b, load_task(task_a), seed=seed), task_a


def compare_frames(before: pd.DataFrame, after: pd.DataFrame, task: Task, *, seed: int = 0) -> pd.DataFrame:
    """One row per cell and metric: before, after, their difference with a paired clustered interval.

    Items that were asked several times enter with the share of their replies, so `n` counts items. Accuracy counts an
    unparsed reply as wrong; `p` has the group as its unit (exact McNemar where every item is its own), `p_adjusted` is
    corrected over the cells, and a note says where so few groups cannot reach it. The rows of the task's `compare`
    follow. Columns of `study.schema`; `value` is after minus before.

    Raises:
        ValueError: the two did not answer the same items equally often, or their gold answers differ.
    """
    before, after = _aligned(before, after)
    cells = list(dict.fromkeys(before["cell"]))
    rows = [_accuracy(before[before["cell"] == c], after[after["cell"] == c], str(c), task, seed) for c in cells]
    tested = [row for row in rows if row["p"] is not None]
    for row, adjusted in zip(tested, stats.holm([r["p"] for r in tested]) if tested else [], strict=True):
        floor = floor_note(row["n_groups"], len(tested), unit_name(before, task))
        row |= {"p_adjusted": float(adjusted), "correction": "Holm over cells"}
        row["note"] = "; ".join(filter(None, (row["note"], floor)))
    if len(cells) > 1:
        rows.append(_accuracy(before, after, ALL, task, seed))
    if compare := hook(task, "compare"):
        rows += [_from_task(row) for row in compare(before, after, seed=seed)]
    same = {"analysis": "eval", "member": "after - before", "is_difference": True, "seed": seed}
    same |= {"control": "no difference", "control_value": 0.0}
    return typed(tidy(with_banner(task, rows), **same))


def _from_task(row: Row) -> Row:
    """A row of a task's `compare`, which names the change `diff`."""
    row = {"value" if name == "diff" else name: value for name, value in row.items()}
    return {name: value for name, value in row.items() if name in COLUMNS}


def _aligned(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same replies of both in one order: item by item, sample by sample."""
    a, b = set(before["id"]), set(after["id"])
    if a != b:
        raise ValueError(
            f"the two evaluations have different items: {len(a ^ b)} are in only one of them, first {min(a ^ b)!r}."
        )
    before, key = before.reset_index(drop=True), ["id", "sample"]
    asked, answered = (_replies(frame, key) for frame in (before, after))
    if len(asked) != len(answered) or not asked.isin(answered).all():
        counts = " and ".join(f"{frame['sample'].nunique()}" for frame in (before, after))
        raise ValueError(
            f"the two evaluations have {counts} samples per item. "
            f"{remedy('Evaluate both with the same {eval.samples}.')}"
        )
    after = after.set_index(key).loc[list(asked)].reset_index()
    differing = before["id"][before["gold"].astype(str) != after["gold"].astype(str)]
    if len(differing):
        raise ValueError(f"the gold answers of {differing.nunique()} items differ, first {differing.iloc[0]!r}.")
    return before, after


def _replies(frame: pd.DataFrame, key: list[str]) -> pd.MultiIndex:
    """(id, sample) of every reply."""
    import pandas as pd

    return pd.MultiIndex.from_frame(frame[key])


def _accuracy(a: pd.DataFrame, b: pd.DataFrame, cell: str, task: Task, seed: int) -> Row:
    right_a, right_b = a["score.correct"].to_numpy(float), b["score.correct"].to_numpy(float)
    groups, items = group_of(a, task), a["id"].astype(str).to_numpy()
    n, n_groups = len(set(items)), len(a) if groups is None else len(set(groups))
    head = {"cell": cell, "metric": "accuracy", "before": right_a.mean(), "after": right_b.mean(), "n": n}
    if n_groups < 2 or n < 2:
        bare = {"value": float((right_b - right_a).mean()), "lo": None, "hi": None, "n_groups": n_groups}
        return head | bare | {"interval": "none: one group", "p": None, "p_adjusted": None, "note": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # `note` says it
        change = stats.compare_items(right_b, right_a, items=items, groups=groups, sampling=stats.Sampling(seed=seed))
    kind = change.interval if groups is None else f"{change.interval} by {unit_name(a, task)}"
    counts = f"only after {change.only_a}, only before {change.only_b}"
    if len(a) > n:
        counts = f"{len(a) / n:g} replies per item; more often right after {change.only_a}, before {change.only_b}"
    spread = {"value": change.difference.value, "lo": change.difference.lo, "hi": change.difference.hi}
    sides = {"before": change.b, "after": change.a, "n_groups": n_groups, "interval": kind}
    return head | sides | spread | {"p": change.p, "p_adjusted": None, "note": counts}
