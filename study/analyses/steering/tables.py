"""Tables of dose curves, from the outcomes on disk; no model is loaded.

`tables_of_doses` writes the CSV files of every member; `study_tables` makes of them the tables of a study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from interp.io.read import read_frame
from interp.stats import Sampling
from steering.arms import CONTROLS
from steering.dose import DoseItem, DoseOutcome
from steering.outcomes import Outcomes
from steering.response import DoseResult
from steering.texts import text_curves
from study.analyses.eval.one_answer import MEANING, OneAnswer, one_answer, said
from study.analyses.steering.items import is_label
from study.analyses.steering.job import DoseJob
from study.analyses.steering.panels import PANELS
from study.analyses.steering.store import get_outcome, get_read, get_text_sums, open_sweep, write_table
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

SWITCH = "switch "
CONTROL = "random, complement and label-shuffled directions of equal length; differences: random ones"


_TABLE = ("site", "arm", "arm_label", "metric", "alpha", "draw", "length", "value", "lo", "hi", "band_lo", "band_hi",
          "band", "change_lo", "change_hi", "interval")  # fmt: skip
_KEEP = (
    "member", "arm", "arm_label", "draw", "site", "layer", "alpha", "alpha_norm", "metric", "metric_unit", "value",
    "lo", "hi", "control_value", "control_difference", "control_difference_lo", "control_difference_hi", "null_lo",
    "null_hi", "n_perm", "p", "p_adjusted", "n", "n_groups", "interval", "toward", "guard", "correction",
    "label_mass",
)  # fmt: skip


def tables_of_doses(job: DoseJob, members: Sequence[str]) -> dict[str, DoseResult]:
    """The curves of every member, and in its folder table.csv (levels and changes), slopes.csv, switch.csv, plane.csv,
    entangle.csv and texts.csv, where the task has them.

    Returns:
        member -> its curves; of several decision sites "<member> at <site>" -> them.

    Raises:
        ValueError: no finished sweep, or other items.
    """
    where = f" at {job.site}" if len(job.sites) > 1 else ""
    return {f"{member}{where}": tables_of_member(job, member) for member in members}


def tables_of_member(job: DoseJob, member: str) -> DoseResult:
    """The curves of one member, and its tables; see `tables_of_doses`."""
    first, options, root = next(iter(job.chosen.values())), job.options, job.out / member
    store, plan = open_sweep(root), job.plan(member)
    items, keys, who = get_read(store, job.examples)
    outcomes = [get_outcome(store, key) for key in keys]
    # the task's own scores are of its labels
    kind = Outcomes.of(job.task if is_label(job.task, job.site) else None, toward=first.toward, away=first.away_from)
    sampling = Sampling(seed=options.seed, n_resamples=options.boot)
    result, sums = DoseResult.of(items, outcomes, plan, kind, sampling=sampling), get_text_sums(store)
    texts = None if sums is None else text_curves(sums, plan, sampling=sampling).table().assign(group_unit="texts")
    commonest = _unsteered_answers(items, outcomes)
    _write(result, texts, root, {**who, **(commonest.columns if commonest else {})})
    return result


def _unsteered_answers(items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> OneAnswer | None:
    """The most common answer at strength 0."""
    answers = [item.labels[int(one.logp[0].argmax())] for item, one in zip(items, outcomes, strict=True)]
    return one_answer(answers, [item.example.label for item in items])


def _write(result: DoseResult, texts: pd.DataFrame | None, root: Path, who: Row) -> None:
    """Every table of one member; the switch table apart. One that fails takes no other with it.

    Raises:
        Exception: the first failure, after every other table was written.
    """
    whole = result.table()
    mass = whole[(whole["metric"] == "label_mass") & (whole["alpha"] == 0)]["value"]
    who = {**who, "label_mass": float(mass.iloc[0]) if len(mass) else float("nan")}
    switches = whole["metric"].str.startswith(SWITCH)
    shown = whole["arm"].isin(["direction", "orthogonalized", "nuisance", "prompt"])
    make: dict[str, Callable[[], pd.DataFrame]] = {
        "table": lambda: whole[~switches],
        "slopes": result.slopes,
        "switch": lambda: whole[switches & shown],
        "plane": result.plane,
        "entangle": result.entangle_table,
    }
    if texts is not None:
        make["texts"] = lambda: texts
    failed: dict[str, Exception] = {}
    for name, table in make.items():
        try:
            write_table(table().assign(**who), root, name)
        except Exception as error:  # raised below: what was computed is written first
            failed[name] = error
    if failed:
        first = next(iter(failed.values()))
        first.add_note(f"{', '.join(failed)} of {root} failed; the other tables and all items are kept.")
        raise first


def members(out: Path) -> dict[str, Path]:
    """Folder of each member that has a finished table; of several decision sites "<member> at <site>" -> folder.

    Raises:
        ValueError: there is none.
    """
    found = [path.parent for path in sorted(out.rglob("table.csv")) if (path.parent / "slopes.csv").exists()]
    repeated = {one.name for one in found if [other.name for other in found].count(one.name) > 1}
    folders = {f"{one.name} at {one.parent.name}" if one.name in repeated else one.name: one for one in found}
    if not folders:
        raise ValueError(
            f"{out} holds no finished dose study; expected a folder that `diptych steer dose ... --out` wrote."
        )
    return folders


def folder_tables(out: Path) -> dict[str, pd.DataFrame]:
    """What can be drawn of a folder of `diptych steer`: `steering`, the levels of every member and site; `plane`,
    coverage and commit bias, where the task has them; `cosines` of a pair.

    Raises:
        ValueError: as `members`.
    """
    import pandas as pd

    levels, planes = [], []
    for member, folder in members(out).items():
        table = read_frame(folder / "table.csv", _TABLE)
        sites = dict(list(table.groupby("site", sort=False)))
        levels += [level_rows(rows).assign(member=member) for rows in sites.values()]
        if (folder / "plane.csv").exists():
            plane = read_frame(folder / "plane.csv", ("site", "arm", "arm_label", "coverage", "commit_bias", "cov_yy"))
            by_site = plane.groupby("site", sort=False)
            planes += [plane_rows(rows, sites[site]).assign(site=site, of_member=member) for site, rows in by_site]
    tables = {"steering": levels, "plane": planes}
    drawable = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if any(map(len, parts))}
    cosines = out / "cosines.csv"
    return drawable | ({"cosines": read_frame(cosines)} if cosines.exists() else {})


class Member(NamedTuple):
    """One steered member of a study: the folder with its CSV files, its columns, and what is known of its answers.

    Attributes:
        same: columns that are the same in all rows: model, adapter, seed, ...
        classes: the most common answer of the member, where the classes of the direction are made of its answers.
    """

    folder: Path
    same: Row
    classes: OneAnswer | None = None


def study_tables(members: Iterable[Member]) -> dict[str, pd.DataFrame]:
    """`steering`: levels at every strength; `steering_slopes`: one slope per arm and score.

    Raises:
        ValueError: no score of any direction is defined.
    """
    import pandas as pd

    from study.schema import tidy

    levels, slopes = [], []
    for folder, same, classes in members:
        table = read_frame(folder / "table.csv", float_precision="round_trip")
        for _, rows in table.groupby("site", sort=False):
            curves = level_rows(rows)
            if len(curves):
                kept = curves.assign(p_adjusted=curves["p"])[[c for c in _KEEP if c in curves or c == "p_adjusted"]]
                levels.append(flagged(kept, table, classes, same))
        of_arms = slope_rows(read_frame(folder / "slopes.csv", float_precision="round_trip"))
        slopes.append(flagged(of_arms, table, classes, same))
    if not levels:
        raise ValueError("no score of any direction has a value at every strength.")
    tables = {"steering": levels, "steering_slopes": slopes}
    return {name: tidy(_values(pd.concat(parts, ignore_index=True)), control=CONTROL) for name, parts in tables.items()}


def level_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The curves of one site in the columns of `study.schema`; scores without a value, or
    that no arm moves at any strength, are left out."""
    import pandas as pd

    arms = {"direction": "direction", "orthogonalized": "orthogonalized"}
    arms |= dict.fromkeys(CONTROLS, "control")
    rows = table[table["arm"].isin(list(arms)) & table["metric"].isin(PANELS)].copy()
    is_defined = rows["value"].notna() & rows["lo"].notna()
    is_defined &= rows["band_lo"].notna() | (rows["arm"] != "direction")
    undefined = set(rows.loc[~is_defined, "metric"])
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
    rows["arm_label"] = (
        rows["arm"]
        .map({"direction": first["arm_label"], "orthogonalized": "orthogonalised, equal norm"})
        .fillna(" + ".join(sorts) + " directions of equal norm" + (", shuffled at their own" if own else ""))
    )
    rows["arm"] = rows["arm"].map(arms)
    rows["metric_unit"] = [PANELS[name].unit for name in rows["metric"]]
    rows["place"] = [list(PANELS).index(name) for name in rows["metric"]]
    words = "largest |z| over strengths, step-down"
    rows = rows.sort_values("place", kind="stable").drop(columns=["member", "place"], errors="ignore")
    rows["interval"] = rows["interval"].where(rows["band_lo"].isna() | (rows["alpha"] == 0), rows["band"])
    return rows.assign(unit="items", guard=float("nan"), correction=words)


