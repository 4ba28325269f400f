"""Pure changes of an activation. An edit takes the activation of a site and returns a new one of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Edit(Protocol):
    """Any callable that maps `acts[batch, pos, ...]` to a new tensor of the same shape, without touching its input."""

    def __call__(self, acts: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "batch pos ..."]: ...


@dataclass(frozen=True)
class Add:
    """acts + alpha * vector, with the vector broadcast over batch and positions.

    Args:
        vector: [d_model] for a residual site, [head, d_head] or [d_head] for `z`.
        alpha: multiple of the vector, in units of the vector as given.
    """

    vector: Float[Tensor, "..."]
    alpha: float = 1.0

    def __call__(self, acts: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "batch pos ..."]:
        return acts + self.alpha * self.vector.to(acts)


@dataclass(frozen=True)
class ProjectOut:
    """acts minus their component in the span of `basis`: acts - acts Q Qᵀ, with Q an orthonormal basis of the span.

    Args:
        basis: [k, d] rows; need not be orthogonal or of unit length. Rows that add nothing to the span are dropped.
    Raises:
        ValueError: the rows span nothing.
    """

    basis: Float[Tensor, "k d"]

    def __post_init__(self) -> None:
        _, values, rows = torch.linalg.svd(self.basis.double(), full_matrices=False)
        keep = values > values.max() * 1e-10
        if not bool(keep.any()) or float(values.max()) == 0.0:
            raise ValueError(f"ProjectOut: the basis {tuple(self.basis.shape)} spans nothing (all rows are zero).")
        object.__setattr__(self, "_rows", rows[keep])

    def __call__(self, acts: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "batch pos ..."]:
        rows: Tensor = self._rows.to(acts.device)  # type: ignore[attr-defined]
        wide = acts.double() if acts.dtype == torch.float64 else acts.float()
        return (wide - (wide @ rows.T.to(wide)) @ rows.to(wide)).to(acts.dtype)


@dataclass(frozen=True)
class Replace:
    """`value` in place of the activation, broadcast over batch and positions: zeros, a mean, another example's.

    Args:
        value: 0.0, or a tensor that broadcasts to the activation ([d_model]; [batch, pos, d_model]; ...).
    """

    value: Float[Tensor, "..."] | float = 0.0

    def __call__(self, acts: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "batch pos ..."]:
        value = self.value if isinstance(self.value, Tensor) else torch.tensor(float(self.value))
        return value.to(acts).expand_as(acts).clone()
