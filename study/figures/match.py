"""Figure 09: whether the heads of one model have counterparts in a model of another depth, beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.figures import canvas, checks
from study.figures.frame import Axes, Caption, DataFrame, Drawn, FigureSpec, Page, Roles
from study.figures.labels import Labelled, place_note
from study.figures.marks import Marks, reference, reference_diagonal
from study.figures.mpl import Record, Style
from study.figures.multiples import Room
from study.figures.numbers import short
from study.figures.style import DATA_LINE, NOTE, Width, colour

FIGURE = "match_heads"
WINDOW = 3
"""Layers of the second model to each side of equal relative depth."""
_TITLES = ("mutual nearest heads", "is a match better than chance?")
_NUMBERS = "layer_a head_a layer_b head_b depth_a depth_b r margin null_max95 self_match_r n"
_MATCH = Roles(f"{_NUMBERS} mutual named", finite=_NUMBERS, mark="layer_a head_a", same="null_max95 self_match_r")


@dataclass(frozen=True)
class _Matching:
    """The rows of the arm `match`, the draws of the two others, and what all rows share."""

    table: DataFrame
    null: np.ndarray
    own: np.ndarray
    limit: float
    control: float

    def layers(self, side: str) -> int:
        """Layers of one model, from  depth = (layer + ½)/L."""
        layer, depth = (self.table[f"{name}_{side}"].to_numpy(dtype=float) for name in ("layer", "depth"))
        n_layers = np.median((layer + 0.5) / np.maximum(depth, 1e-9))
        if not np.allclose(depth * round(n_layers), layer + 0.5, atol=0.05):
            raise ValueError(
                f"figure {FIGURE!r}: depth_{side} is not (layer_{side} + ½)/L for one number of layers L. Layers "
                "count from 0."
            )
        return round(n_layers)

    def name(self, side: str) -> str:
        default = {"a": "first model", "b": "second model"}[side]
        return str(checks.only_value(self.table, f"checkpoint_{side}", figure=FIGURE, default=default))

    @property
    def self_label(self) -> str:
        return str(checks.only_value(self.table, "self_label", figure=FIGURE, default="self-match"))

    @property
    def shown(self) -> DataFrame:
        return self.table[self.table["mutual"].astype(bool) | self.table["named"].astype(bool)]

    @property
    def named(self) -> list[Record]:
        return checks.records(self.table[self.table["named"].astype(bool)])

    @property
    def counts(self) -> tuple[int, int, int]:
        """Mutual pairs, those above the null, and of these those inside the window."""
        rows = self.table[self.table["mutual"].astype(bool)]
        beyond = rows[rows["r"] > rows["null_max95"]]
        inside = (beyond["depth_a"] - beyond["depth_b"]).abs() <= WINDOW / self.layers("b") + 1e-9
        return len(rows), len(beyond), int(inside.sum())


def _read(table: DataFrame) -> _Matching:
    arm = table["arm"] if "arm" in table.columns else table["r"].map(lambda _: "match")
    matches = table[arm == "match"]
    _MATCH.check(matches, figure=FIGURE)
    null, own = (table.loc[arm == name, "r"].to_numpy(dtype=float) for name in ("permuted", "self"))
    limit, control = (float(matches[name].iloc[0]) for name in ("null_max95", "self_match_r"))
    found = _Matching(matches, null, own, limit, control)
    for side in "ab":
        found.layers(side)
    return found


def _head(row: Record, side: str) -> str:
    return f"L{int(getattr(row, f'layer_{side}'))}.H{int(getattr(row, f'head_{side}'))}"


def _is_beyond(row: Record) -> bool:
    return bool(row.r > row.null_max95)


def _draw(page: Page, of: _Matching) -> Axes:
    room = Room(left=0.45, right=0.1, gap=0.5, bottom=0.37, between=0.45)
    left, right = page.panels(_TITLES, tall=1.75, room=room, most=1 if page.width == "icml" else 2).axes
    _draw_pairs(left, of, page.marks)
    _draw_distribution(right, of, page.marks)
    return left


def _draw_pairs(ax: Axes, of: _Matching, marks: Marks) -> None:
    n_b = of.layers("b")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    half = WINDOW / n_b
    ax.fill_between([0, 1], [-half, 1 - half], [half, 1 + half], color=colour("null"), linewidth=0, zorder=0)
    reference_diagonal(ax)
    avoid = [Labelled((0, 1), (0, 1))]
    for row in sorted(checks.records(of.shown), key=lambda r: r.r):
        filled = bool(_is_beyond(row) and row.mutual)
        face = {"markerfacecolor": colour("ink" if filled else "paper"), "markeredgewidth": 0.7, "clip_on": False}
        style: Style = {"color": colour("ink" if filled else "control"), "alpha": 0.8 if filled else 1.0}
        size = 1.6 + 2.8 * max(row.r, 0) ** 0.5
        (mark,) = ax.plot([row.depth_a], [row.depth_b], "o", markersize=size, zorder=3 + filled, **style, **face)
        numbers = f"r = {short(row.r)}, margin {short(row.margin)}, {'mutual' if row.mutual else 'not mutual'}"
        null = f"{'above' if _is_beyond(row) else 'below'} the null {short(row.null_max95)}"
        title = f"{_head(row, 'a')} → {_head(row, 'b')}: {numbers}, {null}"
        marks.name(mark, f"match-{_head(row, 'a')}".replace(".", "-"), title)
        avoid.append(Labelled([row.depth_a] * 3, [row.depth_b] * 3))
    taken: list[np.ndarray] = []
    for row in of.named:
        _box(ax, row, avoid, taken)
    ax.set_xlabel(f"{of.name('a')} depth (layer + ½)/{of.layers('a')}")
    ax.set_ylabel(f"{of.name('b')} depth (layer + ½)/{n_b}")
    ax.xaxis.set_major_locator(canvas.locator(5))
    ax.yaxis.set_major_locator(canvas.locator(5))


def _box(ax: Axes, row: Record, avoid: list[Labelled], taken: list[np.ndarray]) -> None:
    """A box around a head that was named in advance, with its numbers; thin and grey where its match is not beyond the
    null or not mutual."""
    is_match = _is_beyond(row) and row.mutual
    shade, thick = colour("ink" if is_match else "ink2"), 1.1 if is_match else 0.5
    style: Style = {"markerfacecolor": "none", "color": shade, "markeredgewidth": thick, "clip_on": False}
    ax.plot([row.depth_a], [row.depth_b], "s", markersize=8, zorder=6, **style)
    back = "" if row.mutual else ", not mutual"
    text = f"{_head(row, 'a')} → {_head(row, 'b')}\nr = {short(row.r)}, margin {short(row.margin)}{back}"
    # far enough from the box that it is not covered
    note = Labelled([row.depth_a] * 2, [max(row.depth_b - 0.06, 0), min(row.depth_b + 0.06, 1)], text, shade)
    place_note(ax, note, avoid=avoid, taken=taken, size=NOTE)
    inches = np.array(canvas.size_of(ax))
    start = np.array([row.depth_a, row.depth_b])
    end = np.clip(start, *(taken[-1] / inches))
    gap = np.hypot(*((end - start) * inches))
    if gap > 0.12:
        start = start + (end - start) * 0.07 / gap
        ax.plot([start[0], end[0]], [start[1], end[1]], color=shade, linewidth=0.7 * thick, zorder=5)


def _draw_distribution(ax: Axes, of: _Matching, marks: Marks) -> None:
    """Densities of r: the matches, the permuted maxima, the self-match control."""
    r = of.shown["r"].to_numpy(dtype=float)
    edges = np.arange(np.floor(20 * min([0.0, *r, *of.null, *of.own])) / 20, 1.0501, 0.05)
    heights = {
        name: np.histogram(x, edges)[0] / max(len(x), 1) for name, x in (("null", of.null), ("own", of.own), ("r", r))
    }
    if len(of.null):
        band = ax.stairs(heights["null"], edges, fill=True, color=colour("null"), zorder=0)
        words = f"maximum r with items permuted, {len(of.null)} draws, 95 % below {short(of.limit)}"
        marks.name(band, "null", words)
    else:
        ax.axvspan(edges[0], of.limit, color=colour("null"), linewidth=0, zorder=0)
    if len(of.own):
        ax.stairs(heights["own"], edges, color=colour("control"), linewidth=0.8, zorder=2)
    if len(r):
        drawn = ax.stairs(heights["r"], edges, color=colour("ink"), linewidth=DATA_LINE, zorder=3)
        marks.name(drawn, "matches", f"r of {len(r)} matches, {int((r > of.limit).sum())} above the null")
    reference(ax, x=of.limit, style="max_null", linewidth=0.9, zorder=2)
    reference(ax, x=of.control, color=colour("base"), linewidth=0.9, zorder=2)
    top = 1.32 * max(ax.get_ylim()[1], 0.02)
    ax.set(xlim=(edges[0], 1.02), ylim=(0, top), yticks=[], xlabel="correlation of per-item effects r")
    canvas.bare(ax)
    ax.xaxis.set_major_locator(canvas.locator(5))
    _name_lines(ax, of, left=float(edges[0]))
    if len(r):
        peak = int(np.argmax(heights["r"]))
        over = edges[peak : peak + 2]
        note = Labelled(list(over), [heights["r"][peak]] * 2, "matches", colour("ink"), "bold")
        steps = Labelled(list(np.repeat(edges, 2)[1:-1]), list(np.repeat(heights["r"], 2)))
        lines = [Labelled([x] * 2, [0, top]) for x in (of.limit, of.control)]
        place_note(ax, note, avoid=[steps, *lines, Labelled((edges[0], 1.0), (0.8 * top, 0.8 * top))], taken=[])


def _name_lines(ax: Axes, of: _Matching, *, left: float) -> None:
    """The null's limit and the self-match, each beside its line, where possible on the side away from the other."""
    limit, control = of.limit, of.control
    inches = canvas.size_of(ax)[0] / (1.02 - left)
    is_crossed = control < limit
    null_right = is_crossed or limit < 0.5 * (1.02 + left) - 0.2
    between = control - (left if is_crossed else max(limit, left))
    label = canvas.wrap(of.self_label, size=NOTE, max_in=max(between * inches - 0.1, 0.5))
    for x, text, right in (
        (limit, f"95 % null (max)\n{short(limit)}", null_right),
        (control, f"{label}\n{short(control)}", control < 0.3 and not is_crossed),
    ):
        style: Style = {"va": "top", "fontsize": NOTE, "color": colour("ink2"), "linespacing": 1.15}
        by, side = (3, "left") if right else (-3, "right")
        canvas.note(ax, x, 1, text, ("data", "axes fraction"), (by, -1), ha=side, **style)


