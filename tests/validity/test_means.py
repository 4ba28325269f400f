"""The mean over grouped examples: coverage of its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats


@pytest.mark.parametrize("n_groups", [6, 20])
def test_cluster_t_covers_the_mean_of_unequal_groups(n_groups: int, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 8, equal=False), mean=0.4)
    rng = np.random.default_rng(n_groups)
    found = [stats.cluster_t(design.draw(rng), groups=design.groups) for _ in range(studies)]
    record_rate(
        [e.lo <= 0.4 <= e.hi for e in found],
        kind="coverage",
        name="cluster_t",
        design=f"gaussian, {n_groups} unequal groups, ICC 0.3",
        at_least=0.93,
        at_most=0.98,
    )
