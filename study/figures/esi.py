"""Figure 13: which triage errors one model makes, and how dangerous they are. Not for clinical use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import point, triple
from study.figures.mpl import Style
from study.figures.numbers import estimate_of, fixed
from study.figures.style import LABEL, NOTE, RULE_LINE, TICK, Width, colour

FIGURE = "esi"
LEVELS = (1, 2, 3, 4, 5)
FOOTER = "Not for clinical use."
_CRITICAL = 2  # gold levels up to this one are high acuity
_CELL = 0.33  # inches
_METRICS = Roles("metric value lo hi n control_value interval", finite="value lo hi n", mark="metric")


@dataclass(frozen=True)
class _Triage:
    """The counts and the metrics; counts as a matrix [gold, pred] whose sixth column is what could not be read."""

    table: DataFrame
    metrics: DataFrame
    matrix: np.ndarray

    @property
    def columns(self) -> int:
        return 6 if self.unread else 5

    @property
    def unread(self) -> int:
        return int(self.matrix[:, 5].sum())

    @property
    def baseline(self) -> str:
        return str(checks.only_value(self.metrics, "control", figure=FIGURE, default="constant baseline"))

    @property
    def critical(self) -> tuple[int, int]:
        """Critical errors, and cases of gold ≤ 2."""
        cells = [(gold, pred) for gold in LEVELS for pred in range(1, 7) if _is_critical(gold, pred)]
        return sum(int(self.matrix[gold - 1, pred - 1]) for gold, pred in cells), int(self.matrix[:_CRITICAL].sum())


def _read(counts: DataFrame, *, metrics: DataFrame, is_narrow: bool) -> _Triage:
    _METRICS.check(metrics, figure=FIGURE)
    if is_narrow:
        raise ValueError(
            f"figure {FIGURE!r}: width 'icml' has no room for matrix and metrics; use 'neurips' or 'full'."
        )
    matrix = np.zeros((5, 6), dtype=int)
    for row in checks.records(counts):
        pred = 6 if checks.is_absent(row.pred) else row.pred
        checks.require_known([row.gold], LEVELS, what="gold level", figure=FIGURE)
        checks.require_known([pred], (*LEVELS, 6), what="predicted level", figure=FIGURE)
        if row.count < 0 or row.count != int(row.count):
            raise ValueError(f"figure {FIGURE!r}: count {row.count} of gold {row.gold} is not a natural number.")
        matrix[int(row.gold) - 1, int(pred) - 1] = int(row.count)
    n = int(metrics["n"].max())
    if n > matrix.sum():
        raise ValueError(f"figure {FIGURE!r}: metrics say n = {n}, counts add up to {matrix.sum()}.")
    return _Triage(counts, metrics, matrix)


def _is_critical(gold: int, pred: int) -> bool:
    """Gold at most 2 and predicted less urgent, or unread (pred = 6); levels from 1."""
    return gold <= _CRITICAL and pred > gold


def _draw(page: Page, of: _Triage) -> Axes:
    rows = checks.records(of.metrics)
    names = [canvas.wrap(str(row.metric), size=LABEL, max_in=0.85) for row in rows]
    frame = f"critical under-triage (gold ≤ {_CRITICAL}, predicted less urgent{' or unread' if of.unread else ''})"
    foot = canvas.wrap(f"Red frame: {frame}, dashed where none. {FOOTER}", size=NOTE, max_in=page.total - 0.1)
    bottom = 0.42 + 0.11 * (foot.count("\n") + 1)
    tall = max(5 * _CELL, 0.2 * len(rows) + 0.1)
    figure = canvas.new_figure(page.total, bottom + tall + 0.36)
    left = canvas.axes_in(figure, 0.35, bottom, of.columns * _CELL, tall)
    start = 0.35 + of.columns * _CELL + 0.58 + canvas.widest(names, size=LABEL) + 0.12
    values = canvas.widest([estimate_of(row) for row in rows], size=NOTE + 0.4) + 0.12
    right = canvas.axes_in(figure, start, bottom, page.total - start - values - 0.05, tall)
    _draw_matrix(page, left, of)
    _draw_metrics(page, right, of, names)
    canvas.write(figure, 0.05, 0.05, foot, va="bottom", ha="left", linespacing=1.2)
    return left


def _draw_matrix(page: Page, ax: Axes, of: _Triage) -> None:
    columns = of.columns
    ax.set(xlim=(0.5, columns + 0.5), ylim=(5.5, 0.5), xlabel="predicted ESI   (1 = most urgent)", ylabel="gold ESI")
    ax.set_yticks(LEVELS)
    ax.set_xticks(range(1, columns + 1), labels=[*map(str, LEVELS), "none"][:columns])
    ax.tick_params(length=0)
    canvas.bare(ax, keep=())
    for gold in LEVELS:
        for pred in range(1, columns + 1):
            _draw_cell(page, ax, gold, pred, int(of.matrix[gold - 1, pred - 1]))
    style: Style = {"x": 1, "va": "center", "ha": "right"}
    for dx, head in ((0.2, "n"), (0.5, "recall")):  # of each gold level, right of the matrix
        canvas.beside(ax, 0.35, head, dx=dx, fontsize=NOTE, color=colour("ink2"), **style)
    for gold in LEVELS:
        n = int(of.matrix[gold - 1].sum())
        recall = fixed(of.matrix[gold - 1, gold - 1] / n, 2) if n else "–"
        canvas.beside(ax, gold, str(n), dx=0.2, fontsize=TICK, color=colour("ink2"), **style)
        canvas.beside(ax, gold, recall, dx=0.5, fontsize=TICK, color=colour("ink"), **style)


def _draw_cell(page: Page, ax: Axes, gold: int, pred: int, count: int) -> None:
    shade, alpha = _shade(gold, pred, count)
    cell = canvas.box(ax, pred - 0.48, gold - 0.48, 0.96, 0.96, colour(shade), alpha=alpha, linewidth=0, zorder=1)
    what = "no level read" if pred == 6 else f"predicted {pred}"
    page.marks.name(cell, f"cell-{gold}-{pred}", f"gold {gold}, {what}: {count}")
    if _is_critical(gold, pred):
        frame: Style = {"linewidth": 1.1, "linestyle": "solid" if count else (0, (2, 1.5)), "zorder": 3}
        canvas.box(ax, pred - 0.46, gold - 0.46, 0.92, 0.92, edge=colour("alert"), fill=False, **frame)
    if count:
        style: Style = {"ha": "center", "va": "center", "fontsize": 8, "color": colour("ink")}
        ax.text(pred, gold, str(count), fontweight="bold" if gold == pred else "normal", **style)


def _shade(gold: int, pred: int, count: int) -> tuple[str, float]:
    """Role and opacity of a cell: the hue says the direction of the error."""
    if gold == pred:
        return "faint", 0.55
    if pred == 6 and count:
        return "control", 0.35
    if not count:
        return "grid", 0.45
    return ("heuristic" if pred > gold else "engaged"), 0.35


def _draw_metrics(page: Page, ax: Axes, of: _Triage, names: list[str]) -> None:
    rows = checks.records(of.metrics)
    low = min(0.0, *of.metrics["lo"], *of.metrics["control_value"].dropna())
    ax.set(xlim=(low - 0.03, 1.05), ylim=(len(rows) - 0.4, -0.6), yticks=[])
    ax.hlines(range(len(rows)), low, 1, color=colour("grid"), linewidth=RULE_LINE, zorder=0)
    canvas.bare(ax)
    ax.spines["bottom"].set_bounds(low, 1)
    style: Style = {"va": "center", "linespacing": 1.05, "color": colour("ink")}
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        title = f"{row.metric}: {estimate_of(row)}, n = {int(row.n)}"
        if not checks.is_absent(row.control_value):
            point(ax, row.control_value, index, "base", filled=False, marker="s", size=3.6, zorder=3.5)
            title += f", constant baseline {row.control_value:.2f}"
        page.marks.estimate(ax, triple(row), index, "ink", f"metric-{index}", title, marker="o")
        canvas.beside(ax, index, name, dx=-0.08, ha="right", fontsize=LABEL, **style)
        canvas.beside(ax, index, estimate_of(row), x=1, dx=0.08, ha="left", fontsize=NOTE + 0.4, **style)
    ax.xaxis.set_major_locator(canvas.locator(3))
    ax.set_xlabel(f"value, 95 % CI, {checks.sample_size(of.metrics, figure=FIGURE).split(',')[0]}", fontsize=TICK)
    canvas.legend_above(ax, [canvas.key_entry("base", of.baseline, filled=False, bar=False)], lift=0.06)


def _caption(of: _Triage) -> Caption:
    who = checks.only_value(of.table, "checkpoint", figure=FIGURE) or checks.only_value(
        of.table, "member", figure=FIGURE
    )
    wrong, high = of.critical
    frame = f"critical under-triage, {wrong} of {high} cases with gold ≤ {_CRITICAL}"
    return Caption(
        what=f"Gold against predicted ESI level{f' of {who}' if who else ''}, counts; n = {of.matrix.sum()} cases",
        reading=f"Orange: less urgent than gold; blue: more urgent; red frame: {frame}",
        n=f"No level parsed: {of.unread}, counted as wrong" if of.unread else "",
        interval=f"Right: {checks.sample_size(of.metrics, figure=FIGURE)}, 95 % "
        f"{checks.interval_kind(of.metrics, figure=FIGURE)}; □ {of.baseline}, the floor of a model that does not "
        "read the case",
        control=(),
        last=FOOTER,
    )


def _alt(of: _Triage) -> list[str]:
    (wrong, high), exact = of.critical, int(np.trace(of.matrix[:, :5]))
    parts = []
    for row in checks.records(of.metrics):
        floor = row.control_value
        against = "" if checks.is_absent(floor) else f" against {floor:.2f} of a constant baseline"
        parts.append(f"{row.metric} {estimate_of(row)}{against}")
    critical = f"{wrong} of {high} with gold ≤ {_CRITICAL} critically under-triaged"
    return [f"Confusion matrix of {of.matrix.sum()} cases: {exact} exact, {critical}", "; ".join(parts), FOOTER]


def _rows(of: _Triage) -> DataFrame:
    import pandas as pd

    return pd.concat([of.table, of.metrics], ignore_index=True)


_COUNTS = Roles("gold pred count", finite="gold count", mark="gold pred", same="checkpoint member model")
SPEC = FigureSpec(FIGURE, _COUNTS, _draw, _caption, _alt, rank=18, read=_read, rows=_rows)


def esi(counts: DataFrame, metrics: DataFrame, *, width: Width = "neurips") -> Drawn:
    """Counts of gold against predicted level of one model, and its metrics beside a constant baseline.

    Above the diagonal (less urgent than gold) cells are orange, below blue: the direction of the error, so that no
    second model may share the figure. A red frame is critical under-triage, gold ≤ 2 and less urgent or unread;
    dashed where none occurred. Recall counts unread answers as wrong. "Not for clinical use" is part of the figure.

    Args:
        counts:  one row per cell: `gold` 1 to 5 (1 = most urgent), `pred` 1 to 5 or blank (no level could be read),
            `count`. Cells that are not listed hold 0. Optional: `checkpoint` or `member` (one value).
        metrics: one row per metric: `metric` (its name), `value, lo, hi`, `n`, `control_value` (what the constant
            baseline reaches; blank where it has none), `interval`. Optional: `control` (its name).
        width:   final width; `icml` is too narrow for both panels and is refused.
    Raises:
        ValueError: a column is missing or holds NaN, a level is unknown, a cell or metric repeats, counts are no
            natural numbers, n exceeds their sum, or both members are in one table.
    Source: FIGURES 13; D1 = gold ≤ 2 and predicted less urgent, or unread.
    """
    return SPEC.drawn(counts, width=width, metrics=metrics, is_narrow=width == "icml")