def _caption(of: _Matching) -> Caption:
    mutual, beyond, inside = of.counts
    draws, own = f" ({len(of.null)} draws)" if len(of.null) else "", f" ({len(of.own)} heads)" if len(of.own) else ""
    box = "Box: head named in advance, thin if it has no match beyond the null; margin = r minus the second best"
    models = f"{of.name('a')} and their nearest heads in {of.name('b')}"
    return Caption(
        what=f"Heads of {models} by correlation r of per-item effects: {mutual} mutual pairs of {len(of.table)} heads",
        reading=box if of.named else "",
        n=f"{checks.sample_size(of.table, figure=FIGURE)}; area of a mark by r",
        interval="r has no interval: compare it with the null and the control",
        control=[
            f"Filled: r above {short(of.limit)}, the 95 % limit of the null, the maximum over pairs with items "
            f"permuted{draws}; {beyond} pairs, {inside} of them within ±{WINDOW} layers (band)",
            f"Right: shares of r in steps of .05; control, {of.self_label}: {short(of.control)}{own}",
        ],
    )


def _alt(of: _Matching) -> list[str]:
    mutual, beyond, inside = of.counts
    counts = f"{beyond} above the null, {inside} of them near equal depth"
    named = [
        f"Named head {_head(row, 'a')} → {_head(row, 'b')}, r {short(row.r)}, margin {short(row.margin)}, "
        f"{'mutual' if row.mutual else 'not mutual'}, {'above' if _is_beyond(row) else 'not above'} the null"
        for row in of.named
    ]
    scatter = f"Scatter of {mutual} mutual nearest heads by depth: {counts}"
    return [scatter, *named, f"The self-match control reaches {short(of.control)}"]


