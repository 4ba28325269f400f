"""Norm-matched injection: vectors added to the residual stream, or replacing it, at the norm of the stream itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Precision = Literal["wire", "fp32"]
Formula = Literal["add", "replace", "raw"]
EPS = 1e-12


def norm_matched_injection(
    resid: Float[Tensor, "batch pos d_model"],
    vectors: Float[Tensor, "slots d_model"],
    positions: Sequence[Sequence[int]],
    coefficient: float = 1.0,
    precision: Precision = "wire",
    *,
    formula: Formula = "add",
    grad: Literal["residual", "vector"] = "residual",
) -> Float[Tensor, "batch pos d_model"]:
    """The residual stream with one vector injected per slot, scaled to the norm of the stream at that slot.

        add:      resid[b, p] + coefficient * ||resid[b, p]||_2 * v / max(||v||_2, 1e-12)
        replace:                coefficient * ||resid[b, p]||_2 * v / max(||v||_2, 1e-12)
        raw:      resid[b, p] + coefficient * v

    Only the direction of `v` matters, except under "raw", which exists for the wiring self-test to rule out. `resid` is
    not changed; the result is a new tensor.

    Args:
        resid: output of one decoder block.
        vectors: one per slot, row by row of the batch in the order of `positions`.
        positions: columns of each row of the batch; rows may have different numbers of them, or none.
        precision: "wire" rounds as in the training of published oracles (direction in the vectors' dtype, norm in the
            residual's, product in the wider of the two, sum in the residual's); "fp32" rounds once, at the end.
        grad: "residual" detaches the added term, as in training; "vector" lets gradients through to the vectors.
    Raises:
        ValueError: numbers, widths or bounds that do not fit, a column that occurs twice in one row, or a vector that
            is not finite. Batch row and slot are named.
    Source: the order of rounding is that of get_activation_steering_hook in adamkarvonen/activation_oracles; bit-exact
        equality with it in fp32, bf16 and fp16 is asserted in tests/test_oracle_injection.py.
    """
    check_vectors(vectors, d_model=resid.shape[-1])
    slots = Slots.of(positions, n_vectors=len(vectors), batch=resid.shape[0], width=resid.shape[1])
    return inject_at(resid, vectors, slots, coefficient, precision, formula=formula, grad=grad)


@dataclass(frozen=True)
class Slots:
    """Flat (batch row, column) indices of all slots, built once per batch rather than in a hook."""

    rows: Int[Tensor, "slots"]
    columns: Int[Tensor, "slots"]

    @classmethod
    def of(
        cls,
        positions: Sequence[Sequence[int]],
        *,
        n_vectors: int,
        batch: int,
        width: int | None = None,
        names: Sequence[str] | None = None,
    ) -> Slots:
        """Slots of a batch, validated. Raises ValueError as `norm_matched_injection`; `names` describes the rows."""
        if len(positions) != batch:
            raise ValueError(f"positions: expected one list per row of the batch ({batch}), got {len(positions)}.")
        n_slots = sum(map(len, positions))
        if n_slots != n_vectors:
            counts = [len(p) for p in positions]
            raise ValueError(
                f"expected one vector per slot: {n_slots} slots (per row {counts[:8]}), got {n_vectors} vectors. "
                f"Vectors are not broadcast."
            )
        for row, columns in enumerate(positions):
            _check_columns(columns, width, f"row {row}" + (f" ({names[row]})" if names else ""))
        rows = [row for row, columns in enumerate(positions) for _ in columns]
        return cls(torch.tensor(rows, dtype=torch.long), torch.tensor([c for p in positions for c in p]).long())

    def __len__(self) -> int:
        return len(self.rows)

    def flat(self, width: int) -> Int[Tensor, "slots"]:
        """Indices of the slots in a batch of this width, flattened to [batch * pos]."""
        return self.rows * width + self.columns

    def to(self, device: torch.device) -> Slots:
        return Slots(self.rows.to(device, non_blocking=True), self.columns.to(device, non_blocking=True))

    def shifted(self, by: int) -> Slots:
        """The same slots, counted in columns of a pass that begins `by` columns later."""
        return Slots(self.rows, self.columns - by)

    def where(self, keep: Tensor) -> Slots:
        return Slots(self.rows[keep], self.columns[keep])


def check_vectors(vectors: Tensor, *, d_model: int, names: Sequence[str] | None = None) -> None:
    """Raise a ValueError, naming the slot, unless every vector has `d_model` finite entries and a finite norm."""
    if vectors.ndim != 2 or vectors.shape[1] != d_model:
        raise ValueError(f"vectors: expected [slots, {d_model}], one per slot; got {list(vectors.shape)}.")
    if not vectors.is_floating_point():
        raise ValueError(f"vectors: expected a floating dtype, got {vectors.dtype}.")
    finite = torch.isfinite(vectors).all(dim=1)
    if vectors.dtype == torch.float16:  # finite entries can have a norm above 65504, which is inf
        finite = finite & torch.isfinite(vectors.norm(dim=1))
    if bool(finite.all()):
        return
    bad = [int(i) for i in (~finite).nonzero().flatten()]
    which = "; ".join(f"slot {i}" + (f" ({names[i]})" if names else "") for i in bad[:3])
    raise ValueError(
        f"vectors: {len(bad)} of {len(vectors)} are not finite (NaN, inf, or a norm beyond float16): {which}. They "
        f"would turn the row into NaN; collect them again in a wider dtype, or leave these positions out."
    )


def inject_at(
    resid: Float[Tensor, "batch pos d_model"],
    vectors: Float[Tensor, "slots d_model"],
    slots: Slots,
    coefficient: float = 1.0,
    precision: Precision = "wire",
    *,
    formula: Formula = "add",
    grad: Literal["residual", "vector"] = "residual",
) -> Float[Tensor, "batch pos d_model"]:
    """`norm_matched_injection` at validated slots: one gather, one norm, one write."""
    if not len(slots):
        return resid
    _check_words(precision, formula, grad)
    flat, at = resid.flatten(0, 1), slots.flat(resid.shape[1]).to(resid.device)
    resid_at = flat.index_select(0, at)
    vectors = vectors.to(resid.device)
    term = vectors * coefficient if formula == "raw" else _term(resid_at, vectors, coefficient, precision)
    term = term.detach() if grad == "residual" else term
    if precision == "wire":
        # the order of casts is part of "wire": the sum must round in the residual's dtype, as in training
        new = term.to(resid.dtype) + (0 if formula == "replace" else resid_at)
    else:
        new = (term + (0 if formula == "replace" else resid_at.float())).to(resid.dtype)
    return flat.index_copy(0, at, new).view(resid.shape)


def _term(resid_at: Tensor, vectors: Tensor, coefficient: float, precision: Precision) -> Tensor:
    """coefficient * ||resid|| * v / max(||v||, eps) of every slot."""
    if precision == "fp32":
        vectors, resid_at = vectors.float(), resid_at.float()
    unit = vectors / _no_zero(vectors.norm(dim=-1, keepdim=True))
    return unit * resid_at.norm(dim=-1, keepdim=True) * coefficient


def _no_zero(norm: Tensor) -> Tensor:
    """max(norm, 1e-12); in float16, where 1e-12 is 0, a zero vector is divided by 1 and stays zero instead of NaN."""
    if norm.dtype == torch.float16:
        return torch.where(norm == 0, torch.ones_like(norm), norm)
    return norm.clamp_min(EPS)


def _check_columns(columns: Sequence[int], width: int | None, where: str) -> None:
    if len(set(columns)) != len(columns):
        twice = next(c for c in columns if list(columns).count(c) > 1)
        raise ValueError(f"{where}: column {twice} is named twice; expected one vector per position.")
    for slot, column in enumerate(columns):
        if column < 0 or (width is not None and column >= width):
            have = f"0-{width - 1}" if width else "0 and up"
            raise ValueError(f"{where}, slot {slot}: expected a column in {have}, got {column}.")


def _check_words(precision: str, formula: str, grad: str) -> None:
    words = {
        "precision": (precision, ("wire", "fp32")),
        "formula": (formula, ("add", "replace", "raw")),
        "grad": (grad, ("residual", "vector")),
    }
    for name, (value, valid) in words.items():
        if value not in valid:
            raise ValueError(f"{name}: expected {' or '.join(map(repr, valid))}, got {value!r}.")
