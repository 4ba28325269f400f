"""The ledger as a page shows it: claims by kind of evidence, supported ones first, those that were not tested last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from study.ledger import VERDICTS, Claim, Evidence, Verdict, Within

MEANS: dict[Evidence, str] = {
    "behaviour": "outputs differ or are equal",
    "decodable": "a probe reads it",
    "reads": "an oracle's answers depend on it",
    "necessary": "removing it hurts",
    "sufficient": "adding it produces the behaviour",
    "transfers": "it works in another prompt or checkpoint",
}
VERDICT_MEANS: dict[Verdict, str] = {
    "supported": "an effect of interest is shown, after correction over every claim of this page, and every control "
    "passed",
    "qualified": "an effect is shown, but a control of its interpretation failed, is undecided or was not run, or the "
    "effect may be smaller than the smallest effect of interest",
    "contradicted": "the interval lies wholly on the other side of the claim, and no test of the null failed",
    "not supported": "no effect is shown, or a test of the null failed",
    "not testable": "no effect is shown, and with this n the smallest effect of interest would be shown in fewer than "
    "80 % of studies",
    "not tested": "there is no estimate, or a test of the null was not run",
}
LAST: tuple[Verdict, ...] = ("not testable", "not tested")
"""Verdicts that say nothing of the effect: folded, below all others."""
MAX_NOT_SUPPORTED = 5
"""Claims of one kind of evidence that are not supported and stand in lines of their own; more are folded."""


@dataclass(frozen=True)
class Row:
    """One claim as a line of the page.

    Attributes:
        number: of the page, from 1: `C1`.
        reason: why it is not supported, in a few words; "" where it is.
        n_passed: controls that passed, of all that the verdict counts.
    """

    number: int
    claim: Claim
    reason: str
    n_passed: int


@dataclass(frozen=True)
class Group:
    """The claims of one kind of evidence, or those that were not tested, best verdict first.

    Attributes:
        name, means: of the evidence.
        tally: (verdict, how many), in the order of the rows.
    """

    name: str
    means: str
    rows: tuple[Row, ...]

    @property
    def folded(self) -> tuple[Row, ...]:
        """Rows that are not supported, where they are too many to be read; they are the last ones."""
        found = tuple(row for row in self.rows if row.claim.verdict == "not supported")
        return found if len(found) > MAX_NOT_SUPPORTED else ()

    @property
    def shown(self) -> tuple[Row, ...]:
        """The other rows."""
        return self.rows[: len(self.rows) - len(self.folded)]

    @property
    def n_small(self) -> int:
        """Folded rows whose effect is shown to be smaller than is of interest."""
        return sum(row.claim.is_small for row in self.folded)

    @property
    def tally(self) -> tuple[tuple[Verdict, int], ...]:
        return tally_of([row.claim for row in self.rows])


@dataclass(frozen=True)
class Ledger:
    """All claims of a page: those with a verdict by evidence, weakest evidence first; then the others."""

    groups: tuple[Group, ...]
    last: Group

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row, as the page numbers them."""
        return tuple(row for group in (*self.groups, self.last) for row in group.rows)


def rank(verdict: Verdict) -> int:
    """Place of a verdict on a page, from 0: supported."""
    return VERDICTS.index(verdict)


def tally_of(claims: Sequence[Claim]) -> tuple[tuple[Verdict, int], ...]:
    """(verdict, how many claims have it), in the order of a page, without those that none has."""
    found = [claim.verdict for claim in claims]
    return tuple((verdict, found.count(verdict)) for verdict in VERDICTS if verdict in found)


def grouped(claims: Sequence[Claim]) -> Ledger:
    """The ledger of a page: groups in the order of `Evidence`, in each the best verdict first, else the order given."""
    numbered = 0

    def row(claim: Claim) -> Row:
        nonlocal numbered
        numbered += 1
        passed = sum(control.outcome == "passed" for control in claim.checks)
        return Row(numbered, claim, reason(claim), passed)

    def rows_of(part: list[Claim]) -> tuple[Row, ...]:
        return tuple(row(claim) for claim in sorted(part, key=lambda claim: rank(claim.verdict)))

    judged = {kind: [c for c in claims if c.evidence == kind and c.verdict not in LAST] for kind in get_args(Evidence)}
    groups = tuple(Group(kind, MEANS[kind], rows_of(part)) for kind, part in judged.items() if part)
    return Ledger(groups, Group("not tested", "", rows_of([c for c in claims if c.verdict in LAST])))


def reason(claim: Claim) -> str:
    """Why a claim is not supported: what it lacks most, in a few words; "" where it is supported."""
    verdict, failed = claim.verdict, [c for c in claim.checks if c.outcome != "passed"]
    if verdict == "supported":
        return ""
    if claim.measured is None:
        return claim.why or "no estimate in the tables"
    if verdict == "contradicted":
        return "the interval lies on the other side of the claim"
    if verdict == "not testable" and claim.reach is not None:
        return claim.reach.sentence
    if verdict == "not supported" and claim.is_small:
        return f"shown to be smaller than {claim.smallest:g}, the smallest effect of interest"
    if verdict == "not supported" and (open_ := _open(claim)):
        return open_
    sort = "interpretation" if verdict == "qualified" else "null"
    own = [f"{c.name}{f' ({c.detail})' if c.detail else ''}: {c.outcome}" for c in failed if c.sort == sort]
    if not own:
        return "no control was run"
    return own[0] + (f"; and {len(own) - 1} more" if len(own) > 1 else "")


def _open(claim: Claim) -> str:
    """What an interval that decides nothing includes; "" where it decides."""
    asserts, measured = claim.asserts, claim.measured
    assert measured is not None
    if isinstance(asserts, Within):
        is_inside = -asserts.margin < measured.lo and measured.hi < asserts.margin
        return "" if is_inside else f"the interval reaches beyond ±{asserts.margin:g}"
    if measured.lo == measured.hi:
        return "an interval of zero width is not evidence"
    return "the interval includes no effect" if measured.lo <= asserts.null <= measured.hi else ""
