"""Figure 10: whether a direction moves its target and nothing else, over strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.stats import rejects
from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, null_band, point
from study.figures.multiples import Panels, Room, common_x, given, legend_over, padded, room_below, small_multiples
from study.figures.numbers import MINUS, format_estimate, format_p, short
from study.figures.style import BAND_ALPHA, DATA_LINE, NOTE, REFERENCE_LINE, Width, colour, line, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "dose_response"
COLUMNS = (
    "arm", "draw", "alpha", "alpha_norm", "metric", "value", "lo", "hi", "null_lo", "null_hi", "p", "n", "n_groups",
    "guard", "toward", "interval"
)  # fmt: skip
ARMS = ("direction", "orthogonalized", "control")
_THIN = 30


def dose_response(table: DataFrame, *, width: Width = "full", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Metrics against the strength of a direction, one panel each with its own axis.

    Black is the direction, dashes the orthogonalised one at equal added norm. The band is that of the paired change,
    simultaneous over all strengths: with 95 % it holds the whole curve, so that any strength may be looked for in it.
    It closes at strength 0, where a bar gives the level's own interval. Grey is 95 % of controls of equal norm (random
    and shuffled directions), thin lines are single ones (at most 30). A mark is hollow where it is not beyond the
    controls (p > .05 after the stated correction).

    Args:
        table: one row per (arm, draw, alpha_norm, metric): `arm` in direction, orthogonalized, control; `draw` numbers
            the controls (constant elsewhere); `alpha` (in the unit of the stored direction), `alpha_norm` (fraction
            of the residual norm; the axis), `metric`, `value`, `n`, `n_groups`. Of the direction also: `lo, hi` (value
            plus the simultaneous band of its change; at 0 the interval of the level), `null_lo, null_hi`, `p` (blank at
            0), `guard` (level that must be kept, blank for most metrics), `toward` (what + means, in words) and
            `interval` (its kind). Optional: `arm_label`, `member`, `metric_unit`, `correction`, `unit`,
            `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per metric.
    Raises:
        ValueError: a column is missing or holds NaN, an arm is unknown, a metric lacks the direction at 0 or any
            control, or a mark repeats.
    Source: FIGURES 10; protocol in steering §B.8.
    """
    metrics = _check(table)
    marks = Marks()
    with styled():
        entries = _entries(table, in_full=ax is None)
        panels = (
            _panels(metrics, entries, width, _axis_words(table)) if ax is None else given(ax, metrics, figure=FIGURE)
        )
        if ax is not None:
            legend_over(panels, entries)
        for index, (panel, metric) in enumerate(zip(panels.axes, metrics, strict=True)):
            _draw(panel, table[table["metric"] == metric], marks, index)
            _fit_label(panel, table[table["metric"] == metric], own=ax is None)
        if ax is None:
            common_x(panels, _axis_words(table))
        else:
            panels.axes[0].set_xlabel("α / residual norm")
    shown = canvas.figure_of(panels.axes[0])
    return Drawn(shown, table.copy(), _caption(table, metrics), _alt(table, metrics), marks.titles)


def _check(table: DataFrame) -> list[str]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("alpha", "alpha_norm", "value", "n"))
    checks.require_known(table["arm"], ARMS, what="arm", figure=FIGURE)
    checks.require_unique(table, ("metric", "arm", "draw", "alpha_norm"), figure=FIGURE)
    main = table[table["arm"] == "direction"]
    checks.require(main, COLUMNS, figure=FIGURE, numeric=("lo", "hi", "null_lo", "null_hi"))
    moved = main[main["alpha_norm"] != 0]
    if len(moved):
        checks.require(moved, COLUMNS, figure=FIGURE, numeric=("p",))
    metrics = list(dict.fromkeys(table["metric"]))
    for metric in metrics:
        rows = table[table["metric"] == metric]
        if not ((rows["arm"] == "direction") & (rows["alpha_norm"] == 0)).any():
            raise ValueError(
                f"figure {FIGURE!r}: {metric} lacks the direction at strength 0, from which changes are read."
            )
        if not (rows["arm"] == "control").any():
            raise ValueError(
                f"figure {FIGURE!r}: {metric} has no rows of arm control. A direction's effect means nothing without "
                "that of random and shuffled directions of equal norm."
            )
        checks.only_value(rows, "guard", figure=FIGURE)
    _toward(table)
    return [str(metric) for metric in metrics]


