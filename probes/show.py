"""A sweep in one small table for a notebook: what was selected, what TEST said, what it must be compared with."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from probes.result import Selected, SweepResult

MOST_ROWS = 12
_HEAD = (
    "target", "kind", "site", "position", "OOF AUROC [95 %]", "p (max over sites)", "TEST AUROC [95 %]", "p",
    "selectivity [95 %]", "always one class", "n (groups)",
)  # fmt: skip


def selected_html(result: SweepResult) -> str:
    """One row per target and kind, at most 12, as static HTML that inherits the page's theme."""
    lines = [_cells(result, cell) for cell in result.selected[:MOST_ROWS]]
    shown = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in _HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(text)}</td>" for text in line) + "</tr>"
        for line in lines
    )
    left = len(result.selected) - len(lines)
    more = f"<p>{left} more in <code>result.selected</code>; every estimate is in <code>result.table</code>.</p>"
    return f"<table><thead><tr>{shown}</tr></thead><tbody>{body}</tbody></table>{more if left else ''}"


def _cells(result: SweepResult, cell: Selected) -> list[str]:
    oof, test = (_row(result, cell, name, "auroc") for name in ("oof", "test"))
    control = _row(result, cell, "oof", "accuracy")
    last = test or oof
    return [
        cell.target, cell.kind, cell.site, cell.position, _interval(oof, ""), _p(oof, "p_maxT"), _interval(test, ""),
        _p(test, "p"), _interval(control, "selectivity"), f"{control['majority']:.2f}",
        f"{int(last['n'])} ({int(last['n_groups'])})",
    ]  # fmt: skip


def _row(result: SweepResult, cell: Selected, split: str, metric: str) -> dict[str, Any]:
    t = result.table
    at = (t["target"] == cell.target) & (t["position"] == cell.position) & (t["site"] == cell.site)
    rows = t[
        at & (t["kind"] == cell.kind) & (t["split"] == split) & (t["metric"] == metric) & (t["cohort"] == "all")
        & t["role"].isin(["layer", "control"])
    ]  # fmt: skip
    return {str(name): value for name, value in rows.iloc[0].items()} if len(rows) else {}


def _interval(row: dict[str, Any], name: str) -> str:
    value, lo, hi = (
        row.get(key, np.nan) for key in ((name, f"{name}_lo", f"{name}_hi") if name else ("value", "lo", "hi"))
    )
    return "–" if np.isnan(value) else f"{value:.2f} [{lo:.2f}, {hi:.2f}]".replace("-", "−")


def _p(row: dict[str, Any], name: str) -> str:
    p = row.get(name, np.nan)
    return "–" if np.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.2g}")
