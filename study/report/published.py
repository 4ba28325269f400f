"""Published values beside ours: what was printed, what its source leaves out, our interval, and one of four readings.

In `study.yaml`:

    published:
      - quantity: Training accuracy, engaged 7B
        value: 0.68                      # or [0.279, 0.333]: before and after
        omits: n and split are not given
        ours: {table: pair, member: engaged, cell: training_distribution, metric: accuracy}
        not_comparable: ""               # why definition, model or data differ, if they do
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.report.claims import Measured, Tables, measured, rows

Reading = Literal["consistent", "differs", "not comparable", "change not established", "not run"]
KEYS = ("quantity", "value", "omits", "ours", "not_comparable")


@dataclass(frozen=True)
class Published:
    """One published number, or a published change from one number to another.

    Attributes:
        quantity: what it is of.
        value: as printed; two numbers are a change.
        omits: what the source does not say (n, interval, definition).
        ours: table and column values that name our row; empty where we have none.
        not_comparable: why ours is another quantity; then no agreement is read off.
    """

    quantity: str
    value: tuple[float, ...]
    omits: str = ""
    ours: Mapping[str, Any] | None = None
    not_comparable: str = ""

    @property
    def printed(self) -> str:
        """The value as the source gave it: `0.68`, `0.279 → 0.333`."""
        return " → ".join(f"{v:g}".replace("-", "\N{MINUS SIGN}") for v in self.value)


@dataclass(frozen=True)
class Beside:
    """A published value with ours beside it."""

    published: Published
    ours: Measured | None
    reading: Reading
    why: str = ""


def parse_published(entries: Any) -> tuple[Published, ...]:
    """The list under `published` of a study.

    Raises:
        ValueError: not a list of mappings, an unknown key, a value that is not one number or two; names the entry.
    """
    if entries is None:
        return ()
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError("published: expected a list of mappings with " + ", ".join(KEYS) + ".")
    return tuple(_parsed(entry, place) for place, entry in enumerate(entries, start=1))


def _parsed(entry: Any, place: int) -> Published:
    if not isinstance(entry, Mapping) or "quantity" not in entry or "value" not in entry:
        raise ValueError(f"published, entry {place}: needs at least quantity and value, got {entry!r:.80}.")
    unknown = [str(key) for key in entry if key not in KEYS]
    if unknown:
        raise ValueError(f"published, entry {place}: unknown key {unknown[0]!r}. Keys: {', '.join(KEYS)}.")
    values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
    if len(values) not in (1, 2) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise ValueError(f"published, entry {place}: value {entry['value']!r} is not one number, or two for a change.")
    ours = entry.get("ours")
    if ours is not None and (not isinstance(ours, Mapping) or "table" not in ours):
        raise ValueError(f"published, entry {place}: ours needs a table and column values, got {ours!r:.80}.")
    return Published(str(entry["quantity"]), tuple(float(v) for v in values), str(entry.get("omits") or ""),
                     ours, str(entry.get("not_comparable") or ""))  # fmt: skip


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
    if len(published.value) == 2 and found.lo <= 0 <= found.hi:
        return Beside(published, found, "change not established", "our interval of the change includes 0")
    value = published.value[-1] - (published.value[0] if len(published.value) == 2 else 0.0)
    agrees = found.lo <= value <= found.hi
    return Beside(published, found, "consistent" if agrees else "differs")


def _row(published: Published, tables: Tables) -> Measured | str:
    if not published.ours:
        return "no table row is named"
    wanted = {str(key): value for key, value in published.ours.items() if key != "table"}
    name = str(published.ours["table"])
    if name not in tables:
        return f"no table {name}"
    found = rows(tables, name, **wanted)
    if len(found) != 1:
        return f"{'no' if not found else len(found)} rows of {name} fit"
    return measured(found[0], signed=len(published.value) == 2 or " - " in str(found[0].get("member", "")))
