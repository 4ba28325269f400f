"""Figure 14: behaviour, decodability, head effects and one more, drawn by their own functions on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.draw import rows as of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from study.figures import Drawn

WIDTH = 6.75
_RIGHT, _WIDE, _TALL = 4.0, 2.6, 1.62  # inches: left edge and width of the right column, height of a panel
_FOOT, _BETWEEN, _HEAD = 0.5, 0.58, 0.9  # under the lower row, over its titles, over the upper row
_ROW = 0.125  # of the dumbbell
_LIFT_0, _LIFT, _LIFT_4 = 0.2, 0.42, 0.78  # from axes of the lower row to its titles: legend of no, two, four rows
_LETTER = 0.06, _RIGHT - 0.62
Tables = Mapping[str, "pd.DataFrame"]


@dataclass(frozen=True)
class Panel:
    """One panel: what it is called, where its axes are in inches, and who draws it."""

    title: str
    box: tuple[float, float, float, float]
    draw: Callable[[Axes], Drawn]
    lift: float = _LIFT


def headline(tables: Tables) -> Drawn:
    """Four panels of one run: A accuracy per cell, B probes by layer, C head effects, D dose curve or what there is.

    Every panel is drawn by the function of its own figure, on axes that are passed in. C is the difference of the
    members where their heads correspond, else the map of the engaged member; D the dose curve, else the reliability of
    the probes, else cumulative ablation.

    Args:
        tables: of the run, by name; `pair` must be among them.
    Raises:
        ValueError: fewer than two panels can be drawn, with the reasons.
    Source: FIGURES 14; procedural §4.3.
    """
    import pandas as pd

    from study.figures import canvas
    from study.figures.drawn import Drawn
    from study.figures.style import styled

    parts: list[tuple[str, Drawn]] = []
    why: list[str] = []
    with styled():
        panels, height = _panels(tables)
        figure = canvas.new_figure(WIDTH, height)
        for letter, panel in zip("ABCD", panels, strict=True):
            ax = canvas.axes_in(figure, *panel.box)
            try:
                drawn = panel.draw(ax)
            except ValueError as error:
                figure.delaxes(ax)
                why.append(f"{letter}: {error}")
                continue
            _name(figure, panel, letter, height)
            parts.append((letter, drawn))
    if len(parts) < 2:
        raise ValueError(f"headline: fewer than two panels can be drawn ({'; '.join(why)}).")
    rows = pd.concat([drawn.rows.assign(panel=letter) for letter, drawn in parts], ignore_index=True)
    caption = " ".join(f"({letter}) {drawn.caption}" for letter, drawn in parts)
    alt = " ".join(f"Panel {letter}: {drawn.alt}" for letter, drawn in parts)
    return Drawn(figure, rows, f"{caption} {scale(tables)}".strip(), alt)


def scale(tables: Tables) -> str:
    """What a reader must know where the members are of different bases."""
    pair = tables["pair"]
    names = {m: sorted(set(pair[pair["member"] == m]["model"])) for m in ("engaged", "heuristic")}
    if names["engaged"] == names["heuristic"]:
        return ""
    both = " and ".join(", ".join(found) for found in names.values())
    return f"The members have different bases ({both}): size and training differ together."


def _name(figure: Any, panel: Panel, letter: str, height: float) -> None:
    """The letter of a panel and its title, above whatever legend the panel has."""
    from study.figures import canvas
    from study.figures.style import LABEL, PANEL_LETTER

    is_left = panel.box[0] < WIDTH / 2
    y = height - 0.2 if panel.box[1] > _FOOT else panel.box[1] + panel.box[3] + panel.lift
    x = _LETTER[0] if is_left else _LETTER[1]
    canvas.write(figure, x, y, letter, size=PANEL_LETTER, role="ink", weight="bold")
    canvas.write(figure, x + 0.2, y, panel.title, size=LABEL + 0.5, role="ink", weight="bold")


def _panels(tables: Tables) -> tuple[list[Panel], float]:
    """The panels and the height of the figure, which follows from the rows and labels of the first."""
    from study.figures import canvas, dumbbell
    from study.figures.style import LABEL

    cells = of.dumbbell_table(tables["pair"])
    names = [f"{name}†" for name in cells["cell"].unique()]
    left = 0.4 + canvas.widest(names, size=LABEL)
    tall = max(_TALL, _ROW * (len(names) + 2))
    titles, lift = _titles(tables), _LIFT_4 if "steering" in tables else _LIFT
    base = _FOOT + _TALL + _BETWEEN + lift
    height = base + tall + _HEAD
    return [
        Panel(
            "accuracy on the same items",
            (left, base, _RIGHT - 0.75 - left, tall + 0.35),
            lambda ax: dumbbell(cells, ax=ax),
        ),
        Panel(titles[0], (_RIGHT, base, _WIDE, tall - 0.05), lambda ax: _probe_panel(tables, ax)),
        Panel(titles[1], (0.55, _FOOT, 2.2, _TALL + lift - _LIFT_0), lambda ax: _head_panel(tables, ax), _LIFT_0),
        Panel(titles[2], (_RIGHT, _FOOT, _WIDE, _TALL), lambda ax: _last_panel(tables, ax), lift),
    ], height


def _titles(tables: Tables) -> tuple[str, str, str]:
    """Words over panels B, C and D, from what their tables hold."""
    from study.figures.numbers import MINUS

    target = str(tables["probes"]["target"].iloc[0]).replace("=", ": ") if "probes" in tables else ""
    difference = f"head effect, engaged {MINUS} heuristic" if "heads_difference" in tables else "head effect, engaged"
    last = "heads removed together, engaged"
    if "steering" in tables:
        last = f"steering, {tables['steering']['member'].iloc[0]}"
    return f"decodable, {target}", difference, last if {"steering", "heads_cumulative"} & set(tables) else "reliability"


def _probe_panel(tables: Tables, ax: Axes) -> Drawn:
    """The first target of the study."""
    from study.probes.figures import first_layers

    if "probes" not in tables:
        raise ValueError("the study has no probes.")
    shown = [part for part in of.probe_tables(tables["probes"]) if part["checkpoint"].iloc[0] != "base"]
    return first_layers(shown, ax=ax)


def _head_panel(tables: Tables, ax: Axes) -> Drawn:
    from study.figures import head_difference, head_map

    if "heads_difference" in tables:
        table = tables["heads_difference"]
        return head_difference(of.difference_rows(_one(table, "kind")), ax=ax)
    if "heads" not in tables:
        raise ValueError("the study has no heads.")
    table = tables["heads"]
    return head_map(of.head_rows(_one(_one(table, "member"), "kind", "pairs")), ax=ax)


def _last_panel(tables: Tables, ax: Axes) -> Drawn:
    from study.figures import cumulative_ablation, dose_response
    from study.probes.figures import first_reliability

    if "steering" in tables:
        return dose_response(of.dose_table(_one(tables["steering"], "member", "site", "metric")), ax=ax)
    if "heads_cumulative" in tables:
        return cumulative_ablation(of.cumulative_rows(_one(tables["heads_cumulative"], "member")), ax=ax)
    if "probes" not in tables:
        raise ValueError("the study has neither steering nor heads nor probes.")
    return first_reliability(of.probe_tables(tables["probes"]), ax=ax)


def _one(table: pd.DataFrame, *columns: str) -> Any:
    """The rows of the first value of each column."""
    for column in columns:
        table = table[table[column] == table[column].iloc[0]]
    return table