def _ends(rows: pd.DataFrame, start: float, end: str) -> pd.Series:
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
    main = main.assign(system=main["arm_label"], member="direction")
    top = table["alpha"].max()
    wide = table[(table["arm"] == "random") & (table["alpha"] == top)].pivot_table(
        index="draw", columns="metric", values="value"
    )
    if not len(main) or not {"coverage", "amb_commit_bias"} <= set(wide.columns):
        return main.iloc[:0]
    rest = pd.DataFrame(
        {
            "system": "random",
            "member": "control",
            "alpha": top,
            "coverage": wide["coverage"],
            "commit_bias": wide["amb_commit_bias"],
            "n": main["n"].iloc[0],
            "n_groups": main["n_groups"].iloc[0],
            "interval": main["interval"].iloc[0],
        }
    ).dropna(subset=["coverage", "commit_bias"])
    return pd.concat([main, rest], ignore_index=True).drop(columns=["model", "dtype"], errors="ignore")


def flagged(rows: pd.DataFrame, table: pd.DataFrame, classes: OneAnswer | None, same: Row) -> pd.DataFrame:
    """The rows with the member's most common answer: of its classes where these are made of its answers, else at
    strength 0. The margin is of the classes alone; every other score is of the answers too."""
    at_zero = bool(table["is_degenerate"].any()) if "is_degenerate" in table else False
    of_classes = classes is not None and classes.is_degenerate
    first = table.iloc[0] if len(table) and "top_answer" in table else {}
    answer, share = (
        (classes.answer, classes.share)
        if classes and of_classes
        else (str(first.get("top_answer", "")), float(first.get("top_share", float("nan"))))
    )
    flags = of_classes | (at_zero & (rows["metric"] != "margin"))
    text = f"{said(same['member'], answer, share)} {MEANING}" if of_classes or at_zero else ""
    return rows.assign(**same, top_answer=answer, top_share=share, is_degenerate=flags, banner=text)


