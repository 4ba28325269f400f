"""Reliability: whether the probabilities that a probe states are the rates that occur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import reference_diagonal, triple
from study.figures.mpl import Artist, Record
from study.figures.multiples import Room, common_x
from study.figures.numbers import estimate_of, fixed, format_estimate
from study.figures.style import DATA_LINE, NOTE, Width, colour, line

FIGURE = "reliability"
BINS, ERROR, PLATT = "reliability", "ece", "platt_"
_ENDS = {"ece": "value", "ece_lo": "lo", "ece_hi": "hi", "ece_floor_hi": "null_hi"}
_PROBABILITIES: dict[str, tuple[float, float]] = dict.fromkeys(
    ("p_lo", "p_hi", "p_mean", "value", "lo", "hi"), (0.0, 1.0)
)
_BINS = Roles(
    "member",
    finite="p_lo p_hi p_mean value lo hi n ece ece_lo ece_hi ece_floor_hi",
    mark="member p_mean",
    within=_PROBABILITIES,
)


@dataclass(frozen=True)
class _Calibration:
    """The bins, with the error of their member in `ece, ece_lo, ece_hi, ece_floor_hi`; the rows drawn; the members."""

    table: DataFrame
    drawn: DataFrame
    curves: list[Curve]
    has_null: bool

    def first(self, one: Curve) -> Record:
        return checks.records(one.rows(self.table).head(1))[0]


def _read(table: DataFrame) -> _Calibration:
    prefix = "" if (table["metric"] == BINS).any() else PLATT  # of the scores themselves, or after Platt's sigmoid
    bins, errors = (table[table["metric"] == prefix + name] for name in (BINS, ERROR))
    checks.require_unique(errors, ("member",), figure=FIGURE)
    errors = errors.set_index("member")
    bins = bins.assign(**{name: bins["member"].map(errors[column]) for name, column in _ENDS.items()})
    _BINS.check(bins, figure=FIGURE)
    has_null = "null_lo" in bins.columns and bool(bins["null_lo"].notna().any())
    if has_null:
        checks.require(bins, ("null_lo", "null_hi"), figure=FIGURE, numeric=("null_lo", "null_hi"))
    drawn = table[table["metric"].isin([prefix + BINS, prefix + ERROR])]
    return _Calibration(bins, drawn, curves_of(bins, figure=FIGURE), has_null)


def _draw(page: Page, of: _Calibration) -> Axes:
    free = page.total - 0.57 - 0.2 * (len(of.curves) - 1)
    side = min(free / len(of.curves), 1.7)
    room = Room(left=0.45, right=0.12 + free - side * len(of.curves), gap=0.2, bottom=0.4, top=0.22)
    panels = page.panels([one.label for one in of.curves], tall=side, room=room, entries=_entries(of))
    for ax, one in zip(panels.axes, of.curves, strict=True):
        _draw_member(page, ax, one, of)
    panels.label(y="observed rate")
    if page.own:
        common_x(panels, "stated probability, mean of the bin")
    else:
        panels.axes[0].set_xlabel("stated probability")
    return panels.axes[0]


def _entries(of: _Calibration) -> list[Artist]:
    role, shape = (of.curves[0].role, "") if len(of.curves) == 1 else ("ink2", "o")
    return [
        canvas.key_entry(role, "off: interval excludes the prediction", shape=shape),
        canvas.key_entry(role, "includes it", filled=False, shape=shape),
        canvas.line_entry("ink2", "calibrated"),
        *([canvas.patch_entry("null", "calibrated, 95 %")] if of.has_null else []),
    ]


def _draw_member(page: Page, ax: Axes, one: Curve, of: _Calibration) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_xticks([0, 0.5, 1], labels=["0", ".5", "1"])
    ax.set_yticks([0, 0.5, 1], labels=["0", ".5", "1"])
    rows = one.rows(of.table).sort_values("p_mean")
    if of.has_null:
        ax.fill_between(rows["p_mean"], rows["null_lo"], rows["null_hi"], color=colour("null"), linewidth=0, zorder=0)
    reference_diagonal(ax)
    ax.plot(rows["p_mean"], rows["value"], color=colour(one.role), linewidth=0.5 * DATA_LINE, linestyle=line(one.role))
    for row in checks.records(rows):
        ax.plot([row.p_lo, row.p_hi], [row.value, row.value], color=colour("faint"), linewidth=0.6, zorder=2)
        title = f"{one.label}, stated {row.p_mean:.2f}: observed {estimate_of(row)}, n = {int(row.n)}"
        page.marks.estimate(
            ax, row.p_mean, triple(row), one.role, f"{one.role}-{row.Index}", title, filled=_is_off(row), size=3.4
        )
    first = checks.records(rows.head(1))[0]
    text = f"ECE {_error(first)}\nfloor {fixed(first.ece_floor_hi, 3)}"
    by, va = ((0, 3), "bottom") if page.own else ((0, -1), "top")
    canvas.note(ax, 0, 1, text, "axes fraction", by, fontsize=NOTE, color=colour("ink2"), va=va, linespacing=1.15)


def _is_off(row: Record) -> bool:
    return not row.lo <= row.p_mean <= row.hi


def _error(row: Record) -> str:
    return format_estimate(row.ece, row.ece_lo, row.ece_hi)


def _caption(of: _Calibration) -> Caption:
    split = checks.only_value(of.table, "split", figure=FIGURE)
    binning = checks.only_value(of.table, "binning", figure=FIGURE, default="equal-mass bins")
    how = f"{binning}, {split}" if split else str(binning)
    errors = []
    for one in of.curves:
        row = of.first(one)
        below = f"a calibrated probe stays below {fixed(row.ece_floor_hi, 3)} in 95 %"
        errors.append(f"{one.label} ECE {_error(row)}, null: {below}")
    return Caption(
        what=f"Observed rate by stated probability ({how}): {' and '.join(one.label for one in of.curves)}",
        n=f"{checks.sample_size(of.table, figure=FIGURE)} per bin, {len(of.table)} bins; thin line: range of the bin",
        interval=f"Bars: 95 % {checks.interval_kind(of.table, figure=FIGURE)}",
        control=[
            "Filled: the interval excludes the stated probability; hollow: includes it; dashed: calibrated",
            "Grey: 95 % of a calibrated probe" if of.has_null else "",
            "; ".join(errors),
        ],
    )


def _alt(of: _Calibration) -> list[str]:
    parts = ["Reliability diagram"]
    for one in of.curves:
        rows = checks.records(one.rows(of.table))
        verdict = "above" if rows[0].ece_lo > rows[0].ece_floor_hi else "not clearly above"
        bins = f"{sum(map(_is_off, rows))} of {len(rows)} bins off their stated probability"
        floor = f"{verdict} the floor {fixed(rows[0].ece_floor_hi, 3)}"
        parts.append(f"{one.label}: {bins}, ECE {_error(rows[0])}, {floor}")
    return parts


_ROLES = Roles("member metric p_lo p_hi p_mean value lo hi null_hi n n_groups interval")
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=10, read=_read, rows=lambda of: of.drawn)


def reliability(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Observed rate against stated probability in bins, one square panel per checkpoint.

    Dashes are perfect calibration. A bin is hollow where its interval includes what it stated. The expected
    calibration error stands under each title beside the 95 % floor that a perfectly calibrated probe of as many
    items shows: a finite sample never gives 0.

    Args:
        table: rows `role` calibration of the schema table `probes`. Of each `member` a row of `metric` "reliability"
            per bin and a row "ece" whose `null_hi` is its floor; where no row is "reliability", rows
            "platt_reliability" and "platt_ece" are drawn. Other rows are left out. Optional: `null_lo` with `null_hi`
            of the bins (95 % of the bin's rate under perfect calibration, drawn grey), `binning`, `split`.
        width, ax: as of `FigureSpec.drawn`; one per checkpoint.
    Raises:
        ValueError: a column is missing or holds NaN, a probability is outside 0 to 1, bins repeat, or a member has no
            or several errors.
    Source: probes §A5 figure 5; the floor is `interp.stats.calibration_error().floor`.
    """
    return SPEC.drawn(table, width=width, ax=ax)
