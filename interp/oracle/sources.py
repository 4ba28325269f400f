"""Activations of training items: the base with every adapter off, in eval mode; contexts that begin others share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from interp.hooks import record
from interp.model import Model
from interp.oracle.encode import Encoded
from interp.oracle.items import TrainItem
from interp.oracle.loss import by_length


def base_vectors(
    model: Model, items: Sequence[TrainItem], encoded: Sequence[Encoded], *, token_budget: int = 8192
) -> list[Tensor]:
    """The vectors [slots, d_model] of every item, in the order of its placeholders, in the model's dtype.

    Read from the base (all adapters off, asserted on the layers), in eval mode without gradients. Contexts that begin
    another one are read with it: attention is causal, so nothing after a position changes it.

    Args:
        token_budget: padded tokens per pass.
    Raises:
        ValueError: contexts of a block that the model does not have (before any pass).
    """
    layers = sorted({layer for e in encoded for layer, _ in e.sources})
    contexts = [item.context_ids for item in items]
    # under a rope that depends on the length, a context inside a longer one has other activations than by itself
    hosts, host_of = (contexts, list(range(len(contexts)))) if model.layout.rope.varies else _hosts(contexts)
    wanted: list[set[int]] = [set() for _ in hosts]
    for e, host in zip(encoded, host_of, strict=True):
        wanted[host].update(token for _, token in e.sources)
    places = [sorted(tokens) for tokens in wanted]
    found: dict[tuple[int, int], dict[int, Tensor]] = {}
    with _bare(model):
        for chosen in by_length([len(ids) for ids in hosts], token_budget):
            found |= _read(model, [hosts[i] for i in chosen], [places[i] for i in chosen], layers, chosen)
    return [
        torch.stack([found[host, token][layer] for layer, token in e.sources])
        for e, host in zip(encoded, host_of, strict=True)
    ]


def zero_vectors(model: Model, encoded: Sequence[Encoded]) -> list[Tensor]:
    """Zeros [slots, d_model] for every item, as the prior-only oracle is trained on; injecting them changes nothing."""
    return [torch.zeros(len(e.slots), model.d_model, dtype=model.dtype) for e in encoded]


@contextmanager
def _bare(model: Model) -> Iterator[None]:
    """The base in eval mode; `use` restores every mode and adapter afterwards, and asserts that none is applied."""
    with model.adapters.use(None):
        model.module.eval()
        yield


def _read(
    model: Model,
    contexts: Sequence[Sequence[int]],
    places: Sequence[list[int]],
    layers: Sequence[int],
    names: list[int],
) -> dict[tuple[int, int], dict[int, Tensor]]:
    """(context, token) -> block -> vector."""
    with torch.no_grad(), record(model, [f"resid_post.{layer}" for layer in layers], positions=places) as acts:
        model(contexts)
    rows = acts.rows or []
    return {
        (names[item], token): {layer: acts[f"resid_post.{layer}"][row] for layer in layers}
        for row, (item, token) in enumerate(rows)
    }


def _hosts(contexts: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The contexts that begin no other one, and for each context the index of the one that it begins.

    In lexicographic order a context that begins any other begins its successor, so one walk backwards finds all.
    """
    order = sorted(range(len(contexts)), key=lambda i: contexts[i])
    hosts: list[tuple[int, ...]] = []
    host_of = [0] * len(contexts)
    for i in reversed(order):
        if not hosts or hosts[-1][: len(contexts[i])] != contexts[i]:
            hosts.append(contexts[i])
        host_of[i] = len(hosts) - 1
    return hosts, host_of
