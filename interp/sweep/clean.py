"""The clean pass of a sweep: keys and values of the prefix, and the residual stream of the suffix at every layer."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.family import Layer, Layout
from interp.model import StopForward
from interp.sweep.attention import Prefix

_CACHE_NAMES = ("past_key_values", "layer_past")


@dataclass(frozen=True)
class CleanRun:
    """Results of the clean pass, shared by all rows.

    Attributes:
        start: number of prefix tokens; rows compute the tokens from `start` on.
        resid: residual stream [1, new, d_model] entering each layer.
        embed: output of the embedding [1, new, d_model].
        prefixes: keys and values of the prefix in attention layers; None in recurrent layers, or if start is 0.
        states: convolution and recurrent state at `start` in recurrent layers.
        arguments: arguments of each block's call, cut to the suffix.
    """

    start: int
    n_tokens: int
    resid: tuple[Float[Tensor, "1 new d_model"], ...]
    embed: Float[Tensor, "1 new d_model"]
    prefixes: tuple[Prefix | None, ...]
    states: tuple[tuple[Tensor, Tensor] | None, ...]
    arguments: tuple[dict[str, Any], ...]


@torch.no_grad()
def clean_run(layout: Layout, ids: Int[Tensor, "1 pos"], *, start: int) -> CleanRun:
    """Run the prompt once, up to the attention of the last layer; rows share nothing above it.

    A hybrid model runs in two pieces, since the state of a recurrent layer is needed at `start`, not at the end.
    """
    cache = _keep_all(layout)
    n_new = ids.shape[1] - start
    done = start if layout.is_hybrid else 0
    with layout.rope.of_texts([ids.shape[1]]):
        if done:
            _run(layout, ids[:, :done], cache, _Watch(layout, n_new))
        states = _states(layout, cache) if done else (None,) * layout.n_layers
        watch = _Watch(layout, n_new)
        _run(layout, ids[:, done:], cache, watch)
    prefixes = tuple(_prefix(layer, cache, start) for layer in layout.layers)
    return CleanRun(start, ids.shape[1], tuple(watch.resid), watch.embed[0], prefixes, states, tuple(watch.arguments))


def _run(layout: Layout, ids: Tensor, cache: Any, watch: _Watch) -> None:
    with ExitStack() as stack:
        watch.place(stack)
        with suppress(StopForward):
            layout.decoder(input_ids=ids, past_key_values=cache, use_cache=True)


class _Watch:
    """Hooks that record the input of each block and end the pass after the attention of the last one."""

    def __init__(self, layout: Layout, n_new: int) -> None:
        self.layout, self.n_new = layout, n_new
        self.resid: list[Tensor] = []
        self.embed: list[Tensor] = []
        self.arguments: list[dict[str, Any]] = []

    def place(self, stack: ExitStack) -> None:
        for layer in self.layout.layers:
            stack.callback(layer.block.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
        stack.callback(self.layout.embed.register_forward_hook(self._embedded).remove)
        stack.callback(self.layout.layers[-1].out_proj.register_forward_pre_hook(_stop).remove)

    def _embedded(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.embed.append(output[:, -self.n_new :])

    def _enter(self, block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(block).forward).bind(block, *args, **kwargs).arguments
        arguments = {**bound, **bound.pop("kwargs", {})}  # keyword arguments that the block passes on to attention
        _, hidden = arguments.pop("self", None), arguments.pop("hidden_states")
        self.resid.append(hidden[:, -self.n_new :].contiguous())
        self.arguments.append(_suffix_arguments(arguments, self.n_new))


def _stop(module: nn.Module, args: tuple) -> None:
    raise StopForward


def _suffix_arguments(arguments: dict[str, Any], n_new: int) -> dict[str, Any]:
    """A block's arguments for rows of the last `n_new` tokens: no mask (`rows_attention` is causal), no cache.

    Position ids and rope keep the batch size 1 of the clean pass and broadcast over the rows.
    """
    out = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
    for name in ("attention_mask", *(name for name in _CACHE_NAMES if name in arguments)):
        out[name] = None
    if "use_cache" in arguments:
        out["use_cache"] = False
    if isinstance(arguments.get("position_ids"), Tensor):
        out["position_ids"] = arguments["position_ids"][..., -n_new:]
    if isinstance(arguments.get("position_embeddings"), tuple):
        out["position_embeddings"] = tuple(part[..., -n_new:, :] for part in arguments["position_embeddings"])
    return out


def _keep_all(layout: Layout) -> Any:
    """A cache of all keys and values. The default one drops those that a sliding window has passed; rows need them."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    cache = DynamicCache(config=layout.config)
    cache.layers = [DynamicLayer() if isinstance(x, DynamicSlidingWindowLayer) else x for x in cache.layers]
    return cache


def _prefix(layer: Layer, cache: Any, start: int) -> Prefix | None:
    if layer.kind == "linear_attention" or start == 0:
        return None
    cached = cache.layers[layer.index]
    return cached.keys[:, :, :start], cached.values[:, :, :start]


def _states(layout: Layout, cache: Any) -> tuple[tuple[Tensor, Tensor] | None, ...]:
    """Copies of the recurrent layers' states, since the library updates its own in place."""
    return tuple(
        (cache.layers[layer.index].conv_states[0].clone(), cache.layers[layer.index].recurrent_states[0].clone())
        if layer.kind == "linear_attention"
        else None
        for layer in layout.layers
    )


class RowStates:
    """The cache given to a recurrent layer in the row pass: every row resumes from one state, and none is stored."""

    def __init__(self, states: tuple[Tensor, Tensor], n_rows: int) -> None:
        self.conv, self.recurrent = (state.expand(n_rows, *state.shape[1:]) for state in states)

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor:
        return self.conv.clone()  # the library's one-token convolution writes into it

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor:
        return self.recurrent

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, **kwargs: Any) -> Tensor:
        return torch.cat([self.conv, conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, **kwargs: Any) -> Tensor:
        return recurrent_states


def cache_name(arguments: dict[str, Any]) -> str:
    """Name of the cache argument of this family's blocks."""
    return next(name for name in _CACHE_NAMES if name in arguments)
