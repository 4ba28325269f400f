"""Importance of the sentences of a chain: by suppressed attention, and by rollouts sampled with and without them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch

from interp.evaluate import Decoding, evaluate, plan_batches
from interp.evaluate.labels import context_length
from interp.model import Model
from interp.progress import parts, track
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
from interp.tasks.protocol import EvaluatedTask

LEAK = 1e-3  # nats; a mcut_of pass that should change nothing may differ by rounding only
UNANSWERED = "(none)"


@dataclass(frozen=True)
class Importance:
    """Effect of one sentence on the tokens after it, by suppressed attention.

    Attributes:
        importance: mean KL in nats per later token; the last sentence of a prompt has none.
        control:    the same for a run of as many tokens at a random place of the chain, across sentence ends.
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
        examples: examples from `interp.tasks.cot.chains.examples`.
        seed: seed of the control's positions.
    Raises:
        ValueError: a layer without full attention (our mask would remove its window), an attention implementation
            without boolean masks, an example without a chain, or a prompt that is too long.
        RuntimeError: an explicit causal mask changes the logits of this model, so it reads masks in another way.
    """
    if any(layer.kind != "full_attention" for layer in model.layout.layers):
        kinds = ", ".join(sorted({layer.kind for layer in model.layout.layers}))
        raise ValueError(f"suppressed attention: expected full attention in every layer, got {kinds}.")
    out: list[Importance] = []
    for k, example in enumerate(parts(examples)):
        prompt = render(example, model.tokenizer, max_length=context_length(model))
        ids = torch.tensor(prompt.ids, device=model.device)
        if k == 0:
            _check_causal(model, ids)
        every = chain_sentences(example, prompt)
        some = [s for s in every if s.token_end < len(ids)]
        controls = _windows(some, every, len(ids), random.Random(f"{seed}/{example.id}"))
        spans = [(s.token_start, s.token_end) for s in some]
        values = span_importances(model.causal_lm, ids, [*spans, *controls], temperature=temperature)
        problem = example.groups.get("problem", example.id)
        out += [
            Importance(example.id, problem, s.index, s.boundary, s.token_end - s.token_start, value, control)
            for s, value, control in zip(some, values, values[len(some) :], strict=False)
        ]
    return out


def _windows(
    some: Sequence[ChainSentence], every: Sequence[ChainSentence], n: int, rng: random.Random
) -> list[tuple[int, int]]:
    """A random run of tokens per sentence, of its length, that leaves at least one token after it."""
    out = []
    for sentence in some:
        size, first = sentence.token_end - sentence.token_start, every[0].token_start
        start = rng.randint(first, max(first, n - 1 - size))
        out.append((start, start + size))
    return out


def _check_causal(model: Model, ids: torch.Tensor) -> None:
    """Raise unless an explicit causal mask gives the same logits as no mask."""
    ours = masked_logp(model.causal_lm, ids, torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device).tril())
    plain: Any = model.causal_lm
    with torch.no_grad():
        theirs = plain(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
    limit = LEAK if model.dtype == torch.float32 else 0.5  # 8 bits of mantissa on logits of tens
    if float((ours - theirs).abs().max()) > limit:
        raise RuntimeError(
            f"{model.name}: an explicit causal mask changes its logits, so it handles masks differently."
        )


@dataclass(frozen=True)
class Resampled:
    """Importance of one sentence by rollouts; `found` is None, with the reason in `status`, if too few were usable."""

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
    """Importance of every sentence: KL between the answers of rollouts from its start and of rollouts from its end.

    Rollouts from the end of one sentence are those from the start of the next. A rollout without an answer has the
    answer "(none)".

    Args:
        n: rollouts per cut; the source uses about 100.
        seed: seed of sampling and of the intervals.
        counterfactual: use only rollouts from the start whose first sentence `is_other` than the original.
    Raises:
        ValueError: as `continuations`.
    Source: thought-anchors, resampling and counterfactual importance.
    """
    cuts = {e.id: range(len(kept_ranges(e)) + 1) for e in examples}
    rolled = continuations(
        model, examples, cuts, n=n, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens, parse=parse
    )
    out = []
    for example in examples:
        for k, (a, b) in enumerate(kept_ranges(example)):
            without, kept = rolled[example.id, k], rolled[example.id, k + 1]
            if counterfactual:
                original = str(example.answer)[a:b]
                without = [r for r in without if is_other(_first_sentence(r), original)]
            problem = example.groups.get("problem", example.id)
            if len(without) < 2:
                status = f"{len(without)} of {n} rollouts give a different answer"
                out.append(Resampled(example.id, problem, k, None, status))
                continue
            gold = str(example.label)
            left, right = (_answers(side, gold) for side in (without, kept))
            out.append(Resampled(example.id, problem, k, rollout_importance(left, right, gold, seed=seed)))
    return out


def kept_ranges(example: Example) -> Sequence[tuple[int, int]]:
    """Character ranges of the sentences of a chain; empty if the example has no chain."""
    ranges: Any = example.metadata.get("sentences", ())
    return ranges


def _answers(rollouts: Sequence[Rollout], gold: str) -> list[str]:
    """Answers of rollouts; those equal to the gold one are spelled like it."""
    answers = [r.answer or UNANSWERED for r in rollouts]
    return [gold if cot.same_answer(answer, gold) else answer for answer in answers]


def _first_sentence(rollout: Rollout) -> str:
    ranges = split_sentences(rollout.text)
    return rollout.text[slice(*ranges[0])] if ranges else rollout.text


Parse = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Rollout:
    """One sampled continuation.

    Attributes:
        text:   text that the model wrote from the cut on, without the end-of-turn token and tokens of the prompt.
        answer: parsed from the kept part of the chain and the text together; None if there is none.
        finished: whether it ended before `max_new_tokens`.
    """

    text: str
    answer: str | None
    finished: bool


def continuations(
    model: Model,
    examples: Sequence[Example],
    cuts: Mapping[str, Sequence[int]],
    *,
    n: int,
    temperature: float = 0.6,
    seed: int = 0,
    max_new_tokens: int = 256,
    tokens_per_batch: int = 16_384,
    parse: Parse = cot.parse,
) -> dict[tuple[str, int], list[Rollout]]:
    """`n` continuations from each cut: (example id, number of sentences kept) -> rollouts.

    A cut keeps the first sentences of the chain without trailing whitespace; 0 keeps only the question. Rows are padded
    on the left, so all replies begin at the same column and contain no token of their prompt.

    Args:
        examples: examples from `interp.tasks.cot.chains.examples`.
        cuts: example id -> numbers of kept sentences.
        parse: reads the answer of a chain; pass your own for formats that `interp.tasks.cot.read` does not know.
    Raises:
        ValueError: a cut outside the chain, fewer than 2 continuations; and as `interp.evaluate.evaluate`.
    """
    if n < 2:
        raise ValueError(f"n: expected 2 rollouts or more (their spread is needed), got {n}.")
    cut_of: dict[str, tuple[str, int, str]] = {}
    prefixed = []
    for example in examples:
        for kept in cuts.get(example.id, ()):
            name = f"{example.id}/{kept}"
            text = kept_text(example, kept)
            cut_of[name] = (example.id, kept, text)
            prefixed.append(replace(example, id=name, answer=text or None))
    decoding = Decoding(
        score_labels=False,
        temperature=temperature,
        n_samples=n,
        seed=seed,
        max_new_tokens=max_new_tokens,
        tokens_per_batch=tokens_per_batch,
    )
    out: dict[tuple[str, int], list[Rollout]] = {(name, kept): [] for name, kept, _ in cut_of.values()}
    task = cast("EvaluatedTask", cot)
    plan = plan_batches(model, task, prefixed, decoding)
    sizes = [(len(batch), plan.work(k)) for k, batch in enumerate(plan.batches)]
    with track("rollouts", len(prefixed), unit="cuts", work=sum(work for _, work in sizes)) as bar:
        for _, answers in bar.over(evaluate(model, task, prefixed, decoding=decoding, plan=plan), sizes):
            for answer in answers:
                name, kept, before = cut_of[answer.example_id]
                text = answer.text or ""
                out[name, kept].append(Rollout(text, parse(before + text), answer.finished))
    return out


def kept_text(example: Example, kept: int) -> str:
    """The chain up to the end of its first `kept` sentences.

    Raises:
        ValueError: the example has no chain, or fewer sentences.
    """
    ranges = example.metadata.get("sentences")
    if example.answer is None or not isinstance(ranges, Sequence):
        do = "Read the corpus with interp.tasks.cot.chains.examples."
        raise ValueError(f"example {example.id!r} carries no chain of thought. {do}")
    if not 0 <= kept <= len(ranges):
        raise ValueError(f"example {example.id!r}: expected to keep 0-{len(ranges)} sentences, got {kept}.")
    return example.answer[: ranges[kept - 1][1]].rstrip() if kept else ""
