"""Record activations: what `diptych cache` and the step `cache` both call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cache import extract, extract_pair, extract_replies
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load
from interp.positions import parse_positions
from interp.remedy import did_you_mean, remedy
from study.analyses.cache.replies import Replies, lines_of, read_replies, search_replies, unmatched
from study.members import models_of, weights_of

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from interp.model import Model
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
    assert replies.replies is not None
    rules = parse_positions(options.positions)
    if options.thinking is not None:
        raise ValueError(remedy("{thinking}: prompts of replies are those of their evaluation. Leave it out."))
    readers = _readers(what, replies.through)
    keep = replies.unfinished == "keep"
    written = {
        member: read_replies(replies.replies, member, examples, mode=replies.mode, keep_unfinished=keep)
        for member in readers
    }
    search_replies(list(written.values()), rules)
    settings = _as_asked(loading or {}, written.values())
    arguments: dict[str, Any] = {"max_bytes": options.max_bytes, "progress": progress, **options.request()}
    made: dict[str, ReplyCache] = {}
    for member, role, model in _models(what, settings, readers):
        own, folder = written[member], out / member if isinstance(what, CheckpointPair) else out
        _check_weights(model, role, own, is_own=readers[member] == member)
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


def _readers(what: Checkpoint | CheckpointPair, through: str | None) -> dict[str, str]:
    """Member whose replies are read -> member that reads them. The bare bases write no replies that are read here."""
    members = ["engaged", "heuristic"] if isinstance(what, CheckpointPair) else [what.name]
    known = list(what.members) if isinstance(what, CheckpointPair) else members
    if through is not None and through not in known:
        raise ValueError(
            f"{remedy('{through}')} {through!r}: expected a member, {', '.join(known)}.{did_you_mean(through, known)}"
        )
    return {member: through or member for member in members}


def _as_asked(loading: Mapping[str, object], written: Any) -> dict[str, object]:
    """Options of loading, with the chat template and its date as the evaluation had them."""
    identity = next(iter(written)).identity
    asked = {key: identity[key] for key in ("template", "template_date") if key in identity}
    given = {key: value for key, value in loading.items() if not (key == "template_date" and value is None)}
    return {**given, **asked}


def _models(
    what: Checkpoint | CheckpointPair, loading: Mapping[str, object], readers: Mapping[str, str]
) -> Iterator[tuple[str, str | None, Model]]:
    """(member whose replies are read, role of the model that reads them, that model)."""
    for roles, model in models_of(what, loading):
        for member, reader in readers.items():
            if reader in roles:
                yield member, reader if isinstance(what, CheckpointPair) else model.adapters.active, model


def _check_weights(model: Model, role: str | None, own: Replies, *, is_own: bool) -> None:
    """Replies that a member reads as its own were written by these weights."""
    with model.member(role):
        weights = weights_of(model)
    if is_own and weights != own.identity["weights"]:
        raise ValueError(
            f"{own.member}: the replies were written by other weights ({str(own.identity['weights'])[:12]} != "
            f"{weights[:12]}). Name the checkpoint of the evaluation, or read them "
            f"{remedy('with {through}', 'through another')} on purpose."
        )
