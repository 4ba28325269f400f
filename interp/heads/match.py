"""Corresponding heads of two models, matched by their effects on the same items, never by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.heads.contrast import paired_rows
from interp.heads.effects import HeadEffects
from interp.stats import effective_groups, rejects

if TYPE_CHECKING:
    import pandas as pd

Sweeps = HeadEffects | Sequence[HeadEffects]


@dataclass(frozen=True, eq=False)
class Matching:
    """Similarities of all heads of a and b, and the mutual nearest neighbours among them, tested against chance.

    Attributes:
        similarity: mean over sweeps of the Spearman correlation of per-item effects [head_a, head_b]; NaN outside the
            depth window.
        profile: rank correlation of the heads' functional profiles, ranks taken within each model [head_a, head_b].
        maxima: largest |similarity| of each rearrangement of b's items, see `match_heads`.
        p: family-wise p of each pair under these.
    """

    names_a: tuple[str, ...]
    names_b: tuple[str, ...]
    similarity: Float[np.ndarray, "a b"]
    profile: Float[np.ndarray, "a b"]
    p: Float[np.ndarray, "a b"]
    maxima: Float[np.ndarray, "permutation"]
    n: int
    n_groups: int

    @property
    def n_permutations(self) -> int:
        return len(self.maxima)

    @property
    def threshold(self) -> float:
        """95 % limit of the largest similarity when items of b are permuted."""
        return float(np.quantile(self.maxima, 0.95))

    @property
    def mutual(self) -> Bool[np.ndarray, "a b"]:
        """Pairs that are each other's nearest within the window."""
        filled = np.where(np.isnan(self.similarity), -np.inf, self.similarity)
        best_b = filled == filled.max(axis=1, keepdims=True)
        best_a = filled == filled.max(axis=0, keepdims=True)
        return best_a & best_b & np.isfinite(filled)

    def _repr_html_(self) -> str:
        from interp.show import html_table, p_value

        lines = [
            [row["head_a"], row["head_b"], f"{row['similarity']:.2f}", p_value(row["p"]), f"{row['profile']:.2f}"]
            for row in self.table().to_dict("records")
        ]
        title = (
            f"Mutual nearest heads by their effects on {self.n} items in {self.n_groups} groups; 95 % of the largest "
            f"similarity under permuted items: {self.threshold:.2f}."
        )
        return html_table(["a", "b", "similarity", "p (family)", "profile"], lines, title=title, rest="table()")

    def table(self) -> pd.DataFrame:
        """One row per mutual pair, most similar first: head_a, head_b, similarity, profile, p, n, null_max95."""
        import pandas as pd

        at = np.argwhere(self.mutual)
        rows = [
            {
                "head_a": self.names_a[i],
                "head_b": self.names_b[j],
                "similarity": self.similarity[i, j],
                "profile": self.profile[i, j],
                "p": self.p[i, j],
                "null_max95": self.threshold,
                "n": self.n,
                "n_groups": self.n_groups,
                "n_perm": self.n_permutations,
            }
            for i, j in at
        ]
        columns = ["head_a", "head_b", "similarity", "profile", "p", "null_max95", "n", "n_groups", "n_perm"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values("similarity", ascending=False, ignore_index=True)

    def of(self, head: str) -> pd.DataFrame:
        """All heads of b within the window for one head of a, most similar first: the distribution, not only the best.

        Raises:
            ValueError: a has no such head.
        """
        import pandas as pd

        if head not in self.names_a:
            raise ValueError(f"head {head} was not matched; heads of a: {self.names_a[0]} to {self.names_a[-1]}.")
        i = self.names_a.index(head)
        table = pd.DataFrame(
            {
                "head_b": self.names_b,
                "similarity": self.similarity[i],
                "profile": self.profile[i],
                "p": self.p[i],
                "mutual": self.mutual[i],
            }
        ).dropna(subset=["similarity"])
        return table.sort_values("similarity", ascending=False, ignore_index=True)

    @property
    def self_match_rate(self) -> float:
        """Of heads with any match beyond chance, the share whose mutual nearest neighbour has the same name.

        Of two copies of one base it should be near 1; trust a matching of different sizes only then. NaN where no
        head of a is beyond chance.
        """
        beyond = rejects(self.p).any(axis=1)
        if not beyond.any():
            return float("nan")
        return float(np.mean([self._best(i) == self.names_a[i] for i in np.flatnonzero(beyond).tolist()]))

    def _best(self, row: int) -> str | None:
        found = np.flatnonzero(self.mutual[row])
        return self.names_b[found[0]] if len(found) else None


def match_heads(a: Sweeps, b: Sweeps, *, window: float = 0.15, n_permutations: int = 1000, seed: int = 0) -> Matching:
    """Match heads of two models of any sizes by their effects on the same items.

        s[h, k] = mean over sweeps of spearman_i( effect_a[i, h], effect_b[i, k] ),   |l_h / L_a - l_k / L_b| <= window

    relative depth counts layer centres, (l + 1/2) / L. Null: items of b permuted as whole groups, the same for all
    heads and sweeps; p of a pair from the largest |s| of each permutation, so over all pairs together. Groups change
    places with groups of the same size. Where that leaves fewer arrangements than permutations are asked for (groups of
    different sizes have none), the centred ranks of each group of b also keep or change their sign at random: ranks are
    symmetric around 0, and so is what a group adds to the similarity of heads that have nothing in common. Ranks of
    both models are centred over the same items, which makes the similarity of such heads more variable than the signs
    do, by K/(K - 1) for K effective groups; the signed draws are scaled by its root.

    Args:
        a, b: one sweep of each model, or several in the same order (patch, mean, ...), on the same items.
        window: largest difference in relative depth.
    Raises:
        ValueError: sweeps that do not correspond, sets of heads among the units, fewer than 8 common items.
    """
    left, right = ([x] if isinstance(x, HeadEffects) else list(x) for x in (a, b))
    if len(left) != len(right) or not left:
        raise ValueError(f"match_heads: {len(left)} sweeps of a, {len(right)} of b; expected the same number of each.")
    ranked = [_ranks_on_common(x, y) for x, y in zip(left, right, strict=True)]
    ids, groups = ranked[0][2], ranked[0][3]
    if any(other[2] != ids for other in ranked) or len(ids) < 8:
        raise ValueError(f"match_heads: expected sweeps of the same items, at least 8; got {len(ids)}.")
    near = _window(left[0], right[0], window)
    observed = np.mean([x.T @ y for x, y, *_ in ranked], axis=0)
    rng = np.random.default_rng(seed)
    signed = _n_arrangements(groups) < n_permutations
    draws = (_rearranged(groups, rng, signed=signed) for _ in range(n_permutations))
    maxima = np.array([_largest([(x, y) for x, y, *_ in ranked], order, sign, near) for order, sign in draws])
    if signed:
        k = float(effective_groups(np.unique(groups, return_counts=True)[1]))
        maxima = maxima * np.sqrt(k / (k - 1)) if k > 1 else maxima
    above = np.searchsorted(np.sort(maxima), np.abs(observed) - 1e-12, side="left")
    p = (1 + len(maxima) - above) / (1 + len(maxima))
    return Matching(
        tuple(left[0].names),
        tuple(right[0].names),
        np.where(near, observed, np.nan),
        _profiles(left, right),
        np.where(near, p, np.nan),
        maxima,
        len(ids),
        len(set(groups)),
    )


def _ranks_on_common(a: HeadEffects, b: HeadEffects) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Unit-length centred ranks of per-item effects, [item, head] each, so that a product is Spearman's correlation."""
    if any(len(unit) > 1 for unit in (*a.units, *b.units)):
        raise ValueError("match_heads: expected sweeps of single heads, found sets of heads. Sweep heads='all'.")
    rows = paired_rows(a, b)
    ids, groups = [a.pairs[i].id for i in rows[0]], [a.groups[i] for i in rows[0]]
    return _ranks(a.per_example()[rows[0]]), _ranks(b.per_example()[rows[1]]), ids, groups


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 1e-12)


