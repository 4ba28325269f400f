"""A difference of products split into the part of each factor: did bias fall, or only the number of commitments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Real, Values, numbers, same_length
from interp.stats.estimate import Estimate, Sampling
from interp.stats.jackknife import ANY, Bounds
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class Decomposition:
    """Change of a product, after - before = first + second exactly, with the interval of each part."""

    first: Estimate
    second: Estimate
    total: Estimate


def midpoint_decomposition(
    first_before: Real, second_before: Real, first_after: Real, second_after: Real
) -> tuple[float, float]:
    """(part of the first factor, part of the second) of a change of a product; their sum is the change.

        x1·y1 - x0·y0 = (x1 - x0)·(y0 + y1)/2 + (x0 + x1)/2·(y1 - y0)      exact, and free of order

    With coverage and commitment bias .359, .279 -> .217, .333: -0.0435 and +0.0156.

    Source: Shapley value of a two-factor product; Das Gupta, *Standardization and Decomposition* (1993) §2.
    """
    first = (first_after - first_before) * (second_before + second_after) / 2
    second = (first_before + first_after) / 2 * (second_after - second_before)
    return first, second


def decompose_change(
    before: Values,
    after: Values,
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Decomposition:
    """Midpoint decomposition of the change of x·y between two systems on the same items, resampled in pairs.

        x = sum(middle)/sum(outer),  y = sum(inner)/sum(middle),  so x·y = sum(inner)/sum(outer)

    For the bias score: outer = 1 for every ambiguous item, middle = committed, inner = +1 stereotyped,
    -1 anti-stereotyped, 0 otherwise.

    Where 0 <= middle <= outer and |inner| <= middle, the parts have the ranges [-1, 1], [-2, 2] and [-2, 2], which give
    an interval also where nothing changed in any group.

    Args:
        before, after: columns (outer, middle, inner) of the same items in the same order [example, 3].
        groups: independent unit of each item (the story), or None.
    Raises:
        ValueError: lengths differ, not three columns, NaN, one group, a system with sum(middle) = 0.
    Source: `midpoint_decomposition`; intervals by the rule of `interp.stats.jackknife`.
    """
    before, after = numbers("before", before, ndim=2), numbers("after", after, ndim=2)
    same_length(before=before, after=after)
    for name, columns in (("before", before), ("after", after)):
        if columns.shape[1] != 3:
            raise ValueError(f"{name}: expected 3 columns (outer, middle, inner), got {columns.shape[1]}.")
        if columns[:, 1].sum() == 0 or columns[:, 0].sum() == 0:
            raise ValueError(
                f"{name}: expected sum(outer) and sum(middle) other than 0, got {columns[:, 0].sum():g} and "
                f"{columns[:, 1].sum():g}: the second factor is 0/0. Report the change of x alone."
            )
    columns = np.column_stack([before, after])
    draws = resample_sums(columns, _parts, groups=groups, sampling=sampling, bounds=_bounds(before, after))
    out = draws.estimates()
    return Decomposition(out.at(0), out.at(1), out.at(2))


def _bounds(before: np.ndarray, after: np.ndarray) -> Bounds:
    """Ranges of the three parts where x is a share and y a signed share; none otherwise."""
    outer, middle, inner = np.concatenate([before, after]).T
    if (middle < 0).any() or (middle > outer).any() or (np.abs(inner) > middle).any():
        return ANY
    most = np.array([1.0, 2.0, 2.0])
    return -most, most


def _parts(sums: np.ndarray) -> np.ndarray:
    outer0, middle0, inner0, outer1, middle1, inner1 = np.moveaxis(sums, -1, 0)
    x0, y0, x1, y1 = middle0 / outer0, inner0 / middle0, middle1 / outer1, inner1 / middle1
    first, second = (x1 - x0) * (y0 + y1) / 2, (x0 + x1) / 2 * (y1 - y0)
    return np.stack([first, second, first + second], axis=-1)
