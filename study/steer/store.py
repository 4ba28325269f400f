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
from steering.dose import DoseOutcome

if TYPE_CHECKING:
    import pandas as pd

PLAN, ITEMS = "plan.json", "items"


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

    def get(self, key: str) -> DoseOutcome:
        """One outcome."""
        with np.load(self.root / ITEMS / f"{key}.npz") as file:
            return DoseOutcome(key, *(file[name] for name in ("logp", "top", "kl", "prompted")))

    def outcomes(self, keys: Sequence[str]) -> list[DoseOutcome]:
        """Outcomes in the order of the keys."""
        return [self.get(key) for key in keys]


def write_table(table: pd.DataFrame, root: Path, name: str) -> None:
    """`name.csv` in the folder, whole or not at all; an empty table is not written."""
    if len(table):
        replace(root, root / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
