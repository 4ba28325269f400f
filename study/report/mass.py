"""Claims about answers where the labels hold little of the probability: marked, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interp.label_mass import LOW_MASS, MIN_MASS
from study.ledger import Claim, Control
from study.ledger_rows import Tables

if TYPE_CHECKING:
    import pandas as pd

MASS = "label_mass"
_ANALYSES = {"eval": ("eval", "pair"), "heads": ("heads", "order_swap"), "steering": ("steering",)}
"""Analysis -> beginnings of the names of its tables."""


def with_masses(tables: Tables) -> Tables:
    """The tables, with `label_mass` in every row of an analysis that measured it.

    A row without one (a difference of members, a steered one) has the smallest of what its members have in the same
    cell, else in the analysis. Nothing is filled in where an analysis has measured none.
    """
    out = dict(tables)
    for starts in _ANALYSES.values():
        names = [name for name in tables if name.startswith(starts)]
        known = [tables[name] for name in names if MASS in tables[name] and tables[name][MASS].notna().any()]
        if known:
            smallest = _Smallest(known)
            out |= {name: tables[name].assign(**{MASS: smallest.of(tables[name])}) for name in names}
    return out


class _Smallest:
    """Smallest label mass by (member, cell), by member, and of all."""

    def __init__(self, tables: Iterable[pd.DataFrame]) -> None:
        self.known: dict[tuple[str, str], float] = {}
        for table in tables:
            part = table[table[MASS].notna()]
            cells = part["cell"].astype(str) if "cell" in part else [""] * len(part)
            for member, cell, mass in zip(part["member"].astype(str), cells, part[MASS].astype(float), strict=True):
                for key in ((member, cell), (member, ""), ("", "")):
                    self.known[key] = min(mass, self.known.get(key, 1.0))

    def of(self, table: pd.DataFrame) -> list[float]:
        own = table[MASS].tolist() if MASS in table else [None] * len(table)
        cells = table["cell"].astype(str).tolist() if "cell" in table else [""] * len(table)
        members = table["member"].astype(str).tolist()
        return [
            float(mass) if mass is not None and mass == mass else self._filled(member, cell)
            for mass, member, cell in zip(own, members, cells, strict=True)
        ]

    def _filled(self, member: str, cell: str) -> float:
        named = member.split(" - ")
        found = [self.known.get((name, cell), self.known.get((name, ""))) for name in named]
        return min((mass for mass in found if mass is not None), default=self.known["", ""])


def judged(claim: Claim, floor: float) -> Claim:
    """The claim as its label mass allows: refused below the floor, with a failed control below one half.

    Below one half a label is not what the member would most often say, so that a preference among labels is one among
    things that it rarely says. Below the floor nothing is claimed of its answers.
    """
    mass = None if claim.measured is None else claim.measured.label_mass
    if mass is None or mass >= LOW_MASS:
        return claim
    held = f"the labels hold {mass:.2f} of the probability at the slot"
    if mass < floor:
        why = f"{held}, less than min_label_mass {floor:g}: measure them where the member answers (slot, answer prefix)"
        return replace(claim, measured=None, controls=(), tests=(), why=why)
    control = Control(f"the labels hold at least {LOW_MASS:g} of the probability", "failed", held)
    return replace(claim, controls=(*claim.controls, control))


def floor_of(value: Any) -> float:
    """The floor of a study as its file has it; the default where it is no share."""
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return float(value) if is_share else MIN_MASS
