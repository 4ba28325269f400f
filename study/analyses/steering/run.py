"""Dose curves of a checkpoint, or of both members of a pair, into a folder that can be resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.model import Model
from interp.prompt import Example
from interp.remedy import remedy
from interp.site import Site
from interp.stats import N_RESAMPLES, Sampling
from interp.tasks.protocol import load_task
from steering.arms import N_COMPLEMENT, N_RANDOM, N_SHUFFLED, Arm, protocol_arms
from steering.curves import controls_line
from steering.difference import id_digest
from steering.direction import Direction, Directions, Unit
from steering.dose import DoseItem, DoseOutcome, DoseSweep, tokens_of
from steering.orthogonal import orthogonalize
from steering.outcomes import Outcomes
from steering.response import MIN_GROUPS, MIN_ITEMS, DoseResult, check_size
from steering.strengths import DEFAULT_ALPHAS, DosePlan, parse_alphas
from steering.texts import TEXTS, text_curves, text_sums
from study.analyses.eval.one_answer import OneAnswer, one_answer
from study.analyses.steering.items import AUTO, dose_items, group_of
from study.analyses.steering.shuffled import shuffled_from_cache
from study.analyses.steering.store import (
    done_of,
    dose_store,
    get_outcome,
    get_read,
    get_text_sums,
    open_sweep,
    put_outcome,
    put_read,
    put_text_sums,
    write_table,
)
from study.members import models_of, weights_of

if TYPE_CHECKING:
    import pandas as pd

FIRST_VERIFY = 0.02
SWITCH = "switch "


@dataclass(frozen=True)
class DoseStudy:
    """What is steered and how it is read.

    Attributes:
        alphas: "from:to:count" or numbers; 0 is among them.
        unit: raw, delta, resid or sd (`Direction.scale`).
        positions: tokens that are steered: last, all, generated, prompt, or a rule of `interp.positions`.
        layers: layers of the directions that are steered, each by itself; None: all that the file holds.
        cache: folder that the direction was fitted on; with it come label-shuffled controls.
        labels, strata: example id -> class or stratum, where the direction was fitted on those of a file.
        shuffled_length: "equal", all at the direction's length; "own", each at its own (`steering.arms.shuffled_arms`).
        slot, baseline: see `study.analyses.steering.items.dose_items`.
        neutral: texts for perplexity; None takes plain English sentences where the tokenizer knows their words, empty
            leaves it out.
        verify: share of rows of every item that hooked passes recompute; of the first item never less than 2 %.
        min_items, min_groups: fewest per class of the direction and in the curve.
    """

    alphas: str = DEFAULT_ALPHAS
    unit: Unit = "resid"
    positions: str = "last"
    layers: tuple[int, ...] | None = None
    cache: Path | None = None
    labels: Mapping[str, str] | None = None
    strata: Mapping[str, str] | None = None
    n_random: int = N_RANDOM
    n_complement: int = N_COMPLEMENT
    n_shuffled: int = N_SHUFFLED
    shuffled_length: Literal["equal", "own"] = "equal"
    slot: str = AUTO
    baseline: str | None = None
    neutral: tuple[str, ...] | None = None
    verify: float = 0.0
    min_items: int = MIN_ITEMS
    min_groups: int = MIN_GROUPS
    n_resamples: int = N_RESAMPLES
    seed: int = 0


def run_dose(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    directions: Directions,
    *,
    out: Path,
    study: DoseStudy,
    against: Sequence[Directions] = (),
    extra: Mapping[str, Sequence[Arm]] | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, DoseResult]:
    """Dose curves of every member: `out/<member>/items`, `table.csv`, `slopes.csv`, `plane.csv`, `entangle.csv`,
    `switch.csv`, `texts.csv`; run again with the same arguments, it continues where it stopped.

    Args:
        against: directions that the direction is made orthogonal to, and that are steered as arms of their own.
        extra: member -> further arms, such as the other member's vector.
    Returns:
        member -> its curves.
    Raises:
        ValueError: a class or curve that is too small, a layer that a file does not hold, a folder of another study,
            items that the direction was fitted on.
    """
    given: dict[str, Any] = dict(out=out, study=study, against=against, extra=extra)
    members = answer_doses(what, task_path, examples, directions, **given, loading=loading, progress=progress)
    return tables_of_doses(members, task_path, examples, directions, **given)


def answer_doses(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    directions: Directions,
    *,
    out: Path,
    study: DoseStudy,
    against: Sequence[Directions] = (),
    extra: Mapping[str, Sequence[Arm]] | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Every member's outcomes on disk; returns the members. Arguments and errors as of `run_dose`."""
    chosen = of_layers(directions, study.layers)
    task: Any = load_task(task_path)
    check_study(chosen, task, examples, study)
    plan, fitted = _plan_of(chosen, study, against)
    refuse_seen(examples, fitted, [chosen, *against])
    say_controls(plan, progress)
    members: list[str] = []
    for roles, model in models_of(what, dict(loading or {})):
        for role in roles:
            with model.member(role):
                own = replace(plan, arms=(*plan.arms, *(extra or {}).get(role, ())))
                answer_member(model, role, task, task_path, examples, chosen, own, out / role, study, progress)
            members.append(role)
    return tuple(members)


