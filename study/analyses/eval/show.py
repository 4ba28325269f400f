"""The headline of an evaluation as a text table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from interp.tasks.protocol import load_task
from study.figures.checks import is_absent
from study.schema import DIFFERENCE
from study.text import aligned, interval

if TYPE_CHECKING:
    import pandas as pd


def headline(tables: Mapping[str, pd.DataFrame]) -> str:
    """The pair's table, or each member's accuracy per cell, with intervals, n and the control."""
    if "pair" in tables:
        modes = dict(list(tables["pair"].groupby(tables["pair"]["mode"].fillna(""), sort=False)))
        return "\n".join(
            line
            for mode, pairs in modes.items()
            for line in [*([f"mode {mode}"] if len(modes) > 1 else []), aligned(_pair_lines(pairs)), *footer(pairs)]
        )
    table = tables["eval"]
    table = table[table["metric"] == "accuracy"]
    lines = [["member", "mode", "cell", "n", "accuracy [95 %]", "always one label"]]
    for r in table.to_dict("records"):
        spread, control = interval(r["value"], r["lo"], r["hi"]), f"{r['control_value']:.2f}"
        lines.append([str(r["member"]), _text(r["mode"]), str(r["cell"]), f"{r['n']:.0f}", spread, control])
    lines = lines if any(line[1] for line in lines[1:]) else [[line[0], *line[2:]] for line in lines]
    return aligned(lines)


def footer(pairs: pd.DataFrame) -> list[str]:
    """The legend of the pair's table: the unit of its tests, and each note with the cells that have it."""
    lines = [
        "b/c: items that only engaged / only heuristic answers correctly. Holm p: groups as units, corrected over "
        "cells."
    ]
    rows = pairs[pairs["member"] == DIFFERENCE].to_dict("records")
    notes = [
        (str(r["cell"]), part) for r in rows for part in _text(r["note"]).split("; ") if part and part != r["verdict"]
    ]
    for note in dict.fromkeys(part for _, part in notes):
        cells = [cell for cell, part in notes if part == note]
        lines.append(f"note: {note} ({', '.join(cells) if len(cells) < len(rows) else 'all cells'})")
    return lines


def score_lines(table: pd.DataFrame) -> str:
    """Scores of `eval score`: cells down, one line per score; counts and soft scores are in the file only."""
    lines = [["cell", "metric", "value [95 %]", "n", "groups", "note"]]
    for r in table.to_dict("records"):
        if not r["metric"].startswith(("n_", "soft_")):
            spread = "–" if is_absent(r["value"]) else interval(r["value"], r["lo"], r["hi"])
            groups = "nan" if is_absent(r["n_groups"]) else f"{r['n_groups']:.0f}"
            lines.append([r["cell"], r["metric"], spread, f"{r['n']:.0f}", groups, _text(r["note"])])
    return aligned(lines)


def change_lines(table: pd.DataFrame) -> str:
    """Rows of `eval compare` for a terminal."""
    lines = [["cell", "metric", "before", "after", "change [95 %]", "n", "Holm p"]]
    for r in table.to_dict("records"):
        sides = ["" if is_absent(r[k]) else f"{r[k]:.3f}".replace("-", "−") for k in ("before", "after")]
        spread = "–" if is_absent(r["lo"]) else interval(r["value"], r["lo"], r["hi"], signed=True)
        p = "" if is_absent(r["p_adjusted"]) else f"{r['p_adjusted']:.2g}"
        lines.append([r["cell"], r["metric"], *sides, spread, f"{r['n']:.0f}", p])
    return aligned(lines)


def bannered(task_path: str, text: str, *, table: pd.DataFrame) -> str:
    """The text under what every page of it must say: the task's banner, and those of a table (column `banner`)."""
    banners = [getattr(load_task(task_path), "BANNER", "")]
    banners += [_text(banner) for banner in table["banner"].unique()] if "banner" in table else []
    return "\n".join([*(banner for banner in dict.fromkeys(banners) if banner), text])


def _pair_lines(pairs: pd.DataFrame) -> list[list[str]]:
    lines = [["cell", "n", "engaged [95 %]", "heuristic [95 %]", "difference [95 %]", "b/c", "Holm p", "equivalence"]]
    for cell, part in pairs.groupby("cell", sort=False):
        rows = {row["member"]: row for row in part.to_dict("records")}
        gap = rows[DIFFERENCE]
        sides = [interval(rows[m]["value"], rows[m]["lo"], rows[m]["hi"]) for m in ("engaged", "heuristic")]
        line = [str(cell), f"{gap['n']:.0f}", *sides]
        if is_absent(gap["p_adjusted"]):
            lines.append([*line, "", "", "", gap["verdict"]])
            continue
        p = "< 0.001" if gap["p_adjusted"] < 0.001 else f"{gap['p_adjusted']:.2g}"
        verdict = gap["verdict"] if gap["cell_role"] == "training" else ""
        counts = f"{gap['only_engaged']:.0f}/{gap['only_heuristic']:.0f}"
        lines.append([*line, interval(gap["value"], gap["lo"], gap["hi"], signed=True), counts, p, verdict])
    return lines


def _text(value: object) -> str:
    return "" if is_absent(value) else str(value)
