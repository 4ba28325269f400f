"""Scores of rows of a sweep with each group left out: the basis of every interval of a dose curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.stats import CONFIDENCE
from interp.stats.jackknife import effective_groups, jackknife_limits
from steering.outcomes import RATE, GroupSums, bounds_of
from steering.strengths import DosePlan


@dataclass(frozen=True, eq=False)
class Level:
    """One score, or a linear combination of it over strengths, on the data and without each group.

    Only groups that count for the score are used: a group whose items all abstain has no commit bias.

    Attributes:
        value:    the score [...].
        left_out: without each group [group, ...]; NaN where nothing is left (0/0).
        counts:   items of each group behind each value [group, ...].
        bounds:   smallest and largest possible value.
    """

    value: np.ndarray
    left_out: np.ndarray
    counts: np.ndarray
    bounds: tuple[float, float]

    @classmethod
    def of(
        cls, sums: GroupSums, score: Any, rows: Sequence[int] | np.ndarray, *, groups: np.ndarray | None = None
    ) -> Level:
        """The score of some rows of the sweep, in their shape.

        Args:
            groups: True for the groups to use; None: those with an item that counts in any of the rows.
        Raises:
            ValueError: fewer than two groups in all, or a score of a column that is not there.
        """
        if len(sums.groups) < 2:
            raise ValueError(f"groups: expected at least 2 for an interval, got {len(sums.groups)}.")
        at, names = np.asarray(rows), sorted(columns_of(score, sums))
        part = {name: sums.sums[name][:, at] for name in names}  # [group, ...]
        counts = counts_of(sums, score, at)
        keep = counting(counts) if groups is None else groups
        kept = {name: values[keep] for name, values in part.items()}
        total = {name: values.sum(axis=0) for name, values in kept.items()}
        value = _score(score, total, at.shape)
        left_out = _score(score, {name: total[name] - values for name, values in kept.items()}, kept[names[0]].shape)
        return cls(value, left_out, counts[keep], bounds_of(score))

    @property
    def n(self) -> Int[np.ndarray, "..."]:
        """Items behind each value."""
        return np.rint(self.counts.sum(axis=0)).astype(int)

    @property
    def n_groups(self) -> Int[np.ndarray, "..."]:
        """Groups with an item that counts."""
        return (self.counts > 0).sum(axis=0)

    @property
    def effective(self) -> Float[np.ndarray, "..."]:
        return effective_groups(self.counts)

    def limits(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """(lo, hi) by the rule of `interp.stats.jackknife`; NaN where the data give none."""
        shape, n_groups = self.value.shape, len(self.left_out)
        if n_groups < 2:
            return np.full(shape, np.nan), np.full(shape, np.nan)
        lo, hi = jackknife_limits(
            self.value.reshape(-1),
            self.left_out.reshape(n_groups, -1),
            effective=self.effective.reshape(-1),
            confidence=confidence,
            bounds=self.bounds,
        )
        return lo.reshape(shape), hi.reshape(shape)

    def change(self, zero: int) -> Level:
        """Minus the value at index `zero` of the last axis, item for item."""
        value, left_out = (part - part[..., [zero]] for part in (self.value, self.left_out))
        span = self.bounds[1] - self.bounds[0]
        return Level(value, left_out, self.counts + self.counts[..., [zero]], (-span, span))

    def slope(self, contrast: Float[np.ndarray, "alpha"]) -> Level:
        """sum_a contrast_a · value_a over the last axis; the contrast sums to 0."""
        value, left_out = np.asarray(self.value @ contrast), np.asarray(self.left_out @ contrast)
        half = (self.bounds[1] - self.bounds[0]) / 2 * float(np.abs(contrast).sum())
        return Level(value, left_out, np.asarray(self.counts.mean(axis=-1)), (-half, half))

    def minus(self, other: Level) -> Level:
        """The difference from a score of the same groups, whose values may be broadcast."""
        span = self.bounds[1] - self.bounds[0] + other.bounds[1] - other.bounds[0]
        return Level(
            self.value - other.value, self.left_out - other.left_out, self.counts + other.counts, (-span / 2, span / 2)
        )

    def mean_of(self, arms: Sequence[int]) -> Level:
        """Mean over some entries of the first axis (kept, of length 1)."""
        part = self.at(list(arms))
        left_out, counts = (one.mean(axis=1, keepdims=True) for one in (part.left_out, part.counts))
        return Level(part.value.mean(axis=0, keepdims=True), left_out, counts, self.bounds)

    def at(self, arm: int | list[int]) -> Level:
        """One entry of the first axis, or several."""
        return Level(np.asarray(self.value[arm]), self.left_out[:, arm], self.counts[:, arm], self.bounds)


def counts_of(sums: GroupSums, score: Any, rows: np.ndarray) -> Float[np.ndarray, "group ..."]:
    """Items of each group that count for a score in each of some rows."""
    return np.sum([sums.sums[name][:, rows] for name in score.n], axis=0)


def counting(counts: Float[np.ndarray, "group ..."]) -> np.ndarray:
    """Groups with an item that counts somewhere [group]."""
    return np.asarray((counts.reshape(len(counts), -1) > 0).any(axis=1))


def covariance(first: Level, second: Level) -> Float[np.ndarray, "... 3"]:
    """xx, xy, yy of two scores of the same groups, jackknife: (G - 1)/G · sum_g d_g d_gᵀ."""
    x, y = (part.left_out.mean(axis=0) - part.left_out for part in (first, second))
    share = (len(x) - 1) / len(x)
    return share * np.stack([(x * x).sum(axis=0), (x * y).sum(axis=0), (y * y).sum(axis=0)], axis=-1)


def columns_of(score: Any, sums: GroupSums) -> set[str]:
    """The columns that a score reads.

    Raises:
        ValueError: one that no item has.
    """
    seen: set[str] = set(score.n)

    class Watch(dict):
        def __getitem__(self, name: str) -> np.ndarray:
            seen.add(name)
            return np.ones(1)

    with np.errstate(divide="ignore", invalid="ignore"):
        score.value(Watch())
    if missing := seen - set(sums.sums):
        raise ValueError(f"score: needs the columns {', '.join(sorted(missing))}, which no item has.")
    return seen


def _score(score: Any, sums: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.broadcast_to(np.asarray(score.value(sums), dtype=float), shape)
    return np.where(np.isfinite(values), values, np.nan)


def anti_steerable(margins: Float[np.ndarray, "example row"], groups: Sequence[str], plan: DosePlan) -> Level:
    """Anti-steerable items: share whose margin falls as alpha grows, of every arm [arm], with and without each group.

        slope_i = sum_a (a - mean a) · margin_i(a) / sum_a (a - mean a)²;    anti-steerable: slope_i < 0

    A direction without meaning has 0.5. Margin: log p(toward) - log p(away) (`Outcomes.margin`).

    Args:
        margins, groups: margins and groups of only those items that have sides.
    Raises:
        ValueError: no item has sides, or fewer than two groups.
    Source: Tan et al., arXiv 2407.12404, §4.
    """
    if not len(margins):
        raise ValueError("anti-steerable share: no item has labels for both sides of the direction.")
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups: expected at least 2 for an interval, got {len(names)}.")
    alphas = np.array(plan.alphas)
    wrong = (margins[:, plan.rows] @ (alphas - alphas.mean()) < 0).astype(float)  # [example, arm]
    top, size = np.zeros((len(names), wrong.shape[1])), np.bincount(codes).astype(float)[:, None]
    np.add.at(top, codes, wrong)
    left_out = (top.sum(axis=0) - top) / (size.sum() - size)
    return Level(wrong.mean(axis=0), left_out, np.broadcast_to(size, top.shape), RATE)
