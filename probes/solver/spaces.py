"""The two coordinate systems in which the batch is solved, and what is prepared in them: centre, scale, preconditioner.

A vector w is stored as coordinates; its image is the logits it gives, f = X D w. A gradient is stored as its
coordinates and its covector, the form that pairs with coordinates: <u, g> = u · covector(g).

    primal   coordinates are D-scaled weights [d_feature]; covector = coordinates; two products with X per step
    Gram     w = D Xᵀ a, coordinates a [example]; covector(v) = K v = image(v); one product with K = X D² Xᵀ

The curvature of a problem is I + D Xᵀ diag(c·p(1-p)) X D. Activations have a few directions with most of the variance,
which set the condition number; flattening them (the preconditioner: the top of the spectrum by randomised subspace
iteration) saves most iterations for a few products with `rank` columns. The basis only changes the path, never the
minimum, so it may be rough: one common scale, one power iteration, held-out examples included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

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
    # sum(dtype=float64) widens while it adds: no copy of a bf16 matrix in float64 is made
    mean = (
        feats.double().mean(dim=0)
        if feats.dtype == torch.float64
        else feats.sum(dim=0, dtype=torch.float64) / len(feats)
    )
    if not bool(mean.isfinite().all()):
        bad = (~feats.isfinite().all(dim=1)).nonzero()[:, 0]
        raise ValueError(
            f"feats: expected finite numbers, got NaN or infinity in {len(bad)} of {len(feats)} rows (first at "
            f"row {int(bad[0]) if len(bad) else 0}). Drop those rows and their labels, or find out why the model "
            "produced them."
        )
    # cast before subtracting: in bf16 the difference would keep the 8 bits of the large activation
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
        is_constant = variance <= 1e-13 * second  # rounding of a constant column, which 1/std would blow up to 1
        out[:, start : start + COLUMNS] = torch.where(is_constant, torch.ones_like(second), variance.rsqrt())
    return out


Batch: TypeAlias = Float[Tensor, "problem output _"]


@dataclass(frozen=True)
class Preconditioner:
    """M⁻¹ = I + V diag(shrink) Vᵀ with orthonormal V: the top of the spectrum of X D, lowered to its own last value.

        shrink_pj = (1 + kappa_p·lambda_rank)/(1 + kappa_p·lambda_j) - 1;   kappa_p = mean_i c_i · p(1-p) at logit 0

    Lowered to the last kept curvature, not to 1: what is left above 1 outside the basis would otherwise set the
    condition number against directions that are too flat.

    Attributes:
        basis:  V in coordinates of the space [n, rank].
        images: covectors of the basis [n, rank]; the basis itself in the primal space.
        shrink: [problem, rank].
    """

    basis: Tensor
    images: Tensor
    shrink: Tensor

    def parts(self, covector: Batch) -> Tensor:
        return (covector @ self.basis) * self.shrink[:, None]

    def select(self, kept: Tensor) -> Preconditioner:
        return replace(self, shrink=self.shrink[kept])


@dataclass(frozen=True)
class Primal:
    """feats [example, d_feature] once for all problems, scale [problem, d_feature] per problem.

    `images_combine` says whether the image of a combination is combined from known images or multiplied out;
    `gradient` gives (coordinates, covector) of w + D Xᵀ r, `precondition` (coordinates, image) of M⁻¹ g, the image
    only where images combine; `select` keeps some problems of the batch.
    """

    feats: Float[Tensor, "example d_feature"]
    scale: Float[Tensor, "problem d_feature"]
    preconditioner: Preconditioner | None = None
    images_combine = False

    @property
    def n_coordinates(self) -> int:
        return self.feats.shape[1]

    def image(self, coords: Batch) -> Batch:
        scaled = coords * self.scale[:, None]
        return (scaled.flatten(0, 1) @ self.feats.T).view(*coords.shape[:2], -1)

    def gradient(self, coords: Batch, image: Batch, residuals: Batch) -> tuple[Batch, Batch]:
        pulled = (residuals.flatten(0, 1) @ self.feats).view_as(coords)
        g = torch.addcmul(coords, pulled, self.scale[:, None])
        return g, g

    def precondition(self, coords: Batch, covector: Batch) -> tuple[Batch, Batch]:
        if self.preconditioner is None:
            return coords, coords
        g = coords + self.preconditioner.parts(covector) @ self.preconditioner.basis.T
        return g, g

    def select(self, kept: Tensor) -> Primal:
        inner = None if self.preconditioner is None else self.preconditioner.select(kept)
        return Primal(self.feats, self.scale[kept], inner)


@dataclass(frozen=True)
class Gram:
    """K [example, example] of one scale, shared by every problem of the batch; methods as in `Primal`."""

    kernel: Float[Tensor, "example example"]
    preconditioner: Preconditioner | None = None
    images_combine = True

    @property
    def n_coordinates(self) -> int:
        return self.kernel.shape[0]

    def image(self, coords: Batch) -> Batch:
        return (coords.flatten(0, 1) @ self.kernel).view_as(coords)

    def gradient(self, coords: Batch, image: Batch, residuals: Batch) -> tuple[Batch, Batch]:
        return coords + residuals, image + self.image(residuals)

    def precondition(self, coords: Batch, covector: Batch) -> tuple[Batch, Batch]:
        if self.preconditioner is None:
            return coords, covector
        parts = self.preconditioner.parts(covector)
        return coords + parts @ self.preconditioner.basis.T, covector + parts @ self.preconditioner.images.T

    def select(self, kept: Tensor) -> Gram:
        inner = None if self.preconditioner is None else self.preconditioner.select(kept)
        return Gram(self.kernel, inner)


Space: TypeAlias = Primal | Gram


def symmetric_product(rows: Float[Tensor, "n d"], *, blocks: int = 8) -> Float[Tensor, "n n"]:
    """rows · rowsᵀ with the lower half copied, not computed: (blocks + 1)/(2·blocks) of the multiplications."""
    n = rows.shape[0]
    if n < 64 * blocks:  # small blocks run slower than the multiplications they save
        return rows @ rows.T
    out = rows.new_empty(n, n)
    edges = [n * i // blocks for i in range(blocks + 1)]
    for start, stop in pairwise(edges):
        out[start:stop, start:] = rows[start:stop] @ rows[start:].T
        out[stop:, start:stop] = out[start:stop, stop:].T
    return out


OVERSAMPLE = 8


def curvature_at_zero(n_outputs: int) -> float:
    """p(1 - p) at equal logits: 1/4 for one output, (1/k)(1 - 1/k) for k classes."""
    p = 0.5 if n_outputs == 1 else 1 / n_outputs
    return p * (1 - p)


def primal_preconditioner(
    feats: Float[Tensor, "example d_feature"],
    scale: Float[Tensor, "d_feature"],
    kappa: Float[Tensor, "problem"],
    *,
    rank: int,
) -> Preconditioner:
    """Ritz pairs of D Xᵀ X D in the span of two products with random vectors.

    Source: Halko, Martinsson & Tropp, SIAM Rev. 53 (2011) 217, algorithm 4.4 with q = 1.
    """
    q = _start(feats.shape[0], rank, feats)
    for _ in range(2):
        # QR in every round: without it all columns turn toward the first singular vector
        q = torch.linalg.qr((feats.T @ q) * scale[:, None]).Q
        q = feats @ (q * scale[:, None])
    basis = torch.linalg.qr((feats.T @ q) * scale[:, None]).Q
    images = feats @ (basis * scale[:, None])
    values, turn = _eigh(images.T @ images, rank)
    basis = basis @ turn
    return Preconditioner(basis, basis, _shrink(kappa, values))


def gram_preconditioner(
    kernel: Float[Tensor, "example example"], kappa: Float[Tensor, "problem"], *, rank: int
) -> Preconditioner:
    """The same from K alone: T with TᵀKT = I, so that Xᵀ T is orthonormal in the space of weights."""
    q = torch.linalg.qr(kernel @ _start(kernel.shape[0], rank, kernel)).Q
    q = torch.linalg.qr(kernel @ q).Q
    images = kernel @ q
    values, turn = _eigh(q.T @ images, rank)
    inner = turn / values.sqrt()  # K^{-1/2} in the subspace, so that TᵀKT = I
    # the Ritz value of D Xᵀ X D along Xᵀ T_j is |K T_j|², not the Ritz value of K
    basis, images = q @ inner, images @ inner
    return Preconditioner(basis, images, _shrink(kappa, images.square().sum(dim=0)))


def _start(n: int, rank: int, like: Tensor) -> Tensor:
    # a generator of its own, on the CPU: the path of the solver must not depend on the global seed or the device
    seeded = torch.Generator().manual_seed(0)
    return torch.randn(n, rank + OVERSAMPLE, generator=seeded, dtype=torch.float32).to(like)


def _eigh(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix.double())
    # eigh sorts ascending; directions that are rounding only would be divided by sqrt(0) in the Gram space
    kept = values > 1e-9 * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    kept[: max(0, len(values) - rank)] = False
    return values[kept].to(matrix.dtype), vectors[:, kept].to(matrix.dtype)


def _shrink(kappa: Tensor, values: Tensor) -> Tensor:
    if not len(values):
        return kappa.new_zeros(len(kappa), 0)
    curvature = 1 + kappa[:, None] * values  # 1 is the penalty's own curvature
    return curvature.amin(dim=1, keepdim=True) / curvature - 1
