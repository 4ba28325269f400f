"""A fresh LoRA for an oracle, on the text decoder of a model that may hold other adapters."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from interp.adapters import name_roles, peft_names
from interp.model import Model
from interp.oracle.recipe import Recipe
from interp.oracle.run import cuda_devices


def add_adapter(model: Model, recipe: Recipe, name: str = "oracle") -> Model:
    """The model with a fresh LoRA of the recipe under the role `name`, seeded; other adapters stay as they are.

    A model without adapters is wrapped, and the wrapper is what is returned.

    Raises:
        ValueError: the role is taken, or PEFT cannot hold it.
    """
    from peft import LoraConfig, get_peft_model

    if name in model.adapters.names or peft_names([name])[name] != name:
        taken = "is on the model already" if name in model.adapters.names else "cannot be a module's name"
        raise ValueError(f"adapter {name!r} {taken}; choose another name for the new oracle.")
    targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, use_rslora=recipe.rslora, bias="none",
        target_modules=_text_only(model, targets), task_type="CAUSAL_LM",
    )  # fmt: skip
    module: Any = model.module
    with torch.random.fork_rng(devices=cuda_devices(model)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        torch.manual_seed(recipe.seed)
        if hasattr(module, "peft_config"):
            module.add_adapter(name, config)
        else:
            module = get_peft_model(module, config, adapter_name=name)
            name_roles(module, {name: name})
    return Model(module, model.tokenizer, checkpoint=model.checkpoint, fingerprint=model.fingerprint)


def _text_only(model: Model, targets: str | list[str]) -> str | list[str]:
    """ "all-linear" confined to the text decoder where the model has linear layers elsewhere (a vision tower)."""
    if targets != "all-linear":
        return targets
    inside = {id(m) for m in model.decoder.modules()} | {id(model.causal_lm.get_output_embeddings())}
    elsewhere = [n for n, m in model.causal_lm.named_modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if not elsewhere:
        return targets
    path = next(n for n, m in model.causal_lm.named_modules() if m is model.decoder)
    leaves = sorted({n.rsplit(".", 1)[-1] for n, m in model.decoder.named_modules() if isinstance(m, nn.Linear)})
    return rf"{path.replace('.', chr(92) + '.')}\..*\.({'|'.join(leaves)})"
