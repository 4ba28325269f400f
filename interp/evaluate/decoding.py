"""Options of decoding, and a reply read off the tokens that a model wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interp.memory import MOST_TOKENS, sizes_of
from interp.model import Model
from interp.template import PLAIN_STOP, is_plain

TOKENS_PER_BATCH = MOST_TOKENS


@dataclass(frozen=True)
class Decoding:
    """Options of generation and label scoring.

    Args:
        generate: let the model write its answer; False only scores the task's labels after the prompt.
        score_labels: log-probabilities of the task's label strings, after the model's own reasoning if it generated.
        max_new_tokens: None uses the task's own limit.
        temperature: 0 is greedy; above 0 samples `n_samples` answers per example.
        seed: seed of sampling; a batch draws from (seed, index of its first example), so an interrupted run draws the
            same numbers.
        thinking: passed to the chat template unless None.
        target_delimiter: separator between a label and a text before it that does not end in whitespace; see
            `interp.prompt.joined`.
        tokens_per_batch: prompt and new tokens of one batch, including padding and all samples; None:
            see `batch_tokens`.
    Raises:
        ValueError: nothing to do, a count below one, or a temperature that is negative or not finite.
    """

    generate: bool = True
    score_labels: bool = True
    max_new_tokens: int | None = None
    temperature: float = 0.0
    n_samples: int = 1
    seed: int = 0
    thinking: bool | None = None
    target_delimiter: str = " "
    tokens_per_batch: int | None = None

    def __post_init__(self) -> None:
        if not (self.generate or self.score_labels):
            raise ValueError("decoding: generate and score_labels are both off, so there is nothing to do.")
        longest = 1 if self.max_new_tokens is None else self.max_new_tokens
        batch = TOKENS_PER_BATCH if self.tokens_per_batch is None else self.tokens_per_batch
        if min(self.n_samples, batch, longest) < 1 or not 0 <= self.temperature < math.inf:
            raise ValueError(
                "decoding: expected n_samples, tokens_per_batch and max_new_tokens of at least 1 and a finite "
                f"temperature of at least 0, got {self.n_samples}, {batch}, {self.max_new_tokens} and "
                f"{self.temperature}."
            )
        if self.n_samples > 1 and self.temperature == 0:
            raise ValueError(
                f"decoding: {self.n_samples} samples at temperature 0 would be identical; set a temperature."
            )


def batch_tokens(model: Model, decoding: Decoding) -> int:
    """Tokens of one batch: as asked for, else what the model's size and free memory give (`interp.memory.Sizes`).

    Sampled replies draw from (seed, first example of the batch), so their batches must not depend on the
    machine: 16,384.
    """
    if decoding.tokens_per_batch is not None:
        return decoding.tokens_per_batch
    return sizes_of(model).batch_tokens if decoding.temperature == 0 else TOKENS_PER_BATCH


@dataclass(frozen=True)
class Reply:
    """A reply without the end-of-turn token, and whether it ended by itself."""

    text: str
    n_tokens: int
    finished: bool


def end_tokens(model: Model) -> frozenset[int]:
    """Token ids that end a turn: those of the tokenizer and of the checkpoint's generation config."""
    config = getattr(model.causal_lm, "generation_config", None)
    declared = getattr(config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    ends = frozenset(int(i) for i in (*listed, model.tokenizer.eos_token_id) if i is not None)
    if not ends:
        raise ValueError("neither tokenizer nor generation config has an end-of-turn token; set tokenizer.eos_token.")
    return ends


def reply_of(model: Model, tail: Sequence[int], ends: frozenset[int]) -> Reply:
    """The reply in the new tokens of a row, which may continue after the end of the reply."""
    stop = next((i for i, token in enumerate(tail) if token in ends), None)
    kept = tail if stop is None else tail[:stop]
    text = model.tokenizer.decode(kept, skip_special_tokens=False)
    if is_plain(model.tokenizer) and PLAIN_STOP in text:  # it has begun to write the next turn
        text = text[: text.index(PLAIN_STOP)]
        lengths = (i for i in range(len(kept)) if len(model.tokenizer.decode(kept[: i + 1])) > len(text))
        return Reply(text.rstrip("\n"), next(lengths, len(kept)), True)
    return Reply(text, len(kept), stop is not None)
