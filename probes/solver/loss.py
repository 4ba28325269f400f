"""Log loss of many problems at once, with each problem's intercept solved for.

A problem has one output per row (binary, a logit) or one output per class (multinomial). Both are held as
[problem, output, example]; the number of outputs says which loss is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MAX_STEP = 8.0
"""Longest move of an intercept in one Newton step, in nats."""


@dataclass(frozen=True)
class Evaluation:
    """The loss at the best intercept, and its derivative by the logits."""

    intercept: Float[Tensor, "problem output"]
    loss: Float[Tensor, "problem"]
    residuals: Float[Tensor, "problem output example"]


def class_probabilities(logits: Float[Tensor, "problem output example"]) -> Float[Tensor, "problem output example"]:
    """Sigmoid of the one logit, or softmax over outputs."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def log_loss(
    logits: Float[Tensor, "problem output example"],
    targets: Float[Tensor, "problem output example"],
    weights: Float[Tensor, "problem example"],
) -> Float[Tensor, "problem"]:
    """sum_i c_i · [softplus(z_i) - y_i z_i], or sum_i c_i · [logsumexp_k z_ik - sum_k y_ik z_ik], in nats."""
    if logits.shape[1] == 1:
        z, y = logits[:, 0], targets[:, 0]
        return (weights * (torch.nn.functional.softplus(z) - y * z)).sum(dim=-1)
    return (weights * (logits.logsumexp(dim=1) - (targets * logits).sum(dim=1))).sum(dim=-1)


def evaluate(
    images: Float[Tensor, "problem output example"],
    targets: Float[Tensor, "problem output example"],
    weights: Float[Tensor, "problem example"],
    start: Float[Tensor, "problem output"],
    *,
    max_steps: int = 40,
) -> Evaluation:
    """Minimise the loss over the intercept with the images (logits without intercept) held fixed.

        r = c · (p - y);   Newton on sum_i r_i = 0, one dimension per output

    One output: a step that leaves the bracket given by the signs seen so far becomes a bisection, so the search
    always ends. Several outputs: the Hessian's null direction (equal shift of all outputs) is filled, hence the
    intercepts keep the sum they started with.

    A problem with one class only runs to `max_steps`; callers refuse it before.
    """
    exact = 2e-6 if images.dtype == torch.float32 else 1e-14
    # warm start: the intercept of the last step is nearly right, so that one or two Newton steps are enough
    b, bracket = start, (torch.full_like(start, -torch.inf), torch.full_like(start, torch.inf))
    for _ in range(max_steps):
        p = class_probabilities(images + b[..., None])
        residuals = weights[:, None] * (p - targets)
        slope = residuals.sum(dim=-1)
        if bool((slope.abs() <= exact * residuals.abs().sum(dim=-1)).all()):
            break
        if images.shape[1] == 1:
            b, bracket = _bracketed_step(b, slope, (weights * p[:, 0] * (1 - p[:, 0])).sum(dim=-1), bracket)
        else:
            b = b - _joint_step(p, weights, slope)
    else:
        residuals = weights[:, None] * (class_probabilities(images + b[..., None]) - targets)
    return Evaluation(b, log_loss(images + b[..., None], targets, weights), residuals)


Bracket = tuple[Tensor, Tensor]


def _bracketed_step(b: Tensor, slope: Tensor, curvature: Tensor, bracket: Bracket) -> tuple[Tensor, Bracket]:
    low, high = torch.where(slope <= 0, b, bracket[0]), torch.where(slope >= 0, b, bracket[1])
    # far from the optimum all p are 0 or 1 and the curvature vanishes: the step is clamped, the bracket does the rest
    step = slope / curvature[:, None].clamp_min(torch.finfo(b.dtype).tiny)
    proposed = b - step.clamp(-MAX_STEP, MAX_STEP)
    outside = ((proposed <= low) | (proposed >= high)) & low.isfinite() & high.isfinite()
    return torch.where(outside, (low + high) / 2, proposed), (low, high)


def _joint_step(p: Tensor, weights: Tensor, slope: Tensor) -> Tensor:
    weighted = p * weights[:, None]
    hessian = torch.diag_embed(weighted.sum(dim=-1)) - weighted @ p.transpose(1, 2)
    size = hessian.diagonal(dim1=1, dim2=2).sum(dim=-1).clamp_min(torch.finfo(p.dtype).tiny)
    k = p.shape[1]
    # rows of the Hessian sum to 0 (softmax ignores an equal shift), so it is singular without the filling
    filled = hessian / size[:, None, None] + torch.full((k, k), 1 / k, dtype=p.dtype, device=p.device)
    filled = filled + 1e-9 * torch.eye(k, dtype=p.dtype, device=p.device)
    step = torch.linalg.solve(filled, (slope / size[:, None])[..., None])[..., 0]
    return (step - step.mean(dim=1, keepdim=True)).clamp(-MAX_STEP / 4, MAX_STEP / 4)
