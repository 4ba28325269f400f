"""Sweep the heads of one checkpoint, or of both members of a pair, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.heads import HeadEffects, HeadSweep, TokenPair, parse_kind
from interp.heads.cumulative import Arm, cumulative_job, cumulative_sets
from interp.heads.estimates import halves
from interp.heads.ids import HeadId, expand_heads, parse_unit, unit_name
from interp.heads.outcomes import Outcomes, Plan, main_of
from interp.heads.sweep import unit_norms
from interp.io.items import ItemStore
from interp.model import Model
from interp.positions import parse_positions
from interp.prompt import Example
from interp.remedy import remedy
from interp.tasks.protocol import load_task
from study.analyses.heads.pairs import OWN, has_twins, pairs_of_examples, pairs_of_twins
from study.analyses.heads.store import (
    CUMULATIVE,
    done_of,
    get_outcome,
    put_norms,
    put_outcome,
    sweep_store,
)
from study.members import models_of

KS = (0, 1, 2, 4, 8, 16, 32)
FIRST_VERIFY = 0.01
MIN_SOLVED = 8


@dataclass(frozen=True)
class HeadStudy:
    """What is swept.

    Attributes:
        kinds: names as `interp.heads.parse_kind` reads them.
        slot: what stands before the label: "own", the model's own reply up to its decision, or a forced text.
        named: heads of a hypothesis, named before the sweep.
        effect: "total" or "direct".
        verify: share of rows of every pair that hooked passes recompute; of the first pair never less than 1 %.
    """

    kinds: tuple[str, ...] = ("mean", "zero", "patch")
    positions: str = "answer"
    slot: str = OWN
    named: tuple[str, ...] = ()
    effect: Literal["total", "direct"] = "total"
    verify: float = 0.0
    seed: int = 0


def run_heads(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example] | Sequence[tuple[Example, Example]],
    *,
    out: Path,
    study: HeadStudy,
    loading: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Sweep every member under every kind into `out/<member>/<kind>/`, and remove the strongest heads together into
    `out/<member>/cumulative/`; returns the members. `study.analyses.heads.tables` makes the tables.

    Run again with the same arguments, it continues where it stopped: what is done is not computed again.

    Args:
        examples: examples of the task, or (original, twin) pairs of them, which patching needs.
    Raises:
        ValueError: patching without twins, a head that does not exist, a folder of another sweep.
    """
    task: Any = load_task(task_path)
    members: list[str] = []
    for roles, model in models_of(what, dict(loading or {})):
        for role in roles:
            with model.member(role):
                pairs = _pairs(model, task, examples, study)
                done = {
                    kind: _sweep(model, pairs, kind, out / role / folder_of(kind), study, progress)
                    for kind in study.kinds
                }
                _remove_together(model, _Ranked.of(done, pairs, study), out / role / CUMULATIVE, study)
            members.append(role)
    return tuple(members)


def _pairs(model: Model, task: Any, examples: Any, study: HeadStudy) -> list[TokenPair]:
    if examples and not isinstance(examples[0], Example):
        return pairs_of_twins(model, task, examples, study.slot)
    if any(kind.startswith("patch") or kind == "resample:twin" for kind in study.kinds):
        what = "makes twins, but single examples came" if has_twins(task) else "has no twin_examples(n, ...)"
        raise ValueError(f"kind patch needs pairs of prompts; this task {what}. {remedy('Use {kinds:mean,zero}.')}")
    return pairs_of_examples(model, task, examples, study.slot)


def folder_of(kind: str) -> str:
    """Name of the folder of a kind."""
    return kind.replace(":", "_")


