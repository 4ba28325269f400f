"""What a head would have handed on under another attention pattern: z' = pattern' @ v."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.family import Layer
from interp.heads.ids import HeadId
from interp.hooks import record
from interp.model import Model
from interp.passes import pad
from interp.site import Site


@torch.no_grad()
def changed_pattern_z(
    model: Model,
    ids: Sequence[int],
    tokens: Sequence[int],
    layers: Sequence[int],
    *,
    without: Sequence[int] | None,
) -> dict[int, Float[Tensor, "new head d_head"]]:
    """z of every head at `tokens` with its attention changed, everything below as it was.

        without = None:   p'_k = 1 / #{keys it may look at}                      uniform attention
        else:             p'_k = p_k · [k not in without] / sum of what is left  pattern knock-out
        z'[q, h] = sum_k p'[h, q, k] v[k, kv(h)]

    Raises:
        ValueError: a head whose whole attention lies on `without`, so that nothing is left to renormalise; a family
            whose z is not pattern @ v (a gate on the heads).
    """
    at = list(tokens)
    with record(model, [Site("pattern", layer) for layer in layers], positions=[at]) as seen:
        model([list(ids)])
    with record(model, [Site(kind, layer) for layer in layers for kind in ("v", "z")]) as acts:
        model([list(ids)])
    out = {}
    for index in layers:
        layer = model.layout.layers[index]
        pattern, v = seen[f"pattern.{index}"], acts[f"v.{index}"][0]
        _check_product(model, index, pattern, v, acts[f"z.{index}"][0][at])
        new = _uniform(layer, pattern, at) if without is None else _without(pattern, without, index, at)
        out[index] = _mix(new, v).to(v.dtype)
    return out


def _mix(pattern: Float[Tensor, "new head pos"], v: Float[Tensor, "pos kv_head d_head"]) -> Tensor:
    """pattern @ v, each query head with the values of its group: [new, head, d_head]."""
    wide = torch.float64 if v.dtype == torch.float64 else torch.float32
    spread = v.repeat_interleave(pattern.shape[1] // v.shape[1], dim=1)
    return torch.einsum("nhk,khd->nhd", pattern.to(wide), spread.to(wide))


def _check_product(model: Model, layer: int, pattern: Tensor, v: Tensor, z: Tensor) -> None:
    error = (_mix(pattern, v) - z).abs().max() / z.abs().max().clamp(min=1e-30)
    if float(error) > (0.05 if z.dtype in (torch.bfloat16, torch.float16) else 1e-3):
        raise ValueError(
            f"layer {layer} of {model.layout.config.model_type}: the heads' output is not attention times values "
            f"(relative difference {float(error):.1e}); there is a gate between them. Use Mean, Zero or Patch."
        )


def _uniform(layer: Layer, pattern: Tensor, tokens: list[int]) -> Tensor:
    keys = torch.arange(pattern.shape[-1], device=pattern.device)[None]
    at = torch.tensor(tokens, device=pattern.device)[:, None]
    seen = keys <= at
    if layer.window is not None:
        seen &= keys > at - layer.window
    return (seen / seen.sum(dim=1, keepdim=True))[:, None].expand_as(pattern)


def _without(pattern: Tensor, gone: Sequence[int], layer: int, tokens: list[int]) -> Tensor:
    kept = pattern.clone()
    kept[..., list(gone)] = 0.0
    left = kept.sum(dim=-1, keepdim=True)
    if bool((left < 1e-6).any()):
        row, head, _ = (left < 1e-6).nonzero()[0].tolist()
        raise ValueError(
            f"knock-out: L{layer}.H{head} attends from token {tokens[row]} to the removed keys alone, so nothing is "
            "left to renormalise. Leave the first token among the keys it may see, or use Mean."
        )
    return kept / left


@torch.no_grad()
def greedy(model: Model, ids: Sequence[int], *, max_new_tokens: int, stop: Sequence[int] = ()) -> list[int]:
    """Tokens of highest logit after the prompt, up to a stop token, which is left out."""
    batch = pad([list(ids)]).to(model.device)
    out, cache = [], None
    given = batch.input_ids
    for _ in range(max_new_tokens):
        done = model.module(input_ids=given, past_key_values=cache, use_cache=True)
        token = int(done.logits[0, -1].argmax())
        if token in stop:
            break
        out.append(token)
        given, cache = given.new_tensor([[token]]), done.past_key_values
    return out


@torch.no_grad()
def retrieval_score(
    model: Model | torch.nn.Module,
    ids: Sequence[int],
    needle: tuple[int, int],
    *,
    max_new_tokens: int = 32,
    stop: Sequence[int] = (),
) -> tuple[list[HeadId], Float[np.ndarray, "head"]]:
    """The retrieval score of every head on one prompt with a needle in it.

        score_h = (1 / |needle|) · #{steps of greedy decoding: argmax of h's attention lies in the needle
                                     and the token there is the token that is generated}

    Usually in [0, 1]; a needle that is copied twice counts twice. It is no effect: a head may look without being used.

    Args:
        needle: token numbers [start, end) of the needle in the prompt.
    Returns:
        (heads, score of each); zeros where nothing was generated.
    Raises:
        ValueError: a needle outside the prompt.
    Source: Wu et al., arXiv 2404.15574; nightdessert/Retrieval_Head.
    """
    model = Model.wrap(model)
    start, end = needle
    if not 0 <= start < end <= len(ids):
        raise ValueError(f"needle [{start}, {end}): expected token numbers within the prompt of {len(ids)} tokens.")
    written = greedy(model, ids, max_new_tokens=max_new_tokens, stop=stop)
    layers = model.layout.head_layers
    heads = [HeadId(layer, head) for layer in layers for head in range(model.layout.layers[layer].n_heads)]
    if not written:
        return heads, np.zeros(len(heads))
    whole = [*ids, *written]
    at = list(range(len(ids) - 1, len(whole) - 1))  # the token at `at` looks back while the next one is chosen
    with record(model, [Site("pattern", layer) for layer in layers], positions=[at]) as acts:
        model([whole])
    looked = torch.cat([acts[f"pattern.{layer}"].argmax(dim=-1) for layer in layers], dim=1).cpu()  # [step, head]
    inside = (looked >= start) & (looked < end)
    copied = torch.tensor(whole)[looked] == torch.tensor(written)[:, None]
    return heads, (inside & copied).double().sum(dim=0).numpy() / (end - start)
