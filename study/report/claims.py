"""The claims ledger: what was claimed, which evidence was run, which control passed, and the verdict of one rule.

    not tested      there is no estimate; the row says why
    contradicted    the interval lies wholly outside the claim
    not supported   the interval includes no effect (for a claim of equivalence: is not inside the margin)
    qualified       the interval is on the side of the claim, but a control failed or was not run
    supported       the interval is on the side of the claim and every control passed

Pure functions of tables: the same tables give the same ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from study.figures.numbers import fixed, format_estimate, format_p

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["supported", "qualified", "not supported", "contradicted", "not tested"]
Evidence = Literal["behaviour", "decodable", "reads", "necessary", "sufficient", "transfers"]
Outcome = Literal["passed", "failed", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Tables = Mapping[str, "pd.DataFrame"]
ALPHA = 0.05
MEMBERS = ("engaged", "heuristic")


@dataclass(frozen=True)
class Control:
    """What could have produced the number by accident, and whether it did.

    Attributes:
        name:    the control in words.
        outcome: passed, failed, or not run: a control that was not run has not been passed.
        detail:  its numbers.
    """

    name: str
    outcome: Outcome
    detail: str = ""

    @classmethod
    def of(cls, name: str, passed: bool | None, detail: str = "") -> Control:
        """Passed or failed; not run where `passed` is None."""
        return cls(name, "not run" if passed is None else "passed" if passed else "failed", detail)


@dataclass(frozen=True)
class Above:
    """The claim that a quantity is above `null`; a difference carries a sign when it is written."""

    null: float = 0.0


@dataclass(frozen=True)
class Below:
    """The claim that a quantity is below `null`."""

    null: float = 0.0


@dataclass(frozen=True)
class Within:
    """The claim that a quantity is as good as zero: inside ±margin."""

    margin: float


@dataclass(frozen=True)
class Measured:
    """The estimate that a claim rests on: value, 95 % interval, n and groups, with the words around it."""

    value: float
    lo: float
    hi: float
    n: int
    n_groups: int | None = None
    name: str = ""
    unit: str = ""
    signed: bool = False
    items: str = "items"
    groups: str = "groups"

    def __str__(self) -> str:
        return f"{self.name}: {self.shown}" if self.name else self.shown

    @property
    def shown(self) -> str:
        """Value, interval and unit, without the name."""
        text = format_estimate(self.value, self.lo, self.hi, n=self.n, signed=self.signed)
        return f"{text} {self.unit}".strip()

    @property
    def size(self) -> str:
        """`253 items, 41 procedures`."""
        grouped = self.n_groups is not None and self.n_groups != self.n
        return f"{self.n:,} {self.items}" + (f", {self.n_groups:,} {_plural(self.groups)}" if grouped else "")


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    Attributes:
        text:     the claim, as a sentence without its full stop.
        evidence: the kind of evidence that was run for it; weakest to strongest in `Evidence`.
        analysis: the block of the report that shows it.
        asserts:  what the interval is held against.
        measured: the estimate, or None.
        controls: those that this evidence needs, run or not.
        why:      why there is no estimate.
    """

    text: str
    evidence: Evidence
    analysis: str
    asserts: Above | Below | Within = Above()
    measured: Measured | None = None
    controls: tuple[Control, ...] = ()
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict of the rule above."""
        return judge(self.measured, self.asserts, self.controls)


def _plural(word: str) -> str:
    """`procedures` of `procedure`; a word in the plural stays."""
    if word.endswith("s"):
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def judge(measured: Measured | None, asserts: Above | Below | Within, controls: Sequence[Control]) -> Verdict:
    """The rule of this module, applied to one estimate and its controls."""
    if measured is None:
        return "not tested"
    lo, hi = measured.lo, measured.hi
    if isinstance(asserts, Within):
        outside = lo >= asserts.margin or hi <= -asserts.margin
        holds = -asserts.margin < lo and hi < asserts.margin
    elif isinstance(asserts, Above):
        outside, holds = hi < asserts.null, lo > asserts.null
    else:
        outside, holds = lo > asserts.null, hi < asserts.null
    if outside:
        return "contradicted"
    if not holds:
        return "not supported"
    return "supported" if controls and all(c.outcome == "passed" for c in controls) else "qualified"


def measured(row: Mapping[str, Any], *, name: str = "", signed: bool = False) -> Measured:
    """The estimate of a table row; its interval as it stands there."""
    value, lo, hi = (float(row[key]) for key in ("value", "lo", "hi"))
    return Measured(value, lo, hi, **size_of(row), name=name, unit=str(row.get("metric_unit") or ""), signed=signed)


def size_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """How many items and groups a row is of, and what they are called, as `Measured` takes them."""
    groups, called = number(row, "n_groups"), (row.get("unit") or "items", row.get("group_unit") or "groups")
    return {"n": int(row["n"]), "n_groups": None if groups is None else int(groups), "items": str(called[0]),
            "groups": str(called[1])}  # fmt: skip


def claims(tables: Tables, *, failed: Mapping[str, str] | None = None) -> tuple[Claim, ...]:
    """Every claim that the tables allow, and for each analysis without tables the row "not tested".

    Args:
        tables: tables of a run by name, columns of `study.tables.COLUMNS`.
        failed: analysis -> why its step did not run to the end.
    """
    from study.report.behaviour_claims import behaviour
    from study.report.cause_claims import oracle, steering
    from study.report.head_claims import heads
    from study.report.probe_claims import probes

    rules: dict[str, Callable[[Tables], list[Claim]]] = {
        "eval": behaviour, "probes": probes, "heads": heads, "steering": steering, "oracle": oracle,
    }  # fmt: skip
    found: list[Claim] = []
    for analysis, rule in rules.items():
        made = rule(tables)
        cause = (failed or {}).get(analysis, "")
        found += made if any(c.measured for c in made) else [_untested(c, cause) for c in made]
    return tuple(found)


def _untested(claim: Claim, cause: str) -> Claim:
    from dataclasses import replace

    return replace(claim, why=f"the step failed: {cause}") if cause else claim


def rows(tables: Tables, name: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a table that have a value, where every named column equals what is wanted; none where a column is not
    there."""
    table = tables.get(name)
    if table is None or any(column not in table.columns for column in wanted):
        return []
    keep = table["value"].notna()
    for column, value in wanted.items():
        keep &= table[column].isin(value) if isinstance(value, tuple) else table[column] == value
    return [{str(k): v for k, v in row.items()} for row in table[keep.fillna(False).astype(bool)].to_dict("records")]


def is_blank(value: Any) -> bool:
    """None, NaN, NA or blank text: how a table writes that there is nothing."""
    if value is None or isinstance(value, str):
        return not value
    try:
        return math.isnan(float(value))
    except TypeError:
        return True  # pandas.NA has no float


def number(row: Mapping[str, Any], column: str) -> float | None:
    """A number of a row, or None where it is blank or absent."""
    value = row.get(column)
    return None if is_blank(value) else float(value)  # type: ignore[arg-type]


def below(p: float | None) -> bool | None:
    """Whether a p value is below 5 %; None where no test was made."""
    return None if p is None else p < ALPHA


def flag(row: Mapping[str, Any], column: str) -> bool:
    """A flag of a row; a blank is False."""
    value = row.get(column)
    return not is_blank(value) and bool(value)


def short(value: float | None) -> str:
    """A number of a control: two decimals."""
    return "" if value is None else fixed(value, 2)


def p_words(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    text = format_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
