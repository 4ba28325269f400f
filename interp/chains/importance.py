"""Which sentences of a chain matter: what the rest says when it cannot see one, and what is written without it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from interp.chains.rollouts import Parse, Rollout, continuations
from interp.evaluate.labels import context_length
from interp.model import Model
from interp.prompt import Example, render
from interp.sentences import split_sentences
from interp.tasks import cot
from interp.tasks.cot.chains import ChainSentence, chain_sentences
from interp.tasks.cot.importance import (
    RolloutImportance,
    masked_logp,
    rollout_importance,
    says_something_else,
    span_importances,
)

LEAK = 1e-3  # nats; a masked pass that should change nothing may differ by rounding only
UNANSWERED = "(none)"


@dataclass(frozen=True)
class Importance:
    """What one sentence is worth to the tokens after it, by suppressed attention.

    Attributes:
        importance: mean KL in nats per later token; the last sentence of a prompt has none.
        control:    the same of a run of as many tokens at a random place of the chain, whatever sentences it cuts.
    """

    example_id: str
    problem: str
    sentence: int
    token: int
    n_tokens: int
    importance: float
    control: float


def suppression_importance(
    model: Model, examples: Sequence[Example], *, temperature: float = 1.0, seed: int = 0
) -> list[Importance]:
    """Importance of every sentence that has tokens after it, by a boolean causal mask (see `suppression_mask`).

    Args:
        examples: of `interp.tasks.cot.chains.examples`. seed: of the control's places.
    Raises:
        ValueError: a model with layers that do not attend in full (a mask of our own would take their windows away), an
            attention implementation that takes no such mask, an example without chain, a prompt too long.
        RuntimeError: a causal mask given by us changes the logits of this model: its masks mean something else.
    """
    if any(layer.kind != "full_attention" for layer in model.layout.layers):
        kinds = ", ".join(sorted({layer.kind for layer in model.layout.layers}))
        raise ValueError(f"suppressed attention needs full attention in every layer, got {kinds}.")
    out: list[Importance] = []
    for k, example in enumerate(examples):
        prompt = render(example, model.tokenizer, max_length=context_length(model))
        ids = torch.tensor(prompt.ids, device=model.device)
        if k == 0:
            _check_causal(model, ids)
        every = chain_sentences(example, prompt)
        some = [s for s in every if s.token_end < len(ids)]
        controls = _windows(some, every, len(ids), random.Random(f"{seed}/{example.id}"))
        spans = [(s.token_start, s.token_end) for s in some]
        found = span_importances(model.causal_lm, ids, [*spans, *controls], temperature=temperature)
        problem = example.groups.get("problem", example.id)
        out += [
            Importance(example.id, problem, s.index, s.boundary, s.token_end - s.token_start, value, control)
            for s, value, control in zip(some, found, found[len(some) :], strict=False)
        ]
    return out


def _windows(
    some: Sequence[ChainSentence], every: Sequence[ChainSentence], n: int, rng: random.Random
) -> list[tuple[int, int]]:
    """One run of tokens per sentence, as long as it, anywhere in the chain that leaves a token after it."""
    out = []
    for sentence in some:
        size, first = sentence.token_end - sentence.token_start, every[0].token_start
        start = rng.randint(first, max(first, n - 1 - size))
        out.append((start, start + size))
    return out


def _check_causal(model: Model, ids: torch.Tensor) -> None:
    """A causal mask of ours must give what the model gives without any: else its masks are read otherwise."""
    ours = masked_logp(model.causal_lm, ids, torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device).tril())
    plain: Any = model.causal_lm
    with torch.no_grad():
        theirs = plain(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    limit = LEAK if model.dtype == torch.float32 else 0.5  # 8 bits of mantissa on logits of tens
    if float((ours - theirs).abs().max()) > limit:
        raise RuntimeError(f"{model.name}: a causal mask changes its logits, so suppression would mean something else.")


@dataclass(frozen=True)
class Resampled:
    """Importance of one sentence by rollouts. `found` is None, and `status` says why, where too few could be used."""

    example_id: str
    problem: str
    sentence: int
    found: RolloutImportance | None
    status: str = "ok"

    def row(self) -> dict[str, Any]:
        """As one flat row of a table."""
        head = {"example_id": self.example_id, "problem": self.problem, "sentence": self.sentence}
        return head | (asdict(self.found) if self.found else {}) | {"status": self.status}


def resampling_importance(
    model: Model,
    examples: Sequence[Example],
    *,
    n: int,
    temperature: float = 0.6,
    seed: int = 0,
    max_new_tokens: int = 256,
    counterfactual: bool = False,
    is_other: Callable[[str, str], bool] = says_something_else,
    parse: Parse = cot.parse,
) -> list[Resampled]:
    """Importance of every sentence: KL of the answers of rollouts from its start against rollouts from its end.

    Rollouts from the end of one sentence are those from the start of the next. A rollout without an answer has the
    answer "(none)".

    Args:
        n: rollouts per cut; the source takes about 100. seed: of sampling and of the intervals.
        counterfactual: of the rollouts from the start, only those whose first sentence `is_other` than the original.
    Raises:
        ValueError: as `continuations`.
    Source: thought-anchors, resampling and counterfactual importance.
    """
    cuts = {e.id: range(len(kept_ranges(e)) + 1) for e in examples}
    rolled = continuations(model, examples, cuts, n=n, temperature=temperature, seed=seed,
                           max_new_tokens=max_new_tokens, parse=parse)  # fmt: skip
    out = []
    for example in examples:
        for k, (a, b) in enumerate(kept_ranges(example)):
            without, kept = rolled[example.id, k], rolled[example.id, k + 1]
            if counterfactual:
                original = str(example.answer)[a:b]
                without = [r for r in without if is_other(_first_sentence(r), original)]
            problem = example.groups.get("problem", example.id)
            if len(without) < 2:
                status = f"{len(without)} of {n} rollouts say something else"
                out.append(Resampled(example.id, problem, k, None, status))
                continue
            gold = str(example.label)
            left, right = (_answers(side, gold) for side in (without, kept))
            out.append(Resampled(example.id, problem, k, rollout_importance(left, right, gold, seed=seed)))
    return out


def kept_ranges(example: Example) -> Sequence[tuple[int, int]]:
    """Character ranges of the sentences of a chain; none where the example has no chain."""
    ranges: Any = example.metadata.get("sentences", ())
    return ranges


def _answers(rollouts: Sequence[Rollout], gold: str) -> list[str]:
    """Answers, those that equal the gold one in its spelling."""
    said = [r.answer or UNANSWERED for r in rollouts]
    return [gold if cot.same_answer(answer, gold) else answer for answer in said]


def _first_sentence(rollout: Rollout) -> str:
    ranges = split_sentences(rollout.text)
    return rollout.text[slice(*ranges[0])] if ranges else rollout.text
