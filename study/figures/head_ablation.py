"""Figure 07: whether the top heads together are enough to break the answer, more than any heads would."""

from __future__ import annotations

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.labels import Labelled, label_lines
from study.figures.marks import point, reference
from study.figures.numbers import estimate_of, short
from study.figures.style import BAND_ALPHA, DATA_LINE, MEMBERS, REFERENCE_LINE, TICK, Width, colour, line, text_colour

FIGURE = "cumulative_ablation"
_MOST_THIN_LINES = 30


def _read(table: DataFrame) -> DataFrame:
    absent = [arm for arm in ("top", "random") if not bool((table["arm"] == arm).any())]
    if absent:
        raise ValueError(
            f"figure {FIGURE!r}: no rows of arm {', '.join(absent)}. The drop from removing the top heads means "
            "nothing without the drop from equally many random heads of the same layers."
        )
    return table


def _arm(table: DataFrame, arm: str) -> DataFrame:
    return table[table["arm"] == arm].sort_values(["draw", "k"], kind="stable")


def _metric(table: DataFrame) -> str:
    return str(checks.only_value(table, "metric", figure=FIGURE, default="accuracy"))


def _draw(page: Page, table: DataFrame) -> Axes:
    role = checks.only_value(table, "member", figure=FIGURE, default="ink")
    ax = page.axes(lambda: _axes(page))
    lines = [_draw_top(page, ax, table, role), _draw_random(page, ax, table)]
    if bool((table["arm"] == "lowest").any()):
        lines.append(_draw_lowest(page, ax, table))
    _fit(ax, table)
    level = float(table["chance"].iloc[0])
    reference(ax, y=level)
    lines.append(Labelled(ax.get_xlim(), (level, level), f"constant answer {short(level)}", colour("ink2")))
    if not label_lines(ax, lines, avoid=_draws(table)):
        if page.own:
            canvas.room_above(ax, 0.3)
        _legend(ax, lines, role)
    return ax


def _axes(page: Page) -> Axes:
    height = page.total * (0.6 if page.width == "icml" else 0.45)
    figure = canvas.new_figure(page.total, height)
    return canvas.axes_in(figure, 0.49, 0.36, page.total - 0.49 - 0.08, height - 0.36 - 0.08)


def _draw_top(page: Page, ax: Axes, table: DataFrame, role: str) -> Labelled:
    rows = _arm(table, "top").sort_values("k")
    ax.fill_between(rows["k"], rows["lo"], rows["hi"], color=colour(role), alpha=BAND_ALPHA, linewidth=0, zorder=2)
    ax.plot(rows["k"], rows["value"], color=colour(role), linewidth=DATA_LINE, zorder=3)
    for row in checks.records(rows):
        mark = point(ax, row.k, row.value, role, size=3.6)
        page.marks.name(mark, f"top-{int(row.k)}", f"top {int(row.k)} heads ablated: {estimate_of(row)}")
    return Labelled(list(rows["k"]), list(rows["value"]), "top heads by δ", text_colour(role), "bold")


def _draw_random(page: Page, ax: Axes, table: DataFrame) -> Labelled:
    rows = _arm(table, "random")
    by_k = rows.groupby("k")["value"]
    mean = by_k.mean()
    k = mean.index.to_numpy()
    ax.fill_between(k, by_k.quantile(0.025), by_k.quantile(0.975), color=colour("null"), linewidth=0, zorder=0)
    draws = rows.groupby("draw")
    for key, draw in draws if len(draws) <= _MOST_THIN_LINES else ():
        number = int(key)  # pyright: ignore[reportArgumentType]
        (thin,) = ax.plot(draw["k"], draw["value"], color=colour("control"), linewidth=0.4, zorder=1)
        end = checks.records(draw)[-1]
        title = f"random heads, draw {number}: {estimate_of(end)} at {int(end.k)} heads"
        page.marks.name(thin, f"random-{number}", title)
    ax.plot(k, mean, color=colour("control"), linewidth=DATA_LINE, zorder=2)
    return Labelled(list(k), list(by_k.min()), f"random heads, {len(draws)} draws", colour("ink2"))


def _draws(table: DataFrame) -> list[Labelled]:
    """The lines of the random arm, which no label may cover."""
    random = _arm(table, "random")
    draws, mean = random.groupby("draw"), random.groupby("k")["value"].mean()
    lines = [Labelled(list(one["k"]), list(one["value"])) for _, one in draws if len(draws) <= _MOST_THIN_LINES]
    return [*lines, Labelled(list(mean.index), list(mean))]


def _draw_lowest(page: Page, ax: Axes, table: DataFrame) -> Labelled:
    rows = _arm(table, "lowest").sort_values("k")
    (dotted,) = ax.plot(
        rows["k"], rows["value"], color=colour("base"), linewidth=DATA_LINE, linestyle=line("base"), zorder=2
    )
    end = checks.records(rows)[-1]
    page.marks.name(dotted, "lowest", f"lowest-δ heads: {estimate_of(end)} at {int(end.k)} heads")
    return Labelled(list(rows["k"]), list(rows["value"]), "lowest-δ heads", colour("ink2"))