def _toward(table: DataFrame) -> str:
    words = checks.only_value(table, "toward", figure=FIGURE)
    if checks.is_absent(words):
        raise ValueError(f"figure {FIGURE!r}: column toward must say what a positive strength moves toward.")
    return str(words)


def _axis_words(table: DataFrame) -> str:
    return f"strength α, fraction of the residual norm;  + = toward {_toward(table)}"


def _panels(metrics: list[str], entries: list[Any], width: Width, words: str) -> Panels:
    room = Room(left=0.58, right=0.1, gap=0.62, bottom=0.42, between=0.32)
    total = width_in(width)
    most = {"icml": 2, "neurips": 3, "full": 4}[width]
    return small_multiples(
        metrics, total, tall=1.15, room=room, entries=entries, most=most, foot=room_below(words, total)
    )


def _arm(rows: DataFrame, arm: str) -> DataFrame:
    return rows[rows["arm"] == arm].sort_values(["draw", "alpha_norm"], kind="stable")


def _is_beyond(row: Any) -> bool:
    return bool(row.alpha_norm != 0 and rejects(row.p))


def _draw(ax: Axes, rows: DataFrame, marks: Marks, index: int) -> None:
    main = _arm(rows, "direction").sort_values("alpha_norm")
    null_band(ax, main["alpha_norm"], main["null_lo"], main["null_hi"], half=0.02)
    ax.axvline(0, color=colour("grid"), linewidth=0.7, zorder=0.5)
    start = checks.records(main[main["alpha_norm"] == 0])[0]
    ax.axhline(start.value, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    for number, (_, draw) in enumerate(_arm(rows, "control").groupby("draw")):
        if number == _THIN:
            break
        ax.plot(draw["alpha_norm"], draw["value"], color=colour("control"), linewidth=0.4, alpha=0.5, zorder=1)
    other = _arm(rows, "orthogonalized")
    if len(other):
        ax.plot(
            other["alpha_norm"], other["value"], color=colour("ink"), linewidth=1.0, linestyle=(0, (4, 2)), zorder=3
        )
    low, high = (main[edge].where(main["alpha_norm"] != 0, main["value"]) for edge in ("lo", "hi"))
    ax.fill_between(main["alpha_norm"], low, high, color=colour("ink"), alpha=BAND_ALPHA, linewidth=0, zorder=2)
    ax.plot(main["alpha_norm"], main["value"], color=colour("ink"), linewidth=DATA_LINE, zorder=4)
    interval(ax, 0.0, (start.lo, start.hi), "ink", zorder=4)
    for row in checks.records(main):
        mark = point(ax, row.alpha_norm, row.value, "ink", filled=_is_beyond(row), marker="o", size=3.4, zorder=5)
        marks.name(mark, f"dose{index}-{row.Index}", _words(row))
    _frame(ax, rows, main)
    _draw_guard(ax, rows)


def _words(row: Any) -> str:
    strength = f"α = {row.alpha_norm:.3g} of the residual norm".replace("-", MINUS)
    text = f"{row.metric}, {strength}: {format_estimate(row.value, row.lo, row.hi, n=int(row.n))}"
    if row.alpha_norm == 0:
        return f"{text}, unsteered, n = {int(row.n)}"
    p = format_p(row.p)
    return f"{text}, p {p if p.startswith('<') else f'= {p}'}, n = {int(row.n)}"


def _frame(ax: Axes, rows: DataFrame, main: DataFrame) -> None:
    seen = [*rows["value"], *main["lo"], *main["hi"], *main["null_lo"], *main["null_hi"], *rows["guard"].dropna()]
    ax.set_ylim(*padded(seen, share=0.08))
    far = max(float(rows["alpha_norm"].abs().max()), 1e-6)
    low = min(float(rows["alpha_norm"].min()), 0.0)
    ax.set_xlim(low - 0.08 * far, far * 1.08 if rows["alpha_norm"].max() > 0 else 0.08 * far)
    ends = sorted({low, 0.0, max(float(rows["alpha_norm"].max()), 0.0)})
    ax.set_xticks(ends, labels=["0" if x == 0 else _neat(x) for x in ends])
    ax.yaxis.set_major_locator(canvas.locator(4))


def _neat(x: float) -> str:
    return f"{x:.3g}".replace("0.", ".", 1).replace("-", MINUS)


def _fit_label(ax: Axes, rows: DataFrame, *, own: bool) -> None:
    """The unit on the vertical axis, small and wrapped where the panel is low."""
    unit = checks.only_value(rows, "metric_unit", figure=FIGURE)
    w, h = canvas.figure_of(ax).get_size_inches()
    box = ax.get_position()
    if unit is not None:
        ax.set_ylabel(
            canvas.wrap(str(unit), size=NOTE + 0.2, max_in=1.25 * box.height * h), fontsize=NOTE + 0.2, linespacing=1.05
        )
        if own:
            ax.yaxis.set_label_coords(-0.42 / (box.width * w), 0.5)


def _draw_guard(ax: Axes, rows: DataFrame) -> None:
    guard = checks.only_value(rows, "guard", figure=FIGURE)
    if guard is None:
        return
    ax.axhline(guard, color=colour("ink2"), linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    low, high = ax.get_ylim()
    up = (guard - low) < 0.5 * (high - low)
    ax.annotate(
        f"guard {_neat(float(guard))}",
        (1, guard),
        xycoords=("axes fraction", "data"),
        xytext=(-1, 2 if up else -2),
        textcoords="offset points",
        ha="right",
        va="bottom" if up else "top",
        fontsize=NOTE,
        color=colour("ink2"),
        zorder=6,
    )


def _label(table: DataFrame, arm: str, default: str) -> str:
    return str(checks.only_value(table[table["arm"] == arm], "arm_label", figure=FIGURE, default=default))


def _entries(table: DataFrame, *, in_full: bool) -> list[Any]:
    """The legend; a panel of a composite has room for one word, and its caption says which controls."""
    entries = [canvas.key_entry("ink", _label(table, "direction", "direction"), shape="o")]
    if (table["arm"] == "orthogonalized").any():
        name = _label(table, "orthogonalized", "orthogonalised, equal norm")
        entries.append(canvas.line_entry("ink", name, style="chance", width=1.0))
    draws = _draws(table)
    shown = f"{_THIN} of {draws}" if draws > _THIN else str(draws)
    null = _label(table, "control", "controls of equal norm") if in_full else "controls"
    return [
        *entries,
        canvas.line_entry("control", f"single controls ({shown})", style="", width=0.6),
        canvas.patch_entry("null", f"{null}, 95 %"),
        canvas.key_entry("ink", "not beyond the controls", filled=False, shape="o", bar=False),
    ]


def _draws(table: DataFrame) -> int:
    return int(table.loc[table["arm"] == "control", "draw"].nunique())


def _caption(table: DataFrame, metrics: list[str]) -> str:
    main = table[table["arm"] == "direction"]
    moved = main[main["alpha_norm"] != 0]
    kind = checks.interval_kind(moved if len(moved) else main, figure=FIGURE)
    correction = checks.only_value(table, "correction", figure=FIGURE, default="no correction over strengths")
    guards = main.dropna(subset=["guard"]).drop_duplicates("metric")
    listed = ", ".join(f"{row.metric} {short(row.guard)}" for row in checks.records(guards))
    member = checks.only_value(table, "member", figure=FIGURE)
    of = f"{member}: " if member else ""
    return checks.sentences(
        f"{of}{', '.join(metrics)} against the strength of {_label(table, 'direction', 'the direction')}, in fractions "
        f"of the residual norm; + moves toward {_toward(table)}",
        checks.sample_size(main, figure=FIGURE),
        f"Band: 95 % {kind} of the paired change, closed at 0; bar at 0: interval of the level",
        f"Grey: the null, 95 % of {_draws(table)} {_label(table, 'control', 'controls of equal norm')}; thin lines: "
        "single ones",
        "Dashed curve: orthogonalised, at equal added norm" if (table["arm"] == "orthogonalized").any() else "",
        f"Filled: p ≤ .05 against the controls ({correction}); hollow: not",
        f"Guard: {listed}" if listed else "",
        checks.provenance(table),
    )


def _alt(table: DataFrame, metrics: list[str]) -> str:
    parts = []
    for metric in metrics:
        main = _arm(table[table["metric"] == metric], "direction")
        start = checks.records(main[main["alpha_norm"] == 0])[0]
        end = checks.records(main.sort_values("alpha_norm").tail(1))[0]
        rows = checks.records(main[main["alpha_norm"] != 0])
        strength = f"{end.alpha_norm:.3g}"
        parts.append(
            f"{metric}: {short(start.value)} unsteered, {format_estimate(end.value, end.lo, end.hi, n=int(end.n))} at "
            f"{strength} of the residual norm, {sum(map(_is_beyond, rows))} of {len(rows)} strengths beyond the "
            "controls"
        )
    return "Dose-response. " + ". ".join(parts) + "."
