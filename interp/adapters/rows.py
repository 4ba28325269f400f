"""Several adapters in one batch: each row goes through the adapter of its own role, or through the bare base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from interp.adapters.active import MERGED, has_adapter_layers, roles_of, tuner_layers
from interp.model import Model

_BASE = "__base__"


def rows_can_differ(model: Model, roles: Sequence[str | None]) -> bool:
    """Whether `adapter_rows` can hold these roles: plain LoRA on every layer (DoRA and IA3 have no per-row form)."""
    names = {_peft_name(model, role) for role in roles}
    if not has_adapter_layers(model.module) or MERGED in roles_of(model.module).values():
        return names == {_BASE}
    return all(_is_plain_lora(layer, names) for _, layer in tuner_layers(model.module))


@contextmanager
def adapter_rows(model: Model, roles: Sequence[str | None]) -> Iterator[None]:
    """Inside the block, row b of every batch goes through the adapter `roles[b]`; None is the bare base.

    Activations of a base and several fine-tunes of it come from one pass instead of one per adapter.

    Raises:
        ValueError: an unknown role, adapters without a per-row form (see `rows_can_differ`), a batch of another size.
        RuntimeError: a submodule in training mode, whose dropout this leaves out.
    """
    if not rows_can_differ(model, roles):
        raise ValueError(
            f"adapters {sorted({r for r in roles if r})} cannot share a batch: per-row adapters need plain LoRA on "
            f"every adapted layer. Run one pass per adapter: adapters.use(role)."
        )
    runs = [(name, len(list(same))) for name, same in groupby(_peft_name(model, role) for role in roles)]
    if model.module.training:
        raise RuntimeError("per-row adapters: the model is in training mode. Call .eval() on it first.")
    with ExitStack() as stack:
        stack.enter_context(model.adapters.use(None))
        if any(name != _BASE for name, _ in runs):
            stack.callback(model.decoder.register_forward_pre_hook(_check(len(roles)), with_kwargs=True).remove)
            for _, layer in tuner_layers(model.module):
                stack.callback(layer.register_forward_hook(_add(runs)).remove)
        yield


def _peft_name(model: Model, role: str | None) -> str:
    if role is None:
        return _BASE
    if role not in model.adapters.names:
        names = ", ".join(model.adapters.names) or "none"
        raise ValueError(f"adapter {role!r} is not loaded; adapters: {names} (or None for the base).")
    return roles_of(model.module).get(role, role) or _BASE


def _is_plain_lora(layer: Any, names: set[str]) -> bool:
    """Linear layers (GPT-2's Conv1D among them) without DoRA or another variant, whose adapter is B(A(x)) * scaling."""
    from peft.tuners.lora.layer import LoraLayer

    present = names.intersection(layer._get_available_adapters())
    if not isinstance(layer, LoraLayer):
        return not present
    plain = all(isinstance(layer.lora_A[name], nn.Linear) for name in present if name in layer.lora_A)
    return plain and all(name in layer.lora_A and name not in layer.lora_variant for name in present)


def _add(runs: list[tuple[str, int]]) -> Any:
    """A hook that adds each run of rows its own adapter's output to that of the base layer, as PEFT rounds it.

    Runs are slices: PEFT's own mixed batch gathers and scatters rows by index, which costs more than the adapters.
    """

    def post(layer: Any, args: tuple, output: Tensor) -> Tensor:
        parts, start = [], 0
        for name, n in runs:
            part, x = output[start : start + n], args[0][start : start + n]
            if name in layer.lora_A:
                down, up = layer.lora_A[name], layer.lora_B[name]
                part = part + (up(down(x.to(down.weight.dtype))) * layer.scaling[name]).to(part.dtype)
            parts.append(part)
            start += n
        return torch.cat(parts)

    return post


def _check(n_rows: int) -> Any:
    def pre(module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens = ids if ids is not None else kwargs["inputs_embeds"]
        if tokens.shape[0] != n_rows:
            raise ValueError(f"the batch has {tokens.shape[0]} rows, adapters were named for {n_rows}.")

    return pre
