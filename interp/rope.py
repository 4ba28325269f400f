"""Rotary frequencies that depend on the length of the text: every row gets those of its own length, in any batch.

Two rope types of transformers choose frequencies by the longest text of a pass: `dynamic` (NTK scaling, which even
remembers the longest text of earlier passes) and `longrope` (short or long factors). Without correction, an activation
would depend on the other prompts of its batch and on earlier passes. The other types are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_KEPT = "diptych_rope"


def rope_types(module: nn.Module) -> tuple[str, ...]:
    """Rope types of a rotary module, one per kind of layer where it keeps several; empty for any other module."""
    kind = getattr(module, "rope_type", None)
    if isinstance(kind, Mapping):
        return tuple(map(str, kind.values()))
    return (kind,) if isinstance(kind, str) else ()


def depends_on_length(rope_type: str) -> bool:
    """Whether transformers recomputes frequencies of this type from the longest text of a pass."""
    return "dynamic" in rope_type or rope_type == "longrope"


def context_length(config: Any) -> int | None:
    """The longest input that a model was made for, in tokens; None if its configuration does not say.

    That is `max_position_embeddings`, but factor times as much under `dynamic`, whose configuration keeps the length
    before scaling there.
    """
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    settings = getattr(config, "rope_parameters", None) or {}
    parameters = [one for one in (settings, *settings.values()) if isinstance(one, Mapping)]
    factors = [float(one.get("factor") or 1.0) for one in parameters if "dynamic" in str(one.get("rope_type"))]
    return longest if longest is None or not factors else int(longest * max(1.0, *factors))


class RowRope:
    """Hooks on the rotary modules of a decoder that give each row the frequencies of its own text.

    The length of a row's text is, in this order: that given to `of_texts`; the largest position of its real tokens; the
    number of its real tokens so far, including cached ones. A model whose types are all fixed gets no hook.

    Attributes:
        types: rope types of the model that depend on the length of the text.
        varies: whether there are any.
        own_hooks: ids of the hooks on the decoder itself.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._modules = [m for m in decoder.modules() if any(map(depends_on_length, rope_types(m)))]
        self.types = frozenset(t for m in self._modules for t in rope_types(m) if depends_on_length(t))
        self.varies = bool(self._modules)
        self._texts: tuple[int, ...] | None = None
        self._lengths: Tensor | None = None
        self.own_hooks: frozenset[int] = frozenset()
        if self.varies:
            self.own_hooks = frozenset({decoder.register_forward_pre_hook(self._begin, with_kwargs=True).id})
            for module in self._modules:
                module.register_forward_hook(self._rotate, with_kwargs=True)

    @classmethod
    def on(cls, decoder: nn.Module) -> RowRope:
        """The one of this decoder, however many Layouts are made of it."""
        if _KEPT not in vars(decoder):
            object.__setattr__(decoder, _KEPT, cls(decoder))
        return vars(decoder)[_KEPT]

    @contextmanager
    def of_texts(self, lengths: Sequence[int] | None) -> Iterator[None]:
        """Passes inside have texts of these lengths, one per row, or prefixes of them; the outer block wins."""
        before = self._texts
        if before is None and lengths is not None:
            self._texts = tuple(lengths)
        try:
            yield
        finally:
            self._texts = before

    def _begin(self, decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        tokens = kwargs.get("input_ids", args[0] if args else None)
        tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
        assert isinstance(tokens, Tensor), "a decoder is called with tokens or embeddings"
        cache = kwargs.get("past_key_values")
        n_past = 0 if cache is None else int(cache.get_seq_length())
        self._lengths = self._own(tokens.shape[0], tokens.shape[1], n_past, kwargs)

    def _own(self, n_rows: int, n_new: int, n_past: int, kwargs: Mapping[str, Any]) -> Tensor:
        """Length of the text of each row of the pass."""
        if self._texts is not None:
            if len(self._texts) != n_rows:
                raise ValueError(f"rope: lengths of {len(self._texts)} texts were given for {n_rows} rows.")
            return torch.tensor(self._texts)
        given, at = kwargs.get("attention_mask"), kwargs.get("position_ids")
        mask = given if isinstance(given, Tensor) and given.ndim == 2 else None
        if isinstance(at, Tensor):
            rows = at.reshape(-1, *at.shape[-2:])[0].cpu().expand(n_rows, -1)
            real = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask[:, -n_new:].bool().cpu()
            return torch.where(real, rows, 0).amax(dim=1) + 1
        return torch.full((n_rows,), n_past + n_new) if mask is None else mask.sum(dim=1).cpu()

    def _rotate(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> tuple[Tensor, ...]:
        """cos and sin, recomputed for rows of one length together, as the module gives them for such a text alone."""
        if self._lengths is None:
            return output
        x, at, more = _arguments(args, kwargs)
        rows = at.expand(*at.shape[:-2], len(self._lengths), at.shape[-1])
        sizes = self._lengths.unique().tolist()
        if len(sizes) == 1:
            return _of_length(module, x, at, sizes[0], more)
        out: list[Tensor] = []
        for size in sizes:
            chosen = (self._lengths == size).nonzero()[:, 0].to(x.device)
            parts = _of_length(module, x, rows.index_select(-2, chosen.to(at.device)), size, more)
            out = out or [part.new_empty(len(self._lengths), *part.shape[1:]) for part in parts]
            for whole, part in zip(out, parts, strict=True):
                whole[chosen] = part
        return tuple(out)


def _arguments(args: tuple, kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(x, position_ids, the rest) of a call of a rotary module."""
    arguments = dict(zip(("x", "position_ids", "layer_type"), args, strict=False)) | dict(kwargs)
    return arguments.pop("x"), arguments.pop("position_ids"), arguments


def _of_length(module: Any, x: Tensor, at: Tensor, length: int, more: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """cos and sin of positions in a text of `length` tokens, as from a module that has seen no other text.

    The module reads the length from its largest position, so the last position of the text is appended as a
    column.
    """
    _forget(module)
    last = at.new_full((*at.shape[:-1], 1), length - 1)
    with torch.no_grad():
        parts = module.forward(x, torch.cat([at.clamp(max=length - 1), last], dim=-1), **more)
    return tuple(part[:, :-1] for part in parts)


def _forget(module: Any) -> None:
    """Restore the frequencies that the module had before its first text."""
    for name, original in list(module.named_buffers(recurse=False)):
        if name.endswith("original_inv_freq"):
            prefix = name.removesuffix("original_inv_freq")
            module.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
    for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
        setattr(module, name, module.original_max_seq_len)
