"""A task's examples as items of a dose curve: prompts cut where the label is decided, and the tokens of each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from interp.evaluate.labels import context_length, spelling_tokens
from interp.heads.decisions import drawn_decision
from interp.model import Model
from interp.prompt import Example, Message, Prompt, joined, render
from interp.remedy import remedy
from interp.tasks.decision_sites import DecisionSite, chosen_sites, decision_sites, gold_reply, label_site
from interp.tasks.protocol import Task, hook, labels_of
from steering.dose import DoseItem
from study.analyses.heads.pairs import GOLD, OWN, before_label, replies

AUTO = "auto"


def dose_items(
    model: Model,
    task: Task,
    examples: Sequence[Example],
    *,
    slot: str = AUTO,
    baseline: str | None = None,
    at: str = "",
) -> list[DoseItem]:
    """Items whose prompts end where the next token decides the label, or at another decision site of the task.

    At another site the options of the decision stand for the labels, and its right answer for that of the item; of
    several such decisions in a reply one is drawn, as `interp.heads.decision_pairs` draws it, and items whose reply
    reaches none are left out.

    Labels with one-token spellings (letters) are read after the prompt; others where their spellings first differ.

    Args:
        slot: what stands between prompt and label: "own", the model's own unsteered reply up to its decision; "auto",
            "own" for a task that says where its replies decide, else nothing; any other text is forced on all.
        baseline: instruction that the prompt baseline adds behind the user's text (in front of a raw text); None takes
            the task's `PROMPT_BASELINE`, "" leaves it out.
        at: decision site where the response is read; "": where the label is decided.
    Raises:
        ValueError: a task without labels, labels that share a first token, an item without a group where others have
            one, a prompt longer than the context.
    """
    unlabelled = [e.id for e in examples if len(labels_of(task, e)) < 2]
    if unlabelled or not examples:
        raise ValueError(
            f"dose curve: {len(unlabelled)} of {len(examples)} items have fewer than two labels "
            f"({', '.join(unlabelled[:3]) or 'there are no items'}). The task needs a function labels(example)."
        )
    words = getattr(task, "PROMPT_BASELINE", "") if baseline is None else baseline
    unit = group_of(task, examples)
    if not is_label(task, at):
        decisions = _decisions(model, task, examples, slot, at)
        return [_item_at(model, one, site, words, unit(one)) for one, site in decisions]
    if slot == AUTO:
        slot = OWN if hook(task, "decision_prefix") is not None else ""
    before = before_label(model, task, examples, slot)
    return [_item(model, task, example, before(example), words, unit(example)) for example in examples]


def is_label(task: Task, at: str) -> bool:
    """Whether the response is read where the label is decided."""
    return at in ("", label_site(task))


def sites_of(task: Task, at: Sequence[str], slot: str) -> tuple[str, ...]:
    """The decision sites where the response is read, in the task's order: where the label is decided if none is named.

    Raises:
        ValueError: a site that the task does not name, or that a forced text does not reach.
    """
    sites = chosen_sites(task, at) if at else (label_site(task),)
    for site in sites:
        if not is_label(task, site) and slot not in (AUTO, OWN, GOLD):
            raise ValueError(
                f"decision site {site!r}: a forced text ({slot!r}) is followed by the label. "
                f"{remedy('Use {slot:own} or {slot:gold}.')}"
            )
    return sites


def _decisions(
    model: Model, task: Task, examples: Sequence[Example], slot: str, at: str
) -> list[tuple[Example, DecisionSite]]:
    """One decision of every example whose reply reaches one."""
    sites_of(task, (at,), slot)
    texts = {e.id: gold_reply(task, e) or "" for e in examples} if slot == GOLD else replies(model, task, examples)
    out = []
    for example in examples:
        sites = [site for site in decision_sites(task, example, texts[example.id]) if site.name == at]
        if sites:
            out.append((example, drawn_decision(example, sites)))
    if not out:
        raise ValueError(f"decision site {at!r}: none of {len(examples)} replies of {model.name} reach it.")
    return out


def _item_at(model: Model, example: Example, site: DecisionSite, words: str, group: str) -> DoseItem:
    """The item of a decision: its right answer is the label, and the options that differ in their next token are the
    labels."""
    options = (site.answer, *(option for option in site.options if option != site.answer))
    decided = replace(example, label=site.answer)
    prompt, ids = _first_tokens(model, decided, site.before, options)
    separable = {token: option for option, (token,) in reversed(list(zip(options, ids, strict=True)))}
    labels = [option for option in site.options if option in separable.values()]
    tokens = {option: (token,) for token, option in separable.items()}
    baseline = _first_tokens(model, _instructed(decided, words), site.before, options)[0].ids if words else None
    return DoseItem(decided, prompt, tuple(labels), tuple(tokens[one] for one in labels), group, baseline)


def group_of(task: Task, examples: Sequence[Example]) -> Callable[[Example], str]:
    """The independent unit of an example: the task's `GROUP`, else the first group, else the example itself.

    Raises:
        ValueError: some examples lack the unit that others have.
    """
    names = dict.fromkeys(name for e in examples for name in e.groups)
    unit = named if (named := hook(task, "GROUP")) in names else next(iter(names), None)
    if unit is None:
        return lambda example: example.id
    missing = [e.id for e in examples if unit not in e.groups]
    if missing:
        raise ValueError(f"groups: {unit!r} is the unit of every interval; it is missing on {missing[0]!r} and others.")
    return lambda example: str(example.groups[unit])


def _item(model: Model, task: Task, example: Example, before: str, words: str, group: str) -> DoseItem:
    labels = labels_of(task, example)
    prompt, ids = _choices(model, task, example, before, labels)
    baseline = None
    if words:
        other, same = _choices(model, task, _instructed(example, words), before, labels)
        if same != ids:
            raise ValueError(f"example {example.id!r}: its labels are other tokens under the prompt baseline.")
        baseline = other.ids
    return DoseItem(example, prompt, labels, ids, group, baseline)


def _choices(
    model: Model, task: Task, example: Example, before: str, labels: Sequence[str]
) -> tuple[Prompt, tuple[tuple[int, ...], ...]]:
    """(prompt up to the token that decides, tokens of each label there)."""
    limit = context_length(model)
    if spellings := hook(task, "spellings"):
        begun = replace(example, answer=(example.answer or "") + before) if before else example
        tokens = spelling_tokens(model, labels, spellings)
        return render(begun, model.tokenizer, max_length=limit), tuple(tuple(tokens[label]) for label in labels)
    return _first_tokens(model, example, before, labels)


def _first_tokens(
    model: Model, example: Example, before: str, labels: Sequence[str]
) -> tuple[Prompt, tuple[tuple[int], ...]]:
    """(prompt up to the first token at which the labels differ, the token of each label there)."""
    limit = context_length(model)
    texts = [joined(example, before, label) for label in labels]
    prompts = [render(replace(example, answer=text), model.tokenizer, max_length=limit) for text in texts]
    columns = zip(*(prompt.ids for prompt in prompts), strict=False)
    n = next((i for i, column in enumerate(columns) if len(set(column)) > 1), None)
    if n is None:
        raise ValueError(f"example {example.id!r}: of labels {', '.join(labels)} one begins with another.")
    return _cut(prompts[0], n), tuple((prompt.ids[n],) for prompt in prompts)


def _cut(prompt: Prompt, n: int) -> Prompt:
    """The first n tokens of a prompt; spans that begin after them are gone."""
    end = prompt.offsets[n - 1][1]
    spans = {name: (a, min(b, end)) for name, (a, b) in prompt.spans.items() if a < end}
    return replace(
        prompt,
        text=prompt.text[:end],
        ids=prompt.ids[:n],
        offsets=prompt.offsets[:n],
        tokens=prompt.tokens[:n],
        spans=spans,
    )


def _instructed(example: Example, words: str) -> Example:
    if example.text is not None:
        return replace(example, text=f"{words}\n{example.text}", spans={})
    last = example.messages[-1]
    return replace(example, messages=(*example.messages[:-1], Message(last.role, f"{last.content}\n{words}")))
