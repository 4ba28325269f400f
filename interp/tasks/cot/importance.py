"""Statistics of resampled chains, and tiers of an answer that a logit lens reads: pure functions of counts and numbers.

Source: thought-anchors (resampling and counterfactual importance); its KL is unbounded at 0 and 1, ours is smoothed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats import CONFIDENCE, jackknife_limits

TIERS = (("leads", 0.5), ("in play", 0.1), ("low", 0.01), ("absent", 0.0))
"""Name and least probability of a tier: what exact match can reach where three decimals cannot."""


def answer_kl(without: Sequence[str], kept: Sequence[str], *, pseudocount: float = 1.0) -> float:
    """KL in nats of the answers of rollouts without a sentence from those that keep it, Laplace-smoothed.

        KL = sum_a p(a) log p(a)/q(a);   p(a) = (count + c) / (n + c·K),  a over the K answers seen on either side

    Resampling importance: `without` are rollouts from the start of the sentence, `kept` from its end. Counterfactual
    importance: of `without`, only those whose new sentence says something else.

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
    """What leaving a sentence to chance changes in the answers, beside what chance alone changes.

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
    lo, hi = map(float, jackknife_limits(np.asarray(value), np.array(left_out), effective=len(left_out),
                                         confidence=CONFIDENCE, bounds=(0.0, np.inf)))  # fmt: skip
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
