"""Whom steering moves the wrong way: the share of items whose own slope has the wrong sign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from steering.levels import Level
from steering.outcomes import RATE
from steering.strengths import DosePlan


def anti_steerable(margins: Float[np.ndarray, "example row"], groups: Sequence[str], plan: DosePlan) -> Level:
    """Share of items whose margin falls as alpha grows, of every arm [arm], with and without each group.

        slope_i = sum_a (a - mean a) · margin_i(a) / sum_a (a - mean a)²;    anti-steerable: slope_i < 0

    0.5 is what a direction without any meaning has. Margin: log p(toward) - log p(away) (`Outcomes.margin`).

    Args:
        margins, groups: of the items that have sides, and of no others.
    Raises:
        ValueError: no item has sides, or fewer than two groups.
    Source: Tan et al., arXiv 2407.12404, §4.
    """
    if not len(margins):
        raise ValueError("anti-steerable share: no item has labels for both sides of the direction.")
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups: expected at least 2 for an interval, got {len(names)}.")
    alphas = np.array(plan.alphas)
    wrong = (margins[:, plan.rows] @ (alphas - alphas.mean()) < 0).astype(float)  # [example, arm]
    top, size = np.zeros((len(names), wrong.shape[1])), np.bincount(codes).astype(float)[:, None]
    np.add.at(top, codes, wrong)
    left_out = (top.sum(axis=0) - top) / (size.sum() - size)
    return Level(wrong.mean(axis=0), left_out, np.broadcast_to(size, top.shape), RATE)