def tables_of_doses(
    members: Sequence[str],
    task_path: str,
    examples: Sequence[Example],
    directions: Directions,
    *,
    out: Path,
    study: DoseStudy,
    against: Sequence[Directions] = (),
    extra: Mapping[str, Sequence[Arm]] | None = None,
) -> dict[str, DoseResult]:
    """Every table of the outcomes on disk; no model is loaded. Returns as `run_dose`."""
    chosen = of_layers(directions, study.layers)
    task: Any = load_task(task_path)
    plan, _ = _plan_of(chosen, study, against)
    found: dict[str, DoseResult] = {}
    for role in members:
        own = replace(plan, arms=(*plan.arms, *(extra or {}).get(role, ())))
        found[role] = tables_of_member(task, examples, chosen, own, out / role, study)
    return found


def _plan_of(chosen: Directions, study: DoseStudy, against: Sequence[Directions]) -> tuple[DosePlan, frozenset[str]]:
    """The arms, and the ids that a cache says the direction was fitted on."""
    nulls, fitted = _shuffled(chosen, study)
    return make_plan(chosen, study, against=against, shuffled=nulls), fitted


def say_controls(plan: DosePlan, progress: bool) -> None:
    """What the tests can show at best, before anything is loaded."""
    from tqdm import tqdm

    if progress:
        tqdm.write(controls_line(plan.arms), file=sys.stderr)


def check_study(directions: Directions, task: Any, examples: Sequence[Example], study: DoseStudy) -> None:
    """Refuse, before anything is loaded, classes, items or groups too few for any curve to mean something."""
    parse_alphas(study.alphas)
    unit = group_of(task, examples)
    check_size([unit(one) for one in examples], min_items=study.min_items, min_groups=study.min_groups)
    for one in directions.values():
        s = one.stats
        if min(s.n_toward, s.n_away) < study.min_items or s.n_groups < study.min_groups:
            raise ValueError(
                f"direction {one.label!r} at {one.site}: {s.n_toward} rows of {one.toward!r} and {s.n_away} of "
                f"{one.away_from!r} in {s.n_groups} groups; expected at least {study.min_items} of each class and "
                f"{study.min_groups} groups. Fit on more rows"
                f"{remedy(', or ask for less with {min_items} and {min_groups}')}."
            )


def of_layers(directions: Directions, layers: Sequence[int] | None) -> Directions:
    """The directions of some layers.

    Raises:
        ValueError: a layer that the file does not hold.
    """
    held = {site.layer or 0: site for site in directions}
    lost = {site.layer or 0: f"{site}: {why}" for site, why in directions.refused.items()}
    if refused := [layer for layer in layers or () if layer in lost]:
        raise ValueError(f"{remedy('{layers}')} {refused[0]}: no direction at {lost[refused[0]]}.")
    if missing := [layer for layer in layers or () if layer not in held]:
        raise ValueError(
            f"{remedy('{layers}')} {missing[0]}: the directions are of layers {', '.join(map(str, sorted(held)))}."
        )
    return directions if layers is None else Directions({held[layer]: directions[held[layer]] for layer in layers})


