"""Step steering: a direction fitted on some groups, added at every strength on the others, with its controls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.annotated import FIT, commonest_answer, is_answer
from study.analyses.base import Context, Step, Work
from study.analyses.steering.options import CurveOptions, DoseOptions, SteeringOptions
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from interp.prompt import Prompt
    from interp.tasks.protocol import Example
    from steering.direction import Directions
    from study.analyses.shapes import Fault, Layouts
    from study.analyses.steering.job import DoseJob
    from study.config.sections import Study

_CLASS = "steering.class"
_LAYERS = "layers.json"
_BYTES_PER_ROW = 45  # five float64 and what a file of them costs


def run(context: Context) -> list[str]:
    """Directions in `<member>/fit/`, curves in `<member>/dose/`; a killed run continues with the next item."""
    from steering.rows import NoDirectionError

    notes, n_steered, is_wrong = [], 0, False
    for member in _members(context.study):
        if not (context.of("cache") / member).is_dir():
            notes.append(f"{member} has no cache")
            is_wrong = True
            continue
        try:
            notes += _member(context, member)
            n_steered += 1
        except ValueError as error:
            notes.append(f"{member}: {error}")
            is_wrong = is_wrong or not isinstance(error, NoDirectionError)
    if is_wrong and not n_steered:  # members that give no direction are a finding, not a fault
        raise ValueError("; ".join(notes))
    return notes


def _section(study: Study) -> SteeringOptions:
    assert study.steering is not None
    return study.steering


def _members(study: Study) -> tuple[str, ...]:
    return _section(study).members if study.pair else tuple(study.members)


def _member(context: Context, member: str) -> list[str]:
    """Fit and steer one member; returns notes on its directions."""
    from interp.cache import ActivationCache
    from interp.where import kept
    from steering.difference import difference_of_means
    from study.analyses.annotated import annotated, held_out, view

    study, section, folder = context.study, _section(context.study), context.folder / member
    chosen = _chosen_layers(context, member)
    with ActivationCache.open(context.of("cache") / member) as cache:
        frame = annotated(context, cache, member)
    for name in (section.target, section.groups):
        if name not in frame.columns:
            raise ValueError(f"steering: no column {name!r}. Columns: {', '.join(frame.columns)}.")
    keep = frame[section.target].notna() & kept(frame, section.where, n=len(frame), option="steering.where")
    # a row that is not kept has no class, so that no direction is fitted on it
    frame[_CLASS] = frame[section.target].astype(str).where(keep)
    frame[FIT] = held_out(frame[section.groups], share=section.test_share, seed=study.seed)
    own = view(context.of("cache") / member, folder / "cache", frame)
    sides = [(section.toward, section.away_from), *section.orthogonal_to]
    fitted: list[Directions] = []
    with ActivationCache.open(own) as cache:
        for number, (toward, away) in enumerate(sides):
            one = difference_of_means(
                cache,
                toward=toward,
                away_from=away,
                target=_CLASS,
                position=section.position,
                groups=section.groups,
                fit_on=f"{FIT}=train",
                balance=section.balance,
                seed=study.seed,
                check_sign=number == 0,  # of what is taken out only the axis counts
            )
            one.save(folder / f"fit-{number}.safetensors")
            fitted.append(one)
    job = _job(context, member, own, fitted, chosen)
    job.answer(study.members[member], loading=asdict(study.load), progress=context.progress)
    layers = job.options.layers
    asked = [site for site in fitted[0].refused if chosen is None or site.layer in chosen]
    noisy = [
        (one.label, site)
        for directions in fitted[1:]
        for site, one in directions.items()
        if (layers is None or site.layer in layers) and one.stats.held_out_gap <= 0
    ]
    return [
        *(f"{member}: no direction at {site}: {fitted[0].refused[site]}" for site in asked),
        *(
            f"{member}, {label} at {site}, left out: its classes are not separable on held-out rows"
            for label, site in noisy
        ),
    ]


def _chosen_layers(context: Context, member: str) -> tuple[int, ...] | None:
    """Block indices that are steered, kept in the step's folder so that its tables need no model; None: every one."""
    from interp.io.files import write_file
    from interp.site import layer_index
    from study.analyses.shapes import layout_of

    words, path = _section(context.study).layers, context.folder / member / _LAYERS
    if words is None:
        return None
    if not path.is_file():
        n_layers = layout_of(context.study, context.study.members[member]).n_layers
        layers = list(dict.fromkeys(layer_index(word, n_layers) for word in words))
        write_file(path, json.dumps(layers).encode())
    return tuple(json.loads(path.read_text()))


