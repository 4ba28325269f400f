"""Keys and values of a batch that is being continued: room ahead for new tokens, and rows that leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from interp.evaluate.prefix import Ids, Prefix, can_share, read_rows, units_of
from interp.model import Model
from interp.passes import pad

_ROOM = 64  # columns ahead at first


class RoomyLayer(CacheLayerMixin):
    """Keys and values of one layer with room ahead, so that a new token copies one column instead of the whole text.

    Args:
        room: [batch, head, pos, d] keys and values; columns from `used` on are not written yet.
    """

    is_sliding = False

    def __init__(self, keys: Float[Tensor, "b h t d"], values: Float[Tensor, "b h t d_v"], used: int) -> None:
        super().__init__()
        self._all = (keys, values)
        self._used = used
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (whole[:, :, : self._used] for whole in self._all)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: a layer begins with the keys and values of the prompts."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the new columns, and return all keys and values so far (views)."""
        end = self._used + key_states.shape[-2]
        if end > self._all[0].shape[-2]:
            self._all = (_wider(self._all[0], end, self._used), _wider(self._all[1], end, self._used))
        for whole, new in zip(self._all, (key_states, value_states), strict=True):
            whole[:, :, self._used : end] = new
        self._used = end
        self._show()
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(length, offset) of the keys that the next `query_length` tokens attend to."""
        return self._used + query_length, 0

    def get_seq_length(self) -> int:
        """Columns so far."""
        return self._used

    def get_max_length(self) -> int:
        """-1: no limit, more room is made when it is needed."""
        return -1

    def move(self, sources: Int[Tensor, "hole"], holes: Int[Tensor, "hole"], n_rows: int) -> None:
        """Copy rows `sources` into `holes`, and keep the first `n_rows` of all."""
        for whole in self._all:
            whole[holes, :, : self._used] = whole[sources, :, : self._used]
        self._all = (self._all[0][:n_rows], self._all[1][:n_rows])
        self._show()


def _wider(whole: Tensor, end: int, used: int) -> Tensor:
    n, heads, room, width = whole.shape
    more = whole.new_empty(n, heads, max(end, room + room // 2), width)
    more[:, :, :used] = whole[:, :, :used]
    return more


def can_narrow(model: Model) -> bool:
    """Whether every layer of the model's cache keeps keys and values row by row, so that rows can leave the batch."""
    return _kinds(model) <= {DynamicLayer, DynamicSlidingWindowLayer}


def _kinds(model: Model) -> set[type]:
    return {type(layer) for layer in DynamicCache(config=model.layout.config).layers}


class Continued:
    """Rows of a batch that are being continued, token by token.

    Attributes:
        rows: place of each row in the batch as it began.
        final: final hidden state of the last token of each row [row, d_model].
    """

    def __init__(self, model: Model, cache: Cache, mask: Int[Tensor, "row pos"], final: Float[Tensor, "row d"]) -> None:
        self.model, self.cache, self.final = model, cache, final
        self.rows = list(range(len(mask)))
        self._mask = mask
        self._lengths = mask.sum(dim=1)

    def drop(self, ended: Sequence[int]) -> Int[Tensor, "kept"]:
        """Remove the rows at these places; the last rows take theirs. Returns the old place of each row that stays."""
        n = len(self.rows) - len(ended)
        holes = [k for k in ended if k < n]
        sources = [k for k in range(n, len(self.rows)) if k not in set(ended)]
        places = list(range(n))
        for hole, source in zip(holes, sources, strict=True):
            places[hole] = source
        device = self._mask.device
        kept, into, source = (torch.tensor(part, dtype=torch.long, device=device) for part in (places, holes, sources))
        layers: list[Any] = self.cache.layers
        for layer in layers:
            if isinstance(layer, RoomyLayer):
                layer.move(source, into, n)
            else:
                layer.batch_select_indices(kept)
        self.rows = [self.rows[k] for k in places]
        self._mask, self._lengths = self._mask[kept], self._lengths[kept]
        return kept

    def extend(self, tokens: Int[Tensor, "row"]) -> None:
        """Append one token to each row, and read it."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        decoder: Any = self.model.decoder
        out = decoder(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._lengths[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self._lengths = self._lengths + 1
        self.final = out.last_hidden_state[:, -1]


def read_prompts(model: Model, rows: Sequence[Ids], new_tokens: int) -> Continued:
    """The rows of token ids as a left-padded batch that has been read.

    What rows have in common is read once where every layer keeps all keys and values (`prefix.can_share`).
    """
    if not (can_share(model) and _kinds(model) == {DynamicLayer} and min(map(len, rows)) > 1):
        return _read_padded(model, rows)
    width = max(map(len, rows))
    aligned = _Aligned(len(rows), width, width + min(new_tokens, _ROOM))
    final = read_rows(model, rows, units_of(rows), aligned.take)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    is_token = torch.arange(width, device=model.device) >= width - lengths[:, None]
    return Continued(model, Cache(layers=list(aligned.layers())), is_token.long(), final)


def _read_padded(model: Model, rows: Sequence[Ids]) -> Continued:
    cache = DynamicCache(config=model.layout.config)
    batch = pad(rows, pad_id=model.pad_id, side="left").to(model.device)
    decoder: Any = model.decoder
    out = decoder(**batch.kwargs, past_key_values=cache, use_cache=True)
    assert batch.attention_mask is not None
    return Continued(model, cache, batch.attention_mask, out.last_hidden_state[:, -1])


class _Aligned:
    """Keys and values of rows that were read in groups, gathered so that all rows end in the same column."""

    def __init__(self, n_rows: int, width: int, room: int) -> None:
        self.n_rows, self.width, self.room = n_rows, width, room
        self.wholes: list[tuple[Tensor, Tensor]] = []

    def take(self, state: Prefix, lines: Sequence[tuple[int, int]]) -> None:
        """Copy the real columns of each (row, line of `state`)."""
        device = state.mask.device
        rows, at = (torch.tensor(part, device=device) for part in zip(*lines, strict=True))
        real_last = state.mask.argsort(dim=1, stable=True)  # padding first, then the tokens in their order
        columns = real_last[at][:, -self.width :]
        start = self.width - columns.shape[1]
        parts = [(layer.keys, layer.values) for layer in state.cache.layers]
        if not self.wholes:
            shape = lambda part: (self.n_rows, part.shape[1], self.room, part.shape[3])  # noqa: E731
            self.wholes = [(k.new_empty(shape(k)), v.new_empty(shape(v))) for k, v in parts]
        for whole, part in zip(self.wholes, parts, strict=True):
            for room, read in zip(whole, part, strict=True):
                room[rows, :, :start] = 0  # masked, but 0 times what memory happens to hold may be NaN
                room[rows, :, start : self.width] = read.transpose(1, 2)[at[:, None], columns].transpose(1, 2)

    def layers(self) -> list[RoomyLayer]:
        """One layer each, filled up to the end of the prompts."""
        return [RoomyLayer(keys, values, self.width) for keys, values in self.wholes]
