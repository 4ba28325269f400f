"""A finished cache: activations by site and position, examples and rows as tables, checks, and pairs of caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.cache.errors import CacheError
from interp.cache.index import CacheIndex, Segment, summary_html, summary_text
from interp.cache.manifest import read_examples, read_manifest, read_rows
from interp.cache.reader import Access, ShardFiles, find_problems
from interp.cache.tables import examples_frame, group_columns, rows_frame
from interp.site import Site

if TYPE_CHECKING:
    import pandas as pd


class ActivationCache:
    """Activations of one checkpoint over one list of prompts, on disk.

    Reading never changes a cache: files are opened read-only, and every call returns fresh memory in the stored
    dtype, so that writing to a tensor changes neither the cache nor the result of another call. Each row is compared
    with its checksum when it is read. A row is an (example, position); `read` is the usual entry point.

    Not thread-safe; open it once per thread. It pickles as its folder.
    """

    def __init__(self, root: Path, index: CacheIndex) -> None:
        self.root = root
        self._index = index
        self._files = ShardFiles(root, index)
        self._allow_partial = not index.sealed

    @classmethod
    def open(cls, root: str | Path, *, allow_partial: bool = False) -> ActivationCache:
        """Open the cache in a folder; reads SEALED.json and the manifest, which must be the one that was sealed.

        Args:
            allow_partial: open an unfinished cache too; rows of missing shards raise when read.
        Raises:
            NotACacheError: the folder holds no cache.
            UnsealedCacheError: the cache is not finished, and allow_partial is False.
        """
        root = Path(root)
        return cls(root, CacheIndex.load(root, allow_partial=allow_partial))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.root, self._allow_partial)

    def __enter__(self) -> ActivationCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        self._files.close()

    def __len__(self) -> int:
        return self._index.n_examples

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._index.sites)

    @property
    def positions(self) -> tuple[str, ...]:
        return tuple(self._index.single)

    @property
    def single_positions(self) -> tuple[str, ...]:
        """The `positions` with exactly one row per example, which `read` accepts."""
        return tuple(name for name, is_single in self._index.single.items() if is_single)

    @property
    def n_rows(self) -> int:
        return self._index.n_rows

    @property
    def plan_id(self) -> str:
        return self._index.plan_id

    @property
    def examples_digest(self) -> str:
        """Digest of the sealed table of examples (labels, groups, metadata); "" for an unfinished cache."""
        return self._index.examples_digest

    @property
    def sealed(self) -> bool:
        return self._index.sealed

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.root)

    @property
    def examples(self) -> pd.DataFrame:
        """One row per example in plan order: id, label, groups, hashes, `position.<rule>`, `token.<rule>`, metadata."""
        return self._examples.copy(deep=False)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns of `examples` that come from `Example.groups`."""
        return group_columns(read_examples(self.root))

    @property
    def rows(self) -> pd.DataFrame:
        """One row per cached position, in row order; the index is the row number that `rows_at` takes."""
        return self._rows.copy(deep=False)

    def read(self, site: str | Site, position: str) -> Float[Tensor, "example *feature"]:
        """Activations at one position of every example, in the order of `examples`.

        Raises:
            ValueError: the cache has no such site or position, or the rule did not give one row per example.

        Example:
            >>> cache.read("resid_post.1", "last").shape
            torch.Size([24, 32])
        """
        self._check_position(position)
        if not self._index.single[position]:
            raise ValueError(
                f"position {position!r} chose several tokens (or none) in some examples, so there is no [example, ...] "
                f"tensor. Use read_rows({str(site)!r}, {position!r}), whose rows are described by cache.rows."
            )
        return self.read_rows(site, position)

    def read_rows(self, site: str | Site, position: str | None = None) -> Float[Tensor, "row *feature"]:
        """All rows of one rule, or of all rules (None), in row order: those of `rows` with this position_name."""
        if position is not None:
            self._check_position(position)
        return self._read(site, self._index.segments(position), "block")

    def rows_at(
        self, indices: Sequence[int] | Int[Tensor, "row"] | Int[np.ndarray, "row"], site: str | Site
    ) -> Float[Tensor, "row *feature"]:
        """Any rows, by row number, in the given order (repeats allowed).

        Raises:
            ValueError: a row number outside 0..n_rows-1.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise ValueError(f"rows: expected numbers in 0..{self.n_rows - 1}, got {rows.min()}..{rows.max()}.")
        # sorted and unique, so that neighbouring rows become one read; `inverse` restores order and repeats
        distinct, inverse = np.unique(rows, return_inverse=True)
        feats = self._read(site, self._index.segments_of_rows(distinct), "random")
        return feats if np.array_equal(distinct, rows) else feats[torch.from_numpy(inverse)]

    def row(self, example_id: str, position: str, *, ordinal: int = 0) -> dict[str, Float[Tensor, "*feature"]]:
        """One position of one example at every site.

        Args:
            ordinal: index of the position among those of the rule in this example, from 0.
        Raises:
            ValueError: unknown example or position, or fewer positions than `ordinal` + 1.
        """
        segments = self._index.segments_of_rows(np.array([self._row_number(example_id, position, ordinal)]))
        feats = self._files.read(self.sites, segments, "random")
        return {site: rows[0] for site, rows in zip(self.sites, feats, strict=True)}

    def iter_blocks(
        self, site: str | Site, position: str | None, *, block_rows: int
    ) -> Iterator[tuple[Int[Tensor, "row"], Float[Tensor, "row *feature"]]]:
        """(row numbers, activations) of at most `block_rows` rows at a time, in row order. The disk reads the next
        block ahead while the caller uses this one.

        Raises:
            ValueError: unknown site or position, or block_rows < 1.
        """
        if block_rows < 1:
            raise ValueError(f"block_rows: expected at least 1, got {block_rows}.")
        if position is not None:
            self._check_position(position)
        key, _ = self._resolve(site)
        blocks = [
            Segment(whole.shard, at, min(at + block_rows, whole.stop))
            for whole in self._index.segments(position)
            for at in range(whole.start, whole.stop, block_rows)
        ]
        for number, block in enumerate(blocks):
            feats = self._read(site, [block], "block")
            self._files.advise(key, blocks[number + 1 : number + 2])
            yield torch.arange(block.start, block.stop) + block.shard.start, feats

    def missing(self) -> tuple[int, ...]:
        """Shards without a commit record or without their data file."""
        shards = self._index.shards
        return tuple(s.index for s in shards if s.file is None or not (self.root / "shards" / s.file).exists())

    def problems(self, *, level: str = "size") -> tuple[CacheError, ...]:
        """All damage of the files: "size" checks names, sizes and headers, "hash" reads every byte."""
        return find_problems(self.root, self._index, level)

    def verify(self, *, level: str = "size") -> None:
        """Raise the first of `problems`, with the number of the others as a note."""
        errors = self.problems(level=level)
        if errors:
            errors[0].add_note(f"{len(errors) - 1} more: see cache.problems(level={level!r}).")
            raise errors[0]

    def pair(self, other: ActivationCache) -> PairedRows:
        """Join the rows of this cache and another by example id and position; see `PairedRows`.

        Raises:
            ValueError: the two have no row in common; shows a few keys of each.
        """
        return _pair(self, other)

    def inspect(self) -> str:
        """Summary of the cache, for a terminal."""
        return summary_text(self.root, self.manifest, self._index)

    def _repr_html_(self) -> str:
        return summary_html(self.root, self.manifest, self._index)

    def __repr__(self) -> str:
        return f"ActivationCache({str(self.root)!r}, {len(self)} examples, {self.n_rows} rows, {len(self.sites)} sites)"

    @cached_property
    def _rows(self) -> pd.DataFrame:
        return rows_frame(read_rows(self.root, self.manifest)).set_index("row", drop=False).rename_axis(None)

    @cached_property
    def _examples(self) -> pd.DataFrame:
        return examples_frame(read_examples(self.root), read_rows(self.root, self.manifest), self._index.single)

    @cached_property
    def _example_number(self) -> dict[str, int]:
        return {example_id: i for i, example_id in enumerate(read_examples(self.root).column("id").to_pylist())}

    def _read(self, site: str | Site, segments: Sequence[Segment], access: Access) -> Tensor:
        key, head = self._resolve(site)
        if head is None:
            return self._files.read([key], segments, access)[0]
        parts = [self._files.read([key], [segment], access)[0][:, head] for segment in segments]
        spec = self._index.sites[key]
        return torch.cat(parts) if parts else torch.empty((0, *spec.shape[1:]), dtype=spec.torch_dtype)

    def _resolve(self, site: str | Site) -> tuple[str, int | None]:
        key = str(site)
        if key in self._index.sites:
            return key, None
        key = str(Site.parse(key))
        if key in self._index.sites:
            return key, None
        stem, _, head = key.rpartition(".")
        spec = self._index.sites.get(stem)
        if spec is not None and len(spec.shape) == 2 and head.isdigit() and int(head) < spec.shape[0]:
            return stem, int(head)
        raise ValueError(f"site {str(site)!r} is not in {self.root}, which has: {', '.join(self.sites)}.")

    def _check_position(self, position: str) -> None:
        if position not in self._index.single:
            raise ValueError(f"position {position!r} is not in {self.root}, which has: {', '.join(self.positions)}.")

    def _row_number(self, example_id: str, position: str, ordinal: int) -> int:
        self._check_position(position)
        number = self._example_number.get(example_id)
        if number is None:
            raise ValueError(f"example {example_id!r} is not in {self.root}; cache.examples['id'] lists its ids.")
        if self._index.single[position]:  # computed from the shard bounds; reads no table of rows
            starts = [shard.examples[0] for shard in self._index.shards]
            shard = self._index.shards[int(np.searchsorted(starts, number, side="right")) - 1]
            first = shard.start + sum(shard.runs[: self.positions.index(position)])
            rows = [first + number - shard.examples[0]]
        else:
            rows = self._rows.query("example_id == @example_id and position_name == @position").index.tolist()
        if not 0 <= ordinal < len(rows):
            raise ValueError(
                f"ordinal: example {example_id!r} has {len(rows)} rows of {position!r}, counted from 0; got {ordinal}."
            )
        return int(rows[ordinal])


def _reopen(root: Path, allow_partial: bool) -> ActivationCache:
    return ActivationCache.open(root, allow_partial=allow_partial)


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Rows of two caches at the same position of the same example, joined by id and never by order.

    Attributes:
        table: pandas, one line per pair in the left row order: example_id, position_name, ordinal, then for each
            side `row_*`, `token_id_*`, `token_text_*`, `text_sha256_*`, and `same_text`, whether the two prompts
            have the same text. Token ids may differ: the members may have different tokenizers.
        only_left, only_right: (example_id, position_name, ordinal) that the other cache does not have.
    """

    table: Any
    only_left: tuple[tuple[str, str, int], ...]
    only_right: tuple[tuple[str, str, int], ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def left(self) -> Int[Tensor, "pair"]:
        """Row numbers for `rows_at` of the left cache."""
        return torch.from_numpy(np.array(self.table["row_left"]))

    @property
    def right(self) -> Int[Tensor, "pair"]:
        """Row numbers for `rows_at` of the right cache, in the same order."""
        return torch.from_numpy(np.array(self.table["row_right"]))

    @property
    def n_text_differs(self) -> int:
        """Number of pairs whose prompts have different texts."""
        return len(self) - int(np.count_nonzero(self.table["same_text"]))


def _pair(left: ActivationCache, right: ActivationCache) -> PairedRows:
    keys = ["example_id", "position_name", "ordinal"]
    sides = [_keyed(left), _keyed(right)]
    merged = sides[0].merge(sides[1], on=keys, how="outer", suffixes=("_left", "_right"), indicator=True)
    both = merged[merged["_merge"] == "both"].drop(columns="_merge").sort_values("row_left", ignore_index=True)
    if not len(both):
        samples = [list(side[keys].head(2).itertuples(index=False, name=None)) for side in sides]
        raise ValueError(
            f"{left.root} and {right.root} have no (example id, position, ordinal) in common: {samples[0]} and "
            f"{samples[1]}. Extract both over the same examples and positions."
        )
    both = both.astype({"row_left": "int64", "row_right": "int64"})
    both["same_text"] = both["text_sha256_left"] == both["text_sha256_right"]
    only: list[tuple[Any, ...]] = [
        tuple(merged.loc[merged["_merge"] == which, keys].itertuples(index=False, name=None))
        for which in ("left_only", "right_only")
    ]
    return PairedRows(both, *only)


def _keyed(cache: ActivationCache) -> Any:
    rows = cache.rows[["example_id", "position_name", "ordinal", "row", "token_id", "token_text"]]
    texts = cache.examples.set_index("id")["text_sha256"]
    return rows.assign(text_sha256=rows["example_id"].map(texts).to_numpy())
