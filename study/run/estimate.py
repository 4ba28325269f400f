"""What a step will cost: tokens from the tokenizer, parameters from the configuration, seconds from this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.prompt import Example
    from study.run.step import Work

_SHARE_OF_PEAK = 0.4  # of what a large matrix product reaches; measured on no particular machine
_SHARE_WHEN_WRITING = 0.02  # one token per row and pass: memory, not arithmetic, is the limit


@cache
def _skeleton(checkpoint: Checkpoint) -> Any:
    from interp.loading import open_skeleton

    return open_skeleton(checkpoint)


def size_of(checkpoint: Checkpoint) -> int:
    """Parameters of a checkpoint's base, adapter left out."""
    return sum(p.numel() for p in _skeleton(checkpoint).module.parameters())


def prompt_tokens(checkpoint: Checkpoint, examples: Sequence[Example]) -> int:
    """Tokens of all prompts as this checkpoint's tokenizer counts them."""
    from interp.prompt import render

    tokenizer = _skeleton(checkpoint).tokenizer
    return sum(len(render(example, tokenizer).ids) for example in examples)


@cache
def machine_flops() -> float:
    """Multiply-adds times two per second that a large product reaches here, on the GPU where there is one."""
    import time

    import torch

    is_gpu = torch.cuda.is_available()
    n, device, dtype = (8192, "cuda", torch.bfloat16) if is_gpu else (768, "cpu", torch.float32)
    matrix = torch.ones(n, n, device=device, dtype=dtype)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - began)
    return 2.0 * n**3 / min(times)


def seconds(work: Work) -> float:
    """Rough time of a step: 2 x parameters x tokens, at a share of what a matrix product reaches here."""
    if not work.n_parameters:
        return 0.0
    per_token = 2.0 * work.n_parameters / machine_flops()
    return per_token * (work.tokens / _SHARE_OF_PEAK + work.tokens_written / _SHARE_WHEN_WRITING)
