"""How far into its reply a label becomes decodable: AUROC after each part of the replies, one panel per member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.figures import canvas, checks
from study.figures.depth import Curve, curves_of
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import curve, interval, null_band, point, reference
from study.figures.mpl import Artist, Record
from study.figures.multiples import Room, padded, share_y
from study.figures.numbers import short
from study.figures.style import Width, line, text_colour

FIGURE = "decodable"
_NUMBERS = "value lo hi n band_lo band_hi null_lo null_hi null_max95 chance at"
_PLACE = 0.055
"""Height of the mark of decodable-at, as a share of the axes."""


@dataclass(frozen=True)
class _Along:
    """Rows of the scores as they are and of those without the confounds, and where each member is decodable."""

    table: DataFrame
    curves: list[Curve]

    def rows(self, one: Curve, role: str = "probe") -> DataFrame:
        own = one.rows(self.table)
        own = own[(own["role"] == role) & (own["metric"] == "auroc")]
        return own.sort_values("at", kind="stable")

    def crossing(self, one: Curve) -> Record | None:
        own = one.rows(self.table)
        found = checks.records(own[(own["metric"] == "decodable_at") & (own["role"] == "probe")])
        return found[0] if found and not checks.is_absent(found[0].value) else None

    @property
    def has_residual(self) -> bool:
        return bool((self.table["role"] == "residual").any())

    @property
    def areas(self) -> DataFrame:
        return self.table[self.table["metric"] == "auroc"]


def _read(table: DataFrame) -> _Along:
    areas = table[table["metric"] == "auroc"]
    numbers = _NUMBERS.split()
    checks.require(areas, numbers, figure=FIGURE, numeric=numbers)
    checks.require_unique(areas, ("member", "role", "at"), figure=FIGURE)
    return _Along(table, curves_of(areas, figure=FIGURE))


def _draw(page: Page, of: _Along) -> Axes:
    room = Room(left=0.47, right=0.1, gap=0.16, bottom=0.37, between=0.4)
    names = [one.label for one in of.curves]
    panels = page.panels(names, tall=0.3 * page.total, room=room, entries=_entries(of), most=3)
    share_y(panels, *_limits(of), ticks=6)
    for ax, one in zip(panels.axes, of.curves, strict=True):
        _panel(page, ax, of, one)
    panels.label(x="share of the reply that has been read", y="AUROC")
    return panels.axes[0]


def _entries(of: _Along) -> list[Artist]:
    plain = [canvas.line_entry("ink", "probe, held out", style="engaged", width=1.2)]
    if of.has_residual:
        plain.append(canvas.line_entry("ink", "without the confounds", style="heuristic", width=0.9))
    maximum = canvas.line_entry("ink2", "null: max over places, 95 %", style="max_null", width=0.9)
    return [*plain, maximum, canvas.patch_entry("null", "null, per place 95 %")]


def _limits(of: _Along) -> tuple[float, float]:
    columns = ("band_lo", "band_hi", "null_lo", "null_hi", "null_max95", "chance")
    low, high = padded([x for name in columns for x in of.areas[name]], least=0.2)
    return low - 0.06 * (high - low), high  # room for the mark of decodable-at


def _panel(page: Page, ax: Axes, of: _Along, one: Curve) -> None:
    rows = of.rows(one)
    x = rows["at"].to_numpy(dtype=float)
    null_band(ax, x, rows["null_lo"], rows["null_hi"], half=0.02)
    reference(ax, y=float(rows["null_max95"].iloc[0]), style="max_null", linewidth=0.9)
    reference(ax, y=float(rows["chance"].iloc[0]))
    drawn = curve(ax, x, rows["value"], rows["band_lo"], rows["band_hi"], one.role, style="engaged")
    words = "; ".join(f"{row.at:g}: {row.value:.3f}" for row in checks.records(rows))
    page.marks.name(drawn, f"along-{one.role}", f"{one.label}, AUROC by share of the reply: {words}")
    left = of.rows(one, "residual")
    if len(left):
        ax.plot(left["at"], left["value"], color=text_colour(one.role), linewidth=0.9, linestyle=line("heuristic"))
    ax.set_xlim(-0.03, 1.03)
    ax.xaxis.set_major_locator(canvas.locator(5))
    found = of.crossing(one)
    if found is None:
        canvas.note(ax, 0.03, _PLACE, "decodable at no place", "axes fraction", fontsize=5.8, va="center")
        return
    low, high = ax.get_ylim()
    y, end = low + _PLACE * (high - low), min(float(found.hi), 1.03)
    interval(ax, (float(found.lo), end), y, one.role)
    page.marks.name(point(ax, float(found.value), y, one.role), f"at-{one.role}", f"{one.label}: {_words(found)}")


def _words(row: Record) -> str:
    end = "no place" if np.isinf(row.hi) else f"{row.hi:g}"
    return f"decodable at {row.value:g} of the reply [{row.lo:g}, {end}]"


def _caption(of: _Along) -> Caption:
    target, draws = (checks.only_value(of.areas, name, figure=FIGURE) for name in ("target", "n_perm"))
    kinds = sorted({str(kind) for kind in of.areas["kind"]}) if "kind" in of.areas else []
    controls = sorted({str(c) for c in of.table["control"] if str(c).startswith("confounds")})
    pools = [
        f"{one.label} {note}" for one in of.curves for note in sorted({*map(str, of.rows(one).get("note", ()))} - {""})
    ]
    return Caption(
        what=f"AUROC of a held-out {' / '.join(kinds)} probe for {target} on the replies that each member wrote, by "
        "the share of the reply that has been read",
        reading="Marks at the foot: decodable-at, the first place at which the AUROC exceeds the level of the null",
        n=checks.sample_size(of.areas, figure=FIGURE),
        interval="Bands: simultaneous 95 % over the places; bars of decodable-at: 95 % percentiles over resampled "
        "groups",
        control=[
            f"Grey: 95 % of the null per place (permuted labels{f', {int(draws)} draws' if draws else ''}); dotted: "
            "95 % of its maximum over places",
            f"Dashed: scores without the {'; without the '.join(controls)}" if controls else "",
        ],
        notes=[f"Pooling of token scores: {'; '.join(pools)}" if pools else ""],
    )


def _alt(of: _Along) -> list[str]:
    parts = ["AUROC of a probe along the replies"]
    for one in of.curves:
        rows, found = checks.records(of.rows(one)), of.crossing(one)
        text = f"{one.label}: {short(rows[0].value)} at {rows[0].at:g}, {short(rows[-1].value)} at {rows[-1].at:g}"
        parts.append(f"{text}; {'decodable at no place' if found is None else _words(found)}")
    return parts


_ROLES = Roles(
    f"member role metric target n_groups interval {_NUMBERS}",
    same="target axis pooling",
    known={"role": ("probe", "residual"), "metric": ("auroc", "decodable_at")},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=20, word="along", read=_read)


def decodable(table: DataFrame, *, width: Width = "neurips", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """AUROC of a probe along the members' replies, with the null, and the place at which each becomes decodable.

    Args:
        table: rows of the schema table `along` on one axis and of one pooling: `metric` auroc and decodable_at, `role`
            probe and, if confounds were removed, residual.
        width, ax: as of `FigureSpec.drawn`; one axes per member.
    Raises:
        ValueError: a column is missing or holds NaN, or a mark is repeated.
    Source: decodable-at, `probes.decodable`.
    """
    return SPEC.drawn(table, width=width, ax=ax)
