"""Agreement of the directions of two checkpoints, and the largest agreement that their noise allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from interp.site import Site
from interp.stats import CONFIDENCE, Estimate, permute_labels
from interp.stats.check import GroupCodes, Groups, group_codes
from interp.stats.jackknife import effective_groups, jackknife_limits
from steering.arms import difference_weights, permutation_scheme
from steering.direction import Direction
from steering.outcomes import ANY

if TYPE_CHECKING:
    import pandas as pd

N_SPLITS = 20
SHARED = "not corrected: fitted on the same examples or prompts, so their errors are not independent"


def reliability(split_half_cosine: float) -> float:
    """Expected cosine between a direction and one fitted on equally many other rows, from the cosine of its two halves.

        r = 2 c / (1 + c)      (Spearman-Brown: each half has twice the noise variance of the whole)

    NaN if the halves do not agree (c <= 0): then there is no direction to compare.
    """
    return 2 * split_half_cosine / (1 + split_half_cosine) if split_half_cosine > 0 else float("nan")


def pair_cosines(
    a: Mapping[Site, Direction], b: Mapping[Site, Direction], *, names: tuple[str, str] = ("engaged", "heuristic")
) -> pd.DataFrame:
    """Cosine of the directions of two checkpoints at every site that both have, with its ceiling.

        ceiling = sqrt(r_a r_b),   corrected = cosine / ceiling,   r = `reliability` of each

    The correction assumes that the errors of the two directions are independent, i.e. that they were fitted on
    different examples. If they were fitted on the same (`examples_sha256` or `prompts_sha256` of their provenance),
    they share the noise of these items, which
    alone can make the cosine large: `corrected` is NaN then, and `note` says so; `direction_agreement` corrects from
    activations, by halves.
    Columns also fit `study.figures.cosines`: a, b, layer, cosine, random_hi (95 % limit of |cos| of random vectors), d.

    Raises:
        ValueError: no common site, different widths, or directions between different classes.
    Source: correction for attenuation, Spearman (1904).
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
        ceiling, shared = float(np.sqrt(r[0] * r[1])), _same_examples(one, other)
        rows.append(
            {
                "a": names[0],
                "b": names[1],
                "site": str(site),
                "layer": site.layer,
                "cosine": cosine,
                "ceiling": ceiling,
                "corrected": float("nan") if shared else cosine / ceiling,
                "reliability_a": r[0],
                "reliability_b": r[1],
                "random_hi": 1.96 / one.d_model**0.5,
                "d": one.d_model,
                "n": min(d.stats.n_toward + d.stats.n_away for d in (one, other)),
                "n_groups": min(d.stats.n_groups for d in (one, other)),
                "note": SHARED if shared else "",
            }
        )
    return pd.DataFrame(rows)


def _same_examples(a: Direction, b: Direction) -> bool:
    """Whether rows and classes, or the prompts of both caches (with classes of each member's own), are equal."""
    digests = [(a.provenance.get(key), b.provenance.get(key)) for key in ("examples_sha256", "prompts_sha256")]
    return any(one is not None and one == other for one, other in digests)


def _check_comparable(a: Direction, b: Direction) -> None:
    if a.d_model != b.d_model:
        raise ValueError(
            f"{a.site}: {a.d_model} and {b.d_model} dimensions. Directions of different widths have no cosine; "
            "compare their effects (steer dose on each) instead."
        )
    if (a.toward, a.away_from) != (b.toward, b.away_from):
        raise ValueError(
            f"{a.site}: one direction leads from {a.away_from!r} to {a.toward!r}, the other from {b.away_from!r} to "
            f"{b.toward!r}. Fit both between the same classes."
        )


