"""Rollouts: how a model goes on from a point of a chain, sampled, with the answer that each one reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from interp.evaluate import Decoding, evaluate
from interp.model import Model
from interp.prompt import Example
from interp.tasks import cot

Parse = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Rollout:
    """One sampled continuation.

    Attributes:
        text:   what the model wrote, from the cut on, without the end-of-turn token and without a token of the prompt.
        answer: read from the kept part of the chain and the text together; None where there is none.
        finished: it ended by itself.
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

    A cut keeps the first sentences of the chain, blanks after them left to the model; 0 keeps the question alone. Rows
    are padded on the left, so a reply begins at the same column in all of them and holds no token of its prompt.

    Args:
        examples: of `interp.tasks.cot.chains.examples`. cuts: numbers of kept sentences, by example id.
        parse: reads an answer; of chains in another format than `interp.tasks.cot.read` knows, your own.
    Raises:
        ValueError: a cut outside the chain, fewer than 2 continuations, and as `interp.evaluate.evaluate`.
    """
    if n < 2:
        raise ValueError(f"n: expected 2 rollouts or more, got {n}: one says nothing about their spread.")
    asked: dict[str, tuple[str, int, str]] = {}
    begun = []
    for example in examples:
        for kept in cuts.get(example.id, ()):
            name = f"{example.id}/{kept}"
            text = kept_text(example, kept)
            asked[name] = (example.id, kept, text)
            begun.append(replace(example, id=name, answer=text or None))
    decoding = Decoding(score_labels=False, temperature=temperature, n_samples=n, seed=seed,
                        max_new_tokens=max_new_tokens, tokens_per_batch=tokens_per_batch)  # fmt: skip
    out: dict[tuple[str, int], list[Rollout]] = {(name, kept): [] for name, kept, _ in asked.values()}
    for _, answers in evaluate(model, cot, begun, decoding=decoding):  # pyright: ignore[reportArgumentType]
        for answer in answers:
            name, kept, before = asked[answer.example_id]
            text = answer.text or ""
            out[name, kept].append(Rollout(text, parse(before + text), answer.finished))
    return out


def kept_text(example: Example, kept: int) -> str:
    """The chain up to the end of its first `kept` sentences.

    Raises:
        ValueError: no chain, or a number of sentences that it does not have.
    """
    ranges = example.metadata.get("sentences")
    if example.answer is None or not isinstance(ranges, Sequence):
        do = "Read the corpus with interp.tasks.cot.chains.examples."
        raise ValueError(f"example {example.id!r} carries no chain of thought. {do}")
    if not 0 <= kept <= len(ranges):
        raise ValueError(f"example {example.id!r}: cannot keep {kept} sentences of {len(ranges)}.")
    return example.answer[: ranges[kept - 1][1]].rstrip() if kept else ""
