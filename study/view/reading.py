"""Prompts and replies as the models of a view read them: token by token, member by member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from interp.model import Model
from interp.prompt import Prompt
from interp.replies import token_texts
from study.view.data import Item, Strip, Values

Prompts = Sequence[Prompt] | Mapping[str, Sequence[Prompt]]
"""The same prompts for every member, or member -> its own (its replies to the items)."""


def items_of(
    model: Model, prompts: Prompts, members: Sequence[str], values: Callable[[Model, Prompt], Sequence[Values]]
) -> list[Item]:
    """Items with a strip for each member, whose weights are active while its values are read.

    Args:
        members: roles of `model`; none: the model as it is.
        values: of one prompt, one for each track.
    Raises:
        ValueError: no prompts, or none for a member.
    """
    roles = tuple(members) or (model.name,)
    of = dict(prompts) if isinstance(prompts, Mapping) else dict.fromkeys(roles, prompts)
    if missing := [role for role in roles if not of.get(role)]:
        raise ValueError(f"no prompts for {', '.join(missing)}. Give at least one for each member.")
    strips: dict[str, list[Strip]] = {}
    for role in roles:
        with model.member(role) if members else nullcontext():
            for prompt in of[role]:
                strips.setdefault(prompt.example_id, []).append(
                    Strip(role, token_texts(prompt.text, prompt.offsets), values(model, prompt), spans=_spans(prompt))
                )
    return [Item(name, found) for name, found in strips.items()]


def _spans(prompt: Prompt) -> dict[int, str]:
    """Number of the last token of each span -> its name."""
    out: dict[int, str] = {}
    for name, (begin, end) in prompt.spans.items():
        inside = [k for k, (a, b) in enumerate(prompt.offsets) if a < end and b > begin and a < b]
        if inside:
            out[inside[-1]] = name
    return out
