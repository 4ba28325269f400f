"""The L-BFGS direction of every problem of a batch, from inner products alone.

With S, Y the last m steps and changes of gradient, M⁻¹ the starting metric and R the upper triangle of SᵀY in
time order, the two-loop recursion is two triangular solves on m numbers:

    R α = Sᵀg;   Rᵀ e = diag(R) α - γ (Yᵀ M⁻¹ g - YᵀM⁻¹Y α)
    d = -( γ M⁻¹ g - γ M⁻¹ Y α + S e )

Source: Byrd, Nocedal & Schnabel, Math. Program. 63 (1994) 129, rewritten for many problems at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class History:
    """Ring of m pairs per problem; all problems write the same slot, `is_valid` says which pairs count.

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
        slot = len(self.order) if len(self.order) < m else self.order.pop(0)
        self.order.append(slot)
        self.coords[:, slot], self.coords[:, m + slot] = step, change
        if images is not None and self.images is not None:
            self.images[:, slot], self.images[:, m + slot] = images
        products = torch.bmm(self.coords, covector[..., None])[..., 0].double()
        self.sy[:, :, slot] = products[:, :m]
        self.yy[:, :, slot] = self.yy[:, slot, :] = products[:, m:]
        gain, size = self.sy[:, slot, slot], self.yy[:, slot, slot]
        self.is_valid[:, slot] = gain.isfinite() & (gain > 1e-9 * size) & (size > 0)

    def combination(self, covector: Tensor) -> tuple[Tensor, Tensor]:
        """(weights of the 2m stored vectors [problem, 2m], weight of M⁻¹g [problem]) of the direction."""
        p, m, at = len(covector), self.memory, self.order
        weights = torch.zeros(p, 2 * m, dtype=torch.float64, device=covector.device)
        if not at:
            return weights.to(covector.dtype), covector.new_full((p,), -1.0)
        pairs = torch.bmm(self.coords, covector[..., None])[..., 0].double()
        ok = self.is_valid[:, at].double()
        both = ok[:, :, None] * ok[:, None, :]
        sy, yy = self.sy[:, at][:, :, at] * both, self.yy[:, at][:, :, at] * both
        sg, yg = pairs[:, at] * ok, pairs[:, [m + slot for slot in at]] * ok
        diagonal = sy.diagonal(dim1=1, dim2=2)
        upper = sy.triu() + torch.diag_embed(1 - ok)
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
