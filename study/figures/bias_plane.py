"""Figure 11: whether a change makes a model less biased, or only less committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.labels import Labelled, place_note
from study.figures.marks import Marks, point
from study.figures.numbers import MINUS, fixed
from study.figures.numbers import tick_text as short_tick
from study.figures.style import DATA_LINE, MEMBERS, NOTE, Width, colour, line, styled, text_colour, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "bias_plane"
COLUMNS = (
    "system", "member", "alpha", "coverage", "commit_bias", "cov_xx", "cov_xy", "cov_yy", "effective_groups", "n",
    "n_groups", "interval"
)  # fmt: skip
ROLES = (*MEMBERS, "direction", "control")
_LEFT = 0.58  # inches, for ticks with sign and two decimals
_COVARIANCE = ("cov_xx", "cov_xy", "cov_yy")


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
            controls), `n`, `n_groups`, `interval`
            (how it was bootstrapped). Optional: `alpha_unit`, `unit`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    axes of a composite.
    Raises:
        ValueError: a column is missing or holds NaN, a role is unknown, a value is outside its range, a covariance is
            not positive semi-definite, or a mark repeats.
    Source: FIGURES 11; the product is the identity of BBQ's ambiguous score (Parrish et al. 2022) on one pool.
    """
    _check(table)
    marks = Marks()
    with styled():
        ax = _axes(width) if ax is None else ax
        _frame(ax, table)
        avoid = [*_iso_lines(ax), *_draw(ax, table, marks)]
        _names(ax, table, avoid)
        _legend(ax, table)
    return Drawn(canvas.figure_of(ax), table.copy(), _caption(table), _alt(table), marks.titles)


def _check(table: DataFrame) -> None:
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("alpha", "coverage", "commit_bias", "n"))
    checks.require_known(table["member"], ROLES, what="member", figure=FIGURE)
    sure = table[table["member"] != "control"]
    if len(sure) == 0:
        raise ValueError(f"figure {FIGURE!r}: the table holds controls alone; nothing is compared with them.")
    checks.require(sure, COLUMNS, figure=FIGURE, numeric=(*_COVARIANCE, "effective_groups"))
    checks.require_unique(sure, ("system", "alpha"), figure=FIGURE)
    models = sure[sure["member"].isin(MEMBERS)]
    checks.require_unique(models, ("member",), figure=FIGURE)
    for name, low in (("coverage", 0.0), ("commit_bias", -1.0)):
        if bool(((table[name] < low) | (table[name] > 1)).any()):
            raise ValueError(f"figure {FIGURE!r}: column {name!r} must lie in {low:g} to 1.")
    if (sure["effective_groups"] <= 2).any():
        raise ValueError(f"figure {FIGURE!r}: effective_groups: more than 2 are needed for a joint region.")
    xx, xy, yy = (sure[name].to_numpy(dtype=float) for name in _COVARIANCE)
    if ((xx < 0) | (yy < 0) | (xx * yy - xy**2 < -1e-12)).any():
        raise ValueError(
            f"figure {FIGURE!r}: cov_xx, cov_xy, cov_yy are no covariance in some row: cov_xx·cov_yy >= cov_xy² is "
            "needed. Take all three from the same groups."
        )


def _axes(width: Width) -> Axes:
    total = min(width_in(width), 4.2)
    full = width_in(width)
    figure = canvas.new_figure(full, 0.84 * total)
    return canvas.axes_in(figure, _LEFT, 0.37, total - _LEFT - 0.33, 0.84 * total - 0.37 - 0.46)


def radius2(k: float) -> float:
    """Squared radius of a joint 95 % region of two means from k groups: 2(k - 1)/(k - 2) · F(0.95; 2, k - 2).

    Source: Hotelling, Ann. Math. Stat. 2 (1931) 360.
    """
    from scipy.special import fdtri

    return 2 * (k - 1) / (k - 2) * float(fdtri(2, k - 2, 0.95))


def _ellipse(row: Any, points: int = 120) -> np.ndarray:
    """The 95 % contour as points [k, 2], from the eigenvectors of the covariance."""
    covariance = np.array([[row.cov_xx, row.cov_xy], [row.cov_xy, row.cov_yy]])
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, points)
    circle = np.column_stack([np.cos(angle), np.sin(angle)]) * np.sqrt(
        np.clip(values, 0, None) * radius2(float(row.effective_groups))
    )
    return circle @ vectors.T + [row.coverage, row.commit_bias]


