"""What one row, one example and one shard of a cache are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class RowSpec:
    """One cached position: the `ordinal`-th token that rule `position_name` chose in one prompt."""

    example_id: str
    position_name: str
    ordinal: int
    position: int
    token_id: int
    token_text: str


@dataclass(frozen=True, eq=False)
class RowTable(Sequence[RowSpec]):
    """The rows of a plan in row order, kept as columns: a list of objects would not fit for millions of rows.

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
        )


@dataclass(frozen=True)
class PromptRow:
    """One example as the cache remembers it; label, groups and metadata are not part of the identity."""

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
    """The rows of one example inside one shard: activation at token `positions[k]` goes to row `rows[k]` of it."""

    example: int
    rows: tuple[int, ...]
    positions: tuple[int, ...]
