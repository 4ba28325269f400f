"""The analyses that there are: those of this package, and those that other packages add by an entry point."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.analyses.base import Analysis

GROUP = "diptych.analyses"
BUILT_IN = {
    "eval": "study.analyses.eval.analysis",
    "cache": "study.analyses.cache.analysis",
    "probes": "study.analyses.probes.analysis",
    "along": "study.analyses.along.analysis",
    "heads": "study.analyses.heads.analysis",
    "steering": "study.analyses.steering.analysis",
    "oracle": "study.analyses.oracle.analysis",
}
"""Analyses of this package, in the order in which they run where they are free to."""
RESERVED = frozenset(
    [
        "name",
        "task",
        "pair",
        "checkpoint",
        "seed",
        "claim_margin",
        "min_label_mass",
        "smallest_effects",
        "load",
        "known_truth",
        "published",
        "data",
        "audit",
        "cot",
        "tables",
        "verify",
        "study",
    ]
)
"""Keys of a study file and commands that no analysis can have as its name."""


@cache
def added() -> dict[str, EntryPoint]:
    """Analyses that other packages add, by name, not loaded.

    Raises:
        ValueError: a name that is taken, or two packages with the same one.
    """
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in RESERVED or point.name in BUILT_IN or point.name in points:
            raise ValueError(
                f"entry point {GROUP}: the analysis {point.name!r} of {_package(point)} has a name that is "
                "already taken. Rename it in that package, or uninstall it."
            )
        points[point.name] = point
    return points


@cache
def analysis(name: str) -> Analysis:
    """One analysis by its name.

    Raises:
        ValueError: no such analysis; one of another package that cannot be imported, or is not an `Analysis`.
    """
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name]).ANALYSIS
    if name not in added():
        raise ValueError(f"no analysis {name!r}. Analyses: {', '.join(names())}.")
    return _checked(added()[name])


def paths() -> tuple[str, ...]:
    """Import path `module:name` of every analysis, for the digest of what is made with all of them."""
    own = [f"{module}:ANALYSIS" for module in BUILT_IN.values()]
    return (*own, *(f"{point.module}:{point.attr}" for point in added().values()))


def names() -> tuple[str, ...]:
    """Names of all analyses, in the order in which they run where they are free to."""
    return (*BUILT_IN, *added())


def analyses() -> dict[str, Analysis]:
    """All analyses by name; their columns are declared (`study.schema`)."""
    return {name: analysis(name) for name in names()}


def _checked(point: EntryPoint) -> Analysis:
    from study.analyses.base import Analysis
    from study.schema import declare

    try:
        found: object = point.load()
    except Exception as error:
        raise ValueError(
            f"the analysis {point.name!r} of {_package(point)} cannot be imported from {point.value}: "
            f"{type(error).__name__}: {error}. Fix or uninstall that package."
        ) from error
    if not isinstance(found, Analysis) or found.name != point.name or found.step.name != point.name:
        raise ValueError(
            f"entry point {GROUP}: expected {point.value} of {_package(point)} to be a study.analyses.base.Analysis "
            f"named {point.name!r}, with a step of that name, got {type(found).__name__} "
            f"{getattr(found, 'name', '')!r}."
        )
    declare(found.columns, found.tables)
    return found


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name!r}" if point.dist is not None else "another package"
