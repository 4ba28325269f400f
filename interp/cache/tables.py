"""The two small tables of a cache as Parquet bytes and as pandas: one row per example, one row per cached position."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.cache.layout import PromptRow
from interp.cache.plan import CachePlan

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_JSON = {b"encoding": b"json"}
_GROUP, _METADATA = "groups.", "metadata."


def rows_table(plan: CachePlan) -> Any:
    """Arrow table of the rows: row, shard, example_id, position_name, ordinal, position, token_id, token_text.

    Of replies also span, reply_token and reply_fraction (null in the prompt); see `interp.cache.layout.RowSpec`.
    """
    import pyarrow as pa

    rows, shard = plan.rows, np.zeros(len(plan.rows), dtype=np.int32)
    for spec in plan.shards:
        shard[spec.start : spec.stop] = spec.index
    columns = {
        "row": pa.array(np.arange(len(rows), dtype=np.int64)),
        "shard": pa.array(shard),
        "example": pa.array(rows.example),
        "example_id": pa.DictionaryArray.from_arrays(pa.array(rows.example), pa.array(rows.example_ids)),
        "position_name": pa.DictionaryArray.from_arrays(pa.array(rows.rule), pa.array(rows.position_names)),
        "ordinal": pa.array(rows.ordinal),
        "position": pa.array(rows.position),
        "token_id": pa.array(rows.token_id),
        "token_text": pa.array(rows.token_text, pa.string()),
    }
    if rows.reply is not None:
        columns["span"] = pa.array(rows.reply.span, pa.string())
        columns["reply_token"] = pa.array(rows.reply.token)
        columns["reply_fraction"] = pa.array(rows.reply.fraction, from_pandas=True)  # NaN becomes null
    return pa.table(columns)


def examples_table(prompts: Sequence[PromptRow]) -> Any:
    """Arrow table of the examples: id, label, prompt hashes and length, one column per group and metadata key.

    A column whose values are not all of one plain kind (text, integer, number, boolean) is stored as JSON.

    Raises:
        ValueError: a value that JSON cannot represent; names column and example.
    """
    import pyarrow as pa

    columns: dict[str, list[object]] = {
        "id": [p.example_id for p in prompts],
        "label": [p.label for p in prompts],
        "prompt_sha256": [p.prompt_sha256 for p in prompts],
        "text_sha256": [p.text_sha256 for p in prompts],
        "prompt_len": [p.prompt_len for p in prompts],
    }
    for prefix, of in ((_GROUP, [p.groups for p in prompts]), (_METADATA, [p.metadata for p in prompts])):
        for key in dict.fromkeys(chain.from_iterable(of)):
            columns[prefix + key] = [mapping.get(key) for mapping in of]
    arrays = [_column(name, values, columns["id"]) for name, values in columns.items()]
    return pa.Table.from_arrays([array for _, array in arrays], schema=pa.schema([field for field, _ in arrays]))


def _column(name: str, values: list[object], ids: list[object]) -> tuple[pa.Field, pa.Array]:
    import pyarrow as pa

    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    kind = next((kind for plain, kind in _plain_kinds() if kinds <= plain), None)
    # integers from 2**53 on lose digits as floats, so a column that has them is stored as JSON
    if kind is not None and not (int in kinds and any(abs(v) >= 2**53 for v in values if isinstance(v, int))):
        return pa.field(name, kind), pa.array(values, kind)
    texts = [None if value is None else _json(name, value, i) for value, i in zip(values, ids, strict=True)]
    return pa.field(name, pa.string(), metadata=_JSON), pa.array(texts, pa.string())


def _plain_kinds() -> tuple[tuple[set[type], pa.DataType], ...]:
    import pyarrow as pa

    return ({str}, pa.string()), ({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())


def _json(name: str, value: object, example_id: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except TypeError:
        raise ValueError(
            f"column {name!r}, example {example_id!r}: expected text, numbers, true/false, lists or mappings, got a "
            f"{type(value).__name__}. Convert it, or drop the column."
        ) from None


def to_parquet(table: Any) -> bytes:
    """The table as Parquet with page checksums; equal tables give equal bytes."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()


def from_parquet(data: bytes) -> Any:
    """Read a table of `to_parquet`; a damaged page raises OSError."""
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(data), page_checksum_verification=True)


def examples_frame(examples: Any, rows: Any, single: Mapping[str, bool]) -> pd.DataFrame:
    """The user's view of the examples, in plan order.

    Groups and metadata keep their names (a metadata key that clashes keeps its prefix "metadata."), followed by
    for each position rule `position.<rule>` (token index, or the list of them) and `token.<rule>` (its text).
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    for field in examples.schema:
        name = field.name.removeprefix(_GROUP)
        short = name.removeprefix(_METADATA)
        columns[short if short not in columns else name] = _series(examples.column(field.name), field)
    frame, table = pd.DataFrame(columns), rows_frame(rows)
    for rule, is_single in single.items():
        part = table[table["position_name"] == rule]
        for column, name in (("position", f"position.{rule}"), ("token_text", f"token.{rule}")):
            grouped = part.groupby("example")[column]
            values = (grouped.first() if is_single else grouped.agg(list)).reindex(range(len(frame)))
            frame[name] = values.to_numpy() if is_single else [v if isinstance(v, list) else [] for v in values]
    return frame


def group_columns(examples: Any) -> tuple[str, ...]:
    """Names, in the user's view, of the columns that come from the examples' groups."""
    return tuple(name.removeprefix(_GROUP) for name in examples.schema.names if name.startswith(_GROUP))


def _series(column: Any, field: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    if field.metadata == _JSON:
        return pd.Series([None if v is None else json.loads(v) for v in column.to_pylist()], dtype=object)
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()} if column.null_count else {}
    return column.to_pandas(types_mapper=nullable.get)


def rows_frame(rows: Any) -> pd.DataFrame:
    """The rows as pandas, with plain text columns."""
    frame = rows.to_pandas()
    for name in ("example_id", "position_name"):
        frame[name] = frame[name].astype(str)
    return frame
