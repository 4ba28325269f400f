"""Control vectors: those of a matched partner (another reading), none, the layer's average, noise."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.oracle.features import Features

VectorControl = Literal["shuffled", "zero", "mean", "gaussian"]
ReaderControl = Literal["text_only", "no_adapter", "prior"]
VECTOR_CONTROLS: tuple[str, ...] = get_args(VectorControl)
READER_CONTROLS: tuple[str, ...] = get_args(ReaderControl)
HEADLINE = "shuffled"
TRIES = 50  # random orders to try per further derangement of a small stratum


class FewDonorsWarning(UserWarning):
    """Some readings have no matched partner, or only partners of their own problem."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One set of control vectors for the readings that have them.

    Attributes:
        control: name of the control; `number` counts its repeats (partners of a shuffle).
        feats:   the same slots with other vectors.
        donors:  for a shuffle: reading -> the reading whose vectors it gets.
    """

    control: str
    number: int
    feats: Features
    donors: Mapping[str, str] = field(default_factory=dict)


def variants(
    feats: Features, control: str, *, n: int = 1, seed: int = 0, tasks: Mapping[str, str] | None = None
) -> list[Variant]:
    """Control vectors of one kind.

    shuffled: those of another reading: a derangement within task, position rule, layers and number of positions, of
              another problem if there are enough. The headline control: it changes nothing but the content.
    zero:     nothing is injected. Off-distribution for a trained oracle, so no floor for accuracy.
    mean:     the average vector of the layer in these features.
    gaussian: a random direction.

    Args:
        n: number of partners of a shuffle, or of draws of noise; "zero" and "mean" have one.
        tasks: reading -> task, if the readings are of several tasks.
    Raises:
        ValueError: unknown control.
    """
    if control not in VECTOR_CONTROLS:
        raise ValueError(f"control {control!r}: expected one of {', '.join((*VECTOR_CONTROLS, *READER_CONTROLS))}.")
    if control == "zero":
        return [Variant("zero", 0, feats.with_vectors(torch.zeros_like(feats.vectors), control="zero"))]
    if control == "mean":
        return [Variant("mean", 0, feats.with_vectors(_layer_mean(feats), control="mean"))]
    if control == "gaussian":
        return [
            Variant("gaussian", i, feats.with_vectors(_noise(feats, seed + i), control="gaussian")) for i in range(n)
        ]
    return [_shuffled(feats, donors, i) for i, donors in enumerate(matched_donors(feats, n=n, seed=seed, tasks=tasks))]


def matched_donors(
    feats: Features, *, n: int = 1, seed: int = 0, tasks: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Up to `n` derangements, reading -> donor. Readings without a partner are left out.

    Within a stratum the readings are put in a random order, problem by problem, and shifted cyclically. A shift between
    the size m of the largest problem and the stratum's size minus m never pairs two readings of one problem. No reading
    gets a donor twice, so a small stratum may give fewer than `n`.
    """
    strata: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for item in feats.items:
        strata[((tasks or {}).get(item), *feats.kind(item))].append(item)
    out: list[dict[str, str]] = [{} for _ in range(n)]
    same_problem = alone = 0
    for key, items in strata.items():
        pool, clean = _shifts(feats, items)
        alone += len(items) if not pool else 0
        same_problem += 0 if clean else len(items)
        for number, donors in enumerate(_different(feats, items, pool, n, Random(f"{seed}/{key}"))):
            out[number] |= donors
    if alone or same_problem:
        warnings.warn(
            f"matched shuffle: {alone} of {len(feats)} readings have no partner of their task, position, layers and "
            f"count (they get no gap); {same_problem} are in a small stratum and may get partners of their own problem "
            f"(which makes their gap too small rather than too large). Ask about more problems at once.",
            FewDonorsWarning,
            stacklevel=3,
        )
    return [donors for donors in out if donors]


def partner_counts(
    feats: Features, *, n: int, seed: int = 0, tasks: Mapping[str, str] | None = None
) -> Int[np.ndarray, "reading"]:
    """Number of matched partners of each reading, of `n` requested, in the order of the readings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDonorsWarning)  # `variants` warns when the partners are used
        derangements = matched_donors(feats, n=n, seed=seed, tasks=tasks)
    return np.array([sum(item in donors for donors in derangements) for item in feats.items])


def _by_problem(feats: Features, items: Sequence[str], rng: Random) -> list[str]:
    problems: dict[str, list[str]] = defaultdict(list)
    for item in items:
        problems[feats.group(item)].append(item)
    names = list(problems)
    rng.shuffle(names)
    for of in problems.values():
        rng.shuffle(of)
    return [item for name in names for item in problems[name]]


def _shifts(feats: Features, items: Sequence[str]) -> tuple[list[int], bool]:
    """(possible shifts of a stratum, whether none of them pairs readings of one problem)."""
    if len(items) < 2:
        return [], True
    sizes: dict[str, int] = defaultdict(int)
    for item in items:
        sizes[feats.group(item)] += 1
    largest = max(sizes.values())
    clean = list(range(largest, len(items) - largest + 1))
    return clean or list(range(1, len(items))), bool(clean)


def _different(feats: Features, items: Sequence[str], pool: Sequence[int], n: int, rng: Random) -> list[dict[str, str]]:
    """Up to `n` derangements without a common (item, donor): shifts of one order, then of further random orders."""
    if not pool:
        return []
    order = _by_problem(feats, items, rng)
    derangements = [_shift(order, shift) for shift in rng.sample(list(pool), min(n, len(pool)))]
    used = {pair for donors in derangements for pair in donors.items()}
    for _ in range(TRIES * (n - len(derangements))):
        donors = _shift(_by_problem(feats, items, rng), rng.choice(list(pool)))
        if len(derangements) < n and used.isdisjoint(donors.items()):
            derangements.append(donors)
            used.update(donors.items())
    return derangements


def _shift(order: Sequence[str], by: int) -> dict[str, str]:
    return {item: order[(i + by) % len(order)] for i, item in enumerate(order)}


def _shuffled(feats: Features, donors: Mapping[str, str], number: int) -> Variant:
    kept = feats.select([item for item in feats.items if item in donors])
    rows = [row for item in kept.items for row in feats.rows(donors[item])]
    return Variant("shuffled", number, kept.with_vectors(feats.vectors[rows], control="shuffled"), dict(donors))


def _layer_mean(feats: Features) -> Tensor:
    """Average vector of each slot's layer over all slots, computed in float32, rounded to the vectors' dtype."""
    layers = torch.tensor([slot.layer for slot in feats.slots], device=feats.vectors.device)
    out = torch.empty_like(feats.vectors)
    for layer in layers.unique().tolist():
        out[layers == layer] = feats.vectors[layers == layer].float().mean(dim=0).to(out.dtype)
    return out


def _noise(feats: Features, seed: int) -> Tensor:
    """Random directions with each vector's norm; they depend on seed, reading and slot, not on the other readings."""
    out = torch.empty(feats.vectors.shape)
    for item in feats.items:
        rows = list(feats.rows(item))
        digest = hashlib.sha256(f"{seed}/{item}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        out[rows] = torch.randn(len(rows), feats.d_model, generator=generator)
    scale = feats.vectors.float().cpu().norm(dim=1, keepdim=True) / out.norm(dim=1, keepdim=True)
    return (out * scale).to(feats.vectors)
