"""The headline of an evaluation as a text table for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def headline(out: Path, *, is_pair: bool) -> str:
    """The pair's table, or each member's accuracy per cell, with intervals, n and the control beside them."""
    import pandas as pd

    if is_pair and (out / "pair.csv").exists():
        pairs = pd.read_csv(out / "pair.csv", keep_default_na=False)
        return "\n".join([aligned(_pair_lines(pairs)), *footer(pairs)])
    table = pd.read_csv(out / "table.csv", keep_default_na=False)
    table = table[table["metric"] == "accuracy"]
    lines = [["member", "cell", "n", "accuracy [95 %]", "always one label"]]
    for r in table.to_dict("records"):
        spread = interval(r["value"], r["lo"], r["hi"])
        lines.append([str(r["member"]), str(r["cell"]), str(r["n"]), spread, f"{float(r['control']):.2f}"])
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


def interval(value: Any, lo: Any, hi: Any, *, signed: bool = False) -> str:
    """`0.70 [0.61, 0.78]`, with a true minus sign and, for differences, an explicit plus."""
    sign = "+" if signed else ""
    return f"{float(value):{sign}.2f} [{float(lo):{sign}.2f}, {float(hi):{sign}.2f}]".replace("-", "−")


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
        verdict = r.tost_verdict if r.cell == "training_distribution" else ""
        counts = f"{int(float(r.only_engaged))}/{int(float(r.only_heuristic))}"
        lines.append(
            [r.cell, str(r.n), *sides, interval(r.diff, r.diff_lo, r.diff_hi, signed=True), counts, p, verdict]
        )
    return lines


def aligned(lines: list[list[str]]) -> str:
    """Lines of cells as text, every column as wide as its widest cell."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
