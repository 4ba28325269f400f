"""Label-shuffled directions from the cache that a direction was fitted on: the same pipeline, permuted labels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from interp.cache import ActivationCache
from interp.stats import permute_labels
from steering.arms import N_SHUFFLED, Arm, permutation_scheme
from steering.columns import column, fit_mask
from steering.difference import difference_of_means
from steering.direction import Direction

GIVEN = "(given values)"


def shuffled_from_cache(
    direction: Direction, folder: Path, *, n: int = N_SHUFFLED, seed: int = 0
) -> tuple[list[Arm], frozenset[str]]:
    """(shuffled arms at the direction's site, ids of the examples that the direction was fitted on).

    Every draw permutes the labels (within strata where the direction was balanced by strata, among groups where each
    has one label, else within groups) and goes through `difference_of_means` with the direction's own options.

    Raises:
        ValueError: another cache than the direction's, or a direction whose labels are not a column of the cache.
    """
    origin: dict[str, Any] = dict(direction.provenance)
    with ActivationCache.open(folder) as cache:
        if origin.get("cache") != cache.plan_id:
            raise ValueError(
                f"{folder} is not the cache that {direction.label!r} was fitted on (plan {cache.plan_id}, the "
                f"direction names {origin.get('cache')}). Shuffled labels mean something on its own rows only."
            )
        if GIVEN in (origin.get("target"), origin.get("groups"), origin.get("strata")):
            raise ValueError(
                f"{direction.label!r} was fitted on values that are not in the cache. Make shuffled arms in Python "
                "(steering.shuffled_arms) from the same values, or go without --cache."
            )
        labels, used = _used(cache, direction, origin)
        arms = [
            Arm("shuffled", direction.site, _shuffled(cache, direction, origin, drawn).unit, k)
            for k, drawn in enumerate(_draws(cache, labels, used, origin, n, seed))
        ]
        return arms, frozenset(cache.examples["id"].astype(str).to_numpy()[used].tolist())


def _used(cache: ActivationCache, direction: Direction, origin: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(labels as text, mask of the examples that the direction was fitted on)."""
    values = column(cache, "target", origin["target"])
    assert values is not None, "a fitted direction names its target"
    labels = np.array([str(value) for value in values], dtype=object)
    classes = {*direction.toward.split("+"), *direction.away_from.split("+")}
    mask = fit_mask(cache, origin.get("fit_on"))
    return labels, np.isin(labels.astype(str), sorted(classes)) & (True if mask is None else mask)


def _draws(
    cache: ActivationCache, labels: np.ndarray, used: np.ndarray, origin: dict[str, Any], n: int, seed: int
) -> list[np.ndarray]:
    """n label columns of the whole cache, permuted among the examples that were fitted on."""
    strata, groups = (
        None if values is None else values[used].astype(str)
        for values in (column(cache, key, origin.get(key)) for key in ("strata", "groups"))
    )
    kinds, codes = np.unique(labels[used].astype(str), return_inverse=True)
    scheme, units = permutation_scheme(codes == codes[0], strata, groups)
    out = []
    for permuted in permute_labels(codes, groups=units, n_permutations=n, seed=seed, scheme=scheme):
        whole = labels.copy()
        whole[used] = kinds[permuted]
        out.append(whole)
    return out


def _shuffled(cache: ActivationCache, direction: Direction, origin: dict[str, Any], labels: np.ndarray) -> Direction:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is said of the real direction is not said again of its null
        return difference_of_means(
            cache, toward=direction.toward.split("+"), away_from=direction.away_from.split("+"), site=direction.site,
            target=labels, position=direction.position, balance=origin["balance"], strata=origin["strata"],
            groups=origin["groups"], fit_on=origin.get("fit_on"), weighting=origin["weighting"], seed=origin["seed"],
            check_sign=False,
        )  # fmt: skip
