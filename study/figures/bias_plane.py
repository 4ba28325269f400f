"""Figure 11: whether a change makes a model less biased, or only less committed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.labels import Labelled, place_note
from study.figures.marks import point
from study.figures.mpl import Record, Style
from study.figures.numbers import MINUS, fixed, tick_text
from study.figures.style import DATA_LINE, MEMBERS, NOTE, Width, colour, line, text_colour, width_in

FIGURE = "bias_plane"
_LEFT = 0.58  # inches, for ticks with sign and two decimals
_COVARIANCE = ("cov_xx", "cov_xy", "cov_yy")
_SURE = Roles("interval", finite=f"{' '.join(_COVARIANCE)} effective_groups", mark="system alpha")


def _read(table: DataFrame) -> DataFrame:
    sure = table[table["member"] != "control"]
    if len(sure) == 0:
        raise ValueError(f"figure {FIGURE!r}: the table has only controls; there is no direction to compare with them.")
    _SURE.check(sure, figure=FIGURE)
    checks.require_unique(sure[sure["member"].isin(MEMBERS)], ("member",), figure=FIGURE)
    if (sure["effective_groups"] <= 2).any():
        raise ValueError(f"figure {FIGURE!r}: effective_groups: more than 2 are needed for a joint region.")
    xx, xy, yy = (sure[name].to_numpy(dtype=float) for name in _COVARIANCE)
    if ((xx < 0) | (yy < 0) | (xx * yy - xy**2 < -1e-12)).any():
        raise ValueError(
            f"figure {FIGURE!r}: cov_xx, cov_xy, cov_yy are not a valid covariance in some row: cov_xx·cov_yy >= "
            "cov_xy² is needed. Take all three from the same groups."
        )
    return table


def radius2(k: float) -> float:
    """Squared radius of a joint 95 % region of two means from k groups: 2(k - 1)/(k - 2) · F(0.95; 2, k - 2).

    Source: Hotelling, Ann. Math. Stat. 2 (1931) 360.
    """
    from scipy.special import fdtri

    return 2 * (k - 1) / (k - 2) * float(fdtri(2, k - 2, 0.95))


def _ellipse(row: Record, points: int = 120) -> np.ndarray:
    """The 95 % contour as points [k, 2], from the eigenvectors of the covariance."""
    covariance = np.array([[row.cov_xx, row.cov_xy], [row.cov_xy, row.cov_yy]])
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, points)
    axes = np.sqrt(np.clip(values, 0, None) * radius2(float(row.effective_groups)))
    return np.column_stack([np.cos(angle), np.sin(angle)]) * axes @ vectors.T + [row.coverage, row.commit_bias]


def _models(table: DataFrame) -> list[Record]:
    return [row for row in checks.records(table) if row.member in MEMBERS]


def _paths(table: DataFrame) -> Iterator[tuple[str, list[Record]]]:
    """Every direction with its points, the weakest first."""
    for name, steps in table[table["member"] == "direction"].groupby("system", sort=False):
        yield str(name), checks.records(steps.sort_values("alpha", key=abs))


def _with_ellipse(table: DataFrame) -> list[Record]:
    """Models, and of each direction its weakest and its strongest point."""
    ends = [row for _, path in _paths(table) for row in (path if len(path) == 1 else (path[0], path[-1]))]
    return _models(table) + ends


def _draw(page: Page, table: DataFrame) -> Axes:
    total = min(page.total, 4.2)
    room = (total - _LEFT - 0.33, 0.84 * total - 0.37 - 0.46)
    ax = page.axes(lambda: canvas.axes_in(canvas.new_figure(width_in(page.width), 0.84 * total), _LEFT, 0.37, *room))
    _fit(ax, table, own=page.own)
    avoid = [*_iso_lines(ax), *_regions(ax, table)]
    avoid += _arrows(ax, table)
    for row in checks.records(table[table["member"] == "control"]):
        mark = point(ax, row.coverage, row.commit_bias, "control", filled=False, size=3, zorder=3)
        page.marks.name(mark, f"control-{row.Index}", _words(row))
    avoid += _draw_paths(page, ax, table)
    for row in _models(table):
        mark = point(ax, row.coverage, row.commit_bias, row.member, size=5.5, zorder=6)
        page.marks.name(mark, row.member, _words(row))
        avoid.append(Labelled([row.coverage] * 5, [row.commit_bias] * 5))
    _names(ax, table, avoid)
    entries = [canvas.line_entry("faint", "equal s_AMB = coverage × bias", style="", width=0.9)]
    if (table["member"] == "control").any():
        entries.append(canvas.key_entry("control", "random directions, same norm", filled=False, bar=False))
    columns = canvas.legend_columns(entries, canvas.figure_of(ax).get_size_inches()[0] - 0.1)
    canvas.legend_above(ax, entries, lift=0.17, columns=columns, outdent=True)
    return ax


def _fit(ax: Axes, table: DataFrame, *, own: bool) -> None:
    reach = np.concatenate([_ellipse(row) for row in _with_ellipse(table)])
    xs, ys = ([*table[name], *reach[:, k]] for k, name in enumerate(("coverage", "commit_bias")))
    for setter, values, least in ((ax.set_xlim, xs, 0.2), (ax.set_ylim, ys, 0.15)):
        low, high = float(min(values)), float(max(values))
        pad = max(0.1 * (high - low), (least - (high - low)) / 2)
        setter(low - pad, high + pad)
    ax.set_xlim(left=max(ax.get_xlim()[0], 0))
    ax.set(xlabel="coverage  P(commit | ambiguous)", ylabel=f"commit bias  2 P(stereo | commit) {MINUS} 1")
    if own:
        ax.yaxis.set_label_coords(-(_LEFT - 0.17) / canvas.size_of(ax)[0], 0.5)
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.yaxis.set_major_locator(canvas.locator(6))


def _iso_lines(ax: Axes) -> list[Labelled]:
    """Curves of equal product, each named where it leaves the axes, above or at the right; returns the curves."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    corners = [x * y for x in (x0, x1) for y in (y0, y1)]
    levels = [s for s in canvas.locator(6).tick_values(min(corners), max(corners)) if min(corners) < s < max(corners)]
    x = np.linspace(max(x0, 1e-3), x1, 400)
    placed: list[np.ndarray] = []
    lines: list[Labelled] = []
    for level in levels:
        level = 0.0 if abs(level) < 1e-9 else level
        y = level / x
        inside = (y >= y0) & (y <= y1)
        at_top = level > 0 and y1 > 0 and x0 < level / y1 < x1
        if inside.sum() < 2 or (not at_top and not y0 <= level / x1 <= y1):
            continue  # it only cuts the lower corner, where it cannot be named
        ax.plot(x[inside], y[inside], color=colour("faint"), linewidth=0.7, zorder=0.5)
        lines.append(Labelled(list(x[inside]), list(y[inside])))
        end = np.array([level / y1, y1]) if at_top else np.array([x1, level / x1])
        place = (end - [x0, y0]) / [x1 - x0, y1 - y0] * canvas.size_of(ax)
        if any(np.abs(place - other)[0] < 0.27 and np.abs(place - other)[1] < 0.13 for other in placed):
            continue
        placed.append(place)
        by, ha, va = ((0, 2), "center", "bottom") if at_top else ((3, 0), "left", "center")
        style: Style = {"fontsize": NOTE, "color": colour("ink2"), "annotation_clip": False}
        canvas.note(ax, float(end[0]), float(end[1]), tick_text(level), "data", by, ha=ha, va=va, **style)
    return lines


