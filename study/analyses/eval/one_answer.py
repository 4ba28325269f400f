"""Members that give one answer whatever they are asked: how that is known, what is said, and what then means nothing.

A member is degenerate where one answer makes up more than 90 % of its answers (of at least 10) and is not right as
often. Which option it names then follows from the order of the options and not from what they say: its bias, classes
that are made of its answers, and directions between them are of the order too. Accuracy has a control of its own
(always giving the most common label).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.remedy import remedy
from interp.tasks.protocol import Task, hook
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

LIMIT, MIN_ANSWERS = 0.9, 10


@dataclass(frozen=True)
class OneAnswer:
    """The most common answer of a member.

    Attributes:
        answer: the label.
        share: share of the items with this answer.
        right: share of the items whose right answer it is.
        n: items.
    """

    answer: str
    share: float
    right: float
    n: int

    @property
    def is_degenerate(self) -> bool:
        return self.n >= MIN_ANSWERS and self.share > LIMIT >= self.right

    @property
    def columns(self) -> Row:
        """As columns of a table."""
        return {"top_answer": self.answer, "top_share": self.share, "is_degenerate": self.is_degenerate}

    def banner(self, member: str, task: Task | None = None) -> str:
        """What every table and page of a degenerate member must say; "" of another."""
        if not self.is_degenerate:
            return ""
        takes = inspect.signature(task.examples).parameters if task is not None else {}
        what = remedy("Ask every item with its options in every order: {task.permute:cyclic}.")
        what = what if "permute" in takes else ""
        return " ".join(filter(None, [said(member, self.answer, self.share, self.n), MEANING, what]))


MEANING = "Its bias, and classes made of its answers, show which answer it prefers, not how it judges the items."


def said(member: str, answer: str, share: float, n: int | None = None) -> str:
    """`heuristic answers 'A' to 99 % of 240 items, whatever they ask.`"""
    items = "items" if n is None else f"{n:,} items"
    return f"{member} answers {answer!r} to {100 * share:.3g} % of {items}, whatever the question."


def one_answer(labels: Iterable[object], gold: Iterable[object]) -> OneAnswer | None:
    """The most common of the answers; None where nothing was answered.

    Args:
        labels: label of every item; None or NaN if no answer was parsed.
        gold: right answer of every item, None where it has none.
    """
    answers, right = [_text(label) for label in labels], [_text(label) for label in gold]
    parsed = [label for label in answers if label is not None]
    if not parsed:
        return None
    top = min(set(parsed), key=lambda label: (-parsed.count(label), label))
    return OneAnswer(top, parsed.count(top) / len(answers), right.count(top) / len(right), len(answers))


def _text(label: object) -> str | None:
    return None if label is None or label != label else str(label)


def of_answers(frame: pd.DataFrame, task: Task | None = None) -> OneAnswer | None:
    """The most common answer of a table of answers; where items were asked in several orders of their options, of the
    answer over all orders (`averaged` of the task)."""
    averaged = hook(task, "averaged")
    counted = averaged(frame) if averaged else frame
    return one_answer(counted["label"], counted["gold"])


def with_columns(row: Row, top: OneAnswer | None, member: str, task: Task) -> Row:
    """The row of a member with the columns of its most common answer, and the banner where it is the only one."""
    if top is None:
        return {**row, "is_degenerate": False}
    banner = " ".join(filter(None, [row.get("banner"), top.banner(member, task)])) or None
    return {**row, **top.columns, "banner": banner}
