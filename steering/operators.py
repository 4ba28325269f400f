"""Changes of the residual stream along directions, as edits: pure functions of an activation, computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.edits import Edit
from steering.direction import Direction, Unit

Op = Literal["add", "clamp", "affine", "ablate", "ablate_everywhere"]
OPS: tuple[Op, ...] = ("add", "clamp", "affine", "ablate", "ablate_everywhere")
Resid = Float[Tensor, "batch pos d_model"]


def _wide(acts: Tensor) -> Tensor:
    return acts if acts.dtype == torch.float64 else acts.float()


@dataclass(frozen=True, eq=False)
class AddVector:
    """resid + delta, summed in float32 and then cast. A delta of zeros changes no bit."""

    delta: Float[Tensor, "d_model"]

    def __call__(self, acts: Resid, /) -> Resid:
        if not bool(self.delta.any()):
            return acts  # -0.0 + 0.0 is +0.0, which is another bit
        wide = _wide(acts)
        return (wide + self.delta.to(wide)).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class SetCoordinate:
    """resid + share · (target - resid · unit) unit: the coordinate along `unit` moved to `target`, others kept.

    Args:
        target: where the coordinate goes, in activation units (the mean of a class along `unit`, for instance).
        share: 1 sets it, 0 changes no bit.
    """

    unit: Float[Tensor, "d_model"]
    target: float
    share: float = 1.0

    def __call__(self, acts: Resid, /) -> Resid:
        if self.share == 0:
            return acts
        wide = _wide(acts)
        unit = self.unit.to(wide)
        return (wide + self.share * (self.target - (wide @ unit))[..., None] * unit).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class RemoveSpan:
    """resid - share · left (right (resid - reference)): what lies in a span taken out, around a reference point.

    An orthonormal basis R of the span as both sides and a reference of zeros is directional ablation, a mean as
    reference sets the coordinates to the mean's ("mean ablation"); `left` = W⁺U, `right` = UᵀW is a LEACE eraser.

    Args:
        left, right: [k, d_model] rows.
        share: 1 takes all of it out, 0 changes no bit.
    """

    left: Float[Tensor, "k d_model"]
    right: Float[Tensor, "k d_model"]
    reference: Float[Tensor, "d_model"]
    share: float = 1.0

    def __call__(self, acts: Resid, /) -> Resid:
        if self.share == 0:
            return acts
        wide = _wide(acts)
        along = (wide - self.reference.to(wide)) @ self.right.to(wide).T
        return (wide - self.share * along @ self.left.to(wide)).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class KeepNorm:
    """The result of another edit at the length that the activation had: resid' ‖resid‖ / ‖resid'‖."""

    inner: Edit

    def __call__(self, acts: Resid, /) -> Resid:
        new = self.inner(acts)
        if new is acts:
            return acts
        wide = _wide(new)
        length = wide.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)
        return (wide * (_wide(acts).norm(dim=-1, keepdim=True) / length)).to(acts.dtype)


def orthonormal_rows(vectors: Sequence[Float[Tensor, "d_model"]]) -> Float[Tensor, "k d_model"]:
    """Orthonormal basis of a span, float32; vectors of any length weigh alike, near-duplicates (1e-4) count once."""
    units = torch.stack([v.double() / v.double().norm() for v in vectors])
    _, values, rows = torch.linalg.svd(units, full_matrices=False)
    return rows[values > 1e-4 * values[0]].float()


def eraser(
    against: Sequence[Float[Tensor, "d_model"]],
    *,
    cov: Float[Tensor, "d_model d_model"],
    reference: Float[Tensor, "d_model"],
) -> RemoveSpan:
    """LEACE with known moments: the least change after which the directions' linear readouts say nothing.

        resid - W⁺ U Uᵀ W (resid - reference),    W = Σ^{-1/2},  U an orthonormal basis of the span of W N

    Args:
        against: differences of class means to erase.
        cov: Σ, positive definite (`within_covariance`); many more rows than dimensions, or shrinkage.
        reference: mean of the activations.
    Raises:
        ValueError: Σ is not positive definite.
    Source: Belrose et al., arXiv 2306.03819, theorem 4.3.
    """
    values, vectors = torch.linalg.eigh(cov.double())
    if not float(values[0]) > 1e-10 * float(values[-1]):
        raise ValueError(f"cov: expected a positive definite matrix, smallest eigenvalue {float(values[0]):.2e}.")
    whiten, unwhiten = ((vectors * values**power) @ vectors.T for power in (-0.5, 0.5))
    basis = orthonormal_rows([whiten @ one.double() for one in against]).double()
    return RemoveSpan((basis @ unwhiten).float(), (basis @ whiten).float(), reference.float())


def make_edit(
    directions: Sequence[Direction], *, alpha: float, unit: Unit = "resid", op: Op = "add", keep_norm: bool = False
) -> Edit:
    """The edit of one site that acts along one or several directions.

        add      resid + alpha · scale(unit) · unit vector, of each direction
        clamp    coordinate along the direction set to the mean of class `toward`
        affine   coordinates in the span set to those of the midpoint between the class means
        ablate   coordinates in the span set to 0 (rank k for k directions)

    In all but "add", alpha is the share of the way: 1 is all of it, and `unit` means nothing. alpha = 0 changes no bit.

    Args:
        keep_norm: rescale the result to the length that the activation had.
    Raises:
        ValueError: a unit or a class mean that is not known of a direction; several directions to clamp.
    """
    edit: Edit
    if op == "add":
        delta = torch.stack([alpha * one.scale(unit) * one.unit.double() for one in directions]).sum(dim=0)
        edit = AddVector(delta.float())
    elif op == "clamp":
        edit = _clamp(directions, alpha)
    else:
        rows = orthonormal_rows([one.vec for one in directions])
        reference = _midpoint(directions) if op == "affine" else torch.zeros(rows.shape[1])
        edit = RemoveSpan(rows, rows, reference, alpha)
    return KeepNorm(edit) if keep_norm else edit


def _clamp(directions: Sequence[Direction], share: float) -> Edit:
    if len(directions) != 1:
        raise ValueError(f"op='clamp' sets one coordinate; got {len(directions)} directions at one site.")
    one = directions[0]
    if one.stats.proj_toward != one.stats.proj_toward:
        raise ValueError(f"op='clamp': the mean of {one.toward!r} along direction {one.label!r} is not known.")
    return SetCoordinate(one.unit, one.stats.proj_toward, share)


def _midpoint(directions: Sequence[Direction]) -> Tensor:
    means = [one.means for one in directions if one.means is not None]
    if len(means) != len(directions):
        missing = next(one.label for one in directions if one.means is None)
        raise ValueError(
            f"op='affine' needs the class means of direction {missing!r}, which are not known; use 'ablate'."
        )
    return torch.stack(means).double().mean(dim=(0, 1)).float()
