"""View of the attention pattern of one head."""

from __future__ import annotations

from collections.abc import Sequence

from interp.heads.ids import HeadId, check_head
from interp.hooks import record
from interp.model import Model
from interp.prompt import Prompt
from study.view.data import Track, Values
from study.view.reading import Prompts, items_of
from study.view.views import View

MOST_TOKENS = 600
"""Tokens of a text whose pattern is shown: a page holds the square of them."""


def of_pattern(model: Model, head: str | HeadId, prompts: Prompts, *, members: Sequence[str] = ()) -> View:
    """Where one head looks: choose a token, and the tokens that it attends to are coloured.

    A share is to be read next to 1 / (number of tokens so far), what attention without any preference gives, and next
    to the largest mean share of the other heads of its layer; the page shows both.

    Args:
        head: e.g. "L1.H0", layer and head counted from 0.
        prompts: of `interp.prompt.render_all` or `interp.replies`; a mapping gives each member its own.
        members: roles of the model, side by side; none: the model as it is.
    Raises:
        ValueError: no such head, no prompts, a prompt of more than 600 tokens.
    """
    which = head if isinstance(head, HeadId) else HeadId.parse(head)
    check_head(which, model.layout)

    def values(reader: Model, prompt: Prompt) -> list[Values]:
        if len(prompt.ids) > MOST_TOKENS:
            raise ValueError(
                f"item {prompt.example_id!r}: {len(prompt.ids)} tokens; a pattern is shown of at most {MOST_TOKENS}. "
                f"Leave it out, or shorten it."
            )
        site = f"pattern.{which.layer}"
        with record(reader, site) as acts:
            reader([list(prompt.ids)])
        layer = acts[site][0].float().cpu().numpy()  # [head, query, key]
        own, n_others = layer[which.head], len(layer) - 1
        rows = [own[k, : k + 1].tolist() for k in range(len(own))]
        uniform = [1 / (k + 1) for k in range(len(own))]
        others = (layer.sum(axis=0) - own) / n_others if n_others else own * float("nan")
        notes = [
            f"largest share of the other {n_others} heads of the layer, on average: {others[k, : k + 1].max():.2f}"
            if n_others
            else ""
            for k in range(len(own))
        ]
        return [Values(rows, uniform, notes=notes)]

    track = Track(
        f"attention of {which}", "share of the attention of the chosen token", 0.0, 1.0, "attended to",
        reference="without preference", is_pattern=True,
    )  # fmt: skip
    lead = "Choose a token: the tokens before it are coloured by the share of its attention that they get. By default the last token is chosen."  # noqa: E501
    return View(f"Attention of {which}", [track], items_of(model, prompts, members, values), lead)
