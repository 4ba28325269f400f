"""Step probes: what is linearly readable in every member, per layer, and what of it another member shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.annotated import commonest_answer, is_answer
from study.analyses.base import Context, Step, Work
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from study.analyses.shapes import Fault, Layouts
    from study.config.sections import Study

_NO_WORK = ("targets", "transfer")
"""Options that are no part of the identity of one sweep."""


def run(context: Context) -> list[str]:
    """One sweep per member and target in `<member>/<target>/`, then transfers; finished sweeps are not run again."""
    from interp.cache import ActivationCache
    from study.analyses.annotated import annotated
    from study.analyses.probes.choices import with_shuffled
    from study.analyses.probes.run import sweep_member
    from study.analyses.probes.store import is_finished, read_settings, sweep_store, write_sweep

    notes: list[str] = []
    for member in _members(context):
        with ActivationCache.open(context.of("cache") / member) as cache:
            frame = with_shuffled(annotated(context, cache, member), context.section.targets, seed=context.study.seed)
            for target in context.section.targets:
                folder = context.folder / member / file_name(target)
                identity = {"cache": cache.plan_id, "target": target, **_options(context)}
                with sweep_store(folder, identity) as store:
                    if not is_finished(store):
                        result = sweep_member(
                            cache, frame, target, context.section, seed=context.study.seed, name=member
                        )
                        if isinstance(result, str):
                            notes.append(f"{member}, {target}: {result}")
                            continue
                        write_sweep(store, result)
                notes += [
                    f"{member}: {text}"
                    for text in read_settings(folder)["sweep"]["design"]
                    if "nothing can be claimed" in text
                ]
    if context.section.transfer != "none":
        notes += _transfers(context)
    if not _sweeps(context):
        raise ValueError(f"no target could be swept: {'; '.join(notes)}")
    return notes


def _options(context: Context) -> Row:
    options = {key: value for key, value in asdict(context.section).items() if key not in _NO_WORK}
    return options | {"seed": context.study.seed}


def _members(context: Context) -> list[str]:
    return [name for name in context.study.members if (context.of("cache") / name).is_dir()]


def _transfers(context: Context) -> list[str]:
    """Probes of each member read on the other, where widths and rows allow it."""
    from interp.io.frames import write_table
    from study.analyses.probes.store import is_sweep

    notes = []
    members = [m for m in _members(context) if m in ("engaged", "heuristic")]
    is_full = context.section.transfer == "all-layers"
    pairs = [(a, b) for a in members for b in members if a != b and not (is_full and a != members[0])]
    for target in context.section.targets:
        for first, second in pairs:
            folder, name = context.folder / first / file_name(target), f"transfer/{second}"
            if not is_sweep(folder) or (folder / f"{name}.parquet").is_file():
                continue
            try:
                table = _read_across(context, folder, first, second)
            except ValueError as error:
                notes.append(f"{target}, {first} read on {second}: {error}")
                continue
            write_table(table, folder, name)
    return notes


def _read_across(context: Context, folder: Path, first: str, second: str) -> pd.DataFrame:
    """Probes of `folder` read on the cache of `second`; with all layers also the other three blocks."""
    import pandas as pd

    from interp.cache import ActivationCache
    from probes import transfer
    from probes.across import refit
    from probes.kinds import carried
    from study.analyses.probes.store import read_sweep

    section, result = context.section, read_sweep(folder)
    kinds = carried(key[3] for key in result.directions)
    options: Row = dict(kinds=kinds, seed=context.study.seed)
    with ActivationCache.open(context.of("cache") / second) as other:
        if section.transfer == "same-layer":
            return transfer(result, other, checkpoint=second, **options)
        with ActivationCache.open(context.of("cache") / first) as own:
            there = refit(result, other, kinds=kinds, checkpoint=second)
            blocks = [
                (probe, cache, name) for probe in (result, there) for cache, name in ((own, first), (other, second))
            ]
            parts = [
                transfer(probe, cache, checkpoint=name, mode="all-layers", **options) for probe, cache, name in blocks
            ]
    return pd.concat(parts, ignore_index=True)


def _sweeps(context: Context) -> dict[tuple[str, str], Path]:
    """(member, target) -> folder of the finished sweep, in the order of the study."""
    from study.analyses.probes.store import is_sweep

    folders = {(m, t): context.folder / m / file_name(t) for m in _members(context) for t in context.section.targets}
    return {key: folder for key, folder in folders.items() if is_sweep(folder)}


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`probes`, and `probes_transfer` where probes could be carried over."""
    import pandas as pd

    from study.analyses.probes.tables import probe_table, transfer_files, transfer_table
    from study.schema import tidy

    sweeps, transfers = [], []
    for (member, target), folder in _sweeps(context).items():
        answered = _answered(context, member, target) | {"target": target}
        sweeps.append(probe_table(pd.read_parquet(folder / "table.parquet"), **_same(context, member), **answered))
        for path in transfer_files(folder):  # a row is of the member that is read; the classes stay those of the sweep
            for read, rows in pd.read_parquet(path).groupby("test_checkpoint", sort=False):
                by = {"top_answer_member": member} if "top_answer" in answered and read != member else {}
                transfers.append(transfer_table(rows, **_same(context, str(read)), **answered, **by))
    tables = {"probes": sweeps, "probes_transfer": transfers}
    return {name: tidy(pd.concat(parts, ignore_index=True)) for name, parts in tables.items() if parts}


