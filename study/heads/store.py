"""Outcomes of a head sweep on disk: one file per pair, written whole or not at all, under the digest of its plan."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from interp.cache.files import replace
from interp.cache.lock import writer_lock
from interp.heads import HeadEffects, Outcome, Plan, TokenPair
from interp.heads.ids import parse_unit

PLAN, PAIRS, NORMS, ITEMS = "plan.json", "pairs.json", "norms.json", "items"
CUMULATIVE = "cumulative"  # folder of the heads removed together, beside those of the kinds


class HeadsFolder:
    """One sweep: `plan.json`, `pairs.json`, `norms.json`, `items/<key>.npz`.

    Raises:
        ValueError: (from `open`) the folder holds another sweep; names the fields that differ.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, plan: Plan, pairs: Sequence[TokenPair]) -> AbstractContextManager[None]:
        """Hold the folder for writing; checks that it is empty or holds this plan."""
        (self.root / ITEMS).mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(asdict(plan)))
        path = self.root / PLAN
        if path.exists():
            held = json.loads(path.read_text())
            differing = [key for key in wanted if held.get(key) != wanted[key]]
            if differing:
                shown = "; ".join(f"{key}: {held.get(key)!r:.60} != {wanted[key]!r:.60}" for key in differing)
                raise ValueError(f"{self.root} holds another sweep ({shown}). Choose another --out, or delete it.")
        else:
            self._put_json(PAIRS, [asdict(pair) for pair in pairs])
            self._put_json(PLAN, wanted)
        return writer_lock(self.root)

    def _put_json(self, name: str, content: Any) -> None:
        replace(self.root, self.root / name, (json.dumps(content) + "\n").encode())

    @property
    def done(self) -> frozenset[str]:
        """Keys of the outcomes that are there."""
        return frozenset(path.stem for path in (self.root / ITEMS).glob("*.npz"))

    def put(self, outcome: Outcome) -> None:
        """Keep one outcome, durably."""
        buffer = io.BytesIO()
        base = np.array([outcome.base_margin, outcome.base_right])
        arrays: dict[str, Any] = {name: np.asarray(array) for name, array in outcome.values.items()}
        np.savez(buffer, base=base, **arrays)
        replace(self.root, self.root / ITEMS / f"{outcome.key}.npz", buffer.getvalue())

    def put_norms(self, norms: np.ndarray, named: Sequence[str]) -> None:
        """Keep the lengths of the heads' writes, and which heads were named before the sweep."""
        self._put_json(NORMS, {"norms": norms.tolist(), "named": list(named)})

    def get(self, key: str) -> Outcome:
        """One outcome."""
        with np.load(self.root / ITEMS / f"{key}.npz") as file:
            values = {name: file[name] for name in file.files if name != "base"}
            margin, right = file["base"].tolist()
        return Outcome(key, values, margin, right)

    def effects(self, *, seed: int = 0) -> HeadEffects:
        """The sweep as it lies there, without a model.

        Raises:
            ValueError: no sweep, or one that is not finished.
        """
        if not (self.root / PLAN).exists():
            raise ValueError(f"{self.root} holds no head sweep ({PLAN} is missing). Run diptych heads --out first.")
        plan = json.loads((self.root / PLAN).read_text())
        plan = Plan(**{**plan, "metrics": tuple(plan["metrics"]), "units": tuple(plan["units"])})
        pairs = [_pair(row) for row in json.loads((self.root / PAIRS).read_text())]
        keys = [plan.key(pair) for pair in pairs]
        missing = len(set(keys) - self.done)
        if missing or not (self.root / NORMS).exists():
            raise ValueError(f"{self.root}: {missing} of {len(keys)} pairs are not done. Run the same command again.")
        extra = json.loads((self.root / NORMS).read_text())
        named = tuple(parse_unit(name) for name in extra["named"])
        norms = np.array(extra["norms"])
        return HeadEffects.of(plan, pairs, [self.get(key) for key in keys], write_norms=norms, named=named, seed=seed)


def _pair(row: dict[str, Any]) -> TokenPair:
    def fixed(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(value)
        return {name: tuple(tokens) for name, tokens in value.items()} if isinstance(value, dict) else value

    return TokenPair(**{name: fixed(value) for name, value in row.items()})
