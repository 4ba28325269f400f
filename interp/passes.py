"""What one forward pass holds: which column is which token of which item, under padding and KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.positions import All, Answer, From, Generated, Positions, PromptTokens
from interp.prompt import Prompt

TokenLists = Sequence[Sequence[int]]
Where = Literal["all"] | Positions | TokenLists
_BY_PROMPT = (Answer, Generated, PromptTokens)


@dataclass(frozen=True)
class Pass:
    """One forward pass: `n_new` columns per item after `past` cached ones; real tokens are a run of columns.

    Token `t` of item `b` stands in column `first[b] + t`, counted over cached and new columns together, so a token has
    one number whatever the padding and however the prompt was cut into passes.

    Attributes:
        prompt_end: column after the last of the prompt, where what follows was generated; None: all of it is prompt;
            "unknown": a prompt in several passes, of which this may be the last or not.
        items: how many texts were given to `generate`, whose beams and samples make `batch` a multiple of it.
    """

    batch: int
    n_new: int
    past: int = 0
    lengths: tuple[int, ...] | None = None
    mask: Tensor | None = None
    prompt_end: int | Literal["unknown"] | None = None
    items: int | None = None

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(first column, column after the last) of the real tokens of every item, over cached and new columns."""
        width = self.past + self.n_new
        if self.lengths is not None:
            return tuple((0, length) for length in self.lengths)
        if self.mask is None:
            return ((0, width),) * self.batch
        first, length = (x.tolist() for x in (self.mask.int().argmax(dim=1), self.mask.int().sum(dim=1)))
        return tuple((a, a + n) for a, n in zip(first, length, strict=True))

    def tokens(self, where: Positions | TokenLists) -> list[tuple[int, ...]]:
        """Token numbers chosen in each item, counted from its first real token.

        Raises:
            ValueError: as many position lists as items were expected, the rule needs text, which a pass has not, or it
                needs the prompt's end and that is unknown.
        """
        if isinstance(where, Positions):
            return [self._of_rule(where, first, end) for first, end in self.spans]
        return [tuple(at) for at in self._by_row(where)]

    def _of_rule(self, where: Positions, first: int, end: int) -> tuple[int, ...]:
        run = self._run(where, first, end)
        return where.resolve(_without_text(end - first)) if run is None else tuple(range(*run))

    def _run(self, where: Positions, first: int, end: int) -> tuple[int, int] | None:
        """First token and the one after the last, where a rule chooses one run of tokens that grows with the text."""
        if self.prompt_end == "unknown" and isinstance(where, _BY_PROMPT):
            raise ValueError(
                f"positions {where.name!r}: the prompt came in several passes, and nothing says where it ends. Use "
                f"generate(), give the prompt in one pass, or choose token numbers, 'from:N' or 'all'."
            )
        n = end - first
        n_prompt = min(n, self.prompt_end - first) if isinstance(self.prompt_end, int) else n
        match where:
            case All():
                return 0, n
            case From(start):
                return min(start, n), n  # nothing as long as the text has not grown that far
            case PromptTokens():
                return 0, n_prompt
            case Answer():
                return n_prompt - 1, n_prompt
            case Generated():
                return n_prompt - 1, n
        return None

    def _by_row(self, where: Sequence[Any] | Tensor) -> list[Any]:
        """One entry per row of the pass; one per text is repeated for its beams, which stand next to each other."""
        if len(where) == self.batch:
            return list(where)
        if len(where) == self.items and self.batch % len(where) == 0:
            return [one for one in where for _ in range(self.batch // len(where))]
        raise ValueError(f"positions: expected one list per item of the batch ({self.batch}), got {len(where)}.")

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

    def is_chosen(self, where: Positions | TokenLists | Tensor) -> Tensor:
        """Mask [batch, n_new]: True on the chosen tokens that this pass computes.

        A tensor is a mask [item, column] over the columns of the prompt, padding included; what is generated after
        them is not chosen.
        """
        if isinstance(where, Tensor):
            return self._columns(where)
        if isinstance(where, Positions):
            runs = [self._run(where, first, end) for first, end in self.spans]
            if None not in runs:
                return self._between(
                    [(f + a, f + b) for (f, _), (a, b) in zip(self.spans, filter(None, runs), strict=True)]
                )
        flat, _ = self.rows(where, partial=True)
        return torch.zeros(self.batch * self.n_new, dtype=torch.bool).index_fill_(0, flat, True).view(self.batch, -1)

    def _between(self, runs: Sequence[tuple[int, int]]) -> Tensor:
        """Mask [batch, n_new] of the columns of this pass inside one run [start, stop) per row."""
        columns, bounds = torch.arange(self.past, self.past + self.n_new), torch.tensor(runs)
        return (columns >= bounds[:, :1]) & (columns < bounds[:, 1:])

    def _columns(self, mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool or mask.ndim != 2:
            raise ValueError(f"positions: expected a mask [item, column] of bool, got {mask.dtype} {list(mask.shape)}.")
        end = self.prompt_end if isinstance(self.prompt_end, int) else self.past + self.n_new
        if mask.shape[1] != end and self.prompt_end != "unknown":
            raise ValueError(f"positions: the mask has {mask.shape[1]} columns, the prompt {end}, padding included.")
        rows = torch.stack(self._by_row(mask)).cpu()
        wide = torch.zeros(self.batch, max(self.past + self.n_new, rows.shape[1]), dtype=torch.bool)
        wide[:, : rows.shape[1]] = rows
        for row, (first, stop) in zip(wide, self.spans, strict=True):
            row[:first], row[stop:] = False, False
        return wide[:, self.past : self.past + self.n_new]


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
