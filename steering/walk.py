"""Two passes over one cached site (sums that are linear in the activations, then the spread), and its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.cache.manifest import read_examples
from interp.remedy import remedy
from interp.site import SITE_KINDS, Site, as_site
from interp.where import kept
from steering.direction import NAN, DirectionStats
from steering.rows import ContrastRows

Column: TypeAlias = str | Sequence[Any] | np.ndarray | None
GROUP_COLUMNS = ("story", "procedure", "procedure_id", "group")
STRATUM_COLUMNS = ("stratum", "template")
AUTO = "auto"


def column(cache: ActivationCache, what: str, values: Column) -> np.ndarray | None:
    """A column of the examples by name, or values given in their order.

    Raises:
        ValueError: no such column (the known ones are listed), or a number of values that differs from the number of
            examples.
    """
    if values is None:
        return None
    if isinstance(values, str):
        examples = cache.examples
        if values not in examples.columns:
            raise ValueError(f"{what}={values!r}: no such column of {cache.root.name}. Columns: {_named(cache)}.")
        return examples[values].to_numpy(dtype=object)
    array = np.asarray(values, dtype=object)
    if array.shape != (len(cache),):
        raise ValueError(f"{what}: expected one value per example, shape ({len(cache)},), got {array.shape}.")
    return array


def group_column(cache: ActivationCache) -> str:
    """The default column of the independent unit: story, procedure, ..., otherwise the only group column.

    Raises:
        ValueError: several group columns, or none; they are listed.
    """
    names = [n.removeprefix("groups.") for n in read_examples(cache.root).column_names if n.startswith("groups.")]
    chosen = next((name for name in GROUP_COLUMNS if name in names), names[0] if len(names) == 1 else None)
    if chosen is None:
        raise ValueError(
            f"groups: which column of {cache.root.name} is the independent unit? Its group columns are "
            f"{', '.join(names) or 'none'}. {remedy('Name one with {groups}.')}"
        )
    return chosen


def stratum_column(cache: ActivationCache) -> str:
    """The default column to balance over: stratum, else template.

    Raises:
        ValueError: the cache has neither; the error lists its columns.
    """
    chosen = next((name for name in STRATUM_COLUMNS if name in cache.examples.columns), None)
    if chosen is None:
        named = remedy("name the column with {strata}", "there is no such column")
        raise ValueError(f"balance strata: {named}. Columns of the cache: {_named(cache)}.")
    return chosen


def fit_mask(cache: ActivationCache, fit_on: str | Sequence[bool] | np.ndarray | None) -> np.ndarray | None:
    """True on the examples to fit on: a condition such as "split=train", a truth value each, or None for all.

    Raises:
        ValueError: as `interp.where.kept`.
    """
    if not isinstance(fit_on, str):
        values = column(cache, "fit_on", fit_on)
        return None if values is None else values.astype(bool)
    return kept(cache.examples, fit_on, n=len(cache), option="fit_on")


def residual_sites(cache: ActivationCache) -> list[Site]:
    """The cache's `resid_post` sites in order of layers; the default of `site`.

    Raises:
        ValueError: it has none.
    """
    sites = sorted((Site.parse(s) for s in cache.sites if s.startswith("resid_post.")), key=lambda s: s.layer or 0)
    if not sites:
        named = remedy("Name one with {site}.", "Name one with {sites}.", "Record some with {cache.sites}.")
        raise ValueError(f"{cache.root.name} has no resid_post site; its sites are {', '.join(cache.sites)}. {named}")
    return sites


def check_residual(site: str | Site) -> Site:
    """The site. Raises a ValueError unless its activation is a vector of the residual stream."""
    site = as_site(site)
    if SITE_KINDS[site.kind].shape != "d_model":
        kinds = ", ".join(kind for kind, row in SITE_KINDS.items() if row.shape == "d_model")
        raise ValueError(f"site '{site}': a direction is a vector of the residual stream; expected one of {kinds}.")
    return site


def only_position(cache: ActivationCache, position: str | None) -> str:
    """`position`, or the cache's only one. Raises a ValueError if there are several."""
    if position is None and len(cache.positions) != 1:
        raise ValueError(f"position: the cache has {', '.join(cache.positions)}; name one.")
    return cache.positions[0] if position is None else position


