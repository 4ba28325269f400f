"""Attention of many rows to one shared prefix, which is never copied. The rest of a block is the library's own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.family import Layout

NAME = "diptych_rows"
Prefix = tuple[Float[Tensor, "1 kv_head past d_head"], Float[Tensor, "1 kv_head past d_head"]]


@contextmanager
def rows_attention_on(layout: Layout) -> Iterator[None]:
    """Make the model's attention modules call `rows_attention` inside the block; restores them afterwards."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, rows_attention)
    before = layout.config._attn_implementation
    layout.config._attn_implementation = NAME
    try:
        yield
    finally:
        layout.config._attn_implementation = before


def rows_attention(
    module: nn.Module,
    query: Float[Tensor, "row head new d_head"],
    key: Float[Tensor, "row kv_head new d_head"],
    value: Float[Tensor, "row kv_head new d_head"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    rows_prefix: Prefix | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "row new head d_head"], None]:
    """Causal attention in which every row sees the same cached prefix and its own new tokens.

        out[r, t] = softmax( [ q[r,t]·K_prefix | q[r,t]·k[r,:t] ] · scaling ) @ [ V_prefix | v[r,:t] ]

    Rows and the query heads of a group are folded into the query axis, so that the scores of all rows with the prefix
    are one matrix product per key-value head. Softmax is over the concatenation, in float32 or wider.

    Args:
        softcap: scores become softcap * tanh(scores / softcap) before the mask (Gemma 2).
        sliding_window: number of tokens that a token attends to, itself included.
        rows_prefix: keys and values [1, kv_head, past, d_head] of the shared prefix, after rope.
    Raises:
        ValueError: the module needs attention sinks or biases, which this function does not compute.
    Source: equality with the library's attention per family in tests/test_sweep.py.
    """
    if any(kwargs.get(extra) is not None for extra in ("s_aux", "position_bias", "head_mask")):
        raise ValueError(
            f"{type(module).__name__} needs attention sinks or biases, which the fast sweep does not compute."
        )
    scale: float = query.shape[-1] ** -0.5 if scaling is None else scaling
    n_past = 0 if rows_prefix is None else rows_prefix[0].shape[2]
    n_new = query.shape[2]
    # a window at least as long as the text hides nothing
    window = sliding_window if sliding_window and sliding_window < n_past + n_new else None
    if rows_prefix is None and softcap is None and window is None:
        grouped = key.shape[1] != query.shape[1]
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=n_new > 1, scale=scale, enable_gqa=grouped
        )
        return out.transpose(1, 2), None
    if rows_prefix is None:
        rows_prefix = (key[:1, :, :0], value[:1, :, :0])
    elif window is not None and n_past >= window:
        # No new token sees further back than window - 1 prefix tokens. Slice from the front: `[-0:]` would keep all.
        first = n_past - (window - 1)
        rows_prefix = (rows_prefix[0][:, :, first:], rows_prefix[1][:, :, first:])
    return _shared_prefix(query * scale, key, value, rows_prefix, softcap, window), None


def _shared_prefix(
    query: Tensor, key: Tensor, value: Tensor, prefix: Prefix, softcap: float | None, window: int | None
) -> Tensor:
    n_rows, n_heads, n_new, width = query.shape
    n_kv, n_past = key.shape[1], prefix[0].shape[2]
    n_folded = n_heads // n_kv * n_new
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    folded = query.to(wide).reshape(n_rows, n_kv, n_folded, width).transpose(0, 1)  # [kv, row, group * new, width]
    past_k, past_v = (part[0].to(wide) for part in prefix)
    own_k, own_v = key.to(wide).transpose(0, 1), value.to(wide).transpose(0, 1)
    flat = folded.reshape(n_kv, -1, width)
    to_past = (flat @ past_k.transpose(1, 2)).view(n_kv, n_rows, n_folded, n_past)
    # with one new token a matrix product per row would be many tiny ones; an elementwise product is faster
    to_own = folded @ own_k.transpose(2, 3) if n_new > 1 else (folded * own_k).sum(-1, keepdim=True)
    scores = torch.cat([to_past, to_own], dim=-1)
    if softcap is not None:
        scores = (scores / softcap).tanh_().mul_(softcap)
    hidden = _hidden(n_past, n_new, window, scores.device)
    if hidden is not None:
        scores.view(n_kv, n_rows, -1, n_new, n_past + n_new).masked_fill_(hidden, float("-inf"))
    probs = scores.softmax(dim=-1)
    out = (probs[..., :n_past].reshape(n_kv, n_rows * n_folded, n_past) @ past_v).view(
        n_kv, n_rows, n_folded, past_v.shape[-1]
    )
    out = out + (probs[..., n_past:] @ own_v if n_new > 1 else probs[..., n_past:] * own_v)
    out = out.transpose(0, 1).reshape(n_rows, n_heads, n_new, -1)
    return out.transpose(1, 2).to(query.dtype)


def _hidden(n_past: int, n_new: int, window: int | None, device: torch.device) -> Tensor | None:
    """True where token n_past + t must not attend: after itself, or further back than the window. None: nowhere."""
    if n_new == 1:
        return None  # the prefix is already cut to the window
    at = torch.arange(n_past, n_past + n_new, device=device)[:, None]
    seen = torch.arange(n_past + n_new, device=device)[None, :]
    return seen > at if window is None else (seen > at) | (seen <= at - window)
