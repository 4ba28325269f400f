"""What a model answers: batched generation and full-string label scoring of a task's examples, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from interp.label_scores import label_log_probabilities, letter_scores
from interp.model import Model
from interp.passes import pad
from interp.prompt import Example, Prompt, render
from interp.tasks.protocol import EvaluatedTask, decision_prefix, labels_of, max_new_tokens, read_reply

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Args:
        generate: let the model write its answer; False only scores the task's labels after the prompt.
        score_labels: log-probabilities of the task's label strings, after the model's own reasoning where it generated.
        max_new_tokens: None takes the task's own limit.
        temperature: 0 is greedy; above 0 samples `n_samples` answers per example.
        seed: of sampling; batch b draws from (seed, b), so an interrupted run draws the same.
        thinking: passed to the chat template where given.
        tokens_per_batch: prompt and new tokens of one batch, padding included.
    Raises:
        ValueError: nothing to do, or a count below one.
    """

    generate: bool = True
    score_labels: bool = True
    max_new_tokens: int | None = None
    temperature: float = 0.0
    n_samples: int = 1
    seed: int = 0
    thinking: bool | None = None
    tokens_per_batch: int = TOKENS_PER_BATCH

    def __post_init__(self) -> None:
        if not (self.generate or self.score_labels):
            raise ValueError("decoding: generate and score_labels are both off; there is nothing to do.")
        if self.n_samples < 1 or self.tokens_per_batch < 1 or self.temperature < 0:
            raise ValueError(
                "decoding: expected n_samples and tokens_per_batch of at least 1, temperature of at least 0."
            )
        if self.n_samples > 1 and self.temperature == 0:
            raise ValueError(f"decoding: {self.n_samples} samples at temperature 0 would be equal; set a temperature.")


