"""Record activations: what `diptych cache` and the step `cache` both call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cache import extract, extract_pair, extract_replies
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load
from interp.positions import parse_positions
from interp.remedy import remedy
from study.analyses.cache.readers import models_that_read, readers_of, written_by
from study.analyses.cache.replies import lines_of, search_replies, unmatched

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from interp.prompt import Example
    from study.analyses.cache.options import CacheOptions, ReplyOptions
    from study.members import Loading


def record_caches(
    what: Checkpoint | CheckpointPair,
    examples: Sequence[Example],
    *,
    out: Path,
    options: CacheOptions,
    loading: Loading | None = None,
    progress: bool = True,
) -> list[ActivationCache]:
    """The cache of a checkpoint in `out`, or of every member of a pair in `out/<member>`; a killed run continues.

    Raises:
        ValueError: as `interp.load` and `interp.cache.extract`.
    """
    parse_positions(options.positions)
    arguments: dict[str, Any] = {"max_bytes": options.max_bytes, "progress": progress, **options.request()}
    if isinstance(what, CheckpointPair):
        return list(extract_pair(what, examples, out=out, load=dict(loading or {}), **arguments).values())
    return [extract(load(what, **(loading or {})), examples, out=out, **arguments)]


@dataclass(frozen=True, eq=False)
class ReplyCache:
    """The cache of one member's replies (None: nothing is selected in any), and what was left out, in sentences."""

    cache: ActivationCache | None
    lines: list[str]


def record_replies(
    what: Checkpoint | CheckpointPair,
    examples: Sequence[Example],
    *,
    out: Path,
    options: CacheOptions,
    replies: ReplyOptions,
    loading: Loading | None = None,
    progress: bool = True,
) -> list[ReplyCache]:
    """Caches of the replies in a folder of `diptych eval`, read token by token as they were written.

    A pair has one in `out/<member>` for every member that wrote; `replies.through` names the member that reads them
    all, otherwise each reads its own. The chat template is that of the evaluation. A killed run continues.

    Raises:
        ValueError: before any weight is read: as `read_replies` and `search_replies`, options that replies have no use
            for. Then: other weights than those that wrote; as `interp.load` and `interp.cache.extract_replies`.
    """
    rules = parse_positions(options.positions)
    if options.thinking is not None:
        raise ValueError(remedy("{thinking}: prompts of replies are those of their evaluation. Leave it out."))
    readers = readers_of(what, replies.through)
    written = written_by(readers, examples, replies)
    search_replies(list(written.values()), rules)
    arguments: dict[str, Any] = {"max_bytes": options.max_bytes, "progress": progress, **options.request()}
    made: dict[str, ReplyCache] = {}
    for member, role, model in models_that_read(what, loading or {}, readers, written):
        own, folder = written[member], out / member if isinstance(what, CheckpointPair) else out
        prompts = own.prompts(model.tokenizer)
        nothing = unmatched(prompts, rules)
        lines, cache = lines_of(own, nothing), None
        if all(len(nothing.get(rule.name, ())) == len(prompts) for rule in rules):
            lines.append("  no cache is written: no rule selects a token in any of these replies")
        else:
            source = {"written_by": member, "weights": own.identity["weights"], "read_by": readers[member]}
            cache = extract_replies(model, prompts, own.examples, out=folder, role=role, replies=source, **arguments)
        made[member] = ReplyCache(cache, lines)
    if not any(one.cache is not None for one in made.values()):
        raise ValueError("\n".join([line for one in made.values() for line in one.lines]))
    return [made[member] for member in readers]
