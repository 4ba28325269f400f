"""What a sentence is worth to what comes after it: attention to it is suppressed, with a mask that stays causal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.remedy import remedy


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
        raise ValueError(f"suppressed: expected 0 <= start < end <= {n_tokens} tokens, got [{start}, {end}).")
    q, k = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)[None, :]
    return (k <= q) & ~((k >= start) & (k < end) & (q >= end))


def check_mask(mask: Tensor) -> None:
    """Refuse a mask that is not boolean and causal.

    Raises:
        ValueError: a float mask, a True above the diagonal, or a token that cannot see itself.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: expected booleans, got {mask.dtype}: models add a float mask to the scores. Use bool.")
    if bool(mask.triu(1).any()):
        raise ValueError("mask: a token may look at a later one. Combine it with the causal mask.")
    if not bool(mask.diagonal(dim1=-2, dim2=-1).all()):
        raise ValueError("mask: a token may not look at itself. Keep the diagonal.")


@torch.no_grad()
def masked_logp(
    module: nn.Module, ids: Int[Tensor, "pos"], mask: Bool[Tensor, "query key"], *, temperature: float = 1.0
) -> Float[Tensor, "pos vocab"]:
    """Log softmax in float32 of logits / temperature at every token under a mask, for layers that attend in full.

    SDPA takes the booleans. Eager attention adds whatever mask it is given to the scores, booleans too, as 0 and 1: it
    gets 0 where a query may look and the least number of the model's dtype where not.

    Raises:
        ValueError: as `check_mask`; an attention implementation other than sdpa and eager.
    """
    check_mask(mask)
    run: Any = module
    given = _as_taken(module, mask)[None, None]
    out = run(input_ids=ids[None], attention_mask=given, use_cache=False)
    return (out.logits[0].float() / temperature).log_softmax(-1)


def _as_taken(module: nn.Module, mask: Tensor) -> Tensor:
    config: Any = getattr(module, "config", None)
    kind = getattr(config, "_attn_implementation", None)
    if kind == "sdpa":
        return mask
    if kind != "eager":
        raise ValueError(
            f"attention {kind!r}: expected sdpa or eager, which take a mask of queries by keys. "
            + remedy("Load the model with {attn_implementation:sdpa}.")
        )
    dtype = next(module.parameters()).dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def sentence_importance(
    module: nn.Module, ids: Int[Tensor, "pos"], sentence: tuple[int, int], *, temperature: float = 1.0
) -> float:
    """Mean KL in nats per later token between the model and the model that cannot see one sentence.

        importance = mean over q >= end of  sum_v p(v|q) (log p(v|q) - log p_suppressed(v|q))

    Args:
        sentence: token range [start, end) of the sentence.
        temperature: of both distributions; the v2 corpora used 0.6.
    Raises:
        ValueError: no token after the sentence, and as `suppression_mask`.
    """
    return span_importances(module, ids, [sentence], temperature=temperature)[0]


def span_importances(
    module: nn.Module, ids: Int[Tensor, "pos"], spans: Sequence[tuple[int, int]], *, temperature: float = 1.0
) -> list[float]:
    """`sentence_importance` of several token ranges of one text, its clean pass computed once.

    Raises:
        ValueError: as `sentence_importance`.
    """
    n, device = len(ids), ids.device
    for span in spans:
        if span[1] >= n:
            raise ValueError(f"sentence {span}: expected tokens after it, got {n} in all. Leave the last sentence out.")
    clean = masked_logp(module, ids, torch.ones(n, n, dtype=torch.bool).tril().to(device), temperature=temperature)
    p, out = clean.exp(), []
    for span in spans:
        without = masked_logp(module, ids, suppression_mask(n, span).to(device), temperature=temperature)
        out.append(float((p * (clean - without))[span[1] :].sum(-1).mean()))
    return out