@dataclass(frozen=True)
class Answer:
    """One reply to one example, and what the task says of it.

    Attributes:
        text: the reply as written, without the end-of-turn token; None where labels were only scored.
        label: what the task reads in the reply (None: unparsed); where labels were only scored, the likeliest one.
        scores: by name, as `task.score` gives them; always has "correct".
        p: probability of each label string relative to the others, softmax of log-probability per token.
        logp: natural log-probability of each whole label string.
        finished: the reply ended by itself, not at max_new_tokens.
        rule: how the task found the label in the reply; "labels" where labels were only scored.
        label_mass: total probability of all spellings of all labels, where the task names spellings.
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
    rule: str = ""
    label_mass: float | None = None


@dataclass(frozen=True)
class Batches:
    """Every example as the model reads it, how long a reply may be, and which examples run together."""

    prompts: tuple[Prompt, ...]
    new_tokens: int
    batches: tuple[tuple[int, ...], ...]


def plan_batches(model: Model, task: EvaluatedTask, examples: Sequence[Example], decoding: Decoding) -> Batches:
    """Longest prompts first, cut by the token budget: a function of the examples, the tokenizer and the decoding alone.

    A reply may be as long as `decoding` says, or else as the task says and the context leaves room for.

    Raises:
        ValueError: no tokenizer; a prompt that does not fit the context (with the reply that was asked for), by its id.
    """
    if model.tokenizer is None:
        raise ValueError("evaluating needs a tokenizer; wrap the module with Model.wrap(module, tokenizer).")
    context = getattr(model.layout.config, "max_position_embeddings", None)
    asked = (decoding.max_new_tokens or 1) if decoding.generate else 0
    limit = None if context is None else context - asked
    if limit is not None and limit < 1:
        raise ValueError(f"max_new_tokens {asked} leaves no room in a context of {context} tokens.")
    prompts = tuple(render(e, model.tokenizer, thinking=decoding.thinking, max_length=limit) for e in examples)
    order = _order(prompts, _units(task, examples))
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    room = max_new_tokens(task) if context is None else min(max_new_tokens(task), context - longest)
    new_tokens = (decoding.max_new_tokens or room) if decoding.generate else 0
    batches: list[tuple[int, ...]] = []
    while order:
        size = max(1, decoding.tokens_per_batch // (len(prompts[order[0]].ids) + new_tokens))
        size = max(
            1, min(size, decoding.tokens_per_batch // (max(len(prompts[i].ids) for i in order[:size]) + new_tokens))
        )
        batches.append(tuple(order[:size]))
        order = order[size:]
    return Batches(prompts, new_tokens, tuple(batches))


def _units(task: EvaluatedTask, examples: Sequence[Example]) -> list[str] | None:
    """The group that says which examples begin alike (the task's `TOGETHER`), one key per example."""
    name = getattr(task, "TOGETHER", None)
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

    Batches are fixed by the examples alone, so a run that skips the batches in `done` gives the rest of the very
    answers that an undisturbed one gives. Left padding with explicit positions, KV cache on.

    Args:
        done: batches to skip. plan: of `plan_batches` for the same arguments, where the caller has it already.
    Raises:
        ValueError: no tokenizer; a prompt longer than the model's context, with its id; a label that the tokenizer
            joins with the text before it.
    """
    decoding = decoding or Decoding()
    plan = plan or plan_batches(model, task, examples, decoding)
    for number, batch in enumerate(plan.batches):
        if number in done:
            continue
        chosen = [(examples[i], plan.prompts[i]) for i in batch]
        yield number, _answer_batch(model, task, chosen, decoding, plan.new_tokens, number)


Pairs = Sequence[tuple[Example, Prompt]]


def _answer_batch(
    model: Model, task: EvaluatedTask, batch: Pairs, decoding: Decoding, new_tokens: int, number: int
) -> list[Answer]:
    try:
        written = _generate(model, batch, decoding, new_tokens, number) if decoding.generate else None
        texts = [(i, s, r) for i, s, r in written] if written else [(i, 0, None) for i in range(len(batch))]
        answers = [_read(task, *batch[i], s, r) for i, s, r in texts]
        if decoding.score_labels:
            answers = _with_labels(model, task, [batch[i] for i, _, _ in texts], answers, decoding)
        return sorted(answers, key=lambda a: [e.id for e, _ in batch].index(a.example_id))
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        first = _answer_batch(model, task, batch[:half], decoding, new_tokens, number)
        return first + _answer_batch(model, task, batch[half:], decoding, new_tokens, number)


@dataclass(frozen=True)
class _Reply:
    text: str
    n_tokens: int
    finished: bool


@torch.no_grad()
def _generate(
    model: Model, batch: Pairs, decoding: Decoding, new_tokens: int, number: int
) -> list[tuple[int, int, _Reply]]:
    """(position in the batch, sample, reply) of every answer."""
    from transformers import GenerationConfig

    ends = end_tokens(model)
    padded = pad([p.ids for _, p in batch], pad_id=model.pad_id, side="left").to(model.device)
    sampling = {"do_sample": True, "temperature": decoding.temperature, "num_return_sequences": decoding.n_samples}
    config = GenerationConfig(
        max_new_tokens=new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=model.pad_id,
        **(sampling if decoding.temperature > 0 else {"do_sample": False}),
    )
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(decoding.seed * 1_000_003 + number)
        generate: Any = model.module.generate
        out = generate(input_ids=padded.input_ids, attention_mask=padded.attention_mask, generation_config=config)
    tails = out[:, padded.input_ids.shape[1] :].tolist()
    return [
        (k // decoding.n_samples, k % decoding.n_samples, _reply(model, tail, ends)) for k, tail in enumerate(tails)
    ]


def end_tokens(model: Model) -> frozenset[int]:
    """Token ids that end a turn: those of the tokenizer and of the checkpoint's generation config."""
    config = getattr(model.causal_lm, "generation_config", None)
    declared = getattr(config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    found = frozenset(int(i) for i in (*listed, model.tokenizer.eos_token_id) if i is not None)
    if not found:
        raise ValueError("neither tokenizer nor generation config has an end-of-turn token; set tokenizer.eos_token.")
    return found


def _reply(model: Model, tail: list[int], ends: frozenset[int]) -> _Reply:
    stop = next((i for i, token in enumerate(tail) if token in ends), None)
    kept = tail if stop is None else tail[:stop]
    return _Reply(model.tokenizer.decode(kept, skip_special_tokens=False), len(kept), stop is not None)


def _read(task: EvaluatedTask, example: Example, prompt: Prompt, sample: int, reply: _Reply | None) -> Answer:
    if reply is None:
        return Answer(example.id, sample, None, None, {}, len(prompt.ids), 0, True, prompt.sha256)
    seen = ("<think>\n" if prompt.text.rstrip().endswith("<think>") else "") + reply.text  # the tag may be the prompt's
    label, rule = read_reply(task, example, seen)
    return Answer(
        example.id,
        sample,
        reply.text,
        label,
        task.score(example, seen),
        len(prompt.ids),
        reply.n_tokens,
        reply.finished,
        prompt.sha256,
        rule=rule,
    )


def _with_labels(
    model: Model, task: EvaluatedTask, batch: Pairs, answers: Sequence[Answer], decoding: Decoding
) -> list[Answer]:
    """The answers with the probability of every label, read where the model would write it."""
    asked = []
    for (example, _), answer in zip(batch, answers, strict=True):
        before = "" if answer.text is None else decision_prefix(task, answer.text)
        asked.append((example, before, labels_of(task, example)))
    if not any(labels for _, _, labels in asked):
        return list(answers)
    thinking = decoding.thinking
    if callable(getattr(task, "spellings", None)):
        named: Any = task
        ends = [
            (render(replace(e, answer=before), model.tokenizer, thinking=thinking) if before else prompt).ids
            for (e, prompt), (_, before, _) in zip(batch, asked, strict=True)
        ]
        with_labels = [(ids, labels) for ids, (_, _, labels) in zip(ends, asked, strict=True)]
        scored = letter_scores(model, with_labels, named.spellings, units=_units(task, [e for e, _ in batch]))
        return [
            _scored(task, example, replace(answer, label_mass=math.fsum(map(math.exp, logp.values()))), logp)
            for (example, _), answer, logp in zip(batch, answers, scored, strict=True)
        ]
    cases = [(example, before, label) for example, before, labels in asked for label in labels]
    found = iter(label_log_probabilities(model, cases, thinking=thinking))
    out = []
    for (example, _), answer, (_, _, labels) in zip(batch, answers, asked, strict=True):
        sums = {label: next(found) for label in labels}
        per_token = {label: total / n for label, (total, n) in sums.items()}
        out.append(_scored(task, example, answer, {label: total for label, (total, _) in sums.items()}, per_token))
    return out


def _scored(
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
    answer = replace(answer, p=p, logp=dict(logp))
    if answer.text is not None:
        return answer
    best = max(p, key=lambda label: p[label])
    return replace(answer, label=read_reply(task, example, best)[0], rule="labels", scores=task.score(example, best))
