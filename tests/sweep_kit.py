"""Sweeps compared with one hooked forward pass per row, in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

from interp.edits import Replace
from interp.hooks import edit
from interp.model import Model
from interp.positions import Last
from interp.sweep import Intervention
from tests.tiny import add_lora, tiny

PROMPTS = [torch.randint(3, 128, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (23, 6, 37)]


def float64_models(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """A function that makes models that compute in float64 throughout: transformers casts norms, softmax and the delta
    rule to float32.

    With the casts in place two exact algorithms still differ by float32 rounding (2e-6 on these models), which would
    hide an error of that size.
    """

    class Float64:
        float32 = torch.float64

        def __getattr__(self, name: str):
            return getattr(torch, name)

    def make(family: str, adapter: str = "plain", **kw) -> Model:
        module = tiny(family, dtype=torch.float64, **kw)
        monkeypatch.setattr(sys.modules[type(module).__module__], "torch", Float64())
        if adapter != "plain":
            module = add_lora(module, dora=adapter == "dora").double()
        return Model.wrap(module)

    return make


def naive(model: Model, ids: list[int], rows: Sequence[Intervention], *, at: Sequence[int] = (-1,)) -> Tensor:
    """Logits [row, read, vocab] of one whole forward pass per row, under `interp.hooks.edit`."""
    out = []
    for row in rows:
        with ExitStack() as stack:
            for change in row.changes:
                where = change.positions
                positions = where if isinstance(where, str | Last) else [list(where)]
                stack.enter_context(edit(model, {change.site: change.edit}, positions=positions))
            out.append(model([ids]).logits[0, list(at)])
    return torch.stack(out)


def all_heads(model: Model, where: Sequence[int]) -> list[Intervention]:
    return [
        Intervention.at(f"z.{layer.index}.{head}", Replace(0.0), where, name=f"L{layer.index}.H{head}")
        for layer in model.layout.layers
        for head in range(layer.n_heads)
    ]
