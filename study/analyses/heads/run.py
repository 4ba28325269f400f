"""Sweep the heads of one checkpoint, or of both members of a pair, into a folder that can be resumed.

out/<member>/sites.json                which decision sites its replies reach
out/<member>/<kind>-<site>/            outcomes of one sweep; without a site, of a task that names none, <kind>/
out/<member>/cumulative-<site>/        the strongest heads removed together
out/<member>/together-<site>/          the sets of heads that were named, changed together, and random sets
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.heads import HeadEffects, HeadSweep, TokenPair, parse_kind
from interp.heads.cumulative import Arm, cumulative_job, cumulative_sets
from interp.heads.estimates import MIN_GROUPS, halves
from interp.heads.ids import HeadId, Unit, expand_heads, parse_unit, unit_name
from interp.heads.metrics import sort_of
from interp.heads.outcomes import Outcomes, Plan, main_of
from interp.heads.sweep import unit_norms
from interp.heads.together import random_sets
from interp.io.items import ItemStore
from interp.model import Model
from interp.positions import parse_positions
from interp.progress import showing, track
from interp.prompt import Example
from interp.remedy import remedy
from interp.tasks.decision_sites import label_site
from interp.tasks.protocol import Task, load_task
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.pairs import SitePairs, check_groups, check_slot, has_twins, pairs_by_site, sites_of
from study.analyses.heads.store import (
    CUMULATIVE,
    TOGETHER,
    Reached,
    done_of,
    folder_of,
    get_outcome,
    put_norms,
    put_outcome,
    sweep_store,
    write_reached,
)
from study.members import Loading, models_of

KS = (0, 1, 2, 4, 8, 16, 32)
FIRST_VERIFY = 0.01
MIN_SOLVED = 8


def run_heads(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example] | Sequence[tuple[Example, Example]],
    *,
    out: Path,
    options: HeadsOptions,
    seed: int = 0,
    loading: Loading | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Sweep every member under every kind at every decision site, and remove the strongest heads together; returns the
    members. `study.analyses.heads.tables` makes the tables.

    A site that a member's replies reach in fewer than `MIN_GROUPS` independent units is not swept. Run again with
    the same arguments, it continues where it stopped: what is done is not computed again.

    Args:
        examples: examples of the task, or (original, twin) pairs of them, which patching needs.
        seed: seed of the half on which heads are ranked, and of the random heads.
    Raises:
        ValueError: patching without twins, a site that the task does not name, a head that does not exist, a folder of
            another sweep.
    """
    task = load_task(task_path)
    _check(task, examples, options)
    members: list[str] = []
    for roles, model in models_of(what, dict(loading or {})):
        for role in roles:
            with model.member(role):
                with showing(progress):
                    by_site = pairs_by_site(model, task, examples, options)
                label = label_site(task)
                reached = [
                    Reached.of(site, pairs.ablated, len(examples), is_label=site == label)
                    for site, pairs in by_site.items()
                ]
                write_reached(out / role, reached)
                for one in reached:
                    if one.n_groups >= MIN_GROUPS:
                        _sweep_site(model, by_site[one.site], out / role, options, seed=seed, progress=progress)
            members.append(role)
    return tuple(members)


def _check(task: Task, examples: Sequence[Example] | Sequence[tuple[Example, Example]], options: HeadsOptions) -> None:
    """Refuse what the items cannot give, before any model is loaded."""
    is_twins = bool(examples) and not isinstance(examples[0], Example)
    if not is_twins and any(kind.startswith("patch") or kind == "resample:twin" for kind in options.kinds):
        what = "makes twins, but got single examples" if has_twins(task) else "has no twin_examples(n, ...)"
        raise ValueError(f"kind patch needs pairs of prompts; this task {what}. {remedy('Use {kinds:mean,zero}.')}")
    sites_of(task, options)
    check_sets(options)
    check_slot(task, examples, options.slot)
    check_groups(task, examples)


def check_sets(options: HeadsOptions) -> None:
    """Refuse a set among the heads that are boxed, a single head among the sets, and sets where nothing is ablated."""
    for name in options.named:
        if "+" in name:
            raise ValueError(
                f"{remedy(f'{{named:{name}}}')}: expected one head. A set is named by {remedy(f'{{together:{name}}}')}."
            )
    for name in options.together:
        if "+" not in name:
            raise ValueError(f"{remedy(f'{{together:{name}}}')}: expected heads joined by +, e.g. L0.H0+L0.H2.")
    is_patched = [sort_of(parse_kind(kind).name, options.effect) == "patch" for kind in options.kinds]
    if options.together and all(is_patched):
        raise ValueError(f"sets of heads are ablated, not patched. {remedy('Add one to {kinds:mean,patch}.')}")


class Done(NamedTuple):
    """A finished sweep."""

    plan: Plan
    outcomes: Outcomes
    pairs: Sequence[TokenPair]


def _sweep_site(
    model: Model, pairs: SitePairs, folder: Path, options: HeadsOptions, *, seed: int, progress: bool
) -> None:
    """Every kind at one decision site of one member, then the strongest heads removed together."""
    site = pairs.ablated[0].decision_site
    done = {
        kind: _sweep(model, pairs.of(kind), kind, folder / folder_of(kind, site), options, progress)
        for kind in options.kinds
    }
    with showing(progress):
        _remove_together(model, _Ranked.of(done, options, seed=seed), folder / folder_of(CUMULATIVE, site), options)
        if options.together:
            kind = main_kind({name: one.plan for name, one in done.items()}, options)
            _change_sets(model, done[kind], kind, folder / folder_of(TOGETHER, site), options, seed=seed)