def _sweep(
    model: Model, pairs: list[TokenPair], kind: str, root: Path, study: HeadStudy, progress: bool
) -> tuple[Plan, Outcomes]:
    """One kind on one member, from disk where it is done."""
    where = parse_positions(study.positions)[0]
    job = HeadSweep(model, pairs, parse_kind(kind), where, effect=study.effect, verify=study.verify)
    boxed = expand_heads([parse_unit(name) for name in study.named], model.layout) if study.named else ()
    with sweep_store(root, job.plan, pairs) as store:
        _fill(store, job, f"{root.parent.name} {kind}", study, progress)
        put_norms(store, unit_norms(model, pairs, job.units), [unit_name(unit) for unit in boxed])
        return job.plan, Outcomes.of([get_outcome(store, job.plan.key(pair)) for pair in pairs])


def _fill(store: ItemStore, job: HeadSweep, name: str, study: HeadStudy, progress: bool) -> None:
    """Keep the outcomes that are not there; of the first pair some rows are always verified."""
    from tqdm import tqdm

    done, total = done_of(store), len(job.pairs)
    job.verify = max(study.verify, FIRST_VERIFY)
    with tqdm(total=total, initial=len(done), unit="pair", desc=name, disable=not progress) as bar:
        for _, outcome in job.run(done=done):
            put_outcome(store, outcome)
            job.verify = study.verify
            bar.update()


@dataclass(frozen=True)
class _Ranked:
    """Heads ranked on one half of the pairs under the first ablation, and the sets that are removed on the other half.

    On the pairs that the model solves, where `split_kinds` has these; the others cannot get worse.
    """

    kind: str
    pairs: list[TokenPair]
    sets: Mapping[Arm, tuple[HeadId, ...]]

    @classmethod
    def of(cls, done: Mapping[str, tuple[Plan, Outcomes]], pairs: Sequence[TokenPair], study: HeadStudy) -> _Ranked:
        kind = next((name for name in study.kinds if main_of(done[name][0]) == "abl_logit"), study.kinds[0])
        plan, known = done[kind]
        groups = np.array([pair.unit for pair in pairs])
        solved = known.solved()
        kept = solved if has_enough(solved, groups) else np.ones(len(pairs), dtype=bool)
        chosen = np.zeros(len(pairs), dtype=bool)
        chosen[kept] = halves(groups[kept].tolist(), seed=study.seed)
        means = known.logit_effects[chosen].mean(axis=0)
        ranking = [parse_unit(plan.units[index])[0] for index in (-means).argsort(kind="stable")]
        report = [pair for pair, is_kept, first in zip(pairs, kept, chosen, strict=True) if is_kept and not first]
        ks = [k for k in KS if k <= len(ranking) // 2]
        return cls(kind, report, cumulative_sets(ranking, ks=ks, seed=study.seed))


def _remove_together(model: Model, ranked: _Ranked, root: Path, study: HeadStudy) -> None:
    """Outcomes of the heads of every arm removed together, on disk."""
    where = parse_positions(study.positions)[0]
    job = cumulative_job(model, ranked.pairs, ranked.sets, kind=parse_kind(ranked.kind), positions=where)
    with sweep_store(root, job.plan, ranked.pairs) as store:
        for _, outcome in job.run(done=done_of(store)):
            put_outcome(store, outcome)
        put_norms(store, np.ones(len(job.units)), [])


def cumulative_arms(sweeps: Mapping[str, HeadEffects], study: HeadStudy) -> Mapping[Arm, tuple[HeadId, ...]]:
    """The heads that every arm of a finished sweep removed together."""
    done = {kind: (one.plan, Outcomes(one.values, one.base_margin, one.base_right)) for kind, one in sweeps.items()}
    return _Ranked.of(done, next(iter(sweeps.values())).pairs, study).sets


def has_enough(solved: Bool[np.ndarray, "example"], groups: Sequence[str] | np.ndarray) -> bool:
    """Whether the pairs that the model solves are some, enough, and of enough groups."""
    kept = {str(group) for group, is_kept in zip(groups, solved, strict=True) if is_kept}
    return MIN_SOLVED <= int(solved.sum()) < len(solved) and len(kept) >= 4
