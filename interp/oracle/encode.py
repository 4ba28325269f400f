"""Items as token ids with slots and loss positions; the tokens of a prompt must be the first of its whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.oracle.items import TrainItem
from interp.oracle.prompt import OraclePrompt, render_question, turn_end
from interp.oracle.spec import OracleSpec


@dataclass(frozen=True)
class Encoded:
    """One item as the oracle sees it.

    Attributes:
        ids: prompt, answer, and the end of the turn (what generation must learn to stop with).
        n_prompt: tokens before the answer; they carry no loss.
        slots: token of each placeholder.
        sources: (block, token of the context) of each slot's vector.
    """

    ids: tuple[int, ...]
    n_prompt: int
    slots: tuple[int, ...]
    sources: tuple[tuple[int, int], ...]

    @property
    def n_answer(self) -> int:
        return len(self.ids) - self.n_prompt


class Encoder:
    """Encodes items for one spec and tokenizer; keeps the prompts of questions that it has seen."""

    def __init__(self, spec: OracleSpec, tokenizer: Any) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._prompts: dict[tuple[object, ...], OraclePrompt] = {}
        self._closing = turn_end(tokenizer)

    def __call__(self, items: Sequence[TrainItem]) -> list[Encoded]:
        """One `Encoded` per item.

        Raises:
            ValueError: as `render_question`; a prompt whose tokens are not the first tokens of prompt and answer, so
                that the mask of the loss would be off; the item is named.
        """
        prompts = [self._prompt(item) for item in items]
        texts = [prompt.text + item.answer + self._closing for prompt, item in zip(prompts, items, strict=True)]
        whole = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [_joined(item, p, ids, self.spec) for item, p, ids in zip(items, prompts, whole, strict=True)]

    def _prompt(self, item: TrainItem) -> OraclePrompt:
        key = (item.layers, len(item.positions), item.question)
        if key not in self._prompts:
            counts = [len(item.positions)] * len(item.layers)
            self._prompts[key] = render_question(
                self.spec, self.tokenizer, layers=item.layers, counts=counts, question=item.question
            )
        return self._prompts[key]


def _joined(item: TrainItem, prompt: OraclePrompt, ids: Sequence[int], spec: OracleSpec) -> Encoded:
    n = len(prompt.ids)
    if tuple(ids[:n]) != prompt.ids or len(ids) <= n:
        at = next((k for k, (a, b) in enumerate(zip(prompt.ids, ids, strict=False)) if a != b), min(n, len(ids)))
        raise ValueError(
            f"item of task {item.task!r}, problem {item.problem!r}: the {n} tokens of the prompt are not the first "
            f"tokens of prompt and answer (they differ at token {at} of {n}), so the loss would cover other tokens. "
            f"The answer {item.answer[:20]!r} merges with the prompt: strip leading blanks from it."
        )
    seen: dict[int, int] = {}
    sources = []
    for layer in prompt.layers:
        sources.append((layer, item.positions[seen.setdefault(layer, 0)]))
        seen[layer] += 1
    return Encoded(tuple(ids), n, prompt.slots, tuple(sources))


@dataclass(frozen=True)
class AnswerBatch:
    """Right-padded encoded items; `is_answer[b, t]` says that ids[b, t] is predicted under the loss."""

    ids: Int[Tensor, "batch pos"]
    is_answer: Bool[Tensor, "batch pos"]
    slots: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...] | None = None

    @classmethod
    def of(cls, encoded: Sequence[Encoded], *, pad_id: int, device: torch.device) -> AnswerBatch:
        """The batch of some items. Padding on the right needs no mask: attention is causal."""
        width = max(len(e.ids) for e in encoded)
        ids = torch.full((len(encoded), width), pad_id)
        is_answer = torch.zeros(len(encoded), width, dtype=torch.bool)
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
            is_answer[row, e.n_prompt : len(e.ids)] = True
        return cls(
            ids.to(device), is_answer.to(device), tuple(e.slots for e in encoded), tuple(len(e.ids) for e in encoded)
        )
