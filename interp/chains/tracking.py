"""Answer tracking: the logit lens's probability of the answer at the end of every sentence of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp.evaluate.labels import context_length
from interp.hooks import record
from interp.memory import sizes_of
from interp.model import Model
from interp.progress import parts
from interp.prompt import Example, Prompt, render
from interp.tasks.cot.chains import chain_sentences
from interp.tasks.cot.importance import answer_tier

DEPTH = 0.75
_TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Tracked:
    """The logit lens at one sentence's end.

    Attributes:
        layer:     block whose output is read.
        token:     index of the boundary token in the prompt.
        p_answer:  probability of the first token of the answer.
        p_control: probability of the first token of another problem's answer at the same position, with which
            `p_answer` is to be compared; None if no answer in the corpus has another first token.
        tier:      `answer_tier` of `p_answer`.
        top, p_top: most probable token, decoded, and its probability.
    """

    example_id: str
    problem: str
    sentence: int
    token: int
    layer: int
    p_answer: float
    p_control: float | None
    tier: str
    top: str
    p_top: float


def track_answers(model: Model, examples: Sequence[Example], *, depth: float = DEPTH) -> list[Tracked]:
    """One row per sentence of every chain.

        p = softmax(unembed(final norm(resid_post[int(depth · n_layers)])))  at the last token of the sentence, float32

    The first token of an answer is that of its spellings with and without a leading space, skipping tokens that are
    only a space; their probabilities are summed.

    Args:
        examples: examples from `interp.tasks.cot.chains.examples`, with their chain; the label is the answer.
    Raises:
        ValueError: depth outside [0, 1), no tokenizer, an example without chain or label, or a prompt that is too long.
    Source: answer tracking of the activation-oracle corpora: block at 75 %; tiers in place of three decimals.
    """
    if not 0 <= depth < 1:
        raise ValueError(f"depth: expected a share of the layers in [0, 1), got {depth}.")
    layer = int(depth * model.n_layers)
    prompts = [render(e, model.tokenizer, max_length=context_length(model)) for e in examples]
    ends = [[s.boundary for s in chain_sentences(e, p)] for e, p in zip(examples, prompts, strict=True)]
    firsts = [first_tokens(model.tokenizer, e) for e in examples]
    others = _controls(examples, firsts)
    out: list[Tracked] = []
    for batch in parts(list(_batches(prompts, min(_TOKENS_PER_BATCH, sizes_of(model).pass_tokens)))):
        p = _lens(model, layer, [prompts[i].ids for i in batch], [ends[i] for i in batch])
        for row, (k, sentence) in enumerate((i, s) for i in batch for s in range(len(ends[i]))):
            top = int(p[row].argmax())
            p_answer = float(p[row, firsts[k]].sum())
            other = others[k]
            out.append(
                Tracked(
                    examples[k].id,
                    examples[k].groups.get("problem", examples[k].id),
                    sentence,
                    ends[k][sentence],
                    layer,
                    p_answer,
                    None if other is None else float(p[row, other].sum()),
                    answer_tier(min(p_answer, 1.0)),
                    model.tokenizer.decode([top]),
                    float(p[row, top]),
                )
            )
    return out


def first_tokens(tokenizer: Any, example: Example) -> list[int]:
    """Token ids that the answer may begin with: with and without a leading space.

    Raises:
        ValueError: no answer, or an answer of whitespace only.
    """
    first: set[int] = set()
    for text in (str(example.label), f" {example.label}"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        first |= {i for i in [next((i for i in ids if tokenizer.decode([i]).strip()), None)] if i is not None}
    if example.label is None or not first:
        raise ValueError(f"example {example.id!r}: expected a non-empty answer, got {example.label!r}.")
    return sorted(first)


def _controls(examples: Sequence[Example], firsts: Sequence[list[int]]) -> list[list[int] | None]:
    """For each example the first tokens of the next answer in the corpus (cyclically) that shares none with its own."""
    n = len(examples)
    return [
        next((firsts[(i + k) % n] for k in range(1, n) if not set(firsts[i]) & set(firsts[(i + k) % n])), None)
        for i in range(n)
    ]


def _batches(prompts: Sequence[Prompt], n_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for i, prompt in enumerate(prompts):
        widest = max([len(prompt.ids), *(len(prompts[k].ids) for k in batch)])
        if batch and (len(batch) + 1) * widest > n_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.no_grad()
def _lens(model: Model, layer: int, ids: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]) -> torch.Tensor:
    """Probabilities at the chosen tokens of every item, in order [row, vocab]."""
    site = f"resid_post.{layer}"
    with record(model, [site], positions=ends) as acts:
        model(ids)
    at = {place: row for row, place in enumerate(acts.rows or [])}
    resid = acts[site][[at[item, token] for item, tokens in enumerate(ends) for token in tokens]]
    return model.unembed(model.layout.final_norm(resid)).float().softmax(-1)
