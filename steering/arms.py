"""Arms of a dose curve: the direction, and everything of equal norm that it is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from interp.site import Site
from interp.stats import permute_labels
from interp.stats.check import Groups


class Role(NamedTuple):
    """What an arm is for.

    Attributes:
        means:      one line for readers of tables.
        is_control: the arm has no meaning; its spread is what the direction is compared with.
        difference: column of "minus the mean of these controls"; the direction is tested against controls with such a
            column, each kind separately (`p_<role>`). None for arms, and for controls that are only shown.
    """

    means: str
    is_control: bool = False
    difference: str | None = None


ROLES: Mapping[str, Role] = {
    "direction": Role("the direction that was fitted"),
    "orthogonalized": Role("the direction orthogonalized against the nuisances, at equal norm"),
    "nuisance": Role("a nuisance direction"),
    "opposite": Role("minus the direction"),
    "transferred": Role("the direction of another checkpoint"),
    "random": Role("uniform on the sphere", is_control=True, difference="control_difference"),
    "complement": Role("random, orthogonal to the direction and its nuisances", is_control=True),
    "shuffled": Role("fitted on permuted labels", is_control=True, difference="shuffled_difference"),
}
"""Every role that an arm can have; a further kind of control is one more row."""
CONTROLS = tuple(name for name, role in ROLES.items() if role.is_control)
SORTS = tuple(name for name, role in ROLES.items() if role.difference)
"""Controls that an effect has to exceed, each by itself."""
N_RANDOM, N_COMPLEMENT, N_SHUFFLED = 59, 5, 59
"""Default controls: the smallest p is 1/60, and two controls further out still leave p at 0.05."""
ALONE = "examples that are groups by themselves"
MIN_NULL = 19
"""Fewest controls of one sort for a p: with 19 the smallest is 1/20."""


@runtime_checkable
class Vector(Protocol):
    """A direction at a site; `steering.Direction` is one."""

    @property
    def unit(self) -> Float[Tensor, "d_model"]: ...
    @property
    def site(self) -> Site: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Arm:
    """One vector that is added at every strength. All arms of a site are added at equal norm.

    Attributes:
        role: one of `ROLES`.
        unit: float32, of length 1.
        draw: number of the arm within its role and site.
        name: name in tables.
        length: multiple of the direction's length at which it is added; 1 except for shuffled arms of their own length.
    Raises:
        ValueError: an unknown role, a vector that is not of length 1, or a length that is not positive.
    """

    role: str
    site: Site
    unit: Float[Tensor, "d_model"]
    draw: int = 0
    name: str = ""
    length: float = 1.0

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"arm role {self.role!r}: expected one of {', '.join(ROLES)}.")
        length = float(torch.linalg.vector_norm(self.unit.double()))
        if not abs(length - 1) < 1e-4:
            raise ValueError(f"arm {self.role} at {self.site}: expected a unit vector, got one of length {length:.4g}.")
        object.__setattr__(self, "unit", self.unit.detach().float().cpu())
        object.__setattr__(self, "name", self.name or (f"{self.role} {self.draw}" if self.is_control else self.role))

    @property
    def is_control(self) -> bool:
        return ROLES[self.role].is_control


def random_arms(site: Site, d_model: int, *, n: int = N_RANDOM, seed: int = 0) -> list[Arm]:
    """Directions drawn uniformly from the sphere: a Gaussian vector over its length."""
    draws = np.random.default_rng([seed, 1, site.layer or 0]).standard_normal((n, d_model))
    return [Arm("random", site, _unit(draw), k) for k, draw in enumerate(draws)]


def complement_arms(site: Site, span: Float[Tensor, "k d_model"], *, n: int = N_COMPLEMENT, seed: int = 0) -> list[Arm]:
    """Random directions orthogonal to every row of `span` (the direction and its nuisances).

    Raises:
        ValueError: nothing is orthogonal to the span.
    """
    rows = span.double().numpy()
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    basis = right[values > values.max() * 1e-6]
    if len(basis) >= rows.shape[1]:
        raise ValueError(f"complement arms: {len(basis)} directions span all {rows.shape[1]} dimensions.")
    draws = np.random.default_rng([seed, 2, site.layer or 0]).standard_normal((n, rows.shape[1]))
    for _ in range(2):  # once more, since the first pass leaves rounding of the size of the removed part
        draws = draws - draws @ basis.T @ basis
    return [Arm("complement", site, _unit(draw), k) for k, draw in enumerate(draws)]


def shuffled_arms(
    site: Site,
    feats: Float[Tensor, "example d_model"],
    is_toward: Sequence[bool] | Bool[np.ndarray, "example"],
    *,
    strata: Groups = None,
    groups: Groups = None,
    n: int = N_SHUFFLED,
    seed: int = 0,
    equal_length: bool = True,
) -> list[Arm]:
    """Differences of means of the same activations under permuted labels: the null that keeps their covariance.

    Labels are permuted within strata if strata are given. Without strata they are permuted among groups if each group
    has one label, within groups if labels vary (examples that are alone in their group are permuted among each other),
    and freely if there are no groups.

    Args:
        feats: activations that the direction was fitted on, one row per example.
        is_toward: True for examples of the class that + moves toward.
        strata: stratum of each example if the direction was balanced by strata; otherwise None.
        groups: independent unit of each example.
        equal_length: add all at the direction's norm: does any direction of large variance have the effect? False adds
            each at its own norm: does the pipeline have the effect on labels without information? If one axis carries
            most of the variance, every shuffled difference is along it, and only the second question can be answered.
    Raises:
        ValueError: lengths differ, one class only, strata within which nothing can be permuted.
    Source: docs/howto/dose_curves.md.
    """
    labels = np.asarray(is_toward, dtype=bool)
    if len(labels) != len(feats) or labels.all() or not labels.any():
        raise ValueError(
            f"shuffled arms: expected two classes over {len(feats)} examples, got {int(labels.sum())} toward of "
            f"{len(labels)} labels."
        )
    scheme, units = permutation_scheme(labels, strata, groups)
    rng = np.random.default_rng([seed, 3, site.layer or 0])
    permuted = permute_labels(labels, groups=units, n_permutations=n, seed=rng, scheme=scheme)
    weights = difference_weights(permuted, np.ones(permuted.shape), strata=strata)
    true = difference_weights(labels[None], np.ones((1, len(labels))), strata=strata)
    *draws, own = np.concatenate([weights, true]) @ feats.double().cpu().numpy()
    share = [1.0 if equal_length else float(np.linalg.norm(draw) / np.linalg.norm(own)) for draw in draws]
    return [Arm("shuffled", site, _unit(draw), k, length=share[k]) for k, draw in enumerate(draws)]


def permutation_scheme(
    labels: Shaped[np.ndarray, "example"], strata: Groups, groups: Groups
) -> tuple[str, list[str] | None]:
    """(how labels are permuted, among what): strata first, else independent units, those of one example together."""
    if strata is not None:
        return "within", np.asarray(strata).astype(str).tolist()
    if groups is None:
        return "within", None
    named = np.asarray(groups).astype(str).tolist()
    labels_of: dict[str, set[int]] = {}
    for name, label in zip(named, labels.tolist(), strict=True):
        labels_of.setdefault(name, set()).add(label)
    if all(len(kinds) == 1 for kinds in labels_of.values()):
        return "group", named
    # a group of one example has nothing to permute inside it: its label would stay right in every draw
    alone = {name for name, count in Counter(named).items() if count == 1}
    return "within", [ALONE if name in alone else name for name in named]


def difference_weights(
    is_toward: Bool[np.ndarray, "draw example"],
    counts: Float[np.ndarray, "draw example"],
    *,
    strata: Groups = None,
) -> Float[np.ndarray, "draw example"]:
    """w with w @ feats = the difference of means of every draw.

        sum over strata s of  h_s / sum h · (mean over toward in s - mean over away in s),   h = n₊ n₋ / (n₊ + n₋)

    Strata with one class drop out. `counts` is how often each example was drawn.
    """
    codes = np.zeros(is_toward.shape[1], dtype=int)
    if strata is not None:
        codes = np.unique(np.asarray(strata).astype(str).tolist(), return_inverse=True)[1]
    member = codes == np.arange(codes.max() + 1)[:, None]  # [stratum, example]
    plus, minus = counts * is_toward, counts * ~is_toward
    n_plus, n_minus = plus @ member.T, minus @ member.T  # [draw, stratum]
    total = n_plus + n_minus
    harmonic = np.divide(n_plus * n_minus, total, out=np.zeros_like(total), where=total > 0)
    share = harmonic / harmonic.sum(axis=1, keepdims=True)
    up, down = (np.divide(share, n, out=np.zeros_like(n), where=harmonic > 0) for n in (n_plus, n_minus))
    return plus * (up @ member) - minus * (down @ member)


def protocol_arms(
    direction: Vector,
    *,
    orthogonalized: Vector | None = None,
    nuisances: Sequence[Vector] = (),
    shuffled: Sequence[Arm] = (),
    n_random: int = N_RANDOM,
    n_complement: int = N_COMPLEMENT,
    opposite: bool = True,
    seed: int = 0,
) -> list[Arm]:
    """All arms of one site: the direction, the directions it is compared with, and controls of equal norm.

    Args:
        orthogonalized: the direction orthogonalized against the nuisances.
        nuisances: directions that it must not be confused with (abstention, letters); steered as separate arms.
        shuffled: from `shuffled_arms`.
        opposite: also -direction, at the same strengths: on a symmetric grid it costs nothing.
    Raises:
        ValueError: vectors of several sites or widths, or fewer than 19 random controls.
    """
    others = [*nuisances, *([orthogonalized] if orthogonalized is not None else [])]
    for one in others:
        if one.site != direction.site or one.unit.shape != direction.unit.shape:
            raise ValueError(
                f"arm {one.label!r} is at {one.site} with {len(one.unit)} dimensions, the direction at "
                f"{direction.site} with {len(direction.unit)}. Take both from one layer of one model."
            )
    if n_random < MIN_NULL:
        raise ValueError(
            f"random controls: expected at least {MIN_NULL}, got {n_random}: p could not go below 1/{n_random + 1}."
        )
    site, unit = direction.site, direction.unit
    arms = [Arm("direction", site, unit, name=direction.label)]
    if orthogonalized is not None:
        arms.append(Arm("orthogonalized", site, orthogonalized.unit, name=orthogonalized.label))
    arms += [Arm("nuisance", site, one.unit, k, one.label) for k, one in enumerate(nuisances)]
    arms += [Arm("opposite", site, -unit)] if opposite else []
    span = torch.stack([unit.detach().cpu().double(), *(one.unit.detach().cpu().double() for one in nuisances)])
    arms += random_arms(site, len(unit), n=n_random, seed=seed)
    arms += complement_arms(site, span, n=n_complement, seed=seed) if n_complement else []
    return [*arms, *shuffled]


def _unit(draw: Float[np.ndarray, "d_model"]) -> Float[Tensor, "d_model"]:
    length = float(np.linalg.norm(draw))
    if not length > 0:
        raise ValueError("a control direction has norm 0: the activations do not differ between any classes.")
    return torch.from_numpy(draw / length).float()
