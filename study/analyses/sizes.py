"""What is derived from the size of a model and the memory at hand, in words: for `study plan` and every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.memory import Sizes


def size_lines(members: Mapping[str, Checkpoint], loading: Mapping[str, Any]) -> list[str]:
    """One line per base: parameters, dtype and device, memory, tokens of a batch and bytes of a chunk by default.

    Args:
        members: role -> checkpoint.
        loading: arguments of `interp.load`.
    Raises:
        ValueError: as `interp.loading.open_skeleton`.
    """
    by_base: dict[tuple[str, str | None], dict[str, Checkpoint]] = {}
    for role, member in members.items():
        by_base.setdefault((member.base, member.revision), {})[role] = member
    return [f"{', '.join(group)}: {_of(next(iter(group.values())), loading)}" for group in by_base.values()]


def _of(checkpoint: Checkpoint, loading: Mapping[str, Any]) -> str:
    from interp.cache.plan import format_bytes
    from interp.family import Layout
    from interp.loading import LoadOptions, open_skeleton
    from interp.memory import free_bytes, planned_sizes

    loading = {key: value for key, value in loading.items() if key != "merge"}
    skeleton, target = open_skeleton(checkpoint, **loading), LoadOptions(**loading).target
    sizes = planned_sizes(skeleton.module, Layout(skeleton.module.get_decoder()), skeleton.dtype, target)
    spread = [f"{key} {value}" for key in ("quantization", "device_map") if (value := loading.get(key))]
    free = free_bytes(target)
    memory = f"weights {format_bytes(sizes.weight_bytes)}" + (f" of {format_bytes(free)} free" if free else "")
    parts = [
        f"{sizes.n_parameters:,} parameters", ", ".join([f"{_name(sizes)} on {target}", *spread]), memory,
        f"by default {sizes.batch_tokens:,} tokens per batch, {format_bytes(sizes.chunk_bytes)} per chunk of rows",
    ]  # fmt: skip
    return "; ".join([*parts, *([] if spread else _warned(sizes))])


def _name(sizes: Sizes) -> str:
    return str(sizes.dtype).removeprefix("torch.")


def _warned(sizes: Sizes) -> list[str]:
    """The sentence that the weights do not fit, if they are larger than the total memory."""
    from interp.cache.plan import format_bytes
    from interp.memory import total_bytes
    from interp.remedy import remedy

    total = total_bytes(sizes.device)
    if total is None or sizes.weight_bytes <= total:
        return []
    do = remedy("Load with {dtype:bfloat16}, {quantization} or {device_map:auto}.", "Use a smaller dtype.")
    return [f"the weights do not fit into {format_bytes(total)}. {do}"]
