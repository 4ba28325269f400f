"""Directions of two checkpoints side by side: how far they agree, and how far they could, given their own noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from interp.site import Site
from interp.stats import Estimate, permute_labels
from interp.stats._check import Groups, group_codes
from interp.stats.resample import group_weights
from steering.arms import difference_weights, permutation_scheme
from steering.direction import Direction

if TYPE_CHECKING:
    import pandas as pd

N_RESAMPLES = 1000


def reliability(split_half_cosine: float) -> float:
    """Expected cosine of a direction with one fitted on as many other rows, from that of its two halves.

        r = 2 c / (1 + c)      (Spearman-Brown: each half has twice the noise variance of the whole)

    NaN where the halves do not agree (c <= 0): then there is no direction to compare.
    """
    return 2 * split_half_cosine / (1 + split_half_cosine) if split_half_cosine > 0 else float("nan")


def pair_cosines(
    a: Mapping[Site, Direction], b: Mapping[Site, Direction], *, names: tuple[str, str] = ("engaged", "heuristic")
) -> pd.DataFrame:
    """Cosine of the directions of two checkpoints at every site that both have, beside its ceiling.

        ceiling = sqrt(r_a r_b),   corrected = cosine / ceiling,   r = `reliability` of each

    Columns also fit `study.figures.cosines`: a, b, layer, cosine, random_hi (95 % limit of |cos| of random vectors), d.

    Raises:
        ValueError: no common site, other widths, or directions between other classes.
    Source: correction for attenuation, Spearman (1904); steering spec, recommended decision 6.
    """
    import pandas as pd

    common = [site for site in a if site in b]
    if not common:
        raise ValueError(f"no common site: {', '.join(map(str, a))} against {', '.join(map(str, b))}.")
    rows = []
    for site in common:
        one, other = a[site], b[site]
        _check_comparable(one, other)
        cosine = float(one.unit.double() @ other.unit.double())
        r = [reliability(d.stats.split_half_cosine) for d in (one, other)]
        ceiling = float(np.sqrt(r[0] * r[1]))
        rows.append({
            "a": names[0], "b": names[1], "site": str(site), "layer": site.layer, "cosine": cosine,
            "ceiling": ceiling, "corrected": cosine / ceiling, "reliability_a": r[0], "reliability_b": r[1],
            "random_hi": 1.96 / one.d_model**0.5, "d": one.d_model,
            "n": min(d.stats.n_toward + d.stats.n_away for d in (one, other)),
            "n_groups": min(d.stats.n_groups for d in (one, other)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _check_comparable(a: Direction, b: Direction) -> None:
    if a.d_model != b.d_model:
        raise ValueError(
            f"{a.site}: {a.d_model} and {b.d_model} dimensions. Directions of two widths have no cosine; compare what "
            "they do (steer dose on each) instead."
        )
    if (a.toward, a.away_from) != (b.toward, b.away_from):
        raise ValueError(
            f"{a.site}: one direction leads from {a.away_from!r} to {a.toward!r}, the other from {b.away_from!r} to "
            f"{b.toward!r}. Fit both between the same classes."
        )


@dataclass(frozen=True)
class Agreement:
    """How far the directions of two checkpoints agree on the same examples.

    Attributes:
        cosine: of the two differences of means, with a cluster-bootstrap interval.
        ceiling: what it could be at most, given the noise of both: sqrt(r_a r_b).
        corrected: cosine / ceiling.
        null_hi: 95 % of |cosine| when the labels of the second checkpoint are permuted: shared covariance alone.
        p: two-sided, against that null.
    """

    cosine: Estimate
    ceiling: float
    corrected: float
    null_hi: float
    p: float


def direction_agreement(
    feats_a: Float[Tensor, "example d_model"],
    feats_b: Float[Tensor, "example d_model"],
    is_toward: Bool[np.ndarray, "example"],
    *,
    groups: Groups,
    strata: Groups = None,
    is_toward_b: Bool[np.ndarray, "example"] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    n_permutations: int = 199,
) -> Agreement:
    """Agreement of two checkpoints' directions at one site, from activations on the same examples in the same order.

    Args:
        is_toward_b: classes under the second checkpoint, where they are its own answers; None: the same.
        strata: balance both directions by these.
    Raises:
        ValueError: other widths or lengths, fewer than four groups.
    """
    if feats_a.shape != feats_b.shape:
        raise ValueError(f"activations of shape {tuple(feats_a.shape)} and {tuple(feats_b.shape)}: expected the same.")
    a, b = (feats.double().cpu().numpy() for feats in (feats_a, feats_b))
    labels = np.asarray(is_toward, bool), np.asarray(is_toward if is_toward_b is None else is_toward_b, bool)
    codes = group_codes(groups, len(a), at_least=4)
    ones = np.ones((1, len(a)))
    whole = [_directions(x, y[None], ones, strata) for x, y in zip((a, b), labels, strict=True)]
    value = float(whole[0][0] @ whole[1][0])
    draws = []
    for weights in group_weights(codes.n_groups, n_resamples=n_resamples, seed=seed):
        counts = weights[:, codes.code]
        pair = [_directions(x, np.repeat(y[None], len(counts), 0), counts, strata)
                for x, y in zip((a, b), labels, strict=True)]  # fmt: skip
        draws.append((pair[0] * pair[1]).sum(axis=1))
    lo, hi = np.nanquantile(np.concatenate(draws), (0.025, 0.975)).tolist()
    scheme, units = permutation_scheme(labels[1], strata, groups)
    shuffled = permute_labels(labels[1], groups=units, n_permutations=n_permutations, seed=seed, scheme=scheme)
    null = np.abs(_directions(b, shuffled, np.ones(shuffled.shape), strata) @ whole[0][0])
    ceiling = float(np.sqrt(np.prod([_own_reliability(x, y, codes.code, strata, seed)
                                     for x, y in zip((a, b), labels, strict=True)])))  # fmt: skip
    p = (1 + int((null >= abs(value)).sum())) / (1 + len(null))
    found = Estimate(value, min(lo, value), max(hi, value), len(a), codes.n_groups)
    return Agreement(found, ceiling, value / ceiling, float(np.quantile(null, 0.95)), p)


def _directions(
    feats: np.ndarray, is_toward: np.ndarray, counts: np.ndarray, strata: Groups
) -> Float[np.ndarray, "draw d_model"]:
    """Unit differences of means of every draw; NaN where a draw has one class only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = difference_weights(is_toward, counts, strata=strata) @ feats
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def _own_reliability(feats: np.ndarray, is_toward: np.ndarray, code: np.ndarray, strata: Groups, seed: int) -> float:
    """Mean reliability over 20 random halvings of the groups."""
    rng, found = np.random.default_rng([seed, 5]), []
    for _ in range(20):
        first = np.isin(code, rng.permutation(code.max() + 1)[: (code.max() + 1) // 2]).astype(float)
        halves = np.stack([first, 1 - first])
        one, two = _directions(feats, np.repeat(is_toward[None], 2, 0), halves, strata)
        found.append(float(one @ two))
    return reliability(float(np.nanmean(found)))


def transfer_table(slopes: Mapping[tuple[str, str], pd.DataFrame], *, metric: str) -> pd.DataFrame:
    """The 2×2 of vectors and checkpoints: slope of one score when the vector of A or B is added in A or B.

    Args:
        slopes: (vector of, applied to) -> `DoseResult.slopes()` of that curve.
    Returns:
        One row per cell: vector_from, applied_to, slope, lo, hi, control, null_lo, null_hi, p, n, n_groups.
    Raises:
        ValueError: a cell whose table has no such score.
    """
    import pandas as pd

    kept = ["slope", "lo", "hi", "control", "null_lo", "null_hi", "p", "unit", "layer", "n", "n_groups", "interval"]
    rows = []
    for (source, target), table in slopes.items():
        role = "direction" if source == target else "transferred"
        found = table[(table["arm"] == role) & (table["metric"] == metric)]
        if len(found) == 0:
            raise ValueError(f"transfer: the curve of {source} in {target} has no score {metric!r}.")
        for row in found.to_dict("records"):
            rows.append({"vector_from": source, "applied_to": target, "metric": metric, **{k: row[k] for k in kept}})
    return pd.DataFrame(rows)
