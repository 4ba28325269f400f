"""Oracle features from an activation cache on disk: nothing is run again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interp.cache.activation_cache import ActivationCache
from interp.oracle.collection import Per, runs
from interp.oracle.features import Features, Slot
from interp.site import Site, layer_index


def features_from_cache(
    cache: ActivationCache,
    *,
    position: str,
    layers: Sequence[int | str],
    per: Per = "example",
    group: str | None = None,
    source: str | None = None,
    n_layers: int | None = None,
) -> Features:
    """The readings of a cache at one position rule, in the order of its examples.

    Args:
        position: a rule that the cache holds, e.g. "sentence_ends".
        layers: block indices or percents of depth, each cached as `resid_post.<layer>`.
        per: one reading per "example", per "token", or per run of that many consecutive chosen tokens.
        group: group column that names the problem; default: the example.
        source: whose activations these are; default: the cache's own checkpoint.
        n_layers: blocks of the model, which percents need; a cache does not know them.
    Raises:
        ValueError: a layer, rule or group that the cache does not hold.
    """
    at = tuple(_layer(layer, n_layers) for layer in layers)
    rows = cache.rows[cache.rows.position_name == position]
    if not len(rows):
        raise ValueError(f"position {position!r} is not in {cache.root}, which holds: {', '.join(cache.positions)}.")
    groups = _groups(cache, group)
    ids, tokens = rows.example_id.astype(str).to_numpy(), rows.position.to_numpy()
    texts, numbers = rows.token_text.to_numpy(), rows.row.to_numpy()
    plan: list[tuple[str, str, np.ndarray]] = []
    for example in dict.fromkeys(cache.examples["id"].astype(str)):
        mine = np.flatnonzero(ids == example)
        for name, run in runs(example, [int(t) for t in tokens[mine]], per):
            plan.append((name, example, mine[list(run)]))
    order = np.concatenate([mine for _, _, mine in plan])
    per_layer = torch.stack([cache.rows_at(numbers[order], Site("resid_post", layer)) for layer in at])
    vectors, slots, start = [], [], 0
    made_by = cache.manifest["environment"]["checkpoint"]  # None for a module that was wrapped by hand
    whose = source or (made_by["name"] if made_by else cache.root.name)
    for name, _, mine in plan:
        vectors.append(per_layer[:, start : start + len(mine)].flatten(0, 1))
        start += len(mine)
        slots += [Slot(name, layer, int(tokens[i]), str(texts[i]), None, position, whose) for layer in at for i in mine]
    return Features(
        torch.cat(vectors),
        tuple(slots),
        groups={name: groups[example] for name, example, _ in plan},
        provenance={
            "cache": cache.plan_id,
            "source": whose,
            "layers": list(at),
            "positions": position,
            "base_sha256": cache.manifest["identity"]["model"]["weights_sha256"],
        },
    )


def _groups(cache: ActivationCache, group: str | None) -> dict[str, str]:
    table = cache.examples
    if group is None:
        return {str(i): str(i) for i in table["id"]}
    if group not in table.columns:
        raise ValueError(f"group {group!r} is not a column of {cache.root}, which has: {', '.join(table.columns)}.")
    return {str(i): str(g) for i, g in zip(table["id"], table[group], strict=True)}


def _layer(layer: int | str, n_layers: int | None) -> int:
    if isinstance(layer, int):
        return layer
    if n_layers is None:
        raise ValueError(f"layer {layer!r}: a percent needs n_layers=, the number of blocks of the model.")
    return layer_index(layer, n_layers)
