"""Documents as padded tensors: ids and loss weights, and the hash of everything that was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks.procedural.documents import Document
from interp.tasks.procedural.replies import HARD_TAGS
from study.embedded.tokenizer import END, START, STOP

POOL = 8  # batches drawn together and sorted by length, which saves a fifth of the padding


@dataclass(frozen=True)
class Batch:
    """Right-padded documents.

    Attributes:
        ids: [batch, pos]; weights: [batch, pos], the loss weight of predicting ids[:, pos]; 0 on padding.
        n_prompt: tokens of each prompt, generation prompt included.
        labels: gold label word of each document.
    """

    ids: Int[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]
    n_prompt: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def n_tokens(self) -> int:
        return self.ids.numel()


def prompt_words(content: str) -> list[str]:
    """The words of a chat prompt with one user message, up to the generation prompt."""
    return [START, "user", *content.split(), STOP, START, "assistant"]


def encode(
    document: Document, words: Mapping[str, int], *, hard_weight: float, prompt_weight: float
) -> tuple[list[int], list[float], int]:
    """ids, loss weights and prompt length of one document; the reply ends in <|im_end|>."""
    prompt, answer = prompt_words(document.prompt), [*document.answer.split(), STOP]
    weights = [prompt_weight] * len(prompt)
    weights += [hard_weight if tag in HARD_TAGS else 1.0 for tag in document.tags] + [1.0]
    return [words[word] for word in (*prompt, *answer)], weights, len(prompt)


def collate(
    documents: Sequence[Document],
    words: Mapping[str, int],
    *,
    hard_weight: float = 1.0,
    prompt_weight: float = 0.0,
) -> Batch:
    """One batch."""
    rows = [encode(d, words, hard_weight=hard_weight, prompt_weight=prompt_weight) for d in documents]
    width = max(len(ids) for ids, _, _ in rows)
    ids = torch.full((len(rows), width), words[END])
    weights = torch.zeros(len(rows), width)
    for row, (tokens, weight, _) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(weight)] = torch.tensor(weight)
    return Batch(ids, weights, tuple(n for _, _, n in rows), tuple(d.label for d in documents))


class Stream:
    """Endless batches of seeded documents; `sha256` covers every text that was handed out.

    Owns its random generator: the n-th batch depends on the seed and n alone.
    """

    def __init__(self, draw: Callable[..., list[Document]], seed: str, batch_size: int, **options: object) -> None:
        self._draw, self._rng, self._size, self._options = draw, Random(seed), batch_size, options
        self._hash = hashlib.sha256()

    def batches(self) -> Iterator[list[Document]]:
        """Lists of `batch_size` documents of similar length, in random order."""
        while True:
            pool = self._draw(self._rng, self._size * POOL, **self._options)
            pool.sort(key=lambda d: len(d.prompt.split()) + len(d.tags))
            order = self._rng.sample(range(POOL), POOL)
            for k in order:
                out = pool[k * self._size : (k + 1) * self._size]
                for document in out:
                    self._hash.update(f"{document.prompt}\n{document.answer}\n".encode())
                yield out

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