def _window(a: HeadEffects, b: HeadEffects, window: float) -> np.ndarray:
    depth = []
    for effects in (a, b):
        layers = np.array([unit[0].layer for unit in effects.units])
        depth.append((layers + 0.5) / (layers.max() + 1))
    return np.abs(depth[0][:, None] - depth[1][None]) <= window + 1e-12


def _by_size(groups: list[str]) -> list[list[list[int]]]:
    """Items of each group, groups of one size together."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    by_size: dict[int, list[list[int]]] = {}
    for items in members.values():
        by_size.setdefault(len(items), []).append(items)
    return list(by_size.values())


def _n_arrangements(groups: list[str]) -> int:
    """In how many ways groups of equal size can change places."""
    return prod(factorial(len(same)) for same in _by_size(groups))


def _rearranged(
    groups: list[str], rng: np.random.Generator, *, signed: bool
) -> tuple[Int[np.ndarray, "item"], Float[np.ndarray, "item"]]:
    """(which item stands at each place, groups of equal size in each other's place; sign of each item, one a group)."""
    order, sign = np.arange(len(groups)), np.ones(len(groups))
    for same in _by_size(groups):
        for target, source in zip(same, rng.permutation(len(same)), strict=True):
            order[target] = same[source]
            if signed:
                sign[target] = rng.choice([-1.0, 1.0])
    return order, sign


def _largest(
    ranked: list[tuple[np.ndarray, np.ndarray]], order: np.ndarray, sign: np.ndarray, near: np.ndarray
) -> float:
    return float(np.abs(np.mean([x.T @ (y[order] * sign[:, None]) for x, y in ranked], axis=0))[near].max())


def _profiles(left: list[HeadEffects], right: list[HeadEffects]) -> np.ndarray:
    """1 - mean |difference of within-model percentiles| over features: mean effect, spread and write of each sweep."""
    a, b = (np.column_stack([part for one in side for part in _features(one)]) for side in (left, right))
    return 1.0 - np.abs(a[:, None] - b[None]).mean(axis=-1)


def _features(effects: HeadEffects) -> list[np.ndarray]:
    from scipy.stats import rankdata

    values = effects.per_example()
    features = [values.mean(axis=0), values.std(axis=0), np.abs(values).max(axis=0)]
    if effects.write_norms is not None:
        features.append(effects.write_norms)
    return [(rankdata(column) - 0.5) / len(column) for column in features]
