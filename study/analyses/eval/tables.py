"""The tables `eval` and `pair` of answers, in the columns of `study.schema`; the command and the step write the same.

eval   one estimate per row: accuracy, length, confidence and the task's own scores, per member, cell and prompt mode
pair   per cell and mode both members on the same items and their paired difference; see `pair_rows`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from interp import stats
from interp.tasks.protocol import Task, cell_role, hook
from study.analyses.eval.member import BEYOND, member_rows
from study.analyses.eval.one_answer import OneAnswer, of_answers, with_columns
from study.analyses.eval.pair import CONSTANT, MEMBERS, pair_rows
from study.rows import Row
from study.schema import DIFFERENCE, tidy, typed

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""Cell of all items."""
BETWEEN = "between"
"""Mode of the rows that compare two prompt modes."""
_CONTROLS = {
    "accuracy": CONSTANT,
    "ece": "expected value for a calibrated model",
    "brier": "constant at the base rate",
    "auroc": "chance",
}
_BASELINE = "baseline without the skill"
_COLUMNS = (
    "member", "cell", "metric", "value", "lo", "hi", "n", "n_groups", "interval", "control", "control_value", *BEYOND,
    "cell_role", "headline", "banner", "note", "mode", "label_mass", "top_answer", "top_share", "is_degenerate",
)  # fmt: skip
_ESTIMATE = ("value", "lo", "hi", "n", "control_value")


def eval_tables(
    answers: Mapping[str, pd.DataFrame],
    task: Task,
    *,
    made_by: Mapping[str, Row] | None = None,
    extra: Sequence[Row] = (),
    seed: int = 0,
    margin: float = stats.MARGIN,
    notes: Mapping[str, str] | None = None,
) -> dict[str, pd.DataFrame]:
    """The table `eval` of all members, and `pair` where both members of a pair are among them.

    Args:
        answers: member -> its answers (`answers_frame`), of all prompt modes.
        task: whose reports, roles of cells and banner the tables hold.
        made_by: member -> columns that say what answered and what was asked (model, adapter, weights, dtype, ...).
        extra: further rows of `eval`.
        seed: seed of the bootstraps behind the intervals.
        margin: largest difference in accuracy that counts as equal.
        notes: cell -> what must be known of its items (label noise).
    """
    made_by = made_by or {}
    modes = {member: by_mode(frame) for member, frame in answers.items()}
    tops = {
        (member, mode): of_answers(part, task)
        for member, frame in answers.items()
        for mode, part in {**modes[member], BETWEEN: frame}.items()
    }
    rows = [*(row for member in answers for row in _reported(answers[member], modes[member], task, seed)), *extra]
    rows = [_completed(row, task, tops) for row in with_banner(task, rows)]
    rows = [row | made_by.get(str(row["member"]), {}) for row in rows]
    tables = {"eval": typed(tidy(rows, analysis="eval", seed=seed, unit="items"))}
    if set(MEMBERS) <= set(answers):
        pairs = [
            _named(row, task, mode, tops, made_by)
            for mode in sorted(modes["engaged"])
            for row in pair_rows(
                modes["engaged"][mode], modes["heuristic"][mode], task, margin=margin, seed=seed, notes=notes
            )
        ]
        tables["pair"] = typed(tidy(pairs, analysis="eval", seed=seed, unit="items"))
    return tables


def report_table(rows: Sequence[Row], answers: pd.DataFrame, task: Task, *, seed: int = 0) -> pd.DataFrame:
    """Rows of one member (of a task's `score_report`, say) as a table `eval`."""
    tops = {(str(answers["member"].iloc[0]), ""): of_answers(answers, task)}
    rows = [_completed(row, task, tops) for row in with_banner(task, rows)]
    return typed(tidy(rows, analysis="eval", seed=seed, unit="items"))


