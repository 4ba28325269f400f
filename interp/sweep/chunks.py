"""How many rows go through the network at once: sized from bytes, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp.family import Layer, Layout
from interp.sweep.intervention import Row

CPU_BYTES = 512 * 2**20


def row_bytes(layout: Layout, *, n_new: int, n_past: int, itemsize: int) -> int:
    """Upper estimate of what one row holds at its widest moment, in bytes.

    n_new · itemsize · (6 d_model + 3 d_mlp + 3 (n_heads + 2 n_kv) d_head)      streams, MLP, projections
    + 3 · n_heads · n_new · (n_past + n_new) · 4                                scores in float32
    or, in a recurrent layer, + 3 · n_heads · d_head² · 4                       its state
    """
    d_mlp = getattr(layout.config, "intermediate_size", None) or 4 * layout.d_model
    return max(_layer_bytes(layer, layout.d_model, d_mlp, n_new, n_past, itemsize) for layer in layout.layers)


def _layer_bytes(layer: Layer, d_model: int, d_mlp: int, n_new: int, n_past: int, itemsize: int) -> int:
    wide = n_new * itemsize * (6 * d_model + 3 * d_mlp + 3 * (layer.n_heads + 2 * layer.n_kv_heads) * layer.d_head)
    if layer.kind == "linear_attention":
        return wide + 3 * layer.n_heads * layer.d_head * layer.d_head * 4
    return wide + 3 * layer.n_heads * n_new * (n_past + n_new) * 4


def default_bytes(device: torch.device) -> int:
    """What a chunk may take: 512 MiB on a CPU, a third of the free memory on a CUDA device."""
    return torch.cuda.mem_get_info(device)[0] // 3 if device.type == "cuda" else CPU_BYTES


def in_chunks(
    rows: Sequence[Row], run: Callable[[Sequence[Row]], Tensor], *, n_per_chunk: int
) -> list[tuple[Sequence[Row], Tensor]]:
    """`run` over consecutive chunks of rows; a chunk that does not fit is halved, and so are those after it.

    Raises:
        torch.OutOfMemoryError: (or what the device raises) a single row does not fit.
    """
    done: list[tuple[Sequence[Row], Tensor]] = []
    at, size = 0, max(1, n_per_chunk)
    while at < len(rows):
        chunk = rows[at : at + size]
        out = _or_none_without_memory(run, chunk)
        if out is None:
            size = max(1, len(chunk) // 2)
            continue
        done.append((chunk, out))
        at += len(chunk)
    return done


def _or_none_without_memory(run: Callable[[Sequence[Row]], Tensor], chunk: Sequence[Row]) -> Tensor | None:
    try:
        return run(chunk)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
        if not out_of_memory or len(chunk) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
