"""Cosines of the directions of two members: corrected for noise, and not fooled by noise that they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.site import Site
from steering.pair import direction_agreement, pair_cosines, reliability
from tests.steering_kit import made_up

SITE = Site("resid_post", 1)


def test_pair_cosines_are_corrected_by_what_each_direction_says_of_itself() -> None:
    a, b = made_up(seed=1), made_up(seed=1)
    row = pair_cosines(a, b).iloc[0]
    assert row["cosine"] == pytest.approx(1) and reliability(0.8) == pytest.approx(1.6 / 1.8)
    assert row["ceiling"] == pytest.approx(1.6 / 1.8) and row["corrected"] == pytest.approx(1.8 / 1.6)
    with pytest.raises(ValueError, match="different widths"):
        pair_cosines(made_up(16), made_up(32))
    same = [{SITE: replace(d[SITE], provenance={"examples_sha256": "abc"})} for d in (a, b)]
    row = pair_cosines(*same).iloc[0]  # the noise of the same items is in both
    assert np.isnan(row["corrected"]) and row["ceiling"] == pytest.approx(1.6 / 1.8) and "same examples" in row["note"]


def test_shared_noise_of_the_items_is_no_agreement() -> None:
    """Labels that say nothing, items that both members read with the same noise: the plain cosine is near 1."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups, labels = [f"g{k // 4}" for k in range(120)], np.repeat(rng.permutation(30) % 2 == 0, 4)
        shared = np.repeat(rng.normal(size=(30, 24)), 4, axis=0)
        a, b = (torch.from_numpy(shared + 0.3 * rng.normal(size=shared.shape)) for _ in range(2))
        found.append(direction_agreement(a, b, labels, groups=groups, seed=seed, n_permutations=39))
    assert np.mean([f.cosine.value for f in found]) > 0.8 and abs(np.mean([f.crossed.value for f in found])) < 0.15
    assert np.mean([f.p <= 0.05 for f in found]) <= 0.2
    assert np.mean([not f.corrected.is_defined for f in found]) >= 0.8  # members without a direction have no ceiling


def test_the_corrected_cosine_recovers_the_truth_that_noise_hides() -> None:
    """True cosine 0.6, seen through noise: the raw cosine is too low, the corrected one is not."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels, groups = np.arange(240) % 2 == 0, [f"g{k // 4}" for k in range(240)]
        u, w = np.eye(40)[0], 0.6 * np.eye(40)[0] + 0.8 * np.eye(40)[1]
        feats = [np.outer(labels - 0.5, v) * 0.9 + rng.normal(0, 1, (240, 40)) for v in (u, w)]
        a, b = (torch.from_numpy(part) for part in feats)
        found.append(direction_agreement(a, b, labels, groups=groups, seed=seed, n_permutations=99))
    raw, corrected = (
        np.nanmean(values) for values in ([f.cosine.value for f in found], [f.corrected.value for f in found])
    )
    assert sum(not f.corrected.is_defined for f in found) <= 1  # a member whose direction drowns in its noise
    assert raw < 0.42 and abs(corrected - 0.6) < 0.1
    assert np.mean([f.p < 0.05 for f in found]) >= 0.5 and all(f.null_hi < 0.45 for f in found)
