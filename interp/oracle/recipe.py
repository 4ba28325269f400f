"""The recipe of a training run: all its numbers in one frozen dataclass, and its learning rate schedule."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from interp.io.read import checked

_NO_EFFECT = ("save_every", "gradient_checkpointing", "micro_batch")  # fields that do not change the weights


@dataclass(frozen=True)
class Recipe:
    """Training of one oracle adapter. The defaults are those of the original 8B oracles.

    Attributes:
        rank, alpha, dropout: parameters of the LoRA; its weights are float32, regardless of the model's dtype.
        rslora: scale by alpha / sqrt(rank) instead of alpha / rank.
        targets: "all-linear", or names of linear layers.
        lr, weight_decay, warmup, clip: AdamW; the rate rises linearly over the first `warmup` share of the steps, then
            falls linearly to 0; `clip` is the largest gradient norm.
        batch_size: items per step, over all processes.
        micro_batch: items per forward pass; None runs a process's whole part at once. The gradient is the same.
        epochs: passes over the items.
        max_steps: stop after this many steps; None trains all `epochs`. The rate falls to 0 at the last step.
        window: number of batches sorted by length together; tasks stay mixed in every window.
        drop_longest: share of the longest items to leave out (they determine peak memory).
        activations: "real", or "zeros" for the prior-only oracle, the floor of every accuracy.
        autocast: compute the forward pass in bfloat16 (for float32 weights on a CPU); vectors keep their dtype.
        gradient_checkpointing: saves memory for a second forward pass; loss and gradients are the same.
        save_every: steps between checkpoints, each with a validation; None keeps only the last.
        seed: seed of the adapter's initial weights, the order of items, and dropout.
    Raises:
        ValueError: a number is out of range; the field is named.
    Source: sft.py and sft_config.py of adamkarvonen/activation_oracles for the defaults.
    """

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    rslora: bool = False
    targets: str | tuple[str, ...] = "all-linear"
    lr: float = 1e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    batch_size: int = 16
    micro_batch: int | None = None
    epochs: int = 1
    max_steps: int | None = None
    window: int = 20
    drop_longest: float = 0.001
    activations: str = "real"
    autocast: bool = False
    gradient_checkpointing: bool = True
    save_every: int | None = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "batch_size", "epochs", "window"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "clip"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in ("dropout", "drop_longest", "warmup"):
            self._check(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._check("weight_decay", self.weight_decay >= 0, "at least 0")
        for name in ("max_steps", "save_every", "micro_batch"):
            self._check(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1, or none")
        self._check("activations", self.activations in ("real", "zeros"), "'real' or 'zeros'")

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"recipe.{name}: expected {expected}, got {getattr(self, name)!r}.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values. Raises ValueError for an unknown key, with the nearest known one."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"recipe.{key}: unknown key; keys: {', '.join(names)}.{hint}")
        targets = values.get("targets", cls.targets)
        if not isinstance(targets, str) and not isinstance(targets, list | tuple):
            raise ValueError(f"recipe.targets: expected 'all-linear' or names of layers, got {targets!r}.")
        return checked(cls, {**values, "targets": targets if isinstance(targets, str) else tuple(targets)}, "recipe")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Hash of all fields that determine the weights; a run resumes only under the recipe it began with."""
        settings = {key: value for key, value in self.to_dict().items() if key not in _NO_EFFECT}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def rate(step: int, *, steps: int, recipe: Recipe) -> float:
    """Learning rate of step `step` (from 0): a linear rise over the first `warmup` share, then a linear fall to 0.

    lr * min( (step + 1) / w, (steps - step) / (steps - w) ),   w = max(1, round(warmup * steps))
    """
    rise = max(1, round(recipe.warmup * steps))
    return recipe.lr * min(1.0, (step + 1) / rise, (steps - step) / max(1, steps - rise))
