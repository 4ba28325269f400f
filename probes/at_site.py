"""One site of a sweep: every kind of probe, its null and its controls; sites are spread over processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.processes import ended_on_error, new_pool
from interp.progress import parts
from probes.config import SweepConfig
from probes.controls import shuffled_rows
from probes.kinds import MADE, SHUFFLED, SURFACE
from probes.layer import Scored
from probes.metrics import auroc_many, pairs_won
from probes.null import Areas, Exchange, null_labels
from probes.result import Key, Look, RawDirection
from probes.rows import (
    Extras,
    base_rows,
    cell_rows,
    random_row,
    raw_direction,
    residual_rows,
    selectivity_columns,
    spread,
)
from probes.source import Source
from probes.splits import Split


@dataclass
class Cells:
    """Results of one target at its cells: AUROC of real and permuted labels, probes, table rows.

    Attributes:
        areas:   `Areas` of the real and the permuted labels, on DEV and TEST.
        seeds:   `Areas` of the real label under further seeds of the split.
        cohorts: cohort -> `Areas` of its TEST rows.
        scored:  scores and probes fitted to DEV.  looks: the same for each look at TEST.
    """

    areas: dict[Key, Areas] = field(default_factory=dict)
    seeds: dict[Key, tuple[Areas, ...]] = field(default_factory=dict)
    cohorts: dict[Key, dict[str, Areas]] = field(default_factory=dict)
    scored: dict[Key, Scored] = field(default_factory=dict)
    looks: dict[Key, tuple[Look, ...]] = field(default_factory=dict)
    directions: dict[Key, RawDirection] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Cells) -> None:
        for name in ("areas", "seeds", "cohorts", "scored", "looks", "directions"):
            getattr(self, name).update(getattr(other, name))
        self.rows += other.rows


@dataclass(frozen=True)
class SiteTask:
    """Inputs of one site at one position, small enough to be sent to another process.

    Attributes:
        site:   name in the table, including "shuffled" and "surface".
        source: reads that site; None for the surface.
        reseeded: the split under its further seeds.
        base:   reads it in the base checkpoint; None without one.
    """

    site: str
    position: str
    source: Source | None
    labels: Mapping[str, np.ndarray]
    split: Split
    exchanges: Mapping[str, Exchange]
    reseeded: tuple[Split, ...]
    extras: Extras
    config: SweepConfig
    device: str
    base: Source | None = None

    def base_features(self) -> Tensor | None:
        """Activations of the base checkpoint at this site, if it was given and has the site."""
        if self.base is None:
            return None
        return self.base.read(self.base.sites[0], self.position).to(self.device)

    def features(self) -> Tensor:
        """Activations of every row, on the device of the sweep."""
        if self.source is None:
            assert self.extras.surface is not None
            return self.extras.surface.to(self.device)
        feats = self.source.read(self.source.sites[0], self.position)
        return (shuffled_rows(feats, seed=self.config.seed) if self.site == SHUFFLED else feats).to(self.device)


def tasks_of(
    source: Source, sites: Sequence[str], positions: Sequence[str], base: Source | None, **shared: Any
) -> list[SiteTask]:
    """Sites of every position in depth order, then the middle one with shuffled rows, then the surface.

    Args:
        shared: what every task has: labels, split, exchanges, reseeded, extras, config, device.
    """
    middle, out = sites[len(sites) // 2], []
    for position in positions:
        readers: dict[str, Source | None] = {site: source.only(site) for site in sites}
        readers[SHUFFLED] = source.only(middle)
        if shared["extras"].surface is not None:
            readers[SURFACE] = None
        for site, one in readers.items():
            below = base.only(site) if base is not None and site in base.sites else None
            out.append(SiteTask(site, position, one, base=below, **shared))
    return out


def sweep_site(task: SiteTask) -> dict[str, Cells]:
    """Results of every target at one site."""
    feats, base, out = task.features(), task.base_features(), {}
    for name, y in parts(task.labels.items()):
        where = (name, task.position, task.site)
        out[name] = cells = _one_target(where, feats, y, task)
        if base is not None:
            for kind in task.config.table:
                key = (*where, kind)
                cells.rows += base_rows(key, base, cells.scored[key].scores[0], y, task.split, task.config)
    return out


def sweep_sites(tasks: Sequence[SiteTask], *, jobs: int) -> Iterator[dict[str, Cells]]:
    """The sites one after another, in order, computed in `jobs` processes (fresh ones, each with its share of cores).

    A process has only its current site in memory. Warnings of the processes are raised here.

    Raises:
        ValueError: jobs < 1; whatever a site raises.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected a number of processes of at least 1; got {jobs}.")
    if jobs == 1 or len(tasks) == 1:
        yield from map(sweep_site, tasks)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with new_pool(min(jobs, len(tasks)), threads=threads) as pool, ended_on_error():
        for cells, raised in pool.map(_with_warnings, tasks):
            for category, text in raised:
                warnings.warn(text, category, stacklevel=4)
            yield cells


