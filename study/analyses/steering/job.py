"""Dose curves of one direction file in every member: arms, plan and outcomes on disk; a killed job continues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.model import Model
from interp.progress import showing, track, write
from interp.prompt import Example
from interp.remedy import remedy
from interp.site import Site
from interp.tasks.protocol import Task, load_task
from steering.arms import Arm, protocol_arms
from steering.curves import controls_line
from steering.difference import id_digest
from steering.direction import Direction, Directions
from steering.dose import DoseItem, DoseSweep, tokens_of
from steering.orthogonal import orthogonalize
from steering.response import check_size
from steering.rows import NoDirectionError
from steering.strengths import DosePlan, parse_alphas
from steering.texts import TEXTS, text_sums
from study.analyses.steering.items import dose_items, group_of, sites_of
from study.analyses.steering.options import DoseOptions
from study.analyses.steering.shuffled import shuffled_from_cache
from study.analyses.steering.store import done_of, dose_store, put_outcome, put_read, put_text_sums
from study.members import Loading, models_of, weights_of
from study.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST_VERIFY = 0.02


@dataclass(frozen=True)
class DoseJob:
    """Directions that are steered on the items of a task, with their controls, into the folder `out`.

    `answer` computes the outcomes of every member; `study.analyses.steering.tables` reads them.

    Attributes:
        against: directions that the direction is made orthogonal to, and that are steered as arms of their own.
        extra: member -> further arms, such as the other member's vector.
        at: decision site where the response is read; "": the first of those of the options.
    """

    task_path: str
    examples: Sequence[Example]
    directions: Directions
    out: Path
    options: DoseOptions
    against: Sequence[Directions] = ()
    extra: Mapping[str, Sequence[Arm]] = field(default_factory=dict)
    at: str = ""

    @cached_property
    def task(self) -> Task:
        return load_task(self.task_path)

    @cached_property
    def site(self) -> str:
        """Decision site where the response is read; "" where the task names none."""
        return self.at or self.sites[0]

    @property
    def sites(self) -> tuple[str, ...]:
        """Decision sites of the options."""
        return sites_of(self.task, self.options.at, self.options.slot)

    def by_site(self) -> tuple[DoseJob, ...]:
        """One job for each decision site of the options; of several, each in a folder of its name."""
        if len(self.sites) == 1:
            return (self,)
        return tuple(replace(self, at=site, out=self.out / site) for site in self.sites)

    @cached_property
    def chosen(self) -> Directions:
        """The directions of the layers that are steered."""
        return of_layers(self.directions, self.options.layers)

    @cached_property
    def _shuffled(self) -> Mapping[Site, tuple[list[Arm], frozenset[str]]]:
        """Label-shuffled arms of each site, and the ids that its direction was fitted on; none without a cache."""
        options, cache = self.options, self.options.cache
        if cache is None:
            return {}
        fit = partial(
            shuffled_from_cache,
            folder=cache,
            n=options.n_shuffled,
            seed=options.seed,
            labels=options.labels,
            strata=options.strata,
            equal_length=options.shuffled_length == "equal",
        )
        with track("directions of shuffled labels", len(self.chosen), unit="sites") as bar:
            return dict(zip(self.chosen, bar.over(map(fit, self.chosen.values())), strict=True))

    def plan(self, member: str) -> DosePlan:
        """Arms of every site at equal added length, in the unit of the options."""
        options, arms = self.options, []
        for site, one in self.chosen.items():
            nuisances = [directions[site] for directions in self.against]
            arms += protocol_arms(
                one,
                orthogonalized=orthogonalize(one, against=nuisances) if nuisances else None,
                nuisances=nuisances,
                shuffled=self._shuffled[site][0] if site in self._shuffled else [],
                n_random=options.n_random,
                n_complement=options.n_complement,
                seed=options.seed,
            )
        lengths = {site: one.scale(options.unit) for site, one in self.chosen.items()}
        norms = {site: one.scale("resid") for site, one in self.chosen.items()}
        alphas, tokens = parse_alphas(options.alphas), tokens_of(options.positions)
        return DosePlan((*arms, *self.extra.get(member, ())), alphas, options.unit, lengths, norms, tokens)

    def check(self) -> None:
        """Refuse, before anything is loaded, classes, items or groups too few for a curve, and items that a direction
        was fitted on.

        Raises:
            ValueError: any of these.
        """
        sites_of(self.task, self.options.at, self.options.slot)
        check_sizes(self.chosen, self.task, self.examples, self.options)
        fitted = frozenset[str]().union(*(ids for _, ids in self._shuffled.values()))
        refuse_seen(self.examples, fitted, [self.chosen, *self.against])

    def answer(
        self, what: Checkpoint | CheckpointPair, *, loading: Loading | None = None, progress: bool = True
    ) -> tuple[str, ...]:
        """Every member's outcomes at every decision site on disk; returns the members.

        Raises:
            ValueError: a class or curve that is too small, a layer that a file does not hold, a folder of another
                study, items that the direction was fitted on.
        """
        self.check()
        self.say_controls(progress)
        members: list[str] = []
        for roles, model in models_of(what, dict(loading or {})):
            for role in roles:
                with model.member(role):
                    for job in self.by_site():
                        job.answer_member(model, role, progress=progress)
                members.append(role)
        return tuple(members)

    def say_controls(self, progress: bool, member: str = "") -> None:
        """What the tests can show at best, before anything is loaded."""
        with showing(progress):
            line = controls_line(self.plan(member).arms)
        if progress:
            write(line)

    def answer_member(self, model: Model, member: str, *, progress: bool) -> None:
        """Outcomes of the adapter that is active now on disk, with all that their tables need."""
        options, plan, first = self.options, self.plan(member), next(iter(self.chosen.values()))
        notes = [note for one in self.chosen.values() if (note := one.check_acts_on(model))]
        items = dose_items(model, self.task, self.examples, slot=options.slot, baseline=options.baseline, at=self.site)
        check_size([item.group for item in items], min_items=options.min_items, min_groups=options.min_groups)
        job = DoseSweep(model, items, plan, verify=options.verify, weights=weights_of(model))
        identity, kept = _identity(job, self.task_path, items), _notes(first, plan, options, notes)
        with dose_store(self.out / member, identity, notes=kept) as store:
            keys, done = job.keys(), done_of(store)
            n_done = len(done & set(keys))
            name = f"dose {member}" + (f" at {self.site}" if len(self.sites) > 1 else "")
            with track(name, len(items), unit="items", done=n_done, shown=progress) as bar:
                for index, key in enumerate(keys):
                    if key not in done:
                        share = max(options.verify, FIRST_VERIFY) if index == 0 else options.verify
                        with bar.step():
                            put_outcome(store, job.outcome(index, key, verify=share))
            with track(f"{name}, neutral texts", 1, unit="passes", shown=progress) as bar, bar.step():
                put_text_sums(store, _text_sums(model, plan, options))
            dtype = str(model.dtype).removeprefix("torch.")
            who = {"member": member, "toward": first.toward, "model": model.name, "dtype": dtype}
            put_read(store, items, keys, who | {"decision_site": self.site})


def check_sizes(directions: Directions, task: Task, examples: Sequence[Example], options: DoseOptions) -> None:
    """Refuse, before anything is loaded, classes, items or groups too few for any curve to mean something."""
    parse_alphas(options.alphas)
    unit = group_of(task, examples)
    check_size([unit(one) for one in examples], min_items=options.min_items, min_groups=options.min_groups)
    for one in directions.values():
        s = one.stats
        if min(s.n_toward, s.n_away) < options.min_items or s.n_groups < options.min_groups:
            raise NoDirectionError(
                f"direction {one.label!r} at {one.site}: {s.n_toward} rows of {one.toward!r} and {s.n_away} of "
                f"{one.away_from!r} in {s.n_groups} groups; expected at least {options.min_items} of each class and "
                f"{options.min_groups} groups. Fit on more rows"
                f"{remedy(', or ask for less with {min_items} and {min_groups}')}."
            )


def of_layers(directions: Directions, layers: Sequence[int] | None) -> Directions:
    """The directions of some layers.

    Raises:
        ValueError: a layer that the file does not hold.
    """
    sites = {site.layer or 0: site for site in directions}
    lost = {site.layer or 0: f"{site}: {why}" for site, why in directions.refused.items()}
    if refused := [layer for layer in layers or () if layer in lost]:
        raise ValueError(f"{remedy('{layers}')} {refused[0]}: no direction at {lost[refused[0]]}.")
    if missing := [layer for layer in layers or () if layer not in sites]:
        raise ValueError(
            f"{remedy('{layers}')} {missing[0]}: the directions are of layers {', '.join(map(str, sorted(sites)))}."
        )
    return directions if layers is None else Directions({sites[layer]: directions[sites[layer]] for layer in layers})


def refuse_seen(examples: Sequence[Example], fitted: frozenset[str], directions: Iterable[Directions] = ()) -> None:
    """Refuse items on which a direction was fitted: a curve over them is not evidence.

    Args:
        fitted: ids that are known from a cache.
        directions: whose files name the ids that they were fitted on, by digest.
    """
    kept = {key for file in directions for one in file.values() for key in _fitted_ids(one)}
    seen = [e.id for e in examples if e.id in fitted or id_digest(e.id) in kept]
    if seen:
        raise ValueError(
            f"{len(seen)} of {len(examples)} items are among the rows that the direction was fitted on (first "
            f"{seen[0]!r}). Take a split whose stories or procedures it has not seen: "
            f"{remedy('{split}, {seed}, {task.side:test}', '{split}, {seed}')}, or another file."
        )


def _fitted_ids(direction: Direction) -> list[str]:
    ids = direction.provenance.get("fitted_ids")
    return [str(one) for one in ids] if isinstance(ids, Sequence) else []


def _identity(job: DoseSweep, task_path: str, items: Sequence[DoseItem]) -> Row:
    import hashlib

    digest = hashlib.sha256("".join(item.sha256 for item in items).encode()).hexdigest()
    return {
        "task": task_path,
        "items": digest,
        "n_items": len(items),
        "weights": job.weights,
        "plan": job.plan.sha256,
        "alphas": list(job.plan.alphas),
        "unit": job.plan.unit,
        "sites": [str(site) for site in job.plan.sites],
        "arms": [f"{arm.site} {arm.name}" for arm in job.plan.arms],
        "dtype": str(job.model.dtype),
    }


def _notes(first: Direction, plan: DosePlan, options: DoseOptions, notes: list[str]) -> Row:
    from importlib.metadata import version

    lengths = {str(site): first.equivalents(1.0, options.unit) for site in plan.sites[:1]}
    settings = {
        k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items() if k not in ("labels", "strata")
    }
    packages = {name: version(name) for name in ("diptych", "torch", "transformers")}
    return {
        "study": settings,
        "direction": dict(first.provenance),
        "alpha_1_is": lengths,
        "controls": controls_line(plan.arms),
        "notes": notes,
        "versions": packages,
    }


def _text_sums(model: Model, plan: DosePlan, options: DoseOptions) -> Row | None:
    """Sums over neutral texts; None where no text is at hand that the tokenizer knows."""
    ids = neutral_ids(model.tokenizer, options.neutral)
    return text_sums(model, ids, plan) if ids else None


def neutral_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | None) -> list[list[int]]:
    """Token ids of the texts; of None the texts of `steering.texts`, or none where the tokenizer lacks their words."""
    ids = [tokenizer.encode(text) for text in (TEXTS if texts is None else texts)]
    unknown = tokenizer.unk_token_id
    is_foreign = texts is None and unknown is not None and any(unknown in one for one in ids)
    return [] if is_foreign else ids
