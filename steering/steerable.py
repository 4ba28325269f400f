"""Whom steering moves the wrong way: the share of items whose own slope has the wrong sign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.stats import Estimate, cluster_means
from steering.strengths import DosePlan


def anti_steerable(
    margins: Float[np.ndarray, "example row"],
    groups: Sequence[str],
    plan: DosePlan,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> dict[int, Estimate]:
    """Arm -> share of items whose margin falls as alpha grows, with a cluster-bootstrap interval.

        slope_i = sum_a (a - mean a) · margin_i(a) / sum_a (a - mean a)²;    anti-steerable: slope_i < 0

    0.5 is what a direction without any meaning has. Margin: log p(toward) - log p(away) (`Outcomes.margin`).

    Raises:
        ValueError: no item has sides, or fewer than two groups.
    Source: Tan et al., arXiv 2407.12404, §4.
    """
    if not len(margins):
        raise ValueError("anti-steerable share: no item has labels for both sides of the direction.")
    alphas = np.array(plan.alphas)
    contrast = alphas - alphas.mean()
    slopes = margins[:, plan.rows] @ contrast  # [example, arm]
    found = cluster_means((slopes < 0).astype(float), groups=groups, seed=seed, n_resamples=n_resamples)
    return {arm: found.at(arm) for arm in range(len(plan.arms))}
