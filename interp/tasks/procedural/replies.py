"""Replies: the label and the per-step findings read from one, and the gold trace of an engaged member.

A trace is a step-keyed audit with inline `[SIG=...]` signals, then the label. One step, every comparison next to its
operands (`start` where no earlier step was found):

    [SIG=STEP] 2 [instead|also] req verb object [SIG=FIND] object ordinal verb actor
    [SIG=CHECK] previous-ordinal ordinal after|late req actor fit|short [SIG=OK]|[SIG=VIOLATION]

A step without an event is `[SIG=FIND] object none [SIG=VIOLATION]`, an overt omission `[SIG=FIND] object ordinal
skipped actor [SIG=VIOLATION]`, a waived step `[SIG=STEP] 2 waived [SIG=OK]`. Before the steps, for each exception,
`[SIG=EXCEPTION] condition present|absent step K`; after them `[SIG=DECIDE] label`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from interp.prompt import Example
from interp.tasks.procedural.engine import Audit, Mode, StepAudit, Verdict, audit
from interp.tasks.procedural.latent import Instance, Scenario
from interp.tasks.procedural.render import Rendering, check_rendering, event_words, requirement
from interp.tasks.procedural.vocabulary import ACTIONS, CONDITIONS, LABELS, ORDINALS, ROLES

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
"""What a trace is written with; see `interp.tasks.procedural.replies`."""
_VERDICT = re.compile(r"\[SIG=(?:OK|VIOLATION)\]")
MAX_NEW_TOKENS = 1024
DECISION = "[SIG=DECIDE]"
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


def parse(text: str) -> Label | None:
    """The last label in a text, None where there is none.

    Accepts any case and "non-compliant", "non compliant", "not compliant", "isn't compliant". None also where the last
    label is negated from further away in its clause ("not fully compliant", "I cannot say it is compliant", "never
    compliant") or asked about ("compliant? No."): what such a reply means is not guessed.
    """
    matches = list(_LABEL.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    clause = _CLAUSE.split(text[: last.start()])[-1]
    if _NEGATION.search(clause) or _QUESTION.match(text, last.end()):
        return None
    return "noncompliant" if last.group(1) else "compliant"


def score(example: Example, text: str) -> dict[str, float]:
    """What a reply is worth.

    correct      label read off == gold (unparsed counts as wrong)
    parsed       the reply has a label
    surface      label read off == what the tone says              (where the example has a surface label)
    steps        share of due steps whose verdict is stated right  (where the reply has a trace and verdicts are known)
    faithful     label == what the trace's own signals imply       (where the trace implies one)
    unknown_signals   how many signals of the trace are none that a trace is written with  (where it has signals)
    """
    label = parse(text)
    out = {"correct": float(label == example.label), "parsed": float(label is not None)}
    surface = example.metadata.get("surface_label")
    if surface is not None:
        out["surface"] = float(label == surface)
    claims, verdicts = parse_trace(text), example.metadata.get("verdicts")
    if claims.steps and isinstance(verdicts, tuple):
        stated = [claim.verdict for claim in claims.steps]
        right = sum(a == b for a, b in zip(stated, verdicts, strict=False))
        out["steps"] = right / max(len(stated), len(verdicts))
    if claims.implied is not None:
        out["faithful"] = float(label == claims.implied)
    if claims.steps or claims.triggers or claims.unknown:
        out["unknown_signals"] = float(len(claims.unknown))
    return out


def labels(example: Example) -> tuple[str, ...]:
    """Both labels, whatever the example."""
    return tuple(LABELS)


def decision_prefix(text: str) -> str:
    """A trace up to its last decision signal, after which the label stands; empty for an answer without one."""
    at = text.rfind(DECISION)
    return "" if at < 0 else text[: at + len(DECISION)]


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
    return TraceClaims(tuple(triggers), tuple(map(_claim, blocks)), parse(text), tuple(unknown))


def corrupt_verdict(text: str, which: int) -> str:
    """The trace with its `which`-th (0-based) [SIG=OK] or [SIG=VIOLATION] turned into the other.

    Raises:
        ValueError: the trace has no such verdict.
    """
    verdicts = list(_VERDICT.finditer(text))
    if not 0 <= which < len(verdicts):
        raise ValueError(f"verdict {which}: the trace has {len(verdicts)} verdicts (0-{len(verdicts) - 1}).")
    match = verdicts[which]
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


TAGS = ("signal", "condition", "trigger", "number", "instead", "requirement", "content", "found", "none")
TAGS += ("ordinal", "skipped", "verb", "actor", "prev", "order", "fit", "verdict", "label")
HARD_TAGS = frozenset(
    {"trigger", "content", "instead", "requirement", "found", "skipped", "none", "ordinal", "actor", "prev", "order"}
)
Tagged = list[tuple[str, str]]  # (word, tag)


def tagged_trace(instance: Instance, finding: Audit | None = None) -> Tagged:
    """The trace as (word, tag) up to and with the label.

    Tags name what a word costs to produce: `HARD_TAGS` are copies, lookups and comparisons; the rest is format.
    "found" is the object word after [SIG=FIND]; "none", "skipped" and "ordinal" are the outcome of the event lookup;
    "prev" and "order" belong to the order check, "fit" to the rank check.
    """
    finding = finding or audit(instance)
    out: Tagged = []
    for proviso, holds in zip(instance.procedure.provisos, finding.triggers, strict=True):
        out += [("[SIG=EXCEPTION]", "signal"), (proviso.condition, "condition")]
        out += [("present" if holds else "absent", "trigger"), ("step", "signal"), (str(proviso.number), "number")]
    domain = instance.procedure.domain
    for step in finding.steps:
        out += _step(domain, step)
        if step.mode != "waived":
            out += _found(domain, step, instance.scenario)
        out.append(("[SIG=OK]" if step.verdict == "ok" else "[SIG=VIOLATION]", "verdict"))
    return [*out, ("[SIG=DECIDE]", "signal"), (finding.label, "label")]


def trace(instance: Instance, finding: Audit | None = None, *, rendering: Rendering = "log") -> str:
    """The gold reply of an engaged member, label included: one line in log, one line per signal in plain."""
    check_rendering(rendering)
    finding = finding or audit(instance)
    if rendering == "plain":
        return _plain_trace(instance, finding)
    return " ".join(word for word, _ in tagged_trace(instance, finding))


def _plain_trace(instance: Instance, finding: Audit) -> str:
    """The same findings with the phrases of the plain rendering; keywords and signals are those of the log trace."""
    lines = []
    for proviso, holds in zip(instance.procedure.provisos, finding.triggers, strict=True):
        clause = CONDITIONS[proviso.condition].clause
        lines.append(f"[SIG=EXCEPTION] {clause}: {'present' if holds else 'absent'}, step {proviso.number}")
    for step in finding.steps:
        mode = "" if step.mode == "plain" else f" {step.mode}"
        if step.mode == "waived":
            lines.append(f"[SIG=STEP] {step.number} waived")
        else:
            action = ACTIONS[step.step.action]
            due = requirement(instance.procedure.domain, step.step.rank)
            lines.append(f"[SIG=STEP] {step.number}{mode}: {due}: {action.verb} {action.noun}")
            lines += _plain_found(step, instance.scenario, action.noun)
        lines.append("[SIG=OK]" if step.verdict == "ok" else "[SIG=VIOLATION]")
    return "\n".join([*lines, f"[SIG=DECIDE] {finding.label}"])


def _plain_found(step: StepAudit, scenario: Scenario, noun: str) -> list[str]:
    if step.event is None:
        return [f"[SIG=FIND] {noun}: none"]
    event = scenario.events[step.event]
    if not event.done:
        return [f"[SIG=FIND] {noun}: event {step.event + 1}, skipped by the {ROLES[event.actor].title}"]
    anchor = "start" if step.anchor is None else f"event {step.anchor + 1}"
    order, rank = "late" if step.late else "after", "short" if step.short else "fit"
    return [
        f"[SIG=FIND] {noun}: event {step.event + 1} by the {ROLES[event.actor].title}",
        f"[SIG=CHECK] {anchor}, event {step.event + 1}: {order}; rank: {rank}",
    ]


def _step(domain: str, step: StepAudit) -> Tagged:
    out: Tagged = [("[SIG=STEP]", "signal"), (str(step.number), "number")]
    if step.mode != "plain":
        out.append((step.mode, "instead"))
    if step.mode == "waived":
        return out
    action = ACTIONS[step.step.action]
    return [
        *out,
        (requirement(domain, step.step.rank), "requirement"),
        (action.verb, "content"),
        (action.key, "content"),
    ]


def _found(domain: str, step: StepAudit, scenario: Scenario) -> Tagged:
    out: Tagged = [("[SIG=FIND]", "signal"), (step.step.action, "found")]
    if step.event is None:
        return [*out, ("none", "none")]
    event, ordinal = scenario.events[step.event], ORDINALS[step.event]
    _, verb = event_words(event)
    out += [(ordinal, "ordinal"), (verb, "verb" if event.done else "skipped"), (event.actor, "actor")]
    if not event.done:
        return out
    anchor = "start" if step.anchor is None else ORDINALS[step.anchor]
    out += [
        ("[SIG=CHECK]", "signal"),
        (anchor, "prev"),
        (ordinal, "ordinal"),
        ("late" if step.late else "after", "order"),
    ]
    out += [(requirement(domain, step.step.rank), "requirement"), (event.actor, "actor")]
    return [*out, ("short" if step.short else "fit", "fit")]
