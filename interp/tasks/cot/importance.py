"""Importance of a sentence: from resampled chains, from suppressed attention, and tiers of the answer's probability.

Source: thought-anchors (resampling and counterfactual importance); its KL is unbounded at 0 and 1, ours is smoothed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.remedy import remedy
from interp.stats import CONFIDENCE, jackknife_limits

TIERS = (("leads", 0.5), ("in play", 0.1), ("low", 0.01), ("absent", 0.0))
"""Name and least probability of a tier: what exact match can reach where three decimals cannot."""


def answer_kl(without: Sequence[str], kept: Sequence[str], *, pseudocount: float = 1.0) -> float:
    """KL in nats of the answers of rollouts without a sentence from those that keep it, Laplace-smoothed.

        KL = sum_a p(a) log p(a)/q(a);   p(a) = (count + c) / (n + c·K),  a over the K answers seen on either side

    Resampling importance: `without` are rollouts from the start of the sentence, `kept` from its end. Counterfactual
    importance: KL divergence over only those rollouts of `without` whose new sentence has a different meaning.

    Raises:
        ValueError: a side without rollouts, or a pseudocount that is not positive.
    """
    if not without or not kept or pseudocount <= 0:
        what = f"got {len(without)} without, {len(kept)} kept, pseudocount {pseudocount}"
        raise ValueError(f"rollouts: expected at least 1 on each side and a pseudocount above 0; {what}.")
    p, q, answers = Counter(without), Counter(kept), sorted({*without, *kept})
    n_p, n_q = (len(side) + pseudocount * len(answers) for side in (without, kept))
    pairs = [((p[a] + pseudocount) / n_p, (q[a] + pseudocount) / n_q) for a in answers]
    return math.fsum(x * math.log(x / y) for x, y in pairs)


@dataclass(frozen=True)
class RolloutImportance:
    """How much resampling a sentence changes the answers, compared with the change due to chance alone.

    Attributes:
        kl, lo, hi: `answer_kl` in nats, with the 95 % interval of the rule (`interp.stats.jackknife`) over
            rollouts; NaN where all answers are alike. The plug-in KL of few rollouts
            is above 0 even for equal distributions, so read it against `null_mean`, not against 0.
        null_mean, p: mean of the KL when rollouts are dealt to the two sides at random; share of deals at least as
            large, (1 + hits) / (1 + deals).
        right_without, right_kept: shares of rollouts with the gold answer.
    """

    kl: float
    lo: float
    hi: float
    null_mean: float
    p: float
    right_without: float
    right_kept: float
    n_without: int
    n_kept: int


def rollout_importance(
    without: Sequence[str], kept: Sequence[str], gold: str, *, seed: int, n_draws: int = 400
) -> RolloutImportance:
    """Importance of a sentence from rollouts that resample it and rollouts that keep it.

    Raises:
        ValueError: fewer than 2 rollouts on a side.
    Source: thought-anchors, resampling importance; interval and null are ours.
    """
    if min(len(without), len(kept)) < 2:
        raise ValueError(f"rollouts: expected 2 or more on each side, got {len(without)} and {len(kept)}.")
    rng = np.random.default_rng(seed)
    without, kept = list(without), list(kept)
    every = np.array(without + kept, dtype=object)
    value = answer_kl(without, kept)
    nulls = []
    for _ in range(n_draws):
        dealt = rng.permutation(every)
        nulls.append(answer_kl(list(dealt[: len(without)]), list(dealt[len(without) :])))
    p = (1 + sum(null >= value - 1e-12 for null in nulls)) / (1 + n_draws)
    left_out = [answer_kl(without[:i] + without[i + 1 :], kept) for i in range(len(without))]
    left_out += [answer_kl(without, kept[:i] + kept[i + 1 :]) for i in range(len(kept))]
    lo, hi = map(
        float,
        jackknife_limits(
            np.asarray(value), np.array(left_out), effective=len(left_out), confidence=CONFIDENCE, bounds=(0.0, np.inf)
        ),
    )
    right, still = (sum(answer == gold for answer in side) / len(side) for side in (without, kept))
    sizes = {"n_without": len(without), "n_kept": len(kept)}
    return RolloutImportance(value, lo, hi, float(np.mean(nulls)), p, right_without=right, right_kept=still, **sizes)


def says_something_else(new: str, old: str, *, limit: float = 0.8) -> bool:
    """Whether two sentences share less than `limit` of their words, as the cosine of their word counts.

    A stand-in for the embedding of the source (all-MiniLM-L6-v2, cosine below 0.8); pass your own to
    `interp.chains.resampling_importance` where you have one.
    """
    a, b = (Counter(re.findall(r"\w+", text.casefold())) for text in (new, old))
    norm = math.sqrt(sum(c * c for c in a.values()) * sum(c * c for c in b.values()))
    return norm == 0 or sum(a[w] * b[w] for w in a) / norm < limit


def percentile_tiers(importances: Sequence[float], *, top: float = 0.3) -> list[str]:
    """ "anchor" for the most important share of one problem's sentences, else "other": never one class per problem.

    Raises:
        ValueError: fewer than 2 sentences, or a share outside (0, 1).
    """
    if len(importances) < 2 or not 0 < top < 1:
        raise ValueError(f"importances: expected 2 or more and a share in (0, 1), got {len(importances)} and {top}.")
    n_top = min(max(1, round(top * len(importances))), len(importances) - 1)
    order = sorted(range(len(importances)), key=lambda i: (-importances[i], i))
    anchors = set(order[:n_top])
    return ["anchor" if i in anchors else "other" for i in range(len(importances))]


def answer_tier(p_answer: float) -> str:
    """Tier of the probability that a logit lens gives to the first token of the answer at a sentence's end.

    Raises:
        ValueError: not a probability.
    """
    if not 0 <= p_answer <= 1:
        raise ValueError(f"p_answer: expected a probability, got {p_answer}. Pass a softmax, not a logit.")
    return next(name for name, least in TIERS if p_answer >= least)


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
        raise ValueError("mask: a token may attend to a later one. Combine it with the causal mask.")
    if not bool(mask.diagonal(dim1=-2, dim2=-1).all()):
        raise ValueError("mask: a token may not attend to itself. Keep the diagonal.")


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
    attention_mask = _as_taken(module, mask)[None, None]
    out = run(input_ids=ids[None], attention_mask=attention_mask, use_cache=False)
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
        temperature: temperature of both distributions; the v2 corpora used 0.6.
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
