"""From the residual stream to a sweep's values: final norm and answer logits, in float32 or wider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.model import Model

_VOCAB_PIECE = 16_384
Read = Literal["logits", "final"] | Callable[[Tensor], Tensor]


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def final_norm(model: Model, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """The model's final norm, computed in float32 or wider whatever the model's dtype."""
    norm, wide = model.layout.final_norm, resid.to(wide_dtype(resid.dtype))
    if isinstance(norm, nn.LayerNorm):  # torch refuses half-precision weights on a float32 input
        weight, bias = (None if p is None else p.to(wide) for p in (norm.weight, norm.bias))
        return nn.functional.layer_norm(wide, norm.normalized_shape, weight, bias, norm.eps)
    return norm(wide)


def answer_logits(
    model: Model, final: Float[Tensor, "... d_model"], answer_ids: Sequence[int] | Literal["all"]
) -> Float[Tensor, "... answer"]:
    """Logits of the answer tokens only, in the dtype of `final`, with the model's soft-capping.

    A plain linear head is read row by row; a wrapped one (an adapter on the head) is run as it is, in its own dtype.
    """
    head = model.causal_lm.get_output_embeddings()
    if type(head) is nn.Linear:
        logits = _linear_rows(head, final, answer_ids)
    else:
        dtype = next(p for p in head.parameters() if p.is_floating_point()).dtype
        logits = head(final.to(dtype)).to(final)
        logits = logits if isinstance(answer_ids, str) else logits[..., list(answer_ids)]
    cap = getattr(model.layout.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _linear_rows(head: nn.Linear, final: Tensor, answer_ids: Sequence[int] | Literal["all"]) -> Tensor:
    """Some or all rows of a linear head, cast to `final`'s dtype in pieces: a whole vocabulary can be gigabytes."""
    if isinstance(answer_ids, str):
        rows = torch.arange(head.out_features, device=final.device)
    else:
        rows = torch.tensor(list(answer_ids), device=final.device)
    if isinstance(answer_ids, str) and head.weight.dtype == final.dtype:
        return head(final)
    parts = [
        nn.functional.linear(
            final, head.weight[piece].to(final), None if head.bias is None else head.bias[piece].to(final)
        )
        for piece in rows.split(_VOCAB_PIECE)
    ]
    return torch.cat(parts, dim=-1)


@torch.no_grad()
def read_out(
    model: Model, resid: Float[Tensor, "row read d_model"], read: Read, answer_ids: Sequence[int] | Literal["all"]
) -> Tensor:
    """Value of each row: answer logits, the normed residual stream, or a function of the latter."""
    final = final_norm(model, resid)
    if read == "logits":
        return answer_logits(model, final, answer_ids)
    return final if read == "final" else read(final)
