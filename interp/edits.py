"""Edits: pure functions from the activation of a site to a new activation of the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.injection import Formula, Precision, Slots, check_vectors, inject_at


@runtime_checkable
class Edit(Protocol):
    """A callable that maps `acts[batch, pos, ...]` to a new tensor of the same shape and leaves its input unchanged."""

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
        basis: [k, d] rows, not necessarily orthogonal or of unit length; linearly dependent rows are allowed.
    Raises:
        ValueError: all rows are zero.
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


@dataclass(frozen=True)
class InjectNormMatched:
    """One vector per slot, added at the norm of the activation at that slot; see `norm_matched_injection`.

    Args:
        vectors: [slots, d_model], row by row of the batch.
        positions: columns of the slots of each row of the batch; all other columns keep every bit.
        coefficient: multiple of the matched norm. `precision` and `formula` are those of `norm_matched_injection`.
    Raises:
        ValueError: a vector is not finite, the number of vectors is not that of the slots, or a column occurs twice.
    """

    vectors: Float[Tensor, "slots d_model"]
    positions: tuple[tuple[int, ...], ...]
    coefficient: float = 1.0
    precision: Precision = "wire"
    formula: Formula = "add"

    def __post_init__(self) -> None:
        check_vectors(self.vectors, d_model=self.vectors.shape[-1])
        Slots.of(self.positions, n_vectors=len(self.vectors), batch=len(self.positions))

    def __call__(self, acts: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "batch pos ..."]:
        check_vectors(self.vectors, d_model=acts.shape[-1])
        slots = Slots.of(self.positions, n_vectors=len(self.vectors), batch=acts.shape[0], width=acts.shape[1])
        return inject_at(acts, self.vectors, slots, self.coefficient, self.precision, formula=self.formula)
