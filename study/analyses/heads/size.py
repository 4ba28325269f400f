"""Number of pairs of a head sweep: from the number of heads alone, so that every machine sweeps the same items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint
    from interp.family import Layout
    from study.analyses.heads.options import HeadsOptions

PAIRS = {1024: 48, 2048: 51, 4096: 54, 8192: 57, 16384: 60}
"""Most heads -> pairs. Written down, because pairs are work: a corrected statistic must not throw a sweep away."""


def n_pairs(n_heads: int) -> int:
    """Pairs that show an effect of 0.8 standard deviations in one of `n_heads` heads in 80 % of studies; at least 48.

    The heads of a model are one family of tests (`interp.stats.power.FamilyClaim`), so more heads need more pairs: 48
    are enough for 1,024 heads, 4,096 need 54. A model between two entries of `PAIRS` takes the larger one.

    Example:
        >>> n_pairs(270), n_pairs(4096)
        (48, 54)
    """
    return next((pairs for most, pairs in PAIRS.items() if n_heads <= most), max(PAIRS.values()))


def n_of(options: HeadsOptions, layouts: Iterable[Layout]) -> int:
    """What `options.n` says, else what the member with the most heads needs."""
    if options.n is not None:
        return options.n
    return max(n_pairs(sum(layer.n_heads for layer in layout.layers)) for layout in layouts)


def layouts_of(members: Iterable[Checkpoint], loading: Mapping[str, Any]) -> list[Layout]:
    """Layers and heads of every member, from configurations alone.

    Raises:
        ValueError: as `interp.loading.open_skeleton`.
    """
    from interp.family import Layout
    from interp.loading import open_skeleton

    return [Layout(open_skeleton(one, **loading).module.get_decoder()) for one in members]
