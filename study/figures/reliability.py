"""Reliability: whether the probabilities that a probe states are the rates that occur."""

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
    "member", "metric", "p_lo", "p_hi", "p_mean", "value", "lo", "hi", "null_hi", "n", "n_groups", "interval",
)  # fmt: skip
BINS, ERROR, PLATT = "reliability", "ece", "platt_"


def reliability(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Observed rate against stated probability in bins, one square panel per checkpoint.

    Dashes are perfect calibration. A bin is hollow where its interval includes what it stated. The expected
    calibration error stands under each title beside the 95 % floor that a perfectly calibrated probe of as many
    items shows: a finite sample never gives 0.

    Args:
        table: of each `member`, one row of `metric` "reliability" per bin with `p_lo, p_hi` (its range), `p_mean`
            (mean stated probability), `value, lo, hi` (observed rate), `n`, `n_groups`, `interval` (its kind), and one
            row "ece" with the expected calibration error in `value, lo, hi` and its floor in `null_hi`; where no row is
            "reliability", rows "platt_reliability" and "platt_ece" are drawn. Other rows are left out. Optional:
            `null_lo` with `null_hi` of the bins (95 % of the bin's rate under perfect calibration, drawn grey),
            `binning`, `layer`, `split`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite, one per checkpoint.
    Raises:
        ValueError: a column is missing or holds NaN, a probability is outside 0 to 1, bins repeat, or a member has no
            or several errors.
    Source: probes §A5 figure 5; the floor is `interp.stats.calibration_error().floor`.
    """
    rows, curves = _check(table)
    table, rows = rows, table[table["metric"].isin(_metrics(table))]
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
        canvas.figure_of(panels.axes[0]), rows.copy(), _caption(table, curves), _alt(table, curves), marks.titles
    )


def _check(table: DataFrame) -> tuple[DataFrame, list[Curve]]:
    """The bins, with the error of their member in `ece, ece_lo, ece_hi, ece_floor_hi`; and the members."""
    checks.require(table, COLUMNS, figure=FIGURE)
    bins, errors = (table[table["metric"] == name] for name in _metrics(table))
    checks.require_unique(errors, ("member",), figure=FIGURE)
    errors = errors.set_index("member")
    ends = {"ece": "value", "ece_lo": "lo", "ece_hi": "hi", "ece_floor_hi": "null_hi"}
    bins = bins.assign(**{name: bins["member"].map(errors[column]) for name, column in ends.items()})
    numeric = ("p_lo", "p_hi", "p_mean", "value", "lo", "hi", "n", *ends)
    nulls = ("null_lo", "null_hi") if _has_null(bins) else ()
    checks.require(bins, (*COLUMNS, *nulls), figure=FIGURE, numeric=(*numeric, *nulls))
    checks.require_unique(bins, ("member", "p_mean"), figure=FIGURE)
    for name in ("p_lo", "p_hi", "p_mean", "value", "lo", "hi"):
        if bool(((bins[name] < -1e-9) | (bins[name] > 1 + 1e-9)).any()):
            raise ValueError(f"figure {FIGURE!r}: column {name!r} must hold probabilities in 0 to 1.")
    return bins, curves_of(bins, figure=FIGURE)


def _metrics(table: DataFrame) -> tuple[str, str]:
    """Metrics of the bins and of the error: of the scores themselves, or after Platt's sigmoid."""
    prefix = "" if (table["metric"] == BINS).any() else PLATT
    return prefix + BINS, prefix + ERROR


def _has_null(bins: DataFrame) -> bool:
    return "null_lo" in bins.columns and bool(bins["null_lo"].notna().any())


def _entries(table: DataFrame, curves: list[Curve]) -> list[Any]:
    role = curves[0].role if len(curves) == 1 else "ink2"
    shape = "" if len(curves) == 1 else "o"
    entries = [
        canvas.key_entry(role, "off: interval excludes what was stated", shape=shape),
        canvas.key_entry(role, "includes it", filled=False, shape=shape),
        canvas.line_entry("ink2", "calibrated"),
    ]
    return [*entries, canvas.patch_entry("null", "calibrated, 95 %")] if _has_null(table) else entries


def _draw(ax: Axes, one: Curve, rows: DataFrame, marks: Marks, *, narrow: bool) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticklabels(["0", ".5", "1"])
    rows = rows.sort_values("p_mean")
    if _has_null(rows):
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
        f"{one.label} ECE {_error(row)}, null: a calibrated probe stays below {fixed(row.ece_floor_hi, 3)} in 95 %"
        for one, row in zip(curves, first, strict=True)
    )
    return checks.sentences(
        f"Observed rate by stated probability ({binning}"
        + (f", {split}" if split else "") + f"): {' and '.join(one.label for one in curves)}",
        f"{checks.sample_size(table, figure=FIGURE)} per bin, {len(table)} bins; thin line: range of the bin",
        f"Bars: 95 % {checks.interval_kind(table, figure=FIGURE)}",
        "Filled: the interval excludes the stated probability; hollow: includes it; dashed: calibrated",
        "Grey: 95 % of a calibrated probe" if _has_null(table) else "",
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
