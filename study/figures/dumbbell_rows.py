"""The table of figure 01 as rows in drawn order, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.stats import rejects
from study.figures import checks
from study.figures.frame import Caption, DataFrame, Roles
from study.figures.mpl import Record
from study.figures.numbers import MINUS, estimate_of, format_value, short
from study.figures.style import MEMBERS
from study.schema import DIFFERENCE

if TYPE_CHECKING:
    from pandas import Series

FIGURE = "dumbbell"
_MEMBERS = Roles("value", finite="value lo hi n")
_DIFFERENCES = Roles("value", finite="value lo hi n p_adjusted")
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
    by_member: dict[str, Record]
    diff: Record | None
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


@dataclass(frozen=True)
class Dumbbell:
    """The rows in drawn order, the footnotes by their mark, and the rows of the members in the table."""

    table: DataFrame
    rows: list[Row]
    notes: dict[str, str]

    @property
    def metric(self) -> str:
        return str(checks.only_value(self.table, "metric", figure=FIGURE, default="accuracy"))

    @property
    def paired(self) -> int:
        """Cells with a paired difference."""
        return sum(row.diff is not None for row in self.rows)

    @property
    def intervals(self) -> tuple[str, str]:
        """Which intervals were computed, in words: of the members, and of the differences ("" where there is none).

        Raises:
            ValueError: the column `interval` is blank.
        """
        both = []
        for kinds in (self.table["interval"], [row.diff.interval for row in self.rows if row.diff is not None]):
            words = [str(kind) for kind in dict.fromkeys(kinds) if not checks.is_absent(kind)]
            if len(kinds) and not words:
                raise ValueError(f"figure {FIGURE!r}: column interval must name the interval that was computed.")
            both.append(" or ".join(words))
        return both[0], both[1]

    @property
    def controls(self) -> Series[float]:
        """Cell -> what the control of its accuracy reaches; cells without one are left out."""
        if "control_value" not in self.table.columns:
            return self.table.groupby("cell", sort=False)["value"].first().iloc[:0]
        return self.table.dropna(subset=["control_value"]).groupby("cell", sort=False)["control_value"].first()

    @property
    def control(self) -> str:
        """`always answers one label: .50`, a range where cells differ, nothing without a control."""
        levels = self.controls
        if levels.empty:
            return ""
        name = checks.only_value(self.table, "control", figure=FIGURE, default="control")
        low, high = float(levels.min()), float(levels.max())
        return f"{name}: {short(low)}" + (f" to {short(high)}, by cell" if high > low else "")

    @property
    def bounds(self) -> tuple[float, float]:
        """Limits on tenths that hold every interval and the control."""
        ends = [self.table["lo"].min(), self.table["hi"].max(), *self.controls]
        low, high = math.floor(round(10 * min(ends), 6)) / 10, math.ceil(round(10 * max(ends), 6)) / 10
        return (low, high) if high - low >= 0.2 else (max(low - 0.1, min(low, 0.0)), high + 0.1 * (high < 1))


def read(table: DataFrame) -> Dumbbell:
    """A checked table `pair` as rows."""
    is_difference = table["member"] == DIFFERENCE
    members, differences = table[~is_difference], table[is_difference & table["value"].notna()]
    _MEMBERS.check(members, figure=FIGURE)
    if len(differences):
        _DIFFERENCES.check(differences, figure=FIGURE)
    if stray := set(differences["cell"]) - set(members["cell"]):
        raise ValueError(
            f"figure {FIGURE!r}: {', '.join(sorted(map(str, stray)))}: a difference without the values of its members."
        )
    judged = [str(row.cell) for row in checks.records(table[is_difference]) if _verdict(row)]
    if len(judged) > 1:
        raise ValueError(
            f"figure {FIGURE!r}: cells {', '.join(judged)} have an equivalence verdict. Only the training "
            "distribution, where equivalence is claimed, has one."
        )
    return Dumbbell(members, *rows_of(table))


def _verdict(row: Record) -> str:
    """The equivalence verdict of a difference, where it is claimed: in training cells."""
    is_claimed = getattr(row, "cell_role", TRAINING) == TRAINING
    return str(row.verdict) if is_claimed and not checks.is_absent(row.verdict) else ""


def rows_of(table: DataFrame) -> tuple[list[Row], dict[str, str]]:
    """Rows in drawn order and the footnotes by their mark."""
    is_difference = table["member"] == DIFFERENCE
    members = table[~is_difference]
    by_cell = {str(row.cell): row for row in checks.records(table[is_difference & table["value"].notna()])}
    verdicts = {str(row.cell): _verdict(row) for row in checks.records(table) if row.member == DIFFERENCE}
    groups = dict(iter(table.groupby("cell", sort=False)))

    def place(cell: object) -> tuple[float, ...]:
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


def _row(group: DataFrame, diff: Record | None, verdict: str, notes: dict[str, str], y: float) -> Row:
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


def caption(of: Dumbbell) -> Caption:
    """The words of the figure."""
    (kind, diff_kind), paired = of.intervals, of.paired
    named = [f"{role} ({sign})" for role, sign in zip(MEMBERS, "●◆■", strict=True) if role in set(of.table["member"])]
    who = f"{', '.join(named[:-1])}{' and ' * (len(named) > 1)}{named[-1]}"
    beside = f", with the paired difference engaged {MINUS} heuristic on the same items" if paired else ""
    flat = [
        f"{row.cell}, {role} {estimate_of(est)}"
        for row in of.rows
        for role, est in row.by_member.items()
        if est.lo == est.hi
    ]
    more = f" and {len(flat) - 3} more marks" if len(flat) > 3 else ""
    return Caption(
        what=f"{of.metric.capitalize()} of {who} per cell{beside}",
        reading=f"Rows by {'difference' if paired else 'value'}",
        n=f"{checks.sample_size(of.table, figure=FIGURE)} per cell",
        interval=f"Bars: 95 % {kind}" + (f"; differences: 95 % {diff_kind}" if paired else ""),
        control=[
            f"Filled: Holm p ≤ .05 over {paired} cells; hollow: not" if paired else "",
            f"Dashed: {of.control}" if of.control else "",
            next((f"Equivalence on {row.cell}: {row.verdict}" for row in of.rows if row.verdict), ""),
        ],
        notes=[
            f"Interval of zero width: {'; '.join(flat[:3])}{more}" if flat else "",
            "–: the pair was not measured" if 0 < paired < len(of.rows) else "",
            *(f"{mark} {text}" for mark, text in of.notes.items()),
        ],
    )


def alt(of: Dumbbell) -> list[str]:
    """The finding: the largest difference, and how many pass."""
    shown = [row for row in of.rows if row.diff is not None]
    head = f"Dumbbell plot of {len(of.rows)} cells"
    if not shown:
        worst = min(of.rows, key=lambda row: next(iter(row.by_member.values())).value)
        return [head, f"Lowest: {_in_words(worst)}", "No paired difference was measured"]
    ranked = [(row, row.diff) for row in shown if not row.verdict] or [(row, row.diff) for row in shown]
    top, diff = max(ranked, key=lambda pair: abs(pair[1].value))  # pyright: ignore[reportOptionalMemberAccess]
    assert diff is not None
    up = sum(row.significant and one.value > 0 for row, one in ranked)  # pyright: ignore[reportOptionalMemberAccess]
    both = sum(row.significant for row, _ in ranked)
    gap = checks.largest_of(diff, len(ranked), diff.value, diff.lo, diff.hi, signed=True)
    better = f"{up} with the engaged member better, {both - up} with the heuristic better"
    return [
        head,
        f"Largest difference: {_in_words(top)}, difference {gap}",
        f"Of {len(ranked)} differences {both} have Holm p ≤ .05: {better}",
        next((f"Equivalence on {row.cell}: {row.verdict}" for row in of.rows if row.verdict), ""),
    ]


def _in_words(row: Row) -> str:
    return f"{row.cell}, {' against '.join(f'{role} {estimate_of(est)}' for role, est in row.by_member.items())}"
