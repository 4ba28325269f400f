"""The corpus as a task whose examples carry their chain: `diptych cache --task interp.tasks.cot.chains`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.prompt import Example, Prompt
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
