"""Fit all logistic problems on one activation matrix, in raw units, each with a certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.solver.minimise import MEMORY, Minimum, minimise
from probes.solver.spaces import (
    Gram,
    Primal,
    centred,
    curvature_at_zero,
    gram_preconditioner,
    inverse_std,
    primal_preconditioner,
    symmetric_product,
)

Backend = Literal["auto", "primal", "gram"]
TOL = 1e-3
BUDGET = 512 * 2**20
MAX_RANK = 128
STEPS_GUESS = 20
"""Mean steps per problem at tol 1e-3 that the choice of a back end assumes."""
SKINNY = 4.0
"""How much slower a product with a few dozen rows runs than a square one, per multiplication."""


class NotConvergedWarning(UserWarning):
    """Some problems stopped above the tolerance; see their certificates."""


@dataclass(frozen=True)
class Fit:
    """Solved problems in raw units: logits = feats · coefᵀ + intercept.

    Attributes:
        coef:        [problem, output, d_feature]; intercept [problem, output].
        logits:      logits of every example, including held-out ones [problem, output, example].
        scale:       1/std that each problem was penalised in [problem, d_feature].
        certificate: bound on ‖w - w*‖/‖w‖ of the standardised weights w = coef/scale [problem].
        coords:      the minimiser's own coordinates, to start a nearby batch from.
        flops:       multiplications and additions of the matrix products, from the number of steps.
    """

    coef: Float[Tensor, "problem output d_feature"]
    intercept: Float[Tensor, "problem output"]
    logits: Float[Tensor, "problem output example"]
    scale: Float[Tensor, "problem d_feature"]
    certificate: Float[Tensor, "problem"]
    n_iter: Int[Tensor, "problem"]
    is_converged: Bool[Tensor, "problem"]
    coords: Float[Tensor, "problem output n"]
    backend: str
    flops: float


def choose_backend(*, n: int, d: int, n_problems: int, n_scales: int) -> Literal["primal", "gram"]:
    """The cheaper of the two coordinate systems, by counted multiplications.

        primal  4·n·d·sum(steps)             Gram  n_scales·n²·d/SKINNY + 2·n²·sum(steps)

    Gram is not offered for n > d, where K is singular and single precision loses the certificate.
    """
    steps = STEPS_GUESS * n_problems
    primal, gram = 4.0 * n * d * steps, n_scales * 1.0 * n * n * d / SKINNY + 2.0 * n * n * steps
    return "gram" if n <= d and gram < primal else "primal"


def solve(
    feats: Float[Tensor, "example d_feature"],
    targets: Float[Tensor, "problem output example"],
    weights: Float[Tensor, "problem example"],
    *,
    scale_weights: Float[Tensor, "scale example"] | None,
    scale_of: Int[Tensor, "problem"] | None = None,
    tol: float = TOL,
    max_iter: int = 2000,
    backend: Backend = "auto",
    start: Fit | None = None,
    budget: int = BUDGET,
    dtype: torch.dtype = torch.float32,
) -> Fit:
    """Minimise  ½‖w‖² + sum_i c_i·loss(w·(x_i/std) + b, y_i)  for all problems at once; see `minimise`.

    With c_i = C·class_weight_i·[i in training fold] and the fold as its scale set, this is exactly scikit-learn's
    make_pipeline(StandardScaler(), LogisticRegression(C=C, class_weight=...)) on that fold.

    Args:
        feats: activations, any float dtype; centred in `dtype`.
        targets: 0/1; one output (binary) or one per class.
        weights: c_i >= 0 in units of C; expanded views are fine, chunks are copied.
        scale_weights: rows that each std is taken over [scale, example]; None leaves features as they are.
        scale_of: which of them a problem uses; may be left out when there is one.
        start: a fit of the same problems (another C) from the same back end.
        budget: bytes for the minimiser's vectors; problems are solved in chunks below it.
    Raises:
        ValueError: NaN, a problem whose weighted rows all have one class, shapes that do not fit, TF32 on.
    Warns:
        NotConvergedWarning: some certificate is above `tol`.
    Source: objective and bound in `minimise`; equality with scikit-learn in tests/test_probe_solver.py.
    """
    _check(feats, targets, weights)
    rows, mean = centred(feats, dtype)
    targets, weights = targets.to(dtype), weights.to(dtype)
    scales = rows.new_ones(1, rows.shape[1]) if scale_weights is None else inverse_std(rows, scale_weights)
    of = torch.zeros(len(targets), dtype=torch.long, device=rows.device) if scale_of is None else scale_of
    if backend == "auto":
        shape: dict[str, Any] = dict(
            n=len(rows), d=rows.shape[1], n_problems=len(targets) * targets.shape[1], n_scales=len(scales)
        )
        backend = choose_backend(**shape)
    solver = _solve_primal if backend == "primal" else _solve_gram
    fit = solver(rows, targets, weights, scales, of, tol, max_iter, None if start is None else start.coords, budget)
    if not bool(fit.is_converged.all()):
        worst = float(fit.certificate[~fit.is_converged].max())
        more = "" if dtype == torch.float64 else ", or dtype=torch.float64"
        warnings.warn(
            f"{int((~fit.is_converged).sum())} of {len(targets)} probes stopped above tol={tol:g} (worst bound on the "
            f"relative error: {worst:.2g}). Use a smaller C or more steps{more}.",
            NotConvergedWarning,
            stacklevel=2,
        )
    return _uncentred(fit, mean)


def _check(feats: Tensor, targets: Tensor, weights: Tensor) -> None:
    if targets.shape[2] != len(feats) or weights.shape != (targets.shape[0], len(feats)):
        raise ValueError(
            f"expected targets [problem, output, {len(feats)}] and weights [problem, {len(feats)}] for the rows of "
            f"feats, got {tuple(targets.shape)} and {tuple(weights.shape)}."
        )
    if feats.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        raise ValueError(
            "solve: TF32 products are switched on; their 10-bit mantissa breaks the certificate. Call "
            "torch.set_float32_matmul_precision('highest') first."
        )
    # a problem without one of its classes has no finite optimum: the intercept would run away
    seen = torch.einsum("pki,pi->pk", targets, (weights > 0).to(targets.dtype))
    total = (weights > 0).sum(dim=1, keepdim=True)
    is_constant = ((seen <= 0) | ((targets.shape[1] == 1) & (seen >= total))).any(dim=1)
    if bool(is_constant.any()):
        first = int(is_constant.nonzero()[0, 0])
        raise ValueError(
            f"problem {first}: its {int(total[first])} training rows do not contain every class (rows per "
            f"output: {seen[first].tolist()}); a probe cannot be fitted. Use fewer folds, stratify by label, or "
            "drop the class."
        )


def _chunk(n_problems: int, bytes_each: int, budget: int) -> list[slice]:
    size = max(1, budget // max(1, bytes_each))
    return [slice(at, min(at + size, n_problems)) for at in range(0, n_problems, size)]


def _rank(n: int, d: int, n_problems: int) -> int:
    return 0 if min(n, d) < 64 else min(MAX_RANK, n // 4, d // 4, 32 * n_problems)


def _kappa(targets: Tensor, weights: Tensor) -> Tensor:
    return weights.mean(dim=1) * curvature_at_zero(targets.shape[1])


def _solve_primal(
    rows: Tensor,
    targets: Tensor,
    weights: Tensor,
    scales: Tensor,
    of: Tensor,
    tol: float,
    max_iter: int,
    start: Tensor | None,
    budget: int,
) -> Fit:
    (n, d), (p, k, _) = rows.shape, targets.shape
    rank, basis = _rank(n, d, p * k), None
    if rank:  # one basis of the mean scale for all problems: it changes the path, never the optimum
        basis = primal_preconditioner(rows, scales.mean(dim=0), _kappa(targets, weights), rank=rank)
    parts = []
    for at in _chunk(p, rows.element_size() * k * ((2 * MEMORY + 8) * d + 10 * n), budget):
        own = None if basis is None else basis.select(torch.arange(p, device=rows.device)[at])
        space = Primal(rows, scales[of[at]], own)
        begin = None if start is None else start[at]
        parts.append(minimise(space, targets[at], weights[at], tol=tol, max_iter=max_iter, start=begin))
    minimum = _joined(parts)
    scale, steps = scales[of], float(minimum.n_iter.sum()) * k
    flops = 4.0 * n * d * steps + 10.0 * n * d * (rank + 8) * (rank > 0)
    return _fit(minimum, minimum.coords * scale[:, None], scale, "primal", flops)


def _solve_gram(
    rows: Tensor,
    targets: Tensor,
    weights: Tensor,
    scales: Tensor,
    of: Tensor,
    tol: float,
    max_iter: int,
    start: Tensor | None,
    budget: int,
) -> Fit:
    (n, d), (p, k, _) = rows.shape, targets.shape
    parts, order, flops = [], [], 0.0
    coef = rows.new_empty(p, k, d)
    for s in range(len(scales)):
        mine = (of == s).nonzero()[:, 0]
        if not len(mine):
            continue
        kernel = symmetric_product(rows * scales[s])
        rank, basis = _rank(n, d, len(mine) * k), None
        if rank:
            basis = gram_preconditioner(kernel, _kappa(targets[mine], weights[mine]), rank=rank)
        flops += 1.125 * n * n * d + 6.0 * n * n * (rank + 8) * (rank > 0)
        for at in _chunk(len(mine), rows.element_size() * k * (4 * MEMORY + 18) * n, budget):
            chosen = mine[at]
            own = None if basis is None else basis.select(torch.arange(len(mine), device=rows.device)[at])
            begin = None if start is None else start[chosen]
            minimum = minimise(
                Gram(kernel, own), targets[chosen], weights[chosen], tol=tol, max_iter=max_iter, start=begin
            )
            # back from examples to features: w = D Xᵀ a, and coef = D w
            coef[chosen] = (minimum.coords.flatten(0, 1) @ rows).view(-1, k, d) * scales[s].square()
            flops += 2.0 * n * n * float(minimum.n_iter.sum()) * k
            parts.append(minimum)
            order.append(chosen)
    back = torch.cat(order).argsort()  # problems were solved scale by scale; the caller's order is restored
    minimum = Minimum(*(value[back] for value in vars(_joined(parts)).values()))
    return _fit(minimum, coef, scales[of], "gram", flops)


def _joined(parts: list[Minimum]) -> Minimum:
    return Minimum(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def _fit(minimum: Minimum, coef: Tensor, scale: Tensor, backend: str, flops: float) -> Fit:
    logits = minimum.images + minimum.intercept[..., None]
    return Fit(
        coef,
        minimum.intercept,
        logits,
        scale,
        minimum.certificate,
        minimum.n_iter,
        minimum.is_converged,
        minimum.coords,
        backend,
        flops,
    )


def _uncentred(fit: Fit, mean: Tensor) -> Fit:
    """Raw-space intercept: b - coef · mean."""
    intercept = fit.intercept.double() - fit.coef.double() @ mean.double()
    return Fit(**{**vars(fit), "intercept": intercept.to(fit.intercept.dtype)})