def _answered(context: Context, member: str, target: str) -> Row:
    """Columns of the member's most common answer, where the target or the choice of rows is made of its answers."""
    from interp.where import columns_of
    from study.analyses.eval.one_answer import MEANING, said

    answer = commonest_answer(context, member, (target, *columns_of(context.section.where)))
    if answer is None:
        return {"is_degenerate": False}
    text = f"{said(member, answer.answer, answer.share, answer.n)} {MEANING}" if answer.is_degenerate else ""
    return {**answer.columns, "banner": text}


def _same(context: Context, member: str) -> Row:
    from interp.cache.manifest import read_manifest

    identity = read_manifest(context.of("cache") / member)["identity"]
    return {
        **context.made_by(member),
        "seed": context.study.seed,
        "group_unit": context.section.groups,
        "dtype": identity["numerics"]["compute_dtype"],
        "data_sha256": identity["prompts"]["sha256"],
    }


def plan(study: Study) -> Work:
    """No model runs; time goes into fits and permutations."""
    assert study.probes is not None
    n = len(study.members) * len(study.probes.targets)
    return Work(note=f"{n} sweeps of the cache, {study.probes.perm} permutations each; no model is loaded")


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Sites and positions that the cache of a member will not hold."""
    from interp.site import match_sites
    from study.analyses.named import cached_positions, cached_sites, has_good_cache
    from study.analyses.shapes import Fault, tried

    section = study.probes
    assert section is not None
    good = {role: layout for role, layout in layouts.items() if has_good_cache(study, layout)}
    yield from tried(
        "probes.sites",
        good,
        lambda layout: match_sites(section.sites, cached_sites(study, layout)),
        "Name some of these, or add to cache.sites.",
    )
    words = [] if section.positions == "*" else [word.strip() for word in section.positions.split(",")]
    available = cached_positions(study) if good else tuple(words)
    yield from (
        Fault("probes.positions", "", f"{word!r} is not in the cache, which will hold {', '.join(available)}.")
        for word in words
        if word not in available
    )


def file_name(name: str) -> str:
    """A folder's name of a target: nothing that could lead elsewhere."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "target"


def reads(study: Study) -> tuple[str, ...]:
    """The evaluation, where what the member answered is asked for."""
    from interp.where import columns_of

    assert study.probes is not None
    named = (*study.probes.targets, *columns_of(study.probes.where))
    return ("eval",) if any(map(is_answer, named)) else ()


def code(study: Study) -> list[str]:
    """Kinds of probes that are functions of the user's own."""
    assert study.probes is not None
    return [kind for kind in study.probes.kinds if ":" in kind]


STEP = Step("probes", run, tables, needs=("cache",), reads=reads, plan=plan, sections=("seed",), fits=fits, code=code)
