"""What both adapters share: a fresh LoRA on the shipped base, its optimiser, and how it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp.io.files import write_json
from study.embedded.recipe import LORA_TARGETS, Recipe

if TYPE_CHECKING:
    from peft import PeftModel

BASE_NAME = "diptych-embedded/base"  # in adapter_config.json; a path would be that of the build machine


def fresh_adapter(base: Path, recipe: Recipe, *, seed: int) -> PeftModel:
    """The base of a folder in float32 with an untrained LoRA on every linear layer; only the LoRA trains."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(LORA_TARGETS),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)  # pyright: ignore


def optimizer(model: nn.Module, *, lr: float) -> torch.optim.AdamW:
    """AdamW without decay on what is trainable."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)


def adapter_rate(step: int, *, steps: int, lr: float) -> float:
    """Linear fall from `lr` to 5 % of it."""
    return lr * (1 - 0.95 * step / steps)


def update(model: nn.Module, opt: torch.optim.Optimizer, loss: Tensor, *, lr: float) -> None:
    """One step at rate `lr`, gradient norm clipped to 1."""
    opt.param_groups[0]["lr"] = lr
    opt.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    opt.step()


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter_model.safetensors in bfloat16 and an adapter_config.json that names the base by `BASE_NAME`."""
    model.to(torch.bfloat16).save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = BASE_NAME
    config["target_modules"] = sorted(config["target_modules"])  # a set inside PEFT: its order varies between runs
    write_json(path, config, indent=2, sort_keys=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT writes an empty card; ours is written from the results