def _fit(ax: Axes, table: DataFrame) -> None:
    """Limits, ticks and names of the axes."""
    canvas.bare(ax, keep=("left", "bottom"))
    top = table[table["arm"] == "top"]
    seen = np.concatenate([table["value"], top["lo"], top["hi"], table["chance"]])
    pad = 0.06 * max(float(seen.max() - seen.min()), 0.05)
    ax.set_ylim(max(float(seen.min()) - pad, -0.03), min(float(seen.max()) + pad, 1.03))
    last = float(table["k"].max())
    ax.set_xlim(-0.04 * last, 1.04 * last)
    ax.set_xticks(_spaced(sorted(set(table["k"].astype(int))), last * 1.08 / canvas.size_of(ax)[0] * 0.2))
    ax.yaxis.set_major_locator(canvas.locator(6))
    how = checks.only_value(table, "kind", figure=FIGURE)
    ax.set_xlabel("heads ablated together" + (f" ({how} ablation)" if how else ""))
    ax.set_ylabel(f"{_metric(table)}, held-out half", fontsize=TICK + 0.5)


def _spaced(values: list[int], apart: float) -> list[int]:
    """The largest value and, from it downward, those at least `apart` from the last one kept; 0 stays."""
    kept = [values[-1]]
    for value in values[-2::-1]:
        if kept[-1] - value >= apart and (value == values[0] or value - values[0] >= apart):
            kept.append(value)
    return kept


def _legend(ax: Axes, lines: list[Labelled], role: str) -> None:
    styles = {"t": ("solid", role), "r": ("solid", "control"), "l": ("base", "base")}  # by the first letter
    entries = []
    for one in lines:
        style, shade = styles.get(one.text[0], ("chance", "ink2"))
        width = DATA_LINE if one.text[0] in styles else REFERENCE_LINE
        entries.append(canvas.line_entry(shade, one.text, style=style, width=width))
    canvas.legend_above(ax, entries, lift=0.04, columns=2, outdent=canvas.figure_of(ax).get_size_inches()[0] < 4)


def _caption(table: DataFrame) -> Caption:
    draws = table.loc[table["arm"] == "random", "draw"].nunique()
    thin = "thin lines: single draws; " if draws <= _MOST_THIN_LINES else ""
    what = "on the held-out half against the number of heads ablated together, largest first"
    random = f"{thin}grey: 2.5–97.5 percentile over draws; line: mean"
    return Caption(
        what=f"{_metric(table).capitalize()} {what}{checks.at_site(table, figure=FIGURE)}",
        n=checks.sample_size(table, figure=FIGURE),
        interval=f"Band: point-wise 95 % {checks.interval_kind(table, figure=FIGURE)}",
        control=[
            f"Random heads of the same layers, {draws} draws: {random}",
            "Dotted: equally many heads with the smallest effect" if bool((table["arm"] == "lowest").any()) else "",
            f"Dashed: constant answer, {short(float(table['chance'].iloc[0]))}",
        ],
    )


def _alt(table: DataFrame) -> list[str]:
    top = _arm(table, "top").sort_values("k")
    first, last = (checks.records(part)[0] for part in (top.head(1), top.tail(1)))
    random = table[(table["arm"] == "random") & (table["k"] == last.k)]["value"]
    k = int(last.k)
    text = f"Ablating the top {k} heads takes the value from {estimate_of(first)} to {estimate_of(last)}"
    if len(random):
        text += f"; {k} random heads of the same layers leave it at {random.mean():.2f} ({len(random)} draws)"
    return ["Line plot", text, f"A constant answer scores {float(table['chance'].iloc[0]):.2f}"]


_ROLES = Roles(
    "arm k draw value lo hi n chance interval",
    finite="k value lo hi n chance",
    mark="arm k draw",
    same="chance member metric kind",
    known={"arm": ("top", "random", "lowest"), "member": MEMBERS},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=5, word="cumulative", read=_read)


def cumulative_ablation(table: DataFrame, *, width: Width = "icml", ax: Axes | None = None) -> Drawn:
    """Accuracy against the number of heads ablated together, compared with random and lowest heads.

    The random arm is the null: thin lines are single draws (at most 30), grey is the 2.5–97.5 percentile range over
    draws at each k, the line their mean.

    Args:
        table: the schema table `heads_cumulative`, of one member and kind: one row per (arm, k, draw), `arm` in top,
            random, lowest; one `chance`. A `member` colours the top arm; it is black without one.
        width, ax: as of `FigureSpec.drawn`.
    Raises:
        ValueError: a column is missing or holds NaN, an arm is unknown, `top` or `random` is missing (no number
            without its control), a mark is repeated, or `chance` varies.
    Source: FIGURES 07.
    """
    return SPEC.drawn(table, width=width, ax=ax)
