"""The rows of a sweep: a cache on disk or plain arrays, read one site at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.positions import parse_positions
from interp.remedy import remedy
from interp.site import by_depth, layer_of, match_sites

Column: TypeAlias = str | Sequence[Any] | np.ndarray
Data: TypeAlias = ActivationCache | Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Rows in one order, and a function that reads one site at one position.

    Attributes:
        ids:      ids of the rows, unique.
        sites:    site names, in depth order.
        n_layers: number of layers of the model, from the deepest site.
        contents: text hash of each row, where known.
        group_columns: columns that are groups of the examples.
    """

    ids: tuple[str, ...]
    sites: tuple[str, ...]
    checkpoint: str
    contents: tuple[str, ...] | None
    reader: Callable[[str, str], Tensor]
    columns: Mapping[str, np.ndarray]
    group_columns: tuple[str, ...] = ()

    @property
    def n_layers(self) -> int:
        return max((layer_of(site) or 0 for site in self.sites), default=0) + 1

    def only(self, site: str) -> Source:
        """The same rows with one site and no columns, cheap to send to another process."""
        narrowed = self.reader.only(site) if isinstance(self.reader, _Arrays | _Kept) else self.reader
        return replace(self, sites=(site,), reader=narrowed, columns={})

    def where(self, keep: Sequence[bool] | np.ndarray) -> Source:
        """The rows that a mask of the data keeps.

        Raises:
            ValueError: another length than rows.
        """
        mask = np.asarray(keep, dtype=bool)
        if mask.shape != (len(self.ids),):
            raise ValueError(f"keep: expected one boolean per row, shape ({len(self.ids)},), got {mask.shape}.")
        if mask.all():
            return self
        at = np.flatnonzero(mask)
        contents = None if self.contents is None else tuple(self.contents[i] for i in at)
        columns = {name: values[at] for name, values in self.columns.items()}
        return replace(
            self, ids=tuple(self.ids[i] for i in at), contents=contents, columns=columns, reader=_Kept(self.reader, at)
        )

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, site: str, position: str) -> Float[Tensor, "example d_feature"]:
        """Features of every row at one site; heads are joined along the feature axis.

        Raises:
            ValueError: another number of rows than ids, NaN or infinity (naming the row's id).
        """
        feats = self.reader(site, position)
        if len(feats) != len(self.ids):
            raise ValueError(f"site {site!r}: expected {len(self.ids)} rows, one per id, got {len(feats)}.")
        feats = feats.flatten(1)
        is_finite = feats.isfinite().all(dim=1)
        if not bool(is_finite.all()):
            bad = (~is_finite).nonzero()[:, 0]
            first = self.ids[int(bad[0])]
            raise ValueError(
                f"site {site!r}, position {position!r}: NaN or infinity in {len(bad)} of {len(feats)} rows, first "
                f"{first!r}. {remedy('Leave those rows out with {probes.where}, or leave out the site.')}"
            )
        return feats

    def column(self, what: str, column: Column) -> np.ndarray:
        """A column by name, or values given in row order.

        Raises:
            ValueError: no such column, or another number of values than rows.
        """
        if isinstance(column, str):
            if column not in self.columns:
                names = ", ".join(self.columns) or "none (plain arrays: pass the values themselves)"
                raise ValueError(f"{what}={column!r}: no such column of the examples. Known columns: {names}.")
            return self.columns[column]
        values = np.asarray(column)
        if values.shape != (len(self.ids),):
            raise ValueError(f"{what}: expected one value per row, shape ({len(self.ids)},), got {values.shape}.")
        return values


@dataclass(frozen=True)
class _Arrays:
    """Reads plain arrays; a memory map is sent to another process as its rows."""

    arrays: Mapping[str, Any]

    def __call__(self, site: str, position: str) -> Tensor:
        return torch.as_tensor(np.asarray(self.arrays[site]))

    def only(self, site: str) -> _Arrays:
        return _Arrays({site: self.arrays[site]})