def _job(
    context: Context, member: str, cache: Path, directions: Sequence[Directions], layers: tuple[int, ...] | None
) -> DoseJob:
    """What is steered in one member: the items that the cache says were not fitted on."""
    from interp.cache import ActivationCache
    from study.analyses.items import examples_of
    from study.analyses.steering.job import DoseJob

    study, section = context.study, _section(context.study)
    with ActivationCache.open(cache) as opened:
        frame = opened.examples
    test = set(frame.loc[frame[FIT] == "test", "id"])
    items = _drawn([e for e in examples_of(study, study.cache) if e.id in test], section.limit, study.seed)
    curve = {one.name: getattr(section, one.name) for one in fields(CurveOptions)}  # pyright: ignore[reportArgumentType]
    options = DoseOptions(
        **curve, layers=_confirmed_layers(layers, directions[0]), cache=cache, seed=study.seed, baseline=""
    )
    return DoseJob(study.task.path, items, directions[0], context.folder / member / "dose", options, directions[1:])


def _jobs(context: Context) -> Iterator[tuple[str, DoseJob, tuple[str, ...]]]:
    """(member, what was steered, checkpoints with finished curves) of every member at every decision site."""
    from steering.direction import Directions
    from steering.rows import NoDirectionError
    from study.analyses.steering.store import is_finished

    for member in _members(context.study):
        folder = context.folder / member
        kept = sorted(folder.glob("fit-*.safetensors"), key=lambda path: int(path.stem.removeprefix("fit-")))
        if not kept:
            continue
        directions = [Directions.load(path) for path in kept]
        try:
            whole = _job(context, member, folder / "cache", directions, _chosen_layers(context, member))
        except NoDirectionError:
            continue
        for job in whole.by_site():
            if roles := tuple(sorted(path.name for path in job.out.glob("*") if is_finished(path))):
                yield member, job, roles


def _confirmed_layers(layers: tuple[int, ...] | None, directions: Directions) -> tuple[int, ...] | None:
    """The layers that are asked for, without those at which held-out rows contradict the direction.

    Raises:
        NoDirectionError: none is left.
    """
    from steering.rows import NoDirectionError

    lost = {site.layer: why for site, why in directions.refused.items()}
    kept = None if layers is None else tuple(layer for layer in layers if layer not in lost)
    if kept == ():
        raise NoDirectionError(
            f"no direction at layer {', '.join(map(str, layers or ()))}: {lost[(layers or (0,))[0]]}."
        )
    return kept


