"""One pass in which every row joins at its layer: the library's own blocks, on a batch that grows with the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.family import Layer, Layout, Tap
from interp.hooks import place
from interp.model import StopForward
from interp.site import Site
from interp.sweep.attention import rows_attention_on
from interp.sweep.clean import CleanRun, RowStates, cache_name
from interp.sweep.intervention import Row, Slotted, apply_ops


@torch.no_grad()
def run_rows(
    layout: Layout, clean: CleanRun, rows: Sequence[Row], *, read: Sequence[int]
) -> Float[Tensor, "row_and_clean read d_model"]:
    """The residual stream before the final norm at the tokens `read`, of the unedited row (first) and of every row.

    A row with its first change at layer l equals the unedited row below l, so it is not computed there: the batch has
    1 + |rows that have joined| items. A row whose first change is after the attention of its layer joins between
    attention and output projection. In the last layer everything after attention is computed at `read` only.

    Args:
        rows: ascending by `join`.
        read: tokens at or after `clean.start`.
    """
    assert all(a.join <= b.join for a, b in pairwise(rows)), "rows must be sorted by join"
    # Below the first join there is only the unedited row, whose residual stream the clean pass has stored. The last
    # block always runs: the clean pass stopped inside it.
    first = min(rows[0].join[0] if rows else layout.n_layers, layout.n_layers - 1)
    climb = _Climb(layout, clean, rows, tuple(read))
    hidden = clean.resid[first]
    with rows_attention_on(layout):
        for layer in layout.layers[first:]:
            hidden = climb.block(layer, climb.enter(hidden, layer.index))
    return climb.enter(hidden, layout.n_layers)  # changes of the last resid_post, and rows without any change


class _Climb:
    """State of one chunk of rows: which rows join where, their changes, and which columns are computed."""

    def __init__(self, layout: Layout, clean: CleanRun, rows: Sequence[Row], read: tuple[int, ...]) -> None:
        self.layout, self.clean, self.read = layout, clean, read
        self.column = {token: token - clean.start for token in range(clean.start, clean.n_tokens)}
        self.joins: dict[tuple[int, int], int] = {}
        self.ops: dict[tuple[str, int], list[Slotted]] = {}
        for slot, row in enumerate(rows, start=1):  # index 0 of the batch is the unedited row
            self.joins[row.join] = self.joins.get(row.join, 0) + 1
            for op in row.ops:
                self.ops.setdefault((op.site.kind, op.site.layer or 0), []).append((slot, op))

    def change(self, acts: Tensor, kind: str, layer: int) -> Tensor:
        """Write the changes of this site into `acts`, in place, and return it; `acts` must be our own copy."""
        apply_ops(acts, self.ops.get((kind, layer), ()), column=self.column, n_tokens=self.clean.n_tokens)
        return acts

    def grow(self, hidden: Tensor, stage: tuple[int, int]) -> Tensor:
        """Append the rows that join at this stage, as copies of the unedited row; the result is always a new tensor."""
        # rows are sorted by join, so appending keeps every row at its index
        return torch.cat([hidden, hidden[:1].expand(self.joins.get(stage, 0), *hidden.shape[1:])])

    def enter(self, hidden: Tensor, layer: int) -> Tensor:
        """Input of block `layer` (or of the final norm), with the changes of `resid_post` below and of `resid_pre`."""
        hidden = self.grow(hidden, (layer, 0))
        if layer == 0 and ("embed", 0) in self.ops:
            hidden = self._changed_embedding(hidden)
        if layer:  # resid_post of the block below and resid_pre of this one are the same tensor, changed in this order
            self.change(hidden, "resid_post", layer - 1)
        return self.change(hidden, "resid_pre", layer)

    def _changed_embedding(self, hidden: Tensor) -> Tensor:
        """The first residual stream under changed embeddings; GPT-2 adds position embeddings in between."""
        embed = self.clean.embed
        # the sum below would round: take the exact way where nothing is added between embedding and block 0
        if torch.equal(embed, self.clean.resid[0]):
            return self.change(hidden, "embed", 0)
        return hidden - embed + self.change(embed.repeat(len(hidden), 1, 1), "embed", 0)

    def block(self, layer: Layer, hidden: Tensor) -> Tensor:
        """Run one block on all rows; its attention gets only the rows that joined before it."""
        # The block is the library's own: residual connections and norms need all rows, so the batch grows first, and
        # hooks cut the attention's input to the rows that attend and grow its output again.
        n_attending = len(hidden)
        hidden = self.grow(hidden, (layer.index, 1))
        narrow = layer.index == self.layout.n_layers - 1 and len(self.read) < hidden.shape[1]
        arguments = dict(self.clean.arguments[layer.index])
        if layer.kind == "linear_attention":
            states = self.clean.states[layer.index]
            arguments[cache_name(arguments)] = None if states is None else RowStates(states, n_attending)
        elif self.clean.prefixes[layer.index] is not None:
            arguments["rows_prefix"] = self.clean.prefixes[layer.index]
        with ExitStack() as stack:
            if narrow:
                # Attention needs keys and values at all columns, the rest of the last block only the columns that are
                # read. So compute the attention's input at all columns first, then run the block on the few.
                attended = self._attention_input(layer, hidden[:n_attending], arguments)
                columns = [self.column[token] for token in self.read]
                hidden = hidden[:, columns]
                self._hook(stack, Tap(layer.attn, "in"), lambda x: attended)
            else:
                columns = None
                self._hook(stack, Tap(layer.attn, "in"), lambda x: x[:n_attending])
            for tap, see in self._hooks(layer, columns):
                self._hook(stack, tap, see)
            out = layer.block(hidden, **arguments)
        return out[0] if isinstance(out, tuple) else out

    def _hook(self, stack: ExitStack, tap: Tap, see: Callable[[Tensor], Tensor]) -> None:
        stack.callback(place(tap, see, last=False).remove)

    def _attention_input(self, layer: Layer, hidden: Tensor, arguments: dict[str, Any]) -> Tensor:
        """Input of the attention module at all columns; StopForward leaves the block before attention runs."""
        inputs: list[Tensor] = []

        def see(x: Tensor) -> Tensor:
            inputs.append(x)
            raise StopForward

        with ExitStack() as stack:
            self._hook(stack, Tap(layer.attn, "in"), see)
            with suppress(StopForward):
                layer.block(hidden, **arguments)
        return inputs[0]

    def _hooks(self, layer: Layer, columns: list[int] | None) -> list[tuple[Tap, Callable[[Tensor], Tensor]]]:
        """Hooks for the changes inside one block, and for the growth of the batch before the output projection."""
        index, hooks = layer.index, []
        for kind in ("q", "k", "v"):
            if (kind, index) in self.ops:
                hooks.append((self._tap(kind, index), self._changer(kind, index)))
        hooks.append((Tap(layer.out_proj, "in"), self._after_attention(layer, columns)))
        for kind in ("attn_out", "mlp_out"):
            if (kind, index) in self.ops:
                hooks.append((self._tap(kind, index), self._changer(kind, index)))
        if ("resid_mid", index) in self.ops:
            hooks.extend(self._mid(layer))
        return hooks

    def _tap(self, kind: str, layer: int) -> Tap:
        return self.layout.tap(Site(kind, layer))

    def _changer(self, kind: str, layer: int) -> Callable[[Tensor], Tensor]:
        view = self._tap(kind, layer).view

        def see(whole: Tensor) -> Tensor:
            new = whole.clone(memory_format=torch.contiguous_format)  # views of heads need contiguous memory
            self.change(view.read(new), kind, layer)  # `read` is a view: the change is written into `new`
            return new

        return see

    def _after_attention(self, layer: Layer, columns: list[int] | None) -> Callable[[Tensor], Tensor]:
        view = self._tap("z", layer.index).view

        def see(whole: Tensor) -> Tensor:
            if columns is not None:
                whole = whole[:, columns]
                # from here to the end of the pass a token's column is its index among those read
                self.column = {token: place for place, token in enumerate(self.read)}
            new = self.grow(whole, (layer.index, 1))
            self.change(view.read(new), "z", layer.index)
            return new

        return see

    def _mid(self, layer: Layer) -> list[tuple[Tap, Callable[[Tensor], Tensor]]]:
        """A changed `resid_mid` is the input of the MLP and is passed on by the block: output = changed + MLP branch.

        The library's block adds the MLP branch to its own, unchanged residual stream; the last hook replaces that sum.
        """
        changed: list[Tensor] = []

        def change(whole: Tensor) -> Tensor:
            changed.append(self.change(whole.clone(), "resid_mid", layer.index))
            return changed[0]

        def add(branch: Tensor) -> Tensor:
            changed[0] = changed[0] + branch
            return branch

        return [
            (self._tap("resid_mid", layer.index), change),
            (self.layout.branch(layer, "mlp"), add),
            (Tap(layer.block, "out"), lambda whole: changed.pop()),
        ]
