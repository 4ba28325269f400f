"""Outcomes of a head sweep on disk: a store with one item per pair, under the identity of its plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from interp.heads import HeadEffects, Outcome, Plan, TokenPair
from interp.heads.ids import parse_unit
from interp.io.files import write_file
from interp.io.items import ItemStore, is_store
from interp.stats import Sampling
from study.rows import Row

KIND, PAIRS, NORMS = "head sweep", "pairs", "norms"
CUMULATIVE = "cumulative"  # folder of the heads removed together, next to those of the kinds
TOGETHER = "together"  # folder of the sets that were named, with their random sets
SITES = "sites.json"


@dataclass(frozen=True)
class Reached:
    """How often the replies of a member reach a decision site; "" is the label of a task that names no sites.

    Attributes:
        n_reached: items whose reply reaches it, of `n_asked`; with twins both replies do.
        n_groups: independent units among them.
        is_label: whether the label is decided there.
    """

    site: str
    n_reached: int
    n_asked: int
    n_groups: int
    is_label: bool

    @classmethod
    def of(cls, site: str, pairs: Sequence[TokenPair], n_asked: int, *, is_label: bool) -> Reached:
        return cls(site, len(pairs), n_asked, len({pair.unit for pair in pairs}), is_label)


def write_reached(folder: Path, reached: Sequence[Reached]) -> None:
    """Keep which sites a member reaches in its folder."""
    write_file(folder / SITES, json.dumps([asdict(one) for one in reached], indent=1).encode())


def read_reached(folder: Path) -> list[Reached]:
    """Which sites a member reaches.

    Raises:
        ValueError: no sweep was begun there.
    """
    if not (folder / SITES).is_file():
        raise ValueError(f"{folder} holds no head sweep; expected a folder that `diptych heads ... --out` wrote.")
    return [Reached(**one) for one in json.loads((folder / SITES).read_text(encoding="utf-8"))]


def folder_of(kind: str, site: str = "") -> str:
    """Name of the folder of a kind at a decision site."""
    return f"{kind.replace(':', '_')}-{site}" if site else kind.replace(":", "_")


@contextmanager
def sweep_store(root: Path, plan: Plan, pairs: Sequence[TokenPair]) -> Iterator[ItemStore]:
    """One sweep, held for writing: an item per pair, one with the pairs themselves, one with norms at the end.

    Raises: as `ItemStore.writing`.
    """
    with ItemStore.writing(root, KIND, asdict(plan)) as store:
        rows = json.loads(json.dumps([{one.name: getattr(pair, one.name) for one in fields(pair)} for pair in pairs]))
        if (
            PAIRS not in store or store.get_json(PAIRS) != rows
        ):  # groups and ids may change; outcomes do not depend on them
            store.put_json(PAIRS, rows)
        yield store


def done_of(store: ItemStore) -> frozenset[str]:
    """Keys of the outcomes in the store."""
    return store.keys - {PAIRS, NORMS}


def put_outcome(store: ItemStore, outcome: Outcome) -> None:
    """Keep one outcome, durably."""
    base = np.array([outcome.base_margin, outcome.base_right])
    arrays = {name: np.asarray(array) for name, array in outcome.values.items()}
    store.put_arrays(outcome.key, {"base": base, **arrays})


def get_outcome(store: ItemStore, key: str) -> Outcome:
    """One outcome; raises as `ItemStore.get`."""
    values = store.get_arrays(key)
    margin, right = values.pop("base").tolist()
    return Outcome(key, values, margin, right)


def put_norms(store: ItemStore, norms: np.ndarray, named: Sequence[str]) -> None:
    """Keep the lengths of the heads' writes, and which heads were named before the sweep."""
    store.put_json(NORMS, {"norms": norms.tolist(), "named": list(named)})


def read_effects(root: Path, *, seed: int = 0) -> HeadEffects:
    """The sweep as it lies there, without a model.

    Raises:
        ValueError: no sweep, or one that is not finished; DamagedFileError: an item is not what was written.
    """
    if not is_store(root):
        raise ValueError(f"{root} holds no head sweep; expected a folder that `diptych heads ... --out` wrote.")
    store = ItemStore.reading(root, KIND)
    identity: Row = dict(store.identity)
    plan = Plan(**{**identity, "metrics": tuple(identity["metrics"]), "units": tuple(identity["units"])})
    pairs = [_pair(row) for row in store.get_json(PAIRS)]
    keys = [plan.key(pair) for pair in pairs]
    missing = len(set(keys) - store.keys)
    if missing or NORMS not in store:
        raise ValueError(f"{root}: {missing} of {len(keys)} pairs are not done. Run the same command again.")
    extra = store.get_json(NORMS)
    named, norms = tuple(parse_unit(name) for name in extra["named"]), np.array(extra["norms"])
    outcomes = [get_outcome(store, key) for key in keys]
    return HeadEffects.of(plan, pairs, outcomes, write_norms=norms, named=named, sampling=Sampling(seed=seed))


def _pair(row: Row) -> TokenPair:
    def fixed(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(value)
        return {name: tuple(tokens) for name, tokens in value.items()} if isinstance(value, dict) else value

    return TokenPair(**{name: fixed(value) for name, value in row.items()})