@dataclass(frozen=True)
class _Kept:
    """Reads some of the rows of another reader."""

    reader: Callable[[str, str], Tensor]
    at: np.ndarray

    def __call__(self, site: str, position: str) -> Tensor:
        return self.reader(site, position)[torch.from_numpy(self.at)]

    def only(self, site: str) -> _Kept:
        return _Kept(self.reader.only(site), self.at) if isinstance(self.reader, _Arrays) else self


def open_source(data: Data, *, ids: Sequence[str] | None = None, checkpoint: str = "") -> Source:
    """Rows and sites of a cache, or of {site: array [example, ...]}; memory maps are read one site at a time.

    Args:
        ids: ids of the rows of plain arrays; None numbers them.
        checkpoint: what tables call it; a cache knows its own name.
    Raises:
        ValueError: arrays of different lengths, or none.
    """
    if isinstance(data, ActivationCache):
        return _from_cache(data, checkpoint)
    arrays = dict(data)
    lengths = {site: len(array) for site, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"data: expected arrays of one length, one row per example, got {lengths or 'none'}.")
    n = next(iter(lengths.values()))
    names = tuple(ids) if ids is not None else tuple(f"row-{i}" for i in range(n))
    return Source(names, tuple(arrays), checkpoint, None, _Arrays(arrays), {})


def _from_cache(cache: ActivationCache, checkpoint: str) -> Source:
    examples = cache.examples
    columns = {name: examples[name].to_numpy() for name in examples.columns}
    sites = tuple(sorted(cache.sites, key=by_depth))
    recorded = cache.manifest.get("environment", {}).get("checkpoint") or {}
    name = checkpoint or str(recorded.get("name") or "")
    contents = tuple(columns["text_sha256"].tolist()) if "text_sha256" in columns else None
    ids = tuple(columns["id"].tolist())
    return Source(ids, sites, name, contents, cache.read, columns, cache.group_columns)


def positions_of(positions: str | Sequence[str], data: Data) -> list[str]:
    if isinstance(positions, str) and positions.strip() == "*":
        return all_positions(data) if isinstance(data, ActivationCache) else ["last"]
    return [rule.name for rule in parse_positions(positions)]


def all_positions(cache: ActivationCache) -> list[str]:
    """The positions of a cache that have one row of every example.

    Raises:
        ValueError: there is none.
    Warns: of those that are left out.
    """
    taken = list(cache.single_positions)
    others = [name for name in cache.positions if name not in taken]
    if not taken:
        raise ValueError(
            f"{cache.root}: no position with one row of every example; it holds {', '.join(others)}. Extract one that "
            "has, e.g. last."
        )
    if others:
        several = "several rows, or none, of some examples"
        warnings.warn(f"positions left out, which have {several}: {', '.join(others)}.", stacklevel=3)
    return taken


def sites_named(sites: Sequence[str] | str, available: tuple[str, ...]) -> tuple[str, ...]:
    """The sites that patterns name; each pattern of a list must name one."""
    for pattern in [] if isinstance(sites, str) else sites:
        match_sites(pattern, available)
    return tuple(match_sites(sites, available))


def open_base(base: Data, source: Source) -> Source:
    """The base checkpoint's rows, refused where they are not the rows of the sweep."""
    below = open_source(base, ids=None if isinstance(base, ActivationCache) else source.ids)
    if below.ids != source.ids:
        first = next((i for i, (a, b) in enumerate(zip(below.ids, source.ids, strict=False)) if a != b), len(below))
        raise ValueError(
            f"base: expected the {len(source)} rows of the sweep in their order, got {len(below)} rows that "
            f"differ at row {first}. Record the base on the same data."
        )
    return below


def check_base(below: Source | None, sites: Sequence[str]) -> None:
    if below is not None and not set(below.sites) & set(sites):
        raise ValueError(f"base: it has none of the swept sites. It has: {', '.join(below.sites)}.")


def layer_number(site: str) -> float:
    """Layer of a site's name as a column of numbers: NaN without one (the embedding, a surface probe, plain names)."""
    layer = layer_of(site)
    return float("nan") if layer is None else float(layer)
