"""The headline of an evaluation as a text table for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.io.read import read_frame
from interp.tasks.protocol import load_task
from study.text import aligned, interval


def headline(out: Path, *, is_pair: bool) -> str:
    """The pair's table, or each member's accuracy per cell, with intervals, n and the control beside them."""
    pairs = sorted(out.glob("pair*.csv")) if is_pair else []
    if pairs:
        read = {path.stem: read_frame(path, keep_default_na=False) for path in pairs}
        named = [[name] if len(read) > 1 else [] for name in read]
        return "\n".join(line for name, table in zip(named, read.values(), strict=True)
                         for line in [*name, aligned(_pair_lines(table)), *footer(table)])  # fmt: skip
    table = read_frame(out / "table.csv", keep_default_na=False)
    table = table[table["metric"] == "accuracy"]
    lines = [["member", "mode", "cell", "n", "accuracy [95 %]", "always one label"]]
    for r in table.to_dict("records"):
        spread = interval(r["value"], r["lo"], r["hi"])
        lines.append([str(r["member"]), r["mode"], str(r["cell"]), str(r["n"]), spread, f"{float(r['control']):.2f}"])
    lines = lines if any(line[1] for line in lines[1:]) else [[line[0], *line[2:]] for line in lines]
    return aligned(lines)


def footer(pairs: Any) -> list[str]:
    """What the pair's table needs to be read: the unit of its tests, and each note beside the cells that have it."""
    lines = ["b/c: items that only engaged / only heuristic has right. Holm p: groups as units, corrected over cells."]
    held = [(str(cell), part) for cell, note in zip(pairs["cell"], pairs["note"], strict=True)
            for part in note.split("; ") if part]  # fmt: skip
    for note in dict.fromkeys(part for _, part in held):
        cells = [cell for cell, part in held if part == note]
        lines.append(f"note: {note} ({', '.join(cells) if len(cells) < len(pairs) else 'all cells'})")
    return lines


def score_lines(table: Any) -> str:
    """Scores of `eval score`: cells down, one line per score; counts and soft scores are in the file only."""
    lines = [["cell", "metric", "value [95 %]", "n", "groups", "note"]]
    for r in table.to_dict("records"):
        if not r["metric"].startswith(("n_", "soft_")):
            spread = interval(r["value"], r["lo"], r["hi"]) if r["value"] == r["value"] else "–"
            lines.append([r["cell"], r["metric"], spread, f"{r['n']:.0f}", f"{r['n_groups']:.0f}", r["note"] or ""])
    return aligned(lines)


def change_lines(table: Any) -> str:
    """Rows of `eval compare` for a terminal."""
    lines = [["cell", "metric", "before", "after", "change [95 %]", "n", "Holm p"]]
    for r in table.to_dict("records"):
        sides = ["" if r[k] is None or r[k] != r[k] else f"{r[k]:.3f}".replace("-", "−") for k in ("before", "after")]
        known = r["lo"] is not None and r["lo"] == r["lo"]
        spread = interval(r["diff"], r["lo"], r["hi"], signed=True) if known else "–"
        p = "" if r["p_holm"] is None or r["p_holm"] != r["p_holm"] else f"{r['p_holm']:.2g}"
        lines.append([r["cell"], r["metric"], *sides, spread, str(r["n"]), p])
    return aligned(lines)


def bannered(task_path: str, text: str, *, table: Any = None) -> str:
    """The text under what every page of it must say: the task's banner, and those of a table (column `banner`)."""
    found = [getattr(load_task(task_path), "BANNER", "")]
    found += [] if table is None else [str(one) for one in table["banner"].dropna().unique()]
    return "\n".join([*(one for one in dict.fromkeys(found) if one), text])


def _pair_lines(pairs: Any) -> list[list[str]]:
    head = ["cell", "n", "engaged [95 %]", "heuristic [95 %]", "difference [95 %]", "b/c", "Holm p", "equivalence"]
    lines = [head]
    for r in pairs.itertuples():
        sides = [
            interval(getattr(r, k), getattr(r, f"{k}_lo"), getattr(r, f"{k}_hi")) for k in ("engaged", "heuristic")
        ]
        if r.p_holm == "":
            lines.append([r.cell, str(r.n), *sides, "", "", "", r.tost_verdict])
            continue
        p = "< 0.001" if float(r.p_holm) < 0.001 else f"{float(r.p_holm):.2g}"
        verdict = r.tost_verdict if r.cell_role == "training" else ""
        counts = f"{int(float(r.only_engaged))}/{int(float(r.only_heuristic))}"
        lines.append(
            [r.cell, str(r.n), *sides, interval(r.diff, r.diff_lo, r.diff_hi, signed=True), counts, p, verdict]
        )
    return lines
