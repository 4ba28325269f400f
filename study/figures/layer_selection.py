"""Which layer and strength were chosen on the select split, what forbade the others, and what test left of the gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, null_band, point
from study.figures.multiples import Frame, given, legend_over, padded, small_multiples
from study.figures.numbers import format_estimate
from study.figures.style import DATA_LINE, REFERENCE_LINE, Width, colour, line, styled, width_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "layer_selection"
COLUMNS = (
    "position", "layer", "alpha", "metric", "gain", "lo", "hi", "null_lo", "null_hi", "allowed", "chosen", "n",
    "n_groups", "interval",
)  # fmt: skip


def layer_selection(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Gain of the best strength of every layer on the select split, one panel per position.

    Hollow: no strength keeps within the limits of the objective, and the mark shows the best that was not allowed. Grey
    is 95 % of the controls at the same layer and strength. The square is the chosen layer on test.

    Args:
        table: one row per (position, layer): `alpha` (of the gain), `metric`, `gain, lo, hi` (in the wanted direction),
            `null_lo, null_hi` (of controls), `allowed`, `chosen`, `n`, `n_groups`, `interval`. Optional: `test_gain,
            test_lo, test_hi` in the chosen row, `reason`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per position.
    Raises:
        ValueError: a column is missing or holds NaN, a layer is repeated, or two are chosen.
    Source: steering spec B.7.
    """
    positions = _check(table)
    marks = Marks()
    has_test = "test_gain" in table.columns and bool(table["test_gain"].notna().any())
    entries = [
        canvas.key_entry("ink", "within the limits", shape="o"),
        canvas.key_entry("ink", "not allowed", filled=False, shape="o"),
        canvas.patch_entry("null", "controls, 95 %"),
        *([canvas.key_entry("ink2", "chosen, on test", shape="s")] if has_test else []),
    ]
    with styled():
        if ax is None:
            frame = Frame(left=0.55, right=0.1, gap=0.2, bottom=0.4, between=0.34)
            panels = small_multiples(
                positions if len(positions) > 1 else [""],
                width_in(width),
                tall=1.4,
                frame=frame,
                entries=entries,
                most=3,
            )
        else:
            panels = given(ax, positions, figure=FIGURE)
            legend_over(panels, entries)
        ends = padded([*table["lo"], *table["hi"], *table["null_lo"], *table["null_hi"], 0.0], share=0.08)
        for index, (panel, where) in enumerate(zip(panels.axes, positions, strict=True)):
            _draw(panel, table[table["position"] == where].sort_values("layer"), marks, index)
            panel.set_ylim(*ends)
            panel.tick_params(labelleft=panels.is_first(index))
            if panels.is_first(index):
                panel.set_ylabel(f"gain in {checks.only_value(table, 'metric', figure=FIGURE)}")
            if panels.is_last(index):
                panel.set_xlabel("layer")
    return Drawn(canvas.figure_of(panels.axes[0]), table.copy(), _caption(table), _alt(table), marks.titles)


def _check(table: DataFrame) -> list[str]:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("layer", "alpha", "gain", "lo", "hi", "null_lo", "null_hi"))
    checks.require_unique(table, ("position", "layer"), figure=FIGURE)
    checks.only_value(table, "metric", figure=FIGURE)
    if int(table["chosen"].astype(bool).sum()) > 1:
        raise ValueError(f"figure {FIGURE!r}: {int(table['chosen'].sum())} layers are chosen; one is.")
    return [str(where) for where in dict.fromkeys(table["position"])]


def _draw(ax: Axes, rows: DataFrame, marks: Marks, index: int) -> None:
    null_band(ax, rows["layer"], rows["null_lo"], rows["null_hi"], half=0.3)
    ax.axhline(0, color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    ax.plot(rows["layer"], rows["gain"], color=colour("ink"), linewidth=DATA_LINE, zorder=2)
    for row in checks.records(rows):
        interval(ax, row.layer, (row.lo, row.hi), "ink")
        size = 6.0 if row.chosen else 3.6
        mark = point(ax, row.layer, row.gain, "ink", filled=bool(row.allowed), marker="o", size=size)
        marks.name(mark, f"layer{index}-{int(row.layer)}", _words(row))
        if row.chosen and not checks.is_absent(getattr(row, "test_gain", None)):
            interval(ax, row.layer + 0.25, (row.test_lo, row.test_hi), "ink2")
            test = point(ax, row.layer + 0.25, row.test_gain, "ink2", marker="s", size=5.0)
            text = format_estimate(row.test_gain, row.test_lo, row.test_hi, n=int(row.n))
            marks.name(test, f"test{index}-{int(row.layer)}", f"layer {int(row.layer)} on test: {text}")
    far = max(float(rows["layer"].max()), 1.0)
    ax.set_xlim(float(rows["layer"].min()) - 0.5, far + 0.6)
    ax.xaxis.set_major_locator(canvas.locator(6, integer=True))
    ax.yaxis.set_major_locator(canvas.locator(5))


def _words(row: Any) -> str:
    text = f"layer {int(row.layer)}, α = {row.alpha:.3g}: {format_estimate(row.gain, row.lo, row.hi, n=int(row.n))}"
    reason = getattr(row, "reason", "")
    return text if checks.is_absent(reason) else f"{text}; not allowed: {reason}"


def _caption(table: DataFrame) -> str:
    chosen = checks.records(table[table["chosen"].astype(bool)])
    choice = f"Chosen: layer {int(chosen[0].layer)} at α = {chosen[0].alpha:.3g}" if chosen else "No layer is allowed"
    return checks.sentences(
        f"Gain in {checks.only_value(table, 'metric', figure=FIGURE)} of the best strength of every layer on the "
        "select split",
        checks.sample_size(table, figure=FIGURE),
        f"Bars: 95 % {checks.interval_kind(table, figure=FIGURE)} of the paired change",
        "Grey: 95 % of the random and label-shuffled controls at that layer and strength",
        choice,
        checks.provenance(table),
    )


def _alt(table: DataFrame) -> str:
    best = checks.records(table.sort_values("gain", ascending=False).head(1))[0]
    n = int(table["allowed"].astype(bool).sum())
    return (
        f"Layer selection. {n} of {len(table)} candidates keep within the limits; the largest gain is {_words(best)}."
    )