def _reported(frame: pd.DataFrame, modes: Mapping[str, pd.DataFrame], task: Task, seed: int) -> Iterator[Row]:
    """What is measured of any task and what the task reports itself, per mode and between modes."""
    for mode, part in modes.items():
        report = hook(task, "report")
        rows = [*member_rows(part, task, seed=seed), *(report(part, seed=seed) if report else [])]
        yield from (row | {"mode": mode} for row in rows)
    if "mode" in frame and (report := hook(task, "mode_report")):
        yield from (row | {"mode": BETWEEN} for row in report(frame, seed=seed))


def _completed(row: Row, task: Task, tops: Mapping[tuple[str, str], OneAnswer | None]) -> Row:
    """A row of `eval` with every column: a count has no interval but itself; what has no value says why."""
    row = {name: row.get(name) for name in _COLUMNS}
    if not isinstance(row["control"], str):  # the rows of a task's report name the number so
        row["control_value"] = row["control"] if row["control_value"] is None else row["control_value"]
    row |= {name: None if _is_blank(row[name]) else row[name] for name in (*_ESTIMATE, "note")}
    if not row["n"]:  # a count of nothing: no reply had a label
        row |= dict.fromkeys(("value", "lo", "hi"))
    if row["value"] is not None and row["lo"] is None:
        row |= {"lo": row["value"], "hi": row["value"], "interval": row["interval"] or "exact count"}
    if row["value"] is None:
        row["note"] = row["note"] or "undefined: there is no item to compute it from"
    has_control = row["control_value"] is not None
    row["control"] = _CONTROLS.get(str(row["metric"]), _BASELINE) if has_control else None
    row["cell_role"] = cell_role(task, str(row["cell"]))
    row["headline"] = _headline(task).get(str(row["metric"])) if row["cell"] == ALL else None
    member = str(row["member"])
    return with_columns(row, tops.get((member, str(row["mode"] or ""))), member, task)


def _headline(task: Task) -> Mapping[str, str]:
    """Metric -> name of the scores that the task puts first."""
    return getattr(task, "HEADLINE", None) or {}


def _is_blank(value: object) -> bool:
    return value is None or value != value or value == ""


def _named(
    row: Row,
    task: Task,
    mode: str,
    tops: Mapping[tuple[str, str], OneAnswer | None],
    made_by: Mapping[str, Row],
) -> Row:
    """A row of `pair` with its mode, what made it, and whether a member gives one answer only."""
    constant = {m: bool((top := tops[m, mode]) and top.is_degenerate) for m in MEMBERS}
    sources = [made_by.get(m, {}) for m in MEMBERS]
    if row["member"] == DIFFERENCE:
        source = {
            key: " and ".join(dict.fromkeys(str(one[key]) for one in sources))
            for key in ("model", "adapter", "dtype")
            if all(key in one for one in sources)
        }
        row = with_banner(task, [row])[0]
        if row["value"] is None:
            row["note"] = "; ".join(filter(None, [row["note"], row["verdict"]]))
        is_degenerate = any(constant.values())
    else:
        source, is_degenerate = made_by.get(row["member"], {}), constant[row["member"]]
    data = {"data_sha256": sources[0]["data_sha256"]} if "data_sha256" in sources[0] else {}
    banner = {"banner": str(getattr(task, "BANNER", "")) or None}
    return {**source, **row, **data, **banner, "mode": mode, "is_degenerate": is_degenerate}


def with_banner(task: Task, rows: Sequence[Row]) -> list[Row]:
    """The rows with the task's `BANNER` ("Not for clinical use.") as a column and at the head of every note."""
    banner = str(getattr(task, "BANNER", ""))
    if not banner:
        return list(rows)
    notes = [str(row.get("note") or "") for row in rows]
    return [
        {**row, "banner": banner, "note": note if note.startswith(banner) else f"{banner} {note}".strip()}
        for row, note in zip(rows, notes, strict=True)
    ]


def by_mode(answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Answers of every prompt mode, "" where there are none."""
    return {str(m): part for m, part in answers.groupby("mode", sort=False)} if "mode" in answers else {"": answers}