class PositionRows:
    """The rows of one position rule of a cache: example and token number of each, and rows per example."""

    def __init__(self, cache: ActivationCache, position: str) -> None:
        if position not in cache.positions:
            raise ValueError(f"position {position!r} is not in the cache; its positions: {', '.join(cache.positions)}.")
        self.cache, self.position = cache, position
        table = cache.rows
        self.example = table["example"].to_numpy()
        self.token_number = table["position"].to_numpy()
        inside = table["position_name"].to_numpy() == position
        self.per_example = np.bincount(self.example[inside], minlength=len(cache))
        self.tokens: Mapping[int, str] = dict(zip(self.example[inside], table["token_text"][inside], strict=True))

    def blocks(
        self, site: Site, use: np.ndarray, *, block_rows: int = 2048
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Float[Tensor, "row d_model"]]]:
        """(example, token number, activations in float64) of the rows of the examples `use`, a block at a time.

        Raises:
            ValueError: NaN or infinity, naming the example.
        """
        for rows, feats in self.cache.iter_blocks(site, self.position, block_rows=block_rows):
            number = rows.numpy()
            keep = use[self.example[number]]
            if not keep.any():
                continue
            example, wide = self.example[number][keep], feats[torch.from_numpy(keep)].double()
            if not bool(wide.isfinite().all()):
                bad = example[int((~wide.isfinite().all(dim=1)).nonzero()[0])]
                name = self.cache.examples["id"].iloc[bad]
                raise ValueError(
                    f"{site}, {self.position}: NaN or infinity in example {name!r}. Leave it out (where='id!={name}')."
                )
            yield example, self.token_number[number][keep], wide


def _named(cache: ActivationCache) -> str:
    return ", ".join(name for name in cache.examples.columns if not name.startswith(("position.", "token.")))


MOST_UNITS = 512
"""Pairs or strata whose agreement with the direction is measured; of more, a random choice."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is linear in the activations, as weights of examples: [k, example], and units for agreement.

    Rows of `weights`: mean of toward, mean of away_from, held-out difference (if any), then two halves per halving.
    """

    weights: Float[Tensor, "k example"]
    has_held_out: bool
    unit_of: np.ndarray
    unit_weight: np.ndarray
    n_units: int

    @classmethod
    def of(cls, rows: ContrastRows, rng: np.random.Generator) -> Plan:
        main = rows.weights()
        assert main is not None, "contrast_rows has checked it"
        vectors = [*main]
        held_out = rows.held_out().weights()
        vectors += [] if held_out is None else [held_out[0] - held_out[1]]
        for halves in rows.halvings():
            both = [half.weights() for half in halves]
            if both[0] is not None and both[1] is not None:
                vectors += [w[0] - w[1] for w in both if w is not None]
        unit_of, weight, n = _units(rows, rng)
        return cls(torch.from_numpy(np.stack(vectors)), held_out is not None, unit_of, weight, n)


