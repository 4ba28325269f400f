"""Label-shuffled directions from the cache that a direction was fitted on: the same pipeline, permuted labels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from interp.cache import ActivationCache
from interp.progress import parts
from interp.remedy import remedy
from interp.stats import permute_labels
from interp.where import kept
from steering.arms import N_SHUFFLED, Arm, permutation_scheme
from steering.difference import difference_of_means
from steering.direction import Direction
from steering.walk import column, fit_mask
from study.rows import Row

GIVEN = "(given values)"


def shuffled_from_cache(
    direction: Direction,
    folder: Path,
    *,
    n: int = N_SHUFFLED,
    seed: int = 0,
    equal_length: bool = True,
    labels: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
) -> tuple[list[Arm], frozenset[str]]:
    """(shuffled arms at the direction's site, ids of the examples that the direction was fitted on).

    Every draw permutes the labels (within strata if the direction was balanced by strata, among groups if each has one
    label, otherwise within groups) and passes them through `difference_of_means` with the direction's own options.

    Args:
        equal_length: see `steering.arms.shuffled_arms`.
        labels, strata: example id -> class or stratum, where these came from a file (the model's own answers), not from
            the cache.
    Raises:
        ValueError: another cache or other labels than the direction's.
    """
    origin: Row = dict(direction.provenance)
    with ActivationCache.open(folder) as cache:
        if origin.get("cache") != cache.plan_id:
            raise ValueError(
                f"{folder} is not the cache that {direction.label!r} was fitted on (plan {cache.plan_id}, the "
                f"direction names {origin.get('cache')}). Shuffled labels are meaningful only on its own rows."
            )
        classes, used = _used(cache, direction, origin, labels)
        origin["strata"] = _strata(cache, direction, origin, strata)
        directions = [
            _shuffled(cache, direction, origin, drawn) for drawn in parts(_draws(cache, classes, used, origin, n, seed))
        ]
        ids = cache.examples["id"].astype(str).to_numpy()[used].tolist()
    own = float(direction.vec.norm())
    share = [1.0 if equal_length else float(one.vec.norm()) / own for one in directions]
    arms = [Arm("shuffled", direction.site, one.unit, k, length=share[k]) for k, one in enumerate(directions)]
    return arms, frozenset(ids)


def _used(
    cache: ActivationCache, direction: Direction, origin: Row, labels: Mapping[str, str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """(class of every example, mask of the examples that the direction was fitted on); checked by their digest."""
    ids = cache.examples["id"].astype(str).to_numpy()
    if origin.get("groups") == GIVEN or (origin.get("target") == GIVEN and labels is None):
        raise ValueError(
            f"{direction.label!r} was fitted on classes or groups that are not columns of the cache. "
            + remedy("Give the file of classes with {labels}.", "Take classes that are columns of the cache.")
        )
    values = np.array([labels.get(i) for i in ids]) if labels is not None else column(cache, "target", origin["target"])
    assert values is not None, "a fitted direction names its target"
    classes = np.array([str(value) for value in values], dtype=object)
    within = kept(cache.examples, origin.get("where") or (), n=len(cache))
    sides = sorted({*direction.toward.split("+"), *direction.away_from.split("+")})
    mask = fit_mask(cache, origin.get("fit_on"))
    used = np.isin(classes.astype(str), sides) & within & (True if mask is None else mask)
    named = "\n".join(f"{ids[k]}|{classes[k]}" for k in np.flatnonzero(used))
    if hashlib.sha256(named.encode()).hexdigest() != origin.get("examples_sha256"):
        raise ValueError(
            f"{direction.label!r} was not fitted on these rows or classes: {int(used.sum())} rows of "
            f"{', '.join(sides)} here. {remedy('Give the same {labels} as for the fit.', 'Fit it again.')}"
        )
    return classes, used


def _strata(
    cache: ActivationCache, direction: Direction, origin: Row, strata: Mapping[str, str] | None
) -> str | np.ndarray | None:
    """The column that the direction was balanced by, or its values from a file; None where it was not balanced so."""
    if origin.get("strata") != GIVEN:
        return origin.get("strata")
    if strata is None:
        raise ValueError(
            f"{direction.label!r} was balanced by strata that are not a column of the cache. "
            + remedy("Give them with {strata}, as for the fit.", "Fit it again.")
        )
    return np.array([strata.get(i) for i in cache.examples["id"].astype(str)], dtype=object)


def _draws(
    cache: ActivationCache, labels: np.ndarray, used: np.ndarray, origin: Row, n: int, seed: int
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


def _shuffled(cache: ActivationCache, direction: Direction, origin: Row, labels: np.ndarray) -> Direction:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is said of the real direction is not said again of its null
        return difference_of_means(
            cache,
            toward=direction.toward.split("+"),
            away_from=direction.away_from.split("+"),
            site=direction.site,
            target=labels,
            position=direction.position,
            balance=origin["balance"],
            strata=origin["strata"],
            groups=origin["groups"],
            fit_on=origin.get("fit_on"),
            weighting=origin["weighting"],
            seed=origin["seed"],
            where=origin.get("where") or (),
            check_sign=False,
        )
