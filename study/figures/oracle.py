"""Figure 12: whether an oracle reads, and from the activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import point, reference, triple
from study.figures.mpl import Artist, Record, Style
from study.figures.numbers import estimate_of, format_estimate
from study.figures.style import LABEL, Width, colour

FIGURE = "oracle"
NO_GAP = 0.01  # nats per token; that of interp.oracle.evidence, which a figure does not import (a test compares them)
MAIN, _GAP_OF = "shuffled", "gap_"
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
_ROW, _PAD, _GAP, _BETWEEN = 0.34, 0.05, 0.08, 0.42  # inches
_SHIFT = 0.14
_ROWS = Roles("task", finite="value lo hi floor floor_difference_lo majority gap gap_lo gap_hi n")


@dataclass(frozen=True)
class _Reading:
    """One row per question (`task`) and control, accuracy beside its gap; the questions and controls in order."""

    table: DataFrame
    tasks: list[str]
    controls: list[str]

    def of(self, task: str) -> dict[str, Record]:
        """Control -> row of a question."""
        return {row.control: row for row in checks.records(self.table[self.table["task"] == task])}


def _read(table: DataFrame) -> _Reading:
    gaps = table[table["metric"].str.startswith(_GAP_OF) & table["value"].notna()]
    if not len(gaps):
        raise ValueError("no control gap is defined: fewer than two problems.")
    checks.require_known(gaps["metric"].str.removeprefix(_GAP_OF), tuple(NAMES), what="control", figure=FIGURE)
    rows = _rows(table, gaps)
    _ROWS.check(rows, figure=FIGURE)
    tasks = list(dict.fromkeys(map(str, rows["task"])))
    without = [task for task in tasks if MAIN not in set(rows.loc[rows["task"] == task, "control"])]
    if without:
        raise ValueError(
            f"figure {FIGURE!r}: no row of control {MAIN!r} for {', '.join(without)}. An accuracy without its "
            "matched shuffle is not drawn; run the oracle with this control."
        )
    controls = [control for control in NAMES if control in set(rows["control"])][:3]
    return _Reading(rows[rows["control"].isin(controls)], tasks, controls)


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


def _draw(page: Page, of: _Reading) -> Axes:
    left_key = _left_key()
    roles = {control: "ink" if control == MAIN else "control" for control in of.controls}
    right_key = [canvas.key_entry(role, NAMES[control], shape=_shape(control)) for control, role in roles.items()]
    names = _PAD + canvas.widest(of.tasks, size=LABEL) + _GAP
    room = page.total - names - _BETWEEN - 2 * _PAD - 0.1
    wide, tall = 0.55 * room, len(of.tasks) * _ROW
    rows = max(canvas.legend_rows(left_key, names + wide), len(right_key))
    figure = canvas.new_figure(page.total, 0.41 + tall + rows * 0.15 + 0.12)
    left = canvas.axes_in(figure, names, 0.41, wide, tall)
    right = canvas.axes_in(figure, names + wide + _BETWEEN, 0.41, room - wide, tall)
    reference(right, x=0, style="solid")
    for ax in (left, right):
        ax.set(ylim=(len(of.tasks) - 0.5, -0.5), yticks=[])
        canvas.bare(ax)
        for y in range(len(of.tasks)):
            reference(ax, y=y, style="solid", color=colour("grid"), linewidth=0.5, zorder=0)
    for y, task in enumerate(of.tasks):
        _accuracy(page, left, y, of.of(task)[MAIN])
        _gaps(page, right, y, of.of(task), of.controls)
        canvas.beside(left, y, task, dx=-_GAP, ha="right", va="center", fontsize=LABEL, color=colour("ink"))
    left.set(xlim=(0, 1), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], xlabel="accuracy")
    right.set_xlabel("control gap, nats per answer token")
    right.margins(x=0.06)
    right.xaxis.set_major_locator(canvas.locator(5))
    columns = canvas.legend_columns(left_key, left.get_position().x1 * page.total)
    canvas.legend_above(left, left_key, lift=0.05, columns=columns, outdent=True)
    canvas.legend_above(right, right_key, lift=0.05, columns=1)
    return left


def _accuracy(page: Page, ax: Axes, y: float, row: Record) -> None:
    ax.barh(y, row.floor, height=0.62, color=colour("null"), zorder=1)
    ax.plot([row.majority] * 2, [y - 0.31, y + 0.31], color=colour("ink2"), linewidth=1.0, zorder=2)
    beside = [f"floor {row.floor:.3g}", f"majority {row.majority:.3g}"]
    for name, value, shape, dy in (("text only", row.text_only, "^", 0.2), ("probe", row.probe, "x", -0.2)):
        if np.isfinite(value):
            point(ax, value, y + dy, "ink2", filled=False, size=3.6, marker=shape)
            beside.append(f"{name} {value:.3g}")
    title = f"{row.task}: accuracy {estimate_of(row)}, {', '.join(beside)}, n = {int(row.n)}"
    is_above = bool(row.floor_difference_lo > 0)
    page.marks.estimate(ax, triple(row), y, "ink", f"accuracy-{y}", title, filled=is_above, marker="o")


def _gaps(page: Page, ax: Axes, y: float, rows: dict[str, Record], controls: list[str]) -> None:
    for place, control in enumerate(control for control in controls if control in rows):
        row, at = rows[control], y + _SHIFT * (2 * place - len(controls) + 1)
        is_main = control == MAIN
        title = f"{row.task}, {NAMES[control]}: {_gap(row)} nats per token"
        style: Style = {"filled": _is_read(row), "marker": _shape(control), "size": 4 if is_main else 3.4}
        words = title if _is_read(row) else f"{title}, not shown to be read"
        gap = (row.gap, row.gap_lo, row.gap_hi)
        page.marks.estimate(ax, gap, at, "ink" if is_main else "control", f"gap-{y}-{control}", words, **style)


def _gap(row: Record) -> str:
    return format_estimate(row.gap, row.gap_lo, row.gap_hi, n=int(row.n))


def _is_read(row: Record) -> bool:
    return bool(row.gap_lo > NO_GAP)


def _shape(control: str) -> str:
    return {"shuffled": "o", "zero": "s"}.get(control, "v")


def _left_key() -> list[Artist]:
    from matplotlib.lines import Line2D

    tick: Style = {"marker": "|", "markersize": 6, "markeredgewidth": 1.0, "linestyle": "none"}
    return [
        canvas.key_entry("ink", "oracle", shape="o"),
        canvas.patch_entry("null", "floor: prior-only oracle or majority"),
        Line2D([], [], color=colour("ink2"), label="majority", **tick),
        canvas.key_entry("ink2", "text only", shape="^", filled=False, bar=False),
        canvas.key_entry("ink2", "linear probe, same vectors", shape="x", filled=False, bar=False),
    ]


def _caption(of: _Reading) -> Caption:
    floor = "the prior-only oracle or the majority, whichever is higher"
    controls = ", ".join(NAMES[control] for control in of.controls)
    return Caption(
        what=[
            f"Left: accuracy of the oracle over its floor, {floor}; △ the text alone, × a linear probe on the same "
            "vectors",
            f"Right: NLL of the right answer under control activations minus under the real ones ({controls})",
        ],
        n=checks.sample_size(of.table, figure=FIGURE),
        interval=f"Bars: 95 %, {checks.interval_kind(of.table, figure=FIGURE)} (left), over groups (right)",
        control="Hollow: the paired difference from the floor includes 0 (left), or the gap reaches down to 0.01 nats "
        "(right): not shown to be read",
    )


def _alt(of: _Reading) -> list[str]:
    main = [of.of(task)[MAIN] for task in of.tasks]
    first = main[0]
    accuracy = f"accuracy {estimate_of(first)} over a floor of {first.floor:.2f}"
    return [
        f"Oracle on {len(main)} tasks, {sum(map(_is_read, main))} of them read from the activations",
        f"{first.task}: {accuracy}, gap to matched shuffle {_gap(first)} nats per token",
    ]


_NEEDED = Roles(
    "member target metric value lo hi floor floor_difference_lo majority text_only probe n n_groups interval",
    mark="target member metric",
)
SPEC = FigureSpec(FIGURE, _NEEDED, _draw, _caption, _alt, rank=16, read=_read, rows=lambda of: of.table)


def oracle(table: DataFrame, *, width: Width = "full") -> Drawn:
    """Left, accuracy of each task over its floors; right, how much worse the answers fit other activations.

    Filled where the paired difference from the floor lies above 0 with its whole interval (left), or the gap above 0.01
    nats per token (right); hollow where it does not: then nothing shows that the answer was read from the activations,
    whatever it says.

    Args:
        table: the schema table `oracle`: of every `target` and `member` a row "accuracy" (`text_only` and `probe` are
            NaN where not made), and rows "gap_shuffled", "gap_zero", ... in nats per answer token. Gaps that are not
            defined are left out.
        width: final width; the two panels need "full" or "neurips".
    Raises:
        ValueError: a column is missing or holds NaN, no gap is defined, a question without its matched shuffle, a
            metric twice.
    Source: FIGURES 12.
    """
    return SPEC.drawn(table, width=width)
