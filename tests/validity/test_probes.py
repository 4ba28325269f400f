"""Probes: false positives, coverage and power of sweeps of simulated activations, and the code length of noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.stats import Design, group_sizes
from probes import SweepConfig, SweepResult, mdl, sweep

FAST: dict[str, Any] = dict(kinds=("massmean",), n_boot=50, n_seeds=1)


def noise(rng: np.random.Generator, design: Design, *, sites: int = 1, d: int = 8) -> dict[str, np.ndarray]:
    """Activations that know the groups and nothing else."""
    return {f"resid_post.{i}": design.draw(rng, d).astype(np.float32) for i in range(sites)}


def constant(rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """One label for each group, half of the groups each."""
    n = int(groups.max()) + 1
    return (rng.permutation(n) < n // 2).astype(int)[groups]


def many(studies: int, one: Callable[[np.random.Generator], SweepResult]) -> list[SweepResult]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [one(np.random.default_rng(seed)) for seed in range(studies)]


def rows(results: list[SweepResult], split: str) -> list[pd.DataFrame]:
    """AUROC rows of the layers of each sweep."""
    tables = [result.table for result in results]
    return [t[(t.split == split) & (t.metric == "auroc") & (t.role == "layer")] for t in tables]


def claims(results: list[SweepResult]) -> list[bool]:
    return [any("is linearly" in text for text in result.sentences) for result in results]


@pytest.mark.parametrize(("n_groups", "icc", "before"), [(40, 0.0, "0.34"), (20, 0.3, "0.11")])
def test_a_sweep_of_noise_keeps_its_level_with_unequal_groups_of_one_label(
    n_groups: int, icc: float, before: str, studies: int, record_rate
) -> None:
    design = Design(group_sizes(n_groups, 5, equal=False), icc=icc)

    def one(rng: np.random.Generator) -> SweepResult:
        kind = "ridge" if n_groups == 40 else "massmean"
        config = SweepConfig(**{**FAST, "kinds": (kind,)}, Cs=(1e-2,), n_perm=39, seed=int(rng.integers(1 << 30)))
        feats = noise(rng, design, sites=1 if n_groups == 40 else 2, d=6)
        return sweep(feats, target=constant(rng, design.groups), groups=design.groups, config=config)

    results = many(studies, one)
    where = f"noise, labels constant in {n_groups} unequal groups, ICC {icc:g}"
    oof, test = rows(results, "oof"), rows(results, "test")
    record_rate([t.p_adjusted.min() <= 0.05 for t in oof], kind="level", name="probes.sweep, p_maxT", design=where,
                at_most=0.05, before=before)  # fmt: skip
    record_rate([t.p.iloc[0] <= 0.05 for t in test], kind="level", name="probes.sweep, p on TEST", design=where,
                at_most=0.05)  # fmt: skip
    record_rate(claims(results), kind="level", name="probes.sweep, 'is linearly decodable'", design=where,
                at_most=0.05)  # fmt: skip
    record_rate([bool(((t.band_lo <= 0.5) & (t.band_hi >= 0.5)).all()) for t in oof], kind="coverage",
                name="probes.sweep, band of AUROC over layers", design=where, at_least=0.93)  # fmt: skip
    record_rate([bool(t.lo.iloc[0] <= 0.5 <= t.hi.iloc[0]) for t in test], kind="coverage",
                name="probes.sweep, AUROC on TEST", design=where, at_least=0.93)  # fmt: skip


@pytest.mark.parametrize("equal", [True, False])
def test_labels_of_units_inside_groups_keep_their_level(equal: bool, studies: int, record_rate) -> None:
    n_groups, in_unit = 24, 3
    sizes = group_sizes(n_groups, 4, equal=equal)  # units of each group
    unit = np.repeat(np.arange(sum(sizes)), in_unit)
    groups = np.repeat(np.arange(n_groups), np.array(sizes) * in_unit)
    shared = Design((in_unit,) * sum(sizes), icc=0.5)  # rows of a unit are alike

    def one(rng: np.random.Generator) -> SweepResult:
        labels = rng.integers(0, 2, sum(sizes))[unit]
        config = SweepConfig(**FAST, n_perm=39, test_share=0.0, seed=int(rng.integers(1 << 30)))
        named: dict[str, Any] = {} if equal else {"unit": unit}  # groups of one size need no unit
        return sweep(noise(rng, shared), target=labels, groups=groups, config=config, **named)

    results = many(studies, one)
    assert {t.scheme.iloc[0] for t in rows(results, "oof")} == {"between" if equal else "unit"}
    record_rate(
        [t.p_adjusted.min() <= 0.05 for t in rows(results, "oof")],
        kind="level",
        name="probes.sweep, p_maxT",
        at_most=0.05,
        design=f"noise, labels of {in_unit} rows each inside {n_groups} {'equal' if equal else 'unequal'} groups",
        before="0.09" if equal else "0.11",
    )  # fmt: skip


def test_a_label_of_groups_one_standard_deviation_apart_is_found_in_20_groups(studies: int, record_rate) -> None:
    design = Design(group_sizes(20, 8), icc=0.3)

    def one(rng: np.random.Generator) -> SweepResult:
        feats, labels = noise(rng, design, sites=2), constant(rng, design.groups)
        for x in feats.values():
            x[:, 0] += labels
        config = SweepConfig(**FAST, n_perm=79, seed=int(rng.integers(1 << 30)))
        return sweep(feats, target=labels, groups=design.groups, config=config)

    record_rate(claims(many(studies, one)), kind="power", name="probes.sweep, 'is linearly decodable'", at_least=0.6,
                design="labels constant in 20 groups of 8, d = 1 along one of 8 features, ICC 0.3",
                before="0.07")  # fmt: skip


def test_one_of_three_classes_is_not_found_in_noise_more_often_than_one_of_two(studies: int, record_rate) -> None:
    design = Design(group_sizes(36, 3, equal=False))

    def one(rng: np.random.Generator) -> SweepResult:
        labels = np.array(["a", "b", "c"])[rng.permutation(36) % 3][design.groups]
        config = SweepConfig(**FAST, n_perm=79, test_share=0.0, seed=int(rng.integers(1 << 30)))
        return sweep(noise(rng, design), target=labels, groups=design.groups, config=config)

    record_rate(claims(many(studies // 2, one)), kind="level", name="probes.sweep, any class 'is linearly decodable'",
                design="noise, three classes constant in 36 unequal groups", at_most=0.05)  # fmt: skip


def test_labels_without_signal_have_a_compression_of_one(studies: int, record_rate) -> None:
    design, values, covered, found = Design(group_sizes(30, 4, equal=False)), [], [], []
    for seed in range(studies // 4):
        rng = np.random.default_rng(seed)
        labels = (rng.random(len(design.groups)) < 0.1).astype(int)
        if labels.sum() < 4:
            continue
        feats = torch.from_numpy(design.draw(rng, 6))
        one = mdl(feats, labels, groups=design.groups, Cs=(1e-2, 1.0), n_orders=1, seed=seed)
        values.append(one.compression.value)
        covered.append(one.compression.lo <= 1 <= one.compression.hi)
        found.append(one.p <= 0.05)
    assert abs(float(np.mean(values)) - 1) < 0.02  # 1.99 where compared with uniform labels
    where = "noise, 10 % positive rows in 30 unequal groups"
    record_rate(covered, kind="coverage", name="probes.mdl, compression 1", design=where, at_least=0.93,
                before="0.00 (1.99 in the mean)")  # fmt: skip
    record_rate(found, kind="level", name="probes.mdl, p", design=where, at_most=0.05)
