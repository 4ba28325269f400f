"""What one forward pass holds: which column is which token of which item, under padding and KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.positions import Positions
from interp.prompt import Prompt

TokenLists = Sequence[Sequence[int]]
Where = Literal["all"] | Positions | TokenLists


@dataclass(frozen=True)
class Pass:
    """One forward pass: `n_new` columns per item after `past` cached ones; real tokens are a run of columns.

    Token `t` of item `b` stands in column `first[b] + t`, counted over cached and new columns together, so a token has
    one number whatever the padding and however the prompt was cut into passes.
    """

    batch: int
    n_new: int
    past: int = 0
    lengths: tuple[int, ...] | None = None
    mask: Tensor | None = None

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(first column, column after the last) of the real tokens of every item, over cached and new columns."""
        width = self.past + self.n_new
        if self.lengths is not None:
            return tuple((0, length) for length in self.lengths)
        if self.mask is None:
            return ((0, width),) * self.batch
        first = self.mask.int().argmax(dim=1)
        return tuple((int(a), int(a + n)) for a, n in zip(first, self.mask.int().sum(dim=1), strict=True))

    def tokens(self, where: Positions | TokenLists) -> list[tuple[int, ...]]:
        """Token numbers chosen in each item, counted from its first real token.

        Raises:
            ValueError: as many position lists as items were expected, or the rule needs text, which a pass has not.
        """
        if isinstance(where, Positions):
            return [where.resolve(_without_text(end - first)) for first, end in self.spans]
        if len(where) != self.batch:
            raise ValueError(f"positions: expected one list per item of the batch ({self.batch}), got {len(where)}.")
        return [tuple(at) for at in where]

    def rows(
        self, where: Positions | TokenLists, *, partial: bool = False
    ) -> tuple[Int[Tensor, "row"], list[tuple[int, int]]]:
        """Flat row numbers (item * n_new + column) of the chosen tokens in this pass, and (item, token) of each.

        Args:
            partial: skip tokens of other passes (a cached prefix, tokens to come) instead of raising. A rule such as
                `All()` speaks of the whole text, so with a KV cache it always means "those of them in this pass".
        Raises:
            ValueError: a token that was asked for by number and that this pass does not compute.
        """
        partial = partial or (self.past > 0 and isinstance(where, Positions))
        flat, labels = [], []
        for item, tokens in enumerate(self.tokens(where)):
            first, end = self.spans[item]
            for token in tokens:
                column = first + token - self.past
                if 0 <= column < self.n_new and 0 <= token < end - first:
                    flat.append(item * self.n_new + column)
                    labels.append((item, token))
                elif not partial:
                    have = f"{max(self.past - first, 0)}-{end - first - 1}"
                    raise ValueError(f"position {token} of item {item}: this pass holds its tokens {have}.")
        return torch.tensor(flat, dtype=torch.long), labels

    def is_chosen(self, where: Positions | TokenLists) -> Tensor:
        """Mask [batch, n_new]: True on the chosen tokens that this pass computes."""
        flat, _ = self.rows(where, partial=True)
        return torch.zeros(self.batch * self.n_new, dtype=torch.bool).index_fill_(0, flat, True).view(self.batch, -1)


def _without_text(n_tokens: int) -> Prompt:
    """A prompt of which only the length is known; a rule that needs text finds no span in it and says so."""
    return Prompt("(batch)", text="", ids=(0,) * n_tokens, offsets=((0, 0),) * n_tokens, spans={})


@dataclass(frozen=True)
class Batch:
    """Padded input of one forward pass; `kwargs` is what a Hugging Face model is called with."""

    input_ids: Int[Tensor, "batch pos"]
    lengths: tuple[int, ...] | None = None
    attention_mask: Int[Tensor, "batch pos"] | None = None
    position_ids: Int[Tensor, "batch pos"] | None = None

    @property
    def kwargs(self) -> dict[str, Tensor]:
        given = {k: getattr(self, k) for k in ("input_ids", "attention_mask", "position_ids")}
        return {k: v for k, v in given.items() if v is not None}

    def to(self, device: torch.device) -> Batch:
        moved = {k: v.to(device, non_blocking=True) for k, v in self.kwargs.items()}
        return Batch(lengths=self.lengths, **moved)


def pad(token_lists: TokenLists, *, pad_id: int = 0, side: Literal["left", "right"] = "right") -> Batch:
    """One rectangular batch of unequal token lists.

    Right padding needs no attention mask: attention is causal, so no real token sees what stands after it. Left padding
    (for generation) always comes with a mask and with position_ids = cumsum(mask) - 1, since a bare forward would
    otherwise number the pads, which costs accuracy in half precision.

    Raises:
        ValueError: no lists, or an empty one.
    """
    lengths = tuple(len(ids) for ids in token_lists)
    if not lengths or min(lengths) == 0:
        raise ValueError(f"expected token lists with at least one token each; got lengths {list(lengths)}.")
    width = max(lengths)
    ids = torch.full((len(lengths), width), pad_id, dtype=torch.long)
    for row, tokens in zip(ids, token_lists, strict=True):
        row[slice(len(tokens)) if side == "right" else slice(width - len(tokens), width)] = torch.as_tensor(tokens)
    if side == "right":
        return Batch(ids, lengths)
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
    return Batch(ids, None, mask, positions_from_mask(mask))


def positions_from_mask(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """position_ids = cumsum(mask) - 1, and 0 on the pads before the first token."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
