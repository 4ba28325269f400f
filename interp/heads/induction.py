"""What a head attends to where a token is repeated: the prefix-matching score of induction heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.heads.ids import HeadId
from interp.hooks import record
from interp.model import Model
from interp.site import Site


def followers(ids: Sequence[int]) -> Bool[Tensor, "query key"]:
    """True where `key` is the token after an earlier occurrence of the token at `query`.

    Example:
        >>> followers([7, 8, 7]).nonzero().tolist()
        [[2, 1]]
    """
    tokens = torch.tensor(list(ids))
    same = tokens[:, None] == tokens[None, :]
    earlier = same.tril(diagonal=-1)  # [query, key]: key is an earlier occurrence of the query's token
    return torch.cat([torch.zeros_like(earlier[:, :1]), earlier[:, :-1]], dim=1)


def prefix_matching(
    pattern: Float[Tensor, "head query key"], is_follower: Bool[Tensor, "query key"]
) -> Float[Tensor, "head"]:
    """Prefix-matching score of every head from its attention pattern, in [0, 1].

        score_h = mean over queries q with a follower of  sum_{k in followers of q} pattern[h, q, k]

    Args:
        is_follower: from `followers`; of another text it gives the score of a null.
    Raises:
        ValueError: no query has a follower.
    Source: Olsson et al. 2022, arXiv 2209.11895, "prefix matching score".

    Example:
        >>> import torch
        >>> attends = torch.zeros(2, 3, 3)
        >>> attends[0, 2, 1] = attends[1, 2, 0] = 1.0  # the second 7 attends to the 8, or to the first 7
        >>> prefix_matching(attends, followers([7, 8, 7])).tolist()
        [1.0, 0.0]
    """
    has_follower = is_follower.any(dim=1)
    if not bool(has_follower.any()):
        raise ValueError("prefix matching: no token occurs twice. Give a text that repeats tokens.")
    mass = (pattern.double() * is_follower.to(pattern.device)).sum(dim=-1)
    return mass[:, has_follower].mean(dim=1)


@torch.no_grad()
def induction_scores(
    model: Model | nn.Module, texts: Sequence[Sequence[int]], *, repeats: Sequence[Sequence[int]] | None = None
) -> tuple[list[HeadId], Float[np.ndarray, "example head"]]:
    """The prefix-matching score of every softmax head on every text, such as random tokens written twice.

    It says where a head looks, not what it does: `head_sweep` measures that.

    Args:
        texts: token ids.
        repeats: texts of the same lengths that say which tokens count as repeated; default: `texts`. With texts that do
            not repeat it gives the score of the same heads at the same places without anything to match.
    Returns:
        (heads by layer, scores).
    Raises:
        ValueError: lengths differ; a text in which no token occurs twice.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()
        >>> heads, scores = induction_scores(model, [[5, 6, 7, 8, 5, 6, 7, 8]])
        >>> len(heads), scores.shape
        (8, (1, 8))
    """
    model = Model.wrap(model)
    repeats = texts if repeats is None else repeats
    if [len(text) for text in texts] != [len(text) for text in repeats]:
        raise ValueError("induction scores: expected `repeats` of the same lengths as `texts`, one for one.")
    layers = model.layout.head_layers
    heads = [HeadId(layer, head) for layer in layers for head in range(model.layout.layers[layer].n_heads)]
    targets = [followers(text) for text in repeats]
    scores = []
    for text, target in zip(texts, targets, strict=True):
        with record(model, [Site("pattern", layer) for layer in layers]) as acts:
            model([list(text)])
        patterns = torch.cat([acts[f"pattern.{layer}"][0] for layer in layers])
        scores.append(prefix_matching(patterns, target).cpu().numpy())
    return heads, np.stack(scores)
