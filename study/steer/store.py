"""Outcomes of a dose sweep on disk: one file per item, written whole or not at all, so a killed run loses nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.cache.files import replace
from interp.cache.lock import writer_lock
from interp.prompt import Example
from steering.dose import DoseItem, DoseOutcome

if TYPE_CHECKING:
    import pandas as pd

PLAN, ITEMS, READ, TEXTS = "plan.json", "items", "read.json", "texts.npz"


class DoseFolder:
    """One dose sweep of one checkpoint: `plan.json`, `items/<key>.npz`, and the tables once all items are there.

    Args:
        identity: everything that changes an outcome (weights, arms, strengths, items); JSON values.
        notes: what else is worth knowing; of the run that began the folder, not compared.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None) -> None:
        self.root, self.identity = root, json.loads(json.dumps(identity, sort_keys=True))
        self.notes = dict(notes or {})

    def open(self) -> AbstractContextManager[None]:
        """Hold the folder for writing.

        Raises:
            ValueError: it holds another sweep; names what differs.
        """
        (self.root / ITEMS).mkdir(parents=True, exist_ok=True)
        path = self.root / PLAN
        if path.exists():
            held = json.loads(path.read_text())["identity"]
            differing = sorted(k for k in {*held, *self.identity} if held.get(k) != self.identity.get(k))
            if differing:
                shown = "; ".join(f"{k}: {held.get(k)!r:.60} != {self.identity.get(k)!r:.60}" for k in differing)
                raise ValueError(f"{self.root} holds another dose sweep ({shown}). Choose another --out, or delete it.")
        else:
            content = json.dumps({"identity": self.identity, "notes": self.notes}, indent=1, sort_keys=True)
            replace(self.root, path, (content + "\n").encode())
        return writer_lock(self.root)

    @property
    def done(self) -> frozenset[str]:
        """Keys of the outcomes that are there."""
        return frozenset(path.stem for path in (self.root / ITEMS).glob("*.npz"))

    def put(self, outcome: DoseOutcome) -> None:
        """Keep one outcome, durably."""
        buffer = io.BytesIO()
        np.savez(buffer, logp=outcome.logp, top=outcome.top, kl=outcome.kl, prompted=outcome.prompted)
        replace(self.root, self.root / ITEMS / f"{outcome.key}.npz", buffer.getvalue())


def read_outcome(root: Path, key: str) -> DoseOutcome:
    """One outcome of a sweep's folder."""
    with np.load(root / ITEMS / f"{key}.npz") as file:
        return DoseOutcome(key, *(file[name] for name in ("logp", "top", "kl", "prompted")))


def put_read(root: Path, items: Sequence[DoseItem], keys: Sequence[str], who: Mapping[str, Any]) -> None:
    """Keep what the tables need of the items besides the task's examples, and whose curves they are."""
    rows = [
        {"id": item.example.id, "ids": item.ids, "labels": item.labels, "label_ids": item.label_ids,
         "group": item.group, "baseline": item.baseline}
        for item in items
    ]  # fmt: skip
    content = {"items": rows, "keys": list(keys), "who": dict(who)}
    replace(root, root / READ, (json.dumps(content) + "\n").encode())


def get_read(root: Path, examples: Sequence[Example]) -> tuple[list[DoseItem], list[str], dict[str, Any]]:
    """(items, keys of their outcomes, whose they are) as `put_read` kept them.

    Raises:
        ValueError: nothing there, or items that are not among the examples.
    """
    if not (root / READ).is_file():
        raise ValueError(f"{root}: no finished dose sweep. Run the same command again.")
    content, by_id = json.loads((root / READ).read_text()), {example.id: example for example in examples}
    items = []
    for row in content["items"]:
        if row["id"] not in by_id:
            raise ValueError(f"{root}: item {row['id']!r} is not among the examples. They are of another selection.")
        label_ids = tuple(tuple(ids) for ids in row["label_ids"])
        base = None if row["baseline"] is None else tuple(row["baseline"])
        items.append(DoseItem(by_id[row["id"]], tuple(row["ids"]), tuple(row["labels"]), label_ids, row["group"], base))
    return items, content["keys"], content["who"]


def put_text_sums(root: Path, sums: Mapping[str, np.ndarray] | None) -> None:
    """Keep the sums over neutral texts; None where there were no texts."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(sums or {})
    np.savez(buffer, **arrays)
    replace(root, root / TEXTS, buffer.getvalue())


def get_text_sums(root: Path) -> dict[str, np.ndarray] | None:
    """The sums over neutral texts; None where there were no texts."""
    with np.load(root / TEXTS) as file:
        return {name: file[name] for name in file.files} or None


def write_table(table: pd.DataFrame, root: Path, name: str) -> None:
    """`name.csv` in the folder, whole or not at all; an empty table is not written."""
    if len(table):
        replace(root, root / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
