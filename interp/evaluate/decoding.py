"""Options of decoding, and plain greedy decoding or sampling of a left-padded batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from interp.model import Model
from interp.passes import pad
from interp.prompt import Prompt
from interp.template import PLAIN_STOP, is_plain

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True)
class Decoding:
    """Options of generation and label scoring.

    Args:
        generate: let the model write its answer; False only scores the task's labels after the prompt.
        score_labels: log-probabilities of the task's label strings, after the model's own reasoning if it generated.
        max_new_tokens: None uses the task's own limit.
        temperature: 0 is greedy; above 0 samples `n_samples` answers per example.
        seed: of sampling; a batch draws from (seed, place of its first example), so an interrupted run draws the same.
        thinking: passed to the chat template unless None.
        target_delimiter: between a label and a text before it that does not end in a blank; see `interp.prompt.joined`.
        tokens_per_batch: prompt and new tokens of one batch, including padding and all samples.
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
    target_delimiter: str = " "
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
class Reply:
    """A reply without the end-of-turn token, and whether it ended by itself."""

    text: str
    n_tokens: int
    finished: bool


@torch.no_grad()
def generate(
    model: Model, prompts: Sequence[Prompt], decoding: Decoding, new_tokens: int, place: int
) -> list[tuple[int, int, Reply]]:
    """(position in the batch, sample, reply) of every answer.

    Of the checkpoint's own generation config only the end-of-turn tokens are used. Positions are those that
    `generate` derives from the mask: cumsum(mask) - 1, so the first real token has 0 whatever the padding.
    """
    ends = end_tokens(model)
    padded = pad([prompt.ids for prompt in prompts], pad_id=model.pad_id, side="left").to(model.device)
    config = _generation_config(model, decoding, new_tokens, ends)
    with (
        torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
        _without_generation_defaults(model),
    ):
        torch.manual_seed(decoding.seed * 1_000_003 + place)
        write: Any = model.module.generate
        out = write(input_ids=padded.input_ids, attention_mask=padded.attention_mask, generation_config=config)
    tails = out[:, padded.input_ids.shape[1] :].tolist()
    return [
        (k // decoding.n_samples, k % decoding.n_samples, _reply(model, tail, ends)) for k, tail in enumerate(tails)
    ]


def _generation_config(model: Model, decoding: Decoding, new_tokens: int, ends: frozenset[int]) -> Any:
    """Plain greedy decoding, or plain sampling from the whole distribution at the temperature."""
    from transformers import GenerationConfig

    if decoding.temperature > 0:
        way: dict[str, Any] = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
        way |= {"num_return_sequences": decoding.n_samples}
    else:
        way = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None, "num_return_sequences": 1}
    return GenerationConfig(
        max_new_tokens=new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=model.pad_id,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        use_cache=True,
        **way,
    )


@contextmanager
def _without_generation_defaults(model: Model) -> Iterator[None]:
    """Without the checkpoint's generation config, from which `generate` would fill every field that is None."""
    from transformers import GenerationConfig

    own_config = model.causal_lm.generation_config
    model.causal_lm.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.causal_lm.generation_config = own_config


def end_tokens(model: Model) -> frozenset[int]:
    """Token ids that end a turn: those of the tokenizer and of the checkpoint's generation config."""
    config = getattr(model.causal_lm, "generation_config", None)
    declared = getattr(config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    ends = frozenset(int(i) for i in (*listed, model.tokenizer.eos_token_id) if i is not None)
    if not ends:
        raise ValueError("neither tokenizer nor generation config has an end-of-turn token; set tokenizer.eos_token.")
    return ends


def _reply(model: Model, tail: list[int], ends: frozenset[int]) -> Reply:
    stop = next((i for i, token in enumerate(tail) if token in ends), None)
    kept = tail if stop is None else tail[:stop]
    text = model.tokenizer.decode(kept, skip_special_tokens=False)
    if is_plain(model.tokenizer) and PLAIN_STOP in text:  # it has begun to write the next turn
        text = text[: text.index(PLAIN_STOP)]
        lengths = (i for i in range(len(kept)) if len(model.tokenizer.decode(kept[: i + 1])) > len(text))
        return Reply(text.rstrip("\n"), next(lengths, len(kept)), True)
    return Reply(text, len(kept), stop is not None)
