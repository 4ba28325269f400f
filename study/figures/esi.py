"""Figure 13: which triage errors one model makes, and how dangerous they are. Not for clinical use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.numbers import fixed, format_estimate
from study.figures.style import LABEL, NOTE, RULE_LINE, TICK, Width, colour, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "esi"
COUNT_COLUMNS = ("gold", "pred", "count")
METRIC_COLUMNS = ("metric", "value", "lo", "hi", "n", "control_value", "interval")
LEVELS = (1, 2, 3, 4, 5)
FOOTER = "Not for clinical use."
_CRITICAL = 2  # gold levels up to this one are high acuity


def esi(counts: DataFrame, metrics: DataFrame, *, width: Width = "neurips") -> Drawn:
    """Counts of gold against predicted level of one model, and its metrics beside a constant baseline.

    Above the diagonal (less urgent than gold) cells are orange, below blue: the direction of the error, so that no
    second model may share the figure. A red frame is critical under-triage, gold ≤ 2 and less urgent or unread;
    dashed where none occurred. Recall counts unread answers as wrong. "Not for clinical use" is part of the figure.

    Args:
        counts:  one row per cell: `gold` 1 to 5 (1 = most urgent), `pred` 1 to 5 or blank (no level could be read),
            `count`. Cells that are not listed hold 0. Optional: `checkpoint` or `member` (one value), `model`, `dtype`.
        metrics: one row per metric: `metric` (its name), `value, lo, hi`, `n`, `control_value` (what the constant
            baseline reaches; blank where it has none), `interval` (its kind). Optional: `control` (its name), `unit`,
            `n_groups`, `group_unit`.
        width:   final width; `icml` is too narrow for both panels and is refused.
    Raises:
        ValueError: a column is missing or holds NaN, a level is unknown, a cell or metric repeats, counts are no
            natural numbers, n exceeds their sum, or both members are in one table.
    Source: FIGURES 13; D1 = gold ≤ 2 and predicted less urgent, or unread.
    """
    matrix = _check(counts, metrics, width)
    marks = Marks()
    with styled():
        total = width_in(width)
        left, right, foot = _axes(matrix, metrics, total)
        _draw_matrix(left, matrix, marks)
        _draw_metrics(right, metrics, marks)
        canvas.write(canvas.figure_of(left), 0.05, 0.05, foot, va="bottom", ha="left", linespacing=1.2)
    import pandas as pd

    drawn = pd.concat([counts, metrics], ignore_index=True)
    return Drawn(canvas.figure_of(left), drawn, _caption(matrix, counts, metrics), _alt(matrix, metrics), marks.titles)


def _check(counts: DataFrame, metrics: DataFrame, width: Width) -> np.ndarray:
    """Counts [gold, pred]; the sixth column is what could not be read."""
    checks.require(counts, COUNT_COLUMNS, figure=FIGURE, numeric=("gold", "count"))
    checks.require(metrics, METRIC_COLUMNS, figure=FIGURE, numeric=("value", "lo", "hi", "n"))
    checks.require_unique(counts, ("gold", "pred"), figure=FIGURE)
    checks.require_unique(metrics, ("metric",), figure=FIGURE)
    for name in ("checkpoint", "member", "model"):
        checks.only_value(counts, name, figure=FIGURE)
    if width == "icml":
        raise ValueError(
            f"figure {FIGURE!r}: width 'icml' has no room for matrix and metrics; use 'neurips' or 'full'."
        )
    matrix = np.zeros((5, 6), dtype=int)
    for row in checks.records(counts):
        pred = 6 if checks.is_absent(row.pred) else row.pred
        checks.require_known([row.gold], LEVELS, what="gold level", figure=FIGURE)
        checks.require_known([pred], (*LEVELS, 6), what="predicted level", figure=FIGURE)
        if row.count < 0 or row.count != int(row.count):
            raise ValueError(f"figure {FIGURE!r}: count {row.count} of gold {row.gold} is no natural number.")
        matrix[int(row.gold) - 1, int(pred) - 1] = int(row.count)
    if int(metrics["n"].max()) > matrix.sum():
        raise ValueError(
            f"figure {FIGURE!r}: metrics say n = {int(metrics['n'].max())}, counts add up to {matrix.sum()}."
        )
    return matrix


def _axes(matrix: np.ndarray, metrics: DataFrame, total: float) -> tuple[Axes, Axes, str]:
    shown = _columns(matrix)
    cell = 0.33
    words = _values(metrics)
    names = [canvas.wrap(str(name), size=LABEL, max_in=0.85) for name in metrics["metric"]]
    name_in, value_in = canvas.widest(names, size=LABEL) + 0.12, canvas.widest(words, size=NOTE + 0.4) + 0.12
    foot = canvas.wrap(_foot(matrix), size=NOTE, max_in=total - 0.1)
    bottom = 0.42 + 0.11 * (foot.count("\n") + 1)
    tall = max(5 * cell, 0.2 * len(metrics) + 0.1)
    figure = canvas.new_figure(total, bottom + tall + 0.36)
    left = canvas.axes_in(figure, 0.35, bottom, shown * cell, tall)
    start = 0.35 + shown * cell + 0.58 + name_in
    right = canvas.axes_in(figure, start, bottom, total - start - value_in - 0.05, tall)
    return left, right, foot


def _columns(matrix: np.ndarray) -> int:
    return 6 if matrix[:, 5].any() else 5


def _is_critical(gold: int, pred: int) -> bool:
    """Gold at most 2 and predicted less urgent, or unread (pred = 6); levels from 1."""
    return gold <= _CRITICAL and pred > gold


def _draw_matrix(ax: Axes, matrix: np.ndarray, marks: Marks) -> None:
    from matplotlib.patches import Rectangle

    columns = _columns(matrix)
    ax.set(xlim=(0.5, columns + 0.5), ylim=(5.5, 0.5), xticks=range(1, columns + 1), yticks=LEVELS)
    ax.set_xticklabels([*map(str, LEVELS), "none"][:columns])
    ax.tick_params(length=0)
    canvas.bare(ax, keep=())
    for gold in LEVELS:
        for pred in range(1, columns + 1):
            count = int(matrix[gold - 1, pred - 1])
            shade, alpha = _shade(gold, pred, count)
            cell = Rectangle(
                (pred - 0.48, gold - 0.48), 0.96, 0.96, facecolor=colour(shade), alpha=alpha, linewidth=0, zorder=1
            )
            ax.add_patch(cell)
            what = "no level read" if pred == 6 else f"predicted {pred}"
            marks.name(cell, f"cell-{gold}-{pred}", f"gold {gold}, {what}: {count}")
            if _is_critical(gold, pred):
                frame = Rectangle(
                    (pred - 0.46, gold - 0.46), 0.92, 0.92, fill=False, edgecolor=colour("alert"), zorder=3
                )
                frame.set(linewidth=1.1, linestyle="solid" if count else (0, (2, 1.5)))
                ax.add_patch(frame)
            if count:
                weight = "bold" if gold == pred else "normal"
                ax.text(
                    pred, gold, str(count), ha="center", va="center", fontsize=8, fontweight=weight, color=colour("ink")
                )
    ax.set_xlabel("predicted ESI   (1 = most urgent)")
    ax.set_ylabel("gold ESI")
    _row_margins(ax, matrix, columns)


def _shade(gold: int, pred: int, count: int) -> tuple[str, float]:
    """Role and opacity of a cell: the hue says the direction of the error."""
    if gold == pred:
        return "faint", 0.55
    if pred == 6 and count:
        return "control", 0.35
    if not count:
        return "grid", 0.45
    return ("heuristic" if pred > gold else "engaged"), 0.35


def _row_margins(ax: Axes, matrix: np.ndarray, columns: int) -> None:
    """n and recall of each gold level, right of the matrix."""
    style: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": TICK}
    for dx, head in ((0.2, "n"), (0.5, "recall")):
        canvas.beside(ax, 0.35, head, x=1, dx=dx, **{**style, "fontsize": NOTE}, color=colour("ink2"))
    for gold in LEVELS:
        n = int(matrix[gold - 1].sum())
        canvas.beside(ax, gold, str(n), x=1, dx=0.2, color=colour("ink2"), **style)
        recall = fixed(matrix[gold - 1, gold - 1] / n, 2) if n else "–"
        canvas.beside(ax, gold, recall, x=1, dx=0.5, color=colour("ink"), **style)


def _values(metrics: DataFrame) -> list[str]:
    return [format_estimate(row.value, row.lo, row.hi, n=int(row.n)) for row in checks.records(metrics)]


def _draw_metrics(ax: Axes, metrics: DataFrame, marks: Marks) -> None:
    rows = checks.records(metrics)
    low = min(0.0, *metrics["lo"], *metrics["control_value"].dropna())
    ax.set(xlim=(low - 0.03, 1.05), ylim=(len(rows) - 0.4, -0.6), yticks=[])
    ax.hlines(range(len(rows)), low, 1, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    canvas.bare(ax)
    ax.spines["bottom"].set_bounds(low, 1)
    for index, (row, text) in enumerate(zip(rows, _values(metrics), strict=True)):
        interval(ax, (row.lo, row.hi), index, "ink")
        mark = point(ax, row.value, index, "ink", marker="o")
        words = f"{row.metric}: {text}, n = {int(row.n)}"
        if not checks.is_absent(row.control_value):
            point(ax, row.control_value, index, "base", filled=False, marker="s", size=3.6, zorder=3.5)
            words += f", constant baseline {row.control_value:.2f}"
        marks.name(mark, f"metric-{index}", words)
        name = canvas.wrap(str(row.metric), size=LABEL, max_in=0.85)
        style: dict[str, Any] = {"fontsize": LABEL, "va": "center", "linespacing": 1.05}
        canvas.beside(ax, index, name, dx=-0.08, ha="right", color=colour("ink"), **style)
        canvas.beside(
            ax, index, text, x=1, dx=0.08, ha="left", color=colour("ink"), **{**style, "fontsize": NOTE + 0.4}
        )
    ax.xaxis.set_major_locator(canvas.locator(3))
    ax.set_xlabel(f"value, 95 % CI, {checks.sample_size(metrics, figure=FIGURE).split(',')[0]}", fontsize=TICK)
    entry = canvas.key_entry("base", _baseline(metrics), filled=False, bar=False)
    canvas.legend_above(ax, [entry], lift=0.06)


def _baseline(metrics: DataFrame) -> str:
    return str(checks.only_value(metrics, "control", figure=FIGURE, default="constant baseline"))


def _foot(matrix: np.ndarray) -> str:
    unread = " or unread" if matrix[:, 5].any() else ""
    frame = f"Red frame: critical under-triage (gold ≤ {_CRITICAL}, predicted less urgent{unread}), dashed where none."
    return f"{frame} {FOOTER}"


def _critical(matrix: np.ndarray) -> tuple[int, int]:
    """Critical errors, and cases of gold ≤ 2."""
    wrong = sum(int(matrix[gold - 1, pred - 1]) for gold in LEVELS for pred in range(1, 7) if _is_critical(gold, pred))
    return wrong, int(matrix[:_CRITICAL].sum())


def _caption(matrix: np.ndarray, counts: DataFrame, metrics: DataFrame) -> str:
    who = checks.only_value(counts, "checkpoint", figure=FIGURE) or checks.only_value(counts, "member", figure=FIGURE)
    wrong, high = _critical(matrix)
    return checks.sentences(
        "Gold against predicted ESI level" + (f" of {who}" if who else "") + f", counts; n = {matrix.sum()} cases",
        f"Orange: less urgent than gold; blue: more urgent; red frame: critical under-triage, {wrong} of {high} cases "
        f"with gold ≤ {_CRITICAL}",
        f"No level read: {int(matrix[:, 5].sum())}, counted as wrong" if matrix[:, 5].any() else "",
        f"Right: {checks.sample_size(metrics, figure=FIGURE)}, 95 % {checks.interval_kind(metrics, figure=FIGURE)}; "
        f"□ {_baseline(metrics)}, the floor without reading",
        checks.provenance(counts),
        FOOTER,
    )


def _alt(matrix: np.ndarray, metrics: DataFrame) -> str:
    wrong, high = _critical(matrix)
    exact = int(np.trace(matrix[:, :5]))
    parts = []
    for row, text in zip(checks.records(metrics), _values(metrics), strict=True):
        against = (
            "" if checks.is_absent(row.control_value) else f" against {row.control_value:.2f} of a constant baseline"
        )
        parts.append(f"{row.metric} {text}{against}")
    return (
        f"Confusion matrix of {matrix.sum()} cases: {exact} exact, {wrong} of {high} with gold ≤ {_CRITICAL} "
        f"critically under-triaged. {'; '.join(parts)}. {FOOTER}"
    )
