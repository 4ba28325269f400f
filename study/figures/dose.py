"""Figure 10: whether a direction moves its target and nothing else, over strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.stats import rejects
from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.marks import interval, null_band, point, reference
from study.figures.mpl import Artist, Record, Style
from study.figures.multiples import Panels, Room, common_x, padded, room_below
from study.figures.numbers import MINUS, estimate_of, p_equals, short, tick_text
from study.figures.style import BAND_ALPHA, DATA_LINE, NOTE, Width, colour

FIGURE = "dose_response"
_THIN = 30
_DASHES = (0, (4, 2))
_DIRECTION = Roles("lo hi null_lo null_hi p", finite="lo hi null_lo null_hi")
_MOVED = Roles("p", finite="p")


@dataclass(frozen=True)
class _Dose:
    """The table, its metrics, and what a positive strength moves toward."""

    table: DataFrame
    metrics: list[str]
    toward: str

    def arm(self, arm: str, metric: str | None = None) -> DataFrame:
        rows = self.table[self.table["arm"] == arm]
        rows = rows if metric is None else rows[rows["metric"] == metric]
        return rows.sort_values(["draw", "alpha_norm"], kind="stable")

    def label(self, arm: str, default: str) -> str:
        return str(checks.only_value(self.arm(arm), "arm_label", figure=FIGURE, default=default))

    @property
    def n_draws(self) -> int:
        return int(self.arm("control")["draw"].nunique())


def _read(table: DataFrame) -> _Dose:
    main = table[table["arm"] == "direction"]
    _DIRECTION.check(main, figure=FIGURE)
    if bool((main["alpha_norm"] != 0).any()):
        _MOVED.check(main[main["alpha_norm"] != 0], figure=FIGURE)
    metrics = [str(metric) for metric in dict.fromkeys(table["metric"])]
    for metric in metrics:
        rows = table[table["metric"] == metric]
        if not ((rows["arm"] == "direction") & (rows["alpha_norm"] == 0)).any():
            raise ValueError(
                f"figure {FIGURE!r}: {metric} lacks the direction at strength 0, from which changes are measured."
            )
        if not (rows["arm"] == "control").any():
            raise ValueError(
                f"figure {FIGURE!r}: {metric} has no rows of arm control. The effect of a direction means "
                "nothing without the effects of random and shuffled directions of equal norm."
            )
        checks.only_value(rows, "guard", figure=FIGURE)
    toward = checks.only_value(table, "toward", figure=FIGURE)
    if checks.is_absent(toward):
        raise ValueError(f"figure {FIGURE!r}: column toward must name the class that a positive strength moves toward.")
    return _Dose(table, metrics, str(toward))


def _draw(page: Page, of: _Dose) -> Axes:
    words = f"strength α, fraction of the residual norm;  + = toward {of.toward}"
    room = Room(left=0.58, right=0.1, gap=0.62, bottom=0.42, between=0.32)
    layout: Style = {"tall": 1.15, "room": room, "most": {"icml": 2, "neurips": 3, "full": 4}[page.width]}
    panels = _panels(page, of, foot=room_below(words, page.total), **layout)
    for index, (ax, metric) in enumerate(zip(panels.axes, of.metrics, strict=True)):
        _draw_metric(page, ax, of, metric, index)
        _name_unit(ax, of.table[of.table["metric"] == metric], own=page.own)
    if page.own:
        common_x(panels, words)
    else:
        panels.axes[0].set_xlabel("α / residual norm")
    return panels.axes[0]


def _panels(page: Page, of: _Dose, *, tall: float, room: Room, most: int, foot: float) -> Panels:
    """A single panel of a composite has no title of its own: that of the composite names the metric."""
    alone = not page.own and len(of.metrics) == 1
    lift = {"lift": 0.06} if alone else {}
    return page.panels(
        [""] if alone else of.metrics,
        entries=_entries(of, own=page.own),
        tall=tall,
        room=room,
        most=most,
        foot=foot,
        **lift,
    )


def _entries(of: _Dose, *, own: bool) -> list[Artist]:
    """The legend; a panel of a composite has room for few words, and its caption says which controls."""
    shown = f"{_THIN} of {of.n_draws}" if of.n_draws > _THIN else str(of.n_draws)
    entries = [canvas.key_entry("ink", of.label("direction", "direction"), shape="o")]
    if len(of.arm("orthogonalized")):
        name = of.label("orthogonalized", "orthogonalised, equal norm")
        entries.append(canvas.line_entry("ink", name, style="chance", width=1.0))
    null = of.label("control", "controls of equal norm") if own else "controls"
    single = f"single controls ({shown})" if own else f"controls ({shown})"
    hollow = "not beyond the controls" if own else "not beyond"
    return [
        *entries,
        canvas.line_entry("control", single, style="", width=0.6),
        canvas.patch_entry("null", f"{null}, 95 %"),
        canvas.key_entry("ink", hollow, filled=False, shape="o", bar=False),
    ]


def _is_beyond(row: Record) -> bool:
    return bool(row.alpha_norm != 0 and rejects(row.p))


def _draw_metric(page: Page, ax: Axes, of: _Dose, metric: str, index: int) -> None:
    main = of.arm("direction", metric).sort_values("alpha_norm")
    ink, x = colour("ink"), main["alpha_norm"]
    null_band(ax, x, main["null_lo"], main["null_hi"], half=0.02)
    reference(ax, x=0, style="solid", color=colour("grid"), linewidth=0.7, zorder=0.5)
    start = checks.records(main[x == 0])[0]
    reference(ax, y=start.value)
    for _, draw in list(of.arm("control", metric).groupby("draw"))[:_THIN]:
        ax.plot(draw["alpha_norm"], draw["value"], color=colour("control"), linewidth=0.4, alpha=0.5, zorder=1)
    other = of.arm("orthogonalized", metric)
    if len(other):
        ax.plot(other["alpha_norm"], other["value"], color=ink, linewidth=1.0, linestyle=_DASHES, zorder=3)
    low, high = (main[edge].where(x != 0, main["value"]) for edge in ("lo", "hi"))
    ax.fill_between(x, low, high, color=ink, alpha=BAND_ALPHA, linewidth=0, zorder=2)
    ax.plot(x, main["value"], color=ink, linewidth=DATA_LINE, zorder=4)
    interval(ax, 0.0, (start.lo, start.hi), "ink", zorder=4)
    for row in checks.records(main):
        mark = point(ax, row.alpha_norm, row.value, "ink", filled=_is_beyond(row), marker="o", size=3.4, zorder=5)
        page.marks.name(mark, f"dose{index}-{row.Index}", _words(row))
    _fit(ax, of.table[of.table["metric"] == metric], main)


def _words(row: Record) -> str:
    strength = f"α = {row.alpha_norm:.3g} of the residual norm".replace("-", MINUS)
    how = "unsteered" if row.alpha_norm == 0 else p_equals(row.p)
    return f"{row.metric}, {strength}: {estimate_of(row)}, {how}, n = {int(row.n)}"


def _fit(ax: Axes, rows: DataFrame, main: DataFrame) -> None:
    """Limits, ticks and the guard of one panel."""
    seen = [*rows["value"], *main["lo"], *main["hi"], *main["null_lo"], *main["null_hi"], *rows["guard"].dropna()]
    bottom, top = padded(seen, share=0.08)
    ax.set_ylim(bottom, top)
    left, right = min(float(rows["alpha_norm"].min()), 0.0), max(float(rows["alpha_norm"].max()), 0.0)
    pad = 0.08 * max(-left, right, 1e-6)
    ax.set_xlim(left - pad, right + pad)
    ends = sorted({left, 0.0, right})
    ax.set_xticks(ends, labels=[tick_text(x) for x in ends])
    ax.yaxis.set_major_locator(canvas.locator(4))
    guard = checks.only_value(rows, "guard", figure=FIGURE)
    if guard is not None:
        reference(ax, y=guard, linewidth=0.9, linestyle=_DASHES)
        by, va = ((-1, 2), "bottom") if guard - bottom < 0.5 * (top - bottom) else ((-1, -2), "top")
        style: Style = {"ha": "right", "va": va, "fontsize": NOTE, "color": colour("ink2"), "zorder": 6}
        canvas.note(ax, 1, guard, f"guard {tick_text(float(guard))}", ("axes fraction", "data"), by, **style)


def _name_unit(ax: Axes, rows: DataFrame, *, own: bool) -> None:
    """The unit on the vertical axis, small and wrapped where the panel is low."""
    unit = checks.only_value(rows, "metric_unit", figure=FIGURE)
    if unit is not None:
        width, height = canvas.size_of(ax)
        text = canvas.wrap(str(unit), size=NOTE + 0.2, max_in=1.25 * height)
        ax.set_ylabel(text, fontsize=NOTE + 0.2, linespacing=1.05)
        if own:
            ax.yaxis.set_label_coords(-0.42 / width, 0.5)


def _caption(of: _Dose) -> Caption:
    main = of.arm("direction")
    moved = main[main["alpha_norm"] != 0]
    kind = checks.interval_kind(moved if len(moved) else main, figure=FIGURE)
    correction = checks.only_value(of.table, "correction", figure=FIGURE, default="no correction over strengths")
    guards = checks.records(main.dropna(subset=["guard"]).drop_duplicates("metric"))
    member = checks.only_value(of.table, "member", figure=FIGURE)
    who, place = f"{member}: " if member else "", checks.at_site(of.table, figure=FIGURE)
    null = of.label("control", "controls of equal norm")
    against = f"against the strength of {of.label('direction', 'the direction')}, in fractions of the residual norm"
    return Caption(
        what=f"{who}{', '.join(of.metrics)}{place} {against}; + moves toward {of.toward}",
        reading="Dashed curve: orthogonalised, at equal added norm" if len(of.arm("orthogonalized")) else "",
        n=checks.sample_size(main, figure=FIGURE),
        interval=f"Band: 95 % {kind} of the paired change, closed at 0; bar at 0: interval of the level",
        control=[
            f"Grey: the null, 95 % of {of.n_draws} {null}; thin lines: single ones",
            f"Filled: p ≤ .05 against the controls ({correction}); hollow: not",
            f"Guard: {', '.join(f'{row.metric} {short(row.guard)}' for row in guards)}" if guards else "",
        ],
    )


def _alt(of: _Dose) -> list[str]:
    parts = ["Dose-response"]
    for metric in of.metrics:
        main = of.arm("direction", metric)
        start, end = checks.records(main[main["alpha_norm"] == 0])[0], checks.records(main)[-1]
        rows = checks.records(main[main["alpha_norm"] != 0])
        moved = f"{estimate_of(end)} at {end.alpha_norm:.3g} of the residual norm"
        count = f"{sum(map(_is_beyond, rows))} of {len(rows)} strengths beyond the controls"
        parts.append(f"{metric}: {short(start.value)} unsteered, {moved}, {count}")
    return parts


_ROLES = Roles(
    "arm draw alpha alpha_norm metric value lo hi null_lo null_hi p n n_groups guard toward interval",
    finite="alpha alpha_norm value n",
    mark="metric arm draw alpha_norm",
    known={"arm": ("direction", "orthogonalized", "control")},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=13, word="steering", read=_read)


def dose_response(table: DataFrame, *, width: Width = "full", ax: Axes | Sequence[Axes] | None = None) -> Drawn:
    """Metrics against the strength of a direction, one panel each with its own axis.

    Black is the direction, dashes the orthogonalised one at equal added norm. The band is that of the paired change,
    simultaneous over all strengths: with 95 % it holds the whole curve, so that any strength may be looked for in it.
    It closes at strength 0, where a bar gives the level's own interval. Grey is 95 % of controls of equal norm (random
    and shuffled directions), thin lines are single ones (at most 30). A mark is hollow where it is not beyond the
    controls (p > .05 after the stated correction).

    Args:
        table: the schema table `steering`, of one member and site: one row per (arm, draw, alpha_norm, metric), `arm`
            in direction, orthogonalized, control. `lo, hi` of the direction are the value plus the simultaneous band of
            its change, at 0 the interval of the level; `p` is blank at 0, `guard` for most metrics. Optional:
            `arm_label`, `metric_unit`, `correction`.
        width, ax: as of `FigureSpec.drawn`; one per metric; one alone gets no title.
    Raises:
        ValueError: a column is missing or holds NaN, an arm is unknown, a metric lacks the direction at 0 or any
            control, or a mark repeats.
    Source: FIGURES 10; protocol in steering §B.8.
    """
    return SPEC.drawn(table, width=width, ax=ax)