def slope_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """One slope per arm and score; its p is the larger of those against both kinds of control, and missing if one kind
    has too few draws."""
    rows = rows[~rows["metric"].str.startswith("switch ")]
    sorts = ["p_random", "p_shuffled"]
    rows = rows.assign(p=rows.reindex(columns=sorts).astype(float).max(axis=1, skipna=False))
    apart = [f"{name}_difference{end}" for name in ("control", "shuffled") for end in ("", "_lo", "_hi")]
    keep = [
        c
        for c in (
            "arm",
            "arm_label",
            "draw",
            "site",
            "layer",
            "metric",
            "value",
            "lo",
            "hi",
            "control_value",
            *apart,
            "null_lo",
            "null_hi",
            "n_perm",
            "p",
            *sorts,
            "smallest_p",
            "n",
            "n_groups",
            "interval",
            "toward",
            "label_mass",
        )
        if c in rows
    ]
    return rows[keep].assign(metric_unit="per unit of alpha")


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    from study.schema import with_mass_note

    bad = rows["value"].isna() | rows["lo"].isna() | rows["hi"].isna()
    rows = rows.assign(note="", draw=rows["draw"].astype(float))
    rows.loc[bad, "note"] = "undefined: no reply committed, or too few resamples gave a value"
    rows.loc[bad, ["value", "lo", "hi"]] = float("nan")
    return with_mass_note(rows)
