"""Training items of an oracle (activations, question, answer): mixed, split by problem, and audited."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from interp.tasks.cot.audits import Finding, Item, audit

Scoring = Literal["exact", "tiers", "f1", "nll"]


@dataclass(frozen=True)
class TrainItem:
    """One question about activations of one context, and its answer.

    Attributes:
        task: name of the task; controls are matched within it.
        problem: id of the problem, the unit of splits and intervals.
        context_ids: token ids of the text, cut right after the last position.
        positions: token indices whose activations are injected, ascending.
        layers: source blocks; every layer is read at every position.
        question, answer: text.
        scoring: how answers of the task may be scored; "exact" is audited: can exact match be reached at all?
        status: "ok", or why no answer could be built; such items are audited and never trained on.
        boundary: decoded text up to the last position, if that should end a sentence.
    """

    task: str
    problem: str
    context_ids: tuple[int, ...]
    positions: tuple[int, ...]
    layers: tuple[int, ...]
    question: str
    answer: str
    scoring: Scoring = "exact"
    status: str = "ok"
    boundary: str | None = None

    def __post_init__(self) -> None:
        where = f"item of task {self.task!r}, problem {self.problem!r}"
        if not self.positions or list(self.positions) != sorted(set(self.positions)):
            raise ValueError(f"{where}, positions: expected ascending token indices, got {self.positions}.")
        if self.positions[0] < 0 or self.positions[-1] != len(self.context_ids) - 1:
            raise ValueError(
                f"{where}, positions: expected the last one to be the last token of the context "
                f"({len(self.context_ids) - 1}), got {self.positions[-1]}; cut the context there, later tokens have "
                f"no effect."
            )
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"{where}, layers: expected different blocks, got {self.layers}.")
        if self.status == "ok" and not self.answer.strip():
            raise ValueError(f"{where}: the answer is empty. Give the reason in `status`, or drop the item.")

    @property
    def matching(self) -> tuple[object, ...]:
        """What a partner in the matched shuffle must share: task (and so the kind of position), layers and count."""
        return (self.task, self.layers, len(self.positions))


@dataclass(frozen=True)
class Mixture:
    """Items to train on, in training order, and items of other problems to validate on."""

    train: tuple[TrainItem, ...]
    validation: tuple[TrainItem, ...]

    @property
    def digest(self) -> str:
        """Hash of all items and their order."""
        lines = (repr(item) for part in (self.train, (), self.validation) for item in part)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def mix(
    items: Iterable[TrainItem],
    *,
    validation: float | int = 0.05,
    seed: int = 0,
    max_validation: int = 512,
    block: int | None = None,
) -> Mixture:
    """All tasks shuffled together; whole problems are held out for validation, without contexts that training reads.

    Args:
        items: items of every task, in any order; items without an answer are kept for the audit and dropped after it.
        validation: share of the problems to hold out, or their number.
        max_validation: most validation items, in equal parts per task.
        block: shuffle within blocks of this many problems, so that the contexts of one problem fall into one window and
            are read in one pass; None shuffles everything.
    Raises:
        ValueError: fewer than 2 problems.
    """
    every = list(items)
    problems = sorted({item.problem for item in every})
    if len(problems) < 2:
        raise ValueError(f"items: expected at least 2 problems, so that one can be held out; got {len(problems)}.")
    n_out = round(validation * len(problems)) if isinstance(validation, float) else validation
    held_out = set(Random(f"{seed}/problems").sample(problems, min(max(1, n_out), len(problems) - 1)))
    order = Random(f"{seed}/order")
    train = _shuffled([item for item in every if item.problem not in held_out], block or len(problems), order)
    read = {(item.context_ids, item.positions) for item in train}  # two problems may begin with the same words
    fresh = [i for i in every if i.problem in held_out and (i.context_ids, i.positions) not in read]
    once = list(dict.fromkeys(fresh))  # repeats balance training; in validation they would overstate n
    return Mixture(tuple(train), tuple(_equal_parts(once, max_validation, order)))


def _shuffled(items: list[TrainItem], block: int, rng: Random) -> list[TrainItem]:
    by_problem: dict[str, list[TrainItem]] = defaultdict(list)
    for item in items:
        by_problem[item.problem].append(item)
    problems = sorted(by_problem)
    rng.shuffle(problems)
    out: list[TrainItem] = []
    for at in range(0, len(problems), block):
        part = [item for problem in problems[at : at + block] for item in by_problem[problem]]
        rng.shuffle(part)
        out += part
    return out


def _equal_parts(items: list[TrainItem], at_most: int, rng: Random) -> list[TrainItem]:
    by_task: dict[str, list[TrainItem]] = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    share = math.ceil(at_most / max(1, len(by_task)))
    kept = [item for task in sorted(by_task) for item in rng.sample(by_task[task], min(share, len(by_task[task])))]
    rng.shuffle(kept)
    return kept


def balanced(items: Sequence[TrainItem], *, n: int | None = None, seed: int = 0) -> list[TrainItem]:
    """Items with all answers equally often: from each, without replacement, as many as the rarest answer has.

    Args:
        n: most items to return.
    """
    by_answer: dict[str, list[TrainItem]] = defaultdict(list)
    for item in items:
        if item.status == "ok":
            by_answer[item.answer].append(item)
    each = min(map(len, by_answer.values()), default=0)
    each = each if n is None else min(each, n // max(1, len(by_answer)))
    rng = Random(f"{seed}/balanced")
    kept = [item for answer in sorted(by_answer) for item in rng.sample(by_answer[answer], each)]
    rng.shuffle(kept)
    return kept


def audit_mixture(mixture: Mixture) -> list[Finding]:
    """Every audit of `interp.tasks.cot.audits` on the labels of a mixture.

    A label counts once, however many layers it is read at and however often it is repeated to balance a class. Only
    tasks scored by exact match are audited for whether exact match can reach their labels.
    """
    items = list(dict.fromkeys(_label(item, "train") for item in mixture.train))
    both = audit([*items, *(_label(item, "validation") for item in mixture.validation)])
    of_splits = ("leakage", "unseen answers")  # these compare both parts; the other audits are of the training part
    findings = [f for f in audit(items) if not f.name.endswith(of_splits)]
    findings += [f for f in both if f.name.endswith(of_splits)]
    scoring = {item.task: item.scoring for item in mixture.train}
    audit_name = "unreachable by exact match"
    waived = {f"{task}/{audit_name}" for task, how in scoring.items() if how != "exact"}
    if len(scoring) == 1 and waived:
        waived = {audit_name}  # with a single task the audits have no prefix
    return [_waive(f) if f.name in waived and f.status == "fail" else f for f in findings]


def refuse_faults(findings: Sequence[Finding], *, accept: Mapping[str, str] | None = None) -> list[Finding]:
    """The findings, unchanged, if every failed one is accepted by name.

    Args:
        accept: name of a finding -> why the failure is harmless here.
    Raises:
        ValueError: audits failed; all of them are listed with their numbers.
    """
    accept = accept or {}
    unknown = sorted(set(accept) - {f.name for f in findings})
    if unknown:
        raise ValueError(
            f"accept: there is no audit called {unknown[0]!r}; audits: {', '.join(f.name for f in findings)}."
        )
    failed = [f for f in findings if f.status == "fail" and f.name not in accept]
    if failed:
        listed = "\n  ".join(map(str, failed))
        raise ValueError(
            f"{len(failed)} audits of the labels failed, so nothing was trained:\n  {listed}\nFix the labels, or "
            "accept a failed audit by name with the reason (accept={{failed[0].name!r}: '...'})."
        )
    return list(findings)


def shares(items: Sequence[TrainItem]) -> dict[str, int]:
    """Number of items per task, the most frequent first."""
    return dict(Counter(item.task for item in items).most_common())


def _label(item: TrainItem, split: str) -> Item:
    context = hashlib.sha256(repr((item.context_ids, item.positions)).encode()).hexdigest()[:16]
    return Item(item.problem, context, item.answer, item.task, item.status, split, item.boundary)


def _waive(finding: Finding) -> Finding:
    return replace(finding, status="ok", explanation=f"not scored by exact match. {finding.explanation}")