_ROLES = Roles(
    f"{_NUMBERS} mutual named", finite="r", known={"arm": ("match", "permuted", "self")}, within={"r": (-1, 1)}
)
SPEC = FigureSpec(FIGURE, _ROLES, _draw, _caption, _alt, rank=6, word="match", read=_read)


def match_heads(table: DataFrame, *, width: Width = "neurips", ax: Sequence[Axes] | None = None) -> Drawn:
    """Mutual nearest heads of two models by relative depth, and their correlations next to null and self-match.

    Left: one mark per mutual pair, its area by r, filled above the item-permuted maximum; the band is the window of ±3
    layers of the second model. Heads named in advance are boxed, with r and the margin to the second best, also
    where their nearest head does not choose them back. Right: the distribution of r, the null, and the self-match
    control, which says how well the matcher finds a head that must have a counterpart.

    Args:
        table: one row per head of the first model: `layer_a, head_a`, its nearest head `layer_b, head_b`, `depth_a,
            depth_b` ((layer + ½)/L), `r` (correlation of per-item effects), `margin` (r minus the second best),
            `null_max95` (95 % of the maximum r with items permuted), `mutual` and `named` (bool), `self_match_r`
            (median r of a head with itself in the control pair), `n` (items). Optional: `arm`: match (the rows above),
            permuted (one permutation's maximum per row, in `r`), self (one control head per row, in `r`);
            `checkpoint_a, checkpoint_b`, `self_label`.
        width: final width; unused where `ax` is given.
        ax:    two axes of a composite.
    Raises:
        ValueError: a column is missing or holds NaN, a head of the first model repeats, r is outside -1 to 1, or a
            depth is not (layer + ½)/L for one L per model.
    Source: FIGURES 09; permuted maximum after Westfall & Young 1993.
    """
    return SPEC.drawn(table, width=width, ax=ax)