def _with_ellipse(table: DataFrame) -> list[Any]:
    """Models, and of each direction its weakest and its strongest point."""
    rows = [row for row in checks.records(table) if row.member in MEMBERS]
    for _, steps in table[table["member"] == "direction"].groupby("system", sort=False):
        path = checks.records(steps.sort_values("alpha", key=abs))
        rows += [path[0], path[-1]] if len(path) > 1 else path
    return rows


def _frame(ax: Axes, table: DataFrame) -> None:
    reach = np.concatenate([_ellipse(row) for row in _with_ellipse(table)])
    xs, ys = ([*table[name], *reach[:, k]] for k, name in enumerate(("coverage", "commit_bias")))
    for setter, values, least in ((ax.set_xlim, xs, 0.2), (ax.set_ylim, ys, 0.15)):
        low, high = float(min(values)), float(max(values))
        pad = max(0.1 * (high - low), (least - (high - low)) / 2)
        setter(low - pad, high + pad)
    if ax.get_xlim()[0] < 0:
        ax.set_xlim(left=0)
    ax.set_xlabel("coverage  P(commit | ambiguous)")
    ax.set_ylabel(f"commit bias  2 P(stereo | commit) {MINUS} 1")
    if canvas.figure_of(ax).get_size_inches()[0] * ax.get_position().x0 == _LEFT:
        ax.yaxis.set_label_coords(
            -(_LEFT - 0.17) / (ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0]), 0.5
        )
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.yaxis.set_major_locator(canvas.locator(6))


