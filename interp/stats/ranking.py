"""AUROC with an interval over groups, and differences of two AUROCs on the same examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from interp.stats.check import GroupCodes, Groups, Values, binary, group_codes, level, numbers, same_length
from interp.stats.estimate import CONFIDENCE, Estimate
from interp.stats.intervals import mover, t_value, z_value


@dataclass(frozen=True)
class ClassEstimate:
    """A number that compares two classes, with how much data each of them has.

    Attributes:
        value, lo, hi: the estimate and its interval; the whole possible range where a class has fewer than 2 groups.
        n_positive, n_negative: examples of each class.
        groups_positive, groups_negative: independent groups with an example of the class: the smaller of the two
            limits the precision, however many examples there are.
        n_groups: groups in all.
    """

    value: float
    lo: float
    hi: float
    n_positive: int
    n_negative: int
    groups_positive: int
    groups_negative: int
    n_groups: int

    @property
    def estimate(self) -> Estimate:
        """The same number and interval as an `Estimate`, for tables that hold many kinds."""
        return Estimate(self.value, self.lo, self.hi, self.n_positive + self.n_negative, self.n_groups)

    def _repr_html_(self) -> str:
        return str(self)

    def __str__(self) -> str:
        sides = (
            ("positive", self.n_positive, self.groups_positive),
            ("negative", self.n_negative, self.groups_negative),
        )
        counts = ", ".join(f"{n} {name}" + (f" in {g} groups" if g < n else "") for name, n, g in sides)
        return f"{self.value:.3f} [{self.lo:.3f}, {self.hi:.3f}] ({counts})"


def auroc(
    scores: Values,
    labels: Values,
    *,
    groups: Groups,
    strata: Groups = None,
    least_se: float = 0.0,
    confidence: float = CONFIDENCE,
) -> ClassEstimate:
    """Probability that a positive scores above a negative, ties counted half; a score interval over groups.

        AUROC = A = sum_{i pos, j neg} ( [s_i > s_j] + ½[s_i = s_j] ) / (n_pos · n_neg)
        V: clustered DeLong variance, the placement values of both classes summed inside each group (CR2: a group's
           residual is divided by sqrt(1 - its share of its class))
        v(θ) = θ(1-θ) - 2T(z, 1/√3),  z = Φ⁻¹(θ), T Owen's: variance of a placement value of two normal classes
        limits: the θ at which |A - θ| = t_df · sqrt( V·w · v(θ)/v(A) ),
           w = max(1, v(A)(1/n_pos + 1/n_neg) / unclustered DeLong variance)

    The variance follows θ as in Wilson's interval of a rate, so the interval is right near 1 and never has width 0;
    w keeps a lucky sample of few positives from making V too small. Degrees of freedom are those of two means with
    k_pos and k_neg effective groups ((sum n_g)²/sum n_g² of each class), at most the effective number of all groups
    less one: few groups of the rarer class make the interval wide. At complete separation the open end is (α/2)^(1/k),
    k the smaller of k_pos and k_neg. A class inside one group gives [0, 1].

    Args:
        scores: larger means more positive [example].
        labels: 1 for positive [example].
        groups: independent unit of each example; None: each example is independent.
        strata: only pairs of one stratum are compared (scores of several models, such as those of folds, whose offsets
            differ); a placement value then weighs as many pairs as it is taken over. None: all pairs.
        least_se: standard error at an AUROC of 1/2 that the interval has at least: that of a permutation null, which
            holds what fitting to other examples would have changed. It enters with a normal quantile.
    Raises:
        ValueError: one class missing, NaN, lengths differ, one group; no stratum with both classes.
    Source: DeLong et al., Biometrics 44 (1988) 837; Obuchowski, Biometrics 53 (1997) 567 (clusters); Newcombe, Stat.
        Med. 25 (2006) 559, method 5 (variance as a function of θ); Bell & McCaffrey, Survey Methodology 28 (2002)
        169 (CR2). Coverage is simulated in tests/validity/test_ranking.py.

    Example:
        >>> from interp.stats import auroc
        >>> print(auroc([0.1, 0.4, 0.35, 0.8, 0.7, 0.9], [0, 0, 1, 1, 0, 1], groups=None))
        0.778 [0.171, 0.974] (3 positive, 3 negative)
    """
    s, y = _check(scores, labels)
    codes = group_codes(groups, len(s))
    part = _Placements.of(s, y, codes, strata)
    return part.result(part.area, *part.limits(confidence, least_se), codes)


def auroc_difference(
    scores_a: Values,
    scores_b: Values,
    labels: Values,
    *,
    groups: Groups,
    labels_b: Values | None = None,
    strata: Groups = None,
    confidence: float = CONFIDENCE,
) -> ClassEstimate:
    """AUROC of a minus AUROC of b on the same examples (layers, checkpoints, a probe and its control), paired.

    Square-and-add of the two intervals of `auroc`, with the correlation of the two estimates over groups:

        lo = D - sqrt(da² - 2 r da ub + ub²), hi likewise;   r = sum_g a_g b_g / sqrt(sum_g a_g² · sum_g b_g²),
        a_g, b_g what group g contributes to A_a and A_b

    r is lowered on Fisher's scale to atanh r - 1/(k - 2), k the effective groups of the rarer class (to 0 for k <= 2:
    two groups always correlate); without it coverage with 10 groups is 0.93. Two scores that rank alike have
    difference 0 and an interval that is narrow but not a point.

    Args:
        labels_b: other labels of the same examples for b (selectivity: a control task); those of a where None.
            Counts of a class are then the smaller of the two.
        strata: as `auroc`.
    Raises:
        ValueError: as `auroc`.
    Source: Zou & Donner, Stat. Med. 27 (2008) 1693 (MOVER); otherwise as `auroc`.
    """
    a, y = _check(scores_a, labels)
    b, y_b = _check(scores_b, labels if labels_b is None else labels_b)
    codes = group_codes(groups, same_length(scores_a=a, scores_b=b))
    first, second = (_Placements.of(s, labels, codes, strata) for s, labels in ((a, y), (b, y_b)))
    if min(first.fewest, second.fewest) < 2:
        return first.result(first.area - second.area, -1.0, 1.0, codes, second)
    norm = sqrt(float(first.moved @ first.moved) * float(second.moved @ second.moved))
    r = float(first.moved @ second.moved) / norm if norm > 0 else 0.0
    k = min(*first.effective, *second.effective)
    r = float(np.tanh(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) - 1 / (k - 2))) if k > 2 else 0.0
    sides = [(p.area, *p.limits(confidence)) for p in (first, second)]
    d, lo, hi = mover(*sides, correlation=r)
    return first.result(d, max(-1.0, lo), min(1.0, hi), codes, second)


def cliffs_delta(
    x: Values,
    y: Values,
    *,
    groups_x: Groups,
    groups_y: Groups,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """How much oftener x is above y than below it: delta = P(x > y) - P(x < y) = 2·AUROC - 1, in [-1, 1].

    Args:
        x: per-example effects of the head under study [example].
        y: effects of control heads, or of items on which nothing should happen [example].
        groups_x, groups_y: independent unit of each; a name in both is one group, drawn together. Both None:
            every value is independent.
    Raises:
        ValueError: an empty side, NaN, groups for one side only.
    Source: Cliff, Psychol. Bull. 114 (1993) 494.
    """
    x, y = numbers("x", x), numbers("y", y)
    if (groups_x is None) != (groups_y is None):
        raise ValueError("groups_x, groups_y: expected both or neither. Give the independent unit of each side.")
    groups = None
    if groups_x is not None and groups_y is not None:
        group_codes(groups_x, len(x), at_least=1)
        group_codes(groups_y, len(y), at_least=1)
        groups = np.concatenate([np.asarray(groups_x), np.asarray(groups_y)])
    is_x = np.arange(len(x) + len(y)) < len(x)
    area = auroc(np.concatenate([x, y]), is_x, groups=groups, confidence=confidence).estimate
    return Estimate(2 * area.value - 1, 2 * area.lo - 1, 2 * area.hi - 1, area.n, area.n_groups)


def _check(scores: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    s, y = numbers("scores", scores), binary("labels", labels)
    same_length(scores=s, labels=y)
    if y.all() or not y.any():
        raise ValueError(
            f"labels: expected both classes, got {int(y.sum())} positive and {int((~y).sum())} negative of {len(y)}. "
            "AUROC is not defined; drop the cell or pool it."
        )
    return s, y


@dataclass(frozen=True, eq=False)
class _Placements:
    """What one AUROC needs: its value, the contribution of every group, and how many groups really count.

    Attributes:
        moved: contribution of each group to A - E[A], CR2-adjusted [group]; its squares add up to V.
        iid:   DeLong variance with every example on its own.
        counted: as many examples of each class, all with the same number of pairs, as weigh like these.
        n:     examples of the positive and of the negative class.
        groups: groups with an example of either class.
        effective: the same, as many equal groups as weigh like these.
        df:    degrees of freedom.
    """

    area: float
    moved: np.ndarray
    iid: float
    counted: tuple[float, float]
    n: tuple[int, int]
    groups: tuple[int, int]
    effective: tuple[float, float]
    df: float

    @classmethod
    def of(cls, s: np.ndarray, y: np.ndarray, codes: GroupCodes, strata: Groups = None) -> _Placements:
        won, pairs = placements(s, y, None if strata is None else group_codes(strata, len(s), at_least=1).code)
        if not pairs.any():
            raise ValueError(
                "strata: expected one with both classes, got none. AUROC is not defined; use larger strata."
            )
        area, moved, share, iid, n = float(won[y].sum() / pairs[y].sum()), np.zeros(codes.n_groups), [], 0.0, []
        for side in (y, ~y):
            placed, weight, members = (
                won[side] / np.maximum(pairs[side], 1),
                pairs[side] / pairs[side].sum(),
                codes.code[side],
            )
            own = np.bincount(members, weight, codes.n_groups)
            moved += np.bincount(members, weight * (placed - area), codes.n_groups) / np.sqrt(
                np.maximum(1 - own, 1e-12)
            )
            counted = 1 / float(weight @ weight)
            iid += float(weight @ np.square(placed - area)) / max(counted - 1, 1e-12) if counted > 1 else 0.0
            share.append(own)
            n.append(counted)
        k = [1 / float(w @ w) for w in share]
        spread = sum(1 / (k_c**2 * max(k_c - 1, 1e-12)) for k_c in k)
        every = 4 / float(np.square(share[0] + share[1]).sum())
        df = max(1.0, min((1 / k[0] + 1 / k[1]) ** 2 / spread, every - 1))
        present = int((share[0] > 0).sum()), int((share[1] > 0).sum())
        return cls(area, moved, iid, (n[0], n[1]), (int(y.sum()), int((~y).sum())), present, (k[0], k[1]), df)

    @property
    def fewest(self) -> int:
        return min(self.groups)

    def limits(self, confidence: float, least_se: float = 0.0) -> tuple[float, float]:
        """Ends of the interval of the area."""
        if self.fewest < 2:
            return 0.0, 1.0
        if min(self.area, 1 - self.area) < 1e-12:
            open_end = ((1 - level("confidence", confidence)) / 2) ** (1 / min(self.effective))
            own = (0.0, 1 - open_end) if self.area < 0.5 else (open_end, 1.0)
            scale = (z_value(confidence) * least_se) ** 2 / _variance(0.5)
        else:
            own = (self.area, self.area)
            least = (z_value(confidence) * least_se) ** 2 / _variance(0.5)
            scale = max(t_value(confidence, self.df) ** 2 * self._scale(), least)

        def excess(theta: float) -> float:
            return (self.area - theta) ** 2 - scale * _variance(theta)

        wide = _root(excess, self.area, 0.0), _root(excess, self.area, 1.0)
        return min(own[0], wide[0]), max(own[1], wide[1])

    def _scale(self) -> float:
        """Variance of the area in units of v(θ)."""
        model = _variance(self.area) * (1 / self.counted[0] + 1 / self.counted[1])
        if self.iid == 0:  # all placements equal (constant scores): no spread to learn from, each group counts once
            return 1 / self.effective[0] + 1 / self.effective[1]
        # classes inside a group may cancel, but not to a point
        v = max(float(self.moved @ self.moved), self.iid / len(self.moved))
        return v * max(1.0, model / self.iid) / _variance(self.area)

    def result(
        self, value: float, lo: float, hi: float, codes: GroupCodes, other: _Placements | None = None
    ) -> ClassEstimate:
        both = (self, other or self)
        n_pos, n_neg = (min(p.n[c] for p in both) for c in (0, 1))
        in_pos, in_neg = (min(p.groups[c] for p in both) for c in (0, 1))
        return ClassEstimate(value, lo, hi, n_pos, n_neg, in_pos, in_neg, codes.n_groups)


def placements(
    scores: np.ndarray, is_positive: np.ndarray, strata: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each example the pairs of its stratum that the positive wins (ties half), and its pairs [example]."""
    where = np.zeros(len(scores), dtype=int) if strata is None else strata
    order = np.lexsort((scores, where))
    s, y, w = scores[order], is_positive[order], where[order]
    starts = np.r_[True, w[1:] != w[:-1]]
    tied, stratum = np.cumsum(starts | np.r_[True, s[1:] != s[:-1]]) - 1, np.cumsum(starts) - 1
    won, pairs = np.empty(len(s)), np.empty(len(s))
    for side in (True, False):
        other = (y != side).astype(float)
        at_tie, all_there = np.bincount(tied, other), np.bincount(stratum, other)
        below = (np.cumsum(at_tie) - at_tie)[tied] - (np.cumsum(all_there) - all_there)[stratum] + at_tie[tied] / 2
        mine = y == side
        won[order[mine]] = (below if side else all_there[stratum] - below)[mine]
        pairs[order[mine]] = all_there[stratum][mine]
    return won, pairs


