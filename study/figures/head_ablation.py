"""Figure 07: whether the top heads together are enough to break the answer, more than any heads would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.labels import Labelled, label_lines
from study.figures.marks import Marks, point
from study.figures.numbers import format_estimate, short
from study.figures.style import (
    BAND_ALPHA,
    DATA_LINE,
    MEMBERS,
    REFERENCE_LINE,
    TICK,
    Width,
    colour,
    line,
    styled,
    text_colour,
    width_in,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "cumulative_ablation"
COLUMNS = ("arm", "k", "draw", "value", "lo", "hi", "n", "chance", "interval")
ARMS = ("top", "random", "lowest")
_MOST_THIN_LINES = 30


def cumulative_ablation(table: DataFrame, *, width: Width = "icml", ax: Axes | None = None) -> Drawn:
    """Accuracy against the number of heads ablated together, compared with random and lowest heads.

    The random arm is the null: thin lines are single draws (at most 30), grey is the 2.5–97.5 percentile range over
    draws at each k, the line their mean.

    Args:
        table: one row per (arm, k, draw): `arm` in top, random, lowest; `k` heads ablated; `draw` numbers the draws of
            the random arm and is blank or constant elsewhere; `value, lo, hi, n`; `chance`, one accuracy of a constant
            answer; `interval`, its kind. Optional: `metric` (default accuracy), `kind` (of ablation), `member`
            (colours the top arm; black without it), `n_groups`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite.
    Returns:
        The figure; its rows are the whole table.
    Raises:
        ValueError: a column is missing or holds NaN, an arm is unknown, `top` or `random` is missing (no number
            without its control), a mark is repeated, or `chance` varies.
    Source: FIGURES 07.
    """
    _check(table)
    role = checks.only_value(table, "member", figure=FIGURE, default="ink")
    marks = Marks()
    with styled():
        own = ax is None
        ax = _axes(width) if ax is None else ax
        lines = [_draw_top(ax, table, role, marks), _draw_random(ax, table, marks)]
        if bool((table["arm"] == "lowest").any()):
            lines.append(_draw_lowest(ax, table, marks))
        _frame(ax, table)
        chance = _draw_chance(ax, table)
        if not label_lines(ax, [*lines, chance], avoid=_draws(table)):
            if own:
                canvas.room_above(ax, 0.3)
            _legend(ax, [*lines, chance], role)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table), _alt(table), marks.titles)


def _check(table: DataFrame) -> None:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("k", "value", "lo", "hi", "n", "chance"))
    checks.require_known(table["arm"], ARMS, what="arm", figure=FIGURE)
    checks.require_unique(table, ("arm", "k", "draw"), figure=FIGURE)
    absent = [arm for arm in ("top", "random") if not bool((table["arm"] == arm).any())]
    if absent:
        raise ValueError(
            f"figure {FIGURE!r}: no rows of arm {', '.join(absent)}. The drop of the top heads means nothing without "
            "the drop that as many random heads of the same layers cause."
        )
    if "member" in table.columns:
        checks.require_known(table["member"], MEMBERS, what="member", figure=FIGURE)
    checks.only_value(table, "chance", figure=FIGURE)


def _axes(width: Width) -> Axes:
    total = width_in(width)
    height = total * (0.6 if width == "icml" else 0.45)
    figure = canvas.new_figure(total, height)
    return canvas.axes_in(figure, 0.49, 0.36, total - 0.49 - 0.08, height - 0.36 - 0.08)


def _arm(table: DataFrame, arm: str) -> DataFrame:
    return table[table["arm"] == arm].sort_values(["draw", "k"], kind="stable")


def _draw_top(ax: Axes, table: DataFrame, role: str, marks: Marks) -> Labelled:
    rows = _arm(table, "top").sort_values("k")
    ax.fill_between(rows["k"], rows["lo"], rows["hi"], color=colour(role), alpha=BAND_ALPHA, linewidth=0, zorder=2)
    ax.plot(rows["k"], rows["value"], color=colour(role), linewidth=DATA_LINE, zorder=3)
    for row in checks.records(rows):
        text = _estimate(row)
        marks.name(
            point(ax, row.k, row.value, role, size=3.6), f"top-{int(row.k)}", f"top {int(row.k)} heads ablated: {text}"
        )
    return Labelled(list(rows["k"]), list(rows["value"]), "top heads by δ", text_colour(role), "bold")


def _draw_random(ax: Axes, table: DataFrame, marks: Marks) -> Labelled:
    rows = _arm(table, "random")
    by_k = rows.groupby("k")["value"]
    mean, low, high = by_k.mean(), by_k.quantile(0.025), by_k.quantile(0.975)
    k = mean.index.to_numpy()
    ax.fill_between(k, low, high, color=colour("null"), linewidth=0, zorder=0)
    draws = rows.groupby("draw")
    if len(draws) <= _MOST_THIN_LINES:
        for key, draw in draws:
            number = int(key)  # pyright: ignore[reportArgumentType]
            (thin,) = ax.plot(draw["k"], draw["value"], color=colour("control"), linewidth=0.4, zorder=1)
            end = draw.iloc[-1]
            title = f"random heads, draw {number}: {_estimate(end)} at {int(end['k'])} heads"
            marks.name(thin, f"random-{number}", title)
    ax.plot(k, mean, color=colour("control"), linewidth=DATA_LINE, zorder=2)
    return Labelled(list(k), list(by_k.min()), f"random heads, {len(draws)} draws", colour("ink2"))


def _draws(table: DataFrame) -> list[Labelled]:
    """The lines of the random arm, which no label may cover."""
    random = _arm(table, "random")
    draws, mean = random.groupby("draw"), random.groupby("k")["value"].mean()
    lines = [Labelled(list(one["k"]), list(one["value"]), "", "") for _, one in draws if len(draws) <= _MOST_THIN_LINES]
    return [*lines, Labelled(list(mean.index), list(mean), "", "")]


def _draw_lowest(ax: Axes, table: DataFrame, marks: Marks) -> Labelled:
    rows = _arm(table, "lowest").sort_values("k")
    (dotted,) = ax.plot(
        rows["k"], rows["value"], color=colour("base"), linewidth=DATA_LINE, linestyle=line("base"), zorder=2
    )
    end = rows.iloc[-1]
    marks.name(dotted, "lowest", f"lowest-δ heads: {_estimate(end)} at {int(end['k'])} heads")
    return Labelled(list(rows["k"]), list(rows["value"]), "lowest-δ heads", colour("ink2"))


def _estimate(row: Any) -> str:
    return format_estimate(row.value, row.lo, row.hi, n=int(row.n))


def _draw_chance(ax: Axes, table: DataFrame) -> Labelled:
    level = float(checks.only_value(table, "chance", figure=FIGURE))
    ax.axhline(level, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    return Labelled(ax.get_xlim(), (level, level), f"constant answer {short(level)}", colour("ink2"))


def _frame(ax: Axes, table: DataFrame) -> None:
    canvas.bare(ax, keep=("left", "bottom"))
    top = table[table["arm"] == "top"]
    seen = np.concatenate([table["value"], top["lo"], top["hi"], table["chance"]])
    pad = 0.06 * max(float(seen.max() - seen.min()), 0.05)
    ax.set_ylim(max(float(seen.min()) - pad, -0.03), min(float(seen.max()) + pad, 1.03))
    last = float(table["k"].max())
    ax.set_xlim(-0.04 * last, 1.04 * last)
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0]
    ax.set_xticks(_spaced(sorted(set(table["k"].astype(int))), last * 1.08 / inches * 0.2))
    ax.yaxis.set_major_locator(canvas.locator(6))
    how = checks.only_value(table, "kind", figure=FIGURE)
    ax.set_xlabel("heads ablated together" + (f" ({how} ablation)" if how else ""))
    metric = checks.only_value(table, "metric", figure=FIGURE, default="accuracy")
    ax.set_ylabel(f"{metric}, held-out half", fontsize=TICK + 0.5)


def _spaced(values: list[int], apart: float) -> list[int]:
    """The largest value and, from it downward, those at least `apart` from the last one kept; 0 stays."""
    kept = [values[-1]]
    for value in values[-2::-1]:
        if kept[-1] - value >= apart and (value == values[0] or value - values[0] >= apart):
            kept.append(value)
    return kept


def _legend(ax: Axes, lines: list[Labelled], role: str) -> None:
    styles = {"top": ("solid", role), "random": ("solid", "control"), "lowest": ("base", "base")}
    entries = [
        canvas.line_entry(
            next((s[1] for name, s in styles.items() if one.text.startswith(name)), "ink2"),
            one.text,
            style=next((s[0] for name, s in styles.items() if one.text.startswith(name)), "chance"),
            width=DATA_LINE if one.text[0] in "trl" else REFERENCE_LINE,
        )
        for one in lines
    ]
    canvas.legend_above(ax, entries, lift=0.04, columns=2, outdent=canvas.figure_of(ax).get_size_inches()[0] < 4)


def _caption(table: DataFrame) -> str:
    kind = checks.interval_kind(table, figure=FIGURE)
    metric = checks.only_value(table, "metric", figure=FIGURE, default="accuracy")
    draws = table.loc[table["arm"] == "random", "draw"].nunique()
    thin = "thin lines: single draws; " if draws <= _MOST_THIN_LINES else ""
    return checks.sentences(
        f"{str(metric).capitalize()} on the held-out half against the number of heads ablated together, largest first",
        checks.sample_size(table, figure=FIGURE),
        f"Band: point-wise 95 % {kind}",
        f"Random heads of the same layers, {draws} draws: {thin}grey: 2.5–97.5 percentile over draws; line: mean",
        "Dotted: as many heads with the smallest effect" if bool((table["arm"] == "lowest").any()) else "",
        f"Dashed: constant answer, {short(float(table['chance'].iloc[0]))}",
        checks.provenance(table),
    )


def _alt(table: DataFrame) -> str:
    top = _arm(table, "top").sort_values("k")
    first, last = (checks.records(part)[0] for part in (top.head(1), top.tail(1)))
    random = table[(table["arm"] == "random") & (table["k"] == last.k)]["value"]
    text = (
        f"Line plot. Ablating the top {int(last.k)} heads takes the value from {_estimate(first)} to {_estimate(last)}"
    )
    if len(random):
        text += f"; {int(last.k)} random heads of the same layers leave it at {random.mean():.2f} ({len(random)} draws)"
    return f"{text}. A constant answer scores {float(table['chance'].iloc[0]):.2f}."
