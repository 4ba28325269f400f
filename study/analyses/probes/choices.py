"""What a sweep of probes reads of a cache: the unit of the null, and the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.cache import ActivationCache

NONE = "none"


def unit_of(examples: Any, candidates: Sequence[str], groups: Any, named: str) -> str | None:
    """The column of the unit: as named, of "auto" the finest of the candidates inside the groups, of "none" no column.

    Raises:
        ValueError: no such column.
    """
    from interp.remedy import remedy
    from probes.null import nested_unit

    if named == "auto":
        return None if groups is None else nested_unit({name: examples[name].to_numpy() for name in candidates}, groups)
    if named != NONE and named not in examples.columns:
        raise ValueError(
            f"{remedy('{unit}')} {named}: no such column of the examples. Columns: {', '.join(examples.columns)}."
        )
    return None if named == NONE else named


def sites_of(cache: ActivationCache, patterns: str) -> list[str]:
    """Sites of the cache that match; the embedding stays as a control."""
    from interp.site import match_sites
    from probes.source import open_source

    return match_sites(patterns, open_source(cache).sites)