def make_plan(
    directions: Directions, study: DoseStudy, *, against: Sequence[Directions] = (), shuffled: Mapping[Site, list[Arm]]
) -> DosePlan:
    """Arms of every site at equal added length, in the study's unit of the direction."""
    arms: list[Arm] = []
    for site, one in directions.items():
        nuisances = [held[site] for held in against]
        arms += protocol_arms(
            one,
            orthogonalized=orthogonalize(one, against=nuisances) if nuisances else None,
            nuisances=nuisances,
            shuffled=shuffled.get(site, []),
            n_random=study.n_random,
            n_complement=study.n_complement,
            seed=study.seed,
        )
    lengths = {site: one.scale(study.unit) for site, one in directions.items()}
    norms = {site: one.scale("resid") for site, one in directions.items()}
    return DosePlan(tuple(arms), parse_alphas(study.alphas), study.unit, lengths, norms, tokens_of(study.positions))


def _shuffled(directions: Directions, study: DoseStudy) -> tuple[dict[Site, list[Arm]], frozenset[str]]:
    if study.cache is None:
        return {}, frozenset()
    found = {site: shuffled(one, study.cache, study) for site, one in directions.items()}
    return {site: arms for site, (arms, _) in found.items()}, frozenset().union(*(ids for _, ids in found.values()))


def shuffled(direction: Direction, cache: Path, study: DoseStudy) -> tuple[list[Arm], frozenset[str]]:
    """Label-shuffled arms as the study wants them, and the ids that the direction was fitted on."""
    given: dict[str, Any] = {"labels": study.labels, "strata": study.strata}
    return shuffled_from_cache(direction, cache, n=study.n_shuffled, seed=study.seed, **given,
                               equal_length=study.shuffled_length == "equal")  # fmt: skip


def refuse_seen(examples: Sequence[Example], fitted: frozenset[str], directions: Iterable[Directions] = ()) -> None:
    """Refuse items on which a direction was fitted: a curve over them is not evidence.

    Args:
        fitted: ids that are known from a cache.
        directions: whose files name the ids that they were fitted on, by digest.
    """
    kept = {key for held in directions for one in held.values() for key in _fitted_ids(one)}
    seen = [e.id for e in examples if e.id in fitted or id_digest(e.id) in kept]
    if seen:
        raise ValueError(
            f"{len(seen)} of {len(examples)} items are among the rows that the direction was fitted on (first "
            f"{seen[0]!r}). Take a split whose stories or procedures it has not seen: "
            f"{remedy('{split}, {seed}, {task.side:test}', '{split}, {seed}')}, or another file."
        )


def _fitted_ids(direction: Direction) -> list[str]:
    known: Any = direction.provenance.get("fitted_ids") or []
    return list(map(str, known))


def run_member(
    model: Model, role: str, task: Any, task_path: str, examples: Sequence[Example], directions: Directions,
    plan: DosePlan, root: Path, study: DoseStudy, progress: bool,
) -> DoseResult:  # fmt: skip
    """The curves of the adapter that is active now, from disk where they are, from the model where they are not."""
    answer_member(model, role, task, task_path, examples, directions, plan, root, study, progress)
    return tables_of_member(task, examples, directions, plan, root, study)


def answer_member(
    model: Model, role: str, task: Any, task_path: str, examples: Sequence[Example], directions: Directions,
    plan: DosePlan, root: Path, study: DoseStudy, progress: bool,
) -> None:  # fmt: skip
    """Outcomes of the adapter that is active now on disk, with all that their tables need."""
    from tqdm import tqdm

    first = next(iter(directions.values()))
    notes = [said for one in directions.values() if (said := one.check_acts_on(model))]
    items = dose_items(model, task, examples, slot=study.slot, baseline=study.baseline)
    job = DoseSweep(model, items, plan, verify=study.verify, weights=weights_of(model))
    with dose_store(root, _identity(job, task_path, items), notes=_notes(first, plan, study, notes)) as store:
        keys, done = job.keys(), done_of(store)
        with tqdm(total=len(items), initial=len(done & set(keys)), unit="item", desc=role, disable=not progress) as bar:
            for index, key in enumerate(keys):
                if key not in done:
                    share = max(study.verify, FIRST_VERIFY) if index == 0 else study.verify
                    put_outcome(store, job.outcome(index, key, verify=share))
                    bar.update()
        put_text_sums(store, _text_sums(model, plan, study))
        put_read(store, items, keys, {"member": role, "toward": first.toward, "model": model.name,
                                     "dtype": str(model.dtype).removeprefix("torch.")})  # fmt: skip


