"""Published values and ours: what was printed, what its source leaves out, whether both are of the same thing.

The values are those under `published` of a study; `study.config.sections.Published` documents their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from study.config.sections import Published
from study.figures.numbers import MINUS
from study.ledger import Measured
from study.ledger_rows import Tables, flag, measured, rows

if TYPE_CHECKING:
    import pandas as pd

Reading = Literal["consistent", "differs", "not comparable", "change not established", "not run"]
ASPECTS = ("model", "prompt", "decoding", "data", "metric")
SAME = "same"


@dataclass(frozen=True)
class Beside:
    """A published value with ours.

    Attributes:
        ours:       our row, also where it is not comparable.
        comparable: whether model, prompt, decoding, data and metric are those of the source; only then is ours shown.
        differs:    what differs, or is not stated, out of `ASPECTS`, with what is known of it.
        why:        of a reading that is not `consistent` or `differs`.
    """

    published: Published
    ours: Measured | None
    reading: Reading
    comparable: bool = False
    differs: tuple[str, ...] = ()
    why: str = ""


def printed(published: Published) -> str:
    """The value as the source gave it: `0.68`, `0.279 → 0.333`."""
    ends = (published.value,) if published.before is None else (published.before, published.value)
    return " → ".join(f"{v:g}".replace("-", MINUS) for v in ends)


def parse_published(entries: object) -> tuple[Published, ...]:
    """The list under `published` of a resolved study.

    Raises:
        ValueError: not a list of mappings, an unknown key, a value that is not a number; names the entry.
    """
    if entries is None:
        return ()
    known = [f.name for f in fields(Published)]
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError("published: expected a list of mappings with " + ", ".join(known) + ".")
    parsed = []
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ValueError(f"published, entry {place}: expected a mapping with name and value, got {entry!r:.80}.")
        unknown = [str(key) for key in entry if key not in known]
        if unknown:
            raise ValueError(f"published, entry {place}: unknown key {unknown[0]!r}. Keys: {', '.join(known)}.")
        if not isinstance(entry.get("value"), int | float) or isinstance(entry["value"], bool):
            raise ValueError(f"published, entry {place}: value {entry.get('value')!r} is not a number.")
        try:
            parsed.append(Published(**{str(key): value for key, value in entry.items()}))
        except ValueError as error:
            raise ValueError(f"published, entry {place}: {str(error).splitlines()[-2].strip()}.") from None
    return tuple(parsed)


def beside(published: Published, tables: Tables, study: Mapping[str, object] | None = None) -> Beside:
    """A published value with our row.

    Not comparable where model, prompt, decoding, data or metric are not those of the source. Else, of one number:
    consistent where it lies in our interval, differs where it does not. Of a change (ours must be a difference): change
    not established where our interval includes 0, else consistent or differs. Not run where our tables have no such
    row, or several.

    Args:
        study: the resolved study, that the keys of aspects are looked up in.
    """
    ours = _row(published, tables)
    if isinstance(ours, str):
        return Beside(published, None, "not run", why=ours)
    if published.not_comparable:
        return Beside(published, ours, "not comparable", why=published.not_comparable)
    differs = _differs(published, ours, study or {})
    if differs:
        return Beside(published, ours, "not comparable", differs=differs)
    if published.before is not None and ours.lo <= 0 <= ours.hi:
        return Beside(published, ours, "change not established", True, why="our interval of the change includes 0")
    value = published.value - (published.before or 0.0)
    return Beside(published, ours, "consistent" if ours.lo <= value <= ours.hi else "differs", True)


def _differs(published: Published, ours: Measured, study: Mapping[str, object]) -> tuple[str, ...]:
    """What is not the same as in the source, one text for each of `ASPECTS`."""
    out = {name: _aspect(getattr(published, name), study) for name in ASPECTS}
    if not out["data"] and published.n is not None and published.n != ours.n:
        out["data"] = f"n = {published.n} there, {ours.n} here"
    return tuple(f"{name}: {text}" for name, text in out.items() if text)


def _aspect(given: str | Mapping[str, object], study: Mapping[str, object]) -> str:
    """What differs in one aspect; "" where it is the same."""
    if isinstance(given, str):
        return "" if given == SAME else given or "not stated"
    return "; ".join(
        f"{key} is {_shown(_value(study, key))} here, {_shown(wanted)} there"
        for key, wanted in given.items()
        if _plain(_value(study, key)) != _plain(wanted)
    )


def _value(study: Mapping[str, object], key: str) -> object:
    """The value of a dotted key; None where the study does not have it."""
    value: object = study
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _plain(value: object) -> object:
    """For comparison: the last part of a path, a number whatever its type."""
    if isinstance(value, str):
        return PurePath(value).name or value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _shown(value: object) -> str:
    return "not given" if value is None else str(_plain(value)) if isinstance(value, str) else f"{value}"


def _row(published: Published, tables: Tables) -> Measured | str:
    if published.table is None:
        return "no table row is named"
    if published.table not in tables:
        return f"no table {published.table}"
    where = {str(key): value for key, value in published.where.items()}
    found = rows(tables, published.table, **where)
    if not found and (why := _undefined(tables[published.table], where)):
        return why
    if len(found) != 1:
        return f"{'no' if not found else len(found)} rows of {published.table} fit"
    signed = published.before is not None or flag(found[0], "is_difference")
    return measured(found[0], signed=signed)


def _undefined(table: pd.DataFrame, where: Mapping[str, object]) -> str:
    """Why the one row that is named has no value; "" where there is no such row, or several."""
    if any(name not in table for name in where):
        return ""
    named = table
    for name, value in where.items():
        named = named[named[name] == value]
    return str(named["note"].iloc[0] or "") if len(named) == 1 and "note" in named else ""
