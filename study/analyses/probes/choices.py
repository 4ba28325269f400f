"""What a sweep of probes reads of a cache: the unit of the null, and the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from interp.cache import ActivationCache

NONE = "none"
SHUFFLED = ".shuffled"
"""Ending of a target that is a column with its values permuted: what a probe must not read."""


def unit_of(examples: pd.DataFrame, candidates: Sequence[str], groups: np.ndarray | None, named: str) -> str | None:
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


def with_shuffled(examples: pd.DataFrame, targets: Sequence[str], *, seed: int) -> pd.DataFrame:
    """The examples with a column for every target `<column>.shuffled`: the values of that column, permuted over all
    examples that have one. A target that is a column already stays as it is."""
    import numpy as np

    columns = {}
    for target in targets:
        column = target.removesuffix(SHUFFLED)
        if target in examples or column == target or column not in examples:
            continue
        values = examples[column].to_numpy(dtype=object, copy=True)
        has_value = examples[column].notna().to_numpy()
        values[has_value] = np.random.default_rng([seed, len(values)]).permutation(values[has_value])
        columns[target] = values
    return examples.assign(**columns)


def sites_of(cache: ActivationCache, patterns: str) -> list[str]:
    """Sites of the cache that match; the embedding stays as a control."""
    from interp.site import match_sites
    from probes.source import open_source

    return match_sites(patterns, open_source(cache).sites)
