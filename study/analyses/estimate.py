"""What a step will cost: tokens from the tokenizer, parameters and layers from the configuration, seconds from here.

A pass over a prompt costs its tokens. A row of a sweep shares the prompt's prefix and joins at the layer it changes:

    row tokens = sum over rows of  (n_layers - layer) / n_layers · tokens from the first changed one to the end

so that the time follows arms, strengths, layers and prompt lengths. Seconds are a share of what a matrix product
reaches on this machine, or, with `study plan --measure`, what two items took (`study.run.measure`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from study.analyses.shapes import skeleton_of

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.prompt import Example, Prompt
    from study.analyses.base import Work
    from study.config.sections import Study

_SHARE_OF_PEAK = 0.4  # of what a large matrix product reaches; a row's token takes about as long as a prompt's
_SHARE_WHEN_WRITING = 0.02  # one token per row and pass: memory, not arithmetic, is the limit


@dataclass(frozen=True)
class Rates:
    """Seconds per token: of prompts, of rows (in passes through the whole model), and of what is written."""

    prompt: float
    row: float
    written: float


def size_of(study: Study, checkpoint: Checkpoint) -> int:
    """Parameters of a checkpoint's base, adapter left out."""
    return sum(p.numel() for p in skeleton_of(study, checkpoint).module.parameters())


def largest_of(study: Study, members: Iterable[Checkpoint]) -> int:
    """Parameters of the largest base."""
    return max(size_of(study, member) for member in members)


def prompts_of(study: Study, checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Prompt]:
    """The examples as this checkpoint reads them."""
    from interp.prompt import render

    tokenizer = skeleton_of(study, checkpoint).tokenizer
    return [render(example, tokenizer) for example in examples]


def prompt_tokens(study: Study, checkpoint: Checkpoint, examples: Sequence[Example]) -> int:
    """Tokens of all prompts as this checkpoint's tokenizer counts them."""
    return sum(len(prompt.ids) for prompt in prompts_of(study, checkpoint, examples))


def changed_tokens(prompts: Sequence[Prompt], positions: str) -> int:
    """Tokens that a row computes anew, over all prompts: from the first that is changed to the end.

    Raises:
        ValueError: a rule that yields no token of some prompt.
    """
    from interp.positions import parse_positions

    rules = parse_positions(positions)
    return sum(len(prompt.ids) - min(rule.resolve(prompt)[0] for rule in rules) for prompt in prompts)


def passes_above(layers: Iterable[int], n_layers: int) -> float:
    """Passes through the whole model that one row per entry of `layers` amounts to, each from its layer on."""
    return sum((n_layers - layer) / n_layers for layer in layers)


@cache
def machine_flops() -> float:
    """Multiply-adds times two per second that a large product reaches here, on the GPU where there is one."""
    import time

    import torch

    is_gpu = torch.cuda.is_available()
    n, device, dtype = (8192, "cuda", torch.bfloat16) if is_gpu else (512, "cpu", torch.float32)
    matrix = torch.ones(n, n, device=device, dtype=dtype)
    times = []
    for _ in range(20):  # the best of many: another process may hold the core
        began = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - began)
    return 2.0 * n**3 / min(times)


def seconds(work: Work, rates: Rates | None = None) -> float:
    """Rough time of a step: its tokens at measured rates, or 2 · parameters operations each, at a share of the peak."""
    if not work.n_parameters:
        return 0.0
    if rates is None:
        per_token = 2.0 * work.n_parameters / machine_flops()
        rates = Rates(per_token / _SHARE_OF_PEAK, per_token / _SHARE_OF_PEAK, per_token / _SHARE_WHEN_WRITING)
    return work.tokens * rates.prompt + work.row_tokens * rates.row + work.tokens_written * rates.written
