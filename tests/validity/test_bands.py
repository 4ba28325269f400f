"""Simultaneous bands hold the whole curve."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats


def smooth(rng: np.random.Generator, n: int, points: int) -> np.ndarray:
    """Gaussian curves [n, point] whose neighbours correlate at 0.9."""
    z = rng.standard_normal((n, points))
    for k in range(1, points):
        z[:, k] = 0.9 * z[:, k - 1] + np.sqrt(1 - 0.9**2) * z[:, k]
    return z


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
def test_band_holds_the_whole_curve(n_groups: int, equal: bool, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 8, equal=equal))
    rng, inside = np.random.default_rng(n_groups), []
    for i in range(studies):
        noise = np.sqrt(0.3) * smooth(rng, n_groups, 28)[design.groups]
        values = noise + np.sqrt(0.7) * smooth(rng, len(design.groups), 28)
        band = stats.simultaneous_band(values, groups=design.groups, sampling=stats.Sampling(seed=i, n_resamples=400))
        inside.append(bool(((band.lo <= 0) & (band.hi >= 0)).all()))
    record_rate(
        inside,
        kind="coverage",
        name="simultaneous_band, 28 points at once",
        design=f"gaussian, {n_groups} {'equal' if equal else 'unequal'} groups, ICC 0.3",
        at_least=0.93,
    )
