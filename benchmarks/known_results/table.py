"""SCIENCE.md from the results: one section per experiment, one table per checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from benchmarks.known_results.literature import LITERATURE
from benchmarks.known_results.registry import EXPERIMENTS
from benchmarks.known_results.rows import Curve, Row
from benchmarks.known_results.store import Result

HEAD = """# Known results on real checkpoints

Written by `make science` (`python -m benchmarks.science`): results that the literature reports, measured again on
pretrained checkpoints with the functions of this library. Every number has its 95 % interval, the number of items (and
of independent groups), and its null next to it; a number that a theorem fixes on these very items has no interval.

- **reproduced**: the whole interval lies on the side of the limit that the literature predicts.
- **contradicted**: the whole interval lies on the other side, of the limit and of the null.
- **open**: everything else; these items cannot decide. What looks like the null is open too.

The limit is the value under the null or, where the null is a distribution, its 95 % limit.
"""


def compose(found: Iterable[Result]) -> str:
    """The whole page."""
    every = list(found)
    verdicts = Counter(row.verdict for result in every for row in result.findings.rows)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in ("reproduced", "contradicted", "open"))
    parts = [HEAD, f"{sum(verdicts.values())} rows: {counts}.\n"]
    for name, group in groupby(every, key=lambda result: result.experiment):
        experiment = EXPERIMENTS[name]
        parts.append(f"## {experiment.title}\n\n{experiment.about}\n")
        parts += [_section(result) for result in group]
    return "\n".join(parts)


def _section(result: Result) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"### {result.model}\n",
        f"{result.dtype}, {result.seconds:.0f} s of CPU, {result.date}, {versions}. Settings: {settings}.\n",
        "| what | value [95 %] | n (groups) | null | the literature says | verdict |",
        "|---|---|---|---|---|---|",
        *map(_line, result.findings.rows),
    ]
    curves = [_curve(curve) for curve in result.findings.curves]
    return "\n".join([*lines, "", *curves]) + ("\n" if curves else "")


def _line(row: Row) -> str:
    unit = f" {row.unit}" if row.unit else ""
    value = number(row.value) if row.lo == row.hi else f"{number(row.value)} [{number(row.lo)}, {number(row.hi)}]"
    limit = "" if row.limit is None or row.limit == row.null_value else f", limit {number(row.limit)}"
    margin = f" ± {number(row.margin)}" if row.expected == "near" else ""
    groups = "" if row.n == row.n_groups else f" ({row.n_groups})"
    null = f"{row.null}: {number(row.null_value)}{limit}{margin}"
    verdict = row.verdict if row.verdict == "reproduced" else f"**{row.verdict}**"
    return f"| {row.what} | {value}{unit} | {row.n}{groups} | {null} | {LITERATURE[row.claim]} | {verdict} |"


def _curve(curve: Curve) -> str:
    def listed(values: Iterable[float]) -> str:
        return " · ".join(map(number, values))

    return (
        f"{curve.name} by {curve.x_name} ({listed(curve.x)}): {listed(curve.value)}; {curve.null_name}: "
        f"{listed(curve.null)}.\n"
    )


def number(value: float) -> str:
    """Three digits: 1,234, 12.3, 0.123, 1.2e-05."""
    if value == 0 or value != value:
        return "0" if value == 0 else "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 0.001 else f"{value:.3g}"
