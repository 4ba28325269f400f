"""One sentence on claims that share what is claimed: the estimate of each member, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.checkpoint import MEMBERS
from study.ledger import Above, Claim, Measured, Within, member_words
from study.ledger_rows import words


@dataclass(frozen=True)
class Sentence:
    """A sentence without its full stop.

    Attributes:
        text:   who does what, with estimate and interval.
        detail: what was measured where, n, and the controls that did not pass.
    """

    text: str
    detail: str = ""


def claimed(claims: Sequence[Claim]) -> Sentence:
    """`X is decodable in both members: engaged 0.94 [0.90, 0.97], heuristic 0.91 [0.86, 0.95]`.

    Args:
        claims: one, or several with the same `about` and different members.
    """
    first, order = claims[0], [*MEMBERS, *(c.member for c in claims)]
    by_member = sorted(claims, key=lambda c: order.index(c.member))
    shown = {c.member: c.measured for c in by_member if c.measured is not None}
    if not shown:
        return Sentence(first.text)
    if len(shown) == 1:
        return Sentence(f"{first.text}: {next(iter(shown.values())).shown}", _detail(shown))
    what = first.about.replace("{member}", member_words(list(shown)))
    return Sentence(f"{what}: {', '.join(f'{words(who)} {m.shown}' for who, m in shown.items())}", _detail(shown))


def _detail(shown: dict[str, Measured]) -> str:
    """What was measured and of how many: once where it is the same for every member."""
    names = {who: m.name for who, m in shown.items() if m.name}
    sizes = {who: f"n = {m.size}" for who, m in shown.items()}
    return "; ".join(filter(None, (_once(names), _once(sizes))))


def _once(by_member: dict[str, str]) -> str:
    if len(set(by_member.values())) <= 1:
        return next(iter(by_member.values()), "")
    return "; ".join(f"{words(who)}: {text}" for who, text in by_member.items())


def contrast(claims: Sequence[Claim], ledger: Sequence[Claim]) -> str:
    """What the other member of the pair shows of the same claim, where its verdict is another: `; in the heuristic
    member 0.01 [-0.02, 0.04], not supported`, or why it shows nothing."""
    about, named = claims[0].about, {c.member for c in claims}
    others = [c for c in ledger if about and c.about == about and c.member in MEMBERS and c.member not in named]
    return "".join(
        f"; in {member_words((c.member,))} {c.measured.shown}, {c.verdict}"
        if c.measured
        else f"; {c.verdict} in {member_words((c.member,))} ({c.why})"
        for c in others
    )


def reservations(claims: Sequence[Claim]) -> str:
    """What keeps claims from being supported: the controls that they did not pass, or the side that was claimed."""
    verdict, asserts = claims[0].verdict, claims[0].asserts
    if verdict == "contradicted" and not isinstance(asserts, Within):
        return f"the claim is a value {'above' if isinstance(asserts, Above) else 'below'} {asserts.null:g}"
    if verdict != "qualified":
        return ""
    missed: dict[str, dict[str, None]] = {}
    for control in (control for claim in claims for control in claim.checks if control.outcome != "passed"):
        missed.setdefault(control.name, {})[control.outcome] = None
    listed = "; ".join(f"{name} ({', '.join(outcomes)})" for name, outcomes in missed.items())
    return f"not passed: {listed}" if listed else "no control was run"
