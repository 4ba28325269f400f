"""The prompt pairs of a task, cut where a reply decides: at its decision sites, or where the label stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from interp.evaluate import Decoding, evaluate, plan_batches
from interp.heads import TokenPair, decision_pairs, parse_kind, swap_pairs, text_pair
from interp.heads.estimates import MIN_GROUPS
from interp.heads.pairs import group_of
from interp.model import Model
from interp.progress import track
from interp.prompt import Example
from interp.remedy import remedy
from interp.tasks.decision_sites import chosen_sites, gold_reply, label_site, site_names
from interp.tasks.protocol import EvaluatedTask, Task, decision_prefix, hook, labels_of
from study.analyses.heads.options import HeadsOptions

OWN, GOLD = "own", "gold"


def has_twins(task: Task) -> bool:
    """Whether the task makes pairs of prompts itself (`twin_examples(n, ...)`)."""
    return hook(task, "twin_examples") is not None


def replies(model: Model, task: Task, examples: Sequence[Example]) -> dict[str, str]:
    """What the model writes, greedily, by example id."""
    decoding = Decoding(score_labels=False)
    asked = cast("EvaluatedTask", task)  # one whose own replies are read can parse them
    plan = plan_batches(model, asked, examples, decoding)
    sizes = [(len(batch), plan.work(k)) for k, batch in enumerate(plan.batches)]
    with track("replies", len(examples), unit="replies", work=sum(work for _, work in sizes)) as bar:
        batches = bar.over(evaluate(model, asked, examples, decoding=decoding, plan=plan), sizes)
        return {answer.example_id: answer.text or "" for _, answers in batches for answer in answers}


def sites_of(task: Task, options: HeadsOptions) -> tuple[str, ...]:
    """The decision sites that are swept; "" for the label of a task that names none. A forced text reaches the label.

    Raises:
        ValueError: a site that the task does not name, or another one than the label's after a forced text.
    """
    names, label = chosen_sites(task, options.at), label_site(task)
    if options.slot in (OWN, GOLD):
        return names or (label,)
    if options.at and names != (label,):
        raise ValueError(
            f"decision sites: expected {label!r} alone after the forced text {options.slot!r}, got "
            f"{', '.join(options.at)}. {remedy('Use {slot:own} or {slot:gold} for the other sites.')}"
        )
    return (label,)


def check_slot(task: Task, items: Sequence[Example | tuple[Example, Example]], slot: str) -> None:
    """Refuse gold replies that the task does not have, before any model is loaded.

    Raises:
        ValueError: the task has no `gold_reply`, or none for an item.
    """
    examples = [example for item in items for example in ((item,) if isinstance(item, Example) else item)]
    if slot == GOLD and (missing := [e.id for e in examples if gold_reply(task, e) is None]):
        what = "the task has no gold_reply(example)" if hook(task, "gold_reply") is None else f"{missing[0]!r} has none"
        raise ValueError(
            f"slot gold: expected a gold reply for every item, {what}. {remedy('Use {slot:own}, or a text.')}"
        )


class SitePairs(NamedTuple):
    """The pairs in front of one kind of decision.

    Attributes:
        ablated: one per item, for kinds of change that take nothing from a base prompt.
        patched: of twins, up to two per item: from a base with another answer, and with the same. Otherwise as ablated.
    """

    ablated: list[TokenPair]
    patched: list[TokenPair]

    def of(self, kind: str) -> list[TokenPair]:
        """Those that a kind of change is measured on."""
        return self.patched if parse_kind(kind).needs_base else self.ablated


def pairs_by_site(
    model: Model, task: Task, items: Sequence[Example] | Sequence[tuple[Example, Example]], options: HeadsOptions
) -> dict[str, SitePairs]:
    """Decision site -> the pairs whose reply reaches it; the site "" is the label of a task that names no sites.

    Raises:
        ValueError: as `sites_of`, `check_slot` and `interp.heads.decision_pairs`.
    """
    sites, is_twins = sites_of(task, options), bool(items) and not isinstance(items[0], Example)
    if options.slot not in (OWN, GOLD) or not site_names(task):
        make: Any = pairs_of_twins if is_twins else pairs_of_examples
        pairs = [replace(one, decision_site=sites[0]) for one in make(model, task, items, options.slot)]
        return {sites[0]: SitePairs(pairs, pairs)}
    check_slot(task, items, options.slot)
    written: Mapping[str, str] = {}
    if options.slot == OWN:
        written = replies(model, task, [e for item in items for e in ((item,) if isinstance(item, Example) else item)])

    def reply(example: Example) -> str:
        return written[example.id] if options.slot == OWN else gold_reply(task, example) or ""

    group = hook(task, "GROUP")
    ablated = decision_pairs(task, items, reply, model.tokenizer, has_base=False, at=sites, group=group)
    patched = decision_pairs(task, items, reply, model.tokenizer, at=sites, group=group) if is_twins else ablated
    return {site: SitePairs(ablated[site], patched[site]) for site in sites}


def before_label(model: Model, task: Task, examples: Sequence[Example], slot: str) -> Callable[[Example], str]:
    """The text between prompt and label of every example.

    Args:
        slot: "own", the model's own greedy reply up to its decision; else a text forced on every example ("" too).
    """
    if slot != OWN:
        return lambda example: slot
    written: Mapping[str, str] = replies(model, task, examples)
    return lambda example: decision_prefix(task, written[example.id], example)


def pairs_of_twins(model: Model, task: Task, twins: Sequence[tuple[Example, Example]], slot: str) -> list[TokenPair]:
    """Twins of a task as token pairs.

    Raises:
        ValueError: as `interp.heads.swap_pairs`.
    """
    examples = [example for twin in twins for example in twin]
    before = before_label(model, task, examples, slot)
    return swap_pairs(twins, labels_of(task, examples[0]), model.tokenizer, before=before, group=hook(task, "GROUP"))


def pairs_of_examples(model: Model, task: Task, examples: Sequence[Example], slot: str) -> list[TokenPair]:
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


def check_groups(task: Task, examples: Sequence[Example | tuple[Example, Example]]) -> None:
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
