"""The table of figure 01 as rows in drawn order, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.stats import rejects
from study.figures import checks
from study.figures.numbers import MINUS, format_estimate, format_value, short
from study.figures.style import MEMBERS
from study.schema import DIFFERENCE

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FIGURE = "dumbbell"
COLUMNS = ("cell", "member", "value", "lo", "hi", "n", "interval", "p_adjusted", "verdict", "note")
TRAINING = "training"

_REFERENCE_GAP = 0.72  # rows between the training distribution and the next row, for the rule and the verdict
_FOOTMARKS = ("†", "‡", "§", "‖", "¶", "#")


@dataclass(frozen=True)
class Row:
    """One cell: its estimates by member, the paired difference, and its place (in rows from the top).

    Attributes:
        cell: as it is written; name: as the table has it.
    """

    cell: str
    name: str
    label: str
    n: str
    by_member: dict[str, Any]
    diff: Any | None
    verdict: str
    y: float

    @property
    def significant(self) -> bool:
        return self.diff is not None and bool(rejects(self.diff.p_adjusted))

    @property
    def diff_text(self) -> str:
        if self.diff is None:
            return "–"
        return format_value(self.diff.value, self.diff.lo, self.diff.hi, n=int(self.diff.n), signed=True)


def parts_of(table: DataFrame) -> tuple[DataFrame, DataFrame]:
    """(rows of the members, rows of differences that have a value) of a table `pair`, checked.

    Raises:
        ValueError: as `dumbbell`.
    """
    checks.require(table, COLUMNS, figure=FIGURE)
    checks.require_known(table["member"], (*MEMBERS, DIFFERENCE), what="member", figure=FIGURE)
    checks.require_unique(table, ("cell", "member"), figure=FIGURE)
    is_difference = table["member"] == DIFFERENCE
    members = table[~is_difference]
    differences = table[is_difference & table["value"].notna()]
    checks.require(members, COLUMNS, figure=FIGURE, numeric=("value", "lo", "hi", "n"))
    if len(differences):
        checks.require(differences, COLUMNS, figure=FIGURE, numeric=("value", "lo", "hi", "n", "p_adjusted"))
    if stray := set(differences["cell"]) - set(members["cell"]):
        raise ValueError(f"figure {FIGURE!r}: {', '.join(sorted(map(str, stray)))}: a difference without its members.")
    judged = [str(row.cell) for row in checks.records(table[is_difference]) if _verdict(row)]
    if len(judged) > 1:
        raise ValueError(
            f"figure {FIGURE!r}: cells {', '.join(judged)} have an equivalence verdict. Only the training "
            "distribution, where equivalence is claimed, has one."
        )
    return members, differences


def _verdict(row: Any) -> str:
    """The equivalence verdict of a difference, where it is claimed: in training cells."""
    is_claimed = getattr(row, "cell_role", TRAINING) == TRAINING
    return str(row.verdict) if is_claimed and not checks.is_absent(row.verdict) else ""


def rows_of(table: DataFrame) -> tuple[list[Row], dict[str, str]]:
    """Rows in drawn order and the footnotes by their mark."""
    members, differences = parts_of(table)
    by_cell = {str(row.cell): row for row in checks.records(differences)}
    verdicts = {str(row.cell): _verdict(row) for row in checks.records(table) if row.member == DIFFERENCE}
    groups = dict(iter(table.groupby("cell", sort=False)))

    def place(cell: Any) -> tuple[float, ...]:
        diff = by_cell.get(str(cell))
        if not by_cell:
            first = members.loc[members["cell"] == cell, "value"].iloc[0]
            return (not verdicts.get(str(cell)), 0, -float(first))
        return (not verdicts.get(str(cell)), diff is None, 0.0 if diff is None else -float(diff.value))

    notes: dict[str, str] = {}
    rows: list[Row] = []
    y = 0.0
    for cell in sorted(groups, key=place):
        row = _row(groups[cell], by_cell.get(str(cell)), verdicts.get(str(cell), ""), notes, y)
        y += 1 + (_REFERENCE_GAP if row.verdict else 0)
        rows.append(row)
    return rows, {mark: text for text, mark in notes.items()}


def _row(group: DataFrame, diff: Any | None, verdict: str, notes: dict[str, str], y: float) -> Row:
    records = checks.records(group)
    by_member = {role: row for role in MEMBERS for row in records if row.member == role}
    texts = [str(text).strip() for text in group["note"].unique() if not checks.is_absent(text)]
    for text in texts:
        if text not in notes:
            if len(notes) == len(_FOOTMARKS):
                raise ValueError(f"figure {FIGURE!r}: more than {len(_FOOTMARKS)} different notes; shorten them.")
            notes[text] = _FOOTMARKS[len(notes)]
    name = str(group["cell"].iloc[0])
    return Row(
        cell=name.replace("_", " "),
        name=name,
        label=name.replace("_", " ") + "".join(notes[text] for text in texts),
        n="/".join(str(int(n)) for n in dict.fromkeys(row.n for row in by_member.values())),
        by_member=by_member,
        diff=diff,
        verdict=verdict,
        y=y,
    )


def interval_kinds(members: DataFrame, rows: list[Row]) -> tuple[str, str]:
    """Which intervals were computed, in words: of the members, and of the differences ("" where there is none).

    Raises:
        ValueError: the column `interval` is blank.
    """
    both = []
    for kinds in (members["interval"], [row.diff.interval for row in rows if row.diff is not None]):
        words = [str(kind) for kind in dict.fromkeys(kinds) if not checks.is_absent(kind)]
        if len(kinds) and not words:
            raise ValueError(f"figure {FIGURE!r}: column interval must say which interval was computed.")
        both.append(" or ".join(words))
    return both[0], both[1]


def controls(members: DataFrame) -> Series[float]:
    """Cell -> what the control of its accuracy reaches; cells without one are left out."""
    if "control_value" not in members.columns:
        return members.groupby("cell", sort=False)["value"].first().iloc[:0]
    return members.dropna(subset=["control_value"]).groupby("cell", sort=False)["control_value"].first()


def control_words(members: DataFrame) -> str:
    """`always answers one label: .50`, a range where cells differ, nothing without a control."""
    levels = controls(members)
    if levels.empty:
        return ""
    name = checks.only_value(members, "control", figure=FIGURE, default="control")
    low, high = float(levels.min()), float(levels.max())
    return f"{name}: {short(low)}" + (f" to {short(high)}, by cell" if high > low else "")


def bounds(members: DataFrame) -> tuple[float, float]:
    """Limits on tenths that hold every interval and the control."""
    ends = [members["lo"].min(), members["hi"].max(), *controls(members)]
    low, high = math.floor(round(10 * min(ends), 6)) / 10, math.ceil(round(10 * max(ends), 6)) / 10
    return (low, high) if high - low >= 0.2 else (max(low - 0.1, min(low, 0.0)), high + 0.1 * (high < 1))


def caption(members: DataFrame, rows: list[Row], notes: dict[str, str]) -> str:
    paired = sum(row.diff is not None for row in rows)
    named = [f"{role} ({sign})" for role, sign in zip(MEMBERS, "●◆■", strict=True) if role in set(members["member"])]
    metric = checks.only_value(members, "metric", figure=FIGURE, default="accuracy")
    kind, diff_kind = interval_kinds(members, rows)
    flat = [
        f"{row.cell}, {role} {format_estimate(est.value, est.lo, est.hi, n=int(est.n))}"
        for row in rows
        for role, est in row.by_member.items()
        if est.lo == est.hi
    ]
    verdict = next((f"Equivalence on {row.cell}: {row.verdict}" for row in rows if row.verdict), "")
    return checks.sentences(
        f"{str(metric).capitalize()} of {', '.join(named[:-1])}{' and ' * (len(named) > 1)}{named[-1]} per cell"
        + (f", with the paired difference engaged {MINUS} heuristic on the same items" if paired else ""),
        f"Rows by {'difference' if paired else 'value'}; " + checks.sample_size(members, figure=FIGURE) + " per cell",
        f"Bars: 95 % {kind}" + (f"; differences: 95 % {diff_kind}" if paired else ""),
        f"Filled: Holm p ≤ .05 over {paired} cells; hollow: not" if paired else "",
        f"Dashed: {control_words(members)}" if control_words(members) else "",
        verdict,
        _no_width(flat),
        "–: the pair was not measured" if 0 < paired < len(rows) else "",
        *(f"{mark} {text}" for mark, text in notes.items()),
        checks.provenance(members),
    )


def alt(rows: list[Row]) -> str:
    shown = [row for row in rows if row.diff is not None]
    head = f"Dumbbell plot of {len(rows)} cells."
    if not shown:
        worst = min(rows, key=lambda row: next(iter(row.by_member.values())).value)
        return f"{head} Lowest: {_in_words(worst)}. No paired difference was measured."
    ranked = [row for row in shown if not row.verdict] or shown
    top = max(ranked, key=lambda row: abs(row.diff.value))  # pyright: ignore[reportOptionalMemberAccess]
    up = sum(row.significant and row.diff.value > 0 for row in ranked)  # pyright: ignore[reportOptionalMemberAccess]
    down = sum(row.significant for row in ranked) - up
    assert top.diff is not None
    gap = checks.largest_of(top.diff, len(ranked), top.diff.value, top.diff.lo, top.diff.hi, signed=True)
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