def _regions(ax: Axes, table: DataFrame) -> list[Labelled]:
    """The ellipses; returned as lines."""
    lines = []
    for row in _with_ellipse(table):
        role, contour = "ink" if row.member == "direction" else row.member, _ellipse(row)
        ax.fill(*contour.T, facecolor=colour(role), alpha=0.14, linewidth=0, zorder=1)
        ax.plot(*contour.T, color=colour(role), linewidth=0.9, linestyle=line(role), zorder=2)
        lines.append(Labelled(*contour.T.tolist()))
    return lines


def _arrows(ax: Axes, table: DataFrame) -> list[Labelled]:
    """From the base model to what was trained from it; returned as lines."""
    lines, style = (
        [],
        {"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "linewidth": 1.1, "shrinkA": 4, "shrinkB": 5},
    )
    base = [row for row in _models(table) if row.member == "base"]
    for row in _models(table):
        if base and row.member != "base":
            ends = (row.coverage, row.commit_bias), (base[0].coverage, base[0].commit_bias)
            ax.annotate("", *ends, zorder=3, arrowprops={**style, "color": colour(row.member)})
            lines.append(Labelled((ends[1][0], ends[0][0]), (ends[1][1], ends[0][1])))
    return lines


def _draw_paths(page: Page, ax: Axes, table: DataFrame) -> list[Labelled]:
    lines = []
    for number, (_, path) in enumerate(_paths(table)):
        path = sorted(path, key=lambda row: row.alpha)
        x, y = [row.coverage for row in path], [row.commit_bias for row in path]
        ax.plot(x, y, color=colour("ink"), linewidth=DATA_LINE, zorder=4)
        lines.append(Labelled(x, y))
        for row in path:
            mark = point(
                ax, row.coverage, row.commit_bias, "ink", filled=row.alpha != 0, marker="o", size=3.2, zorder=5
            )
            page.marks.name(mark, f"direction{number}-{row.Index}", _words(row))
    return lines


def _words(row: Record) -> str:
    at = "" if row.alpha == 0 else f", α = {row.alpha:g}".replace("-", MINUS)
    shares = f"coverage {fixed(row.coverage, 3)}, commit bias {fixed(row.commit_bias, 3)}"
    return f"{row.system}{at}: {shares}, s_AMB {fixed(row.coverage * row.commit_bias, 3)}, n = {int(row.n)}"


def _names(ax: Axes, table: DataFrame, avoid: list[Labelled]) -> None:
    notes = [(row, str(row.system), text_colour(row.member), "bold") for row in _models(table)]
    for name, path in _paths(table):
        span = f": α {tick_text(path[0].alpha)} → {tick_text(path[-1].alpha)}" if len(path) > 1 else ""
        notes.append((path[-1], f"{name}{span}", colour("ink"), "normal"))
    taken: list[np.ndarray] = []
    for row, *words in notes:
        place_note(ax, Labelled(*_ellipse(row).T.tolist(), *words), avoid=avoid, taken=taken)


def _caption(table: DataFrame) -> Caption:
    sure = table[table["member"] != "control"]
    controls = len(table) - len(sure)
    unit = checks.only_value(table, "alpha_unit", figure=FIGURE)
    names = ", ".join(dict.fromkeys(str(name) for name in sure["system"]))
    ends = "for a direction, at its weakest and strongest point"
    null = f"△ the null: {controls} random directions of the same norm"
    return Caption(
        what=f"Coverage against commit bias: {names}{f' (α in {unit})' if unit else ''}",
        reading="Arrows: change from base" if {"base"} < set(sure["member"]) & set(MEMBERS) else "",
        n=checks.sample_size(sure, figure=FIGURE),
        interval=f"Ellipses: joint 95 % region, {checks.interval_kind(sure, figure=FIGURE)}; {ends}",
        control=null if controls else "No control directions in the table",
        notes="Lines of equal s_AMB = coverage × commit bias; moving along them is not a gain",
    )


def _alt(table: DataFrame) -> list[str]:
    paths = [f"{name}: from {_words(path[0])} to {_words(path[-1])}" for name, path in _paths(table)]
    return ["Plane of coverage and commit bias", *map(_words, _models(table)), *paths]


_ROLES = Roles(
    "system member alpha coverage commit_bias cov_xx cov_xy cov_yy effective_groups n n_groups interval",
    finite="alpha coverage commit_bias n",
    known={"member": (*MEMBERS, "direction", "control")},
    within={"coverage": (0, 1), "commit_bias": (-1, 1)},
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=15, word="plane", read=_read)


def bias_plane(table: DataFrame, *, width: Width = "icml", ax: Axes | None = None) -> Drawn:
    """Coverage against commit bias, with lines of equal s_AMB = coverage · commit bias.

    Ellipses are joint 95 % regions, (z - mean)ᵀ C⁻¹ (z - mean) = 2(k - 1)/(k - 2) · F(0.95; 2, k - 2) with k the
    effective number of groups (Hotelling; 5.991, that of a normal, for many groups). Arrows lead from
    the base model to what was trained from it; black joins the strengths of a direction, hollow at 0; triangles are
    random directions of the same norm. A move along an iso-line is no gain.

    The regions take both shares as normal: of simulated studies with 6 to 40 groups they hold the truth in 0.93 to 0.97
    where 0.3 or 0.6 of the items are committed, and in 0.82 to 0.90 where 0.9 are, or where the bias is 0.6 in 6 groups
    (docs/concepts/validity.md). A difference of two systems is read off its own interval.

    Args:
        table: one row per mark: `system` (its name), `member`: engaged, heuristic, base, direction or control; `alpha`
            (strength; 0 for models), `coverage` = P(commit | ambiguous), `commit_bias` = 2 P(stereo | commit) - 1,
            `cov_xx, cov_xy, cov_yy` (covariance of the two over groups) and `effective_groups` (all four blank for
            controls), `n`, `n_groups`, `interval` (how it was bootstrapped). Optional: `alpha_unit`.
        width, ax: as of `FigureSpec.drawn`.
    Raises:
        ValueError: a column is missing or holds NaN, a role is unknown, a value is outside its range, a covariance is
            not positive semi-definite, or a mark repeats.
    Source: FIGURES 11; the product is the identity of BBQ's ambiguous score (Parrish et al. 2022) on one pool.
    """
    return SPEC.drawn(table, width=width, ax=ax)
