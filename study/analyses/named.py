"""What sections name of the cache: its sites and positions, as they will be, before anything is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.positions import parse_positions
from interp.site import Site, expand_sites, format_ranges, layer_index

if TYPE_CHECKING:
    from interp.family import Layout
    from study.config.sections import Study


def cached_sites(study: Study, layout: Layout) -> tuple[str, ...]:
    """Sites that the cache of a model will hold.

    Raises:
        ValueError: `cache.sites` names none, or one that the model does not have.
    """
    assert study.cache is not None
    return tuple(map(str, expand_sites(study.cache.sites, layout)))


def cached_positions(study: Study) -> tuple[str, ...]:
    """Names of the position rules of the cache."""
    assert study.cache is not None
    return tuple(rule.name for rule in parse_positions(study.cache.positions))


def has_good_cache(study: Study, layout: Layout) -> bool:
    """Whether `cache.sites` and `cache.positions` can be read on a model; their own faults are those of the cache."""
    try:
        return bool(cached_sites(study, layout) and cached_positions(study))
    except ValueError:
        return False


def steered_layers(words: tuple[int | str, ...] | None, sites: tuple[str, ...], n_layers: int) -> tuple[int, ...]:
    """Block indices of the layers that are steered on one model: as named, or every layer of the cache.

    Args:
        words: block indices or percents of depth.
        sites: sites of the cache; only its `resid_post` sites can be steered.
    Raises:
        ValueError: a layer that the model does not have, or that the cache leaves out; says what can be written.
    """
    held = sorted(Site.parse(site).layer or 0 for site in sites if site.startswith("resid_post."))
    if not held:
        raise ValueError(f"the cache will hold no resid_post site, only {', '.join(sites)}: add some to cache.sites.")
    if words is None:
        return tuple(held)
    try:
        found = tuple(dict.fromkeys(layer_index(word, n_layers) for word in words))
    except ValueError as error:
        raise ValueError(
            f"{error} Write layers of this model or shares of its depth, e.g. [{n_layers // 2}] or ['50%']."
        ) from None
    if missing := [layer for layer in found if layer not in held]:
        raise ValueError(
            f"layer {missing[0]} is not in the cache, which holds resid_post of layers {format_ranges(held)}. Name one "
            f"of these, or add resid_post.{missing[0]} to cache.sites."
        )
    return found
