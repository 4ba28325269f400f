"""What a run says of each truth: found, missed, false alarm, silent or not testable; a pure function of its tables and
claims.

                    claimed         not claimed     no estimate     n cannot show it
    planted         found           missed          silent          not_testable
    not planted     false_alarm     silent          silent          not_testable

One bar for both: it is claimed where the verdict is "supported", or "qualified" for no other reason than controls of
the interpretation that must fail in this pair (`despite`). A truth that no step of the run asked about is silent,
whether it was planted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from interp.stats import rejects
from study.known_truth.declared import InLedger, InTable, Truth
from study.ledger import Above, Claim, Control, p_words
from study.ledger_rows import Tables, bounds, measured, number, rows
from study.rows import Row

Outcome = Literal["found", "missed", "false_alarm", "silent", "not_testable"]


class Compared(NamedTuple):
    """A truth with the claim that decides it (None: no step of the run asked) and what follows."""

    truth: Truth
    claim: Claim | None
    outcome: Outcome


def claims_of_rows(truths: Sequence[Truth], tables: Tables) -> list[Claim]:
    """The claims of the truths that single rows decide, those that the tables have; their keys are the truths'."""
    made = (claim_of_row(truth, tables, truth.by) for truth in truths if isinstance(truth.by, InTable))
    return [claim for claim in made if claim is not None]


def compare(truths: Sequence[Truth], claims: Sequence[Claim]) -> list[Compared]:
    """Every truth with its claim and its outcome, in the order of the truths.

    Args:
        claims: of the ledger, of controls (`Analysis.placebos`) and of rows (`claims_of_rows`), corrected.
    Raises:
        ValueError: two truths, or two claims that decide, with one key.
    """
    _check_keys([truth.key for truth in truths], "truths")
    wanted = [truth.by.key if isinstance(truth.by, InLedger) else truth.key for truth in truths]
    _check_keys([claim.key for claim in claims if claim.key in wanted], "claims")
    known = {claim.key: claim for claim in claims}
    found = [(truth, known.get(key)) for truth, key in zip(truths, wanted, strict=True)]
    return [Compared(truth, claim, outcome_of(truth, claim)) for truth, claim in found]


def _check_keys(keys: Sequence[str], what: str) -> None:
    if len(set(keys)) < len(keys):
        raise ValueError(f"{what}: expected keys that are unique, got {max(keys, key=keys.count)!r} twice.")


def outcome_of(truth: Truth, claim: Claim | None) -> Outcome:
    """The outcome of one truth; see the table of this module."""
    if claim is None:
        return "silent"
    verdict = claim.verdict
    if verdict == "not testable":
        return "not_testable"
    if claim.measured is None or verdict == "not tested":
        return "silent"
    if is_claimed(claim, truth.by.despite):
        return "found" if truth.planted else "false_alarm"
    return "missed" if truth.planted else "silent"


def is_claimed(claim: Claim, despite: Sequence[str]) -> bool:
    """Whether a claim is supported, or qualified by nothing but the controls named."""
    failed = {control.name for control in claim.checks if control.outcome != "passed"}
    return claim.verdict == "supported" or (claim.verdict == "qualified" and failed <= set(despite))


def claim_of_row(truth: Truth, tables: Tables, by: InTable) -> Claim | None:
    """The claim that the value of one row is above `by.above`; None where the run has no such row with a value.

    Raises:
        ValueError: several rows.
    """
    known = rows(tables, by.table, **by.where)
    if not known:
        return None
    if len(known) > 1:
        raise ValueError(
            f"truth {truth.key!r}: {len(known)} rows of table {by.table!r} where {dict(by.where)}; name one."
        )
    row = known[0]
    p = next((value for key in ("p_adjusted", "p") if (value := number(row, key)) is not None), None)
    controls = [] if p is None else [Control.of("its own test", bool(rejects(p)), p_words(p), sort="null")]
    controls += [
        Control.at_least(f"beyond {name.replace('_', ' ')}", bounds(row, f"{name}_difference"), 0.0, sort="null")
        for name in by.beyond
    ]
    if by.largest_over is not None:
        controls.append(_largest(row, tables, by, by.largest_over))
    value = measured(row, name=str(row.get("metric") or ""), signed=True)
    above = Control.at_least(f"above {by.above:g}", (value.lo, value.hi), by.above, sort="null")
    return Claim(truth.sentence, "behaviour", str(row["analysis"]), Above(by.above), value, (above, *controls),
                 smallest=by.smallest, tests=() if p is None else (p,), key=truth.key)  # fmt: skip


def _largest(row: Row, tables: Tables, by: InTable, column: str) -> Control:
    """Whether the row has the largest value of those that differ from it in one column alone."""
    peers = rows(tables, by.table, **{key: value for key, value in by.where.items() if key != column})
    rank = 1 + sum(float(peer["value"]) > float(row["value"]) for peer in peers)
    return Control.of(f"the largest of {len(peers)}", rank == 1, f"rank {rank}", sort="null")
