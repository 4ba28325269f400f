"""The prompt pairs of a task, cut at the token where the model's answer is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interp.evaluate import Decoding, evaluate
from interp.heads import TokenPair, swap_pairs, text_pair
from interp.heads.estimates import MIN_GROUPS
from interp.heads.pairs import group_of
from interp.model import Model
from interp.prompt import Example
from interp.remedy import remedy
from interp.tasks.protocol import decision_prefix, hook, labels_of

OWN = "own"


def has_twins(task: Any) -> bool:
    """Whether the task makes pairs of prompts itself (`twin_examples(n, ...)`)."""
    return callable(getattr(task, "twin_examples", None))


def replies(model: Model, task: Any, examples: Sequence[Example]) -> dict[str, str]:
    """What the model writes before its label, greedily, by example id; "" where it gives the label at once."""
    decoding = Decoding(score_labels=False)
    answers_of_all = [answer for _, answers in evaluate(model, task, examples, decoding=decoding) for answer in answers]
    return {answer.example_id: decision_prefix(task, answer.text or "") for answer in answers_of_all}


def before_label(model: Model, task: Any, examples: Sequence[Example], slot: str) -> Callable[[Example], str]:
    """The text between prompt and label of every example.

    Args:
        slot: "own", the model's own greedy reply up to its decision; else a text forced on every example ("" too).
    """
    if slot != OWN:
        return lambda example: slot
    written: Mapping[str, str] = replies(model, task, examples)
    return lambda example: written[example.id]


def pairs_of_twins(model: Model, task: Any, twins: Sequence[tuple[Example, Example]], slot: str) -> list[TokenPair]:
    """Twins of a task as token pairs.

    Raises:
        ValueError: as `interp.heads.swap_pairs`.
    """
    examples = [example for twin in twins for example in twin]
    before = before_label(model, task, examples, slot)
    return swap_pairs(twins, labels_of(task, examples[0]), model.tokenizer, before=before, group=hook(task, "GROUP"))


def pairs_of_examples(model: Model, task: Any, examples: Sequence[Example], slot: str) -> list[TokenPair]:
    """Single prompts, whose heads can be ablated but not patched; foil is the first other label.

    Raises:
        ValueError: an example whose label is not among the task's.
    """
    before, out = before_label(model, task, examples, slot), []
    for example in examples:
        labels = labels_of(task, example)
        others = [label for label in labels if label != example.label]
        if example.label not in labels or not others:
            raise ValueError(
                f"example {example.id!r}: label {example.label!r} is not among {', '.join(labels) or 'none'}."
            )
        text = before(example)
        pair = text_pair(
            None,
            example,
            model.tokenizer,
            answer=str(example.label),
            foil=others[0],
            before=text,
            group=hook(task, "GROUP"),
        )
        out.append(pair)
    return out


def check_groups(task: Any, examples: Sequence[Example | tuple[Example, Example]]) -> None:
    """Refuse items of too few independent units, before any model is loaded.

    Raises:
        ValueError: fewer than `MIN_GROUPS`: heads are chosen on half of the units and reported on the others.
    """
    name = hook(task, "GROUP")
    changed = [one if isinstance(one, Example) else one[1] for one in examples]
    groups = {group_of(example, name) or example.id for example in changed}
    if len(groups) < MIN_GROUPS:
        unit = name or "the first group"
        raise ValueError(
            f"heads: expected items of {MIN_GROUPS} or more independent units ({unit}), 2 for each half of the items, "
            f"got {len(groups)} in {len(changed)} items. {remedy('Raise {n}, or name other items.')}"
        )
