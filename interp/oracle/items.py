"""What an oracle is trained on: items of activations, question and answer, mixed, split by problem, and audited."""

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
        context_ids: tokens that are read, cut right after the last position.
        positions: tokens of the context whose activations are injected, rising.
        layers: source blocks; every layer is read at every position.
        question, answer: text.
        scoring: how answers of the task may be scored; "exact" is audited for whether that can be reached at all.
        status: "ok", or why no answer could be built; such items are audited and never trained on.
        boundary: decoded text up to the last position, where it should end a sentence.
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
            raise ValueError(f"{where}, positions: expected rising token numbers, got {self.positions}.")
        if self.positions[0] < 0 or self.positions[-1] != len(self.context_ids) - 1:
            raise ValueError(
                f"{where}, positions: the last ({self.positions[-1]}) must be the last token of the context "
                f"({len(self.context_ids) - 1}); cut the context there, what follows cannot matter."
            )
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"{where}, layers: expected different blocks, got {self.layers}.")
        if self.status == "ok" and not self.answer.strip():
            raise ValueError(f"{where}: the answer is empty. Say in `status` why it is missing, or drop the item.")

    @property
    def matching(self) -> tuple[object, ...]:
        """What the item of a matched shuffle must share: the task (and so the kind of position), layers and count."""
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
    """All tasks shuffled together, whole problems held out for validation, without contexts that training reads too.

    Args:
        items: of every task, in any order; those without an answer stay in, for the audit, and are dropped after it.
        validation: share of the problems that is held out, or how many.
        max_validation: items kept of those problems, as equal parts of every task.
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
    held = set(Random(f"{seed}/problems").sample(problems, min(max(1, n_out), len(problems) - 1)))
    order = Random(f"{seed}/order")
    train = _shuffled([item for item in every if item.problem not in held], block or len(problems), order)
    read = {(item.context_ids, item.positions) for item in train}  # problems may begin with the same words
    fresh = [i for i in every if i.problem in held and (i.context_ids, i.positions) not in read]
    once = list(dict.fromkeys(fresh))  # repeats balance training; here they would feign more data
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
    """Items with every answer equally often: draws without replacement from each, as many as the rarest answer has.

    Args:
        n: how many to return at most.
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

    A label counts once, however many layers it is read at and however often it is repeated to balance a class. Whether
    exact match can reach the labels is asked only of tasks that are to be scored by it.
    """
    items = list(dict.fromkeys(_label(item, "train") for item in mixture.train))
    both = audit([*items, *(_label(item, "validation") for item in mixture.validation)])
    of_splits = ("leakage", "unseen answers")  # the others are about what is trained on
    found = [f for f in audit(items) if not f.name.endswith(of_splits)]
    found += [f for f in both if f.name.endswith(of_splits)]
    scoring = {item.task: item.scoring for item in mixture.train}
    many = len(scoring) > 1
    waived = {f"{task}/unreachable by exact match" if many else "unreachable by exact match"
              for task, how in scoring.items() if how != "exact"}  # fmt: skip
    return [_waive(f) if f.name in waived and f.status == "fail" else f for f in found]


def refuse_faults(findings: Sequence[Finding], *, accept: Mapping[str, str] | None = None) -> list[Finding]:
    """The findings, if every failed one was accepted by name.

    Args:
        accept: name of a finding -> why it does no harm here.
    Raises:
        ValueError: an audit failed; all that failed are listed with their numbers.
    """
    accept = accept or {}
    strange = sorted(set(accept) - {f.name for f in findings})
    if strange:
        raise ValueError(f"accept: no audit is called {strange[0]!r}; audits: {', '.join(f.name for f in findings)}.")
    failed = [f for f in findings if f.status == "fail" and f.name not in accept]
    if failed:
        listed = "\n  ".join(map(str, failed))
        raise ValueError(
            f"{len(failed)} audits of the labels failed, so nothing was trained:\n  {listed}\n"
            f"Mend the labels, or accept a fault by name with the reason (accept={{{failed[0].name!r}: '...'}})."
        )
    return list(findings)


def shares(items: Sequence[TrainItem]) -> dict[str, int]:
    """Items per task, the most frequent first."""
    return dict(Counter(item.task for item in items).most_common())


def _label(item: TrainItem, split: str) -> Item:
    context = hashlib.sha256(repr((item.context_ids, item.positions)).encode()).hexdigest()[:16]
    return Item(item.problem, context, item.answer, item.task, item.status, split, item.boundary)


def _waive(finding: Finding) -> Finding:
    return replace(finding, status="ok", explanation=f"not scored by exact match. {finding.explanation}")
