"""Figure 12: whether an oracle reads, and from the activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.numbers import format_estimate
from study.figures.style import LABEL, Width, colour, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "oracle"
NO_GAP = 0.01  # nats per token; that of interp.oracle.evidence, which a figure does not import (a test compares them)
MAIN, _GAP_OF = "shuffled", "gap_"
COLUMNS = (
    "member", "target", "metric", "value", "lo", "hi", "floor", "floor_difference_lo", "majority", "text_only", "probe",
    "n", "n_groups", "interval"
)  # fmt: skip
NAMES = {
    "shuffled": "matched shuffle − real (main)",
    "zero": "zero − real",
    "mean": "layer mean − real",
    "gaussian": "noise − real",
    "no_adapter": "no adapter − real",
    "prior": "prior-only − real",
    "text_only": "text only − real",
}
"""Controls by name, in the order in which the first three of a table are drawn."""
_ROW, _PAD, _GAP, _AXIS, _BETWEEN = 0.34, 0.05, 0.08, 0.36, 0.42  # inches
_LEGEND_ROW = 0.15
_SHIFT = 0.14


def oracle(table: DataFrame, *, width: Width = "full") -> Drawn:
    """Left, accuracy of each task over its floors; right, how much worse the answers fit other activations.

    Filled where the paired difference from the floor lies above 0 with its whole interval (left), or the gap above 0.01
    nats per token (right); hollow where it does not: then nothing shows that the answer was read from the activations,
    whatever it says.

    Args:
        table: the schema table `oracle`. Of every `target` and `member` a row "accuracy" with `value, lo, hi`, `floor`
            (the prior-only oracle or the majority, whichever is more), `floor_difference_lo` (lower end of the paired
            difference from both), `majority`, `text_only` and `probe` (linear probe on the same vectors; NaN where not
            made), and rows "gap_shuffled", "gap_zero", ... in nats per answer token; `n, n_groups, interval` of each.
            Optional: `unit, group_unit, dtype`. Gaps that are not defined are left out.
        width: final width; the two panels need "full" or "neurips".
    Raises:
        ValueError: a column is missing or holds NaN, no gap is defined, a question without its matched shuffle, a
            metric twice.
    Source: FIGURES 12.
    """
    table, tasks = _check(table)
    marks, controls = Marks(), [c for c in NAMES if c in set(table["control"])][:3]
    left_key, right_key = _left_key(), _right_key(controls)
    with styled():
        left, right = _axes(tasks, width, left_key, right_key)
        _accuracy(left, table, tasks, marks)
        _gaps(right, table, tasks, controls, marks)
        canvas.legend_above(left, left_key, lift=0.05, columns=_columns(left, left_key), outdent=True)
        canvas.legend_above(right, right_key, lift=0.05, columns=1)
    drawn = table[table["control"].isin(controls)].copy()
    return Drawn(canvas.figure_of(left), drawn, _caption(drawn, controls), _alt(drawn, tasks), marks.titles)


def _check(table: DataFrame) -> tuple[DataFrame, list[str]]:
    """One row per question (`task`) and control, accuracy beside its gap; and the questions in order."""
    checks.require(table, COLUMNS, figure=FIGURE)
    checks.require_unique(table, ("target", "member", "metric"), figure=FIGURE)
    gaps = table[table["metric"].str.startswith(_GAP_OF) & table["value"].notna()]
    if not len(gaps):
        raise ValueError("no control gap is defined: fewer than two problems.")
    checks.require_known(gaps["metric"].str.removeprefix(_GAP_OF), tuple(NAMES), what="control", figure=FIGURE)
    rows = _rows(table, gaps)
    numeric = ("value", "lo", "hi", "floor", "floor_difference_lo", "majority", "gap", "gap_lo", "gap_hi", "n")
    checks.require(rows, ("task", *numeric), figure=FIGURE, numeric=numeric)
    tasks = list(dict.fromkeys(map(str, rows["task"])))
    without = [task for task in tasks if MAIN not in set(rows.loc[rows["task"] == task, "control"])]
    if without:
        raise ValueError(
            f"figure {FIGURE!r}: no row of control {MAIN!r} for {', '.join(without)}. An accuracy without its matched "
            "shuffle is not drawn; run the reading with it."
        )
    return rows, tasks


def _rows(table: DataFrame, gaps: DataFrame) -> DataFrame:
    """Each gap joined to the accuracy of its question and member; the model is named by the report, not per row."""
    table = table.drop(columns=["gap", "gap_lo", "gap_hi", "control"], errors="ignore")
    accuracy = table[table["metric"] == "accuracy"]
    gaps = gaps[["member", "target", "metric", "value", "lo", "hi"]]
    gaps = gaps.assign(control=gaps["metric"].str.removeprefix(_GAP_OF)).drop(columns="metric")
    gaps = gaps.rename(columns={"value": "gap", "lo": "gap_lo", "hi": "gap_hi"})
    rows = accuracy.merge(gaps, on=["member", "target"])
    many = table["member"].nunique() > 1
    task = rows["target"].astype(str) + (", from " + rows["member"].astype(str) if many else "")
    rows = rows.assign(task=task).drop(columns=["member", "model", "adapter"], errors="ignore")
    return rows.astype({"n": int, "n_groups": int})


def _axes(tasks: list[str], width: Width, left_key: list, right_key: list) -> tuple[Axes, Axes]:
    total = width_in(width)
    names = _PAD + canvas.widest(tasks, size=LABEL) + _GAP
    room = total - names - _BETWEEN - 2 * _PAD - 0.1
    wide = 0.55 * room
    rows = max(canvas.legend_rows(left_key, names + wide), len(right_key))
    tall = len(tasks) * _ROW
    figure = canvas.new_figure(total, _PAD + _AXIS + tall + rows * _LEGEND_ROW + 0.12)
    left = canvas.axes_in(figure, names, _PAD + _AXIS, wide, tall)
    right = canvas.axes_in(figure, names + wide + _BETWEEN, _PAD + _AXIS, room - wide, tall)
    for ax in (left, right):
        ax.set_ylim(len(tasks) - 0.5, -0.5)
        ax.set_yticks([])
        canvas.bare(ax)
        for y in range(len(tasks)):
            ax.axhline(y, color=colour("grid"), linewidth=0.5, zorder=0)
    return left, right


def _columns(ax: Axes, entries: list) -> int:
    box, (w, _) = ax.get_position(), canvas.figure_of(ax).get_size_inches()
    return canvas.legend_columns(entries, box.x1 * w)


def _accuracy(ax: Axes, table: DataFrame, tasks: list[str], marks: Marks) -> None:
    for y, task in enumerate(tasks):
        row: Any = table[(table["task"] == task) & (table["control"] == MAIN)].iloc[0]
        ax.barh(y, row["floor"], height=0.62, color=colour("null"), zorder=1)
        ax.plot([row["majority"]] * 2, [y - 0.31, y + 0.31], color=colour("ink2"), linewidth=1.0, zorder=2)
        interval(ax, (row["lo"], row["hi"]), y, "ink")
        mark = point(ax, row["value"], y, "ink", filled=bool(row["floor_difference_lo"] > 0), marker="o")
        beside = [f"floor {row['floor']:.3g}", f"majority {row['majority']:.3g}"]
        for name, shape, dy in (("text_only", "^", 0.2), ("probe", "x", -0.2)):
            if np.isfinite(row[name]):
                point(ax, row[name], y + dy, "ink2", filled=False, size=3.6, marker=shape)
                beside.append(f"{name.replace('_', ' ')} {row[name]:.3g}")
        text = format_estimate(row["value"], row["lo"], row["hi"], n=int(row["n"]))
        marks.name(mark, f"accuracy-{y}", f"{task}: accuracy {text}, {', '.join(beside)}, n = {int(row['n'])}")
        canvas.beside(ax, y, task, dx=-_GAP, ha="right", va="center", fontsize=LABEL, color=colour("ink"))
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.set_xlabel("accuracy")


def _gaps(ax: Axes, table: DataFrame, tasks: list[str], controls: list[str], marks: Marks) -> None:
    ax.axvline(0, color=colour("ink2"), linewidth=0.7, zorder=1)
    for y, task in enumerate(tasks):
        mine: Any = table[table["task"] == task].set_index("control")
        for place, control in enumerate(c for c in controls if c in mine.index):
            row, at = mine.loc[control], y + _SHIFT * (2 * place - len(controls) + 1)
            role = "ink" if control == MAIN else "control"
            interval(ax, (row["gap_lo"], row["gap_hi"]), at, role)
            read = bool(row["gap_lo"] > NO_GAP)
            mark = point(
                ax, row["gap"], at, role, filled=read, marker=_shape(control), size=4 if role == "ink" else 3.4
            )
            text = format_estimate(row["gap"], row["gap_lo"], row["gap_hi"], n=int(row["n"]))
            suffix = "" if read else ", not shown to be read"
            marks.name(mark, f"gap-{y}-{control}", f"{task}, {NAMES[control]}: {text} nats per token{suffix}")
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.set_xlabel("control gap, nats per answer token")


def _shape(control: str) -> str:
    return {"shuffled": "o", "zero": "s"}.get(control, "v")


def _left_key() -> list:
    from matplotlib.lines import Line2D

    bar = Line2D([], [], color=colour("ink2"), marker="|", markersize=6, markeredgewidth=1.0, linestyle="none",
                 label="majority")  # fmt: skip
    return [
        canvas.key_entry("ink", "oracle", shape="o"),
        canvas.patch_entry("null", "floor: prior-only oracle or majority"),
        bar,
        canvas.key_entry("ink2", "text only", shape="^", filled=False, bar=False),
        canvas.key_entry("ink2", "linear probe, same vectors", shape="x", filled=False, bar=False),
    ]


def _right_key(controls: list[str]) -> list:
    return [canvas.key_entry("ink" if c == MAIN else "control", NAMES[c], shape=_shape(c)) for c in controls]


def _caption(rows: DataFrame, controls: list[str]) -> str:
    kind = checks.interval_kind(rows, figure=FIGURE)
    return checks.sentences(
        "Left: accuracy of the oracle over its floor, the prior-only oracle or the majority, whichever is more; △ the "
        "text alone, × a linear probe on the same vectors",
        "Right: NLL of the right answer under control activations minus under the real ones "
        f"({', '.join(NAMES[c] for c in controls)})",
        "Hollow: the paired difference from the floor includes 0 (left), or the gap reaches down to 0.01 nats (right): "
        "not shown to be read",
        checks.sample_size(rows, figure=FIGURE),
        f"Bars: 95 %, {kind} (left), over groups (right)",
        checks.provenance(rows),
    )


def _alt(rows: DataFrame, tasks: list[str]) -> str:
    main = rows[rows["control"] == MAIN]
    read = main[main["gap_lo"] > NO_GAP]
    first: Any = main.iloc[0]
    text = format_estimate(first["value"], first["lo"], first["hi"], n=int(first["n"]))
    gap = format_estimate(first["gap"], first["gap_lo"], first["gap_hi"], n=int(first["n"]))
    return (
        f"Oracle on {len(tasks)} tasks, {len(read)} of them read from the activations. {first['task']}: accuracy "
        f"{text} over a floor of {first['floor']:.2f}, gap to matched shuffle {gap} nats per token."
    )
