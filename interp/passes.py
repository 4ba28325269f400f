"""Contents of one forward pass: which column is which token of which item, under padding, KV cache and `generate`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.positions import All, Answer, From, Generated, Positions, PromptTokens
from interp.prompt import Prompt

TokenLists = Sequence[Sequence[int]]
Where = Literal["all"] | Positions | TokenLists
_BY_PROMPT = (Answer, Generated, PromptTokens)


@dataclass(frozen=True)
class Pass:
    """One forward pass: `n_new` columns per item after `past` cached ones; real tokens are contiguous columns.

    Token `t` of item `b` is in column `first[b] + t`, counted over cached and new columns together. So a token has one
    number under any padding, and however the prompt is cut into passes.

    Attributes:
        prompt_end: column after the last one of the prompt, if the rest was generated; None: all of it is prompt;
            "unknown": a prompt in several passes, of which this may or may not be the last.
        items: number of texts passed to `generate`; its beams and samples make `batch` a multiple of it.
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
        # argmax of a 0/1 mask is its first 1; pads may be on either side, but real tokens have no gaps
        first, length = (x.tolist() for x in (self.mask.int().argmax(dim=1), self.mask.int().sum(dim=1)))
        return tuple((a, a + n) for a, n in zip(first, length, strict=True))

    def tokens(self, where: Positions | TokenLists) -> list[tuple[int, ...]]:
        """Chosen token numbers of each item, counted from its first real token.

        Raises:
            ValueError: the number of position lists is not that of the items, the rule needs text (a pass has none), or
                it needs the prompt's end, which is unknown.
        """
        if isinstance(where, Positions):
            return [self._of_rule(where, first, end) for first, end in self.spans]
        return [tuple(at) for at in self._by_row(where)]

    def _of_rule(self, where: Positions, first: int, end: int) -> tuple[int, ...]:
        run = self._run(where, first, end)
        return where.resolve(_without_text(end - first)) if run is None else tuple(range(*run))

    def _run(self, where: Positions, first: int, end: int) -> tuple[int, int] | None:
        """[first, end) tokens of a rule that chooses one run of tokens, which may grow with the text; else None."""
        if self.prompt_end == "unknown" and isinstance(where, _BY_PROMPT):
            raise ValueError(
                f"positions {where.name!r}: the prompt came in several passes, so its end is unknown. Use "
                f"generate(), give the prompt in one pass, or choose token numbers, 'from:N' or 'all'."
            )
        n = end - first
        n_prompt = min(n, self.prompt_end - first) if isinstance(self.prompt_end, int) else n
        match where:
            case All(span=None):
                return 0, n
            case From(start):
                return min(start, n), n  # empty until the text has grown that far
            case PromptTokens():
                return 0, n_prompt
            case Answer():
                return n_prompt - 1, n_prompt
            case Generated():  # from the last prompt token on: its output is the first generated token
                return n_prompt - 1, n
        return None

    def _by_row(self, where: Sequence[Any] | Tensor) -> list[Any]:
        """One entry per row of the pass; an entry per text is repeated for its beams or samples, which are adjacent."""
        if len(where) == self.batch:
            return list(where)
        if len(where) == self.items and self.batch % len(where) == 0:
            return [entry for entry in where for _ in range(self.batch // len(where))]
        raise ValueError(f"positions: expected one list per item of the batch ({self.batch}), got {len(where)}.")

    def rows(
        self, where: Positions | TokenLists, *, partial: bool = False
    ) -> tuple[Int[Tensor, "row"], list[tuple[int, int]]]:
        """Flat row numbers (item * n_new + column) of the chosen tokens in this pass, and (item, token) of each.

        Args:
            partial: skip tokens of other passes (a cached prefix, later tokens) instead of raising. A rule such as
                `All()` refers to the whole text, so with a KV cache it always means its tokens in this pass.
        Raises:
            ValueError: a token given by number that this pass does not compute.
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
                    raise ValueError(
                        f"positions: item {item}: expected tokens {have} (those of this pass), got {token}."
                    )
        return torch.tensor(flat, dtype=torch.long), labels

    def is_chosen(self, where: Positions | TokenLists | Tensor) -> Tensor:
        """Mask [batch, n_new]: True on the chosen tokens that this pass computes.

        A tensor is a mask [item, column] over the columns of the prompt, padding included; generated tokens are not
        chosen.
        """
        if isinstance(where, Tensor):
            return self._columns(where)
        if isinstance(where, Positions):
            runs = [self._run(where, first, end) for first, end in self.spans]
            if None not in runs:  # without a loop over tokens: this runs at every decoding step
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
            raise ValueError(f"positions: expected a mask of {end} columns (padding included), got {mask.shape[1]}.")
        rows = torch.stack(self._by_row(mask)).cpu()
        # columns after the prompt stay False; a prompt in several passes may be wider than what has been computed
        wide = torch.zeros(self.batch, max(self.past + self.n_new, rows.shape[1]), dtype=torch.bool)
        wide[:, : rows.shape[1]] = rows
        for row, (first, stop) in zip(wide, self.spans, strict=True):
            row[:first], row[stop:] = False, False  # never change a pad
        return wide[:, self.past : self.past + self.n_new]


def _without_text(n_tokens: int) -> Prompt:
    """A prompt of which only the length is known; a rule that needs text raises its own error, since no span exists."""
    return Prompt("(batch)", text="", ids=(0,) * n_tokens, offsets=((0, 0),) * n_tokens, spans={})


@dataclass(frozen=True)
class Batch:
    """Padded input of one forward pass; `kwargs` are the arguments of a Hugging Face model."""

    input_ids: Int[Tensor, "batch pos"]
    lengths: tuple[int, ...] | None = None
    attention_mask: Int[Tensor, "batch pos"] | None = None
    position_ids: Int[Tensor, "batch pos"] | None = None

    @property
    def kwargs(self) -> dict[str, Tensor]:
        tensors = {k: getattr(self, k) for k in ("input_ids", "attention_mask", "position_ids")}
        return {k: v for k, v in tensors.items() if v is not None}

    def to(self, device: torch.device) -> Batch:
        moved = {k: v.to(device, non_blocking=True) for k, v in self.kwargs.items()}
        return Batch(lengths=self.lengths, **moved)


def pad(token_lists: TokenLists, *, pad_id: int = 0, side: Literal["left", "right"] = "right") -> Batch:
    """One rectangular batch of unequal token lists.

    Right padding needs no attention mask: attention is causal, so no real token sees the pads after it. Left padding
    (for generation) always has a mask and position_ids = cumsum(mask) - 1; a plain forward would count the pads as
    positions, which costs accuracy in half precision.

    Raises:
        ValueError: no lists, or an empty list.
    """
    lengths = tuple(len(ids) for ids in token_lists)
    if not lengths or min(lengths) == 0:
        raise ValueError(f"token lists: expected at least one token each, got lengths {list(lengths)}.")
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


@dataclass(frozen=True)
class GivenPrompts:
    """Input of one call of `generate`: number of texts, columns of the prompt, and the mask of real tokens."""

    items: int
    width: int
    mask: Tensor | None


class PromptEnd:
    """Adds the end of the prompt to each Pass, inside a `watch` block.

    Inside `generate` the end is the width of its input. (Without a cache every decoding step is a pass over the whole
    text, which looks like a new, longer prompt.) Outside of `generate`, a pass without past is a prompt, and a pass of
    one token that continues where the last one ended is generated.
    """

    def __init__(self) -> None:
        self._prompts: GivenPrompts | None = None
        self._end: int | None = None
        self._width = -1  # columns after the last pass; the next one continues it if its past is equal

    def complete(self, what: Pass) -> Pass:
        """The pass with `prompt_end` and `items`, and with the mask of `generate` if it has none itself."""
        if self._prompts is not None:
            prompts, mask = self._prompts, what.mask
            # the decoder may get no mask, or a prepared 4-d one that `hooks` cannot read
            if mask is None and prompts.mask is not None and what.lengths is None:
                mask = _lengthened(prompts.mask, what)
            return replace(what, mask=mask, prompt_end=prompts.width, items=prompts.items)
        continues = what.past > 0 and what.past == self._width
        self._width = what.past + what.n_new
        if continues and what.n_new > 1:  # another piece of the prompt, or several drafted tokens
            return replace(what, prompt_end="unknown")
        if not continues:
            # right-padded texts end at different columns; each item's own length is the end of its prompt
            self._end = None if what.past == 0 and what.lengths is not None else self._width
        return replace(what, prompt_end=self._end)

    @contextmanager
    def watch(self, causal_lm: nn.Module) -> Iterator[None]:
        """Record the input of every call of the model's `generate` inside the block. Blocks may be nested."""

        def call(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            before, self._prompts = self._prompts, given_prompts(args, kwargs)
            try:
                return inner(*args, **kwargs)
            finally:
                self._prompts = before

        with around_generate(causal_lm, call):
            yield


@contextmanager
def around_generate(
    causal_lm: nn.Module, call: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
) -> Iterator[None]:
    """Every `generate(*args, **kwargs)` of the model inside the block becomes `call(generate, args, kwargs)`.

    Blocks may be nested; a module without `generate` is left alone.
    """
    module: Any = causal_lm
    if not callable(getattr(module, "generate", None)):
        yield
        return
    # `own` is None unless an outer block has already put a wrapper on the instance
    own, inner = vars(module).get("generate"), module.generate

    @functools.wraps(inner)
    def generate(*args: Any, **kwargs: Any) -> Any:
        return call(inner, args, kwargs)

    module.generate = generate
    try:
        yield
    finally:
        if own is None:
            del module.generate
        else:
            module.generate = own


def given_prompts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> GivenPrompts:
    """What a call of `generate` with these arguments continues.

    Raises:
        ValueError: neither token ids nor embeddings.
    """
    inputs = [args[0] if args else None, *(kwargs.get(key) for key in ("inputs", "input_ids", "inputs_embeds"))]
    tokens = next((value for value in inputs if isinstance(value, Tensor)), None)
    if tokens is None:
        raise ValueError(
            "generate: expected a prompt (input_ids or inputs_embeds) while activations are edited or read."
        )
    mask = kwargs.get("attention_mask")
    return GivenPrompts(tokens.shape[0], tokens.shape[1], mask if isinstance(mask, Tensor) and mask.ndim == 2 else None)


def _lengthened(mask: Tensor, what: Pass) -> Tensor:
    """The prompt's mask, extended by the generated columns up to this pass, with a row per beam."""
    rows = mask.repeat_interleave(what.batch // mask.shape[0], dim=0)
    n_more = what.past + what.n_new - mask.shape[1]
    return (
        rows[:, : what.past + what.n_new] if n_more <= 0 else torch.cat([rows, rows.new_ones(len(rows), n_more)], dim=1)
    )