@dataclass(frozen=True)
class Agreement:
    """How far the directions of two checkpoints agree on the same examples; every interval is over groups.

    Attributes:
        cosine: cosine of the two differences of means. Both members saw the same items, so it includes the noise of
            these items.
        crossed: mean cosine of a direction of one member from half of the groups with one of the other member from the
            other half, which share no item.
        ceiling: largest possible `crossed`, given the noise of both: sqrt(c_a c_b), with c the mean cosine of the
            two halves of one member; NaN where the halves of a member agree no more than 95 % of the same relabellings.
        corrected: crossed / ceiling; undefined without a ceiling. It may exceed 1 because the ceiling is noisy.
        null_hi: 95 % of |crossed| when the labels of both members are permuted together.
        p: two-sided, of `crossed` against that null.
    """

    cosine: Estimate
    crossed: Estimate
    ceiling: float
    corrected: Estimate
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
    n_permutations: int = 199,
) -> Agreement:
    """Agreement of two checkpoints' directions at one site, from activations on the same examples in the same order.

    Both members see the noise of the same items, which makes directions agree even for meaningless labels. Therefore
    labels are permuted for both at once, and the cosine between members across halves of the groups is tested and
    corrected. Intervals follow the rule of `interp.stats.jackknife`: everything is recomputed without each group.

    Args:
        is_toward_b: classes under the second checkpoint, where they are its own answers; None: the same.
        strata: balance both directions by these.
    Raises:
        ValueError: other widths or lengths, fewer than four groups.
    """
    if feats_a.shape != feats_b.shape:
        raise ValueError(
            f"activations of shape {tuple(feats_a.shape)} and {tuple(feats_b.shape)}: expected equal shapes."
        )
    both = _Members(
        (feats_a.double().cpu().numpy(), feats_b.double().cpu().numpy()),
        (np.asarray(is_toward, bool), np.asarray(is_toward if is_toward_b is None else is_toward_b, bool)),
        group_codes(groups, len(feats_a), at_least=4),
        strata,
        seed,
    )
    cosine, (crossed, own_a, own_b) = both.cosines(), both.halves()
    null, null_a, null_b = both.permuted(groups, n_permutations)
    null = np.nan_to_num(np.abs(null), nan=1.0)  # a relabelling without both classes in its halves counts as extreme
    is_own = all(
        own[0] > max(0, np.nanquantile(by_chance, 0.95)) for own, by_chance in ((own_a, null_a), (own_b, null_b))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        ceiling = np.sqrt(own_a * own_b)
        corrected = crossed / ceiling if is_own else np.full(len(crossed), np.nan)
    value = float(crossed[0])
    p = (1 + int((null >= abs(value)).sum())) / (1 + len(null)) if value == value else float("nan")
    limit = float(np.quantile(null, 0.95))
    ends = [both.estimate(cosine, (-1.0, 1.0)), both.estimate(crossed, (-1.0, 1.0)), both.estimate(corrected)]
    return Agreement(ends[0], ends[1], float(ceiling[0]) if is_own else float("nan"), ends[2], limit, p)


@dataclass(frozen=True, eq=False)
class _Members:
    """Activations and labels of both members on the same examples."""

    feats: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]
    codes: GroupCodes
    strata: Groups
    seed: int

    @cached_property
    def kept(self) -> Float[np.ndarray, "set example"]:
        """All examples, then those without each group."""
        without = self.codes.code[None] != np.arange(self.codes.n_groups)[:, None]
        return np.concatenate([np.ones((1, len(self.codes.code))), without.astype(float)])

    def cosines(self) -> Float[np.ndarray, "set"]:
        a, b = (
            _directions(x, np.repeat(y[None], len(self.kept), 0), self.kept, self.strata)
            for x, y in zip(self.feats, self.labels, strict=True)
        )
        return (a * b).sum(axis=1)

    def halves(self) -> Float[np.ndarray, "3 set"]:
        labels = [np.repeat(y[None], len(self.kept), 0) for y in self.labels]
        return _cross_half(self.feats, (labels[0], labels[1]), self.kept, self.codes.code, self.strata, self.seed)

    def permuted(self, groups: Groups, n: int) -> Float[np.ndarray, "3 draw"]:
        """The same of all examples, under one permutation of the labels for both members."""
        joint = 2 * self.labels[0].astype(int) + self.labels[1]
        scheme, units = permutation_scheme(joint, self.strata, groups)
        drawn = permute_labels(joint, groups=units, n_permutations=n, seed=self.seed, scheme=scheme)
        ones = np.ones((1, len(joint)))
        return _cross_half(self.feats, (drawn >= 2, drawn % 2 == 1), ones, self.codes.code, self.strata, self.seed)

    def estimate(self, values: Float[np.ndarray, "set"], bounds: tuple[float, float] = ANY) -> Estimate:
        """The first value with its interval from the others."""
        sizes = len(self.codes.code), self.codes.n_groups
        if np.isnan(values[0]):
            return Estimate.undefined(*sizes)
        effective = float(effective_groups(self.codes.sizes))
        lo, hi = jackknife_limits(
            values[:1], values[1:, None], effective=effective, confidence=CONFIDENCE, bounds=bounds
        )
        return Estimate(float(values[0]), float(lo[0]), float(hi[0]), *sizes)


