"""Centre once, scale per training set: what StandardScaler does, for every fold of a batch at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

COLUMNS = 256


def centred(
    feats: Float[Tensor, "example d_feature"], dtype: torch.dtype
) -> tuple[Float[Tensor, "example d_feature"], Float[Tensor, "d_feature"]]:
    """(feats - mean, mean) in `dtype`; the mean is accumulated in float64.

    The intercept is not penalised, so the centre has no effect on any optimum: it only keeps rounding small.

    Raises:
        ValueError: NaN or infinity, with the first row that has one.
    """
    mean = (
        feats.double().mean(dim=0)
        if feats.dtype == torch.float64
        else feats.sum(dim=0, dtype=torch.float64) / len(feats)
    )
    if not bool(mean.isfinite().all()):
        bad = (~feats.isfinite().all(dim=1)).nonzero()[:, 0]
        raise ValueError(
            f"feats: expected finite numbers, got NaN or infinity in {len(bad)} of {len(feats)} rows (first at row "
            f"{int(bad[0]) if len(bad) else 0}). Drop those rows and their labels, or find out why the model gave them."
        )
    return feats.to(dtype) - mean.to(dtype), mean.to(dtype)


def inverse_std(
    feats: Float[Tensor, "example d_feature"], weights: Float[Tensor, "scale example"]
) -> Float[Tensor, "scale d_feature"]:
    """1/std of every feature on each weighted set of rows; 1 for a feature that is constant there.

        var = sum_i w_i x_i² / sum w - (sum_i w_i x_i / sum w)²      float64, as StandardScaler (ddof 0)

    Args:
        feats: already centred, so that the difference does not cancel.
        weights: 1 for a training row, 0 for a held-out one; counts where rows are repeated.
    """
    share = weights.double() / weights.double().sum(dim=1, keepdim=True)
    out = feats.new_empty(len(weights), feats.shape[1])
    for start in range(0, feats.shape[1], COLUMNS):
        block = feats[:, start : start + COLUMNS].double()
        second = share @ block.square()
        variance = second - (share @ block).square()
        is_constant = variance <= 1e-13 * second
        out[:, start : start + COLUMNS] = torch.where(is_constant, torch.ones_like(second), variance.rsqrt())
    return out