def auroc_left_out(scores: Values, labels: Values, *, groups: Groups, strata: Groups = None) -> np.ndarray:
    """AUROC without each group in turn [group]; NaN where no pair is left.

        A_(-g) = (pairs won - those that g enters) / (pairs - those that g enters)

    Args:
        scores, labels, groups, strata: as `auroc`.
    Raises:
        ValueError: as `auroc`.
    """
    s, y = _check(scores, labels)
    codes = group_codes(groups, len(s))
    where = np.zeros(len(s), dtype=int) if strata is None else group_codes(strata, len(s), at_least=1).code
    won, pairs = placements(s, y, where)
    own_won, own_pairs = placements(s, y, codes.code * (where.max() + 1) + where)
    # summed over both sides of a pair, a pair inside the group would count twice
    entered = codes.sums(np.column_stack([won - own_won * y, pairs - own_pairs * y]))
    left = np.array([won[y].sum(), pairs[y].sum()]) - entered
    return np.divide(left[:, 0], left[:, 1], out=np.full(len(left), np.nan), where=left[:, 1] > 0.5)


def _variance(theta: float) -> float:
    """Variance of the placement value of one example, two normal classes of equal spread with AUROC theta."""
    from scipy.special import ndtri, owens_t

    if not 0 < theta < 1:
        return 0.0
    return max(0.0, theta * (1 - theta) - 2 * float(owens_t(ndtri(theta), 1 / sqrt(3))))


def _root(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Where the excess turns positive between the estimate and the end of the scale; the end if it never does."""
    from scipy.optimize import brentq

    near = inside + (end - inside) * 1e-9
    if excess(end) <= 0 or excess(near) >= 0:
        return end if excess(end) <= 0 else inside
    root = brentq(excess, near, end, xtol=1e-10)
    assert isinstance(root, float)
    return root
