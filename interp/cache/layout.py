"""Rows, examples and shards of a cache, and the byte layout of a shard file, a function of its sites and rows.

A shard is a safetensors file: 8 bytes (little endian) of header length, a JSON header, then one contiguous
tensor per site, `[rows, *shape]`. The first tensor is `xxh3_64`, `[site, row]`: the checksum of every row of every
site, so that one row can be verified without reading the shard (0.1 % more bytes).

Every tensor's size is proportional to the rows, so with `n` rows the tensor of a site starts at byte

    header_bytes + n * row_offset[site]

and `row_offset` is stored once for the whole cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
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
        shape: shape of one row: (d_model,) for a residual site, (head, d_head) for z. Layers may differ.
        dtype: "bfloat16", "float16", "float32" or "float64".
    Raises:
        ValueError: unknown dtype, or a shape that is empty or not positive.
    """

    site: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"site {self.site!r}: dtype: expected one of {list(_DTYPES)}, got {self.dtype!r}.")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"site {self.site!r}: shape of one row: expected positive sizes, got {self.shape}.")

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
    """Bytes of one row over all sites, with 8 bytes of checksum per site."""
    return sum(site.row_bytes + 8 for site in sites)


def file_order(sites: Sequence[SiteSpec]) -> list[SiteSpec]:
    """Order of the tensors in a shard: widest element first, so that each is aligned; then as given."""
    return sorted(sites, key=lambda site: -site.itemsize)


def row_offsets(sites: Sequence[SiteSpec]) -> dict[str, int]:
    """Bytes per row that precede each site's tensor (see the module's formula)."""
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
    """The header of a shard of one cache; it names plan, shard and rows, so that a swapped file is detected.

    Args:
        rows, examples: [first, last + 1) of the shard, counted over the whole cache.
    """
    owner = {
        "plan_id": plan_id,
        "shard": str(shard),
        "rows": "{}:{}".format(*rows),
        "examples": "{}:{}".format(*examples),
    }
    return shard_header(sites, rows[1] - rows[0], owner)


def tensor_table(sites: Sequence[SiteSpec], n_rows: int, header_bytes: int) -> dict[str, list[object]]:
    """{site: [byte offset in the file, shape, dtype]}: part of the commit record: a shard is readable alone."""
    offsets = row_offsets(sites)
    return {s.site: [header_bytes + offsets[s.site] * n_rows, [n_rows, *s.shape], s.dtype] for s in sites}


def _entry(dtype: str, shape: tuple[int, ...], start: int, size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}


@dataclass(frozen=True)
class RowSpec:
    """One cached position: the `ordinal`-th token that rule `position_name` chose in one prompt.

    Attributes:
        span: name of the span, group, decision site or share that the token was chosen for; "" where there is none.
        reply_token: number of the token in the reply, from 0; -1 is the last token of the prompt. None without replies.
        reply_fraction: share of the reply that has been read at it; see `interp.replies.ReplyPrompt.fraction`.
    """

    example_id: str
    position_name: str
    ordinal: int
    position: int
    token_id: int
    token_text: str
    span: str = ""
    reply_token: int | None = None
    reply_fraction: float | None = None


@dataclass(frozen=True, eq=False)
class ReplyColumns:
    """Columns that the rows of replies have; see `RowSpec`."""

    span: tuple[str, ...]
    token: np.ndarray  # int32[row]
    fraction: np.ndarray  # float64[row], NaN in the prompt

    def of(self, row: int) -> dict[str, Any]:
        """The three fields of one row of `RowTable`."""
        fraction = float(self.fraction[row])
        known = None if np.isnan(fraction) else fraction
        return {"span": self.span[row], "reply_token": int(self.token[row]), "reply_fraction": known}


@dataclass(frozen=True, eq=False)
class RowTable(Sequence[RowSpec]):
    """The rows of a plan in row order, stored as columns: objects for millions of rows would not fit in memory.

    Order: by shard; inside a shard by position rule, then example, then position. So the rows of one rule are
    contiguous in a shard, and over the whole table they are in example order.
    """

    example_ids: tuple[str, ...]
    position_names: tuple[str, ...]
    example: np.ndarray  # int32[row], index into example_ids
    rule: np.ndarray  # int16[row], index into position_names
    ordinal: np.ndarray  # int32[row]
    position: np.ndarray  # int32[row], 0-based token index in the prompt
    token_id: np.ndarray  # int64[row]
    token_text: tuple[str, ...]
    reply: ReplyColumns | None = None

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, row: int) -> RowSpec:  # pyright: ignore[reportIncompatibleMethodOverride]
        return RowSpec(
            example_id=self.example_ids[self.example[row]],
            position_name=self.position_names[self.rule[row]],
            ordinal=int(self.ordinal[row]),
            position=int(self.position[row]),
            token_id=int(self.token_id[row]),
            token_text=self.token_text[row],
            **({} if self.reply is None else self.reply.of(row)),
        )


@dataclass(frozen=True)
class PromptRow:
    """One example of a cache; label, groups and metadata are not part of the cache's identity."""

    example_id: str
    prompt_sha256: str
    text_sha256: str
    prompt_len: int
    label: str | int | float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardSpec:
    """Rows [start, stop) of examples [example_start, example_stop); `runs[k]` rows belong to rule k."""

    index: int
    start: int
    stop: int
    example_start: int
    example_stop: int
    runs: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class ExampleRows:
    """The rows of one example in one shard: the activation at token `positions[k]` goes to its row `rows[k]`."""

    example: int
    rows: tuple[int, ...]
    positions: tuple[int, ...]
