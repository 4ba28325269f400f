"""Heads: coverage of their intervals and halves, of the largest difference, of their controls; false matches."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats
from interp.heads import HeadEffects, contrast, match_heads
from tests.test_heads_contrast import made

pytestmark = pytest.mark.filterwarnings("ignore")


def sweep(rng: np.random.Generator, design: stats.Design, n_heads: int = 12) -> HeadEffects:
    return made(design.draw(rng, n_heads), layers=3, groups=[f"g{code}" for code in design.groups])


def words(design: stats.Design) -> str:
    kind = "equal" if len(set(design.sizes)) == 1 else "unequal"
    return f"{design.shape}, {len(design.sizes)} {kind} groups, ICC {design.icc:g}"


@pytest.mark.parametrize(
    ("n_groups", "equal", "shape", "before"),
    [(12, True, "gaussian", "0.832"), (20, False, "skewed", "BEFORE")],
)
def test_half_of_a_selected_head_covers(n_groups, equal, shape, before, studies, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 4, equal=equal), shape=shape)
    rng, hits = np.random.default_rng(n_groups), []
    for _ in range(studies):
        row = sweep(rng, design).top(1).iloc[0]
        hits.append(row["lo"] <= 0 <= row["hi"])
    record_rate(hits, kind="coverage", name="HeadEffects.top, the largest of 12 heads on the other half",
                design=words(design), at_least=0.93 if shape == "gaussian" else 0.9, at_most=0.99, before=before)  # fmt: skip
