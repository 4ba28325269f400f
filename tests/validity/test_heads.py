"""Heads: coverage of their halves, of the largest difference and of differences from controls; false matches."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats
from interp.heads import HeadEffects, contrast, match_heads
from interp.stats.promises import Shape
from tests.test_heads_contrast import made

pytestmark = pytest.mark.filterwarnings("ignore")
N_HEADS = 12


def design_of(n_groups: int, shape: Shape, *, equal: bool = False) -> stats.Design:
    return stats.Design(stats.group_sizes(n_groups, 4, equal=equal), shape=shape)


def sweep(rng: np.random.Generator, design: stats.Design) -> HeadEffects:
    """Effects of 12 heads, each with a mean of 0."""
    return made(design.draw(rng, N_HEADS), layers=3, groups=[f"g{code}" for code in design.groups])


def words(design: stats.Design) -> str:
    kind = "equal" if len(set(design.sizes)) == 1 else "unequal"
    return f"{design.shape}, {len(design.sizes)} {kind} groups, ICC {design.icc:g}"


@pytest.mark.parametrize(("n_groups", "shape"), [(12, "gaussian")])
def test_the_half_on_which_a_selected_head_is_reported_covers(n_groups, shape, studies, record_rate) -> None:
    design, rng, hits = design_of(n_groups, shape), np.random.default_rng(n_groups), []
    for _ in range(studies):
        row = sweep(rng, design).top(1).iloc[0]
        hits.append(row["lo"] <= 0 <= row["hi"])
    record_rate(hits, kind="coverage", name="HeadEffects.top: the largest of 12 heads, on the other half",
                design=words(design), at_least=0.93, at_most=0.99, before="0.84–0.88")  # fmt: skip


@pytest.mark.parametrize(("n_groups", "shape", "before"), [(6, "gaussian", "0.445"), (20, "skewed", "0.593")])
def test_the_largest_difference_of_members_covers(n_groups, shape, before, studies, record_rate) -> None:
    design, rng, hits = design_of(n_groups, shape), np.random.default_rng(n_groups), []
    for _ in range(studies):
        table = contrast(sweep(rng, design), sweep(rng, design))
        row = table.iloc[int(table["value"].abs().to_numpy().argmax())]
        hits.append(row["band_lo"] <= 0 <= row["band_hi"])
    record_rate(hits, kind="coverage", name="contrast: the head that differs most of 12", design=words(design),
                at_least=0.95, before=before)  # fmt: skip


@pytest.mark.parametrize("n_groups", [6, 20])
@pytest.mark.parametrize("shape", ["gaussian", "skewed"])
def test_differences_from_controls_cover(n_groups, shape, studies, record_rate) -> None:
    """Every head does 0; twins that keep the answer move it by 2, so that the difference is -2 for each head."""
    design, rng = design_of(n_groups, shape), np.random.default_rng(n_groups)
    hits: dict[str, list[bool]] = {"control_difference": [], "keep_difference": []}
    for _ in range(studies):
        flip, keep = sweep(rng, design), made(2.0 + design.draw(rng, N_HEADS), layers=3,
                                              groups=[f"g{code}" for code in design.groups])  # fmt: skip
        for name, found, truth in (
            ("control_difference", flip.control_difference(), 0.0),
            ("keep_difference", flip.keep_difference(keep), -2.0),
        ):
            hits[name].append(bool(found.lo[0] <= truth <= found.hi[0]))
    for name, found in hits.items():
        record_rate(found, kind="coverage", name=f"HeadEffects.{name}", design=words(design), at_least=0.93)


@pytest.mark.parametrize(("n_groups", "equal"), [(10, False), (10, True)])
def test_unlike_models_match_nothing(n_groups, equal, studies, record_rate) -> None:
    design, rng = design_of(n_groups, "gaussian", equal=equal), np.random.default_rng(n_groups)
    hits = [
        np.nanmin(match_heads(sweep(rng, design), sweep(rng, design), n_permutations=199, seed=seed).p) <= 0.05
        for seed in range(studies)
    ]
    record_rate(hits, kind="level", name="match_heads, any pair of 12 heads", design=words(design), at_most=0.05)
