"""The top of a spectrum by randomised subspace iteration, as a preconditioner for either space.

The curvature of a problem is I + D Xᵀ diag(c·p(1-p)) X D. Activations have a few directions with most of the
variance, and those set the condition number; flattening them saves most iterations at the price of a few
products with `rank` columns. The basis only changes the path, never the minimum, so it may be rough: one common
scale, one power iteration, held-out examples included.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from probes.solver.spaces import Preconditioner

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
    inner = turn / values.sqrt()
    # the Ritz value of D Xᵀ X D along Xᵀ T_j is |K T_j|², not the Ritz value of K
    basis, images = q @ inner, images @ inner
    return Preconditioner(basis, images, _shrink(kappa, images.square().sum(dim=0)))


def _start(n: int, rank: int, like: Tensor) -> Tensor:
    seeded = torch.Generator().manual_seed(0)
    return torch.randn(n, rank + OVERSAMPLE, generator=seeded, dtype=torch.float32).to(like)


def _eigh(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix.double())
    kept = values > 1e-9 * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    kept[: max(0, len(values) - rank)] = False
    return values[kept].to(matrix.dtype), vectors[:, kept].to(matrix.dtype)


def _shrink(kappa: Tensor, values: Tensor) -> Tensor:
    if not len(values):
        return kappa.new_zeros(len(kappa), 0)
    curvature = 1 + kappa[:, None] * values
    return curvature.amin(dim=1, keepdim=True) / curvature - 1
