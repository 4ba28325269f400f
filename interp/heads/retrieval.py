"""Wu's retrieval score: how often a head looks at the very token that is being copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from interp.heads.ids import HeadId
from interp.hooks import record
from interp.model import Model
from interp.passes import pad
from interp.site import Site


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
