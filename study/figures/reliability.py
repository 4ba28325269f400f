"""Reliability: whether the probabilities a reader states are the rates that occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.drawn import Drawn
from study.figures.marks import Marks, interval, point
from study.figures.multiples import Frame, common_x, given, legend_over, small_multiples
from study.figures.numbers import fixed, format_estimate
from study.figures.style import DATA_LINE, NOTE, REFERENCE_LINE, Width, colour, line, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "reliability"
COLUMNS = (
    "checkpoint", "p_lo", "p_hi", "p_mean", "value", "lo", "hi", "n", "n_groups", "ece", "ece_lo", "ece_hi",
    "ece_floor_hi", "interval",
)  # fmt: skip


def reliability(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Observed rate against stated probability in bins, one square panel per checkpoint.

    Dashes are perfect calibration. A bin is hollow where its interval includes what it stated. The expected
    calibration error stands under each title beside the 95 % floor that a perfectly calibrated reader of as many
    items shows: a finite sample never gives 0.

    Args:
        table: one row per (checkpoint, bin): `p_lo, p_hi` (range of the bin), `p_mean` (mean stated probability),
            `value, lo, hi` (observed rate), `n`, `n_groups`, `interval` (its kind); repeated in the rows of a
            checkpoint: `ece, ece_lo, ece_hi` and `ece_floor_hi`. Optional: `null_lo, null_hi` (95 % of the bin's rate
            under perfect calibration, drawn grey), `binning`, `layer`, `split`, `member`, `unit`, `group_unit`,
            `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per checkpoint.
    Raises:
        ValueError: a column is missing or holds NaN, a probability is outside 0 to 1, bins repeat, or the rows of one
            checkpoint disagree on its error.
    Source: probes §A5 figure 5; the floor is `interp.stats.calibration_error().floor`.
    """
    curves = _check(table)
    entries = _entries(table, curves)
    titles = [one.label for one in curves]
    marks = Marks()
    with styled():
        if ax is None:
            total = width_in(width)
            room = total - 0.57 - 0.2 * (len(curves) - 1)
            side = min(room / len(curves), 1.7)
            frame = Frame(left=0.45, right=0.12 + room - side * len(curves), gap=0.2, bottom=0.4, top=0.22)
            panels = small_multiples(titles, total, tall=side, frame=frame, entries=entries)
        else:
            panels = given(ax, titles, figure=FIGURE)
            legend_over(panels, entries)
        for index, (panel, one) in enumerate(zip(panels.axes, curves, strict=True)):
            _draw(panel, one, one.rows(table), marks, narrow=ax is not None)
            panel.tick_params(labelleft=panels.is_first(index))
        panels.axes[0].set_ylabel("observed rate")
        if ax is None:
            common_x(panels, "stated probability, mean of the bin")
        else:
            panels.axes[0].set_xlabel("stated probability")
    return Drawn(
        canvas.figure_of(panels.axes[0]), table.copy(), _caption(table, curves), _alt(table, curves), marks.titles
    )


def _check(table: DataFrame) -> list[Curve]:
    numeric = tuple(name for name in COLUMNS if name not in ("checkpoint", "n_groups", "interval"))
    nulls = ("null_lo", "null_hi") if "null_lo" in table.columns else ()
    checks.require(table, (*COLUMNS, *nulls), figure=FIGURE, numeric=(*numeric, *nulls))
    checks.require_unique(table, ("checkpoint", "p_mean"), figure=FIGURE)
    for name in ("p_lo", "p_hi", "p_mean", "value", "lo", "hi"):
        if bool(((table[name] < -1e-9) | (table[name] > 1 + 1e-9)).any()):
            raise ValueError(f"figure {FIGURE!r}: column {name!r} must hold probabilities in 0 to 1.")
    for name, rows in table.groupby("checkpoint", sort=False):
        if len(rows[["ece", "ece_lo", "ece_hi", "ece_floor_hi"]].drop_duplicates()) > 1:
            raise ValueError(
                f"figure {FIGURE!r}: the rows of {name} hold different ece; repeat the one of the checkpoint."
            )
    return curves_of(table, figure=FIGURE)


