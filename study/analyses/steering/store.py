"""Outcomes of a dose sweep on disk: a store with one item per steered item, so a killed run loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.io.csv_text import csv_bytes
from interp.io.files import write_file
from interp.io.items import ItemStore, is_store
from interp.prompt import Example
from steering.dose import DoseItem, DoseOutcome
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

KIND, READ, TEXTS = "dose sweep", "read", "texts"


def dose_store(
    root: Path, identity: Mapping[str, object], *, notes: Mapping[str, object] | None = None
) -> AbstractContextManager[ItemStore]:
    """One dose sweep of one checkpoint, held for writing; its tables come once all items are there.

    Args:
        identity: everything that changes an outcome (weights, arms, strengths, items); JSON values.
        notes: what else is worth knowing; of the run that began the folder, not compared.
    Raises: as `ItemStore.writing`.
    """
    return ItemStore.writing(root, KIND, identity, notes=notes)


def done_of(store: ItemStore) -> frozenset[str]:
    """Keys of the outcomes in the store."""
    return store.keys - {READ, TEXTS}


def put_outcome(store: ItemStore, outcome: DoseOutcome) -> None:
    """Keep one outcome, durably."""
    arrays = {name: getattr(outcome, name) for name in ("logp", "top", "kl", "prompted")}
    store.put_arrays(outcome.key, arrays)


def get_outcome(store: ItemStore, key: str) -> DoseOutcome:
    """One outcome; raises as `ItemStore.get`."""
    return DoseOutcome(key, **store.get_arrays(key))


def open_sweep(root: Path) -> ItemStore:
    """A finished sweep, to be read.

    Raises:
        ValueError: none there, or one that is not finished.
    """
    store = ItemStore.reading(root, KIND) if is_store(root) else None
    if store is None or READ not in store:
        raise ValueError(f"{root}: no finished dose sweep. Run the same command again.")
    return store


def is_finished(root: Path) -> bool:
    """Whether all items of a sweep are there."""
    return is_store(root) and READ in ItemStore.reading(root, KIND)


def put_read(store: ItemStore, items: Sequence[DoseItem], keys: Sequence[str], who: Mapping[str, object]) -> None:
    """Keep what the tables need of the items besides the task's examples, and whose curves they are."""
    rows = [
        {
            "id": item.example.id,
            "label": item.example.label,
            "ids": item.ids,
            "labels": item.labels,
            "label_ids": item.label_ids,
            "group": item.group,
            "baseline": item.baseline,
        }
        for item in items
    ]
    store.put_json(READ, {"items": rows, "keys": list(keys), "who": dict(who)})


def get_read(store: ItemStore, examples: Sequence[Example]) -> tuple[list[DoseItem], list[str], Row]:
    """(items, keys of their outcomes, whose they are) as `put_read` kept them.

    Raises:
        ValueError: items that are not among the examples.
    """
    content, by_id = store.get_json(READ), {example.id: example for example in examples}
    items = []
    for row in content["items"]:
        if row["id"] not in by_id:
            raise ValueError(
                f"{store.root}: item {row['id']!r} is not among the examples, so they were selected differently."
            )
        label_ids = tuple(tuple(ids) for ids in row["label_ids"])
        base = None if row["baseline"] is None else tuple(row["baseline"])
        example = replace(by_id[row["id"]], label=row.get("label", by_id[row["id"]].label))
        items.append(DoseItem(example, tuple(row["ids"]), tuple(row["labels"]), label_ids, row["group"], base))
    return items, content["keys"], content["who"]


def put_text_sums(store: ItemStore, sums: Mapping[str, np.ndarray] | None) -> None:
    """Keep the sums over neutral texts; None where there were no texts."""
    store.put_arrays(TEXTS, sums or {})


def get_text_sums(store: ItemStore) -> dict[str, np.ndarray] | None:
    """The sums over neutral texts; None where there were no texts."""
    return store.get_arrays(TEXTS) or None


def write_table(table: pd.DataFrame, root: Path, name: str) -> None:
    """`name.csv` in the folder; an empty table is not written."""
    if len(table):
        write_file(root / f"{name}.csv", csv_bytes(table))
