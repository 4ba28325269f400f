"""The tensors of a model that write into its residual stream, with the axis of each that is the stream's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from interp.model import Model
from interp.remedy import remedy

MLP_WRITERS = ("down_proj", "c_proj", "dense_4h_to_h", "w2", "fc2")
"""Names of the last linear map of an MLP or of an expert in the families that are known."""


@dataclass(frozen=True, eq=False)
class Writer:
    """A parameter whose slices along `axis` are vectors of the residual stream."""

    name: str
    tensor: nn.Parameter
    axis: int


def residual_writers(model: Model, *, mlp_writers: Sequence[str] = MLP_WRITERS) -> list[Writer]:
    """Every tensor that writes into the residual stream, adapters of all names included.

    Embeddings (of tokens, and of positions where they are learned); the output projection of each attention; the last
    linear map of each MLP, of every expert; their biases; and of a LoRA on any of them the `lora_B`.

    Raises:
        ValueError: a norm stands between the writers and the stream, weights are quantised or not in memory, an adapter
            that is not plain LoRA, or an MLP in which no writer of a known name is found.
    """
    family = model.layout.family
    if family.attn_branch or family.mlp_branch:
        raise ValueError(
            f"{model.layout.config.model_type} puts a norm between attention or MLP and the residual stream, so an "
            f"ablation cannot be written into their weights. Use steer(op='ablate_everywhere')."
        )
    found = list(_of_module("embed", model.layout.embed, model.d_model))
    for name, child in model.decoder.named_children():
        if isinstance(child, nn.Embedding) and child is not model.layout.embed and child.embedding_dim == model.d_model:
            found += _of_module(name, child, model.d_model)
    for layer in model.layout.layers:
        found += _of_module(f"layer {layer.index} attention", layer.out_proj, model.d_model)
        inside = list(_of_mlp(f"layer {layer.index} mlp", layer.mlp, model.d_model, mlp_writers))
        if not inside:
            have = ", ".join(sorted({n.rpartition(".")[2] for n, _ in layer.mlp.named_modules() if n}))
            raise ValueError(
                f"layer {layer.index}: no module of the MLP is called {', '.join(mlp_writers)}; it has {have}. "
                f"Name the one that writes into the residual stream with mlp_writers=."
            )
        found += inside
    unique = {id(one.tensor): one for one in found}
    for one in unique.values():
        _check_editable(one)
    return list(unique.values())


def _of_mlp(where: str, mlp: nn.Module, d_model: int, names: Sequence[str]) -> Iterator[Writer]:
    skip: list[str] = []
    for path, module in mlp.named_modules():
        if any(path.startswith(done) for done in skip):
            continue
        if path.rpartition(".")[2] in names:
            yield from _of_module(f"{where}.{path}", module, d_model)
            skip.append(path + ".")
        for name, tensor in module.named_parameters(recurse=False):
            if name in names and tensor.ndim == 3:
                yield Writer(f"{where}.{path}.{name}", tensor, _expert_axis(f"{where}.{name}", module, tensor, d_model))
            if name.removesuffix("_bias") in names and name.endswith("_bias"):
                yield Writer(f"{where}.{path}.{name}", tensor, tensor.ndim - 1)


def _expert_axis(where: str, module: nn.Module, tensor: nn.Parameter, d_model: int) -> int:
    """Of experts kept in one tensor: [expert, d_model, d_ff], or [expert, d_ff, d_model] where marked so."""
    fits = [axis for axis in (1, 2) if tensor.shape[axis] == d_model]
    if len(fits) == 1:
        return fits[0]
    if not fits:
        raise ValueError(f"{where}: shape {list(tensor.shape)} has no axis of the stream's width {d_model}.")
    return 2 if getattr(module, "is_transposed", False) else 1


def _of_module(where: str, module: nn.Module, d_model: int) -> Iterator[Writer]:
    wrapper: Any = module
    if hasattr(module, "original_module") and hasattr(module, "modules_to_save"):
        yield from _of_module(f"{where} (original)", wrapper.original_module, d_model)
        for name, copy in wrapper.modules_to_save.items():
            yield from _of_module(f"{where} ({name})", copy, d_model)
        return
    if hasattr(module, "get_base_layer"):
        yield from _of_lora(where, wrapper, d_model)
        return
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        raise ValueError(f"{where}: {type(module).__name__} has no weight matrix that can be edited.")
    is_rows = isinstance(module, nn.Embedding) or hasattr(module, "nx")  # Conv1D keeps [in, out]
    axis = 1 if is_rows else 0
    if weight.shape[axis] != d_model:
        raise ValueError(
            f"{where}: expected {d_model} outputs of {type(module).__name__}, its weight is {list(weight.shape)}. "
            f"Quantised weights must be loaded in full, split ones gathered."
        )
    yield Writer(f"{where} weight", weight, axis)
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        yield Writer(f"{where} bias", bias, 0)


def _of_lora(where: str, layer: Any, d_model: int) -> Iterator[Writer]:
    from peft.tuners.lora import LoraLayer

    if not isinstance(layer, LoraLayer) or len(layer.lora_magnitude_vector) or layer.lora_variant:
        raise ValueError(
            f"{where}: an adapter of type {type(layer).__name__} (DoRA, or other than plain LoRA) does not keep an "
            f"ablation of its parts. {remedy('Merge it first: load with {merge:True}.')}"
        )
    yield from _of_module(where, layer.base_layer, d_model)  # pyright: ignore[reportArgumentType]
    for name, part in layer.lora_B.items():
        yield Writer(f"{where} lora_B ({name})", part.weight, 0)  # pyright: ignore[reportArgumentType]
        if getattr(part, "bias", None) is not None:
            yield Writer(f"{where} lora_B bias ({name})", part.bias, 0)  # pyright: ignore[reportArgumentType]
    for name, part in layer.lora_embedding_B.items():
        yield Writer(f"{where} lora_embedding_B ({name})", part, 0)


def _check_editable(one: Writer) -> None:
    if not one.tensor.is_floating_point() or one.tensor.element_size() < 2:
        raise ValueError(
            f"{one.name} is quantised ({one.tensor.dtype}); an ablation cannot be written into it. Load the model in "
            f"full precision, or use steer(op='ablate_everywhere')."
        )
    if one.tensor.device.type == "meta":
        raise ValueError(f"{one.name} is not in memory (offloaded). Load the whole model on one device.")
