"""Intervals where groups are few: leave one group out, Student on G - 1 degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan

import numpy as np
from jaxtyping import Shaped

from interp.stats import CONFIDENCE, Estimate
from interp.stats._check import FEW_GROUPS, group_codes

BOOTSTRAP, JACKKNIFE = "cluster bootstrap", "jackknife t"
Point = Callable[[np.ndarray], Mapping[str, float]]


def are_few(groups: Shaped[np.ndarray, " example"]) -> bool:
    """Whether percentile intervals over these groups are known to be too narrow (fewer than 20)."""
    return len(np.unique(groups)) < FEW_GROUPS


def jackknife_t(
    point: Point, *, groups: Shaped[np.ndarray, " example"], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, Estimate]:
    """Every number of `point` with a delete-one-group interval: the choice below 20 groups.

        θ ± t_{G-1} · se,   se² = (G - 1)/G · sum_g (θ_(-g) - mean_g θ_(-g))²,   cut at the bounds of θ

    Where leaving out a group leaves no value (the only group with positives), the interval is the whole range. A
    value at its bound in every group has the exact interval of G successes in G trials.

    Args:
        point: mask of kept rows [example] -> named numbers of those rows.
        groups: independent unit of each row.  bounds: smallest and largest possible value of each number.
    Raises:
        ValueError: fewer than 2 groups.
    Source: Efron & Stein, Ann. Stat. 9 (1981) 586, by groups; t: Cameron, Gelbach & Miller (2008).
    """
    from scipy.stats import t

    codes = group_codes(groups, len(groups))
    n, n_groups = len(codes.code), codes.n_groups
    whole = point(np.ones(n, dtype=bool))
    left = [point(codes.code != g) for g in range(n_groups)]
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, n_groups - 1))
    out = {}
    for name, value in whole.items():
        without = np.array([part.get(name, nan) for part in left])
        low, high = bounds[name]
        if np.isnan(value):
            out[name] = Estimate.undefined(n, n_groups)
        elif np.isnan(without).any():
            out[name] = Estimate(value, low, high, n, n_groups)
        else:
            half = reach * float(np.sqrt((n_groups - 1) / n_groups * np.square(without - without.mean()).sum()))
            if half < 1e-12 and value in (low, high):
                half = (high - low) * (1 - (0.5 - CONFIDENCE / 2) ** (1 / n_groups))
            out[name] = Estimate(value, max(low, value - half), min(high, value + half), n, n_groups)
    return out
