"""A truth of a planted pair: what holds of it, or does not, and which claim or row of a run decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class InLedger:
    """Decided by a claim of the report, or by one that an analysis makes of its controls (`Analysis.placebos`).

    Attributes:
        key: key of the claim (`study.ledger.Claim.key`).
        despite: names of controls of the interpretation that must fail in this pair, e.g. "beats a bag of words": the
            tone is in the text. A claim that is qualified for no other reason counts as claimed.
    """

    key: str
    despite: tuple[str, ...] = ()


@dataclass(frozen=True)
class InTable:
    """Decided by one row of a table: a claim that its value is above `above`, judged by the rule of the ledger.

    Attributes:
        table: name of the table.
        where: column -> value of the one row.
        above: value of no effect.
        smallest: smallest effect of interest, counted from `above`.
        beyond: paired differences of the row (`<name>_difference_lo`) that must be above 0 as well.
        largest_over: column: of the rows that share the rest of `where`, this one must have the largest value.
        despite: as of `InLedger`.
    """

    table: str
    where: Mapping[str, str]
    above: float = 0.0
    smallest: float = 0.0
    beyond: tuple[str, ...] = ()
    largest_over: str | None = None
    despite: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """One sentence about a pair, and whether it was planted.

    Attributes:
        key: unique key of this row.
        sentence: what would be claimed, without its full stop.
        planted: True: a run has to claim it. False: no run may.
        member: member that it is about: engaged, heuristic, base, or `engaged - heuristic`.
        by: what decides it.
        because: how it is known, apart from any run: what was planted, or what was measured on many items.
    """

    key: str
    sentence: str
    planted: bool
    member: str
    by: InLedger | InTable
    because: str = field(default="", kw_only=True)
