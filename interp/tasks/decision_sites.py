"""Decision sites of a task: the places in a reply where a member decides something that the task's rules know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.example import Example
from interp.remedy import did_you_mean, remedy
from interp.tasks.protocol import hook


@dataclass(frozen=True, slots=True)
class DecisionSite:
    """One place in a reply where one of several words comes next.

    Attributes:
        name: kind of decision, a key of the task's `DECISION_SITES`.
        before: the reply up to the decision, without a blank at its end.
        answer: the right option by the task's rules, whatever the reply says.
        options: the words it is chosen from, `answer` among them.
        key: which decision of that name it is ("2 instead"). Decisions of two replies to one item, or to an item and
            its twin, correspond where name and key are equal.
    """

    name: str
    before: str
    answer: str
    options: tuple[str, ...]
    key: str = ""


def site_names(task: Any) -> tuple[str, ...]:
    """The decision sites that a task names; none where it names none.

    Example:
        >>> from interp.tasks import esi
        >>> site_names(esi)
        ('level',)
    """
    return tuple(hook(task, "DECISION_SITES") or ())


def label_site(task: Any) -> str:
    """The site where the label is decided, the last that a task names; "" where it names none."""
    names = site_names(task)
    return names[-1] if names else ""


def chosen_sites(task: Any, at: Sequence[str]) -> tuple[str, ...]:
    """The sites that are asked for, in the task's order; all that the task names where none is asked for.

    Raises:
        ValueError: a name that the task does not have.
    """
    names = site_names(task)
    for name in at:
        if name not in names:
            has = f"the task names {', '.join(names)}" if names else "the task names none. " + remedy("Leave {at} out")
            raise ValueError(f"decision site {name!r}: {has.strip()}.{did_you_mean(name, names)}")
    return tuple(name for name in names if not at or name in at)


def decision_sites(task: Any, example: Example, text: str) -> tuple[DecisionSite, ...]:
    """The decisions that a reply to an example reaches, in the order of the reply.

    Example:
        >>> from interp.tasks import esi
        >>> example = esi.examples(per_cell=1)[0]
        >>> site = decision_sites(esi, example, "Chest pain, unstable. ESI: 3")[0]
        >>> site.name, site.before, site.options
        ('level', 'Chest pain, unstable. ESI:', ('1', '2', '3', '4', '5'))
    """
    sites = hook(task, "decision_sites")
    return tuple(sites(example, text)) if sites else ()


def gold_reply(task: Any, example: Example) -> str | None:
    """The reply that reasons and answers right; None where the task has none."""
    gold = hook(task, "gold_reply")
    return gold(example) if gold else None
