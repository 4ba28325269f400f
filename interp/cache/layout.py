"""Where each tensor lies inside a shard file: a pure function of the sites and the number of rows.

A shard is a safetensors file: 8 bytes (little endian) of header length, a JSON header, then one contiguous
tensor per site, `[rows, *shape]`. Before them stands the tensor `xxh3_64`, `[site, row]`: the checksum of every
row of every site, so that a reader of one row can prove that row without reading the shard (0.1 % more bytes).

Every tensor's size is proportional to the rows, so with `n` rows the tensor of a site starts at byte

    header_bytes + n * row_offset[site]

and `row_offset` is stored once for the whole cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

CHECKSUMS = "xxh3_64"
_DTYPES: Mapping[str, tuple[torch.dtype, str, int]] = {
    "bfloat16": (torch.bfloat16, "BF16", 2),
    "float16": (torch.float16, "F16", 2),
    "float32": (torch.float32, "F32", 4),
    "float64": (torch.float64, "F64", 8),
}


@dataclass(frozen=True)
class SiteSpec:
    """One tensor of the cache: its site, the shape of one row, and the stored dtype.

    Args:
        site:  the site's string form, e.g. "resid_post.3", "z.3" (all heads) or "z.3.1" (one head).
        shape: of one row: (d_model,) for a residual site, (head, d_head) for z. Layers may differ.
        dtype: "bfloat16", "float16", "float32" or "float64".
    Raises:
        ValueError: an unknown dtype, or a shape that is empty or not positive.
    """

    site: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"site {self.site!r}: dtype {self.dtype!r} cannot be stored. Choose from {list(_DTYPES)}.")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"site {self.site!r}: the shape of one row is {self.shape}; expected positive sizes.")

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype][0]

    @property
    def itemsize(self) -> int:
        return _DTYPES[self.dtype][2]

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * self.itemsize


def row_bytes(sites: Sequence[SiteSpec]) -> int:
    """Bytes of one row over all sites, with its 8 bytes of checksum per site."""
    return sum(site.row_bytes + 8 for site in sites)


def file_order(sites: Sequence[SiteSpec]) -> list[SiteSpec]:
    """The order of the tensors in a shard: widest element first (so that each is aligned), then as given."""
    return sorted(sites, key=lambda site: -site.itemsize)


def row_offsets(sites: Sequence[SiteSpec]) -> dict[str, int]:
    """Bytes per row that stand before each site's tensor (see the module's formula)."""
    offsets, at = {}, 8 * len(sites)
    for site in file_order(sites):
        offsets[site.site] = at
        at += site.row_bytes
    return offsets


def shard_header(sites: Sequence[SiteSpec], n_rows: int, metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a shard file: length and JSON header, padded with spaces to a multiple of 8.

    Source: the published safetensors format; tests/test_cache_reader.py opens the result with safetensors.
    """
    offsets = row_offsets(sites)
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    header[CHECKSUMS] = _entry("I64", (len(sites), n_rows), 0, 8 * len(sites) * n_rows)
    for site in file_order(sites):
        start = offsets[site.site] * n_rows
        header[site.site] = _entry(_DTYPES[site.dtype][1], (n_rows, *site.shape), start, site.row_bytes * n_rows)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def header_of(
    sites: Sequence[SiteSpec], plan_id: str, shard: int, *, rows: tuple[int, int], examples: tuple[int, int]
) -> bytes:
    """The header that a cache's own shard has: it says whose it is, so that no other can stand in its place.

    Args:
        rows, examples: first and last + 1 of the whole cache, as the shard holds them.
    """
    told = {"plan_id": plan_id, "shard": str(shard), "rows": "{}:{}".format(*rows),
            "examples": "{}:{}".format(*examples)}  # fmt: skip
    return shard_header(sites, rows[1] - rows[0], told)


def tensor_table(sites: Sequence[SiteSpec], n_rows: int, header_bytes: int) -> dict[str, list[object]]:
    """{site: [byte offset in the file, shape, dtype]}: the part of a commit record that makes it readable alone."""
    offsets = row_offsets(sites)
    return {s.site: [header_bytes + offsets[s.site] * n_rows, [n_rows, *s.shape], s.dtype] for s in sites}


def _entry(dtype: str, shape: tuple[int, ...], start: int, size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
