"""Which answers an oracle confuses: shares of each target's answers, with recall, interval and n beside each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks
from study.figures.numbers import format_estimate
from study.figures.style import LABEL, NOTE, TICK, Width, colour, colour_map, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "oracle_confusion"
COLUMNS = ("gold", "pred", "count", "value", "lo", "hi", "n", "interval")
_PAD, _GAP, _BELOW, _ABOVE = 0.05, 0.08, 0.1, 0.22  # inches


def oracle_confusion(table: DataFrame, *, width: Width = "neurips") -> Drawn:
    """Rows are targets, columns answers, shade the share of the row; recall with its interval stands at the right.

    Args:
        table: one row per right label and answer: `gold, pred, count`; of the label, in each of its rows, `value, lo,
            hi` (recall), `n`, `interval`. Optional: `n_groups, unit, group_unit, model, dtype`.
        width: final width.
    Raises:
        ValueError: a column is missing or holds NaN, a pair twice, or counts of a target that do not add up to its n.
    """
    targets, answers = _check(table)
    marks = Marks()
    with styled():
        ax = _axes(table, targets, answers, width)
        _draw(ax, table, targets, answers, marks)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table), _alt(table, targets), marks.titles)


def _check(table: DataFrame) -> tuple[list[str], list[str]]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("count", "value", "lo", "hi", "n"))
    checks.require_unique(table, ("gold", "pred"), figure=FIGURE)
    targets, answers = (list(dict.fromkeys(map(str, table[c]))) for c in ("gold", "pred"))
    for target, rows in table.groupby("gold"):
        if int(rows["count"].sum()) > int(rows["n"].iloc[0]):
            counted, n = int(rows["count"].sum()), int(rows["n"].iloc[0])
            raise ValueError(
                f"figure {FIGURE!r}: target {target!r} has {counted} answers of {n} items. Count each item once."
            )
    return targets, answers


def _name(label: str) -> str:
    return label.replace("_", " ") or "(none)"


def _values(table: DataFrame, targets: list[str]) -> list[str]:
    first: Any = table.drop_duplicates("gold").set_index("gold")
    return [format_estimate(first.loc[t, "value"], first.loc[t, "lo"], first.loc[t, "hi"], n=int(first.loc[t, "n"]))
            + f"  n {int(first.loc[t, 'n'])}" for t in targets]  # fmt: skip


def _axes(table: DataFrame, targets: list[str], answers: list[str], width: Width) -> Axes:
    total = width_in(width)
    left = _PAD + canvas.widest([_name(t) for t in targets], size=LABEL) + _GAP
    right = _PAD + canvas.widest(_values(table, targets), size=NOTE) + _GAP
    wide = total - left - right
    cell = min(wide / len(answers), 0.34)
    below = _BELOW + 0.72 * canvas.widest([_name(a) for a in answers], size=TICK) + 0.22
    figure = canvas.new_figure(total, _PAD + below + 0.26 * len(targets) + _ABOVE)
    return canvas.axes_in(figure, left, _PAD + below, cell * len(answers), 0.26 * len(targets))


def _draw(ax: Axes, table: DataFrame, targets: list[str], answers: list[str], marks: Marks) -> None:
    shade = colour_map("sequential")
    share = np.zeros((len(targets), len(answers)))
    for target, answer, count, n in table[["gold", "pred", "count", "n"]].itertuples(index=False, name=None):
        share[targets.index(str(target)), answers.index(str(answer))] = count / n
    ax.set(xlim=(-0.5, len(answers) - 0.5), ylim=(len(targets) - 0.5, -0.5))
    for y, x in np.ndindex(*share.shape):
        cell = ax.add_patch(_cell(x, y, shade(share[y, x]) if share[y, x] else colour("paper")))
        marks.name(cell, f"{y}-{x}", f"{_name(targets[y])} answered {_name(answers[x])}: {share[y, x]:.0%}")
        if share[y, x] >= 0.005:
            dark = share[y, x] > 0.55
            ax.text(x, y, f"{100 * share[y, x]:.0f}", ha="center", va="center", fontsize=NOTE,
                    color=colour("paper" if dark else "ink"))  # fmt: skip
        if targets[y] == answers[x]:
            ax.add_patch(_cell(x, y, "none", edge=colour("ink"), wide=0.8)).set_zorder(3)
    for y, (target, text) in enumerate(zip(targets, _values(table, targets), strict=True)):
        canvas.beside(ax, y, _name(target), dx=-_GAP, ha="right", va="center", fontsize=LABEL, color=colour("ink"))
        canvas.beside(ax, y, text, x=1, dx=_GAP, ha="left", va="center", fontsize=NOTE, color=colour("ink"))
    ax.set_yticks([])
    ax.set_xticks(range(len(answers)), [_name(a) for a in answers], rotation=45, ha="right", rotation_mode="anchor",
                  fontsize=TICK)  # fmt: skip
    ax.tick_params(length=0)
    ax.set_xlabel("answer (% of the target's readings)")
    canvas.beside(ax, -0.5, "recall", x=1, dx=_GAP, ha="left", va="bottom", fontsize=NOTE, color=colour("ink2"))
    canvas.bare(ax, keep=())


def _cell(x: int, y: int, face: object, *, edge: object = None, wide: float = 0.5):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor=edge or colour("grid"), linewidth=wide)  # pyright: ignore[reportArgumentType]


def _caption(table: DataFrame) -> str:
    rows = table.drop_duplicates("gold")
    return checks.sentences(
        "Answers of the oracle by target, percent of the target's readings; framed: right",
        f"Right: recall with 95 % {checks.interval_kind(rows, figure=FIGURE)}",
        checks.sample_size(rows, figure=FIGURE) + " per target",
        checks.provenance(rows),
    )


def _alt(table: DataFrame, targets: list[str]) -> str:
    wrong = table[(table["gold"] != table["pred"]) & (table["count"] > 0)]
    text = f"Confusion matrix of {len(targets)} classes."
    if len(wrong):
        rates: Any = wrong["count"] / wrong["n"]
        worst: Any = wrong.loc[rates.idxmax()]
        share = worst["count"] / worst["n"]
        text += f" Most often confused: {_name(worst['gold'])} answered {_name(worst['pred'])}, {share:.0%}."
    return text
