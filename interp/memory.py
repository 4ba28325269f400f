"""Batch sizes that follow from the size of a model and from the memory that is free, on a device or in a container.

They decide how long a run takes and whether it fits, never what it finds: results do not depend on how items share a
batch beyond the order of summation, a run that continues keeps the batches of its first start, and whatever does change
numbers (dtype, numbers of items) follows from the options and the model alone, on every machine alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from interp.family import Layer, Layout
    from interp.model import Model

MOST_TOKENS, FEWEST_TOKENS = 16_384, 512
"""Bounds of a derived batch, in tokens with padding."""
CPU_FLOPS = 2.0**41
"""Multiply-adds times two of one batch on a CPU: seconds. A larger one is not faster, and progress stands still."""
CPU_PASS = 1_024
"""Most tokens of one plain forward pass on a CPU: what a block computes then stays near the processor."""
CHUNK_BYTES = 512 * 2**20
"""Largest chunk of rows of a sweep on a CPU; larger ones are not faster there."""
_SHARE = 1 / 3  # of what is free: estimates are upper bounds of tensors, and others may need memory too
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sizes:
    """A model and the memory for it.

    Attributes:
        n_parameters: of the base and its adapters.
        dtype, device: of the weights.
        token_bytes: memory of one token of a batch (`token_bytes`).
        free: bytes that are free for batches once the weights are in memory; None where the system does not say.
    """

    n_parameters: int
    dtype: torch.dtype
    device: torch.device
    token_bytes: int
    free: int | None

    @property
    def weight_bytes(self) -> int:
        """Parameters at the dtype's size."""
        return self.n_parameters * self.dtype.itemsize

    @property
    def batch_tokens(self) -> int:
        """Tokens of one batch, padding included: the largest power of two within all bounds, at least 512.

            16,384,   free/3 / token_bytes,   and on a CPU 2⁴¹ / (2 · parameters)

        Example:
            >>> cpu = torch.device("cpu")
            >>> Sizes(135_000_000, torch.float32, cpu, 90_000, 20 * 2**30).batch_tokens
            4096
            >>> Sizes(135_000_000, torch.float32, cpu, 90_000, 2**28).batch_tokens
            512
        """
        most = float(MOST_TOKENS)
        if self.free is not None:
            most = min(most, self.free * _SHARE / self.token_bytes)
        if self.device.type == "cpu":
            most = min(most, CPU_FLOPS / (2 * max(self.n_parameters, 1)))
        return 1 << (max(FEWEST_TOKENS, int(most)).bit_length() - 1)

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass whose batch is not continued: `batch_tokens`, on a CPU at most 1,024.

        Larger passes are slower there: SmolLM2-135M ran 1,024, 4,096 and 16,384 tokens at 0.98, 0.93 and 0.74 of the
        rate of batches of 8 prompts (float32, one thread).
        """
        return min(self.batch_tokens, CPU_PASS) if self.device.type == "cpu" else self.batch_tokens

    @property
    def chunk_bytes(self) -> int:
        """Memory of the rows of a sweep that run together: a third of what is free, on a CPU at most 512 MiB."""
        if self.free is None:
            return CHUNK_BYTES
        return int(self.free * _SHARE) if self.device.type == "cuda" else min(CHUNK_BYTES, int(self.free * _SHARE))


def sizes_of(model: Model) -> Sizes:
    """Sizes of a loaded model, and what is free now."""
    per_token = token_bytes(model.layout, model.dtype.itemsize)
    return Sizes(n_parameters(model.module), model.dtype, model.device, per_token, free_bytes(model.device))


def planned_sizes(module: nn.Module, layout: Layout, dtype: torch.dtype, device: torch.device) -> Sizes:
    """Sizes of a model that is not loaded yet: its weights are taken off what is free."""
    free, n = free_bytes(device), n_parameters(module)
    room = None if free is None else max(free - n * dtype.itemsize, 0)
    return Sizes(n, dtype, device, token_bytes(layout, dtype.itemsize), room)


def n_parameters(module: nn.Module) -> int:
    """Parameters of a module; tied ones once."""
    return sum(p.numel() for p in module.parameters())


def token_bytes(layout: Layout, itemsize: int) -> int:
    """Upper bound of the memory of one token of a batch, in bytes: its keys and values, and the widest block.

    itemsize · ( sum over layers of 2 n_kv d_head  +  max over layers of wide(layer) )
    """
    kept = sum(2 * layer.n_kv_heads * layer.d_head for layer in layout.layers if layer.kind != "linear_attention")
    return itemsize * (kept + max(wide(layout, layer) for layer in layout.layers))


def wide(layout: Layout, layer: Layer) -> int:
    """Numbers that one token holds while it passes a block: 6 d_model + 3 d_mlp + 3 (n_heads + 2 n_kv) d_head."""
    d_mlp = getattr(layout.config, "intermediate_size", None) or 4 * layout.d_model
    d_mlp = max(d_mlp) if isinstance(d_mlp, list | tuple) else d_mlp
    return 6 * layout.d_model + 3 * d_mlp + 3 * (layer.n_heads + 2 * layer.n_kv_heads) * layer.d_head


def free_bytes(device: torch.device) -> int | None:
    """Bytes free on a device; on the CPU the least of free RAM and of what its control groups allow. None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = [room for room in (_meminfo("MemAvailable"), _cgroup_room()) if room is not None]
    return min(rooms, default=None) if device.type == "cpu" else None


def total_bytes(device: torch.device) -> int | None:
    """Memory that a process can ever have on a device: all of it, or the limit of its control group. None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    limits = [limit for limit in (_meminfo("MemTotal"), *(limit for limit, _ in _cgroups())) if limit is not None]
    return min(limits, default=None) if device.type == "cpu" else None


def _meminfo(name: str, path: Path = Path("/proc/meminfo")) -> int | None:
    """A row of /proc/meminfo in bytes; None on systems without it."""
    try:
        rows = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return int(rows[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _cgroup_room() -> int | None:
    """What the tightest control group of this process still allows; page cache that can be dropped counts as free."""
    return min((max(limit - used, 0) for limit, used in _cgroups()), default=None)


def _cgroups(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(limit, used) in bytes of every control group with a limit that this process is in, version 1 or 2."""
    found = []
    for folder in _folders(root, own):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and used is not None and limit < 2**60:  # version 1 writes a huge number for "none"
                found.append((limit, max(used - _droppable(folder), 0)))
    return found


def _folders(root: Path, own: Path) -> list[Path]:
    """The folders of this process's groups and of those around them; inside a container the root alone."""
    folders = [root, root / "memory"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        at = (root / "memory" if controllers else root) / path.strip("/")
        folders += [folder for folder in (at, *at.parents) if root in folder.parents]
    return list(dict.fromkeys(folders))


def _number(path: Path) -> int | None:
    """An integer file of a control group; None if it is absent or says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _droppable(folder: Path) -> int:
    """Bytes of files in a group's page cache that the kernel drops when memory is needed."""
    try:
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines() if line)
        return int(rows.get("inactive_file", rows.get("total_inactive_file", 0)))
    except (OSError, ValueError):
        return 0
