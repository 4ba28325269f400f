"""Record activations: what `diptych cache` and the step `cache` both call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cache import extract, extract_pair
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from interp.prompt import Example
    from study.analyses.cache.options import CacheOptions
    from study.members import Loading


def record_caches(
    what: Checkpoint | CheckpointPair,
    examples: Sequence[Example],
    *,
    out: Path,
    options: CacheOptions,
    loading: Loading | None = None,
    progress: bool = True,
) -> list[ActivationCache]:
    """The cache of a checkpoint in `out`, or of every member of a pair in `out/<member>`; a killed run continues.

    Raises:
        ValueError: as `interp.load` and `interp.cache.extract`.
    """
    arguments: dict[str, Any] = {"max_bytes": options.max_bytes, "progress": progress, **options.request()}
    if isinstance(what, CheckpointPair):
        return list(extract_pair(what, examples, out=out, load=dict(loading or {}), **arguments).values())
    return [extract(load(what, **(loading or {})), examples, out=out, **arguments)]
