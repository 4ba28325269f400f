"""Figures of an evaluation: from its tables, and from its answers where they are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from interp.io.read import read_frame
from interp.tasks.protocol import Task, load_task
from study.analyses.eval.member import ALL, unit_name
from study.analyses.eval.run import FILES
from study.analyses.eval.store import ANSWERS, identity_of
from study.analyses.eval.tables import BETWEEN, by_mode
from study.figures.drawn import stem, tried
from study.figures.style import MEMBERS, Place, Size, Width
from study.schema import DIFFERENCE, read_csv_table

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn

_ESI = {
    "exact": "exact",
    "adjacent": "adjacent",
    "qwk": "QWK",
    "d1_critical_under_triage": "D1 critical under-triage",
    "d2_severe": "D2 severe",
    "no_parse": "no level read",
}
_PARTS = {
    "s_amb": "change of s_AMB",
    "s_amb_from_coverage": "... from coverage",
    "s_amb_from_bias": "... from commit bias",
    "coverage": "change of coverage",
    "amb_commit_bias": "change of commit bias",
}


def figures(
    tables: Mapping[str, pd.DataFrame],
    *,
    width: Width | None = None,
    answers: Mapping[str, pd.DataFrame] | None = None,
    task: Task | None = None,
) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure) of everything that the tables allow, or (stem, why it was not drawn).

    dumbbell-<mode>       both members per cell and their difference
    accuracy-<mode>       without a pair: each cell next to its control
    rules-<mode>          of ESI: exact accuracy by what the narrative says of each trigger
    plane                 of BBQ: coverage against commit bias; needs the answers
    esi-<member>-<mode>   of ESI: gold against predicted level, with the metrics; needs the answers

    Args:
        tables: `eval` and, of a pair, `pair`.
        width: of every figure; by default the width that it is printed at.
        answers: member -> its answers, of all prompt modes.
        task: that was evaluated; names the unit of groups, and the banner.
    """
    size = {"width": width} if width else {}
    pairs, table = tables.get("pair"), tables.get("eval")
    for mode, rows in _modes(pairs):
        yield stem("dumbbell", mode), tried(partial(accuracy_of_pair, rows, **size))
    for mode, rows in _modes(table):
        if pairs is None and mode != BETWEEN:
            yield stem("accuracy", mode), tried(partial(accuracy, rows, task, answers, **size))
        if rows["cell"].str.startswith("rule ").any():
            yield stem("rules", mode), tried(partial(rules, rows, task, **size))
    if answers and all("biased" in frame for frame in answers.values()):
        yield "plane", tried(partial(plane_of, answers, **size))
    if table is not None and (table["metric"] == "d1_critical_under_triage").any():
        for member, frame in (answers or {}).items():
            for mode, part in by_mode(frame).items():
                rows = table[(table["member"] == member) & (table["mode"] == mode)]
                yield stem("esi", member, mode), tried(partial(confusion, part, rows, task, **size))


def comparison_figures(before: Path, after: Path, table: pd.DataFrame) -> Iterator[tuple[str, Drawn | str]]:
    """Figures of `eval compare`: accuracy per cell before and after, and of BBQ the parts of the change."""
    from study.analyses.eval.compare import read_eval

    names = before.resolve().name, after.resolve().name
    if names[0] == names[1]:
        names = f"{names[0]} (before)", f"{names[1]} (after)"
    frames = {name: read_eval(folder)[0] for name, folder in zip(names, (before, after), strict=True)}
    words = " − ".join(reversed(names))
    yield "changes", tried(partial(changes, table, words))
    if (table["metric"] == "s_amb_from_bias").any():
        yield "decomposition", tried(partial(decomposition, table, words))
        yield "plane", tried(partial(plane_of, frames))


def figures_of(root: Path) -> Iterator[tuple[str, Drawn | str]]:
    """Figures of a folder of `diptych eval`.

    Raises:
        ValueError: no finished evaluation in the folder.
    """
    answers, task = read_members(root)
    tables = {name: read_csv_table(root / file) for name, file in FILES.items() if (root / file).is_file()}
    return figures(tables, answers=answers, task=task)


def read_members(root: Path) -> tuple[dict[str, pd.DataFrame], Task]:
    """(member -> its answers in all modes, task) of a folder of `diptych eval`.

    Raises:
        ValueError: no answers, or no table yet.
    """
    import pandas as pd

    paths = sorted(root.glob(f"*/{ANSWERS}")) or sorted(root.glob(f"*/*/{ANSWERS}"))
    if not paths or not (root / "table.csv").exists():
        what = "answers" if not paths else "table.csv"
        raise ValueError(f"{root}: expected a finished folder of `diptych eval`, found no {what}. Let it finish.")
    parts: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        parts.setdefault(path.relative_to(root).parts[0], []).append(read_frame(path, ("id", "sample", "cell", "gold")))
    task = load_task(str(identity_of(paths[0].parent).get("task")))
    order = sorted(parts, key=lambda m: (MEMBERS.index(m) if m in MEMBERS else len(MEMBERS), m))
    return {member: pd.concat(parts[member], ignore_index=True) for member in order}, task


def accuracy_of_pair(pairs: pd.DataFrame, **size: Unpack[Place]) -> Drawn:
    """The dumbbell of a table `pair` of one mode, with one control over all cells."""
    from study.figures import dumbbell

    return dumbbell(with_pooled_control(pairs), **size)


