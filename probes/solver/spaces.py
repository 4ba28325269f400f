"""The two coordinate systems in which the batch is solved: weights of features (primal), or of examples (Gram).

A vector w is held by coordinates; its image is the logits it gives, f = X D w. A gradient is held by its
coordinates and by its covector, the form that pairs with coordinates: <u, g> = u · covector(g).

    primal   coordinates are D-scaled weights [d_feature]; covector = coordinates; two products with X per step
    Gram     w = D Xᵀ a, coordinates a [example]; covector(v) = K v = image(v); one product with K = X D² Xᵀ
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

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
    if n < 64 * blocks:
        return rows @ rows.T
    out = rows.new_empty(n, n)
    edges = [n * i // blocks for i in range(blocks + 1)]
    for start, stop in pairwise(edges):
        out[start:stop, start:] = rows[start:stop] @ rows[start:].T
        out[stop:, start:stop] = out[start:stop, stop:].T
    return out
