"""Count, mean and scatter of rows in float64, one block at a time; two of them merge into that of all rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """n rows with mean m and scatter S = Σ (x - m)(x - m)ᵀ (its diagonal alone where `scatter` has one axis).

        (n, m, S) + (n', m', S') = (N, m + (n'/N) δ, S + S' + (n n'/N) δ δᵀ),   N = n + n', δ = m' - m

    Source: Chan, Golub & LeVeque 1979; exact in exact arithmetic, and no sum of squares ever cancels.
    """

    n: int
    mean: Float[Tensor, "d_model"]
    scatter: Float[Tensor, "d_model"] | Float[Tensor, "d_model d_model"]

    @classmethod
    def of(cls, feats: Float[Tensor, "row d_model"], *, full: bool = False) -> Moments:
        """Of a block of rows, in any dtype. `full` keeps the whole scatter matrix, not its diagonal alone."""
        wide = feats.detach().cpu().double()
        if wide.ndim != 2:
            raise ValueError(f"feats: expected [row, d_model], got shape {tuple(feats.shape)}.")
        d = wide.shape[1]
        if not len(wide):
            return cls(0, wide.new_zeros(d), wide.new_zeros(d, d) if full else wide.new_zeros(d))
        mean = wide.mean(dim=0)
        centred = wide - mean
        return cls(len(wide), mean, centred.T @ centred if full else centred.square().sum(dim=0))

    def __add__(self, other: Moments) -> Moments:
        if self.scatter.shape != other.scatter.shape:
            raise ValueError(
                f"moments of other shapes cannot be merged: scatter {list(self.scatter.shape)} and "
                f"{list(other.scatter.shape)}. Use one width, and full=True on both sides or on neither."
            )
        n = self.n + other.n
        if not self.n or not other.n:
            return other if not self.n else self
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) if self.is_full else delta.square()
        weight = self.n * other.n / n
        return Moments(n, self.mean + delta * (other.n / n), self.scatter + other.scatter + weight * between)

    @property
    def is_full(self) -> bool:
        return self.scatter.ndim == 2


def pooled_covariance(parts: list[Moments], *, shrinkage: float = 0.1) -> Float[Tensor, "d_model d_model"]:
    """Within-class covariance of several classes, shrunk toward the identity, float64.

        Σ = (1 - λ) S + λ (tr S / d) I,     S = Σ_c S_c / Σ_c (n_c - 1)

    Args:
        parts: full moments of each class.
        shrinkage: λ in [0, 1]; above 0 it makes Σ positive definite where there are fewer rows than dimensions.
    Raises:
        ValueError: moments without the whole scatter, fewer than 2 rows in every class, or a bad shrinkage.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage: expected a number from 0 to 1, got {shrinkage}.")
    if not parts or not all(one.is_full for one in parts):
        raise ValueError("expected moments with the whole scatter matrix: Moments.of(feats, full=True).")
    freedom = sum(one.n - 1 for one in parts if one.n)
    if freedom < 1:
        raise ValueError(f"expected at least 2 rows in a class, got {[one.n for one in parts]}.")
    within = torch.stack([one.scatter for one in parts]).sum(dim=0) / freedom
    eye = torch.eye(len(within), dtype=within.dtype)
    return (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * eye
