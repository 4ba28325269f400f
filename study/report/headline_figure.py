"""Figure 14: behaviour, decodability, head effects and steering, drawn by their own functions on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.figures.mpl import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from study.figures import Drawn

WIDTH = 6.75
_RIGHT, _WIDE, _TALL = 4.0, 2.6, 1.62  # inches: left edge and width of the right column, height of a panel
_LEFT, _NARROW = 0.55, 2.2  # left edge and width of a panel of the left column
_FOOT, _BETWEEN, _HEAD = 0.5, 0.58, 0.2  # under the lowest row, over the titles of the lower row, of the upper row
_COLUMNS = (_LEFT, _NARROW), (_RIGHT, _WIDE)
_ROW = 0.125  # of the dumbbell
_LIFT_1, _LIFT_2, _LIFT_3 = 0.33, 0.47, 0.6  # from axes to title, over a legend of so many rows
_BAR = 0.6  # of a head map, with its unit
_LETTER = 0.06, _RIGHT - 0.62
Tables = Mapping[str, "pd.DataFrame"]
STEERING = "steering"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """One panel: its title, who draws it, and which figure it would be alone.

    Attributes:
        names: longest names beside its axes, of a panel that is a table of rows; none of a plain one.
        lift: from its axes to its title; panels of one row share their baseline and the height of their titles.
        beside: inches that it needs to the right of its axes.
    """

    title: str
    draw: Callable[[Axes], Drawn]
    names: Sequence[str] = ()
    lift: float = _LIFT_2
    beside: float = 0.0


def headline(tables: Tables) -> Drawn:
    """Up to four panels of one run: accuracy per cell, probes by layer, head effects, dose curve.

    Every panel is drawn by the function of its own figure, on axes that are passed in. Head effects are the difference
    of the members where their heads correspond, else the map of the engaged member. Where a study has no dose curve,
    the reliability of the probes or cumulative ablation takes its place. What cannot be drawn leaves no hole: the
    others move up, and the caption says what is missing and why.

    Args:
        tables: of the run, by name.
    Raises:
        ValueError: fewer than two panels can be drawn; says in words what there is and what is missing.
    Source: FIGURES 14; procedural §4.3.
    """
    import pandas as pd

    from study.figures import canvas
    from study.figures.drawn import Drawn
    from study.figures.style import styled

    found, missing = _drawable(tables)
    if len(found) < 2:
        have = f"only {found[0].title} can be drawn" if found else "nothing can be drawn"
        raise ValueError(f"a headline figure shows two analyses side by side, but {have}. Missing: {_listed(missing)}.")
    letters = "ABCD"[: len(found)]
    with styled():
        boxes, height = _boxes(found)
        figure = canvas.new_figure(WIDTH, height)
        drawn = [panel.draw(canvas.axes_in(figure, *box)) for panel, box in zip(found, boxes, strict=True)]
        for letter, panel, box in zip(letters, found, boxes, strict=True):
            _name(figure, panel, box, letter)
    parts = list(zip(letters, drawn, strict=True))
    rows = pd.concat([one.rows.assign(panel=letter) for letter, one in parts], ignore_index=True)
    caption = " ".join(f"({letter}) {one.caption}" for letter, one in parts)
    left_out = f"Not drawn: {_listed(missing)}." if missing else ""
    alt = " ".join(f"Panel {letter}: {one.alt}" for letter, one in parts)
    return Drawn(figure, rows, " ".join(filter(None, [caption, left_out, scale(tables)])), alt)


def scale(tables: Tables) -> str:
    """What a reader must know where the members are of different bases."""
    pair = tables.get("pair")
    if pair is None:
        return ""
    names = {m: sorted(set(pair[pair["member"] == m]["model"])) for m in ("engaged", "heuristic")}
    if names["engaged"] == names["heuristic"]:
        return ""
    both = " and ".join(", ".join(found) for found in names.values())
    return f"The members have different bases ({both}): size and training differ together."


def _listed(missing: Mapping[str, str]) -> str:
    return "; ".join(f"{title} ({why})" for title, why in missing.items())


def _drawable(tables: Tables) -> tuple[list[Panel], dict[str, str]]:
    """The panels that can be drawn, each tried on a page of its own; and of every other analysis, why it is not there.

    Of an analysis with several panels, the first that can be drawn.
    """
    from study.figures import canvas
    from study.figures.style import styled

    found: list[Panel] = []
    missing: dict[str, str] = {}
    with styled():
        for words, candidates in _candidates(tables).items():
            why = "not in this study"
            for name, make in candidates:
                try:
                    panel = make()
                    box, height = _boxes([panel])
                    panel.draw(canvas.axes_in(canvas.new_figure(WIDTH, height), *box[0]))
                except ValueError as error:
                    why = str(error).rstrip(".")
                    continue
                found.append(panel)
                if words == STEERING and name != "steering":  # another analysis in its place
                    missing[words] = why
                break
            else:
                missing[words] = why
    return found, missing


def _candidates(tables: Tables) -> dict[str, list[tuple[str, Callable[[], Panel]]]]:
    """Analysis in words -> (table, panel), best first; none where the study has no table for it."""
    made: dict[str, list[tuple[str, Callable[[], Panel]]]] = {
        "accuracy on the same items": [("pair", lambda: _accuracy(tables))],
        "probes by layer": [("probes", lambda: _probes(tables))],
        "head effects": [("heads_difference", lambda: _head_difference(tables)), ("heads", lambda: _head_map(tables))],
        STEERING: [
            ("steering", lambda: _dose(tables)),
            ("heads_cumulative", lambda: _cumulative(tables)),
            ("probes", lambda: _reliability(tables)),
        ],
    }
    return {words: [(name, make) for name, make in panels if name in tables] for words, panels in made.items()}


def _name(figure: Figure, panel: Panel, box: Box, letter: str) -> None:
    """The letter of a panel and its title, above whatever legend the panel has."""
    from study.figures import canvas
    from study.figures.style import LABEL, PANEL_LETTER

    x, y = _LETTER[0] if box[0] < WIDTH / 2 else _LETTER[1], box[1] + box[3] + panel.lift
    canvas.write(figure, x, y, letter, size=PANEL_LETTER, role="ink", weight="bold")
    room = (_LETTER[1] if x == _LETTER[0] else WIDTH) - 0.1 - (x + 0.2)
    wide = canvas.text_width(panel.title, size=LABEL + 0.5, weight="bold")
    size = (LABEL + 0.5) * min(1.0, room / wide)  # no title reaches the letter beside it
    canvas.write(figure, x + 0.2, y, panel.title, size=size, role="ink", weight="bold")


def _boxes(panels: Sequence[Panel]) -> tuple[list[Box], float]:
    """Axes of the panels in inches, two in a row, and the height of the page, which follows from the first panel."""
    from study.figures import canvas
    from study.figures.style import LABEL

    upper, lower = panels[:2], panels[2:]
    title = _FOOT + _TALL + max((panel.lift for panel in lower), default=0.0)
    boxes = [_box(panel, column, _FOOT, title) for panel, column in zip(lower, _COLUMNS, strict=False)]
    base = title + _BETWEEN if lower else _FOOT
    names = panels[0].names
    title = base + max(_TALL, _ROW * (len(names) + 2)) + 2 * _LIFT_1
    left = 0.4 + canvas.widest(names, size=LABEL)
    columns = [(left, _RIGHT - 0.75 - left) if names else _COLUMNS[0], _COLUMNS[1]]
    first = [_box(panel, column, base, title) for panel, column in zip(upper, columns, strict=False)]
    return first + boxes, title + _HEAD


def _box(panel: Panel, column: tuple[float, float], base: float, title: float) -> Box:
    x, width = column
    return x, base, min(width, WIDTH - 0.15 - panel.beside - x), title - panel.lift - base


def _accuracy(tables: Tables) -> Panel:
    from study.analyses.eval.figures import accuracy_of_pair

    pairs = _one(tables["pair"], "mode") if "mode" in tables["pair"] else tables["pair"]
    names = [f"{name.replace('_', ' ')}†" for name in pairs["cell"].unique()]
    return Panel("accuracy on the same items", lambda ax: accuracy_of_pair(pairs, ax=ax), names, lift=_LIFT_1)


def _probes(tables: Tables) -> Panel:
    """The first target of the study."""
    from study.analyses.probes.figures import first_layers

    target = str(tables["probes"]["target"].iloc[0]).replace("=", ": ")
    shown = tables["probes"][tables["probes"]["member"] != "base"]
    return Panel(f"decodable, {target}", lambda ax: first_layers(shown, ax=ax), lift=_LIFT_3)


def _head_difference(tables: Tables) -> Panel:
    """At the decision site with the strongest effect; where only one member reaches it, its map is drawn instead."""
    from study.analyses.heads.figures import at_strongest_site, map_rows, with_sites
    from study.figures import head_difference
    from study.figures.numbers import MINUS

    part = _one(with_sites(tables["heads_difference"]), "kind")
    if "heads" in tables and "decision_site" in part:
        site = at_strongest_site(_one(tables["heads"], "kind", "pairs"))["decision_site"].iloc[0]
        part = part[part["decision_site"] == site]
        if not len(part):
            raise ValueError(f"the members do not both reach the {site}.")
    part = at_strongest_site(part)
    title = f"heads{_at(part)}, engaged {MINUS} heuristic"
    return Panel(title, lambda ax: head_difference(map_rows(part), ax=ax), lift=_LIFT_2, beside=_BAR)


def _head_map(tables: Tables) -> Panel:
    from study.analyses.heads.figures import at_strongest_site, map_rows
    from study.figures import head_map

    part = _one(at_strongest_site(_one(tables["heads"], "kind", "pairs")), "member")
    title = f"heads{_at(part)}, {part['member'].iloc[0]}"
    return Panel(title, lambda ax: head_map(map_rows(part), ax=ax), lift=_LIFT_2, beside=_BAR)


def _at(rows: pd.DataFrame) -> str:
    """` at the step lookup`, of a task that names decision sites."""
    from study.figures.checks import at_site

    return at_site(rows, figure="headline")


def _dose(tables: Tables) -> Panel:
    """The first site and score that a figure can show, in the member that the direction moves most clearly."""
    from study.analyses.steering.figures import dose_rows
    from study.figures import dose_response

    shown = _one(tables["steering"], "site", "metric")
    part = dose_rows(shown[shown["member"] == _moved_member(shown)])
    title = f"steering, {part['member'].iloc[0]}: {part['metric'].iloc[0]}"
    return Panel(title, lambda ax: dose_response(part, ax=ax), lift=_LIFT_2)


def _moved_member(curves: pd.DataFrame) -> str:
    """The member of the point with the smallest p against its controls, then the larger change; else the first."""
    own = curves[(curves["arm"] == "direction") & curves["p"].notna()]
    ranked = own.assign(size=own["control_difference"].abs()).sort_values(["p", "size"], ascending=[True, False])
    return str((ranked if len(ranked) else curves)["member"].iloc[0])


def _cumulative(tables: Tables) -> Panel:
    from study.analyses.heads.figures import cumulative_rows, with_sites
    from study.figures import cumulative_ablation

    part = _one(with_sites(tables["heads_cumulative"]), "member")
    part = _one(part, "decision_site") if "decision_site" in part else part
    title = f"heads removed together{_at(part)}, {part['member'].iloc[0]}"
    return Panel(title, lambda ax: cumulative_ablation(cumulative_rows(part), ax=ax))


def _reliability(tables: Tables) -> Panel:
    """One member: a panel has one axes."""
    from study.analyses.probes.figures import first_reliability

    part = _one(tables["probes"], "member")
    return Panel(f"reliability, {part['member'].iloc[0]}", lambda ax: first_reliability(part, ax=ax), lift=_LIFT_3)


def _one(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows of the first value of each column."""
    for column in columns:
        table = table[table[column] == table[column].iloc[0]]
    return table
