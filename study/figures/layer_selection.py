"""Which layer and strength were chosen on the select split, what forbade the others, and what test left of the gain."""

from __future__ import annotations

from collections.abc import Sequence

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import null_band, reference
from study.figures.mpl import Record, Style
from study.figures.multiples import Room, padded
from study.figures.numbers import format_estimate
from study.figures.style import DATA_LINE, Width, colour

FIGURE = "layer_selection"


def _read(table: DataFrame) -> DataFrame:
    if int(table["chosen"].astype(bool).sum()) > 1:
        raise ValueError(f"figure {FIGURE!r}: {int(table['chosen'].sum())} layers are chosen; expected exactly one.")
    return table


def _draw(page: Page, table: DataFrame) -> Axes:
    positions = [str(where) for where in dict.fromkeys(table["position"])]
    has_test = "test_gain" in table.columns and bool(table["test_gain"].notna().any())
    entries = [
        canvas.key_entry("ink", "within the limits", shape="o"),
        canvas.key_entry("ink", "not allowed", filled=False, shape="o"),
        canvas.patch_entry("null", "controls, 95 %"),
        *([canvas.key_entry("ink2", "chosen, on test", shape="s")] if has_test else []),
    ]
    titles = positions if len(positions) > 1 or not page.own else [""]
    room = Room(left=0.55, right=0.1, gap=0.2, bottom=0.4, between=0.34)
    panels = page.panels(titles, tall=1.4, room=room, entries=entries, most=3)
    ends = padded([*table["lo"], *table["hi"], *table["null_lo"], *table["null_hi"], 0.0], share=0.08)
    for index, (ax, where) in enumerate(zip(panels.axes, positions, strict=True)):
        _draw_position(page, ax, table[table["position"] == where].sort_values("layer"), index)
        ax.set_ylim(*ends)
    panels.label(x="layer", y=f"gain in {_metric(table)}")
    return panels.axes[0]


def _draw_position(page: Page, ax: Axes, rows: DataFrame, index: int) -> None:
    null_band(ax, rows["layer"], rows["null_lo"], rows["null_hi"], half=0.3)
    reference(ax, y=0)
    ax.plot(rows["layer"], rows["gain"], color=colour("ink"), linewidth=DATA_LINE, zorder=2)
    for row in checks.records(rows):
        layer, gain = int(row.layer), (row.gain, row.lo, row.hi)
        style: Style = {"filled": bool(row.allowed), "marker": "o", "size": 6.0 if row.chosen else 3.6}
        page.marks.estimate(ax, row.layer, gain, "ink", f"layer{index}-{layer}", _words(row), **style)
        if row.chosen and not checks.is_absent(getattr(row, "test_gain", None)):
            test = (row.test_gain, row.test_lo, row.test_hi)
            title = f"layer {layer} on test: {format_estimate(*test, n=int(row.n))}"
            key = f"test{index}-{layer}"
            page.marks.estimate(ax, row.layer + 0.25, test, "ink2", key, title, marker="s", size=5.0)
    ax.set_xlim(float(rows["layer"].min()) - 0.5, max(float(rows["layer"].max()), 1.0) + 0.6)
    ax.xaxis.set_major_locator(canvas.locator(6, integer=True))
    ax.yaxis.set_major_locator(canvas.locator(5))


def _metric(table: DataFrame) -> str:
    return str(checks.only_value(table, "metric", figure=FIGURE))


def _words(row: Record) -> str:
    text = f"layer {int(row.layer)}, α = {row.alpha:.3g}: {format_estimate(row.gain, row.lo, row.hi, n=int(row.n))}"
    reason = getattr(row, "reason", "")
    return text if checks.is_absent(reason) else f"{text}; not allowed: {reason}"


def _caption(table: DataFrame) -> Caption:
    chosen = checks.records(table[table["chosen"].astype(bool)])
    return Caption(
        what=f"Gain in {_metric(table)} of the best strength of every layer on the select split",
        n=checks.sample_size(table, figure=FIGURE),
        interval=f"Bars: 95 % {checks.interval_kind(table, figure=FIGURE)} of the paired change",
        control="Grey: 95 % of the random and label-shuffled controls at that layer and strength",
        notes="No layer is allowed"
        if not chosen
        else f"Chosen: layer {int(chosen[0].layer)} at α = {chosen[0].alpha:.3g}",
    )


def _alt(table: DataFrame) -> list[str]:
    best = checks.records(table.sort_values("gain", ascending=False).head(1))[0]
    n = int(table["allowed"].astype(bool).sum())
    found = f"{n} of {len(table)} candidates keep within the limits; the largest gain is {_words(best)}"
    return ["Layer selection", found]


_ROLES = Roles(
    "position layer alpha metric gain lo hi null_lo null_hi allowed chosen n n_groups interval",
    finite="layer alpha gain lo hi null_lo null_hi",
    mark="position layer",
    same="metric",
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=14, read=_read)


def layer_selection(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Gain of the best strength of every layer on the select split, one panel per position.

    Hollow: no strength keeps within the limits of the objective, and the mark shows the best that was not allowed. Grey
    is 95 % of the controls at the same layer and strength. The square is the chosen layer on test.

    Args:
        table: one row per (position, layer): `alpha` (of the gain), `metric`, `gain, lo, hi` (in the wanted direction),
            `null_lo, null_hi` (of controls), `allowed`, `chosen`, `n`, `n_groups`, `interval`. Optional: `test_gain,
            test_lo, test_hi` in the chosen row, `reason`.
        width, ax: as of `FigureSpec.drawn`; one per position.
    Raises:
        ValueError: a column is missing or holds NaN, a layer is repeated, or two are chosen.
    Source: docs/howto/dose_curves.md.
    """
    return SPEC.drawn(table, width=width, ax=ax)
