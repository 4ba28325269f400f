"""Directional ablation written into weights: `op="ablate_everywhere"` without hooks, and the tensors it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.adapters.attach import probe_ids
from interp.hooks import record
from interp.model import Model
from interp.remedy import remedy
from steering.direction import Direction, Directions
from steering.operators import orthonormal_rows

MLP_WRITERS = ("down_proj", "c_proj", "dense_4h_to_h", "w2", "fc2")
"""Names of the last linear map of an MLP or expert in the known families."""


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
        ValueError: a norm is between the writers and the stream, weights are quantised or not in memory, an adapter
            that is not plain LoRA, or an MLP in which no writer of a known name is found.
    """
    family = model.layout.family
    if family.attn_branch or family.mlp_branch:
        raise ValueError(
            f"{model.layout.config.model_type} puts a norm between attention or MLP and the residual stream, so an "
            f"ablation cannot be written into their weights. Use steer(op='ablate_everywhere')."
        )
    writers = list(_of_module("embed", model.layout.embed, model.d_model))
    for name, child in model.decoder.named_children():
        if isinstance(child, nn.Embedding) and child is not model.layout.embed and child.embedding_dim == model.d_model:
            writers += _of_module(name, child, model.d_model)
    for layer in model.layout.layers:
        writers += _of_module(f"layer {layer.index} attention", layer.out_proj, model.d_model)
        inside = list(_of_mlp(f"layer {layer.index} mlp", layer.mlp, model.d_model, mlp_writers))
        if not inside:
            have = ", ".join(sorted({n.rpartition(".")[2] for n, _ in layer.mlp.named_modules() if n}))
            raise ValueError(
                f"layer {layer.index}: no module of the MLP is called {', '.join(mlp_writers)}; it has {have}. "
                f"Name the one that writes into the residual stream with mlp_writers=."
            )
        writers += inside
    unique = {id(one.tensor): one for one in writers}
    for one in unique.values():
        _check_editable(one)
    return list(unique.values())


def _of_mlp(where: str, mlp: nn.Module, d_model: int, names: Sequence[str]) -> Iterator[Writer]:
    skip: list[str] = []
    for path, module in mlp.named_modules():
        if any(path.startswith(prefix) for prefix in skip):
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
            f"{one.name} is quantised ({one.tensor.dtype}); an ablation cannot be stored in it. Load the model in "
            f"full precision, or use steer(op='ablate_everywhere')."
        )
    if one.tensor.device.type == "meta":
        raise ValueError(f"{one.name} is not in memory (offloaded). Load the whole model on one device.")


_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class WeightEdit:
    """The changes made by `edit_weights`.

    Attributes:
        tensors:  names of the tensors that were projected, in order of the network.
        rank:     dimensions removed.
        untied:   the unembedding shared its weights with the embedding and now has its own copy of the old ones.
        leftover: largest |resid · unit| / largest ‖resid‖ on a probe prompt, over all layers; rounding is what is left.
    """

    tensors: tuple[str, ...]
    rank: int
    untied: bool
    leftover: float


@torch.no_grad()
def edit_weights(
    model: Model | nn.Module,
    direction: Direction | Directions | Sequence[Direction],
    *,
    mlp_writers: Sequence[str] = MLP_WRITERS,
) -> WeightEdit:
    """Project directions out of everything that writes into the residual stream, in place.

        W <- P W,  b <- P b,  rows of embeddings <- rows P,  lora_B <- P lora_B,      P = I - R Rᵀ

    with R an orthonormal basis of the directions' span; computed in float32 or wider. The unembedding reads the stream
    and is not changed; if it shares its weights with the embedding it first gets its own copy (with gains of the
    final norm other than 1, editing the shared tensor gives another model: P and the gains do not commute). Every
    loaded adapter is edited. The fingerprint of a Model is cleared, since its weights have changed.

    Args:
        mlp_writers: names of the last linear map of MLPs and experts.
    Returns:
        What was changed. Load the model again to undo it.
    Raises:
        ValueError: what `residual_writers` refuses, or a direction of another width; nothing is changed then.
        RuntimeError: the residual stream of a probe prompt still has a component along a direction.
    Source: weight orthogonalization, Arditi et al., arXiv 2406.11717, section 4; equality with hooks in the tests.
    """
    model = Model.wrap(model)
    listed = (
        [direction]
        if isinstance(direction, Direction)
        else list(direction.values() if isinstance(direction, Directions) else direction)
    )
    if not listed:
        raise ValueError("direction: expected at least one, got none.")
    for one in listed:
        one.check_acts_on(model)
    if model.fingerprint is not None and model.fingerprint.quantization:
        raise ValueError(f"{model.name} is quantised ({model.fingerprint.quantization}); load it in full precision.")
    writers = residual_writers(model, mlp_writers=mlp_writers)
    rows = orthonormal_rows([one.vec for one in listed])
    untied = _untie(model)
    for writer in writers:
        writer.tensor.copy_(_projected(writer.tensor, writer.axis, rows))
    model.fingerprint = None
    leftover = _leftover(model, rows)
    if not leftover <= _TOLERANCE[model.dtype]:
        raise RuntimeError(
            f"after the edit the residual stream still has a share {leftover:.2e} along the directions: something else "
            f"writes into it. The weights have been changed; load the model again, and name the writers (mlp_writers=)."
        )
    return WeightEdit(tuple(w.name for w in writers), len(rows), untied, leftover)


def _projected(tensor: Tensor, axis: int, rows: Tensor) -> Tensor:
    wide = tensor.double() if tensor.dtype == torch.float64 else tensor.float()
    moved, basis = wide.movedim(axis, -1), rows.to(wide)
    return (moved - (moved @ basis.T) @ basis).movedim(-1, axis).to(tensor.dtype)


def _untie(model: Model) -> bool:
    """Give the unembedding its own weights if it shares the embedding's; returns whether it did."""
    head, embed = (_base(m) for m in (model.causal_lm.get_output_embeddings(), model.layout.embed))
    if head is None or head.weight.data_ptr() != embed.weight.data_ptr():
        return False
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    config = model.causal_lm.config
    for one in (config, config.get_text_config()):
        one.tie_word_embeddings = False
    return True


def _base(module: Any) -> Any:
    module = getattr(module, "original_module", module)
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _leftover(model: Model, rows: Tensor) -> float:
    with record(model, "resid_pre.*, resid_post.*") as acts:
        model(probe_ids(model.causal_lm))
    wide = {site: acts[site].double().cpu() for site in acts}
    return max(float((x @ rows.double().T).abs().max() / x.norm(dim=-1).max()) for x in wide.values())
