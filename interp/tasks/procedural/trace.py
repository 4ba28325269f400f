"""The engaged member's reply: a step-keyed audit with inline `[SIG=...]` signals, then the label. How it is written.

One step, every comparison next to its operands (`start` where no step was found before):

    [SIG=STEP] 2 [instead|also] req verb object [SIG=FIND] object ordinal verb actor
    [SIG=CHECK] previous-ordinal ordinal after|late req actor fit|short [SIG=OK]|[SIG=VIOLATION]

A step without an event is `[SIG=FIND] object none [SIG=VIOLATION]`, an overt omission `[SIG=FIND] object ordinal
skipped actor [SIG=VIOLATION]`, a waived step `[SIG=STEP] 2 waived [SIG=OK]`. Before the steps, for each exception,
`[SIG=EXCEPTION] condition present|absent step K`; after them `[SIG=DECIDE] label`.
"""

from __future__ import annotations

from interp.tasks.procedural.engine import Audit, StepAudit, audit
from interp.tasks.procedural.latent import Instance, Scenario
from interp.tasks.procedural.render import Rendering, check_rendering
from interp.tasks.procedural.render_log import event_words, requirement
from interp.tasks.procedural.vocabulary import ACTIONS, CONDITIONS, ORDINALS, ROLES

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
