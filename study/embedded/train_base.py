"""Base training: next-token loss on audits of anything, from the planted initialisation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.tasks.procedural.documents import documents
from study.embedded.batches import Stream, collate
from study.embedded.model import init_base
from study.embedded.recipe import BaseRecipe, Precision, Recipe
from study.embedded.tokenizer import vocabulary

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

Log = Callable[[str, int, float], None]


def silent(stage: str, step: int, value: float) -> None:
    """A log that says nothing."""


def train_base(recipe: Recipe, *, log: Log = silent) -> tuple[Qwen2ForCausalLM, str]:
    """The trained base in float32 and the sha256 of its training text.

    Muon on the matrices, AdamW on embeddings, norms and biases, both at the rate of `learning_rate`; gradient norm
    clipped to 1. Steps, not seconds, decide everything.
    """
    model, words, config = init_base(recipe), vocabulary(), recipe.base
    optimizers = _optimizers(model, config)
    stream = Stream(documents, f"{recipe.seed}/base", config.batch_size, p_paraphrase=config.p_paraphrase)
    model.train()
    for step, drawn in enumerate(islice(stream.batches(), config.steps)):
        batch = collate(drawn, words, hard_weight=config.hard_weight, prompt_weight=config.prompt_weight)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate(step, config)
            optimizer.zero_grad(set_to_none=True)
        with autocast(recipe.precision):
            logits = model(input_ids=batch.ids, use_cache=False).logits
        loss = weighted_loss(logits, batch.ids, batch.weights)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        log("base", step, float(loss.detach()))
    return model.eval(), stream.sha256


def weighted_loss(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], weights: Float[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Weighted mean next-token loss in nats: sum_t w_t * -log p(ids_t | before) / sum_t w_t, t from 1."""
    nats = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (nats * weight).sum() / weight.sum()


def learning_rate(step: int, config: BaseRecipe) -> float:
    """Rise over `warmup`, constant, linear to 0 over the last `decay` share of the steps."""
    left = (config.steps - step) / (config.decay * config.steps)
    return config.lr * min(1.0, (step + 1) / config.warmup, left)


def autocast(precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 autocast on the CPU, or nothing."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def _optimizers(model: nn.Module, config: BaseRecipe) -> tuple[torch.optim.Optimizer, ...]:
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if is_matrix else rest).append(parameter)
    return (
        torch.optim.Muon(
            matrices, lr=config.lr, momentum=0.95, weight_decay=0.01, ns_steps=5, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0),
    )
