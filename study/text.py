"""Text for a terminal: columns of equal width, and an estimate with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text, every column as wide as its widest cell."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def interval(value: SupportsFloat, lo: SupportsFloat, hi: SupportsFloat, *, signed: bool = False) -> str:
    """`0.70 [0.61, 0.78]`, with U+2212 as the minus sign and, for differences, an explicit plus."""
    sign = "+" if signed else ""
    return f"{float(value):{sign}.2f} [{float(lo):{sign}.2f}, {float(hi):{sign}.2f}]".replace("-", "−")