def with_pooled_control(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows with what always answering one label reaches over all cells, in place of what it reaches in each."""
    members = pairs[pairs["member"] != DIFFERENCE].drop_duplicates("cell")
    pooled = (members["n"] * members["control_value"]).sum() / members["n"].sum()
    return pairs.assign(control="always answers one label, all cells", control_value=pooled)


def accuracy(
    rows: pd.DataFrame,
    task: Task | None = None,
    answers: Mapping[str, pd.DataFrame] | None = None,
    **size: Unpack[Size],
) -> Drawn:
    """Accuracy per cell next to that of always giving one label, from rows of the table `eval`."""
    shown = rows[rows["metric"] == "accuracy"]
    unit = {"group_unit": f"units by {unit_name(next(iter(answers.values())), task)}"} if answers else {}
    return _forest(shown.assign(control="always one label", **unit), task, **size)


def rules(rows: pd.DataFrame, task: Task, **size: Unpack[Size]) -> Drawn:
    """Exact accuracy of triage by what the narrative says of each trigger, from the rows of `esi.report`."""
    shown = rows[rows["cell"].astype(str).str.startswith("rule ") & (rows["metric"] == "exact")]
    cells = shown["cell"].str.removeprefix("rule ").str.replace("/", ": ")
    units = {"unit": "cases", "group_unit": f"{getattr(task, 'GROUP', 'group')}s"}
    return _forest(shown.assign(cell=cells, metric="exact accuracy", control="always ESI 2", **units), task, **size)


def _forest(rows: pd.DataFrame, task: Task | None, **size: Unpack[Size]) -> Drawn:
    """Members keep their looks; more than three, or names that are none of theirs, are refused by the figure."""
    from study.figures import forest

    names = (
        "member",
        "metric",
        "control",
        "unit",
        "group_unit",
        "cell",
        "value",
        "lo",
        "hi",
        "n",
        "n_groups",
        "control_value",
        "interval",
    )
    table = rows[[name for name in names if name in rows]]
    if table["member"].nunique() == 1 and table["member"].iloc[0] not in MEMBERS:
        table = table.assign(title=table["member"]).drop(columns="member")
    if banner := str(getattr(task, "BANNER", "")):
        table = table.assign(banner=banner)
    return forest(table.reset_index(drop=True), **size)


def confusion(answers: pd.DataFrame, rows: pd.DataFrame, task: Task, **size: Unpack[Size]) -> Drawn:
    """Gold against predicted level of one member, with the metrics of its rows of `esi.report`."""
    from study.figures import esi

    answers = answers[answers["sample"] == 0]
    levels = [int(label) if isinstance(label, str) else float("nan") for label in answers["label"]]
    by_level = answers.assign(gold=answers["gold"].astype(int), pred=levels).groupby(["gold", "pred"], dropna=False)
    counts = by_level.size().rename("count").reset_index().assign(checkpoint=str(answers["member"].iloc[0]))
    shown = rows[rows["metric"].isin(list(_ESI)) & (rows["cell"] == ALL)]
    shown = shown[["metric", "value", "lo", "hi", "n", "n_groups", "control_value"]]
    units = {"unit": "cases", "group_unit": f"{getattr(task, 'GROUP', 'group')}s"}
    shown = shown.assign(metric=shown["metric"].map(_ESI), interval="intervals as the table names them", **units)
    return esi(counts, shown.assign(control="always ESI 2"), **size)


def plane_of(answers: Mapping[str, pd.DataFrame], **size: Unpack[Size]) -> Drawn:
    """Coverage against commit bias of up to three systems; those without a look take base, engaged, heuristic in order.

    Raises:
        ValueError: more than three systems, or one that never names anybody.
    """
    import pandas as pd

    from interp.tasks.bbq.changes import plane
    from study.figures import bias_plane

    free = [look for look in ("base", "engaged", "heuristic") if look not in answers]
    looks = {name: name if name in MEMBERS else free.pop(0) for name in list(answers)[:3]}
    if len(answers) > 3:
        raise ValueError(f"the plane shows three systems, got {', '.join(answers)}. Leave some out.")
    rows = [{"system": n, "member": looks[n], "alpha": 0.0} | plane(f) for n, f in answers.items()]
    return bias_plane(pd.DataFrame(rows).assign(unit="ambiguous items", group_unit="stories"), **size)


def decomposition(table: pd.DataFrame, words: str = "after − before") -> Drawn:
    """How much of the change of s_AMB is commitment and how much is bias, over all cells; rows of `compare_evals`."""
    rows = table[(table["cell"] == ALL) & table["metric"].isin(list(_PARTS))].set_index("metric")
    rows = rows.loc[[name for name in _PARTS if name in rows.index]].reset_index()
    cells = rows["metric"].map(_PARTS)
    return _change(rows.assign(cell=cells, metric=words, unit="items", group_unit="stories"))


def changes(table: pd.DataFrame, words: str = "after − before") -> Drawn:
    """Change of accuracy per cell, from the rows of `compare_evals`."""
    rows = table[(table["metric"] == "accuracy") & table["lo"].notna()]
    if rows.empty:
        raise ValueError("no cell has an interval of its change: one item or one group in each.")
    note = str(rows["note"].iloc[0])
    banner = note.split(".")[0] + "." if note.startswith("Not for clinical use") else ""
    return _change(rows.assign(metric=f"change of accuracy, {words}", banner=banner))


def _change(rows: pd.DataFrame) -> Drawn:
    from study.figures import forest

    names = (
        "cell",
        "value",
        "lo",
        "hi",
        "n",
        "n_groups",
        "control_value",
        "interval",
        "metric",
        "is_difference",
        "unit",
        "group_unit",
        "banner",
    )
    return forest(rows[[name for name in names if name in rows]].reset_index(drop=True))


def _modes(table: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """(prompt mode, its rows), in the order of the table."""
    if table is not None:
        modes = table["mode"].fillna("").astype(str) if "mode" in table else table["cell"].map(lambda _: "")
        yield from ((str(mode), rows) for mode, rows in table.groupby(modes, sort=False))
