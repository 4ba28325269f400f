"""Several adapters in one batch: each row goes through the adapter of its own role, or through the bare base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from interp.adapters import MERGED, _roles, _tuner_layers, has_adapter_layers
from interp.model import Model

_BASE = "__base__"


def rows_can_differ(model: Model, roles: Sequence[str | None]) -> bool:
    """Whether `adapter_rows` can hold these roles: plain LoRA on every layer (DoRA and IA3 have no per-row form)."""
    names = {_peft_name(model, role) for role in roles}
    if not has_adapter_layers(model.module) or MERGED in _roles(model.module).values():
        return names == {_BASE}
    return all(_is_plain_lora(layer, names) for _, layer in _tuner_layers(model.module))


@contextmanager
def adapter_rows(model: Model, roles: Sequence[str | None]) -> Iterator[None]:
    """Inside the block, row b of every batch goes through the adapter `roles[b]`; None is the bare base.

    Activations of a base and several fine-tunes of it come from one pass instead of one per adapter.

    Raises:
        ValueError: an unknown role, adapters without a per-row form (see `rows_can_differ`), a batch of another size.
        RuntimeError: a submodule in training mode, where PEFT has no per-row form either.
    """
    if not rows_can_differ(model, roles):
        raise ValueError(
            f"adapters {sorted({r for r in roles if r})} cannot share a batch: per-row adapters need plain LoRA on "
            f"every adapted layer. Run one pass per adapter: adapters.use(role)."
        )
    names = [_peft_name(model, role) for role in roles]
    first = next((role for role in roles if role is not None), None)
    with ExitStack() as stack:
        stack.enter_context(model.adapters.use(first))
        if first is not None:
            stack.callback(model.decoder.register_forward_pre_hook(_check(len(names)), with_kwargs=True).remove)
            for _, layer in _tuner_layers(model.module):
                stack.callback(layer.register_forward_pre_hook(_give(names), with_kwargs=True).remove)
        yield


def _peft_name(model: Model, role: str | None) -> str:
    if role is None:
        return _BASE
    if role not in model.adapters.names:
        known = ", ".join(model.adapters.names) or "none"
        raise ValueError(f"adapter {role!r} is not loaded; adapters: {known} (or None for the base).")
    return _roles(model.module).get(role, role) or _BASE


def _is_plain_lora(layer: Any, names: set[str]) -> bool:
    from peft.tuners.lora.layer import LoraLayer

    if not isinstance(layer, LoraLayer):
        return False
    held = names.intersection(layer._get_available_adapters())
    return not any(name in getattr(layer, "lora_variant", {}) for name in held)


def _give(names: list[str]) -> Any:
    def pre(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "adapter_names": names}

    return pre


def _check(n_rows: int) -> Any:
    def pre(module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens = ids if ids is not None else kwargs["inputs_embeds"]
        if tokens.shape[0] != n_rows:
            raise ValueError(f"the batch has {tokens.shape[0]} rows, adapters were named for {n_rows}.")

    return pre
