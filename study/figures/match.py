"""Figure 09: whether the heads of one model have counterparts in a model of another depth, beyond chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from study.figures import canvas, checks
from study.figures.drawn import Drawn
from study.figures.labels import Labelled, place_note
from study.figures.marks import Marks
from study.figures.multiples import Frame, given, small_multiples
from study.figures.numbers import short
from study.figures.style import DATA_LINE, NOTE, REFERENCE_LINE, Width, colour, line, styled, width_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from pandas import DataFrame

FIGURE = "match_heads"
COLUMNS = (
    "layer_a", "head_a", "layer_b", "head_b", "depth_a", "depth_b", "r", "margin", "null_max95", "mutual",
    "self_match_r", "named", "n",
)  # fmt: skip
ARMS = ("match", "permuted", "self")
WINDOW = 3
"""Layers of the second model to each side of equal relative depth."""
_TITLES = ("mutual nearest heads", "is a match better than chance?")


def match_heads(table: DataFrame, *, width: Width = "neurips", ax: Sequence[Axes] | None = None) -> Drawn:
    """Mutual nearest heads of two models by relative depth, and their correlations next to null and self-match.

    Left: one mark per mutual pair, its area by r, filled above the item-permuted maximum; the band is the window of ±3
    layers of the second model. Heads named beforehand are boxed, with r and the margin to the second best, also
    where their nearest head does not choose them back. Right: the distribution of r, the null, and the self-match
    control, which says how well the matcher finds a head that must have a counterpart.

    Args:
        table: one row per head of the first model: `layer_a, head_a`, its nearest head `layer_b, head_b`, `depth_a,
            depth_b` ((layer + ½)/L), `r` (correlation of per-item effects), `margin` (r minus the second best),
            `null_max95` (95 % of the maximum r with items permuted), `mutual` and `named` (bool), `self_match_r`
            (median r of a head with itself in the control pair), `n` (items). Optional: `arm`: match (the rows above),
            permuted (one permutation's maximum per row, in `r`), self (one control head per row, in `r`);
            `checkpoint_a, checkpoint_b`, `self_label`, `unit`, `n_groups`, `group_unit`, `model`, `dtype`.
        width: final width; unused where `ax` is given.
        ax:    two axes of a composite.
    Raises:
        ValueError: a column is missing or holds NaN, a head of the first model repeats, r is outside -1 to 1, or a
            depth is not (layer + ½)/L for one L per model.
    Source: FIGURES 09; permuted maximum after Westfall & Young 1993.
    """
    matches = _check(table)
    marks = Marks()
    with styled():
        if ax is None:
            total = width_in(width)
            frame = Frame(left=0.45, right=0.1, gap=0.5, bottom=0.37, between=0.45)
            most = 1 if width == "icml" else 2
            panels = small_multiples(_TITLES, total, tall=1.75, frame=frame, most=most)
            left, right = panels.axes
        else:
            left, right = given(ax, _TITLES, figure=FIGURE).axes
        _draw_pairs(left, matches, marks)
        _draw_distribution(right, table, matches, marks)
    return Drawn(canvas.figure_of(left), table.copy(), _caption(table, matches), _alt(matches), marks.titles)


def _check(table: DataFrame) -> DataFrame:
    """The rows of the arm `match`."""
    checks.require(table, COLUMNS, figure=FIGURE, numeric=("r",))
    if "arm" in table.columns:
        checks.require_known(table["arm"], ARMS, what="arm", figure=FIGURE)
    matches = table[table["arm"] == "match"] if "arm" in table.columns else table
    numeric = tuple(name for name in COLUMNS if name not in ("mutual", "named"))
    checks.require(matches, COLUMNS, figure=FIGURE, numeric=numeric)
    checks.require_unique(matches, ("layer_a", "head_a"), figure=FIGURE)
    for name in ("null_max95", "self_match_r"):
        checks.only_value(matches, name, figure=FIGURE)
    if bool((table["r"].abs() > 1 + 1e-9).any()):
        raise ValueError(f"figure {FIGURE!r}: r is a correlation, in -1 to 1; found {table['r'].abs().max():g}.")
    for side in "ab":
        _layers(matches, side)
    return matches


def _layers(matches: DataFrame, side: str) -> int:
    """Layers of one model, from  depth = (layer + ½)/L."""
    layer, depth = (matches[f"{name}_{side}"].to_numpy(dtype=float) for name in ("layer", "depth"))
    n_layers = np.median((layer + 0.5) / np.maximum(depth, 1e-9))
    if not np.allclose(depth * round(n_layers), layer + 0.5, atol=0.05):
        raise ValueError(
            f"figure {FIGURE!r}: depth_{side} is not (layer_{side} + ½)/L for one number of layers L. Layers "
            "count from 0."
        )
    return round(n_layers)


def _name(matches: DataFrame, side: str) -> str:
    default = {"a": "first model", "b": "second model"}[side]
    return str(checks.only_value(matches, f"checkpoint_{side}", figure=FIGURE, default=default))


def _shown(matches: DataFrame) -> DataFrame:
    return matches[matches["mutual"].astype(bool) | matches["named"].astype(bool)]


def _head(row: Any, side: str) -> str:
    return f"L{int(getattr(row, f'layer_{side}'))}.H{int(getattr(row, f'head_{side}'))}"


def _is_beyond(row: Any) -> bool:
    return bool(row.r > row.null_max95)


def _draw_pairs(ax: Axes, matches: DataFrame, marks: Marks) -> None:
    n_b = _layers(matches, "b")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    half = WINDOW / n_b
    ax.fill_between([0, 1], [-half, 1 - half], [half, 1 + half], color=colour("null"), linewidth=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=colour("ink2"), linewidth=REFERENCE_LINE, linestyle=line("chance"), zorder=1)
    avoid = [Labelled((0, 1), (0, 1), "", "")]
    for row in sorted(checks.records(_shown(matches)), key=lambda r: r.r):
        filled = _is_beyond(row) and row.mutual
        (mark,) = ax.plot(
            [row.depth_a],
            [row.depth_b],
            "o",
            markersize=1.6 + 2.8 * max(row.r, 0) ** 0.5,
            zorder=3 + filled,
            color=colour("ink" if filled else "control"),
            markerfacecolor=colour("ink" if filled else "paper"),
            markeredgewidth=0.7,
            alpha=0.8 if filled else 1.0,
            clip_on=False,
        )
        verdict = "mutual" if row.mutual else "not mutual"
        marks.name(
            mark,
            f"match-{_head(row, 'a')}".replace(".", "-"),
            f"{_head(row, 'a')} → {_head(row, 'b')}: r = {short(row.r)}, margin {short(row.margin)}, {verdict}, "
            f"{'above' if _is_beyond(row) else 'below'} the null {short(row.null_max95)}",
        )
        avoid += [Labelled([row.depth_a] * 3, [row.depth_b] * 3, "", "")]
    taken: list[np.ndarray] = []
    for row in checks.records(matches[matches["named"].astype(bool)]):
        _box(ax, row, matches, avoid, taken)
    ax.set_xlabel(f"{_name(matches, 'a')} depth (layer + ½)/{_layers(matches, 'a')}")
    ax.set_ylabel(f"{_name(matches, 'b')} depth (layer + ½)/{n_b}")
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.yaxis.set_major_locator(canvas.locator(5))


def _box(ax: Axes, row: Any, matches: DataFrame, avoid: list[Labelled], taken: list[np.ndarray]) -> None:
    """A box around a head that was named beforehand, with its numbers; thin and grey where its match is not beyond the
    null or not mutual."""
    is_match = _is_beyond(row) and row.mutual
    shade, thick = colour("ink" if is_match else "ink2"), 1.1 if is_match else 0.5
    ax.plot(
        [row.depth_a],
        [row.depth_b],
        "s",
        markersize=8,
        markerfacecolor="none",
        color=shade,
        markeredgewidth=thick,
        zorder=6,
        clip_on=False,
    )
    back = "" if row.mutual else ", not mutual"
    text = f"{_head(row, 'a')} → {_head(row, 'b')}\nr = {short(row.r)}, margin {short(row.margin)}{back}"
    # far enough from the box that it is not covered
    note = Labelled([row.depth_a] * 2, [max(row.depth_b - 0.06, 0), min(row.depth_b + 0.06, 1)], text, shade)
    place_note(ax, note, avoid=avoid, taken=taken, size=NOTE)
    w, h = (getattr(ax.get_position(), side) for side in ("width", "height"))
    inches = canvas.figure_of(ax).get_size_inches()
    low, high = taken[-1] / (np.array([w, h]) * inches)
    start = np.array([row.depth_a, row.depth_b])
    end = np.clip(start, low, high)
    gap = (end - start) * np.array([w, h]) * inches
    if np.hypot(*gap) > 0.12:
        start = start + (end - start) * 0.07 / np.hypot(*gap)
        ax.plot([start[0], end[0]], [start[1], end[1]], color=shade, linewidth=0.7 * thick, zorder=5)


def _draw_distribution(ax: Axes, table: DataFrame, matches: DataFrame, marks: Marks) -> None:
    """Densities of r: the matches, the permuted maxima, the self-match control."""
    r = _shown(matches)["r"].to_numpy(dtype=float)
    null, own = (_arm(table, name) for name in ("permuted", "self"))
    limit, control = float(matches["null_max95"].iloc[0]), float(matches["self_match_r"].iloc[0])
    edges = np.arange(np.floor(20 * min([0.0, *r, *null, *own])) / 20, 1.0501, 0.05)
    if len(null):
        heights = np.histogram(null, edges)[0] / len(null)
        marks.name(
            ax.stairs(heights, edges, fill=True, color=colour("null"), zorder=0),
            "null",
            f"maximum r with items permuted, {len(null)} draws, 95 % below {short(limit)}",
        )
    else:
        ax.axvspan(edges[0], limit, color=colour("null"), linewidth=0, zorder=0)
    if len(own):
        ax.stairs(np.histogram(own, edges)[0] / len(own), edges, color=colour("control"), linewidth=0.8, zorder=2)
    if len(r):
        drawn = ax.stairs(np.histogram(r, edges)[0] / len(r), edges, color=colour("ink"), linewidth=DATA_LINE, zorder=3)
        marks.name(drawn, "matches", f"r of {len(r)} matches, {int((r > limit).sum())} above the null")
    ax.axvline(limit, color=colour("ink2"), linewidth=0.9, linestyle=line("max_null"), zorder=2)
    ax.axvline(control, color=colour("base"), linewidth=0.9, linestyle=line("chance"), zorder=2)
    ax.set_xlim(edges[0], 1.02)
    top = 1.32 * max(ax.get_ylim()[1], 0.02)
    ax.set_ylim(0, top)
    ax.set_yticks([])
    canvas.bare(ax)
    ax.set_xlabel("correlation of per-item effects r")
    ax.xaxis.set_major_locator(canvas.locator(5))
    label = checks.only_value(matches, "self_label", figure=FIGURE, default="self-match")
    _name_lines(ax, (limit, control), str(label), left=float(edges[0]))
    avoid = [Labelled((edges[0], 1.0), (0.8 * top, 0.8 * top), "", "")]
    if len(r):
        heights = np.histogram(r, edges)[0] / len(r)
        x = np.repeat(edges, 2)[1:-1]
        y = np.repeat(heights, 2)
        peak = int(np.argmax(heights))
        place_note(
            ax,
            Labelled([edges[peak], edges[peak + 1]], [heights[peak]] * 2, "matches", colour("ink"), "bold"),
            avoid=[
                Labelled(list(x), list(y), "", ""),
                Labelled([limit] * 2, [0, top], "", ""),
                Labelled([control] * 2, [0, top], "", ""),
                *avoid,
            ],
            taken=[],
        )


def _name_lines(ax: Axes, at: tuple[float, float], label: str, *, left: float) -> None:
    """The null's limit and the self-match, each beside its line, where possible on the side away from the other."""
    limit, control = at
    inches = ax.get_position().width * canvas.figure_of(ax).get_size_inches()[0] / (1.02 - left)
    is_crossed = control < limit
    null_right = is_crossed or limit < 0.5 * (1.02 + left) - 0.2
    _above_line(ax, limit, f"95 % null (max)\n{short(limit)}", right=null_right)
    between = control - (left if is_crossed else max(limit, left))
    text = canvas.wrap(label, size=NOTE, max_in=max(between * inches - 0.1, 0.5))
    _above_line(ax, control, f"{text}\n{short(control)}", right=control < 0.3 and not is_crossed)


def _above_line(ax: Axes, x: float, text: str, *, right: bool) -> None:
    """The name of a vertical line, at its upper end beside it."""
    ax.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3 if right else -3, -1),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=NOTE,
        color=colour("ink2"),
        linespacing=1.15,
    )