def _directions(
    feats: np.ndarray, is_toward: np.ndarray, counts: np.ndarray, strata: Groups
) -> Float[np.ndarray, "draw d_model"]:
    """Unit differences of means of every draw; NaN where a draw has one class only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        diffs = difference_weights(is_toward, counts, strata=strata) @ feats
        return diffs / np.linalg.norm(diffs, axis=1, keepdims=True)


def _cross_half(
    feats: tuple[np.ndarray, np.ndarray],
    is_toward: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    code: np.ndarray,
    strata: Groups,
    seed: int,
) -> Float[np.ndarray, "3 draw"]:
    """((a₁·b₂ + a₂·b₁) / 2, a₁·a₂, b₁·b₂) of unit directions, the mean over random halvings of the groups."""
    rng, products = np.random.default_rng([seed, 5]), []
    for _ in range(N_SPLITS):
        first = np.isin(code, rng.permutation(code.max() + 1)[: (code.max() + 1) // 2])[None].astype(float)
        (a1, a2), (b1, b2) = (
            [_directions(x, y, np.broadcast_to(half * counts, y.shape), strata) for half in (first, 1 - first)]
            for x, y in zip(feats, is_toward, strict=True)
        )
        pairs = ((a1 * b2 + a2 * b1) / 2, a1 * a2, b1 * b2)
        products.append([pair.sum(axis=1) for pair in pairs])
    is_defined = ~np.isnan(products)
    with np.errstate(invalid="ignore"):
        return np.where(is_defined, products, 0).sum(axis=0) / is_defined.sum(axis=0)


def transfer_table(slopes: Mapping[tuple[str, str], pd.DataFrame], *, metric: str) -> pd.DataFrame:
    """The 2×2 of vectors and checkpoints: slope of one score when the vector of A or B is added in A or B.

    Args:
        slopes: (vector of, applied to) -> `DoseResult.slopes()` of that curve.
    Returns:
        One row per cell: vector_from, applied_to, value, lo, hi, control_value, control_difference with its interval,
        null_lo, null_hi, p, smallest_p, n, n_groups.
    Raises:
        ValueError: a cell whose table has no such score.
    """
    import pandas as pd

    apart = ["control_difference", "control_difference_lo", "control_difference_hi"]
    kept = [
        "value",
        "lo",
        "hi",
        "control_value",
        *apart,
        "null_lo",
        "null_hi",
        "p",
        "smallest_p",
        "alpha_unit",
        "layer",
        "n",
        "n_groups",
        "interval",
    ]
    rows = []
    for (source, target), table in slopes.items():
        role = "direction" if source == target else "transferred"
        row_of = table[(table["arm"] == role) & (table["metric"] == metric)]
        if len(row_of) == 0:
            raise ValueError(f"transfer: the curve of {source} in {target} has no score {metric!r}.")
        for row in row_of.to_dict("records"):
            rows.append({"vector_from": source, "applied_to": target, "metric": metric, **{k: row[k] for k in kept}})
    return pd.DataFrame(rows)