def _with_warnings(task: SiteTask) -> tuple[dict[str, Cells], list[tuple[type[Warning], str]]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cells = sweep_site(task)
    raised = {(w.category, str(w.message)): None for w in caught if issubclass(w.category, UserWarning)}
    return cells, list(raised)


def _one_target(where: tuple[str, str, str], feats: Tensor, y: np.ndarray, task: SiteTask) -> Cells:
    config, split, extras, cells = task.config, task.split, task.extras, Cells()
    dev, is_real = split.is_dev, where[2] not in MADE
    for kind in parts(list(config.table)):
        key, n = (*where, kind), config.permutations(kind)
        null = null_labels(y, task.exchanges[where[0]], n=n, seed=config.seed + 1) if n else np.empty((0, len(y)), int)
        everything = np.concatenate([y[None], null])
        scored, cells.looks[key], cells.areas[key], cells.cohorts[key] = _evaluate(
            kind, feats, everything, split, config, extras
        )
        again = task.reseeded[: len(config.seeds(kind))] if is_real else ()
        cells.seeds[key] = tuple(_evaluate(kind, feats, y[None], one, config)[2] for one in again)
        cells.scored[key] = scored
        cells.directions[key] = raw_direction(scored, feats, dev)
        extra: dict[str, dict[str, Any]] = {}
        if extras.control is not None and where[2] != SHUFFLED:
            extra = selectivity_columns(kind, feats, y, split, extras.control, scored.scores[0], config)
        cells.rows += cell_rows(key, scored, y, split, dev, "oof", config, extra, least_se=spread(cells.areas[key].dev))
        if extras.confounds is not None and is_real:
            cells.rows += residual_rows(key, feats, y, split, extras.confounds, config)
    if is_real:
        cells.rows.append(random_row(where, feats, y, split, config))
    return cells


def _evaluate(
    kind: str, feats: Tensor, labels: np.ndarray, split: Split, config: SweepConfig, extras: Extras | None = None
) -> tuple[Scored, tuple[Look, ...], Areas, dict[str, Areas]]:
    """Fit every label on DEV and score it on TEST: scores of the first, AUROCs of all, the same by cohort."""
    targets, dev = torch.from_numpy(labels), split.is_dev
    main = config.score(kind, feats, targets, split)
    own = auroc_many(main.scores[:, dev], labels[:, dev], split.fold_of[dev])
    looks, inner, tested, by_cohort = [], [], [], {}
    for part in split.looks():
        seen = main if part is split else config.score(kind, feats, targets, part)
        inside = part.is_dev
        inner.append(
            own if part is split else auroc_many(seen.scores[:, inside], labels[:, inside], part.fold_of[inside])
        )
        tested.append(_won(seen.scores, labels, part.is_test))
        for name, rows in extras.cohorts(part.is_test) if extras else ():
            by_cohort.setdefault(name, {})[len(looks)] = _won(seen.scores, labels, rows)
        looks.append(Look(seen.scores[0].copy(), raw_direction(seen, feats, inside), config.Cs[int(seen.chosen[0])]))
    areas = _areas(own, inner, tested)
    none = np.zeros((2, len(labels)))
    cohorts = {n: _areas(own, inner, [at.get(i, none) for i in range(len(looks))]) for n, at in by_cohort.items()}
    first = Scored(main.scores[:1].copy(), main.chosen[:1], main.probe, main.certificate)
    return first, tuple(looks), areas, cohorts


def _won(scores: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pairs won and pairs among some rows that one probe scored [2, label]."""
    return np.stack(pairs_won(scores[:, rows], labels[:, rows], np.zeros(int(rows.sum()))))


def _areas(dev: np.ndarray, inner: list[np.ndarray], tested: list[np.ndarray]) -> Areas:
    if not inner:
        empty = np.empty((0, len(dev)))
        return Areas(dev, empty, empty, empty)
    won = np.stack(tested)
    return Areas(dev, np.stack(inner), won[:, 0], won[:, 1])