def tables_of_member(
    task: Any, examples: Sequence[Example], directions: Directions, plan: DosePlan, root: Path, study: DoseStudy
) -> DoseResult:
    """The curves and tables of the outcomes in a folder; no model is needed."""
    first = next(iter(directions.values()))
    store = open_sweep(root)
    items, keys, who = get_read(store, examples)
    outcomes = [get_outcome(store, key) for key in keys]
    kind = Outcomes.of(task, toward=first.toward, away=first.away_from)
    sampling = Sampling(seed=study.seed, n_resamples=study.n_resamples)
    result, sums = DoseResult.of(items, outcomes, plan, kind, sampling=sampling), get_text_sums(store)
    texts = None if sums is None else text_curves(sums, plan, sampling=sampling).table().assign(group_unit="texts")
    found = _unsteered_answers(items, outcomes)
    write_tables(result, texts, root, {**who, **(found.columns if found else {})})
    return result


def _unsteered_answers(items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> OneAnswer | None:
    """The commonest answer at strength 0."""
    given = [item.labels[int(one.logp[0].argmax())] for item, one in zip(items, outcomes, strict=True)]
    return one_answer(given, [item.example.label for item in items])


def _identity(job: DoseSweep, task_path: str, items: Sequence[DoseItem]) -> dict[str, Any]:
    import hashlib

    digest = hashlib.sha256("".join(item.sha256 for item in items).encode()).hexdigest()
    return {
        "task": task_path, "items": digest, "n_items": len(items), "weights": job.weights, "plan": job.plan.sha256,
        "alphas": list(job.plan.alphas), "unit": job.plan.unit, "sites": [str(site) for site in job.plan.sites],
        "arms": [f"{arm.site} {arm.name}" for arm in job.plan.arms], "dtype": str(job.model.dtype),
    }  # fmt: skip


def _notes(first: Direction, plan: DosePlan, study: DoseStudy, said: list[str]) -> dict[str, Any]:
    from importlib.metadata import version

    lengths = {str(site): first.equivalents(1.0, study.unit) for site in plan.sites[:1]}
    held = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(study).items() if k not in ("labels", "strata")}
    packages = {name: version(name) for name in ("diptych", "torch", "transformers")}
    return {
        "study": held,
        "direction": dict(first.provenance),
        "alpha_1_is": lengths,
        "controls": controls_line(plan.arms),
        "notes": said,
        "versions": packages,
    }


def _text_sums(model: Model, plan: DosePlan, study: DoseStudy) -> dict[str, Any] | None:
    """Sums over neutral texts; None where no text is at hand that the tokenizer knows."""
    ids = neutral_ids(model.tokenizer, study.neutral)
    return text_sums(model, ids, plan) if ids else None


def neutral_ids(tokenizer: Any, texts: Sequence[str] | None) -> list[list[int]]:
    """Token ids of the texts; of None the texts of `steering.texts`, or none where the tokenizer lacks their words."""
    ids = [tokenizer.encode(text) for text in (TEXTS if texts is None else texts)]
    unknown = tokenizer.unk_token_id
    is_foreign = texts is None and unknown is not None and any(unknown in one for one in ids)
    return [] if is_foreign else ids


def write_tables(result: DoseResult, texts: pd.DataFrame | None, root: Path, who: Mapping[str, Any]) -> None:
    """Every table of one member; the switch table apart. One that fails takes no other with it.

    Raises:
        Exception: the first failure, after every other table was written.
    """
    whole = result.table()
    read = whole[(whole["metric"] == "label_mass") & (whole["alpha"] == 0)]["value"]
    who = {**who, "label_mass": float(read.iloc[0]) if len(read) else float("nan")}
    switches = whole["metric"].str.startswith(SWITCH)
    shown = whole["arm"].isin(["direction", "orthogonalized", "nuisance", "prompt"])
    make: dict[str, Callable[[], pd.DataFrame]] = {
        "table": lambda: whole[~switches], "slopes": result.slopes, "switch": lambda: whole[switches & shown],
        "plane": result.plane, "entangle": result.entangle_table,
    }  # fmt: skip
    if texts is not None:
        make["texts"] = lambda: texts
    failed: dict[str, Exception] = {}
    for name, made in make.items():
        try:
            write_table(made().assign(**who), root, name)
        except Exception as error:  # raised below: what was computed is written first
            failed[name] = error
    if failed:
        first = next(iter(failed.values()))
        first.add_note(f"{', '.join(failed)} of {root} failed; the other tables and all items are kept.")
        raise first
