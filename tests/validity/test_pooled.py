"""The mean over trained pairs: coverage with pairs as units."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats


@pytest.mark.parametrize("tau", [0.0, 0.2])
@pytest.mark.parametrize("n_pairs", [3, 6, 10])
def test_random_effects_cover_the_mean_over_pairs(n_pairs: int, tau: float, studies: int, record_rate) -> None:
    rng = np.random.default_rng(n_pairs)
    hits = []
    for _ in range(5 * studies):
        se = rng.uniform(0.05, 0.1, n_pairs)
        found = stats.random_effects(rng.normal(0.3, tau, n_pairs) + rng.normal(0, se), se)
        hits.append(found.mean.lo <= 0.3 <= found.mean.hi)
    design = f"{n_pairs} pairs that differ by a standard deviation of {tau:g}, errors 0.05 to 0.1"
    record_rate(hits, kind="coverage", name="random_effects", design=design, at_least=0.93, at_most=0.97)
