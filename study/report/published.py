"""Published values beside ours: what was printed, what its source leaves out, our interval, and one of five readings.

The values are those under `published` of a study; `study.config.sections.Published` documents their keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from study.report.ledger import Measured
from study.report.rows import Tables, flag, measured, rows

Reading = Literal["consistent", "differs", "not comparable", "change not established", "not run"]


@dataclass(frozen=True)
class Published:
    """One published number, or a published change from `before` to `value`; as in `study.config.sections`."""

    name: str
    value: float
    source: str = ""
    leaves_out: str = ""
    table: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    n: int | None = None
    before: float | None = None
    not_comparable: str = ""

    @property
    def printed(self) -> str:
        """The value as the source gave it: `0.68`, `0.279 → 0.333`."""
        ends = (self.value,) if self.before is None else (self.before, self.value)
        return " → ".join(f"{v:g}".replace("-", "\N{MINUS SIGN}") for v in ends)


@dataclass(frozen=True)
class Beside:
    """A published value with ours beside it."""

    published: Published
    ours: Measured | None
    reading: Reading
    why: str = ""


def parse_published(entries: Any) -> tuple[Published, ...]:
    """The list under `published` of a resolved study.

    Raises:
        ValueError: not a list of mappings, an unknown key, a value that is not a number; names the entry.
    """
    if entries is None:
        return ()
    known = [f.name for f in fields(Published)]
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError("published: expected a list of mappings with " + ", ".join(known) + ".")
    found = []
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ValueError(f"published, entry {place}: expected a mapping with name and value, got {entry!r:.80}.")
        unknown = [str(key) for key in entry if key not in known]
        if unknown:
            raise ValueError(f"published, entry {place}: unknown key {unknown[0]!r}. Keys: {', '.join(known)}.")
        if not isinstance(entry.get("value"), int | float) or isinstance(entry["value"], bool):
            raise ValueError(f"published, entry {place}: value {entry.get('value')!r} is not a number.")
        found.append(Published(**{str(key): value for key, value in entry.items()}))
    return tuple(found)


def beside(published: Published, tables: Tables) -> Beside:
    """A published value with our row beside it.

    Of one number: consistent where it lies in our interval, else differs. Of a change (ours must be a difference):
    change not established where our interval includes 0, else consistent or differs. Not comparable where the study
    says why; not run where our tables have no such row, or several.
    """
    found = _row(published, tables)
    if isinstance(found, str):
        return Beside(published, None, "not run", found)
    if published.not_comparable:
        return Beside(published, found, "not comparable", published.not_comparable)
    if published.before is not None and found.lo <= 0 <= found.hi:
        return Beside(published, found, "change not established", "our interval of the change includes 0")
    value = published.value - (published.before or 0.0)
    agrees = found.lo <= value <= found.hi
    return Beside(published, found, "consistent" if agrees else "differs")


def _row(published: Published, tables: Tables) -> Measured | str:
    if published.table is None:
        return "no table row is named"
    if published.table not in tables:
        return f"no table {published.table}"
    found = rows(tables, published.table, **{str(key): value for key, value in published.where.items()})
    if len(found) != 1:
        return f"{'no' if not found else len(found)} rows of {published.table} fit"
    signed = published.before is not None or flag(found[0], "is_difference")
    return measured(found[0], signed=signed)