def _iso_lines(ax: Axes) -> list[Labelled]:
    """Curves of equal product, each named where it leaves the axes, above or at the right; returns the curves."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    w, h = canvas.figure_of(ax).get_size_inches()
    box = ax.get_position()
    inches = np.array([box.width * w, box.height * h])
    corners = [x * y for x in (x0, x1) for y in (y0, y1)]
    levels = [s for s in canvas.locator(6).tick_values(min(corners), max(corners)) if min(corners) < s < max(corners)]
    x = np.linspace(max(x0, 1e-3), x1, 400)
    placed: list[np.ndarray] = []
    lines: list[Labelled] = []
    for level in levels:
        level = 0.0 if abs(level) < 1e-9 else level
        y = level / x
        inside = (y >= y0) & (y <= y1)
        if inside.sum() < 2:
            continue
        at_top = level > 0 and y1 > 0 and x0 < level / y1 < x1
        if not at_top and not y0 <= level / x1 <= y1:
            continue  # it only cuts the lower corner, where it cannot be named
        ax.plot(x[inside], y[inside], color=colour("faint"), linewidth=0.7, zorder=0.5)
        lines.append(Labelled(list(x[inside]), list(y[inside]), "", ""))
        end = np.array([level / y1, y1]) if at_top else np.array([x1, level / x1])
        place = (end - [x0, y0]) / [x1 - x0, y1 - y0] * inches
        if any(np.abs(place - other)[0] < 0.27 and np.abs(place - other)[1] < 0.13 for other in placed):
            continue
        placed.append(place)
        ax.annotate(
            short_tick(level), tuple(end), xytext=(0, 2) if at_top else (3, 0), textcoords="offset points",
            ha="center" if at_top else "left", va="bottom" if at_top else "center", fontsize=NOTE, color=colour("ink2"),
            annotation_clip=False
        )  # fmt: skip
    return lines


def _draw(ax: Axes, table: DataFrame, marks: Marks) -> list[Labelled]:
    """Ellipses, arrows, paths and marks; returns what labels should not cover."""
    avoid = []
    for row in _with_ellipse(table):
        role = "ink" if row.member == "direction" else row.member
        contour = _ellipse(row)
        ax.fill(*contour.T, facecolor=colour(role), alpha=0.14, linewidth=0, zorder=1)
        ax.plot(*contour.T, color=colour(role), linewidth=0.9, linestyle=line(role), zorder=2)
        avoid.append(_line(contour))
    base = [row for row in checks.records(table) if row.member == "base"]
    for row in checks.records(table):
        if row.member in ("engaged", "heuristic") and base:
            _arrow(ax, base[0], row)
            avoid.append(Labelled((base[0].coverage, row.coverage), (base[0].commit_bias, row.commit_bias), "", ""))
    for row in checks.records(table[table["member"] == "control"]):
        mark = point(ax, row.coverage, row.commit_bias, "control", filled=False, size=3, zorder=3)
        marks.name(mark, f"control-{row.Index}", _words(row))
    for number, (_, steps) in enumerate(table[table["member"] == "direction"].groupby("system", sort=False)):
        path = steps.sort_values("alpha")
        ax.plot(path["coverage"], path["commit_bias"], color=colour("ink"), linewidth=DATA_LINE, zorder=4)
        avoid.append(Labelled(list(path["coverage"]), list(path["commit_bias"]), "", ""))
        for row in checks.records(path):
            mark = point(
                ax, row.coverage, row.commit_bias, "ink", filled=row.alpha != 0, marker="o", size=3.2, zorder=5
            )
            marks.name(mark, f"direction{number}-{row.Index}", _words(row))
    for row in checks.records(table):
        if row.member in MEMBERS:
            marks.name(
                point(ax, row.coverage, row.commit_bias, row.member, size=5.5, zorder=6), row.member, _words(row)
            )
            avoid.append(Labelled([row.coverage] * 5, [row.commit_bias] * 5, "", ""))
    return avoid


def _line(contour: np.ndarray) -> Labelled:
    return Labelled(list(contour[:, 0]), list(contour[:, 1]), "", "")


def _arrow(ax: Axes, start: Any, end: Any) -> None:
    ax.annotate(
        "", (end.coverage, end.commit_bias), (start.coverage, start.commit_bias), zorder=3,
        arrowprops={"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": colour(end.member), "linewidth": 1.1,
                    "shrinkA": 4, "shrinkB": 5}
    )  # fmt: skip


def _words(row: Any) -> str:
    at = "" if row.alpha == 0 else f", α = {row.alpha:g}".replace("-", MINUS)
    return (
        f"{row.system}{at}: coverage {fixed(row.coverage, 3)}, commit bias {fixed(row.commit_bias, 3)}, s_AMB "
        f"{fixed(row.coverage * row.commit_bias, 3)}, n = {int(row.n)}"
    )


def _names(ax: Axes, table: DataFrame, avoid: list[Labelled]) -> None:
    taken: list[np.ndarray] = []
    for row in checks.records(table):
        if row.member in MEMBERS:
            note = _line(_ellipse(row))
            note = Labelled(note.x, note.y, str(row.system), text_colour(row.member), "bold")
            place_note(ax, note, avoid=avoid, taken=taken)
    for name, steps in table[table["member"] == "direction"].groupby("system", sort=False):
        path = checks.records(steps.sort_values("alpha", key=abs))
        far = _line(_ellipse(path[-1]))
        text = f"{name}: α {_short(path[0].alpha)} → {_short(path[-1].alpha)}" if len(path) > 1 else str(name)
        place_note(ax, Labelled(far.x, far.y, text, colour("ink")), avoid=avoid, taken=taken)


def _short(alpha: float) -> str:
    return f"{alpha:.3g}".replace("0.", ".", 1).replace("-", MINUS)


def _legend(ax: Axes, table: DataFrame) -> None:
    entries = [canvas.line_entry("faint", "equal s_AMB = coverage × bias", style="", width=0.9)]
    if (table["member"] == "control").any():
        entries.append(canvas.key_entry("control", "random directions, same norm", filled=False, bar=False))
    w = canvas.figure_of(ax).get_size_inches()[0]
    canvas.legend_above(ax, entries, lift=0.17, columns=canvas.legend_columns(entries, w - 0.1), outdent=True)


def _caption(table: DataFrame) -> str:
    sure = table[table["member"] != "control"]
    controls = int((table["member"] == "control").sum())
    names = ", ".join(dict.fromkeys(str(name) for name in sure["system"]))
    unit = checks.only_value(table, "alpha_unit", figure=FIGURE)
    return checks.sentences(
        f"Coverage against commit bias: {names}" + (f" (α in {unit})" if unit else ""),
        checks.sample_size(sure, figure=FIGURE),
        f"Ellipses: joint 95 % region, {checks.interval_kind(sure, figure=FIGURE)}; of a direction at its weakest and "
        "strongest point",
        "Arrows: change from base" if {"base"} < set(sure["member"]) & set(MEMBERS) else "",
        f"△ the null: {controls} random directions of the same norm"
        if controls
        else "No control directions in the table",
        "Lines of equal s_AMB = coverage × commit bias; a move along them is not a gain",
        checks.provenance(sure),
    )


def _alt(table: DataFrame) -> str:
    parts = [_words(row) for row in checks.records(table) if row.member in MEMBERS]
    for name, steps in table[table["member"] == "direction"].groupby("system", sort=False):
        path = checks.records(steps.sort_values("alpha", key=abs))
        parts.append(f"{name}: from {_words(path[0])} to {_words(path[-1])}")
    return "Plane of coverage and commit bias. " + ". ".join(parts) + "."
