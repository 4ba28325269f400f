"""Pairs of prompts that end in front of the decisions of a task's replies: one decision per item and decision site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from interp.heads.order_swaps import FLIP, KEEP
from interp.heads.pairs import TokenPair, text_pair
from interp.prompt import Example
from interp.tasks.decision_sites import DecisionSite, chosen_sites, decision_sites

Decision = tuple[Example, DecisionSite]
Item = Example | tuple[Example, Example]


def decision_pairs(
    task: Any,
    items: Sequence[Item],
    reply: Callable[[Example], str],
    tokenizer: Any,
    *,
    at: Sequence[str] = (),
    group: str | None = None,
    has_base: bool = True,
) -> dict[str, list[TokenPair]]:
    """Decision site -> the pairs of all items whose reply reaches it, teacher-forced up to the decision.

    Of several decisions of one site in a reply one is drawn by a digest of the item, so the drawn ones are spread over
    the steps of a procedure, and are the same in every run. Of twins, exp is the twin and base a decision of the
    original's reply, up to two of them:

        flip   base has another right answer: the corresponding decision where the edit of the twin changes its answer,
               else another decision of the same site
        keep   base has the same right answer: another decision of the same site where there is one, else the
               corresponding one

    Decisions that have both are preferred, then those whose answer the edit changes. At the site of the label these are
    the pairs of `swap_pairs`: a reply has one label, so each twin gives a flip or a keep.

    Args:
        items: examples, or (original, twin) pairs of them, which patching needs.
        reply: what stands after the prompt of an example: a member's own reply, or a gold one.
        at: decision sites; none: all that the task names.
        group: as in `text_pair`.
        has_base: False leaves out what is patched from: one pair per item, its foil the best other option. For kinds of
            change that take nothing from a base prompt; the decisions are the same.
    Returns:
        A list for every site, empty where no reply reaches it. Ids are those of the items, with the decision's key and
        a word for the second pair of a decision.
    Raises:
        ValueError: a site that the task does not name; and as `text_pair`.
    """
    out: dict[str, list[TokenPair]] = {name: [] for name in chosen_sites(task, at)}
    for item in items:
        twins = (item,) if isinstance(item, Example) else item
        found = [decision_sites(task, example, reply(example)) for example in twins]
        for name, pairs in out.items():
            sides = [[site for site in sites if site.name == name] for sites in found]
            if all(sides):
                exp, bases = _drawn(twins, sides)
                sources = [(twins[0], base) for base in bases] if has_base and bases else [None]
                made = [decision_pair(source, (twins[-1], exp), tokenizer, group=group) for source in sources]
                pairs += [made[0], *(replace(pair, id=f"{pair.id} {pair.kind}") for pair in made[1:])]
    return out


def decision_pair(base: Decision | None, exp: Decision, tokenizer: Any, *, group: str | None = None) -> TokenPair:
    """The pair in front of one decision. The foil is the base's answer if the two differ, else the only other option;
    of more options each run is compared with the best other one.

    Args:
        base: the decision that activations come from; None if nothing is patched.
        group: as in `text_pair`.
    Raises: as `text_pair`.
    """
    example, site = exp
    others = [option for option in site.options if option != site.answer]
    foil = others[0] if len(others) == 1 else None
    given: dict[str, Any] = {}
    if base is not None:
        answer = base[1].answer
        foil = answer if answer != site.answer else foil
        kind = FLIP if answer != site.answer else KEEP
        given = {"base_before": base[1].before, "base_answer": answer, "kind": kind}
    pair = text_pair(
        None if base is None else base[0],
        example,
        tokenizer,
        answer=site.answer,
        foil=foil,
        options=site.options,
        before=site.before,
        group=group,
        **given,
    )
    name = f"{example.id} {site.key}" if site.key else example.id
    return replace(pair, id=name, label=site.answer, decision_site=site.name)


def drawn_decision(example: Example, sites: Sequence[DecisionSite]) -> DecisionSite:
    """The decision of a reply that is read, of several at one site; by a digest, so the same one in every run."""
    return min(sites, key=lambda site: _draw(example, site))


def _drawn(
    twins: Sequence[Example], sides: Sequence[Sequence[DecisionSite]]
) -> tuple[DecisionSite, list[DecisionSite]]:
    """The decision of an item (of the twin), and of twins those of the original that it is patched from."""
    if len(twins) == 1:
        return drawn_decision(twins[0], sides[0]), []
    return min(
        ((site, _bases(twins[1], site, sides[0])) for site in sides[1]),
        key=lambda one: (-len(one[1]), one[1][0].key != one[0].key, _draw(twins[1], one[0])),
    )


def _bases(example: Example, exp: DecisionSite, originals: Sequence[DecisionSite]) -> list[DecisionSite]:
    """The decisions of the original that a decision of the twin is patched from: a flip, then a keep, where there are
    such; see `decision_pairs`."""
    out = []
    for flips in (True, False):
        fit = [one for one in originals if (one.answer != exp.answer) == flips]
        if fit:
            out.append(min(fit, key=lambda one: ((one.key == exp.key) != flips, _draw(example, exp, one))))
    return out


def _draw(example: Example, *sites: DecisionSite) -> str:
    """Place of a decision in the draw of an item."""
    words = "|".join((example.id, *(f"{site.name} {site.key}" for site in sites)))
    return hashlib.sha256(words.encode()).hexdigest()
