"""Directional ablation written into weights: the model that `op="ablate_everywhere"` computes, without hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.adapters.attach import probe_ids
from interp.hooks import record
from interp.model import Model
from steering.direction import Direction, Directions
from steering.operators import orthonormal_rows
from steering.writers import MLP_WRITERS, residual_writers

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class WeightEdit:
    """What `edit_weights` did.

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
    """Project directions out of everything that writes into the residual stream, in place and for good.

        W <- P W,  b <- P b,  rows of embeddings <- rows P,  lora_B <- P lora_B,      P = I - R Rᵀ

    with R an orthonormal basis of the directions' span; computed in float32 or wider. The unembedding reads the stream
    and is left alone; where it shares its weights with the embedding it first gets its own copy (with gains of the
    final norm other than 1, editing the shared tensor gives another model: P and the gains do not commute). Every
    adapter that is loaded is edited. The fingerprint of a Model is cleared, since it holds other weights afterwards.

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
    listed = [direction] if isinstance(direction, Direction) else list(
        direction.values() if isinstance(direction, Directions) else direction
    )  # fmt: skip
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
    """Give the unembedding its own weights where it shares the embedding's; says whether it did."""
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
