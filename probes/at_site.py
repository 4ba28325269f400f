"""One site of a sweep: every kind of probe, its null and its controls; sites are spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.config import SweepConfig
from probes.controls import shuffled_rows
from probes.layer import Scored, score_labels
from probes.metrics import auroc_many
from probes.null import null_labels
from probes.result import Key, RawDirection
from probes.rows import Extras, base_rows, cell_rows, random_row, raw_direction, residual_rows, selectivity_columns
from probes.source import Source
from probes.splits import Split


@dataclass
class Found:
    """What one target collects: AUROC of real and permuted labels on DEV, TEST and its cohorts, probes, table rows."""

    dev: dict[Key, np.ndarray] = field(default_factory=dict)
    test: dict[Key, np.ndarray] = field(default_factory=dict)
    cohorts: dict[Key, dict[str, np.ndarray]] = field(default_factory=dict)
    scored: dict[Key, Scored] = field(default_factory=dict)
    directions: dict[Key, RawDirection] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Found) -> None:
        self.dev |= other.dev
        self.test |= other.test
        self.cohorts |= other.cohorts
        self.scored |= other.scored
        self.directions |= other.directions
        self.rows += other.rows


@dataclass(frozen=True)
class SiteTask:
    """All that one site at one position needs, small enough to be sent to another process.

    Attributes:
        site:   as the table calls it, "shuffled" and "surface" included.
        source: reads that site; None for the surface.
        base:   reads it in the base checkpoint; None where there is none to compare with.
    """

    site: str
    position: str
    source: Source | None
    labels: Mapping[str, np.ndarray]
    split: Split
    extras: Extras
    config: SweepConfig
    device: str
    base: Source | None = None

    def base_features(self) -> Tensor | None:
        """Activations of the base checkpoint at this site, where it was given and holds the site."""
        if self.base is None:
            return None
        return self.base.read(self.base.sites[0], self.position).to(self.device)

    def features(self) -> Tensor:
        """Activations of every row, on the device of the sweep."""
        if self.source is None:
            assert self.extras.surface is not None
            return self.extras.surface.to(self.device)
        feats = self.source.read(self.source.sites[0], self.position)
        return (shuffled_rows(feats, seed=self.config.seed) if self.site == "shuffled" else feats).to(self.device)


def tasks_of(
    source: Source,
    sites: Sequence[str],
    positions: Sequence[str],
    labels: Mapping[str, np.ndarray],
    split: Split,
    extras: Extras,
    config: SweepConfig,
    device: str,
    base: Source | None = None,
) -> list[SiteTask]:
    """Sites of every position in depth order, then the middle one with shuffled rows, then the surface."""
    middle, out = sites[len(sites) // 2], []
    for position in positions:
        readers: dict[str, Source | None] = {site: source.only(site) for site in sites}
        readers["shuffled"] = source.only(middle)
        if extras.surface is not None:
            readers["surface"] = None
        for site, one in readers.items():
            below = base.only(site) if base is not None and site in base.sites else None
            out.append(SiteTask(site, position, one, labels, split, extras, config, device, below))
    return out


def sweep_site(task: SiteTask) -> dict[str, Found]:
    """What every target finds at one site."""
    feats, base, out = task.features(), task.base_features(), {}
    for name, y in task.labels.items():
        where = (name, task.position, task.site)
        out[name] = found = _one_target(where, feats, y, task)
        if base is not None:
            for kind in task.config.kinds:
                key = (*where, kind)
                found.rows += base_rows(key, base, found.scored[key].scores[0], y, task.split, task.config)
    return out


def sweep_sites(tasks: Sequence[SiteTask], *, jobs: int) -> Iterator[dict[str, Found]]:
    """The sites one after another, in order, computed in `jobs` processes (fresh ones, each with its share of cores).

    Only the site that a process works on is in its memory. Warnings of the processes are raised here.

    Raises:
        ValueError: jobs < 1; whatever a site raises.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected the number of processes, 1 or more; got {jobs}.")
    if jobs == 1 or len(tasks) == 1:
        yield from map(sweep_site, tasks)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")  # a forked process inherits locks of the parent's threads
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, torch.set_num_threads, (threads,)) as pool:
        for found, said in pool.map(_with_warnings, tasks):
            for category, text in said:
                warnings.warn(text, category, stacklevel=4)
            yield found


def _with_warnings(task: SiteTask) -> tuple[dict[str, Found], list[tuple[type[Warning], str]]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = sweep_site(task)
    said = {(w.category, str(w.message)): None for w in caught if issubclass(w.category, UserWarning)}
    return found, list(said)


def _one_target(where: tuple[str, str, str], feats: Tensor, y: np.ndarray, task: SiteTask) -> Found:
    config, split, extras, found = task.config, task.split, task.extras, Found()
    options: dict[str, Any] = dict(Cs=config.Cs, balanced=config.balanced, tol=config.tol)
    dev, test, is_real = split.is_dev, split.is_test, where[2] not in ("shuffled", "surface")
    for kind in config.kinds:
        key = (*where, kind)
        null = null_labels(y, split, n=config.permutations(kind), scheme=config.scheme, seed=config.seed + 1)
        everything = np.concatenate([y[None], null])
        scored = score_labels(kind, feats, torch.from_numpy(everything), split, **options)
        found.dev[key] = auroc_many(scored.scores[:, dev], everything[:, dev])
        if test.any():
            found.test[key] = auroc_many(scored.scores[:, test], everything[:, test])
            for name, inside in extras.cohorts(test):
                areas = auroc_many(scored.scores[:, inside], everything[:, inside])
                found.cohorts.setdefault(key, {})[name] = areas
        found.scored[key] = Scored(scored.scores[:1].copy(), scored.chosen[:1], scored.probe, scored.certificate)
        found.directions[key] = raw_direction(scored, feats, dev)
        extra: dict[str, dict[str, Any]] = {}
        if extras.control is not None and where[2] != "shuffled":
            extra = selectivity_columns(kind, feats, y, split, extras.control, scored.scores[0], config)
        found.rows += cell_rows(key, scored, y, split, dev, "oof", config, extra)
        if extras.confounds is not None and is_real:
            found.rows += residual_rows(key, feats, y, split, extras.confounds, config)
    if is_real:
        found.rows.append(random_row(where, feats, y, split, config))
    return found
