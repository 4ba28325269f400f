"""Step cache: activations of every member on disk. It makes no table: nothing in it is an estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.base import Context, Step, Work

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.prompt import Example
    from study.analyses.shapes import Fault, Layouts
    from study.config.sections import Study


def run(context: Context) -> None:
    """Caches of all members in `<member>/`; a killed run continues."""
    from study.analyses.cache.run import record_caches
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    out = context.folder if study.pair else context.folder / study.single.name
    how = {"loading": asdict(study.load), "progress": context.progress}
    record_caches(study.what, examples_of(study, section), out=out, options=section, **how)


def plan(study: Study) -> Work:
    """Rows and bytes of every member's cache, exactly; one forward pass each."""
    from study.analyses.estimate import largest_of, prompt_tokens
    from study.analyses.items import examples_of

    items: Sequence[Example] = examples_of(study, study.cache)
    members = study.members.values()
    size = sum(_bytes(study, member, items) for member in members)
    tokens = sum(prompt_tokens(study, member, items) for member in members)
    return Work(len(items) * len(members), tokens, 0, size, largest_of(study, members))


def _bytes(study: Study, member: Checkpoint, items: Sequence[Example]) -> int:
    from interp.cache.request import preview

    assert study.cache is not None
    options = {key: value for key, value in study.cache.request().items() if key != "dtype"}
    planned = preview(member, items, load=asdict(study.load), **options)
    return planned.check_disk(Path(), max_bytes=study.cache.max_bytes).bytes


def items(study: Study) -> list[Example]:
    """What is recorded."""
    from study.analyses.items import examples_of

    return examples_of(study, study.cache)


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Sites that a member does not have, and positions that are no rules."""
    from interp.positions import parse_positions
    from study.analyses.named import cached_sites
    from study.analyses.shapes import tried

    assert study.cache is not None
    yield from tried("cache.sites", layouts, lambda layout: cached_sites(study, layout))
    yield from tried("cache.positions", {"": study.cache.positions}, parse_positions)


STEP = Step("cache", run, plan=plan, uses_models=True, items=items, fits=fits)
