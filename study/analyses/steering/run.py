"""Dose curves of one direction, and of the directions of both members of a pair: the 2×2 of vectors and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.checkpoint import MEMBERS, Checkpoint, CheckpointPair
from interp.prompt import Example
from steering.arms import Arm
from steering.direction import Directions
from steering.pair import pair_cosines, transfer_table
from steering.response import DoseResult
from study.analyses.steering.job import DoseJob, refuse_seen
from study.analyses.steering.options import DoseOptions
from study.analyses.steering.store import write_table
from study.analyses.steering.tables import tables_of_doses, tables_of_member
from study.members import Loading, models_of

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("margin", "amb_commit_bias", "accuracy", "kl")


def run_dose(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    directions: Directions,
    *,
    out: Path,
    options: DoseOptions,
    against: Sequence[Directions] = (),
    loading: Loading | None = None,
    progress: bool = True,
) -> dict[str, DoseResult]:
    """Dose curves of every member: `out/<member>/items`, `table.csv`, `slopes.csv`, `plane.csv`, `entangle.csv`,
    `switch.csv`, `texts.csv`; run again with the same arguments, it continues where it stopped. Of several decision
    sites (`options.at`) each has a folder: `out/<site>/<member>`.

    Args:
        against: directions that the direction is made orthogonal to, and that are steered as arms of their own.
    Returns:
        member -> its curves; of several decision sites "<member> at <site>" -> them.
    Raises:
        ValueError: as `DoseJob.answer`.
    """
    job = DoseJob(task_path, examples, directions, out, options, against)
    members = job.answer(what, loading=loading, progress=progress)
    return {name: one for of_site in job.by_site() for name, one in tables_of_doses(of_site, members).items()}


def run_pair(
    pair: CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    directions: Mapping[str, Directions],
    *,
    out: Path,
    options: DoseOptions,
    caches: Mapping[str, Path] | None = None,
    loading: Loading | None = None,
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """`out/cosines.csv`, `out/transfer.csv`, and dose curves per member as `run_dose` writes them; resumes where it
    stopped.

    In each member its own vector and the other's are added at the same length, with the same controls.

    Args:
        directions: engaged and heuristic -> directions fitted on each.
        caches: member -> the cache that its direction was fitted on, for label-shuffled controls.
    Raises:
        ValueError: members of two widths, other classes, a missing layer; and as `run_dose`.
    """
    jobs: dict[str, DoseJob] = {}
    for role in MEMBERS:
        own = replace(options, cache=(caches or {}).get(role))
        jobs[role] = DoseJob(task_path, examples, directions[role], out, own)
    vectors = {role: job.chosen for role, job in jobs.items()}
    jobs = {role: replace(job, extra={role: _transferred(vectors, role)}) for role, job in jobs.items()}
    for job in jobs.values():
        job.check()
        refuse_seen(examples, frozenset(), vectors.values())
    cosines = pair_cosines(vectors["engaged"], vectors["heuristic"], names=MEMBERS)
    results: dict[str, dict[str, DoseResult]] = {}
    for names, model in models_of(pair, dict(loading or {})):
        for role in (name for name in names if name in MEMBERS):
            jobs[role].say_controls(progress, role)
            for job in jobs[role].by_site():
                with model.member(role):
                    job.answer_member(model, role, progress=progress)
                results.setdefault(job.site, {})[role] = tables_of_member(job, role)
    transfer = _transfer(results)
    write_table(cosines, out, "cosines")
    write_table(transfer, out, "transfer")
    return {"cosines": cosines, "transfer": transfer}


def _transferred(vectors: Mapping[str, Directions], role: str) -> list[Arm]:
    """The other member's vectors, as arms of this one."""
    other = MEMBERS[1 - MEMBERS.index(role)]
    common = [site for site in vectors[role] if site in vectors[other]]
    return [Arm("transferred", site, vectors[other][site].unit, name=f"vector of {other}") for site in common]


def _transfer(results: Mapping[str, Mapping[str, DoseResult]]) -> pd.DataFrame:
    """The 2x2 of every score that both members have, at each decision site."""
    import pandas as pd

    parts = []
    for decision_site, of_site in results.items():
        slopes = {role: one.slopes() for role, one in of_site.items()}
        cells = {(source, target): slopes[target] for target in of_site for source in of_site}
        scores = [name for name in METRICS if all((table["metric"] == name).any() for table in slopes.values())]
        parts += [transfer_table(cells, metric=name).assign(decision_site=decision_site) for name in scores]
    return pd.concat(parts, ignore_index=True)
