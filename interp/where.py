"""Rows selected by conditions on their columns, as text: `label`, `context_condition=ambig`, `n_tokens<200`.

A condition is a column alone (it has a value), or column, operator and value. Nothing is evaluated: a value is a word
or a number, so a condition from a file is safe.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool

from interp.example import Example

Where: TypeAlias = Mapping[str, Sequence[str]] | Sequence[str]
"""Conditions as text, or column -> values of which one must hold."""

_CONDITION = re.compile(r"\s*(?P<column>[^=<>!]+?)\s*(?:(?P<sign>!=|<=|>=|==?|<|>)\s*(?P<value>.*?)\s*)?")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SHOWN = 12


@dataclass(frozen=True)
class Condition:
    """A condition that a row must meet.

        column            it has a value (not none, not NaN, not blank)
        column=a,b        its value is one of these; with nothing after the sign: it has no value
        column!=a,b       it has a value, and it is none of these
        column<3          also <=, > and >=: a number on that side

    Values are compared as text, and as numbers where both are numbers (1 equals 1.0); true and false in any case.

    Attributes:
        values: what is compared with; empty for a column alone and for `column=`.
    """

    column: str
    sign: str = "present"
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition in a text.

        Raises:
            ValueError: not of this form, or no number after <, <=, >, >=.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ValueError(
                f"condition {text!r}: expected COLUMN, COLUMN=VALUE[,VALUE], COLUMN!=VALUE, or COLUMN with <, <=, > or "
                ">= and a number."
            )
        column, sign, value = match["column"], (match["sign"] or "present").replace("==", "="), match["value"] or ""
        if sign in _ORDER:
            if _number(value) is None:
                raise ValueError(f"condition {text!r}: expected a number after {sign}, got {value!r}.")
            return cls(column, sign, (value,))
        values = tuple(part.strip() for part in value.split(",") if part.strip())
        if sign == "!=" and not values:
            return cls(column)
        return cls(column, sign, values)

    def holds(self, value: Any) -> bool:
        """Whether a value of the column meets it; a missing value meets only `column=`."""
        if is_missing(value):
            return self.sign == "=" and not self.values
        if self.sign in _ORDER:
            number = _number(value)
            return number is not None and _ORDER[self.sign](number, float(self.values[0]))
        is_one = any(_equal(value, one) for one in self.values)
        return {"present": True, "=": is_one, "!=": not is_one}[self.sign]

    def __str__(self) -> str:
        return self.column if self.sign == "present" else f"{self.column}{self.sign}{','.join(self.values)}"


def conditions(where: Where | str) -> tuple[Condition, ...]:
    """The conditions of a list of texts, of one text, or of a mapping column -> values."""
    if isinstance(where, str):
        return (Condition.parse(where),)
    if isinstance(where, Mapping):
        return tuple(Condition(name, "=", tuple(map(str, values))) for name, values in where.items())
    return tuple(Condition.parse(text) for text in where)


def columns_of(where: Where | str) -> tuple[str, ...]:
    """The columns that conditions name."""
    return tuple(one.column for one in conditions(where))


def kept(columns: Any, where: Where | str, *, n: int, option: str = "where") -> Bool[np.ndarray, "row"]:
    """True for the rows that meet every condition.

    Args:
        columns: a pandas frame, or a mapping column -> values.
        n: number of rows.  option: name of the conditions in errors.
    Raises:
        ValueError: a column that does not exist; no row is left (the error lists the column's values).

    Example:
        >>> kept({"label": ["a", "b", None], "n_tokens": [9, 300, 12]}, ["label", "n_tokens<200"], n=3).tolist()
        [True, False, False]
    """
    keep = np.ones(n, dtype=bool)
    for one in conditions(where):
        if one.column not in columns:
            raise ValueError(f"{option} {one}: no column {one.column!r}. Columns: {some(columns)}.")
        values = list(columns[one.column])
        keep &= np.fromiter((one.holds(value) for value in values), dtype=bool, count=n)
        if n and not keep.any():
            present = dict.fromkeys(str(value) for value in values if not is_missing(value))
            raise ValueError(f"{option} {one}: no row is left. {one.column!r} holds {some(present) or 'no value'}.")
    return keep


def examples_where(examples: Sequence[Example], where: Where | str, *, option: str = "where") -> list[Example]:
    """The examples that meet every condition; columns as in their cache (id, label, groups, other keys).

    Raises:
        ValueError: as `kept`.
    """
    if not where:
        return list(examples)
    columns: dict[str, list[Any]] = {"id": [e.id for e in examples], "label": [e.label for e in examples]}
    for rows in ([e.groups for e in examples], [e.metadata for e in examples]):
        for name in dict.fromkeys(key for row in rows for key in row):
            columns.setdefault(name, [row.get(name) for row in rows])
    keep = kept(columns, where, n=len(examples), option=option)
    return [example for example, is_kept in zip(examples, keep, strict=True) if is_kept]


def twins_where(
    twins: Sequence[tuple[Example, Example]], where: Where | str, *, option: str = "where"
) -> list[tuple[Example, Example]]:
    """The (original, twin) pairs whose original meets every condition.

    Raises:
        ValueError: as `kept`.
    """
    ids = {example.id for example in examples_where([original for original, _ in twins], where, option=option)}
    return [pair for pair in twins if pair[0].id in ids]


def is_missing(value: Any) -> bool:
    """None, NaN, pandas' NA, or blank text."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float | np.floating) and math.isnan(value)


def some(names: Iterable[object]) -> str:
    """The first twelve names, and the number of the others."""
    listed = [str(name) for name in names]
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _equal(value: Any, text: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return str(value).lower() == text.lower()
    if str(value) == text:
        return True
    number = None if isinstance(value, str) else _number(value)
    return number is not None and number == _number(text)


def _number(value: Any) -> float | None:
    """A finite number, also from text; None for anything else, including booleans."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
