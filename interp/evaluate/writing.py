"""Replies of a batch, greedy or sampled: what prompts share is read once, and rows that have ended leave the batch.

The tokens are those of `transformers.generate` with the same options: greedy ones up to rounding, and sampled ones draw
the same random numbers. Where a hook or a model's cache needs the batch as it is, `generate` itself writes; see
`why_not_narrowed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.evaluate.decoding import Decoding, Reply, end_tokens, reply_of
from interp.evaluate.prefix import Ids, is_hooked, is_spread
from interp.model import Model
from interp.passes import pad
from interp.progress import reached, stage
from interp.prompt import Prompt

_SHARE = 1 / 8
"""Share of ended rows from which a batch is narrowed."""


class Finals:
    """Final hidden states from which each new token was chosen, step by step."""

    def __init__(self) -> None:
        self._steps: list[tuple[Mapping[int, int], Tensor]] = []

    def put(self, rows: Sequence[int], states: Float[Tensor, "row d_model"]) -> None:
        """The states of the next step, one per row of the batch as it is now."""
        self._steps.append(({row: k for k, row in enumerate(rows)}, states))

    def get(self, row: int, step: int) -> Float[Tensor, " d_model"]:
        """The state of `row` after its prompt and its first `step` new tokens."""
        at, states = self._steps[step]
        return states[at[row]]


@dataclass(frozen=True, eq=False)
class Written:
    """One reply: sample `sample` of prompt number `example`.

    Attributes:
        prompt: token ids of the prompt. ids: new tokens, up to the first that ends a turn.
        finals: final hidden states of the batch, where they were kept; `row` is the row of this reply.
    """

    example: int
    sample: int
    reply: Reply
    prompt: Ids
    ids: Ids
    finals: Finals | None = None
    row: int = 0

    def final_after(self, text: Ids) -> Float[Tensor, " d_model"] | None:
        """Final hidden state of the last token of `text`; None unless these are the tokens that the model read."""
        step = len(text) - len(self.prompt)
        if self.finals is None or not 0 <= step < len(self.ids) or text != self.prompt + self.ids[:step]:
            return None
        return self.finals.get(self.row, step)


@torch.no_grad()
def write(
    model: Model,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    new_tokens: int,
    place: int = 0,
    keep_finals: bool = False,
) -> list[Written]:
    """The reply, or the `n_samples` replies, to every prompt.

    Of the checkpoint's own generation config only the end-of-turn tokens are used. Positions count from the first token
    of each prompt, whatever the padding.

    Args:
        new_tokens: longest reply.
        place: index of the first prompt in the whole list; sampling draws from (seed, place).
        keep_finals: keep the final hidden state of every new token, n_tokens x d_model per reply; replies that
            `transformers.generate` wrote have none.
    """
    ends, n = end_tokens(model), decoding.n_samples
    rows = [prompt.ids for prompt in prompts for _ in range(n)]
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(decoding.seed * 1_000_003 + place)
        if why_not_narrowed(model):
            at, finals = list(range(len(rows))), None
            tails = _generated(model, [prompt.ids for prompt in prompts], decoding, new_tokens, ends)
        else:
            # greedy replies to equal prompts are equal
            distinct = rows if decoding.temperature > 0 else list(dict.fromkeys(rows))
            place_of = {ids: k for k, ids in enumerate(distinct)}
            at = list(range(len(rows))) if distinct is rows else [place_of[ids] for ids in rows]
            finals = Finals() if keep_finals else None
            tails = _narrowing(model, distinct, decoding.temperature, new_tokens, ends, finals)
    replies = [reply_of(model, tail, ends) for tail in tails]
    return [
        Written(k // n, k % n, replies[row], ids, tuple(tails[row]), finals, row)
        for k, (ids, row) in enumerate(zip(rows, at, strict=True))
    ]


def why_not_narrowed(model: Model) -> str:
    """Why `transformers.generate` writes the replies of this model as it is now; "" if ended rows leave the batch."""
    from interp.evaluate.kv import can_narrow

    if model.layout.rope.varies:
        return f"rope_type {', '.join(sorted(model.layout.rope.types))} depends on the length of the text"
    if is_hooked(model):
        return "hooks on its modules, which may count rows and passes"
    if is_spread(model):
        return "weights on several devices"
    return "" if can_narrow(model) else "layers whose cache is not one line of keys and values per row"


def _narrowing(
    model: Model, rows: Sequence[Ids], temperature: float, new_tokens: int, ends: frozenset[int], finals: Finals | None
) -> list[list[int]]:
    """New tokens of every row; rows that have ended leave the batch, some at a time."""
    from interp.evaluate.kv import read_prompts

    with stage(0, 0.3):
        batch = read_prompts(model, rows, new_tokens)
    tails: list[list[int]] = [[] for _ in rows]
    has_ended = [False] * len(rows)
    for step in range(new_tokens):
        reached(0.3 + 0.7 * step / new_tokens)
        if finals is not None:
            finals.put(batch.rows, batch.final)
        tokens = _next(model.unembed(batch.final).float(), temperature, batch.rows, len(rows))
        for row, token in zip(batch.rows, tokens.tolist(), strict=True):
            if not has_ended[row]:
                tails[row].append(token)
                has_ended[row] = token in ends
        ended = [k for k, row in enumerate(batch.rows) if has_ended[row]]
        if len(ended) == len(batch.rows) or step == new_tokens - 1:
            break
        if len(ended) >= _SHARE * len(batch.rows):
            tokens = tokens[batch.drop(ended)]
        batch.extend(tokens)
    return tails


def _next(
    logits: Float[Tensor, "row vocab"], temperature: float, rows: Sequence[int], n_rows: int
) -> Int[Tensor, " row"]:
    """The next token of each row of what is left of `n_rows`.

    Random numbers are drawn for the rows that have left, too: the draws of a row depend on its place alone.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    p = logits.new_ones(n_rows, logits.shape[-1])
    p[list(rows)] = (logits / temperature).softmax(dim=-1)
    return torch.multinomial(p, num_samples=1)[list(rows), 0]


def _generated(
    model: Model, prompts: Sequence[Ids], decoding: Decoding, new_tokens: int, ends: frozenset[int]
) -> list[list[int]]:
    """New tokens of every row, padded, as `transformers.generate` writes them; positions are cumsum(mask) - 1."""
    padded = pad(prompts, pad_id=model.pad_id, side="left").to(model.device)
    config = _generation_config(model, decoding, new_tokens, ends)
    steps = token_steps(padded.input_ids.shape[1], new_tokens)
    with _without_generation_defaults(model):
        generate: Any = model.module.generate
        out = generate(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            generation_config=config,
            stopping_criteria=steps,
        )
    tails = out[:, padded.input_ids.shape[1] :].tolist()
    return [tail[: next((i + 1 for i, token in enumerate(tail) if token in ends), len(tail))] for tail in tails]


def token_steps(n_before: int, new_tokens: int) -> Any:
    """Stopping criteria that never stop, and move the progress line with every new token.

    Args:
        n_before: columns of the prompt. new_tokens: longest reply.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Steps(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
            reached((input_ids.shape[1] - n_before) / new_tokens)
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([Steps()])


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
