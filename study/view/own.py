"""Views along the members' own replies: each is read, token by token as it was written, by the member that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.family import Layout
from interp.heads.ids import HeadId, check_head
from interp.model import Model
from interp.site import layer_index
from interp.tasks.records import spread
from study.analyses.cache.readers import models_that_read, readers_of, written_by
from study.analyses.heads.size import layouts_of
from study.view.data import Item, Strip
from study.view.lens import of_lens
from study.view.pattern import of_pattern
from study.view.reading import Prompts
from study.view.views import View

if TYPE_CHECKING:
    from interp.prompt import Example
    from study.analyses.cache.options import ReplyOptions
    from study.analyses.cache.replies import Replies


@dataclass(frozen=True)
class Make:
    """How a view is made of a model and its prompts.

    Attributes:
        check: raises a ValueError for a layout that lacks what the view names, before any weight is read.
    """

    view: Callable[[Model, Prompts], View]
    check: Callable[[Layout], object]


def pattern_of_replies(head: str) -> Make:
    """Makes the view of a head (`study.view.of_pattern`).

    Raises:
        ValueError: the text names no head.
    """
    which = HeadId.parse(head)
    return Make(lambda model, prompts: of_pattern(model, which, prompts), partial(check_head, which))


def lens_of_replies(layers: Sequence[int | str]) -> Make:
    """Makes the view of the logit lens at layers (`study.view.of_lens`)."""

    def check(layout: Layout) -> None:
        for word in layers:
            layer_index(word, layout.n_layers)

    return Make(lambda model, prompts: of_lens(model, prompts, layers=layers), check)


def of_own_replies(
    what: Checkpoint | CheckpointPair,
    examples: Sequence[Example],
    options: ReplyOptions,
    make: Make,
    *,
    n: int,
    loading: Mapping[str, object] | None = None,
) -> View:
    """Both members side by side, on `n` of the items that every member has a whole reply to.

    Args:
        options: folder of `diptych eval`, and which of its replies.
        make: a view of one model and its prompts, of `pattern_of_replies` or `lens_of_replies`.
    Raises:
        ValueError: before any weight is read: a head or layer that a member lacks; as `read_replies`; no item that
            every member replied to. Then: as `models_that_read` and the view.
    """
    checkpoints = what.members.values() if isinstance(what, CheckpointPair) else [what]
    for layout in layouts_of(checkpoints, {key: value for key, value in (loading or {}).items() if key != "merge"}):
        make.check(layout)
    readers = readers_of(what, options.through)
    written = written_by(readers, examples, options)
    common = set.intersection(*({one.id for one in own.examples} for own in written.values()))
    shared = [one for one in next(iter(written.values())).examples if one.id in common]
    if not shared:
        raise ValueError(f"{options.replies}: no item has a whole reply of every member ({', '.join(written)}).")
    chosen = {one.id for one in spread(shared, n)}
    views: list[View] = []
    items: dict[str, list[Strip]] = {}
    for member, role, model in models_that_read(what, dict(loading or {}), readers, written):
        kept = _only(written[member], chosen)
        with model.member(role) if isinstance(what, CheckpointPair) else model.adapters.use(role):
            views.append(make.view(model, kept.prompts(model.tokenizer)))
        facts = {one.id: one for one in kept.examples}
        for item in views[-1].items:
            strips = items.setdefault(item.id, [])
            strips += [_with_facts(replace(strip, member=member), facts[item.id]) for strip in item.strips]
    order = [one.id for one in shared if one.id in chosen]
    cells = {one.id: str(one.metadata.get("cell", "")) for one in shared}
    found = [Item(name, items[name], cells[name]) for name in order]
    return replace(views[0], items=found, n_left_out=len(shared) - len(found))


def _only(replies: Replies, chosen: set[str]) -> Replies:
    kept = [pair for pair in zip(replies.examples, replies.answers, strict=True) if pair[0].id in chosen]
    examples, answers = (tuple(column) for column in zip(*kept, strict=True))
    return replace(replies, examples=examples, answers=answers)


def _with_facts(strip: Strip, example: Example) -> Strip:
    read, right = example.metadata.get("reply.label"), example.metadata.get("reply.correct")
    facts = {"answer": "" if read is None else str(read), "gold": "" if example.label is None else str(example.label)}
    is_right = None if right is None or right != right else bool(right)
    return replace(strip, facts={name: word for name, word in facts.items() if word}, is_right=is_right)
