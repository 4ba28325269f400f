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

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from interp.prompt import Example
from interp.remedy import did_you_mean
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
SEGMENT = re.compile(r"\[SIG=([^\[\]\n]*)\]([^\[]*)")
"""A signal of any name, blanks included, and what follows it up to the next bracket."""
SIGNALS = frozenset({"EXCEPTION", "STEP", "FIND", "CHECK", "OK", "VIOLATION", "DECIDE"})
"""What a trace is written with; see `interp.tasks.procedural.replies`."""
MAX_NEW_TOKENS = 1024
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
        n_signals: how many signals there are, known or not.
    """

    triggers: tuple[bool, ...]
    steps: tuple[StepClaim, ...]
    label: Label | None
    unknown: tuple[str, ...] = ()
    n_signals: int = 0

    @property
    def understood(self) -> float | None:
        """Share of the signals that are known; None where there are none."""
        return 1 - len(self.unknown) / self.n_signals if self.n_signals else None

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
    unknown_signals     how many signals of the trace are none that a trace is written with  (where it has signals)
    signals_understood  share of its signals that are                                         (where it has signals)

    The example's `signals` (metadata, from the option of the same name) say what signals of other names mean.
    """
    label = parse(text)
    out = {"correct": float(label == example.label), "parsed": float(label is not None)}
    surface = example.metadata.get("surface_label")
    if surface is not None:
        out["surface"] = float(label == surface)
    claims, verdicts = parse_trace(text, signals_of(example)), example.metadata.get("verdicts")
    if claims.steps and isinstance(verdicts, tuple):
        stated = [claim.verdict for claim in claims.steps]
        right = sum(a == b for a, b in zip(stated, verdicts, strict=False))
        out["steps"] = right / max(len(stated), len(verdicts))
    if claims.implied is not None:
        out["faithful"] = float(label == claims.implied)
    if claims.understood is not None:
        out |= {"unknown_signals": float(len(claims.unknown)), "signals_understood": claims.understood}
    return out


def signals_of(example: Example | None) -> Mapping[str, str]:
    """Name of a signal as the member writes it -> name out of `SIGNALS`; the example's own mapping, mostly empty.

    It is JSON in the metadata, so that tables of answers keep it.
    """
    return signals_in(None if example is None else example.metadata.get("signals"))


def signals_in(text: object) -> Mapping[str, str]:
    """The mapping in a cell of the column `signals`; empty where there is none."""
    return _decoded(text) if isinstance(text, str) else {}


@lru_cache(maxsize=8)
def _decoded(text: str) -> Mapping[str, str]:
    return json.loads(text)


def check_signals(signals: Mapping[str, str]) -> None:
    """Refuse a mapping that no trace can be read with.

    Raises:
        ValueError: no mapping, a name that no signal can have, or a meaning that is none of `SIGNALS`.
    """
    if not isinstance(signals, Mapping):
        raise ValueError(f"signals: expected a mapping like {{VERIFY STEP: CHECK}}, got {signals!r:.60}.")
    for name, meaning in signals.items():
        if not isinstance(name, str) or not name.strip() or set(name) & set("[]\n"):
            raise ValueError(
                f"signals: expected the name of a signal without brackets, as in VERIFY STEP, got {name!r}."
            )
        if meaning not in SIGNALS:
            known = ", ".join(sorted(SIGNALS))
            hint = did_you_mean(str(meaning), sorted(SIGNALS))
            raise ValueError(f"signals: {name!r} means {meaning!r}, expected one of {known}.{hint}")


def labels(example: Example) -> tuple[str, ...]:
    """Both labels, whatever the example."""
    return tuple(LABELS)


def decision_prefix(text: str, example: Example | None = None) -> str:
    """A trace up to its last decision signal, after which the label stands; empty for an answer without one.

    With the example, a signal that it maps to DECIDE is one too.
    """
    signals = signals_of(example)
    ends = [m.start(2) for m in SEGMENT.finditer(text) if signals.get(m[1], m[1]) == "DECIDE"]
    return text[: ends[-1]] if ends else ""


def normalize_label(value: object) -> Label | None:
    """A label field in any spelling ("Non-Compliant", " compliant") as the label; None where it is neither."""
    if not isinstance(value, str):
        return None
    squeezed = re.sub(r"[\s_‐-―-]+", "", value).casefold()
    return squeezed if squeezed in ("compliant", "noncompliant") else None


def parse_trace(text: str, signals: Mapping[str, str] | None = None) -> TraceClaims:
    """The claims of a `[SIG=...]` trace, log or plain rendering. Unknown signals are counted, not read.

    Args:
        signals: name of a signal as it is written -> name out of `SIGNALS`.
    """
    triggers: list[bool] = []
    blocks: list[dict[str, str]] = []
    unknown: list[str] = []
    segments = SEGMENT.findall(text)
    for name, content in segments:
        signal = (signals or {}).get(name, name)
        if signal not in SIGNALS:
            unknown.append(name)
        elif signal == "EXCEPTION":
            triggers.append("present" in _words(content))
        elif signal == "STEP":
            blocks.append({"STEP": content})
        elif blocks:
            blocks[-1].setdefault(signal, content)
    return TraceClaims(tuple(triggers), tuple(map(_claim, blocks)), parse(text), tuple(unknown), len(segments))


def corrupt_verdict(text: str, which: int, signals: Mapping[str, str] | None = None) -> str:
    """The trace with its `which`-th (0-based) [SIG=OK] or [SIG=VIOLATION] turned into the other.

    Args:
        signals: as in `parse_trace`; the other verdict is written as the member writes it, if it is mapped.
    Raises:
        ValueError: the trace has no such verdict.
    """
    names, written = signals or {}, {"OK": "OK", "VIOLATION": "VIOLATION"}
    written |= {meaning: name for name, meaning in names.items() if meaning in written}
    verdicts = [m for m in SEGMENT.finditer(text) if names.get(m[1], m[1]) in written]
    if not 0 <= which < len(verdicts):
        raise ValueError(f"verdict {which}: the trace has {len(verdicts)} verdicts (0-{len(verdicts) - 1}).")
    match = verdicts[which]
    other = written["VIOLATION" if names.get(match[1], match[1]) == "OK" else "OK"]
    return f"{text[: match.start()]}[SIG={other}]{text[match.start(2) :]}"


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