def _entries(table: DataFrame, curves: list[Curve]) -> list[Any]:
    role = curves[0].role if len(curves) == 1 else "ink2"
    shape = "" if len(curves) == 1 else "o"
    entries = [
        canvas.key_entry(role, "off: interval excludes what was stated", shape=shape),
        canvas.key_entry(role, "includes it", filled=False, shape=shape),
        canvas.line_entry("ink2", "calibrated"),
    ]
    return [*entries, canvas.patch_entry("null", "calibrated, 95 %")] if "null_lo" in table.columns else entries


def _draw(ax: Axes, one: Curve, rows: DataFrame, marks: Marks, *, narrow: bool) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticklabels(["0", ".5", "1"])
    rows = rows.sort_values("p_mean")
    if "null_lo" in rows.columns:
        ax.fill_between(rows["p_mean"], rows["null_lo"], rows["null_hi"], color=colour("null"), linewidth=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    ax.plot(rows["p_mean"], rows["value"], color=colour(one.role), linewidth=0.5 * DATA_LINE, linestyle=line(one.role))
    for row in checks.records(rows):
        ax.plot([row.p_lo, row.p_hi], [row.value, row.value], color=colour("faint"), linewidth=0.6, zorder=2)
        interval(ax, row.p_mean, (row.lo, row.hi), one.role)
        off = _is_off(row)
        mark = point(ax, row.p_mean, row.value, one.role, filled=off, size=3.4)
        text = format_estimate(row.value, row.lo, row.hi, n=int(row.n))
        marks.name(
            mark, f"{one.role}-{row.Index}", f"{one.label}, stated {row.p_mean:.2f}: observed {text}, n = {int(row.n)}"
        )
    first = checks.records(rows.head(1))[0]
    text = f"ECE {_error(first)}\nfloor {fixed(first.ece_floor_hi, 3)}"
    ax.annotate(
        text, (0, 1), xycoords="axes fraction", xytext=(0, -1 if narrow else 3), textcoords="offset points",
        fontsize=NOTE, color=colour("ink2"), ha="left", va="top" if narrow else "bottom", linespacing=1.15,
    )  # fmt: skip


def _is_off(row: Any) -> bool:
    return not row.lo <= row.p_mean <= row.hi


def _error(row: Any) -> str:
    return format_estimate(row.ece, row.ece_lo, row.ece_hi)


def _caption(table: DataFrame, curves: list[Curve]) -> str:
    split = checks.only_value(table, "split", figure=FIGURE)
    binning = checks.only_value(table, "binning", figure=FIGURE, default="equal-mass bins")
    first = [checks.records(one.rows(table).head(1))[0] for one in curves]
    errors = "; ".join(
        f"{one.label} ECE {_error(row)}, null: a calibrated reader stays below {fixed(row.ece_floor_hi, 3)} in 95 %"
        for one, row in zip(curves, first, strict=True)
    )
    return checks.sentences(
        f"Observed rate by stated probability ({binning}"
        + (f", {split}" if split else "") + f"): {' and '.join(one.label for one in curves)}",
        f"{checks.sample_size(table, figure=FIGURE)} per bin, {len(table)} bins; thin line: range of the bin",
        f"Bars: 95 % {checks.interval_kind(table, figure=FIGURE)}",
        "Filled: the interval excludes the stated probability; hollow: includes it; dashed: calibrated",
        "Grey: 95 % of a calibrated reader" if "null_lo" in table.columns else "",
        errors,
        checks.provenance(table),
    )  # fmt: skip


def _alt(table: DataFrame, curves: list[Curve]) -> str:
    parts = []
    for one in curves:
        rows = checks.records(one.rows(table))
        verdict = "above" if rows[0].ece_lo > rows[0].ece_floor_hi else "not clearly above"
        parts.append(
            f"{one.label}: {sum(map(_is_off, rows))} of {len(rows)} bins off their stated probability, ECE "
            f"{_error(rows[0])}, {verdict} the floor {fixed(rows[0].ece_floor_hi, 3)}"
        )
    return "Reliability diagram. " + ". ".join(parts) + "."
