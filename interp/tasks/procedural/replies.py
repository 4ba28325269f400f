"""What a reply says: its label, and the per-step findings of a trace. A reply that does not say it parses to None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from interp.tasks.procedural.engine import Mode, Verdict

Label = Literal["compliant", "noncompliant"]
# A word of its own, so "noncompliant" is never read as "compliant"; "compliance" and "incompliant" are not labels.
_LABEL = re.compile(r"(?<![A-Za-z])(non[\s_‐-―-]*|not\s+|[a-z]+n['’]t\s+)?compliant(?![A-Za-z])", re.IGNORECASE)
_CLAUSE = re.compile(r"[.,;:!?\n\[\]()]|\b(?:but|so|hence|thus|therefore|because|since|and)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|never|no|nor|neither|cannot|hardly|without)\b|[a-z]n['’]t\b|\b(?:dont|cant|isnt)\b", re.IGNORECASE
)
_QUESTION = re.compile(r"[\s*_\"'’”)\]]*\?")
_SEGMENT = re.compile(r"\[SIG=([^\[\]\n]*)\]([^\[]*)")
SIGNALS = frozenset({"EXCEPTION", "STEP", "FIND", "CHECK", "OK", "VIOLATION", "DECIDE"})
"""What a trace is written with; see `interp.tasks.procedural.trace`."""
_VERDICT = re.compile(r"\[SIG=(?:OK|VIOLATION)\]")
_MODES: dict[str, Mode] = {"instead": "instead", "also": "also", "waived": "waived"}


@dataclass(frozen=True, slots=True)
class StepClaim:
    """What a trace says about one step.

    Attributes:
        number: the step number stated; None where none is.
        mode: plain, instead, also or waived.
        verdict: what the stated comparisons amount to (missing, skipped, order, role, ok); None where nothing is
            stated about the event.
        passed: the signal: True for [SIG=OK], False for [SIG=VIOLATION], None where there is neither.
    """

    number: int | None
    mode: Mode
    verdict: Verdict | None
    passed: bool | None


@dataclass(frozen=True, slots=True)
class TraceClaims:
    """What a whole trace says; every part is as stated, not as true.

    Attributes:
        unknown: names of signals that are none of `SIGNALS`, as often as they stand there: nothing is read from them.
    """

    triggers: tuple[bool, ...]
    steps: tuple[StepClaim, ...]
    label: Label | None
    unknown: tuple[str, ...] = ()

    @property
    def implied(self) -> Label | None:
        """The label that the trace's own signals imply; None without steps or with a step that has no signal."""
        if not self.steps or any(step.passed is None for step in self.steps):
            return None
        return "compliant" if all(step.passed for step in self.steps) else "noncompliant"


def parse_label(text: str) -> Label | None:
    """The last label in a text, None where there is none.

    Accepts any case and "non-compliant", "non compliant", "not compliant", "isn't compliant". None also where the last
    label is negated from further away in its clause ("not fully compliant", "I cannot say it is compliant", "never
    compliant") or asked about ("compliant? No."): what such a reply means is not guessed.
    """
    found = list(_LABEL.finditer(text))
    if not found:
        return None
    last = found[-1]
    clause = _CLAUSE.split(text[: last.start()])[-1]
    if _NEGATION.search(clause) or _QUESTION.match(text, last.end()):
        return None
    return "noncompliant" if last.group(1) else "compliant"


def normalize_label(value: object) -> Label | None:
    """A label field in any spelling ("Non-Compliant", " compliant") as the label; None where it is neither."""
    if not isinstance(value, str):
        return None
    squeezed = re.sub(r"[\s_‐-―-]+", "", value).casefold()
    return squeezed if squeezed in ("compliant", "noncompliant") else None


def parse_trace(text: str) -> TraceClaims:
    """The claims of a `[SIG=...]` trace, log or plain rendering. Unknown signals are counted, not read."""
    triggers: list[bool] = []
    blocks: list[dict[str, str]] = []
    unknown: list[str] = []
    for signal, content in _SEGMENT.findall(text):
        if signal not in SIGNALS:
            unknown.append(signal)
        elif signal == "EXCEPTION":
            triggers.append("present" in _words(content))
        elif signal == "STEP":
            blocks.append({"STEP": content})
        elif blocks:
            blocks[-1].setdefault(signal, content)
    return TraceClaims(tuple(triggers), tuple(map(_claim, blocks)), parse_label(text), tuple(unknown))


def corrupt_verdict(text: str, which: int) -> str:
    """The trace with its `which`-th (0-based) [SIG=OK] or [SIG=VIOLATION] turned into the other.

    Raises:
        ValueError: the trace has no such verdict.
    """
    found = list(_VERDICT.finditer(text))
    if not 0 <= which < len(found):
        raise ValueError(f"verdict {which}: the trace has {len(found)} verdicts (0-{len(found) - 1}).")
    match = found[which]
    other = "[SIG=VIOLATION]" if match.group() == "[SIG=OK]" else "[SIG=OK]"
    return text[: match.start()] + other + text[match.end() :]


def _claim(block: dict[str, str]) -> StepClaim:
    words = _words(block["STEP"])
    number = next((int(w) for w in words if w.isdigit()), None)
    mode: Mode = _MODES.get(words[1], "plain") if len(words) > 1 else "plain"
    passed = True if "OK" in block else False if "VIOLATION" in block else None
    if "OK" in block and "VIOLATION" in block:
        passed = list(block).index("OK") < list(block).index("VIOLATION")
    return StepClaim(number, mode, _verdict(block, mode), passed)


def _verdict(block: dict[str, str], mode: Mode) -> Verdict | None:
    if mode == "waived":
        return "ok"
    found, check = _words(block.get("FIND", "")), _words(block.get("CHECK", ""))
    if "none" in found:
        return "missing"
    if "skipped" in found:
        return "skipped"
    if "late" in check:
        return "order"
    if "short" in check:
        return "role"
    return "ok" if "after" in check and "fit" in check else None


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+|\d+", text.lower())
