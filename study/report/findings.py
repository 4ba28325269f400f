"""What a run found, in plain sentences: made from columns of the tables and the claims, never from words in texts.

The sentences are those of the first page of a report and of what `diptych study run` prints. Pure functions of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from study.analyses.eval.claims import EQUIVALENT
from study.ledger import Claim, Evidence, Verdict
from study.ledger_rows import Tables
from study.report.groups import reason, tally_of
from study.report.pair_sentences import of_pair
from study.report.sentence import Sentence, claimed, contrast, reservations

Kind = Literal["supported", "open", "contradicted", "qualified"]
MAX_PER_EVIDENCE: dict[Kind, int] = {"supported": 3, "open": 1, "contradicted": 2, "qualified": 2}
_COUNTED: dict[Verdict, str] = {"qualified": "qualified (an effect is shown, but a control did not pass)"}


@dataclass(frozen=True)
class Finding:
    """One sentence, and the claims that it says.

    Attributes:
        kind: the verdict of these claims; open: decided neither way.
        text, detail: as of `Sentence`.
        claims: places in the ledger, from 0.
    """

    kind: Kind
    evidence: Evidence
    text: str
    detail: str
    claims: tuple[int, ...]


@dataclass(frozen=True)
class Findings:
    """The sentences of a run.

    Attributes:
        sentences: what is supported; whether the members are equal on the training distribution, where that is open;
            what is contradicted; what is qualified. In each, weakest kind of evidence first.
        n_more: claims with one of these verdicts that are in no sentence.
        rest: one sentence on what is not supported, with counts; "" where every claim is supported.
        why: where nothing is supported, what came closest, and what its n could have shown.
    """

    sentences: tuple[Finding, ...]
    n_more: int
    rest: str
    why: tuple[str, ...] = ()

    @property
    def has_supported(self) -> bool:
        return any(one.kind == "supported" for one in self.sentences)


def findings(ledger: Sequence[Claim], tables: Tables, *, failed: Mapping[str, str] | None = None) -> Findings:
    """What the claims of a run come to.

    Args:
        failed: analysis -> why its step did not run to the end.
    """
    made: list[Finding] = []
    n_more = 0
    for kind in get_args(Kind):
        for evidence in get_args(Evidence):
            shared = _shared(ledger, kind, evidence)
            shown = shared[: MAX_PER_EVIDENCE[kind]]
            made += [_finding(places, kind, ledger, tables) for places in shown]
            n_more += sum(map(len, shared)) - sum(map(len, shown))
    has_supported = any(one.kind == "supported" for one in made)
    return Findings(tuple(made), n_more, _rest(ledger), () if has_supported else tuple(_why(ledger, failed or {})))


def _shared(ledger: Sequence[Claim], kind: Kind, evidence: Evidence) -> list[list[int]]:
    """Places of the claims of a kind, those together that claim the same of several members."""
    same: dict[str, list[int]] = {}
    for i, claim in enumerate(ledger):
        if claim.evidence == evidence and _kind_of(claim) == kind:
            same.setdefault(claim.about or claim.text, []).append(i)
    return sorted(same.values(), key=lambda places: ledger[places[0]].key != EQUIVALENT)  # what the others rest on


def _kind_of(claim: Claim) -> str:
    """The kind of sentence that a claim is in; of those that decide nothing only equality, which all others rest on."""
    if claim.key == EQUIVALENT and claim.measured is not None and claim.verdict in ("not supported", "not testable"):
        return "open"
    return claim.verdict


def _finding(places: Sequence[int], kind: Kind, ledger: Sequence[Claim], tables: Tables) -> Finding:
    claims = [ledger[i] for i in places]
    special = of_pair(claims[0], tables)
    if special is None:
        plain = claimed(claims)
        special = Sentence(plain.text + contrast(claims, ledger), plain.detail)
        held_back = reservations(claims) if kind != "open" else reason(claims[0])
    else:
        held_back = reservations(claims) if kind == "qualified" else ""
    detail = "; ".join(filter(None, (special.detail, held_back)))
    return Finding(kind, claims[0].evidence, f"{special.text}.", detail, tuple(places))


def _rest(ledger: Sequence[Claim]) -> str:
    """One sentence on what is not supported, with counts."""
    tally: list[tuple[Verdict, int]] = [(verdict, n) for verdict, n in tally_of(ledger) if verdict != "supported"]
    if not tally:
        return ""
    counts = [str(n) for _, n in tally]
    counts[0] += " is" if counts[0] == "1" else " are"
    parts = [_COUNTED.get(verdict, verdict) + _small(ledger, verdict, n) for verdict, n in tally]
    listed = [f"{count} {part}" for count, part in zip(counts, parts, strict=True)]
    joined = " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
    return f"Of {len(ledger)} claim{'' if len(ledger) == 1 else 's'}, {joined}."


def _small(ledger: Sequence[Claim], verdict: Verdict, n: int) -> str:
    """Of claims that are not supported: in how many the effect is shown to be smaller than is of interest."""
    small = sum(c.verdict == verdict and c.is_small for c in ledger) if verdict == "not supported" else 0
    if not small:
        return ""
    which = "the" if small == n else f"in {small} of them the"
    return f" ({which} effect is shown to be smaller than the smallest effect of interest)"


def _why(ledger: Sequence[Claim], failed: Mapping[str, str]) -> list[str]:
    """Why nothing is supported: what was not measured, and what came closest, with what its n could have shown."""
    causes = [f"Step {name} did not finish." for name in failed]
    measured = [c for c in ledger if c.measured is not None]
    if not measured:
        return [*causes, "No claim has an estimate: nothing was measured."]
    made = []
    for evidence in get_args(Evidence):
        own = [c for c in measured if c.evidence == evidence]
        if own and not any(c.verdict == "qualified" for c in own):
            closest = min(own, key=lambda c: 1.0 if c.p is None else c.p)
            plain, reach = claimed([closest]), closest.reach.sentence if closest.reach is not None else ""
            detail = "; ".join(dict.fromkeys(filter(None, (plain.detail, reason(closest), reach))))
            made.append(f"Closest of {evidence}: {plain.text} ({detail}).")
    return [*causes, *made]
