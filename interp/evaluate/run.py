"""Answers of a model: batched generation and full-string label scoring of a task's examples."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from interp.evaluate.decoding import Decoding, batch_tokens
from interp.evaluate.labels import context_length, label_log_probabilities, letter_scores
from interp.evaluate.writing import Written, write
from interp.model import Model
from interp.progress import stage
from interp.prompt import Example, Prompt, render, render_all
from interp.tasks.protocol import EvaluatedTask, decision_prefix, hook, labels_of, max_new_tokens, read_reply

ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 0.03, torch.bfloat16: 0.25}
"""Nats by which log p(a) - log p(b) of two labels moves with dtype and batch, in 19 of 20 pairs or more.

Measured on 48 BBQ items of SmolLM2-135M-Instruct against float32: 95 % of pairs within 0.21 in bfloat16 (all within
0.32), 0.025 in float16 (all within 0.036). float32: other orders of summation.
"""


def margin_of(logp: Mapping[str, float]) -> float | None:
    """Log-probability of the likeliest label minus that of the runner-up, nats; None for fewer than two labels."""
    best = sorted(logp.values(), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else None


def is_within_rounding(margin: float | None, dtype: torch.dtype) -> bool | None:
    """Whether another batch, dtype or machine may give the other answer; None without a margin."""
    return None if margin is None else margin < ROUNDING.get(dtype, ROUNDING[torch.bfloat16])


@dataclass(frozen=True)
class Answer:
    """One reply to one example, and the task's reading of it.

    Attributes:
        text: the reply as written, without the end-of-turn token; None if labels were only scored.
        label: as the task reads it in the reply (None: unparsed); if labels were only scored, the likeliest one.
        scores: score name -> value, from `task.score`; always has "correct".
        p: probability of each label string relative to the others, softmax of log-probability per token; empty if
            the reply has no place where the task expects its label.
        logp: natural log-probability of each whole label string.
        finished: the reply ended by itself, not at max_new_tokens.
        template_system: text of a system turn that the chat template added by itself.
        rule: how the task found the label in the reply; "labels" if labels were only scored.
        label_mass: total probability of all spellings of all labels, if the task names spellings.
        opened: beginning of the reply that the prompt contains, such as "<think>"; the task reads it before the text.
        margin: log-probability of the likeliest label minus that of the runner-up, nats (per token if labels have
            several tokens).
        within_rounding: the margin is smaller than what the model's dtype rounds; see `ROUNDING`.
        token_ids: ids of the reply as they were generated, `n_new_tokens` of them, without the token that ends the
            turn; None if labels were only scored.
    """

    example_id: str
    sample: int
    text: str | None
    label: str | None
    scores: Mapping[str, float]
    n_prompt_tokens: int
    n_new_tokens: int
    finished: bool
    prompt_sha256: str
    p: Mapping[str, float] = field(default_factory=dict)
    logp: Mapping[str, float] = field(default_factory=dict)
    template_system: str | None = None
    rule: str = ""
    label_mass: float | None = None
    opened: str = ""
    margin: float | None = None
    within_rounding: bool | None = None
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Batches:
    """The prompt of every example, the examples of each batch, and the longest reply allowed in it."""

    prompts: tuple[Prompt, ...]
    batches: tuple[tuple[int, ...], ...]
    new_tokens: tuple[int, ...]

    def work(self, number: int) -> float:
        """Tokens of a batch that are read or written, the longest replies assumed."""
        batch = self.batches[number]
        return float(sum(len(self.prompts[i].ids) for i in batch) + len(batch) * self.new_tokens[number])


def plan_batches(model: Model, task: EvaluatedTask, examples: Sequence[Example], decoding: Decoding) -> Batches:
    """Longest prompts first, cut by the token budget (`batch_tokens`).

    A function of the examples, the tokenizer and the decoding alone, if that has `tokens_per_batch`.

    The longest reply is that of `decoding`, or else that of the task; if the context has no room for it, the room that
    the longest prompt of the batch leaves. Prompts with and without full room never share a batch.

    Raises:
        ValueError: no tokenizer; two examples of one id; a prompt that does not fit the context (with the reply that
            was asked for), by its id.
    Warns:
        UserWarning: how many items have less room than the task allows, and the first of them.
    """
    if model.tokenizer is None:
        raise ValueError("evaluating needs a tokenizer; wrap the module with Model.wrap(module, tokenizer).")
    _check_ids(examples)
    context = context_length(model)
    asked = (decoding.max_new_tokens or 1) if decoding.generate else 0
    limit = None if context is None else context - asked
    if limit is not None and limit < 1:
        raise ValueError(f"max_new_tokens {asked} leaves no room in a context of {context} tokens.")
    prompts = tuple(render_all(examples, model.tokenizer, thinking=decoding.thinking, max_length=limit))
    full = (decoding.max_new_tokens or max_new_tokens(task)) if decoding.generate else 0
    sizes = [len(prompt.ids) for prompt in prompts]
    rooms = [full if context is None else min(full, context - size) for size in sizes]
    _warn_of_cut_replies(examples, rooms, full)
    order = _order(prompts, _units(task, examples))
    budget = batch_tokens(model, decoding) // decoding.n_samples
    batches: list[tuple[int, ...]] = []
    new_tokens: list[int] = []
    while order:
        chosen = _fitting(order, sizes, rooms, full, budget)
        batches.append(tuple(chosen))
        new_tokens.append(min(rooms[i] for i in chosen))
        order = order[len(chosen) :]
    return Batches(prompts, tuple(batches), tuple(new_tokens))


def _fitting(order: Sequence[int], sizes: Sequence[int], rooms: Sequence[int], full: int, budget: int) -> list[int]:
    """The first examples of `order` that one batch holds, at least one; all with full room, or all without."""
    chosen, widest = [order[0]], sizes[order[0]] + rooms[order[0]]
    for i in order[1:]:
        widest = max(widest, sizes[i] + rooms[i])
        if (rooms[i] == full) != (rooms[order[0]] == full) or (len(chosen) + 1) * widest > budget:
            break
        chosen.append(i)
    return chosen


def _check_ids(examples: Sequence[Example]) -> None:
    repeated = [name for name, count in Counter(e.id for e in examples).items() if count > 1]
    if repeated:
        raise ValueError(
            f"examples: expected unique ids; {len(repeated)} repeated, first {repeated[0]!r}. Rename or drop them."
        )


def _warn_of_cut_replies(examples: Sequence[Example], rooms: Sequence[int], full: int) -> None:
    cut = [(example.id, room) for example, room in zip(examples, rooms, strict=True) if room < full]
    if cut:
        named = ", ".join(f"{name!r} ({room})" for name, room in cut[:5]) + (", ..." if len(cut) > 5 else "")
        warnings.warn(
            f"{len(cut)} of {len(rooms)} items leave less room in the context than the {full} new tokens of the task, "
            f"so their replies may be cut short: {named}. 'unfinished' in the table counts those that are.",
            stacklevel=3,
        )


def _units(task: EvaluatedTask, examples: Sequence[Example]) -> list[str] | None:
    """One key per example: equal for examples with a common beginning (the group that the task's `TOGETHER` names)."""
    name = hook(task, "TOGETHER")
    return [e.groups.get(name, e.id) for e in examples] if isinstance(name, str) else None


def _order(prompts: Sequence[Prompt], units: Sequence[str] | None) -> list[int]:
    """Longest first; examples of one unit side by side, at the place of their longest."""
    sizes = [len(prompt.ids) for prompt in prompts]
    if units is None:
        return sorted(range(len(prompts)), key=lambda i: (-sizes[i], i))
    longest: dict[str, int] = {}
    for unit, size in zip(units, sizes, strict=True):
        longest[unit] = max(size, longest.get(unit, 0))
    first = {unit: i for i, unit in reversed(list(enumerate(units)))}
    return sorted(range(len(prompts)), key=lambda i: (-longest[units[i]], first[units[i]], -sizes[i], i))


def evaluate(
    model: Model,
    task: EvaluatedTask,
    examples: Sequence[Example],
    *,
    decoding: Decoding | None = None,
    done: frozenset[int] = frozenset(),
    plan: Batches | None = None,
) -> Iterator[tuple[int, list[Answer]]]:
    """Answers of the model, one batch after the other, as (batch number, answers in order of the examples).

    Batches depend on the examples alone, so a run that skips the batches in `done` gives the same remaining answers as
    an uninterrupted one. Left padding with explicit positions, KV cache on.

    Args:
        done: batches to skip. plan: of `plan_batches` for the same arguments, if the caller has it already.
    Raises:
        ValueError: no tokenizer; a prompt longer than the model's context, with its id; a label that the tokenizer
            joins with the text before it.

    Example:
        >>> from interp.tasks import esi
        >>> items = [Example("a", text="the dog", label="2", groups={"subject": "s"})]
        >>> for number, answers in evaluate(model, esi, items, decoding=Decoding(generate=False)):
        ...     print(number, answers[0].example_id, answers[0].rule, sorted(answers[0].p))
        0 a labels ['1', '2', '3', '4', '5']
    """
    decoding = decoding or Decoding()
    plan = plan or plan_batches(model, task, examples, decoding)
    for number, batch in enumerate(plan.batches):
        if number in done:
            continue
        chosen = [(examples[i], plan.prompts[i]) for i in batch]
        yield number, _answer_batch(model, task, chosen, decoding, plan.new_tokens[number], batch)


Pairs = Sequence[tuple[Example, Prompt]]


def _answer_batch(
    model: Model, task: EvaluatedTask, batch: Pairs, decoding: Decoding, new_tokens: int, places: Sequence[int]
) -> list[Answer]:
    """Answers of the examples at `places` of the whole list; in halves if the batch does not fit into memory."""
    try:
        return _answer_whole(model, task, batch, decoding, new_tokens, places)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # after the except block: while an error is handled, its traceback holds the tensors of the batch that did not fit
    torch.cuda.empty_cache()
    half = len(batch) // 2
    first = _answer_batch(model, task, batch[:half], decoding, new_tokens, places[:half])
    return first + _answer_batch(model, task, batch[half:], decoding, new_tokens, places[half:])


def _answer_whole(
    model: Model, task: EvaluatedTask, batch: Pairs, decoding: Decoding, new_tokens: int, places: Sequence[int]
) -> list[Answer]:
    """Answers of the examples at `places` of the whole list, in their order."""
    prompts = [prompt for _, prompt in batch]
    written: list[Written | None] = [None] * len(batch)
    asked: Pairs = batch
    if decoding.generate:
        keep = decoding.score_labels
        with stage(0, 0.9):
            replies = write(model, prompts, decoding, new_tokens=new_tokens, place=places[0], keep_finals=keep)
        written, asked = list(replies), [batch[one.example] for one in replies]
    answers = [_read(task, *one, reply) for one, reply in zip(asked, written, strict=True)]
    with stage(0.9 if decoding.generate else 0, 1):
        return _with_labels(model, task, asked, answers, decoding, written) if decoding.score_labels else answers


def _read(task: EvaluatedTask, example: Example, prompt: Prompt, written: Written | None) -> Answer:
    if written is None:
        return Answer(
            example.id,
            0,
            None,
            None,
            {},
            len(prompt.ids),
            0,
            True,
            prompt.sha256,
            template_system=prompt.template_system,
        )
    reply = written.reply
    opened = "<think>\n" if prompt.text.rstrip().endswith("<think>") else ""
    seen = opened + reply.text
    label, rule = read_reply(task, example, seen)
    return Answer(
        example.id,
        written.sample,
        reply.text,
        label,
        task.score(example, seen),
        len(prompt.ids),
        reply.n_tokens,
        reply.finished,
        prompt.sha256,
        template_system=prompt.template_system,
        rule=rule,
        opened=opened,
        token_ids=written.ids[: reply.n_tokens],
    )


def _with_labels(
    model: Model,
    task: EvaluatedTask,
    batch: Pairs,
    answers: Sequence[Answer],
    decoding: Decoding,
    written: Sequence[Written | None],
) -> list[Answer]:
    """The answers with the probability of every label, scored where the model would write it."""
    asked = []
    for (example, _), answer in zip(batch, answers, strict=True):
        places = _places_of_labels(task, example, answer.text)
        asked.append((example, places[0][0] if places else "", [label for _, label in places]))
    if not any(labels for _, _, labels in asked):
        return list(answers)
    thinking = decoding.thinking
    if spellings := hook(task, "spellings"):
        ends = [
            _until_label(model, example, prompt, before, thinking).ids
            for (example, prompt), (_, before, _) in zip(batch, asked, strict=True)
        ]
        with_labels = [(ids, labels) for ids, (_, _, labels) in zip(ends, asked, strict=True)]
        finals = [one and one.final_after(ids) for one, (ids, _) in zip(written, with_labels, strict=True)]
        units = _units(task, [e for e, _ in batch])
        scored = letter_scores(model, with_labels, spellings, units=units, finals=finals)
        return [
            _scored(model, task, example, _with_mass(answer, logp), logp)
            for (example, _), answer, logp in zip(batch, answers, scored, strict=True)
        ]
    cases = [(example, before, label) for example, before, labels in asked for label in labels]
    writers = [one for one, (_, _, labels) in zip(written, asked, strict=True) for _ in labels]
    delimiter = decoding.target_delimiter
    totals_of = iter(label_log_probabilities(model, cases, thinking=thinking, delimiter=delimiter, written=writers))
    out = []
    for (example, _), answer, (_, _, labels) in zip(batch, answers, asked, strict=True):
        sums = {label: next(totals_of) for label in labels}
        per_token = {label: total / n for label, (total, n) in sums.items()}
        totals = {label: total for label, (total, _) in sums.items()}
        out.append(_scored(model, task, example, answer, totals, per_token))
    return out


def _until_label(model: Model, example: Example, prompt: Prompt, before: str, thinking: bool | None) -> Prompt:
    """The prompt with the reply up to its label, after the example's own `answer`."""
    if not before:
        return prompt
    begun = replace(example, answer=(example.answer or "") + before)
    return render(begun, model.tokenizer, thinking=thinking, max_length=context_length(model))


def _with_mass(answer: Answer, logp: Mapping[str, float]) -> Answer:
    return replace(answer, label_mass=math.fsum(map(math.exp, logp.values()))) if logp else answer


def _places_of_labels(task: EvaluatedTask, example: Example, text: str | None) -> list[tuple[str, str]]:
    """(text of the reply before the label, label) of each label.

    Empty if the task defines the decision point of a reply and this one has none: an empty prefix is a decision point
    only for a reply that begins with a label.
    """
    labels = labels_of(task, example)
    before = "" if text is None else decision_prefix(task, text, example)
    if text is not None and not before and hook(task, "decision_prefix"):
        labels = labels if text.lstrip().startswith(labels) else ()
    return [(before, label) for label in labels]


def _scored(
    model: Model,
    task: EvaluatedTask,
    example: Example,
    answer: Answer,
    logp: Mapping[str, float],
    per_token: Mapping[str, float] | None = None,
) -> Answer:
    if not logp:
        return answer
    weighed = per_token or logp
    top = max(weighed.values())
    weights = {label: math.exp(value - top) for label, value in weighed.items()}
    p = {label: weight / sum(weights.values()) for label, weight in weights.items()}
    margin = margin_of(weighed)
    answer = replace(
        answer, p=p, logp=dict(logp), margin=margin, within_rounding=is_within_rounding(margin, model.dtype)
    )
    if answer.text is not None:
        return answer
    best = max(p, key=lambda label: p[label])
    return replace(answer, label=read_reply(task, example, best)[0], rule="labels", scores=task.score(example, best))
