"""The table of figure 01 as rows in drawn order, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.stats import rejects
from study.figures import checks
from study.figures.numbers import MINUS, format_estimate, format_value, short
from study.figures.style import MEMBERS

if TYPE_CHECKING:
    from pandas import DataFrame

FIGURE = "dumbbell"
COLUMNS = ("cell", "member", "value", "lo", "hi", "n", "diff", "diff_lo", "diff_hi", "p_holm", "tost_verdict", "note")
INTERVALS = ("interval", "diff_interval")

_REFERENCE_GAP = 0.72  # rows between the training distribution and the next row, for the rule and the verdict
_FOOTMARKS = ("†", "‡", "§", "‖", "¶", "#")


@dataclass(frozen=True)
class Row:
    """One cell: its estimates by member, the paired difference, and its place (in rows from the top)."""

    cell: str
    label: str
    n: str
    by_member: dict[str, Any]
    diff: Any | None
    verdict: str
    y: float

    @property
    def significant(self) -> bool:
        return self.diff is not None and bool(rejects(self.diff.p_holm))

    @property
    def diff_text(self) -> str:
        if self.diff is None:
            return "–"
        return format_value(self.diff.diff, self.diff.diff_lo, self.diff.diff_hi, n=int(self.diff.n), signed=True)


def check(table: DataFrame) -> None:
    checks.require(table, (*COLUMNS, *INTERVALS), figure=FIGURE, numeric=("value", "lo", "hi", "n"))
    checks.require_known(table["member"], MEMBERS, what="member", figure=FIGURE)
    checks.require_unique(table, ("cell", "member"), figure=FIGURE)
    paired = table[table["diff"].notna()]
    if len(paired):
        checks.require(paired, COLUMNS, figure=FIGURE, numeric=("diff", "diff_lo", "diff_hi", "p_holm"))
    for cell, group in paired.groupby("cell", sort=False):
        if len(group[["diff", "diff_lo", "diff_hi", "p_holm"]].drop_duplicates()) > 1:
            raise ValueError(f"figure {FIGURE!r}: the rows of cell {cell!r} hold different differences; repeat one.")
    judged = table["cell"][[not checks.is_absent(v) for v in table["tost_verdict"]]].unique()
    if len(judged) > 1:
        raise ValueError(
            f"figure {FIGURE!r}: cells {', '.join(map(str, judged))} carry a tost_verdict. Only the training "
            "distribution, where equivalence is claimed, has one."
        )


def rows_of(table: DataFrame) -> tuple[list[Row], dict[str, str]]:
    """Rows in drawn order and the footnotes by their mark."""
    groups = dict(iter(table.groupby("cell", sort=False)))
    paired = bool(table["diff"].notna().any())

    def place(cell: Any) -> tuple[float, ...]:
        group = groups[cell]
        verdict = any(not checks.is_absent(v) for v in group["tost_verdict"])
        diff = group["diff"].dropna()
        if not paired:
            return (not verdict, 0, -float(group["value"].iloc[0]))
        return (not verdict, not len(diff), -float(diff.iloc[0]) if len(diff) else 0)

    notes: dict[str, str] = {}
    rows: list[Row] = []
    y = 0.0
    for cell in sorted(groups, key=place):
        row = _row(str(cell), groups[cell], notes, y)
        y += 1 + (_REFERENCE_GAP if row.verdict else 0)
        rows.append(row)
    return rows, {mark: text for text, mark in notes.items()}


def _row(cell: str, group: DataFrame, notes: dict[str, str], y: float) -> Row:
    by_member = {role: row for role in MEMBERS for row in checks.records(group) if row.member == role}
    found = [str(text).strip() for text in group["note"].unique() if not checks.is_absent(text)]
    for text in found:
        if text not in notes:
            if len(notes) == len(_FOOTMARKS):
                raise ValueError(f"figure {FIGURE!r}: more than {len(_FOOTMARKS)} different notes; shorten them.")
            notes[text] = _FOOTMARKS[len(notes)]
    diffs = [row for row in by_member.values() if not checks.is_absent(row.diff)]
    verdicts = [str(v) for v in group["tost_verdict"].unique() if not checks.is_absent(v)]
    return Row(
        cell=cell,
        label=cell + "".join(notes[text] for text in found),
        n="/".join(str(int(n)) for n in dict.fromkeys(row.n for row in by_member.values())),
        by_member=by_member,
        diff=diffs[0] if diffs else None,
        verdict=verdicts[0] if verdicts else "",
        y=y,
    )


def chance_words(table: DataFrame) -> str:
    """`always answers one class: .50`, a range where cells differ, nothing without a `chance` column."""
    if "chance" not in table.columns or not bool(table["chance"].notna().any()):
        return ""
    label = checks.only_value(table, "chance_label", figure=FIGURE, default="chance")
    low, high = float(table["chance"].min()), float(table["chance"].max())
    return f"{label}: {short(low)}" + (f" to {short(high)}, by cell" if high > low else "")


def bounds(table: DataFrame) -> tuple[float, float]:
    """Limits on tenths that hold every interval and the chance level."""
    seen = [table["lo"].min(), table["hi"].max(), *(table["chance"].dropna() if "chance" in table.columns else ())]
    low, high = math.floor(round(10 * min(seen), 6)) / 10, math.ceil(round(10 * max(seen), 6)) / 10
    return (low, high) if high - low >= 0.2 else (max(low - 0.1, min(low, 0.0)), high + 0.1 * (high < 1))


def caption(table: DataFrame, rows: list[Row], notes: dict[str, str]) -> str:
    paired = sum(row.diff is not None for row in rows)
    members = [f"{role} ({sign})" for role, sign in zip(MEMBERS, "●◆■", strict=True) if role in set(table["member"])]
    metric = checks.only_value(table, "metric", figure=FIGURE, default="accuracy")
    kind, diff_kind = (checks.only_value(table, name, figure=FIGURE) for name in INTERVALS)
    if checks.is_absent(kind) or (paired and checks.is_absent(diff_kind)):
        raise ValueError(f"figure {FIGURE!r}: columns interval and diff_interval must say which interval was computed.")
    flat = [
        f"{row.cell}, {role} {format_estimate(est.value, est.lo, est.hi, n=int(est.n))}"
        for row in rows
        for role, est in row.by_member.items()
        if est.lo == est.hi
    ]
    verdict = next((f"Equivalence on {row.cell}: {row.verdict}" for row in rows if row.verdict), "")
    return checks.sentences(
        f"{str(metric).capitalize()} of {', '.join(members[:-1])}{' and ' * (len(members) > 1)}{members[-1]} per cell"
        + (f", with the paired difference engaged {MINUS} heuristic on the same items" if paired else ""),
        f"Rows by {'difference' if paired else 'value'}; " + checks.sample_size(table, figure=FIGURE) + " per cell",
        f"Bars: 95 % {kind}" + (f"; differences: 95 % {diff_kind}" if paired else ""),
        f"Filled: Holm p ≤ .05 over {paired} cells; hollow: not" if paired else "",
        f"Dashed: {chance_words(table)}" if chance_words(table) else "",
        verdict,
        _no_width(flat),
        "–: the pair was not measured" if 0 < paired < len(rows) else "",
        *(f"{mark} {text}" for mark, text in notes.items()),
        checks.provenance(table),
    )


def alt(rows: list[Row], table: DataFrame) -> str:
    shown = [row for row in rows if row.diff is not None]
    head = f"Dumbbell plot of {len(rows)} cells."
    if not shown:
        worst = min(rows, key=lambda row: next(iter(row.by_member.values())).value)
        return f"{head} Lowest: {_in_words(worst)}. No paired difference was measured."
    ranked = [row for row in shown if not row.verdict] or shown
    top = max(ranked, key=lambda row: abs(row.diff.diff))  # pyright: ignore[reportOptionalMemberAccess]
    up = sum(row.significant and row.diff.diff > 0 for row in ranked)  # pyright: ignore[reportOptionalMemberAccess]
    down = sum(row.significant for row in ranked) - up
    assert top.diff is not None
    gap = checks.largest_of(top.diff, len(ranked), top.diff.diff, top.diff.diff_lo, top.diff.diff_hi, signed=True)
    finding = f"Largest difference: {_in_words(top)}, difference {gap}."
    counts = (
        f"Of {len(ranked)} differences {up + down} have Holm p ≤ .05: "
        f"{up} with the engaged member better, {down} with the heuristic better."
    )
    verdict = next((f" Equivalence on {row.cell}: {row.verdict}." for row in rows if row.verdict), "")
    return f"{head} {finding} {counts}{verdict}"


def _in_words(row: Row) -> str:
    parts = (f"{role} {format_estimate(e.value, e.lo, e.hi, n=int(e.n))}" for role, e in row.by_member.items())
    return f"{row.cell}, {' against '.join(parts)}"


def _no_width(flat: list[str]) -> str:
    more = f" and {len(flat) - 3} more marks" if len(flat) > 3 else ""
    return f"Interval of no width: {'; '.join(flat[:3])}{more}" if flat else ""
