"""Statistics of resampled chains, and tiers of an answer that a logit lens reads: pure functions of counts and numbers.

Source: thought-anchors (resampling and counterfactual importance); its KL is unbounded at 0 and 1, ours is smoothed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

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
        what = f"came {len(without)} without, {len(kept)} kept, pseudocount {pseudocount}"
        raise ValueError(f"rollouts: expected at least 1 on each side and a pseudocount above 0; {what}.")
    p, q, answers = Counter(without), Counter(kept), sorted({*without, *kept})
    n_p, n_q = (len(side) + pseudocount * len(answers) for side in (without, kept))
    pairs = [((p[a] + pseudocount) / n_p, (q[a] + pseudocount) / n_q) for a in answers]
    return math.fsum(x * math.log(x / y) for x, y in pairs)


def percentile_tiers(importances: Sequence[float], *, top: float = 0.3) -> list[str]:
    """ "anchor" for the most important share of one problem's sentences, else "other": never one class per problem.

    Raises:
        ValueError: fewer than 2 sentences, or a share outside (0, 1).
    """
    if len(importances) < 2 or not 0 < top < 1:
        raise ValueError(f"importances: expected 2 or more and a share in (0, 1), came {len(importances)} and {top}.")
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
        raise ValueError(f"p_answer: expected a probability, came {p_answer}. Pass a softmax, not a logit.")
    return next(name for name, least in TIERS if p_answer >= least)