def _arm(table: DataFrame, name: str) -> np.ndarray:
    rows = table[table["arm"] == name] if "arm" in table.columns else table.head(0)
    return rows["r"].to_numpy(dtype=float)


def _counts(matches: DataFrame) -> tuple[int, int, int]:
    """Mutual pairs, those above the null, and of these those inside the window."""
    rows = matches[matches["mutual"].astype(bool)]
    beyond = rows[rows["r"] > rows["null_max95"]]
    inside = (beyond["depth_a"] - beyond["depth_b"]).abs() <= WINDOW / _layers(matches, "b") + 1e-9
    return len(rows), len(beyond), int(inside.sum())


def _caption(table: DataFrame, matches: DataFrame) -> str:
    mutual, beyond, inside = _counts(matches)
    null, own = (_arm(table, name) for name in ("permuted", "self"))
    label = checks.only_value(matches, "self_label", figure=FIGURE, default="self-match")
    return checks.sentences(
        f"Heads of {_name(matches, 'a')} and their nearest heads in {_name(matches, 'b')} by correlation r of per-item "
        f"effects: {mutual} mutual pairs of {len(matches)} heads",
        f"{checks.sample_size(matches, figure=FIGURE)}; area of a mark by r",
        f"Filled: r above {short(float(matches['null_max95'].iloc[0]))}, the 95 % limit of the null, the maximum over "
        "pairs with items permuted"
        + (f" ({len(null)} draws)" if len(null) else "")
        + f"; {beyond} pairs, {inside} of them within ±{WINDOW} layers (band)",
        "Box: head named beforehand, thin where it has no match beyond the null; margin = r minus the second best"
        if matches["named"].astype(bool).any()
        else "",
        f"Right: shares of r in steps of .05; control, {label}: {short(float(matches['self_match_r'].iloc[0]))}"
        + (f" ({len(own)} heads)" if len(own) else ""),
        "No interval on r: read it against the null and the control",
        checks.provenance(matches),
    )


def _alt(matches: DataFrame) -> str:
    mutual, beyond, inside = _counts(matches)
    text = f"Scatter of {mutual} mutual nearest heads by depth: {beyond} above the null, "
    text += f"{inside} of them near equal depth."
    for row in checks.records(matches[matches["named"].astype(bool)]):
        text += (
            f" Named head {_head(row, 'a')} → {_head(row, 'b')}, r {short(row.r)}, margin {short(row.margin)}, "
            f"{'mutual' if row.mutual else 'not mutual'}, {'above' if _is_beyond(row) else 'not above'} the null."
        )
    return text + f" The self-match control reaches {short(float(matches['self_match_r'].iloc[0]))}."
