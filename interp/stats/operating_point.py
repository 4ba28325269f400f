"""True-positive rate at the threshold that lets a given share of the negatives through."""

from __future__ import annotations

from collections.abc import Callable
from math import hypot

import numpy as np

from interp.stats._check import Groups, Real, Values, binary, group_codes, numbers, same_length
from interp.stats.clustered import rate_on, wilson_clustered
from interp.stats.estimate import CONFIDENCE
from interp.stats.ranking import ClassEstimate


def tpr_at_fpr(
    scores: Values,
    labels: Values,
    *,
    groups: Groups,
    max_fpr: Real,
    control: Values | None = None,
    control_groups: Groups = None,
    confidence: float = CONFIDENCE,
) -> ClassEstimate:
    """Share of positives above the threshold that lets at most `max_fpr` of the negatives through.

        threshold c = the (floor(max_fpr · n_neg) + 1)-th largest negative;   TPR = mean over positives of [s_i > c]

    Two errors are squared and added: that of the TPR at this threshold (Wilson, clustered: l, u), and that of the
    threshold. c_high and c_low bound the thresholds whose own FPR interval (Wilson, clustered) contains `max_fpr`:

        lo = TPR - sqrt( (TPR - l)² + (TPR - TPR(c_high))² ),   hi = TPR + sqrt( (u - TPR)² + (TPR(c_low) - TPR)² )

    With fewer than about 4/max_fpr independent negatives even a threshold above all of them may let more through, so
    c_high is infinite and lo is 0: 1 % cannot be shown with 100 negatives. Positives inside one group: [0, 1].

    Args:
        scores: larger means more positive [example].  labels: 1 for positive [example].
        max_fpr: share of negatives that may pass, in [0, 1).
        control: scores of a separate set of negatives that alone fixes the threshold (unrelated chat data); the
            negatives of `labels` where None.  control_groups: their groups.
    Raises:
        ValueError: max_fpr outside [0, 1), no positives, no negatives, one group, NaN, lengths differ.
    Source: Newcombe (1998), squaring and adding; Woodruff, JASA 47 (1952) 635, interval of a quantile from rates.
    """
    if not 0 <= max_fpr < 1:
        raise ValueError(f"max_fpr: expected a rate in [0, 1), got {max_fpr!r}. Write 0.01 for 1 %.")
    s, y = numbers("scores", scores), binary("labels", labels)
    codes = group_codes(groups, same_length(scores=s, labels=y))
    if control is None:
        negatives, units = s[~y], None if groups is None else codes.code[~y]
    else:
        negatives = numbers("control", control)
        units = None if control_groups is None else group_codes(control_groups, len(negatives), at_least=1).code
    if not y.any() or not len(negatives):
        raise ValueError(f"labels: expected positives and negatives, got {int(y.sum())} positive of {len(y)}.")
    cut = _thresholds(negatives, units, max_fpr, confidence)
    value, least, most = (float((s[y] > c).mean()) for c in cut)
    own = rate_on(s > cut[0], y, groups=None if groups is None else codes.code, confidence=confidence)
    lo = max(0.0, value - hypot(value - own.lo, value - least))
    hi = min(1.0, value + hypot(own.hi - value, most - value))
    in_pos, in_neg = len(np.unique(codes.code[y])), len(negatives) if units is None else len(np.unique(units))
    n_groups = codes.n_groups if control is None else in_pos + in_neg
    return ClassEstimate(value, lo, hi, int(y.sum()), len(negatives), in_pos, in_neg, n_groups)


def _thresholds(
    negatives: np.ndarray, units: np.ndarray | None, max_fpr: Real, confidence: float
) -> tuple[float, float, float]:
    """The threshold in use, and the highest and lowest that are compatible with the rate asked for."""
    ordered, n = np.sort(negatives)[::-1], len(negatives)
    k = int(np.floor(max_fpr * n * (1 + 1e-12)))
    if units is not None and len(np.unique(units)) < 2:
        return float(ordered[k]), np.inf, -np.inf

    def passed(count: int) -> tuple[float, float]:
        """Interval of the FPR of a threshold with the `count` largest negatives above it."""
        above = negatives >= ordered[count - 1] if count else np.zeros(n, dtype=bool)
        e = wilson_clustered(above, groups=units, confidence=confidence)
        return e.lo, e.hi

    first = _first(lambda c: passed(c)[1] >= max_fpr, n)  # fewest above with the rate still inside
    last = _first(lambda c: passed(c)[0] > max_fpr, n) - 1  # most above
    high = float(np.nextafter(ordered[first - 1], -np.inf)) if first else np.inf
    low = float(ordered[last]) if last < n else -np.inf
    return float(ordered[k]), high, low


def _first(holds: Callable[[int], bool], n: int) -> int:
    """Smallest count in 0..n for which a condition that stays true holds; n + 1 if none."""
    lo, hi = 0, n + 1
    while lo < hi:
        middle = (lo + hi) // 2
        if holds(middle):
            hi = middle
        else:
            lo = middle + 1
    return lo
