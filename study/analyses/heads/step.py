"""Step heads: the exact effect of every attention head of each member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.checkpoint import Checkpoint, CheckpointPair
from study.analyses.base import Context, Step, Work
from study.analyses.heads.options import HeadsOptions
from study.folders import STUDY

if TYPE_CHECKING:
    import pandas as pd

    from interp.tasks.protocol import Example
    from study.analyses.shapes import Fault, Layouts
    from study.config.sections import Study


def run(context: Context) -> list[str]:
    """Sweeps in `<member>/<kind>/`; a killed sweep continues with the next pair."""
    from study.analyses.heads.run import run_heads

    study, pairs = context.study, items(context.study)
    options = _options(study)
    run_heads(
        _what(study),
        study.task.path,
        pairs,
        out=context.folder,
        options=options,
        seed=study.seed,
        loading=asdict(study.load),
        progress=context.progress,
    )
    if options.kinds != context.section.kinds:
        return ["patching was left out: the task makes no twins (or data were given)"]
    return []


def _options(study: Study) -> HeadsOptions:
    """What is swept; without patching where the task makes no twins."""
    from study.analyses.items import makes_twins

    options = _section(study)
    if makes_twins(study):
        return options
    kinds = tuple(kind for kind in options.kinds if not kind.startswith("patch") and kind != "resample:twin")
    if not kinds:
        raise ValueError("heads.kinds: patching needs twins, and the task makes none. Add another kind, such as mean.")
    return replace(options, kinds=kinds)


def pairs_asked(study: Study) -> int:
    """Number of procedures of twins, or of items: as the section says, else from the heads of the members alone."""
    from study.analyses.heads.size import n_of
    from study.analyses.shapes import layout_of

    return n_of(_section(study), (layout_of(study, member) for member in _members(study).values()))


def with_pairs(study: Study, out: Path) -> Study:
    """The study with `heads.n` filled in: that of the run folder's `study.yaml` if it has one, else `pairs_asked`.

    `study.yaml` and a registration then hold the number, so that a run that continues elsewhere has the same pairs. As
    it is where the configuration of a member cannot be read; such a study does not run.
    """
    if study.heads is None or study.heads.n is not None:
        return study
    try:
        n = _recorded(out / STUDY) or pairs_asked(study)
    except (ValueError, OSError):
        return study
    return replace(study, heads=replace(study.heads, n=n))


def _recorded(path: Path) -> int | None:
    """`heads.n` of a resolved study on disk; None where there is none."""
    from interp.io.yaml_text import read_yaml

    content = read_yaml(path)[0] if path.is_file() else None
    heads = content.get("heads") if isinstance(content, dict) else None
    n = heads.get("n") if isinstance(heads, dict) else None
    return n if isinstance(n, int) else None


def _section(study: Study) -> HeadsOptions:
    assert study.heads is not None
    return study.heads


def _what(study: Study) -> CheckpointPair | Checkpoint:
    """The pair, with the bare bases only where they are asked for, or the single checkpoint."""
    if study.pair is None:
        return study.single
    bases = {key: getattr(study.pair, key) for key in ("base", "heuristic_base") if key in _section(study).members}
    return CheckpointPair(study.pair.engaged, study.pair.heuristic, **bases)


def _members(study: Study) -> Mapping[str, Checkpoint]:
    what = _what(study)
    return {what.name: what} if isinstance(what, Checkpoint) else what.members


def tables(context: Context) -> Mapping[str, pd.DataFrame]:
    """`heads`, `heads_selected`, `heads_cumulative`, and, where they were made, `heads_difference`, `order_swap`."""
    from study.analyses.heads.tables import tables_of_heads

    study = context.study
    provenance = {name: context.made_by(name) for name in study.members}
    return tables_of_heads(
        context.folder, tuple(_members(study)), _options(study), seed=study.seed, provenance=provenance
    )


def plan(study: Study) -> Work:
    """Per prompt, kind and decision site two passes and a row for every head, from its layer on; see `interp.sweep`.

    At most: a site that a member does not reach costs nothing, and prompts are shorter at an early one.
    """
    from interp.tasks.records import spread
    from study.analyses.estimate import changed_tokens, largest_of, prompts_of
    from study.analyses.items import examples_of, twins_of

    options, n = _options(study), pairs_asked(study)
    twins, n_sites = twins_of(study, n), len(_sites(study))
    items = [e for pair in twins for e in pair] if twins else spread(examples_of(study), n)
    members = list(_members(study).values())
    tokens, rows = 0, 0.0
    for member in members:
        prompts = prompts_of(study, member, items)
        tokens += 2 * len(options.kinds) * n_sites * sum(len(prompt.ids) for prompt in prompts)
        rows += (
            n_sites * n * _passes(study, member, options) / len(prompts) * changed_tokens(prompts, options.positions)
        )
    return Work(
        len(items) * len(members),
        tokens,
        0,
        4000 * n_sites * len(items) * len(members),
        largest_of(study, members),
        round(rows),
        note="replies before the label not counted",
    )


def _sites(study: Study) -> tuple[str, ...]:
    """The decision sites that are swept; raises ValueError for one that the task does not name."""
    from interp.tasks.protocol import load_task
    from study.analyses.heads.pairs import sites_of

    return sites_of(load_task(study.task.path), _section(study))


def _passes(study: Study, member: Checkpoint, options: HeadsOptions) -> float:
    """Rows of one pair, in passes through the whole model: one per head and kind, then the sets removed together.

    The direct effect of a head needs no row; the strongest heads are removed on half of the prompts, sets that were
    named on all of them.
    """
    from interp.heads import parse_kind
    from interp.heads.cumulative import cumulative_sets
    from interp.heads.ids import expand_heads, parse_unit
    from interp.heads.together import random_sets
    from study.analyses.estimate import passes_above
    from study.analyses.heads.run import KS
    from study.analyses.shapes import layout_of

    layout = layout_of(study, member)
    heads = [unit[0] for unit in expand_heads("all", layout)]
    sets = cumulative_sets(heads, ks=[k for k in KS if k <= len(heads) // 2], seed=study.seed).values()
    draws = sum(getattr(parse_kind(kind), "draws", 1) for kind in options.kinds) if options.effect == "total" else 0
    single = draws * passes_above([head.layer for head in heads], layout.n_layers)
    together = passes_above([min(head.layer for head in unit) for unit in sets if unit], layout.n_layers)
    random = random_sets([parse_unit(name) for name in options.together], heads, seed=study.seed)
    named = [unit for one, others in random.items() for unit in (one, *others)]
    named_passes = passes_above([min(head.layer for head in unit) for unit in named], layout.n_layers) if named else 0.0
    return single + together / 2 + named_passes


def items(study: Study) -> list[Example] | list[tuple[Example, Example]]:
    """Twins or examples whose heads are changed."""
    from interp.tasks.records import spread
    from study.analyses.items import examples_of, twins_of

    n = pairs_asked(study)
    twins = twins_of(study, n)
    return spread(examples_of(study), n) if twins is None else twins


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Heads that a member does not have, kinds, positions and decision sites that are none."""
    from interp.heads import parse_kind
    from interp.heads.ids import expand_heads, parse_unit
    from interp.positions import parse_positions
    from study.analyses.heads.run import check_sets
    from study.analyses.shapes import tried

    section, members = _section(study), {role: layouts[role] for role in _members(study)}
    for name in section.named:
        yield from tried("heads.named", members, lambda layout, name=name: expand_heads([parse_unit(name)], layout))
    unknown_kinds = [fault for kind in section.kinds for fault in tried("heads.kinds", {"": kind}, parse_kind)]
    yield from unknown_kinds
    if not unknown_kinds:
        yield from tried("heads.together", {"": section}, check_sets)
    for name in section.together:
        yield from tried("heads.together", members, lambda layout, name=name: expand_heads([name], layout))
    yield from tried("heads.at", {"": study}, _sites)
    yield from tried("heads.positions", {"": section.positions}, parse_positions)


STEP = Step("heads", run, tables, plan=plan, uses_models=True, items=items, fits=fits)
