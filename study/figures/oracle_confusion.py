"""Which answers an oracle confuses: shares of each target's answers, with recall, interval and n beside each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.mpl import Record
from study.figures.numbers import estimate_of
from study.figures.style import LABEL, NOTE, TICK, Width, colour, colour_map

FIGURE = "oracle_confusion"
_GAP = 0.08  # inches


@dataclass(frozen=True)
class _Confusion:
    """The table; its first row of each target, which holds recall; the answers in order; shares [target, answer]."""

    table: DataFrame
    targets: list[Record]
    answers: list[str]
    share: np.ndarray


def _read(table: DataFrame) -> _Confusion:
    targets, answers = (list(dict.fromkeys(map(str, table[c]))) for c in ("gold", "pred"))
    share = np.zeros((len(targets), len(answers)))
    for target, rows in table.groupby("gold"):
        counted, n = int(rows["count"].sum()), int(rows["n"].iloc[0])
        if counted > n:
            raise ValueError(
                f"figure {FIGURE!r}: target {target!r} has {counted} answers of {n} items. Count each item once."
            )
    for row in checks.records(table):
        share[targets.index(str(row.gold)), answers.index(str(row.pred))] = row.count / row.n
    return _Confusion(table, checks.records(table.drop_duplicates("gold")), answers, share)


def _name(label: object) -> str:
    return str(label).replace("_", " ") or "(none)"


def _draw(page: Page, of: _Confusion) -> Axes:
    names, answers = [_name(row.gold) for row in of.targets], [_name(answer) for answer in of.answers]
    values = [f"{estimate_of(row)}  n {int(row.n)}" for row in of.targets]
    left = 0.05 + canvas.widest(names, size=LABEL) + _GAP
    room = page.total - left - 0.05 - canvas.widest(values, size=NOTE) - _GAP
    wide = min(room / len(answers), 0.34) * len(answers)
    below, tall = 0.37 + 0.72 * canvas.widest(answers, size=TICK), 0.26 * len(names)
    ax = canvas.axes_in(canvas.new_figure(page.total, below + tall + 0.22), left, below, wide, tall)
    ax.set(xlim=(-0.5, len(answers) - 0.5), ylim=(len(names) - 0.5, -0.5), yticks=[])
    for y, x in np.ndindex(*of.share.shape):
        _draw_cell(page, ax, x, y, float(of.share[y, x]), f"{names[y]} answered {answers[x]}")
        if str(of.targets[y].gold) == of.answers[x]:
            canvas.box(ax, x - 0.5, y - 0.5, 1, 1, edge=colour("ink"), linewidth=0.8, zorder=3)
    for y, (name, value) in enumerate(zip(names, values, strict=True)):
        canvas.beside(ax, y, name, dx=-_GAP, ha="right", va="center", fontsize=LABEL, color=colour("ink"))
        canvas.beside(ax, y, value, x=1, dx=_GAP, ha="left", va="center", fontsize=NOTE, color=colour("ink"))
    ax.set_xticks(range(len(answers)), answers, rotation=45, ha="right", rotation_mode="anchor", fontsize=TICK)
    ax.tick_params(length=0)
    ax.set_xlabel("answer (% of the target's readings)")
    canvas.beside(ax, -0.5, "recall", x=1, dx=_GAP, ha="left", va="bottom", fontsize=NOTE, color=colour("ink2"))
    canvas.bare(ax, keep=())
    return ax


def _draw_cell(page: Page, ax: Axes, x: int, y: int, share: float, title: str) -> None:
    face = colour_map("sequential")(share) if share else colour("paper")
    cell = canvas.box(ax, x - 0.5, y - 0.5, 1, 1, face=face, edge=colour("grid"), linewidth=0.5)
    page.marks.name(cell, f"{y}-{x}", f"{title}: {share:.0%}")
    if share >= 0.005:
        shade = colour("paper" if share > 0.55 else "ink")
        ax.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=NOTE, color=shade)


def _caption(of: _Confusion) -> Caption:
    rows = of.table.drop_duplicates("gold")
    return Caption(
        what="Answers of the oracle by target, percent of the target's readings",
        reading="Framed: right",
        n=checks.sample_size(rows, figure=FIGURE) + " per target",
        interval=f"Right: recall with 95 % {checks.interval_kind(rows, figure=FIGURE)}",
        control=(),
    )


def _alt(of: _Confusion) -> list[str]:
    wrong = [(row.count / row.n, row) for row in checks.records(of.table) if row.gold != row.pred and row.count > 0]
    text = f"Confusion matrix of {len(of.targets)} classes"
    if not wrong:
        return [text]
    share, worst = max(wrong, key=lambda pair: pair[0])
    return [text, f"Most often confused: {_name(worst.gold)} answered {_name(worst.pred)}, {share:.0%}"]


_ROLES = Roles("gold pred count value lo hi n interval", finite="count value lo hi n", mark="gold pred")
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=17, word="confusion", read=_read)


def oracle_confusion(table: DataFrame, *, width: Width = "neurips") -> Drawn:
    """Rows are targets, columns answers, shade the share of the row; recall with its interval stands at the right.

    Args:
        table: one row per right label and answer: `gold, pred, count`; of the label, in each of its rows, `value, lo,
            hi` (recall), `n`, `interval`.
        width: final width.
    Raises:
        ValueError: a column is missing or holds NaN, a pair twice, or counts of a target that do not add up to its n.
    """
    return SPEC.drawn(table, width=width)