def _sweep(model: Model, pairs: list[TokenPair], kind: str, root: Path, options: HeadsOptions, progress: bool) -> Done:
    """One kind on one member, from disk where it is done."""
    where = parse_positions(options.positions)[0]
    job = HeadSweep(model, pairs, parse_kind(kind), where, effect=options.effect, verify=options.verify)
    boxed = expand_heads([parse_unit(name) for name in options.named], model.layout) if options.named else ()
    plan = job.plan
    with sweep_store(root, plan, pairs) as store:
        _fill(store, job, f"{root.parent.name} {kind}", options, progress)
        put_norms(store, unit_norms(model, pairs, job.units), [unit_name(unit) for unit in boxed])
        return Done(plan, Outcomes.of([get_outcome(store, plan.key(pair)) for pair in pairs]), pairs)


def _fill(store: ItemStore, job: HeadSweep, name: str, options: HeadsOptions, progress: bool) -> None:
    """Keep the outcomes that are not there; of the first pair some rows are always verified."""
    done, total = done_of(store), len(job.pairs)
    job.verify = max(options.verify, FIRST_VERIFY)
    with track(f"heads {name}", total, unit="pairs", done=len(done), shown=progress) as bar:
        for _, outcome in bar.over(job.run(done=done)):
            put_outcome(store, outcome)
            job.verify = options.verify


@dataclass(frozen=True)
class _Ranked:
    """Heads ranked on one half of the pairs under the first ablation, and the sets that are removed on the other half.

    On the pairs that the model solves, where `split_kinds` has these; the others cannot get worse.
    """

    kind: str
    pairs: list[TokenPair]
    sets: Mapping[Arm, tuple[HeadId, ...]]

    @classmethod
    def of(cls, done: Mapping[str, Done], options: HeadsOptions, *, seed: int) -> _Ranked:
        kind = main_kind({name: one.plan for name, one in done.items()}, options)
        plan, outcomes, pairs = done[kind]
        groups = np.array([pair.unit for pair in pairs])
        solved = outcomes.solved()
        kept = solved if has_enough(solved, groups) else np.ones(len(pairs), dtype=bool)
        chosen = np.zeros(len(pairs), dtype=bool)
        chosen[kept] = halves(groups[kept].tolist(), seed=seed)
        means = outcomes.logit_effects[chosen].mean(axis=0)
        ranking = [parse_unit(plan.units[index])[0] for index in (-means).argsort(kind="stable")]
        report = [pair for pair, is_kept, first in zip(pairs, kept, chosen, strict=True) if is_kept and not first]
        ks = [k for k in KS if k <= len(ranking) // 2]
        return cls(kind, report, cumulative_sets(ranking, ks=ks, seed=seed))


def _remove_together(model: Model, ranked: _Ranked, root: Path, options: HeadsOptions) -> None:
    """Outcomes of the heads of every arm removed together, on disk."""
    where = parse_positions(options.positions)[0]
    job = cumulative_job(model, ranked.pairs, ranked.sets, kind=parse_kind(ranked.kind), positions=where)
    with sweep_store(root, job.plan, ranked.pairs) as store:
        done = done_of(store)
        with track(f"heads {root.parent.name} together", len(job.pairs), unit="pairs", done=len(done)) as bar:
            for _, outcome in bar.over(job.run(done=done)):
                put_outcome(store, outcome)
        put_norms(store, np.ones(len(job.units)), [])


def main_kind(plans: Mapping[str, Plan], options: HeadsOptions) -> str:
    """The kind under which heads are ranked and sets are changed: the first ablation, else the first kind."""
    return next((name for name in options.kinds if main_of(plans[name]) == "abl_logit"), options.kinds[0])


def sets_of(plan: Plan, options: HeadsOptions, *, seed: int) -> dict[Unit, tuple[Unit, ...]]:
    """The sets that were named, each with its random sets, from the heads of a finished sweep."""
    every = [unit[0] for unit in map(parse_unit, plan.units)]
    return random_sets([parse_unit(name) for name in options.together], every, seed=seed)


def _change_sets(model: Model, done: Done, kind: str, root: Path, options: HeadsOptions, *, seed: int) -> None:
    """Outcomes of the sets of heads that were named, and of random ones, on disk."""
    sets = sets_of(done.plan, options, seed=seed)
    units = list(dict.fromkeys([*sets, *(unit for others in sets.values() for unit in others)]))
    where = parse_positions(options.positions)[0]
    job = HeadSweep(model, done.pairs, parse_kind(kind), where, units, effect=options.effect, verify=options.verify)
    with sweep_store(root, job.plan, done.pairs) as store:
        done_before = done_of(store)
        name = f"heads {root.parent.name} sets"
        with track(name, len(job.pairs), unit="pairs", done=len(done_before)) as bar:
            for _, outcome in bar.over(job.run(done=done_before)):
                put_outcome(store, outcome)
        put_norms(store, np.ones(len(job.units)), options.together)


def cumulative_arms(
    sweeps: Mapping[str, HeadEffects], options: HeadsOptions, *, seed: int
) -> Mapping[Arm, tuple[HeadId, ...]]:
    """The heads that every arm of a finished sweep removed together."""
    done = {
        kind: Done(one.plan, Outcomes(one.values, one.base_margin, one.base_right), one.pairs)
        for kind, one in sweeps.items()
    }
    return _Ranked.of(done, options, seed=seed).sets


def has_enough(solved: Bool[np.ndarray, "example"], groups: Sequence[str] | np.ndarray) -> bool:
    """Whether the pairs that the model solves are some, enough, and of enough groups."""
    kept = {str(group) for group, is_kept in zip(groups, solved, strict=True) if is_kept}
    return MIN_SOLVED <= int(solved.sum()) < len(solved) and len(kept) >= 4
