"""Sentence classes, and faults of label sets that make an oracle or a probe look better than it is.

Each fault is a number and a threshold.

Source: failures of the activation-oracle v2 corpora and the detectors derived from them.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

MAX_MAJORITY, MIN_ENTROPY = 0.8, 0.3
MAX_TEXT_SHARE, MIN_DISTINCT = 0.05, 0.2
MAX_FALLBACK, MAX_ONE_CLASS, MAX_UNREACHABLE = 0.01, 0.5, 0.5
MIN_BOUNDARY, MIN_RUNS = 0.99, 0.5
MAX_REPEATS, MIN_EXPECTED = 2.0, 10
MANY = 10  # distinct labels above which they are texts, not classes


@dataclass(frozen=True)
class Item:
    """One labelled position.

    Attributes:
        problem: id of the problem, the unit that splits and intervals respect.
        context: hash or text of what was read; label: what is to be said of it; task: which question was asked.
        status:  "ok", or why the label builder could not answer; a default in its place is the fallback fault.
        split:   train, eval, ...; boundary: decoded text up to the labelled token, where known.
    """

    problem: str
    context: str
    label: str
    task: str = "labels"
    status: str = "ok"
    split: str | None = None
    boundary: str | None = None


@dataclass(frozen=True)
class Finding:
    """One audit: whether it passed, the number, its threshold, and in one line what that means and what to do."""

    name: str
    status: Literal["ok", "fail", "skipped"]
    number: float
    threshold: float
    explanation: str

    def __str__(self) -> str:
        shown = "" if self.status == "skipped" else f" {self.number:.3g} (threshold {self.threshold:g})"
        return f"{self.status.upper():<7} {self.name}:{shown} {self.explanation}"


Audit = Callable[[Sequence[Item]], Finding]


def audit(items: Sequence[Item]) -> list[Finding]:
    """Every audit of every task of a label set, in the order of `AUDITS`; leakage and order over all tasks together.

    Raises:
        ValueError: no items.
    """
    if not items:
        raise ValueError("items: expected at least 1 label, got 0. Check that the file is complete.")
    out: list[Finding] = []
    tasks: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        tasks[item.task].append(item)
    for task, part in tasks.items():
        for check in PER_TASK:
            finding = check(part)
            name = f"{task}/{finding.name}" if len(tasks) > 1 else finding.name
            out.append(Finding(name, finding.status, finding.number, finding.threshold, finding.explanation))
    return out + [check(items) for check in OVERALL]


def constant(items: Sequence[Item]) -> Finding:
    """Nearly one label: classes with a majority share above 0.8, or texts of which one is more than 5 % of all."""
    counts = Counter(item.label for item in items)
    top, n = counts.most_common(1)[0], len(items)
    share = top[1] / n
    is_text = len(counts) > MANY or any(len(label.split()) > 5 for label in counts)
    limit = MAX_TEXT_SHARE if is_text and n > 1 / MAX_TEXT_SHARE else MAX_MAJORITY
    what = f"{top[1]} of {n} labels are {top[0][:60]!r}; a constant answer scores {share:.1%}."
    return _judge("constant", share, limit, f"{what} Rebuild the labels.", "no label dominates.")


def entropy(items: Sequence[Item]) -> Finding:
    """Normalised entropy of class labels, H / log K, at least 0.3."""
    counts = Counter(item.label for item in items)
    if len(counts) > MANY:
        return Finding("entropy", "skipped", math.nan, MIN_ENTROPY, "labels are texts.")
    n, k = len(items), len(counts)
    value = -sum(c / n * math.log(c / n) for c in counts.values()) / math.log(k) if k > 1 else 0.0
    bad = f"labels are almost certain in advance (shares {_shares(counts, n)}). Balance the classes."
    return _judge("entropy", value, MIN_ENTROPY, bad, "labels vary.", below=True)


def distinct(items: Sequence[Item]) -> Finding:
    """Distinct text labels per distinct context, at least 0.2."""
    labels, contexts = {i.label for i in items}, {i.context for i in items}
    if not any(len(label.split()) > 5 for label in labels):
        return Finding("distinct", "skipped", math.nan, MIN_DISTINCT, "labels are classes.")
    share = len(labels) / len(contexts)
    bad = f"{len(labels)} different texts for {len(contexts)} contexts: the same text is repeated again and again. "
    return _judge(
        "distinct",
        share,
        MIN_DISTINCT,
        bad + "Look for a default in the label builder.",
        "texts differ with their contexts.",
        below=True,
    )


def fallback(items: Sequence[Item]) -> Finding:
    """Labels whose builder did not succeed, at most 1 %."""
    failed = [i for i in items if i.status != "ok"]
    reasons = ", ".join(sorted({i.status for i in failed}))
    bad = f"{len(failed)} labels were not built ({reasons}), and hold a default value. Drop them; fix the builder."
    return _judge("fallback", len(failed) / len(items), MAX_FALLBACK, bad, "every label was built.")


def skewed(items: Sequence[Item]) -> Finding:
    """Problems of which all labels are one class, at most half of those with two labels or more; their shares."""
    problems: dict[str, list[str]] = defaultdict(list)
    for item in items:
        problems[item.problem].append(item.label)
    several = [labels for labels in problems.values() if len(labels) > 1]
    if not several:
        return Finding("skewed per problem", "skipped", math.nan, MAX_ONE_CLASS, "no problem has two labels.")
    share = sum(len(set(labels)) == 1 for labels in several) / len(several)
    one = Counter(labels[0] for labels in several if len(set(labels)) == 1)
    shown = ", ".join(f"{label[:30]!r} in {k}" for label, k in one.most_common(3))
    bad = f"{one.total()} of {len(several)} problems have one label ({shown}), so the problem alone determines it. "
    return _judge(
        "skewed per problem",
        share,
        MAX_ONE_CLASS,
        bad + "Set thresholds per problem (percentile tiers).",
        "labels vary inside problems.",
    )


def unreachable(items: Sequence[Item]) -> Finding:
    """Distinct labels that exact match cannot reach, at most half: decimals, or more than 8 words."""
    labels = sorted({i.label for i in items})
    hard = [x for x in labels if re.search(r"\d\.\d", x) or len(x.split()) > 8]
    bad = f"e.g. {hard[0][:60]!r}: score by numeric tolerance, token F1 or tiers, not by exact match." if hard else ""
    return _judge("unreachable by exact match", len(hard) / len(labels), MAX_UNREACHABLE, bad, "labels can be matched.")


def unseen(items: Sequence[Item]) -> Finding:
    """Distinct class labels outside the training split that training never has, none."""
    train, other = ({i.label for i in items if (i.split == "train") == side and i.split} for side in (True, False))
    if not train or not other or len(train | other) > MANY:
        return Finding("unseen answers", "skipped", math.nan, 0.0, "no train and eval splits of classes.")
    bad = f"never trained: {', '.join(sorted(other - train)[:5])}. Use one set of answers in all splits."
    return _judge("unseen answers", float(len(other - train)), 0.0, bad, "eval asks for trained answers only.")


def leakage(items: Sequence[Item]) -> Finding:
    """Problems or contexts that are in two splits, none."""
    sides: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in items:
        if item.split:
            sides["problem", item.problem].add(item.split)
            sides["context", item.context].add(item.split)
    if len({i.split for i in items if i.split}) < 2:
        return Finding("leakage", "skipped", math.nan, 0.0, "fewer than two splits.")
    shared = [key for key, where in sides.items() if len(where) > 1]
    bad = f"e.g. {shared[0][0]} {shared[0][1][:40]!r} is in two splits. Split by problem." if shared else ""
    return _judge("leakage", float(len(shared)), 0.0, bad, "no problem or context is in two splits.")


def repeats(items: Sequence[Item]) -> Finding:
    """Times that one label of one context is given, on average, at most 2."""
    different = {(i.task, i.context, i.label) for i in items}
    bad = f"{len(different)} different labels in {len(items)} lines: repeats are memorised. Drop the copies."
    return _judge("repeats", len(items) / len(different), MAX_REPEATS, bad, "labels are not repeated.")


def windows(items: Sequence[Item]) -> Finding:
    """Tenths of the file from which a task is missing that should be there 10 times or more, none."""
    tasks, n = Counter(i.task for i in items), len(items)
    expected = [t for t, c in tasks.items() if c / 10 >= MIN_EXPECTED]
    if len(tasks) < 2 or not expected:
        return Finding("windows", "skipped", math.nan, 0.0, "one task only, or too few items.")
    parts = [{i.task for i in items[k * n // 10 : (k + 1) * n // 10]} for k in range(10)]
    gaps = [(k, t) for k, part in enumerate(parts) for t in expected if t not in part]
    bad = (
        f"e.g. no {gaps[0][1]!r} in tenth {gaps[0][0] + 1}: the task would be forgotten there. Shuffle." if gaps else ""
    )
    return _judge("windows", float(len(gaps)), 0.0, bad, "every task is in every tenth of the file.")


def unshuffled(items: Sequence[Item]) -> Finding:
    """Runs of one task over the number that a shuffle gives, 1 + sum n_t (n - n_t) / n, at least 0.5."""
    tasks = [i.task for i in items]
    if len(set(tasks)) < 2:
        return Finding("unshuffled", "skipped", math.nan, MIN_RUNS, "one task only.")
    cuts = [0, *(k for k, (a, b) in enumerate(pairwise(tasks), 1) if a != b), len(tasks)]
    blocks, n = len(cuts) - 1, len(tasks)
    counts = Counter(tasks)
    expected = 1 + sum(c * (n - c) for c in counts.values()) / n
    bad = (
        f"{blocks} runs of one task where shuffling gives {expected:.0f}: only the last task would be learnt. Shuffle."
    )
    return _judge("unshuffled", blocks / expected, MIN_RUNS, bad, "tasks are mixed.", below=True)


def drift(items: Sequence[Item]) -> Finding:
    """Labelled tokens that end a sentence, at least 99 % of those whose text is known."""
    boundaries = [i.boundary for i in items if i.boundary is not None]
    if not boundaries:
        return Finding("boundary drift", "skipped", math.nan, MIN_BOUNDARY, "no item has its boundary text.")
    ends = [bool(re.search(r"[.!?…。！？:][\"'”’)\]}*_$`\\]*\s*$|\n\s*$", text)) for text in boundaries]
    wrong = next((text for text, ok in zip(boundaries, ends, strict=True) if not ok), "")
    bad = f"e.g. ...{wrong[-30:]!r} ends no sentence: labels are shifted against sentences. Use sentence records."
    return _judge(
        "boundary drift", sum(ends) / len(ends), MIN_BOUNDARY, bad, "labelled tokens end sentences.", below=True
    )


PER_TASK: tuple[Audit, ...] = (constant, entropy, distinct, fallback, skewed, unreachable, unseen)
OVERALL: tuple[Audit, ...] = (leakage, repeats, unshuffled, windows, drift)
AUDITS: Mapping[str, Audit] = {check.__name__: check for check in (*PER_TASK, *OVERALL)}


def _judge(name: str, number: float, limit: float, bad: str, good: str, *, below: bool = False) -> Finding:
    failed = number < limit if below else number > limit
    return Finding(name, "fail" if failed else "ok", number, limit, bad if failed else good)


def _shares(counts: Counter[str], n: int) -> str:
    return ", ".join(f"{label[:30]} {c / n:.0%}" for label, c in counts.most_common(3))


CLASSES = (
    "problem_setup",
    "plan_generation",
    "fact_retrieval",
    "active_computation",
    "uncertainty_management",
    "result_consolidation",
    "self_checking",
    "final_answer",
)
"""As in the activation-oracle v2 corpora; one class per sentence."""
OTHER_SPELLING = {name: name for name in CLASSES} | {"final_answer": "final_answer_emission"}
"""As in thought-anchors, which is multi-label and also has `unknown`."""


def class_of(text: str) -> str | None:
    """The class that a label names, in either spelling, with any case and separators; None for `unknown` or no class.

    The longest class whose words begin the text wins: "Active computation. The model computes." is a label too.
    """
    words = re.findall(r"[a-z0-9]+", text.casefold())
    class_by_words = {tuple(name.split("_")): c for c, other in OTHER_SPELLING.items() for name in (c, other)}
    fits = [key for key in class_by_words if tuple(words[: len(key)]) == key]
    return class_by_words[max(fits, key=len)] if fits else None
