"""The headline table: per cell both members, their difference on the same items, its tests, and equivalence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from interp.stats import rejects
from study.analyses.eval.claims import CHANGE, TRAINING
from study.figures.numbers import format_estimate, format_p
from study.ledger_rows import Tables, is_blank, number, rows, words
from study.rows import Row
from study.schema import DIFFERENCE


@dataclass(frozen=True)
class Side:
    """An estimate of the table: as text, and as numbers for sorting and for the small drawing beside it."""

    value: float
    lo: float
    hi: float
    text: str

    @property
    def spread(self) -> str:
        """The interval alone."""
        return self.text.partition(" ")[2]

    @property
    def shown(self) -> str:
        """The value alone."""
        return self.text.partition(" ")[0]


@dataclass(frozen=True)
class Cell:
    """One row: a cell of the data."""

    name: str
    kind: str
    n: int
    n_groups: int | None
    engaged: Side | None
    heuristic: Side | None
    difference: Side | None
    counts: str
    p_items: float | None
    p: float | None
    verdict: str
    control: float | None
    notes: tuple[int, ...]

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p of the difference is at most 5 %."""
        return self.p is not None and bool(rejects(self.p))

    @property
    def p_text(self) -> str:
        return "" if self.p is None else format_p(self.p)

    @property
    def p_items_text(self) -> str:
        return "" if self.p_items is None else format_p(self.p_items)


@dataclass(frozen=True)
class Headline:
    """The table with its caption, its footnotes and the kinds of cells to filter by."""

    cells: tuple[Cell, ...]
    caption: str
    notes: tuple[str, ...]
    kinds: tuple[str, ...]


def headline(tables: Tables) -> Headline | None:
    """The table of a run, training distribution first and ruled off, the others by difference; None without a pair."""
    found = rows(tables, "pair", metric=("accuracy", CHANGE))
    if not found:
        return None
    modes = dict.fromkeys(str(r.get("mode") or "") for r in found)
    notes: dict[str, int] = {}
    cells = []
    for mode in modes:
        own = [r for r in found if str(r.get("mode") or "") == mode]
        for name in dict.fromkeys(str(r["cell"]) for r in own):
            sides = {str(r["member"]): r for r in own if r["cell"] == name}
            cells.append(_cell(name + (f" ({mode})" if mode else ""), sides, tables, notes))
    cells.sort(key=lambda c: (c.kind != TRAINING, -(c.difference.value if c.difference else 0.0), c.name))
    return Headline(tuple(cells), _caption(found), tuple(notes), tuple(dict.fromkeys(c.kind for c in cells if c.kind)))


def _cell(name: str, sides: dict[str, Row], tables: Tables, notes: dict[str, int]) -> Cell:
    both = sides.get(DIFFERENCE, {})
    first = both or next(iter(sides.values()))
    only = number(both, "only_engaged"), number(both, "only_heuristic")
    texts = [t for r in sides.values() for t in str(r.get("note") or "").split("; ") if t]
    for text in dict.fromkeys(texts):
        notes.setdefault(text, len(notes) + 1)
    groups = number(first, "n_groups")
    control = next((number(r, "control_value") for m, r in sides.items() if m != DIFFERENCE), None)
    return Cell(
        words(name),
        str(first.get("cell_role") or ""),
        int(first["n"]),
        None if groups is None else int(groups),
        _side(sides.get("engaged")),
        _side(sides.get("heuristic")),
        _side(both or None, signed=True),
        f"{int(only[0])} / {int(only[1])}" if only[0] is not None and only[1] is not None else "",
        number(both, "p_items"),
        number(both, "p_adjusted"),
        _verdict(both),
        control,
        tuple(notes[text] for text in dict.fromkeys(texts)),
    )


def _verdict(both: Row) -> str:
    """The verdict of equivalence, where it is claimed."""
    is_claimed = both.get("cell_role") == TRAINING and not is_blank(both.get("verdict"))
    return str(both["verdict"]) if is_claimed else ""


def _side(row: Row | None, *, signed: bool = False) -> Side | None:
    if row is None:
        return None
    value, lo, hi = (float(row[key]) for key in ("value", "lo", "hi"))
    return Side(value, lo, hi, format_estimate(value, lo, hi, signed=signed))


def _caption(found: list[Row]) -> str:
    own = _listed(r["interval"] for r in found if r["member"] != DIFFERENCE)
    paired = _listed(r["interval"] for r in found if r["member"] == DIFFERENCE)
    corrected = _listed(r.get("correction") for r in found if r["member"] == DIFFERENCE)
    parts = [f"Accuracy per cell; unparsed replies count as wrong. Intervals, 95 %: {own} for each member"]
    parts[0] += f"; {paired} for the difference." if paired else "."
    parts += [f"p: groups as units, {corrected}."] if corrected else []
    parts += ["McNemar: items as units, too small where items of a group agree." if corrected else ""]
    return " ".join(filter(None, parts))


def _listed(values: Iterable[object]) -> str:
    return " or ".join(dict.fromkeys(str(v) for v in values if not is_blank(v)))
