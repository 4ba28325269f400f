"""Texts, adapters and plain loops for checks on real checkpoints."""

from __future__ import annotations

import torch
from torch import nn

from interp.model import Model

NAMES = ("smollm2", "qwen", "gemma")
TEXTS = (
    "Paris is the capital of France, and Rome is the capital of",
    "When Mary and John went to the store, John gave a drink to",
    "def add(a, b):\n    return a +",
    "The nurse checked the chart twice before she signed the form. The doctor, who had been waiting in the corridor "
    "since noon, asked whether the second signature was missing. It was not; the record was",
    "Step 1: the supervisor seals the crate. Step 2: a clerk writes the date on the label. In the report, the label "
    "was dated before the crate was sealed, so the second step was done",
)


def texts_of(model: Model) -> list[list[int]]:
    """Token ids of `TEXTS`, with whatever special tokens the tokenizer puts before a text."""
    return [list(model.tokenizer(text)["input_ids"]) for text in TEXTS]


def with_lora(module: nn.Module, *, seed: int = 7, size: float = 0.05) -> nn.Module:
    """`module` with a LoRA adapter on every linear layer whose output moves by about `size` of the layer's own."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(module, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.copy_(size * torch.randn(p.shape, generator=generator))
    return wrapped.eval().requires_grad_(False)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value: activations of real models span four orders of magnitude."""
    theirs = theirs.reshape(ours.shape).double()
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())