def _drawn(items: list[Example], limit: int | None, seed: int) -> list[Example]:
    """At most `limit` items, drawn by a digest of their id: the first of a file would be of few groups."""
    if limit is None or len(items) <= limit:
        return items
    ranked = sorted(items, key=lambda e: hashlib.sha256(f"{seed}|{e.id}".encode()).hexdigest())
    kept = {e.id for e in ranked[:limit]}
    return [e for e in items if e.id in kept]


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`steering`: levels at every strength; `steering_slopes`: one slope per arm and score. Of no member that has a
    direction: none."""
    from study.analyses.steering.tables import Member, study_tables, tables_of_doses

    members = []
    for member, job, roles in _jobs(context):
        tables_of_doses(job, roles)
        classes = commonest_answer(context, member, _class_columns(_section(context.study)))
        members += [Member(job.out / role, _same(context, member, job.site), classes) for role in roles]
    return study_tables(members) if members else {}


def _class_columns(section: SteeringOptions) -> tuple[str, ...]:
    """Columns that say which rows have a class, and which."""
    from interp.where import columns_of

    return (section.target, *columns_of(section.where))


def _same(context: Context, member: str, decision_site: str) -> Row:
    from interp.cache.manifest import read_manifest

    identity = read_manifest(context.of("cache") / member)["identity"]
    return {
        **context.made_by(member),
        "analysis": "steering",
        "member": member,
        "decision_site": decision_site,
        "seed": context.study.seed,
        "unit": "items",
        "group_unit": _section(context.study).groups,
        "dtype": identity["numerics"]["compute_dtype"],
        "data_sha256": identity["prompts"]["sha256"],
    }


def plan(study: Study) -> Work:
    """One forward pass per item, and one row per arm, strength and layer, from that layer on; over neutral texts the
    same for the main arms and a few controls, at every token."""
    from steering.strengths import parse_alphas
    from steering.texts import N_CONTROLS
    from study.analyses.estimate import largest_of, passes_above, prompts_of
    from study.analyses.items import examples_of
    from study.analyses.named import cached_sites, steered_layers
    from study.analyses.shapes import layout_of, skeleton_of
    from study.analyses.steering.job import neutral_ids

    section = _section(study)
    items = examples_of(study, study.cache)
    kept = _drawn(items, section.limit or max(1, round(section.test_share * len(items))), study.seed)
    members = [study.members[m] for m in _members(study) if m in study.members]
    main = 1 + len(section.orthogonal_to) + bool(section.orthogonal_to)
    n_strengths = len(parse_alphas(section.alphas)) - 1
    arms = main + section.n_random + section.n_complement + section.n_shuffled
    n_rows, n_text_rows = arms * n_strengths, (main + min(N_CONTROLS, section.n_random)) * n_strengths
    n_sites = len(section.at) or 1
    tokens, rows, size, counts = 0, 0.0, 0, []
    for member in members:
        layout, prompts = layout_of(study, member), prompts_of(study, member, kept)
        layers = steered_layers(section.layers, cached_sites(study, layout), layout.n_layers)
        tokens += n_sites * sum(len(prompt.ids) for prompt in prompts)
        of_texts = sum(map(len, neutral_ids(skeleton_of(study, member).tokenizer, None)))
        per_row = n_rows * _changed(prompts, section.positions) + n_text_rows * of_texts
        rows += n_sites * passes_above([k + 1 for k in layers], layout.n_layers) * per_row
        size += n_sites * n_rows * len(layers) * len(kept) * _BYTES_PER_ROW
        counts.append(f"{len(layers)}")
    n_layers = " and ".join(dict.fromkeys(counts))
    layers_words = f"{n_layers} layer{'' if n_layers == '1' else 's'}"
    return Work(
        len(kept) * len(members),
        tokens,
        0,
        size,
        largest_of(study, members),
        round(rows),
        note=f"{arms} arms at {n_strengths} strengths and {layers_words}, as rows; {_floor(section)}",
    )


def _changed(prompts: Sequence[Prompt], positions: str) -> int:
    """Tokens that a row computes anew, over all prompts, in the words of `steering.dose.tokens_of`."""
    from study.analyses.estimate import changed_tokens

    if positions in ("all", "prompt"):
        return sum(len(prompt.ids) for prompt in prompts)
    return changed_tokens(prompts, "last" if positions == "generated" else positions)


def _floor(section: SteeringOptions) -> str:
    """The smallest p that the controls allow, for before the run."""
    from steering.arms import MIN_NULL

    fewest = min(section.n_random, section.n_shuffled)
    return (
        f"smallest p {1 / (1 + fewest):.3g}"
        if fewest >= MIN_NULL
        else f"no p: {fewest} controls of one kind are too few"
    )


def reads(study: Study) -> tuple[str, ...]:
    """The evaluation, where what the member answered is asked for."""
    return ("eval",) if any(map(is_answer, _class_columns(_section(study)))) else ()


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Members, layers and positions that are not there to be steered."""
    from interp.tasks.protocol import load_task
    from steering.dose import tokens_of
    from steering.strengths import parse_alphas
    from study.analyses.named import cached_positions, cached_sites, has_good_cache, steered_layers
    from study.analyses.shapes import Fault, tried
    from study.analyses.steering.items import sites_of

    section = _section(study)
    members = [name for name in _members(study) if name in study.members]
    strange = [name for name in _members(study) if name not in members]
    yield from (Fault("steering.members", "", f"{name!r}: expected {', '.join(study.members)}.") for name in strange)
    good = {role: layouts[role] for role in members if has_good_cache(study, layouts[role])}
    yield from tried(
        "steering.layers",
        good,
        lambda layout: steered_layers(section.layers, cached_sites(study, layout), layout.n_layers),
    )
    task = load_task(study.task.path)
    yield from tried("steering.at", {"": section.at}, lambda at: sites_of(task, at, section.slot))
    yield from tried("steering.positions", {"": section.positions}, tokens_of)
    yield from tried("steering.alphas", {"": section.alphas}, parse_alphas)
    positions = cached_positions(study) if good else ()
    if positions and section.position is None and len(positions) > 1:
        yield Fault("steering.position", "", f"the cache will hold {', '.join(positions)}; name one.")
    if positions and section.position is not None and section.position not in positions:
        text = f"{section.position!r} is not in the cache, which will hold {', '.join(positions)}."
        yield Fault("steering.position", "", text)


STEP = Step("steering", run, tables, needs=("cache",), reads=reads, plan=plan, uses_models=True, fits=fits)
