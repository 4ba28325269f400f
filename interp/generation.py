"""Where the prompt ends while a model generates: with and without a KV cache, under beams, samples and padding."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.model import Model
from interp.passes import Pass


@dataclass(frozen=True)
class Given:
    """What one call of `generate` was given: texts, columns of the prompt, and which of them are real."""

    items: int
    width: int
    mask: Tensor | None


class PromptEnd:
    """Completes each Pass with the end of the prompt, for the length of a `watch` block.

    Inside `generate` the end is the width of its input: without a cache every step is a pass over the whole text, which
    no pass by itself can be told from a new prompt. Outside, a pass without past is a prompt, and passes of one token
    that go on where the last one ended are generated.
    """

    def __init__(self) -> None:
        self._given: Given | None = None
        self._end: int | None = None
        self._width = -1

    def complete(self, what: Pass) -> Pass:
        """The pass with `prompt_end` and `items`, and with the mask that `generate` was given if it has none itself."""
        if self._given is not None:
            given = self._given
            mask = what.mask
            if mask is None and given.mask is not None and what.lengths is None:
                mask = _lengthened(given.mask, what)
            return replace(what, mask=mask, prompt_end=given.width, items=given.items)
        goes_on = what.past > 0 and what.past == self._width
        self._width = what.past + what.n_new
        if goes_on and what.n_new > 1:
            return replace(what, prompt_end="unknown")
        if not goes_on:
            self._end = None if what.past == 0 and what.lengths is not None else self._width
        return replace(what, prompt_end=self._end)

    @contextmanager
    def watch(self, model: Model) -> Iterator[None]:
        """Let `generate` of the model say what it was given. Blocks may be nested."""
        module: Any = model.causal_lm
        if not callable(getattr(module, "generate", None)):
            yield
            return
        own, inner = vars(module).get("generate"), module.generate

        @functools.wraps(inner)
        def generate(*args: Any, **kwargs: Any) -> Any:
            before, self._given = self._given, _given(args, kwargs)
            try:
                return inner(*args, **kwargs)
            finally:
                self._given = before

        module.generate = generate
        try:
            yield
        finally:
            if own is None:
                del module.generate
            else:
                module.generate = own


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    found = [args[0] if args else None, *(kwargs.get(key) for key in ("inputs", "input_ids", "inputs_embeds"))]
    tokens = next((one for one in found if isinstance(one, Tensor)), None)
    if tokens is None:
        raise ValueError(
            "generate: expected a prompt (input_ids or inputs_embeds) while activations are edited or read."
        )
    mask = kwargs.get("attention_mask")
    return Given(tokens.shape[0], tokens.shape[1], mask if isinstance(mask, Tensor) and mask.ndim == 2 else None)


def _lengthened(mask: Tensor, what: Pass) -> Tensor:
    """The prompt's mask for all columns up to this pass, one row per beam."""
    rows = mask.repeat_interleave(what.batch // mask.shape[0], dim=0)
    n_more = what.past + what.n_new - mask.shape[1]
    return (
        rows[:, : what.past + what.n_new] if n_more <= 0 else torch.cat([rows, rows.new_ones(len(rows), n_more)], dim=1)
    )