def _units(rows: ContrastRows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Unit code (-1: none) and signed weight of each example, so that a unit's weighted sum is its own difference.

    Units are strata where these balance, else groups; those with both sides count.
    """
    code = rows.stratum if rows.balance == "strata" else rows.group
    use = rows.is_fit & (rows.klass >= 0) & (code >= 0)
    size = code.max(initial=0) + 1
    n_plus, n_minus = (np.bincount(code[use & (rows.sign == s)], minlength=size) for s in (1, -1))
    complete = np.flatnonzero((n_plus > 0) & (n_minus > 0))
    if len(complete) > MOST_UNITS:
        complete = np.sort(rng.choice(complete, MOST_UNITS, replace=False))
    number = np.full(size, -1)
    number[complete] = np.arange(len(complete))
    unit_of = np.where(use, number[np.maximum(code, 0)], -1)
    counts = np.where(rows.sign > 0, n_plus[np.maximum(code, 0)], n_minus[np.maximum(code, 0)])
    return unit_of, np.where(unit_of >= 0, rows.sign / np.maximum(counts, 1), 0.0), len(complete)


@dataclass
class _Sums:
    """Sums collected in the first pass over a site."""

    linear: Tensor
    units: Tensor
    norm: np.ndarray
    n_norm: np.ndarray


def _walk(where: PositionRows, site: Site, rows: ContrastRows, plan: Plan) -> _Sums:
    sums: _Sums | None = None
    fit_sign = np.where(rows.is_fit, rows.sign, 0)
    for example, token, feats in where.blocks(site, rows.klass >= 0):
        if sums is None:
            d = feats.shape[1]
            sums = _Sums(
                feats.new_zeros(len(plan.weights), d), feats.new_zeros(plan.n_units, d), np.zeros(2), np.zeros(2)
            )
        share = torch.from_numpy(1.0 / where.per_example[example])
        sums.linear += (plan.weights[:, torch.from_numpy(example.astype(np.int64))] * share) @ feats
        unit = plan.unit_of[example]
        if (unit >= 0).any():
            weight = torch.from_numpy(plan.unit_weight[example]) * share
            inside = torch.from_numpy(unit >= 0)
            sums.units.index_add_(0, torch.from_numpy(unit)[inside], (feats * weight[:, None])[inside])
        norm = feats.norm(dim=1).numpy()
        for i, side in enumerate((1, -1)):
            counted = (fit_sign[example] == side) & (token > 0)  # token 0 is an attention sink of outsize norm
            sums.norm[i] += norm[counted].sum()
            sums.n_norm[i] += counted.sum()
    if sums is None:
        raise ValueError(f"{site}, {where.position}: no example of the contrast has a row there.")
    return sums


def at_site(
    where: PositionRows, site: Site, rows: ContrastRows, plan: Plan, vec: Float[Tensor, "d_model"] | None = None
) -> tuple[Float[Tensor, "2 d_model"], Float[Tensor, "d_model"], DirectionStats]:
    """Class means in float64, the direction, and its statistics.

    Args:
        vec: a vector that was fitted elsewhere, measured on these rows and returned at the length of the class gap
            along it; None is the difference of the means.
    Raises:
        ValueError: equal means, or a `vec` along which the classes are in the other order.
    """
    sums = _walk(where, site, rows, plan)
    mean, rest = sums.linear[:2], sums.linear[2:]
    diff = mean[0] - mean[1]
    if not float(diff.norm()) > 0:
        raise ValueError(f"{site}, {where.position}: both classes have the same mean; no direction there.")
    unit = diff / diff.norm() if vec is None else vec.double() / vec.double().norm()
    length = float(diff @ unit)
    if not length > 0:
        raise ValueError(
            f"{site}, {where.position}: along the given vector {rows.classes[0]!r} is below the other side (gap "
            f"{length:.3g}). Exchange toward and away_from, or give the vector with the other sign."
        )
    sd = _within_sd(_projections(where, site, rows, unit), rows)
    held_out, halves = (rest[0], rest[1:]) if plan.has_held_out else (None, rest)
    cosine, crossed = _of_halves(halves) if vec is None else (NAN, NAN)
    with np.errstate(invalid="ignore", divide="ignore"):
        norms, norm = sums.norm / sums.n_norm, float(sums.norm.sum() / sums.n_norm.sum())
    fit = rows.is_fit & (rows.klass >= 0)
    n_complete, skipped = rows.n_strata()
    return (
        mean,
        length * unit,
        DirectionStats(
            delta_norm=length,
            resid_norm=norm,
            sd_within=sd,
            d_prime=length / sd if sd > 0 else NAN,
            split_half_cosine=cosine,
            pair_agreement=float(torch.cosine_similarity(sums.units, unit[None]).mean()) if plan.n_units > 1 else NAN,
            proj_toward=float(mean[0] @ unit),
            proj_away=float(mean[1] @ unit),
            resid_norm_toward=float(norms[0]),
            resid_norm_away=float(norms[1]),
            held_out_gap=crossed if held_out is None else float(held_out @ unit),
            n_toward=int((fit & (rows.sign > 0)).sum()),
            n_away=int((fit & (rows.sign < 0)).sum()),
            n_groups=len(np.unique(rows.group[fit])),
            n_held_out=int((~rows.is_fit & (rows.klass >= 0)).sum()),
            n_strata=n_complete,
            n_strata_skipped=skipped,
        ),
    )


def _of_halves(halves: Float[Tensor, "half d_model"]) -> tuple[float, float]:
    """Mean cosine of the two halves of every halving, and mean gap of each half on the direction of the other."""
    if not len(halves):
        return NAN, NAN
    first, second = halves[0::2], halves[1::2]
    crossed = (first * second).sum(dim=1) * (1 / first.norm(dim=1) + 1 / second.norm(dim=1)) / 2
    return torch.cosine_similarity(first, second, dim=1).mean().item(), crossed.mean().item()


def _projections(where: PositionRows, site: Site, rows: ContrastRows, unit: Tensor) -> np.ndarray:
    """resid · unit of each example, mean over its rows; 0 for examples outside of the contrast."""
    along = np.zeros(len(rows.klass))
    for example, _, feats in where.blocks(site, rows.klass >= 0):
        np.add.at(along, example, (feats @ unit).numpy() / where.per_example[example])
    return along


def _within_sd(along: np.ndarray, rows: ContrastRows) -> float:
    """Pooled over classes: sqrt( Σ_c Σ (p - mean_c)² / Σ_c (n_c - 1) )."""
    squares = freedom = 0.0
    for c in range(len(rows.classes)):
        p = along[rows.is_fit & (rows.klass == c)]
        squares += float(((p - p.mean()) ** 2).sum())
        freedom += len(p) - 1
    return (squares / freedom) ** 0.5 if freedom > 0 else NAN
