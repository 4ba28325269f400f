"""The same sweep by the reference engine, one hooked forward per row; the fast engine is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.hooks import edit, record
from interp.model import Model
from interp.progress import parts
from interp.site import Site
from interp.sweep.intervention import Row
from interp.sweep.read import Read, read_out


def reference_resid(
    model: Model, ids: Sequence[int], row: Row, read_at: Sequence[int]
) -> Float[Tensor, "read d_model"]:
    """Output of the last block at `read_at`, in one whole forward pass under the row's edits, in their order."""
    last = Site("resid_post", model.n_layers - 1)
    with ExitStack() as stack:
        for op in row.ops:
            stack.enter_context(edit(model, {op.site: op.edit}, positions=[list(op.tokens)]))
        acts = stack.enter_context(record(model, [last], positions=[list(read_at)]))
        model([list(ids)])
    return acts[last]


def reference_rows(
    model: Model,
    ids: Sequence[int],
    rows: Sequence[Row],
    read_at: Sequence[int],
    read: Read,
    answer_ids: Sequence[int] | Literal["all"],
) -> tuple[Tensor, Tensor]:
    """(values of the clean run, values of every row), one forward pass each."""
    clean = Row(-1, (), (model.n_layers, 0))
    resid = torch.stack([reference_resid(model, ids, row, read_at) for row in parts((clean, *rows))])
    values = read_out(model, resid, read, answer_ids)
    return values[0], values[1:]


TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def check_rows(
    names: Sequence[str], fast: tuple[Tensor, Tensor], slow: tuple[Tensor, Tensor], *, dtype: torch.dtype
) -> None:
    """Raise unless values and effects of both engines agree.

        |fast - slow| <= tolerance · max|slow|          for the values, and for their differences to the clean run

    The tolerance is that of the model's dtype: float64 1e-6 (norms and softmax of the libraries round to float32),
    float32 1e-4, float16 2e-2, bfloat16 6e-2.

    Args:
        fast, slow: (clean value of each row [row, ...], value of each row [row, ...]).
    Raises:
        RuntimeError: names the row that disagrees most.
    """
    scale = max(float(slow[1].abs().max()), float(slow[0].abs().max()), 1e-30)
    values = (fast[1] - slow[1]).abs()
    effects = ((fast[1] - fast[0]) - (slow[1] - slow[0])).abs()
    error = torch.maximum(values, effects).flatten(1).amax(dim=1) / scale
    worst = int(error.nan_to_num(nan=float("inf")).argmax())
    if not float(error[worst]) <= TOLERANCE[dtype]:  # "not <=" also catches NaN
        raise RuntimeError(
            f"sweep: row {names[worst]} disagrees with the reference engine by {float(error[worst]):.1e} of the "
            f"largest value (allowed in {dtype}: {TOLERANCE[dtype]:.0e}), among {len(names)} verified rows. "
            f"The fast engine is wrong on this model: use engine='reference', and report the model type."
        )
