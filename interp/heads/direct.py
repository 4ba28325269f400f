"""The direct effect: what the answer loses if only a head's own path to the logits is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.family import head_output_weights
from interp.heads.ids import Unit
from interp.heads.kinds import Values, record_z
from interp.model import Model
from interp.remedy import remedy
from interp.sweep.read import final_norm, wide_dtype

Read = Callable[[Tensor], Tensor]


@torch.no_grad()
def direct_changes(
    model: Model,
    ids: Sequence[int],
    units: Sequence[Unit],
    values: Values | None,
    read: Read,
    *,
    freeze_norm: bool,
) -> tuple[Float[Tensor, "unit value"], Float[Tensor, "unit value"]]:
    """(clean readout, readout with the unit's direct path changed), at the last token.

        delta_u = sum_{h in u} (z'_h - z_h) W_h          every later block frozen
        read( norm(resid + delta_u) )

    W_h is probed from the output projection, adapters included. With `freeze_norm` the norm keeps the scale of the
    clean run, so that effects are linear in delta (direct logit attribution).

    Args:
        values: replacement of z by layer [1, head, d_head] at the last token; None: zeros.
    Raises:
        ValueError: the family norms the attention's output before adding it, so no W_h exists.
    """
    if model.layout.family.attn_branch is not None:
        raise ValueError(
            f"{model.layout.config.model_type} norms the output of attention before adding it, so a head has no linear "
            f"write of its own and no direct effect. {remedy('Use {effect:total}.')}"
        )
    layers = sorted({head.layer for unit in units for head in unit})
    end = len(ids) - 1
    z, resid = record_z(model, ids, [end], layers, extra=[end])
    wide = wide_dtype(resid.dtype)
    writes = {}
    for layer in layers:
        weights, _ = head_output_weights(model.layout.layers[layer])
        new = torch.zeros_like(z[layer][0]) if values is None else values[layer][0].to(z[layer])
        writes[layer] = torch.einsum("hd,hdm->hm", (new - z[layer][0]).to(wide), weights.to(wide))
    clean = resid.to(wide)
    changed = torch.cat([clean + sum(writes[head.layer][head.head] for head in unit) for unit in units])
    final = _frozen(model, changed, clean) if freeze_norm else final_norm(model, changed)
    before = read(final_norm(model, clean)[:, None])[:, 0]
    return before.expand(len(units), -1), read(final[:, None])[:, 0]


def _frozen(model: Model, changed: Tensor, clean: Tensor) -> Tensor:
    """The final norm of `changed` with the scale of `clean`: (norm(x) - b) · scale(x) / scale(clean) + b."""
    norm = model.layout.final_norm
    bias = norm.bias.to(changed) if isinstance(norm, nn.LayerNorm) and norm.bias is not None else 0.0
    centred = isinstance(norm, nn.LayerNorm)
    ratio = _scale(norm, changed, centred) / _scale(norm, clean, centred)
    return (final_norm(model, changed) - bias) * ratio + bias


def _scale(norm: nn.Module, x: Tensor, centred: bool) -> Tensor:
    eps = next((getattr(norm, name) for name in ("variance_epsilon", "eps") if hasattr(norm, name)), 0.0)
    x = x - x.mean(dim=-1, keepdim=True) if centred else x
    return (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()


@torch.no_grad()
def write_norms(model: Model, prompts: Sequence[tuple[Sequence[int], int]]) -> dict[tuple[int, int], float]:
    """Mean norm of each head's write into the residual stream, ‖z_h W_h‖, over (prompt, token).

    Norm-matched heads are each other's controls. In families that norm attention's output, the norm before it.
    """
    layers = model.layout.head_layers
    total: dict[int, Tensor] = {}
    for ids, token in prompts:
        z, _ = record_z(model, ids, [token], layers)
        for layer in layers:
            weights, _ = head_output_weights(model.layout.layers[layer])
            size = torch.einsum("hd,hdm->hm", z[layer][0].float(), weights.float()).norm(dim=-1).cpu()
            total[layer] = total[layer] + size if layer in total else size
    return {(layer, head): float(value) / len(prompts) for layer in layers for head, value in enumerate(total[layer])}
