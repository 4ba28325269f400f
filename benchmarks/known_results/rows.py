"""What an experiment returns: rows with interval, null and verdict, and curves over layers or strengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Expected = Literal["above", "below", "near"]
Verdict = Literal["reproduced", "contradicted", "open"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number next to its null.

        above   reproduced if lo > limit,   contradicted if hi < null_value and hi < limit
        below   reproduced if hi < limit,   contradicted if lo > null_value and lo > limit
        near    reproduced if [lo, hi] lies within limit ± margin, contradicted if it lies outside
        open    everything else: also what looks like the null, within the spread that has the limit at its end

    Attributes:
        claim: key of the literature that predicts it (`literature.LITERATURE`).
        what: the measured quantity, in words.
        value, lo, hi: the number and its 95 % interval, in `unit`. A number without sampling error has lo = hi = value.
        n, n_groups: items, and the independent units among them.
        null: name of the null or control.
        null_value: the same quantity under the null.
        limit: what the interval must clear; None: `null_value`. Of a null distribution its 95 % limit.
        expected: where the literature puts the value, relative to `limit`.
        margin: half width of "near".
    Raises:
        ValueError: an interval without its value, a "near" without margin.
    """

    claim: str
    what: str
    value: float
    lo: float
    hi: float
    n: int
    n_groups: int
    unit: str
    null: str
    null_value: float
    expected: Expected
    limit: float | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.lo > self.value or self.hi < self.value:
            raise ValueError(f"row {self.what!r}: {self.value} lies outside of its interval [{self.lo}, {self.hi}].")
        if self.expected == "near" and not self.margin > 0:
            raise ValueError(f"row {self.what!r}: 'near' needs a margin above 0.")

    @property
    def verdict(self) -> Verdict:
        limit = self.null_value if self.limit is None else self.limit
        if any(math.isnan(number) for number in (self.lo, self.hi, limit)):
            return "open"
        low, high = {
            "above": (limit, math.inf),
            "below": (-math.inf, limit),
            "near": (limit - self.margin, limit + self.margin),
        }[self.expected]
        if low < self.lo and self.hi < high:
            return "reproduced"
        if self.expected == "above":
            low = min(low, self.null_value)
        elif self.expected == "below":
            high = max(high, self.null_value)
        return "contradicted" if self.hi < low or self.lo > high else "open"


@dataclass(frozen=True)
class Curve:
    """A quantity over layers or strengths, for the record; rows state what follows from it.

    Attributes:
        x: layers or strengths; x_name says which.
        null: the same quantity under the named null, or its limit, at each x.
    """

    name: str
    x_name: str
    x: Sequence[float]
    value: Sequence[float]
    null_name: str
    null: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.value) == len(self.null):
            raise ValueError(
                f"curve {self.name!r}: {len(self.x)} places, {len(self.value)} values, {len(self.null)} nulls."
            )


@dataclass(frozen=True)
class Findings:
    """Everything one experiment found on one checkpoint."""

    rows: Sequence[Row]
    curves: Sequence[Curve] = ()

    def as_json(self) -> dict[str, Any]:
        return {"rows": [asdict(row) | {"verdict": row.verdict} for row in self.rows],
                "curves": [asdict(curve) for curve in self.curves]}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Findings:
        names = {field.name for field in fields(Row)}
        rows = [Row(**{name: value for name, value in row.items() if name in names}) for row in data["rows"]]
        return cls(rows, [Curve(**curve) for curve in data["curves"]])
