"""Results in a notebook: a static HTML table of at most twelve rows that inherits the page's theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MOST_ROWS = 12
_LEFT = "style='text-align:left'"


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]], *, title: str = "", rest: str = "") -> str:
    """Cells as an HTML table, every one escaped.

    Args:
        lines: rows of cells; the first `MOST_ROWS` are shown and the others counted.
        title: a sentence above the table.
        rest:  code that gives all rows, e.g. `effects.table()`.
    """
    shown = "".join(f"<th {_LEFT}>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td {_LEFT}>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines[:MOST_ROWS]
    )
    left = len(lines) - MOST_ROWS
    above = f"<p>{escape(title)}</p>" if title else ""
    below = f"<p>{left} more{f' in <code>{escape(rest)}</code>' if rest else ''}.</p>" if left > 0 else ""
    return f"{above}<table><thead><tr>{shown}</tr></thead><tbody>{body}</tbody></table>{below}"


def interval(value: float, lo: float, hi: float, *, signed: bool = False) -> str:
    """`0.70 [0.61, 0.78]` with a true minus sign; a dash for NaN."""
    if value != value:
        return "–"
    sign = "+" if signed else ""
    return f"{value:{sign}.2f} [{lo:{sign}.2f}, {hi:{sign}.2f}]".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """Two significant digits, `< 0.001` below; a dash for NaN (no test)."""
    return "–" if p != p else "< 0.001" if p < 0.001 else f"{p:.2g}"
