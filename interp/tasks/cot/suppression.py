"""What a sentence is worth to what comes after it: attention to it is suppressed, with a mask that stays causal."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def suppression_mask(n_tokens: int, suppressed: tuple[int, int]) -> Bool[Tensor, "query key"]:
    """True where a query may look: causal, and not at the suppressed tokens from after them; the diagonal is kept.

        mask[q, k] = k <= q  and not (start <= k < end  and  q >= end)

    A float mask of ones and zeros in its place is *added* to the scores: it suppresses nothing and lets every token
    see the future.

    Raises:
        ValueError: a range outside the tokens.
    """
    start, end = suppressed
    if not 0 <= start < end <= n_tokens:
        raise ValueError(f"suppressed: expected 0 <= start < end <= {n_tokens} tokens, came [{start}, {end}).")
    q, k = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)[None, :]
    return (k <= q) & ~((k >= start) & (k < end) & (q >= end))


def check_mask(mask: Tensor) -> None:
    """Refuse a mask that is not boolean and causal.

    Raises:
        ValueError: a float mask, a True above the diagonal, or a token that cannot see itself.
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask: expected booleans, came {mask.dtype}: models add a float mask to the scores. Use bool."
        )
    if bool(mask.triu(1).any()):
        raise ValueError("mask: a token may look at a later one. Combine it with the causal mask.")
    if not bool(mask.diagonal(dim1=-2, dim2=-1).all()):
        raise ValueError("mask: a token may not look at itself. Keep the diagonal.")


@torch.no_grad()
def masked_logp(
    module: nn.Module, ids: Int[Tensor, "pos"], mask: Bool[Tensor, "query key"]
) -> Float[Tensor, "pos vocab"]:
    """Log softmax in float32 of the logits at every token under a mask, for models whose layers all attend in full.

    Raises:
        ValueError: as `check_mask`.
    """
    check_mask(mask)
    run: Any = module
    out = run(input_ids=ids[None], attention_mask=mask[None, None], use_cache=False)
    return out.logits[0].float().log_softmax(-1)


def sentence_importance(module: nn.Module, ids: Int[Tensor, "pos"], sentence: tuple[int, int]) -> float:
    """Mean KL in nats per later token between the model and the model that cannot see one sentence.

        importance = mean over q >= end of  sum_v p(v|q) (log p(v|q) - log p_suppressed(v|q))

    Args:
        sentence: token range [start, end) of the sentence.
    Raises:
        ValueError: no token after the sentence, and as `suppression_mask`.
    """
    n, end = len(ids), sentence[1]
    if end >= n:
        raise ValueError(
            f"sentence {sentence}: expected tokens after it, came {n} in all. Leave the last sentence out."
        )
    device = ids.device
    causal = torch.ones(n, n, dtype=torch.bool).tril().to(device)
    clean = masked_logp(module, ids, causal)[end:]
    without = masked_logp(module, ids, suppression_mask(n, sentence).to(device))[end:]
    return float((clean.exp() * (clean - without)).sum(-1).mean())
