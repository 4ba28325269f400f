"""Difference of class means from a cache: streamed in float64, weighted by design, its sign checked."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.io.paths import is_local, shown
from interp.progress import track
from interp.remedy import remedy
from interp.site import Site
from interp.where import kept
from steering.direction import Direction, Directions
from steering.residue import Moments, pooled_covariance
from steering.rows import Balance, ContrastRows, NoDirectionError, Weighting, contrast_rows
from steering.walk import (
    AUTO,
    Column,
    Plan,
    PositionRows,
    at_site,
    check_residual,
    column,
    fit_mask,
    group_column,
    only_position,
    residual_sites,
    stratum_column,
)


class SignNotConfirmedWarning(UserWarning):
    """Some sites have no direction, because held-out rows contradict its sign there."""


@overload
def difference_of_means(
    cache: ActivationCache,
    *,
    toward: str | Sequence[str],
    away_from: str | Sequence[str],
    site: str | Site,
    target: Column = ...,
    position: str | None = ...,
    balance: Balance = ...,
    strata: Column = ...,
    groups: Column = ...,
    fit_on: str | Sequence[bool] | np.ndarray | None = ...,
    weighting: Weighting = ...,
    seed: int = ...,
    where: str | Sequence[str] = ...,
    check_sign: bool = ...,
    name: str = ...,
) -> Direction: ...
@overload
def difference_of_means(
    cache: ActivationCache,
    *,
    toward: str | Sequence[str],
    away_from: str | Sequence[str],
    site: Sequence[str | Site] | None = ...,
    target: Column = ...,
    position: str | None = ...,
    balance: Balance = ...,
    strata: Column = ...,
    groups: Column = ...,
    fit_on: str | Sequence[bool] | np.ndarray | None = ...,
    weighting: Weighting = ...,
    seed: int = ...,
    where: str | Sequence[str] = ...,
    check_sign: bool = ...,
    name: str = ...,
) -> Directions: ...
def difference_of_means(
    cache: ActivationCache,
    *,
    toward: str | Sequence[str],
    away_from: str | Sequence[str],
    site: str | Site | Sequence[str | Site] | None = None,
    target: Column = "label",
    position: str | None = None,
    balance: Balance = "none",
    strata: Column = AUTO,
    groups: Column = AUTO,
    fit_on: str | Sequence[bool] | np.ndarray | None = None,
    weighting: Weighting = "harmonic",
    seed: int = 0,
    where: str | Sequence[str] = (),
    check_sign: bool = True,
    name: str = "",
) -> Direction | Directions:
    """The mean activation of class `toward` minus that of `away_from`, at one site or at every `resid_post` site.

        vec = Σ_s w_s (mean of toward in s - mean of away_from in s)

    with one stratum s and w = 1 unless balance="strata"; see `ContrastRows.weights`. Classes may differ in size and
    need no pairing. If an example has several tokens, their mean is used. Rows are read block by block.

    Args:
        toward, away_from: class names; several form a side whose classes weigh equally (balance other than "none").
            +alpha moves toward `toward`.
        target:  column of the examples with the class, or the classes themselves.
        site:    one site gives a Direction; several, or None for every resid_post site of the cache, `Directions`.
        position: rule of the cache; optional if there is only one.
        strata, groups: columns, or values; "auto" looks for the usual names. groups=None: examples are independent.
        fit_on:  "split=train" or a mask; the other examples are held out and check the sign. Without it the sign is
            checked between halves of the groups, each on the direction of the other.
        weighting: weights of the strata: harmonic (least variance) or uniform.
        seed:    seed of the random halves of the groups.
        where:   conditions on the columns of the examples, such as "context_condition=ambig" (`interp.where`); an
            example that does not meet all of them has no class.
        check_sign: drop every site whose sign held-out rows contradict (`confirmed`); False for null directions
            (shuffled labels), whose sign is arbitrary.
    Raises:
        ValueError: anything that `steering.rows.contrast_rows` refuses; a column, site or position that is not in the
            cache; no site is confirmed.
    Warns:
        SignNotConfirmedWarning: some sites were left out; `Directions.refused` says why.

    Example:
        >>> direction = difference_of_means(cache, toward="yes", away_from="no", site="resid_post.1")
        >>> direction.label, direction.stats.n_toward, direction.stats.n_away
        ('no → yes', 12, 12)
    """
    is_one = isinstance(site, str | Site)
    sites = residual_sites(cache) if site is None else [check_residual(s) for s in ([site] if is_one else site)]
    columns: dict[str, Any] = dict(target=target, strata=strata, groups=groups, fit_on=fit_on, conditions=where)
    how: dict[str, Any] = dict(position=position, balance=balance, weighting=weighting, seed=seed)
    fit = _prepare(cache, toward, away_from, **columns, **how)
    with track("directions", len(sites), unit="sites") as bar:
        fitted = Directions(dict(zip(sites, bar.over(fit.at(one, name) for one in sites), strict=True)))
    fitted = confirmed(fitted) if check_sign else fitted
    return fitted[sites[0]] if is_one else fitted


def direction_along(
    cache: ActivationCache,
    vec: Float[Tensor, "d_model"],
    *,
    toward: str | Sequence[str],
    away_from: str | Sequence[str],
    site: str | Site,
    target: Column = "label",
    position: str | None = None,
    groups: Column = AUTO,
    fit_on: str | Sequence[bool] | np.ndarray | None = None,
    seed: int = 0,
    where: str | Sequence[str] = (),
    name: str = "",
) -> Direction:
    """A given vector (such as a probe's weights in raw activation units) as a direction, measured on a cache.

    Its length is the gap between the class means along it, so that alpha = 1 in unit "delta" shifts by one gap, as for
    a difference of means. Options as `difference_of_means`.

    Raises:
        ValueError: as `difference_of_means`; a vector of another width; the classes are in the opposite order along the
            vector.
    """
    columns: dict[str, Any] = dict(target=target, strata=None, groups=groups, fit_on=fit_on, conditions=where)
    fit = _prepare(
        cache, toward, away_from, **columns, position=position, balance="none", weighting="harmonic", seed=seed
    )
    return fit.at(check_residual(site), name, vec)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A contrast on a cache, ready for any of its sites."""

    where: PositionRows
    rows: ContrastRows
    plan: Plan
    sides: tuple[str, str]
    origin: Mapping[str, object]

    def at(self, site: Site, name: str, vec: Tensor | None = None) -> Direction:
        mean, diff, stats = at_site(self.where, site, self.rows, self.plan, vec)
        how = {"method": "difference of means" if vec is None else "given vector"}
        return Direction(
            diff,
            site,
            *self.sides,
            stats=stats,
            position=self.where.position,
            provenance={**self.origin, **how},
            name=name,
            means=mean,
        )


def _prepare(
    cache: ActivationCache,
    toward: str | Sequence[str],
    away_from: str | Sequence[str],
    *,
    target: Column,
    position: str | None,
    balance: Balance,
    strata: Column,
    groups: Column,
    fit_on: str | Sequence[bool] | np.ndarray | None,
    weighting: Weighting,
    seed: int,
    conditions: str | Sequence[str],
) -> _Fit:
    sides = tuple((one,) if isinstance(one, str) else tuple(one) for one in (toward, away_from))
    groups = group_column(cache) if isinstance(groups, str) and groups == AUTO else groups
    if isinstance(strata, str) and strata == AUTO:
        strata = stratum_column(cache) if balance == "strata" else None
    where = PositionRows(cache, only_position(cache, position))
    labels = column(cache, "target", target)
    assert labels is not None, "target is never None"
    labels = labels.copy()
    chosen = (conditions,) if isinstance(conditions, str) else tuple(conditions)
    labels[~kept(cache.examples, chosen, n=len(cache))] = None
    labels[where.per_example == 0] = None  # an example in which the rule found no token has no mean
    rows = contrast_rows(
        labels,
        toward=sides[0],
        away_from=sides[1],
        groups=column(cache, "groups", groups),
        strata=column(cache, "strata", strata) if balance == "strata" else None,
        is_fit=fit_mask(cache, fit_on),
        balance=balance,
        weighting=weighting,
        seed=seed,
    )
    used = {"target": target, "groups": groups, "strata": strata if balance == "strata" else None, "fit_on": fit_on}
    origin = _provenance(cache, rows, where) | {
        "balance": balance,
        "weighting": weighting,
        "seed": seed,
        **{key: value if isinstance(value, str) or value is None else "(given values)" for key, value in used.items()},
    }
    origin |= {"where": list(chosen)} if chosen else {}
    plan = Plan.of(rows, np.random.default_rng(seed))
    return _Fit(where, rows, plan, ("+".join(sides[0]), "+".join(sides[1])), origin)


def within_covariance(
    cache: ActivationCache,
    *,
    classes: Sequence[str],
    site: str | Site,
    target: Column = "label",
    position: str | None = None,
    fit_on: str | Sequence[bool] | np.ndarray | None = None,
    shrinkage: float = 0.1,
) -> Float[Tensor, "d_model d_model"]:
    """Within-class covariance of the rows of some classes at one site, for `orthogonalize(metric="cov" | "leace")`.

    Raises:
        ValueError: as `difference_of_means` and `steering.residue.pooled_covariance`.
    """
    labels, where = column(cache, "target", target), PositionRows(cache, only_position(cache, position))
    fit = fit_mask(cache, fit_on)
    assert labels is not None, "target is never None"
    names = np.array([str(value) for value in labels])
    parts: dict[str, Moments] = {}
    for name in classes:
        use = (names == name) & (fit if fit is not None else True)
        for _, _, feats in where.blocks(check_residual(site), use):
            block = Moments.of(feats, full=True)
            parts[name] = parts[name] + block if name in parts else block
    if missing := [name for name in classes if name not in parts]:
        raise ValueError(f"class {missing[0]!r} has no row. Classes of the cache: {sorted(set(names.tolist()))[:12]}.")
    return pooled_covariance(list(parts.values()), shrinkage=shrinkage)


def confirmed(directions: Directions) -> Directions:
    """The directions whose sign held-out rows confirm; `refused` says why the other sites have none.

    The rule is the same for one site and for many: if the mean projection of toward minus away_from on held-out rows is
    at most 0, the site has no direction. Without held-out rows, no site is dropped.

    Raises:
        NoDirectionError: no site is left.
    Warns:
        SignNotConfirmedWarning: some sites were left out.
    """
    refused = dict(directions.refused)
    for site, one in directions.items():
        if one.stats.held_out_gap <= 0:
            refused[site] = (
                f"on held-out rows, {one.toward} minus {one.away_from} is {one.stats.held_out_gap:.3g}, of "
                f"{one.stats.delta_norm:.3g} on its own rows: the classes are not separable"
            )
    lost = [site for site in directions if site in refused]
    if not lost:
        return directions
    if len(lost) == len(directions):
        raise NoDirectionError(
            f"{lost[0]}: {refused[lost[0]]}{' at this site, nor at any other' if len(directions) > 1 else ''}. "
            f"Use more rows or another site{remedy('; {check_sign:False} keeps it')}."
        )
    warnings.warn(
        f"{len(lost)} of {len(directions)} sites have no direction; {lost[0]}: {refused[lost[0]]}.",
        SignNotConfirmedWarning,
        stacklevel=3,
    )
    return Directions({site: one for site, one in directions.items() if site not in refused}, refused)


def id_digest(name: str) -> str:
    """Digest of the id of an example that a direction was fitted on: enough to recognise it again."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _shared(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint that a cache names, with local folders shortened to their last name."""
    places = {key: str(checkpoint[key]) for key in ("base", "adapter", "tokenizer") if checkpoint.get(key)}
    local = {key: shown(place) for key, place in places.items() if is_local(place)}
    return {**checkpoint, **local, "local": sorted({*local, *checkpoint.get("local", ())})}


def _provenance(cache: ActivationCache, rows: ContrastRows, where: PositionRows) -> dict[str, object]:
    identity: dict[str, Any] = cache.manifest["identity"]
    environment = cache.manifest.get("environment") or {}
    checkpoint = environment.get("checkpoint") or {}
    adapter, fit = identity.get("adapter") or {}, np.flatnonzero(rows.is_fit & (rows.klass >= 0))
    ids = cache.examples["id"].to_numpy()
    named = [f"{ids[i]}|{rows.classes[rows.klass[i]]}" for i in fit]
    tokens = Counter(where.tokens[int(i)] for i in fit if int(i) in where.tokens)
    return {
        "checkpoint": checkpoint.get("name"),
        "source": _shared(checkpoint),
        "model_type": environment.get("model_type"),
        "model": {**identity["model"], "adapter_sha256": adapter.get("sha256"), "merged": adapter.get("merged", False)},
        "numerics": identity.get("numerics"),
        "cache": cache.plan_id,
        "prompts_sha256": identity["prompts"]["sha256"],
        "examples_sha256": hashlib.sha256("\n".join(named).encode()).hexdigest(),
        "fitted_ids": [id_digest(str(ids[i])) for i in fit],
        "tokens": dict(tokens.most_common(5)),
    }
