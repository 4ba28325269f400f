"""The table `known_truth` of a run, and what is printed of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from study.analyses.base import ShownTable
from study.known_truth.compare import Compared
from study.known_truth.declared import InLedger
from study.ledger import Claim

if TYPE_CHECKING:
    import pandas as pd

TABLE = "known_truth"
ORDER = ("false_alarm", "missed", "found", "silent", "not_testable")
OUTCOME = "Outcome"
CAPTION = (
    "Found, missed: it was planted, and this run claims it or does not. False alarm, silent: it was not planted, and "
    "this run claims it or does not; what no step asked about is silent too. Not testable: this n cannot show it."
)
INTERVAL = "95 %, of the row that the claim rests on"


class Counts(NamedTuple):
    """How many truths had each outcome; `n_planted` and `n_not_planted` of how many."""

    n_planted: int
    n_not_planted: int
    found: int
    missed: int
    false_alarm: int
    silent: int
    not_testable: int

    def __str__(self) -> str:
        unasked = self.n_planted - self.found - self.missed
        return (
            f"{self.found} of {self.n_planted} planted found"
            + (f" ({self.missed} missed)" if self.missed else "")
            + f"; {self.false_alarm} false alarms among {self.n_not_planted} that were not planted"
            + (f"; {unasked} planted not asked about or not testable" if unasked else "")
        )


def truth_table(compared: Sequence[Compared], **same: object) -> pd.DataFrame:
    """One row per truth: the claim in words, whether it was planted, the outcome, and the estimate behind it."""
    from study.schema import tidy

    return tidy([_row(one) for one in compared], analysis=TABLE, interval=INTERVAL, **same)


def _row(one: Compared) -> dict[str, object]:
    truth, claim = one.truth, one.claim
    row: dict[str, object] = {
        "member": truth.member,
        "claim": truth.sentence,
        "planted": truth.planted,
        "verdict": one.outcome,
        "claim_key": truth.by.key if isinstance(truth.by, InLedger) else truth.key,
        "metric": TABLE,
        "note": truth.because,
    }
    if claim is None:
        return row | {"claim_verdict": "not run", "note": truth.because or "no step of this run asks"}
    row |= {"claim_verdict": claim.verdict}
    if claim.measured is None:
        return row | {"note": claim.why or truth.because or "no estimate"}
    value = claim.measured
    open_controls = [control.name for control in claim.checks if control.outcome != "passed"]
    return row | {
        "metric": value.name or TABLE,
        "metric_unit": value.unit,
        "value": value.value,
        "lo": value.lo,
        "hi": value.hi,
        "n": value.n,
        "n_groups": value.n_groups,
        "unit": value.items,
        "group_unit": value.groups,
        "p": claim.p,
        "note": claim.why_not_testable or truth.because,
        "control": f"not passed: {'; '.join(open_controls)}" if open_controls else "all passed",
        **_corrected(claim),
        **_reach(claim),
    }


def _reach(claim: Claim) -> Mapping[str, object]:
    """What its n can show, of a claim that is not shown."""
    if claim.reach is None or claim.verdict not in ("not supported", "not testable"):
        return {}
    smallest = claim.reach.smallest_detectable
    return {"smallest_detectable": None if smallest == float("inf") else smallest, "n_needed": claim.reach.n_needed}


def _corrected(claim: Claim) -> Mapping[str, object]:
    if claim.corrected is None:
        return {}
    return {"p_adjusted": claim.corrected.fdr, "correction": "false discovery rate over every claim of the report"}


def counts(table: pd.DataFrame) -> Counts:
    """The counts of a table `known_truth`."""
    outcomes = table["verdict"].tolist()
    planted = int(table["planted"].astype(bool).sum())
    return Counts(planted, len(table) - planted, *(outcomes.count(word) for word in Counts._fields[2:]))


def shown_table(table: pd.DataFrame) -> ShownTable:
    """The table as the report shows it: false alarms and misses first."""
    from study.ledger import p_words
    from study.ledger_rows import measured, number

    rows = []
    records = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    for row in sorted(records, key=lambda row: ORDER.index(row["verdict"])):
        value = None if number(row, "value") is None else measured(row, signed=True)
        p = number(row, "p")
        shown = f"{value.shown}; {value.size}" if value else "none"
        known = f"{'yes' if row['planted'] else 'no'}: {row['note']}"
        rows.append(
            (
                row["claim"],
                known,
                row["verdict"].replace("_", " "),
                row["claim_verdict"],
                shown,
                "" if p is None else p_words(p),
            )
        )
    columns = ("Claim", "Planted, and how that is known", OUTCOME, "Verdict of its claim", "Estimate, 95 % CI", "p")
    return ShownTable(CAPTION, columns, tuple(rows), verdict=OUTCOME, fold=f"All {len(rows)}, planted and not")


def astray(table: pd.DataFrame) -> dict[str, list[str]]:
    """Claims that were missed, and false alarms: word -> claims; empty where there are none."""
    outcomes = (("missed", "missed"), ("false_alarm", "false alarm"))
    found = {said: table.loc[table["verdict"] == word, "claim"].tolist() for word, said in outcomes}
    return {said: claims for said, claims in found.items() if claims}


def text_of(table: pd.DataFrame) -> str:
    """The counts, and a line for each truth that was missed and each false alarm."""
    lines = [f"known truth: {counts(table)}"]
    lines += [f"  {said}: {claim}" for said, claims in astray(table).items() for claim in claims]
    return "\n".join(lines)
