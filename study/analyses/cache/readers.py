"""Which member reads whose replies, and the models that do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.remedy import did_you_mean, remedy
from study.analyses.cache.replies import Replies, read_replies
from study.members import models_of, weights_of

if TYPE_CHECKING:
    from interp.model import Model
    from interp.prompt import Example
    from study.analyses.cache.options import ReplyOptions


def readers_of(what: Checkpoint | CheckpointPair, through: str | None) -> dict[str, str]:
    """Member whose replies are read -> member that reads them. The bare bases write no replies that are read here.

    Raises:
        ValueError: `through` names no member.
    """
    members = ["engaged", "heuristic"] if isinstance(what, CheckpointPair) else [what.name]
    known = list(what.members) if isinstance(what, CheckpointPair) else members
    if through is not None and through not in known:
        raise ValueError(
            f"{remedy('{through}')} {through!r}: expected a member, {', '.join(known)}.{did_you_mean(through, known)}"
        )
    return {member: through or member for member in members}


def written_by(readers: Mapping[str, str], examples: Sequence[Example], options: ReplyOptions) -> dict[str, Replies]:
    """The replies of every member that are read, before any weight is.

    Raises:
        ValueError: as `read_replies`.
    """
    assert options.replies is not None
    keep = options.unfinished == "keep"
    return {
        member: read_replies(options.replies, member, examples, mode=options.mode, keep_unfinished=keep)
        for member in readers
    }


def _as_asked(loading: Mapping[str, object], written: Iterable[Replies]) -> dict[str, object]:
    """Options of loading, with the chat template and its date as the evaluation had them."""
    identity = next(iter(written)).identity
    asked = {key: identity[key] for key in ("template", "template_date") if key in identity}
    given = {key: value for key, value in loading.items() if not (key == "template_date" and value is None)}
    return {**given, **asked}


def models_that_read(
    what: Checkpoint | CheckpointPair,
    loading: Mapping[str, object],
    readers: Mapping[str, str],
    written: Mapping[str, Replies],
) -> Iterator[tuple[str, str | None, Model]]:
    """(member whose replies are read, role of the model that reads them, that model), templates as in the evaluation.

    Raises:
        ValueError: replies that a member reads as its own and that other weights wrote; as `interp.load`.
    """
    for roles, model in models_of(what, _as_asked(loading, written.values())):
        for member, reader in readers.items():
            if reader in roles:
                role = reader if isinstance(what, CheckpointPair) else model.adapters.active
                _check_weights(model, role, written[member], is_own=reader == member)
                yield member, role, model


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
