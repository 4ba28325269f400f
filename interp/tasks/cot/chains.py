"""The corpus as a task whose examples carry their chain: `diptych cache --task interp.tasks.cot.chains`.

Also the sentences of a chain as tokens, and context prediction: questions about the tokens before or after some others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.prompt import Example, Prompt
from interp.tasks.cot.audits import Item
from interp.tasks.cot.loader import GROUP, chain_examples
from interp.tasks.cot.replies import MAX_NEW_TOKENS, parse, read, score

__all__ = ["GROUP", "MAX_NEW_TOKENS", "ChainSentence", "chain_sentences", "examples", "parse", "read", "score"]

examples = chain_examples


@dataclass(frozen=True)
class ChainSentence:
    """One sentence of a teacher-forced chain; `index` is the id that labels refer to, tokens are those of the prompt.

    Attributes:
        start, end: characters in the chain.
        token_start, token_end: first token, and one past the last; the last is the boundary.
    """

    index: int
    start: int
    end: int
    token_start: int
    token_end: int
    text: str

    @property
    def boundary(self) -> int:
        return self.token_end - 1


def chain_sentences(example: Example, prompt: Prompt) -> tuple[ChainSentence, ...]:
    """The sentences of an example's chain as tokens of its prompt.

    Raises:
        ValueError: the example carries no chain.
    """
    ranges = example.metadata.get("sentences")
    if example.answer is None or not isinstance(ranges, Sequence):
        do = "Read the corpus with interp.tasks.cot.chains.examples."
        raise ValueError(f"example {example.id!r} carries no chain of thought. {do}")
    at, out = prompt.spans["answer"][0], []
    for k, (a, b) in enumerate(ranges):
        tokens = prompt.tokens_in(at + a, at + b)
        out.append(ChainSentence(k, a, b, tokens[0], tokens[-1] + 1, example.answer[a:b]))
    return tuple(out)


MAX_POSITIONS, MAX_WORDS = 20, 20
PERCENTS = (25, 50, 75)
_CLOSE = "</think>"


@dataclass(frozen=True)
class ContextItem:
    """One question about contiguous tokens of a chain.

    Attributes:
        positions: token indices of the prompt whose activations are read; the context is cut after the last.
        percent:   depth of the layer that is read.
        direction: "previous" or "next"; question and target are about `k` tokens on that side.
    """

    example_id: str
    problem: str
    positions: tuple[int, ...]
    percent: int
    direction: str
    k: int
    question: str
    target: str
    context: str

    @property
    def item(self) -> Item:
        """As a label that can be audited."""
        return Item(self.problem, self.context, self.target, task=f"context_{self.direction}")


def context_items(
    example: Example, prompt: Prompt, tokenizer: Any, *, n: int, seed: int, percents: Sequence[int] = PERCENTS
) -> list[ContextItem]:
    """`n` questions about random runs of 1 to 20 tokens of the chain: which 1 to 20 tokens precede, or follow, them.

    The chain ends before `</think>`. A run leaves at least one token of the chain on the side that is asked for, and
    never asks for tokens of the question. Decoded text is the target, from the ids that the model reads.

    Args:
        seed: with the example's id, it fixes the items.
    Raises:
        ValueError: no chain, or one of fewer than 3 tokens.
    Source: context prediction of the activation-oracle v2 corpora (k and K of 1-20, layers at 25, 50 and 75 %).
    """
    start, end = _chain_tokens(example, prompt)
    if end - start < 3:
        raise ValueError(
            f"example {example.id!r}: a chain of {end - start} tokens is too short to ask about; at least 3 are needed."
        )
    rng = random.Random(f"{seed}/{example.id}")
    problem = example.groups.get("problem", example.id)
    return [_one(rng, example.id, problem, prompt, tokenizer, start, end, rng.choice(list(percents))) for _ in range(n)]


def _chain_tokens(example: Example, prompt: Prompt) -> tuple[int, int]:
    if "answer" not in prompt.spans:
        raise ValueError(f"example {example.id!r} carries no chain. Read it with interp.tasks.cot.chains.examples.")
    left, right = prompt.spans["answer"]
    cut = prompt.text.find(_CLOSE, left)
    tokens = prompt.tokens_in(left, cut if cut > left else right)
    return tokens[0], tokens[-1] + 1


def _one(
    rng: random.Random, name: str, problem: str, prompt: Prompt, tokenizer: Any, start: int, end: int, percent: int
) -> ContextItem:
    direction = rng.choice(("previous", "next"))
    size = rng.randint(1, min(MAX_POSITIONS, end - start - 1))
    if direction == "previous":
        first = rng.randint(start + 1, end - size)
        k = rng.randint(1, min(MAX_WORDS, first - start))
        target_ids = prompt.ids[first - k : first]
    else:
        first = rng.randint(start, end - size - 1)
        k = rng.randint(1, min(MAX_WORDS, end - first - size))
        target_ids = prompt.ids[first + size : first + size + k]
    what = f"previous {k} tokens before this" if direction == "previous" else f"next {k} tokens after this"
    positions = tuple(range(first, first + size))
    read = ",".join(map(str, prompt.ids[: positions[-1] + 1]))
    context = hashlib.sha256(f"{read}/{positions}/{percent}".encode()).hexdigest()[:24]
    return ContextItem(
        name,
        problem,
        positions,
        percent,
        direction,
        k,
        f"Can you say the {what}?",
        tokenizer.decode(list(target_ids)),
        context,
    )
