"""Batched L-BFGS on the certified objective: every problem is a row, finished rows leave the batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.solver.loss import class_probabilities, evaluate
from probes.solver.spaces import Space


@dataclass
class History:
    """The last m steps S and changes of gradient Y of every problem, from which the L-BFGS direction follows.

    With M⁻¹ the starting metric and R the upper triangle of SᵀY in time order, the two-loop recursion is two triangular
    solves on m numbers:

        R α = Sᵀg;   Rᵀ e = diag(R) α - γ (Yᵀ M⁻¹ g - YᵀM⁻¹Y α)
        d = -( γ M⁻¹ g - γ M⁻¹ Y α + S e )

    A ring of m pairs per problem; all problems write the same slot, `is_valid` says which pairs count.

    Source: Byrd, Nocedal & Schnabel, Math. Program. 63 (1994) 129, rewritten for many problems at once.

    Attributes:
        coords: steps in slots 0..m-1, preconditioned gradient changes in m..2m-1 [problem, 2m, n].
        images: their images, where the space combines them [problem, 2m, n'].
        sy, yy: s_i·y_j and y_i·M⁻¹y_j, float64 [problem, m, m].
    """

    memory: int
    coords: Tensor
    images: Tensor | None
    sy: Tensor
    yy: Tensor
    is_valid: Tensor
    order: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, like: Tensor, n_image: int | None, memory: int) -> History:
        """Room for `memory` pairs of vectors shaped like `like` [problem, n]."""
        p, n = like.shape
        images = None if n_image is None else like.new_zeros(p, 2 * memory, n_image)
        small = torch.zeros(p, memory, memory, dtype=torch.float64, device=like.device)
        valid = torch.zeros(p, memory, dtype=torch.bool, device=like.device)
        return cls(memory, like.new_zeros(p, 2 * memory, n), images, small, small.clone(), valid)

    def select(self, kept: Tensor) -> None:
        for name in ("coords", "images", "sy", "yy", "is_valid"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[kept])

    def push(self, step: Tensor, change: Tensor, covector: Tensor, images: tuple[Tensor, Tensor] | None) -> None:
        """Store a pair: step s, M⁻¹y, covector of y (all [problem, n]); drops the oldest when full."""
        m = self.memory
        # the ring is shared: problems of one batch have taken the same number of steps, valid or not
        slot = len(self.order) if len(self.order) < m else self.order.pop(0)
        self.order.append(slot)
        self.coords[:, slot], self.coords[:, m + slot] = step, change
        if images is not None and self.images is not None:
            self.images[:, slot], self.images[:, m + slot] = images
        # one product gives all s_i·y and y_i·M⁻¹y; stored in float64 because R is solved with below
        products = torch.bmm(self.coords, covector[..., None])[..., 0].double()
        self.sy[:, :, slot] = products[:, :m]
        self.yy[:, :, slot] = self.yy[:, slot, :] = products[:, m:]
        gain, size = self.sy[:, slot, slot], self.yy[:, slot, slot]
        # s·y <= 0 would make the metric indefinite and the next direction one of ascent
        self.is_valid[:, slot] = gain.isfinite() & (gain > 1e-9 * size) & (size > 0)

    def combination(self, covector: Tensor) -> tuple[Tensor, Tensor]:
        """(weights of the 2m stored vectors [problem, 2m], weight of M⁻¹g [problem]) of the direction."""
        p, m, at = len(covector), self.memory, self.order
        weights = torch.zeros(p, 2 * m, dtype=torch.float64, device=covector.device)
        if not at:
            return weights.to(covector.dtype), covector.new_full((p,), -1.0)  # steepest descent in the metric M
        pairs = torch.bmm(self.coords, covector[..., None])[..., 0].double()
        ok = self.is_valid[:, at].double()
        both = ok[:, :, None] * ok[:, None, :]
        sy, yy = self.sy[:, at][:, :, at] * both, self.yy[:, at][:, :, at] * both
        sg, yg = pairs[:, at] * ok, pairs[:, [m + slot for slot in at]] * ok
        diagonal = sy.diagonal(dim1=1, dim2=2)
        upper = sy.triu() + torch.diag_embed(1 - ok)  # 1 on the diagonal of invalid pairs: zero rows stay solvable
        gamma = _latest_ratio(diagonal, yy.diagonal(dim1=1, dim2=2), ok)
        alpha = torch.linalg.solve_triangular(upper, sg[..., None], upper=True)
        rest = diagonal[..., None] * alpha - gamma[:, None, None] * (yg[..., None] - yy @ alpha)
        e = torch.linalg.solve_triangular(upper.transpose(1, 2), rest, upper=False)
        weights[:, at] = -e[..., 0]
        weights[:, [m + slot for slot in at]] = gamma[:, None] * alpha[..., 0]
        return weights.to(covector.dtype), (-gamma).to(covector.dtype)


def _latest_ratio(gain: Tensor, size: Tensor, ok: Tensor) -> Tensor:
    """s·y / y·M⁻¹y of the newest valid pair, 1 where there is none."""
    n = ok.shape[1]
    place = torch.arange(1, n + 1, device=ok.device, dtype=ok.dtype)
    newest = (ok * place).argmax(dim=1, keepdim=True)
    gain, size, valid = gain.gather(1, newest)[:, 0], size.gather(1, newest)[:, 0], ok.gather(1, newest)[:, 0]
    return torch.where(valid > 0, gain / size.where(valid > 0, torch.ones_like(size)), torch.ones_like(gain))


MEMORY = 8
LEAVE_SHARE = 0.25
"""The batch is packed when this share of it is finished: fewer copies than packing at once, still full products."""
REFRESH_EVERY = 30
PATIENCE = 60
"""Steps without a smaller gradient after which only rounding is left."""


@dataclass(frozen=True)
class Minimum:
    """Where each problem stopped.

    Attributes:
        coords, intercept, images: as the space holds them [problem, output, ...].
        certificate: ‖gradient‖/‖w‖ in the space of standardised weights: a bound on ‖w - w*‖/‖w‖.
        is_converged: certificate <= tol, finite.
    """

    coords: Float[Tensor, "problem output n"]
    intercept: Float[Tensor, "problem output"]
    images: Float[Tensor, "problem output example"]
    certificate: Float[Tensor, "problem"]
    n_iter: Int[Tensor, "problem"]
    is_converged: Bool[Tensor, "problem"]


@dataclass
class _Batch:
    """Problems still being solved; every tensor has them along axis 0."""

    row: Tensor
    targets: Tensor
    weights: Tensor
    coords: Tensor
    image: Tensor
    intercept: Tensor
    residuals: Tensor
    objective: Tensor
    covector: Tensor
    descent: tuple[Tensor, Tensor]
    norms: tuple[Tensor, Tensor]
    best: Tensor
    best_at: Tensor
    n_failed: Tensor

    def select(self, kept: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, tuple(v[kept] for v in value) if isinstance(value, tuple) else value[kept])


def minimise(
    space: Space,
    targets: Float[Tensor, "problem output example"],
    weights: Float[Tensor, "problem example"],
    *,
    tol: float,
    max_iter: int,
    start: Float[Tensor, "problem output n"] | None = None,
    memory: int = MEMORY,
) -> Minimum:
    """Minimise  P(w, b) = ½‖w‖² + sum_i c_i · loss(f_i + b, y_i),  f = X D w,  for every problem of the batch.

    After the intercept is solved for, the objective of w alone is 1-strongly convex, hence at every w

        ‖w - w*‖ <= ‖g(w)‖,   P(w) - P* <= ½‖g(w)‖²,   g = w + D Xᵀ r,  r = c · (p - y)

    and a problem ends when ‖g‖ <= tol·‖w‖ with everything finite. A finished problem is frozen at once (further
    steps would be rounding noise) and removed when the batch is packed. A problem whose line search fails twice, or
    whose gradient has not shrunk for 60 steps, ends with its certificate and is_converged False.

    Args:
        targets: 0/1 per output; one output is the binary loss, several are softmax.
        weights: c_i >= 0, the inverse penalty C included; 0 for held-out examples.
        start: coordinates to begin from (a smaller C's solution); zeros where None.
    Source: Liu & Nocedal, Math. Program. 45 (1989) 503; intercept eliminated by variable projection.
    """
    batch = _begin(space, targets, weights, start)
    out = _outputs(batch, space, targets)
    history = History.empty(_flat(batch.coords), _flat(batch.image).shape[1] if space.images_combine else None, memory)
    for step in range(max_iter + 1):
        is_done, is_converged = _finished(batch, step, tol, last=step == max_iter)
        n_done = int(is_done.sum())  # the one synchronisation with the device in a step
        if n_done == len(is_done) or n_done >= LEAVE_SHARE * len(is_done):
            _write(out, batch, is_done, is_converged, step)
            if n_done == len(is_done):
                break
            kept = (~is_done).nonzero()[:, 0]
            batch.select(kept)
            history.select(kept)
            space, is_done = space.select(kept), is_done[kept]
        # a failed line search may be one on drifted logits, so they are computed anew before its second try
        if step and (step % REFRESH_EVERY == 0 or bool(batch.n_failed.any())):
            _refresh(space, batch)
        _advance(space, batch, history, is_done, step)
    return out


def _begin(space: Space, targets: Tensor, weights: Tensor, start: Tensor | None) -> _Batch:
    p, k, n = targets.shape
    coords = targets.new_zeros(p, k, space.n_coordinates) if start is None else start.clone()
    image = targets.new_zeros(p, k, n) if start is None else space.image(coords)
    at = evaluate(image, targets, weights, targets.new_zeros(p, k))
    coords_grad, covector = space.gradient(coords, image, at.residuals)
    own = image if space.images_combine else coords
    w2, g2 = _dot(coords, own), _dot(coords_grad, covector)
    zero = torch.zeros(p, dtype=torch.long, device=targets.device)
    return _Batch(
        row=torch.arange(p, device=targets.device),
        targets=targets,
        weights=weights,
        coords=coords,
        image=image,
        intercept=at.intercept,
        residuals=at.residuals,
        objective=w2 / 2 + at.loss,
        covector=covector,
        descent=space.precondition(coords_grad, covector),
        norms=(w2, g2),
        best=torch.full_like(g2, torch.inf),
        best_at=zero,
        n_failed=zero.clone(),
    )


def _refresh(space: Space, batch: _Batch) -> None:
    """Logits, loss and residuals from the coordinates: sums of many small updates drift in single precision."""
    batch.image = space.image(batch.coords)
    at = evaluate(batch.image, batch.targets, batch.weights, batch.intercept)
    own = batch.image if space.images_combine else batch.coords
    batch.intercept, batch.residuals = at.intercept, at.residuals
    batch.objective = _dot(batch.coords, own) / 2 + at.loss


def _outputs(batch: _Batch, space: Space, targets: Tensor) -> Minimum:
    n_problems = len(targets)
    return Minimum(
        coords=torch.empty_like(batch.coords),
        intercept=torch.empty_like(batch.intercept),
        images=torch.empty_like(batch.image),
        certificate=targets.new_zeros(n_problems),
        n_iter=torch.zeros(n_problems, dtype=torch.long, device=targets.device),
        is_converged=torch.zeros(n_problems, dtype=torch.bool, device=targets.device),
    )


def _finished(batch: _Batch, step: int, tol: float, *, last: bool) -> tuple[Tensor, Tensor]:
    w2, g2 = batch.norms
    # an overflow has g2 = inf or NaN, whose comparison with tol is False or meaningless
    is_finite = w2.isfinite() & g2.isfinite() & batch.objective.isfinite()
    is_converged = is_finite & (g2 <= tol**2 * w2)  # at w = 0 only if the gradient is 0 as well
    better = g2 < batch.best
    batch.best_at = torch.where(better, torch.full_like(batch.best_at, step), batch.best_at)
    batch.best = torch.where(better, g2, batch.best)
    given_up = (batch.n_failed >= 2) | (step - batch.best_at >= PATIENCE) | ~is_finite
    return is_converged | given_up | last, is_converged


def _write(out: Minimum, batch: _Batch, is_done: Tensor, is_converged: Tensor, step: int) -> None:
    w2, g2 = batch.norms
    rows = batch.row[is_done]
    out.coords[rows], out.images[rows] = batch.coords[is_done], batch.image[is_done]
    out.intercept[rows], out.is_converged[rows] = batch.intercept[is_done], is_converged[is_done]
    ratio = torch.where(g2 > 0, (g2 / w2).sqrt(), torch.zeros_like(g2))
    out.certificate[rows] = ratio[is_done]
    out.n_iter[rows] = torch.minimum(batch.best_at, torch.full_like(batch.best_at, step))[is_done]


def _advance(space: Space, batch: _Batch, history: History, is_done: Tensor, step: int) -> None:
    """One step of every unfinished problem: direction, line search, gradient, history."""
    moving = (~is_done).to(batch.coords.dtype)
    weights, gamma = history.combination(_flat(batch.covector))
    weights, gamma = weights * moving[:, None], gamma * moving  # finished problems get the direction 0
    combine = (weights, gamma)
    direction = _combined(history.coords, batch.descent[0], combine)
    image = _combined(history.images, batch.descent[1], combine) if history.images is not None else None
    # the Gram space combines known images, which saves the product with K; the primal space has none to combine
    image = space.image(direction) if image is None else image
    t = _line_search(space, batch, direction, image, first=step == 0)
    is_step = (t > 0) | is_done
    batch.n_failed = torch.where(is_step, torch.zeros_like(batch.n_failed), batch.n_failed + 1)
    history.is_valid &= is_step[:, None]  # after a failed search the curvature pairs are distrusted: start afresh
    moved, moved_image = direction * t[:, None, None], image * t[:, None, None]
    coords_grad, covector = space.gradient(batch.coords, batch.image, batch.residuals)
    own = batch.image if space.images_combine else batch.coords
    descent = space.precondition(coords_grad, covector)
    change = _flat(descent[0] - batch.descent[0])
    images = (_flat(moved_image), _flat(descent[1] - batch.descent[1])) if history.images is not None else None
    history.push(_flat(moved), change, _flat(covector - batch.covector), images)
    batch.covector, batch.descent = covector, descent
    batch.norms = (_dot(batch.coords, own), _dot(coords_grad, covector))


def _combined(stored: Tensor, latest: Tensor, combine: tuple[Tensor, Tensor]) -> Tensor:
    weights, gamma = combine
    return torch.bmm(weights[:, None], stored).view_as(latest) + gamma[:, None, None] * latest


def _line_search(space: Space, batch: _Batch, direction: Tensor, image: Tensor, *, first: bool) -> Tensor:
    """Backtrack until the objective falls enough; moves the batch, returns the accepted t of each problem, or 0.

        enough: P(t) <= P(0) + 1e-4·t·P'(0),  or  |P'(t)| <= 0.9·|P'(0)| with P(t) <= P(0), both up to rounding

    No product with the data: logits at any t are f + t·image. The second condition is for the last steps in single
    precision, where the fall of the objective is below its rounding but its slope is not.

    Source: the approximate condition is Hager & Zhang's, SIAM J. Optim. 16 (2005) 170, §3.
    """
    own = image if space.images_combine else direction
    slope, bend = _dot(direction, batch.covector), _dot(direction, own)
    cross = _dot(batch.coords, own)
    w2 = batch.norms[0]
    t = _first_step(batch, image, slope, bend) if first else torch.ones_like(slope)
    # the objective is a sum over examples: its rounding, relative to its size, bounds what a comparison can see
    slack = (2e-6 if direction.dtype == torch.float32 else 1e-14) * batch.objective.abs()
    todo = ((slope < 0) & slope.isfinite()).nonzero()[:, 0]
    accepted = torch.zeros_like(t)
    for _ in range(25):
        if len(todo) == 0:
            break
        everyone = len(todo) == len(t)  # the usual case, without a copy of every tensor
        pick = (lambda v: v) if everyone else (lambda v, todo=todo: v[todo])
        trial = pick(batch.image) + pick(t)[:, None, None] * pick(image)
        at = evaluate(trial, pick(batch.targets), pick(batch.weights), pick(batch.intercept))
        # ‖w + t d‖² from three dot products: no vector of the coordinates' size is formed in a trial
        half_norm = (pick(w2) + 2 * pick(t) * pick(cross) + pick(t) ** 2 * pick(bend)) / 2
        value = half_norm + at.loss
        excess = value - pick(batch.objective)
        tilt = pick(cross) + pick(t) * pick(bend) + (at.residuals * pick(image)).sum(dim=(1, 2))
        enough = (excess <= 1e-4 * pick(t) * pick(slope) + pick(slack)) | (
            (tilt.abs() <= 0.9 * pick(slope).abs()) & (excess <= 10 * pick(slack))
        )
        accepting = todo[enough]
        if len(accepting) == len(t):
            batch.image, batch.residuals = trial, at.residuals
            batch.intercept, batch.objective = at.intercept, value
        else:
            batch.image = batch.image.index_copy(0, accepting, trial[enough])
            batch.residuals = batch.residuals.index_copy(0, accepting, at.residuals[enough])
            batch.intercept = batch.intercept.index_copy(0, accepting, at.intercept[enough])
            batch.objective = batch.objective.index_copy(0, accepting, value[enough])
        accepted = accepted.index_copy(0, accepting, t[accepting])
        todo = todo[~enough]
        t = t.index_copy(0, todo, t[todo] * 0.35)
    batch.coords = batch.coords + accepted[:, None, None] * direction
    return accepted


def _first_step(batch: _Batch, image: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """Newton's step along the first direction: t = -slope / (‖d‖² + sum_i c_i var_p(image_i))."""
    p = class_probabilities(batch.image + batch.intercept[..., None])
    spread = (p * image.square()).sum(dim=1) - (p * image).sum(dim=1).square()
    curvature = bend + (batch.weights * spread).sum(dim=-1)
    return -slope / curvature.clamp_min(torch.finfo(slope.dtype).tiny)


def _flat(batch: Tensor) -> Tensor:
    return batch.flatten(1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2))
