"""Join two caches over the same examples: by example id and position, never by order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Rows of two caches that are the same position of the same example.

    Attributes:
        table: pandas, one line per pair in the left row order: example_id, position_name, ordinal, then for each
            side `row_*`, `token_id_*`, `token_text_*`, `text_sha256_*`, and `same_text`, whether the two prompts
            have the same text. Token ids may differ: the members may have different tokenizers.
        only_left, only_right: (example_id, position_name, ordinal) that the other cache does not hold.
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
        """Pairs whose prompts are not the same text."""
        return len(self) - int(np.count_nonzero(self.table["same_text"]))


@dataclass(frozen=True, eq=False)
class Side:
    """What pairing needs to know of one cache: its folder and its two tables."""

    root: Path
    rows: Any  # pandas
    examples: Any


def pair_rows(left: Side, right: Side) -> PairedRows:
    """See PairedRows.

    Raises:
        ValueError: nothing in common; shows a few keys of each.
    """
    keys = ["example_id", "position_name", "ordinal"]
    sides = [_keyed(left), _keyed(right)]
    merged = sides[0].merge(sides[1], on=keys, how="outer", suffixes=("_left", "_right"), indicator=True)
    both = merged[merged["_merge"] == "both"].drop(columns="_merge").sort_values("row_left", ignore_index=True)
    if not len(both):
        samples = [list(side[keys].head(2).itertuples(index=False, name=None)) for side in sides]
        raise ValueError(
            f"{left.root} and {right.root} have no (example id, position, ordinal) in common: {samples[0]} against "
            f"{samples[1]}. Extract both over the same examples and positions."
        )
    both = both.astype({"row_left": "int64", "row_right": "int64"})
    both["same_text"] = both["text_sha256_left"] == both["text_sha256_right"]
    only: list[tuple[Any, ...]] = [
        tuple(merged.loc[merged["_merge"] == which, keys].itertuples(index=False, name=None))
        for which in ("left_only", "right_only")
    ]
    return PairedRows(both, *only)


def _keyed(cache: Side) -> Any:
    rows = cache.rows[["example_id", "position_name", "ordinal", "row", "token_id", "token_text"]]
    texts = cache.examples.set_index("id")["text_sha256"]
    return rows.assign(text_sha256=rows["example_id"].map(texts).to_numpy())
