"""Figures of an evaluation, from its tables and answers on disk; no model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.io.read import read_frame
from interp.tasks.protocol import load_task
from study.analyses.eval.store import ANSWERS, identity_of
from study.analyses.eval.tables import ALL, by_mode, dumbbell_rows, unit_name
from study.figures.drawn import tried
from study.figures.style import MEMBERS

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn

_TABLE = ("member", "mode", "cell", "metric", "value", "lo", "hi", "n", "n_groups", "control", "interval")
_ESI = {
    "exact": "exact", "adjacent": "adjacent", "qwk": "QWK", "d1_critical_under_triage": "D1 critical under-triage",
    "d2_severe": "D2 severe", "no_parse": "no level read",
}  # fmt: skip
_PARTS = {
    "s_amb": "change of s_AMB", "s_amb_from_coverage": "... from coverage", "s_amb_from_bias": "... from commit bias",
    "coverage": "change of coverage", "amb_commit_bias": "change of commit bias",
}  # fmt: skip


def figures_of(root: Path) -> Iterator[tuple[str, Drawn | str]]:
    """(name, figure) of everything that a folder of `diptych eval` allows, or (name, why it was not drawn).

    accuracy-<mode>       both members per cell and their difference; without a pair, each cell beside its control
    plane                 of BBQ: coverage against commit bias
    esi-<member>-<mode>   of ESI: gold against said, with the metrics
    rules-<mode>          of ESI: exact accuracy by what the narrative says of each trigger

    Raises:
        ValueError: no evaluation in the folder.
    """

    frames, task = read_members(root)
    table = read_frame(root / "table.csv", _TABLE, keep_default_na=False, na_values=[""])
    pairs = sorted(root.glob("pair*.csv"))
    for path in pairs:
        yield path.stem.replace("pair", "accuracy"), tried(partial(_dumbbell, path))
    for mode, rows in table.groupby(table["mode"].fillna("").astype(str), sort=False):
        end = f"-{mode}" if mode else ""
        if not pairs and mode != "between":
            yield f"accuracy{end}", tried(partial(_accuracy, rows, frames, task))
        if rows["cell"].astype(str).str.startswith("rule ").any():
            yield f"rules{end}", tried(partial(rules, rows, task))
    if all("biased" in frame for frame in frames.values()):
        yield "plane", tried(partial(plane_of, frames))
    if (table["metric"] == "d1_critical_under_triage").any():
        for member, frame in frames.items():
            for mode, part in by_mode(frame).items():
                own = table[(table["member"] == member) & (table["mode"].fillna("").astype(str) == mode)]
                name = "-".join(filter(None, ("esi", member, mode)))
                yield name, tried(partial(confusion, part, own, task))


def comparison_figures(before: Path, after: Path, table: pd.DataFrame) -> Iterator[tuple[str, Drawn | str]]:
    """Figures of `eval compare`: accuracy per cell before and after, and of BBQ the parts of the change."""
    from study.analyses.eval.compare import read_eval

    frames = {
        name: read_eval(folder)[0] for name, folder in zip(_two_names(before, after), (before, after), strict=True)
    }
    words = " − ".join(reversed(list(frames)))
    yield "changes", tried(partial(changes, table, words))
    if (table["metric"] == "s_amb_from_bias").any():
        yield "decomposition", tried(partial(decomposition, table, words))
        yield "plane", tried(partial(plane_of, frames))


def read_members(root: Path) -> tuple[dict[str, pd.DataFrame], Any]:
    """(member -> its answers in all modes, task) of a folder of `diptych eval`.

    Raises:
        ValueError: no answers, or no table yet.
    """
    import pandas as pd

    paths = sorted(root.glob(f"*/{ANSWERS}")) or sorted(root.glob(f"*/*/{ANSWERS}"))
    if not paths or not (root / "table.csv").exists():
        what = "answers" if not paths else "table.csv"
        raise ValueError(f"{root}: expected a finished folder of `diptych eval`, found no {what}. Run it to its end.")
    parts: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        parts.setdefault(path.relative_to(root).parts[0], []).append(read_frame(path, ("id", "sample", "cell", "gold")))
    task = load_task(str(identity_of(paths[0].parent).get("task")))
    order = sorted(parts, key=lambda m: (MEMBERS.index(m) if m in MEMBERS else len(MEMBERS), m))
    return {member: pd.concat(parts[member], ignore_index=True) for member in order}, task


def _dumbbell(path: Path) -> Drawn:
    import pandas as pd

    from study.figures import dumbbell

    words = ["cell", "note", "tost_verdict", "interval", "diff_interval"]
    pairs = read_frame(path, words)
    pairs[words] = pairs[words].fillna("").astype(str)
    return dumbbell(pd.DataFrame(dumbbell_rows(pairs.to_dict("records"))))  # pyright: ignore[reportArgumentType]


def _accuracy(rows: pd.DataFrame, frames: Mapping[str, pd.DataFrame], task: Any) -> Drawn:
    shown = rows[rows["metric"] == "accuracy"]
    unit = unit_name(next(iter(frames.values())), task)
    return _forest(shown, task, metric="accuracy", control_label="always one label", group_unit=f"units by {unit}")


def rules(rows: pd.DataFrame, task: Any) -> Drawn:
    """Exact accuracy of triage by what the narrative says of each trigger, from the rows of `esi.report`."""
    shown = rows[rows["cell"].astype(str).str.startswith("rule ") & (rows["metric"] == "exact")]
    shown = shown.assign(cell=shown["cell"].str.removeprefix("rule ").str.replace("/", ": "))
    group = str(getattr(task, "GROUP", "group"))
    return _forest(
        shown, task, metric="exact accuracy", control_label="always ESI 2", unit="cases", group_unit=f"{group}s"
    )


def _forest(rows: pd.DataFrame, task: Any, **words: str) -> Drawn:
    """Members keep their looks; more than three, or names that are none of theirs, are refused by the figure."""
    from study.figures import forest

    kept = ["member", "cell", "value", "lo", "hi", "n", "n_groups", "control", "interval"]
    table = rows[kept].assign(**words)
    if table["member"].nunique() == 1 and table["member"].iloc[0] not in MEMBERS:
        table = table.assign(title=table["member"]).drop(columns="member")
    if banner := str(getattr(task, "BANNER", "")):
        table["banner"] = banner
    return forest(table.reset_index(drop=True))


def confusion(answers: pd.DataFrame, rows: pd.DataFrame, task: Any) -> Drawn:
    """Gold against said level of one member, with the metrics of its rows of `esi.report`."""
    from study.figures import esi

    answers = answers[answers["sample"] == 0]
    said = [int(x) if isinstance(x, str) else float("nan") for x in answers["label"]]
    counts = (
        answers.assign(gold=answers["gold"].astype(int), pred=said)
        .groupby(["gold", "pred"], dropna=False, sort=True).size().rename("count").reset_index()
    )  # fmt: skip
    counts["checkpoint"] = str(answers["member"].iloc[0])
    shown = rows[rows["metric"].isin(list(_ESI)) & (rows["cell"] == ALL)].copy()
    shown["metric"] = shown["metric"].map(_ESI)
    shown = shown[["metric", "value", "lo", "hi", "n", "n_groups", "control", "interval"]]
    shown = shown.rename(columns={"control": "baseline"}).assign(interval="intervals as the table names them")
    group = str(getattr(task, "GROUP", "group"))
    return esi(counts, shown.assign(baseline_label="always ESI 2", unit="cases", group_unit=f"{group}s"))


def plane_of(frames: Mapping[str, pd.DataFrame]) -> Drawn:
    """Coverage against commit bias of up to three systems; those without a look take base, engaged, heuristic in order.

    Raises:
        ValueError: more than three systems, or one that never names anybody.
    """
    import pandas as pd

    from interp.tasks.bbq.changes import plane
    from study.figures import bias_plane

    free = [look for look in ("base", "engaged", "heuristic") if look not in frames]
    looks = {name: name if name in MEMBERS else free.pop(0) for name in list(frames)[:3]}
    if len(frames) > 3:
        raise ValueError(f"the plane shows three systems, got {', '.join(frames)}. Leave some out.")
    rows = [{"system": n, "member": looks[n], "alpha": 0.0} | plane(f) for n, f in frames.items()]
    return bias_plane(pd.DataFrame(rows).assign(unit="ambiguous items", group_unit="stories"))


def decomposition(table: pd.DataFrame, words: str = "after − before") -> Drawn:
    """How much of the change of s_AMB is commitment and how much is bias, over all cells; rows of `compare_evals`."""
    from study.figures import forest

    rows = table[(table["cell"] == ALL) & table["metric"].isin(list(_PARTS))].set_index("metric")
    rows = rows.loc[[name for name in _PARTS if name in rows.index]].reset_index()
    shown = rows.assign(cell=rows["metric"].map(_PARTS), value=rows["diff"], control=0.0, signed=True)
    shown = shown.assign(metric=words, unit="items", group_unit="stories")
    kept = [
        "cell",
        "value",
        "lo",
        "hi",
        "n",
        "n_groups",
        "control",
        "interval",
        "metric",
        "signed",
        "unit",
        "group_unit",
    ]
    return forest(shown[kept])


def changes(table: pd.DataFrame, words: str = "after − before") -> Drawn:
    """Change of accuracy per cell, from the rows of `compare_evals`."""
    from study.figures import forest

    rows = table[(table["metric"] == "accuracy") & table["lo"].notna()]
    if rows.empty:
        raise ValueError("no cell has an interval of its change: one item or one group in each.")
    shown = rows.assign(value=rows["diff"], control=0.0, signed=True, metric=f"change of accuracy, {words}")
    note = str(rows["note"].iloc[0])
    banner = note.split(".")[0] + "." if note.startswith("Not for clinical use") else ""
    kept = ["cell", "value", "lo", "hi", "n", "n_groups", "control", "interval", "metric", "signed"]
    return forest(shown[kept].assign(banner=banner).reset_index(drop=True))


def _two_names(before: Path, after: Path) -> tuple[str, str]:
    a, b = before.resolve().name, after.resolve().name
    return (a, b) if a != b else (f"{a} (before)", f"{b} (after)")
