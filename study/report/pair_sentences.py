"""Sentences on what both members answer, with the values of each: from the table `pair`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interp.checkpoint import MEMBERS
from study.analyses.eval.claims import ADVERSARIAL, CHANGE, EQUIVALENT, SEPARATES, TRAINING
from study.figures.numbers import format_estimate, format_value
from study.ledger import Claim, Within
from study.ledger_rows import Row, Tables, rows, size_of, words
from study.report.sentence import Sentence
from study.schema import DIFFERENCE

MAX_CELLS = 2
ENGAGED, HEURISTIC = MEMBERS


@dataclass(frozen=True)
class _Cell:
    """One cell of the table `pair`: the difference of the members, and what each of them reaches."""

    difference: Row
    sides: Mapping[str, Row]

    @property
    def name(self) -> str:
        return words(self.difference["cell"])

    @property
    def ends(self) -> tuple[float, float, float]:
        return _ends(self.difference)

    @property
    def change(self) -> str:
        return f"difference {format_estimate(*self.ends, signed=True)}"

    @property
    def size(self) -> str:
        size = size_of(self.difference)
        return f"n = {size['n']:,} {size['items']}"

    def value(self, member: str) -> str:
        """What a member reaches, with as many decimals as its interval supports."""
        return format_value(*_ends(self.sides[member]))


def _ends(row: Row) -> tuple[float, float, float]:
    return float(row["value"]), float(row["lo"]), float(row["hi"])


def of_pair(claim: Claim, tables: Tables) -> Sentence | None:
    """The sentence on a claim about the answers of both members; None where there is no such one."""
    own = {EQUIVALENT: _equal, SEPARATES: _separate}.get(claim.key)
    return own(claim, tables) if own is not None and claim.measured is not None else None


def _cells(tables: Tables, role: str) -> list[_Cell]:
    """Cells of a role in which both members answered the same items."""
    made = []
    for row in rows(tables, "pair", member=DIFFERENCE, metric=CHANGE, cell_role=role):
        same = rows(tables, "pair", metric="accuracy", cell=row["cell"])
        sides = {str(r["member"]): r for r in same if r.get("mode") == row.get("mode")}
        if row["cell"] != "all" and set(MEMBERS) <= set(sides):
            made.append(_Cell(row, sides))
    return made


def _cell_of(claim: Claim, cells: list[_Cell]) -> _Cell | None:
    """The cell that a claim rests on, by its estimate."""
    m = claim.measured
    return next((cell for cell in cells if m is not None and cell.ends == (m.value, m.lo, m.hi)), None)


def _equal(claim: Claim, tables: Tables) -> Sentence | None:
    """On the training distribution: equal, not equal, or open and what it would take."""
    cell = _cell_of(claim, _cells(tables, TRAINING))
    if cell is None or claim.measured is None or not isinstance(claim.asserts, Within):
        return None
    where = "the training distribution" + (f" ({cell.name})" if claim.measured.name else "")
    values = f"engaged {cell.value(ENGAGED)}, heuristic {cell.value(HEURISTIC)}, {cell.change}"
    margin, size = f"{claim.asserts.margin:g}", f"n = {claim.measured.size}"
    if claim.verdict in ("supported", "qualified"):
        return Sentence(f"Both members answer {where} equally well: {values}, equivalent within {margin}", size)
    if claim.verdict == "contradicted":
        better = HEURISTIC if claim.measured.value < 0 else ENGAGED
        text = f"The {better} member answers {where} better: {values}, beyond the margin of {margin}"
        return Sentence(text, f"{size}; a difference elsewhere may be a difference in skill")
    need = claim.reach.n_needed if claim.reach is not None and claim.verdict == "not testable" else None
    more = f"; equal members would be shown to be equal with n = {need:,}" if need else ""
    text = f"Whether both members answer {where} equally well is open: {values}, which reaches beyond ±{margin}{more}"
    return Sentence(text, f"{size}; a difference elsewhere may be a difference in skill")


def _separate(claim: Claim, tables: Tables) -> Sentence | None:
    """On the cells where the surface misleads: who is right there. A claim about all of them rests on the weakest."""
    cells = _cells(tables, ADVERSARIAL)
    weakest, n_cells = _cell_of(claim, cells), len(cells)
    if weakest is None:
        return None
    better, worse, opposite = ENGAGED, HEURISTIC, ""
    if claim.verdict == "contradicted":
        cells = [cell for cell in cells if cell.ends[2] < 0]
        better, worse, opposite = HEURISTIC, ENGAGED, ", the opposite of what is claimed"
    shown = cells if len(cells) <= MAX_CELLS else [weakest]
    parts = [f"{c.value(better)} against {c.value(worse)} on {c.name}, {c.change}" for c in shown]
    sizes = dict.fromkeys(c.size for c in shown)
    which = f"{len(shown)} of {n_cells} cells, " if len(shown) < n_cells else ""
    text = f"Where the surface misleads, the {better} member is right more often than the {worse}{opposite}: "
    detail = f"{which}{' and '.join(sizes)}{' each' if len(shown) > len(sizes) else ''}; engaged minus heuristic"
    return Sentence(text + "; ".join(parts), detail)
