"""What a cache says of its examples: classes, groups and strata by column, and where rows of a position stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.cache.manifest import read_examples
from interp.remedy import remedy
from interp.site import SITE_KINDS, Site
from interp.where import kept

Column: TypeAlias = str | Sequence[Any] | np.ndarray | None
GROUP_COLUMNS = ("story", "procedure", "procedure_id", "group")
STRATUM_COLUMNS = ("stratum", "template")
AUTO = "auto"


def column(cache: ActivationCache, what: str, values: Column) -> np.ndarray | None:
    """A column of the examples by name, or values given in their order.

    Raises:
        ValueError: no such column (the known ones are listed), or another number of values than examples.
    """
    if values is None:
        return None
    if isinstance(values, str):
        examples = cache.examples
        if values not in examples.columns:
            raise ValueError(f"{what}={values!r}: no such column of {cache.root.name}. Columns: {_named(cache)}.")
        return examples[values].to_numpy(dtype=object)
    array = np.asarray(values, dtype=object)
    if array.shape != (len(cache),):
        raise ValueError(f"{what}: expected one value per example, shape ({len(cache)},), got {array.shape}.")
    return array


def group_column(cache: ActivationCache) -> str:
    """The column of the independent unit where none is named: story, procedure, ..., else the only group column.

    Raises:
        ValueError: it cannot be told; the group columns are listed.
    """
    names = [n.removeprefix("groups.") for n in read_examples(cache.root).column_names if n.startswith("groups.")]
    found = next((name for name in GROUP_COLUMNS if name in names), names[0] if len(names) == 1 else None)
    if found is None:
        raise ValueError(
            f"groups: which column of {cache.root.name} is the independent unit? Its group columns are "
            f"{', '.join(names) or 'none'}. {remedy('Name one with {groups}.')}"
        )
    return found


def stratum_column(cache: ActivationCache) -> str:
    """The column to balance over where none is named: stratum, else template.

    Raises:
        ValueError: the cache has neither; its columns are listed.
    """
    found = next((name for name in STRATUM_COLUMNS if name in cache.examples.columns), None)
    if found is None:
        named = remedy("name the column with {strata}", "there is no such column")
        raise ValueError(f"balance strata: {named}. Columns of the cache: {_named(cache)}.")
    return found


def fit_mask(cache: ActivationCache, fit_on: str | Sequence[bool] | np.ndarray | None) -> np.ndarray | None:
    """True on the examples to fit on: a condition such as "split=train", a truth value each, or None for all.

    Raises:
        ValueError: as `interp.where.kept`.
    """
    if not isinstance(fit_on, str):
        values = column(cache, "fit_on", fit_on)
        return None if values is None else values.astype(bool)
    return kept(cache.examples, fit_on, n=len(cache), option="fit_on")


def residual_sites(cache: ActivationCache) -> list[Site]:
    """The cache's `resid_post` sites in order of layers; `site=None` means these.

    Raises:
        ValueError: it has none.
    """
    sites = sorted((Site.parse(s) for s in cache.sites if s.startswith("resid_post.")), key=lambda s: s.layer or 0)
    if not sites:
        named = remedy("Name one with {site}.", "Name one with {sites}.", "Record some with {cache.sites}.")
        raise ValueError(f"{cache.root.name} holds no resid_post site, but {', '.join(cache.sites)}. {named}")
    return sites


def check_residual(site: Site) -> Site:
    """`site` itself. Raises a ValueError unless its activation is a vector of the residual stream."""
    if SITE_KINDS[site.kind].shape != "d_model":
        kinds = ", ".join(kind for kind, row in SITE_KINDS.items() if row.shape == "d_model")
        raise ValueError(f"site '{site}': a direction lives in the residual stream; expected one of {kinds}.")
    return site


def only_position(cache: ActivationCache, position: str | None) -> str:
    """`position`, or the cache's only one. Raises a ValueError where there are several."""
    if position is None and len(cache.positions) != 1:
        raise ValueError(f"position: the cache holds {', '.join(cache.positions)}; name one.")
    return cache.positions[0] if position is None else position


class PositionRows:
    """The rows of one position rule of a cache: example and token number of each, and rows per example."""

    def __init__(self, cache: ActivationCache, position: str) -> None:
        if position not in cache.positions:
            raise ValueError(f"position {position!r} is not in the cache, which holds: {', '.join(cache.positions)}.")
        self.cache, self.position = cache, position
        table = cache.rows
        self.example = table["example"].to_numpy()
        self.token_number = table["position"].to_numpy()
        inside = table["position_name"].to_numpy() == position
        self.per_example = np.bincount(self.example[inside], minlength=len(cache))
        self.tokens: Mapping[int, str] = dict(zip(self.example[inside], table["token_text"][inside], strict=True))

    def blocks(
        self, site: Site, use: np.ndarray, *, block_rows: int = 2048
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Float[Tensor, "row d_model"]]]:
        """(example, token number, activations in float64) of the rows of the examples `use`, a block at a time.

        Raises:
            ValueError: NaN or infinity, naming the example.
        """
        for rows, feats in self.cache.iter_blocks(site, self.position, block_rows=block_rows):
            number = rows.numpy()
            keep = use[self.example[number]]
            if not keep.any():
                continue
            example, wide = self.example[number][keep], feats[torch.from_numpy(keep)].double()
            if not bool(wide.isfinite().all()):
                bad = example[int((~wide.isfinite().all(dim=1)).nonzero()[0])]
                name = self.cache.examples["id"].iloc[bad]
                raise ValueError(
                    f"{site}, {self.position}: NaN or infinity in example {name!r}. Leave it out (where='id!={name}')."
                )
            yield example, self.token_number[number][keep], wide


def _named(cache: ActivationCache) -> str:
    return ", ".join(name for name in cache.examples.columns if not name.startswith(("position.", "token.")))
