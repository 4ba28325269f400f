"""Designs of claims from the rows of their tables: n, groups and a spread; the estimate itself is no part of them.

The spread of a row is read off its interval or its permutation null, the discordance of two members off the counts of
items that only one of them has right. `Design.given` says so.
"""

from __future__ import annotations

from math import sqrt

from interp.stats.intervals import paired_limits, t_value, wilson_limits, z_value
from interp.stats.power import (
    AurocClaim,
    DifferenceClaim,
    EquivalenceClaim,
    FamilyClaim,
    MeanClaim,
    RateClaim,
    StudySize,
)
from interp.stats.power.areas import NULL
from study.ledger_rows import Row, bounds, number
from study.reach import Design

SPREAD = "at the spread observed"
DISCORDANCE = "at the discordance observed"
NULL_SPREAD = "at the spread of its permutation null"
_ALPHA_OF_NULL = 0.05
"""`null_hi` of the row of a layer is the 95 % point of its null."""


def of_mean(row: Row, interest: float, *, family: int | None = None) -> Design | None:
    """A mean with its interval (a slope, a gap, a head): standard error from the shorter arm of the interval.

        se = min(value - lo, hi - value)/t,  t on units - 1 degrees of freedom; the other arm is widened for skew

    Args:
        family: hypotheses that `mean_test` corrected for; None where the interval alone decides.
    """
    ends, n, units = bounds(row), number(row, "n"), units_of(row)
    if ends is None or n is None or units < 2:
        return None
    value = float(row["value"])
    se = min(value - ends[0], ends[1] - value) / t_value(0.95, units - 1)
    if not se > 0:
        return None
    sd = se * sqrt(units)
    claim = MeanClaim(sd=sd) if family is None else FamilyClaim(sd=sd, family=max(family, 1))
    return Design(claim, StudySize(units), interest, int(n), SPREAD, is_interval=family is None)


def of_difference(row: Row, interest: float, *, accuracy: float | None = None, family: int = 1) -> Design | None:
    """A paired difference of accuracies. Discordance that is no effect: twice the items of the member with fewer, half
    an item added.

    Args:
        accuracy: of the better member; by default as of `DifferenceClaim`.
    """
    size, counts = _paired_size(row), _counts(row)
    if size is None or counts is None:
        return None
    noise = min(2 * (min(counts) + 0.5) / (size.n + 1), 0.99)
    claim = DifferenceClaim(noise, DifferenceClaim.accuracy if accuracy is None else accuracy, family=family)
    return Design(claim, size, interest, given=DISCORDANCE)


def of_equivalence(row: Row, margin: float, *, accuracy: float | None = None) -> Design | None:
    """Equivalence of two accuracies, as if the members were equal and every discordant item were noise."""
    size, counts = _paired_size(row), _counts(row)
    if size is None or counts is None:
        return None
    claim = EquivalenceClaim(
        min((sum(counts) + 0.5) / (size.n + 1), 0.99),
        accuracy=EquivalenceClaim.accuracy if accuracy is None else accuracy,
    )
    return Design(claim, size, margin, given=DISCORDANCE, is_equivalence=True)


def of_rate(row: Row, control: float, interest: float) -> Design | None:
    """A rate against a constant; clustering from the width of its interval."""
    ends, n, units = bounds(row), number(row, "n"), units_of(row)
    if ends is None or n is None or units < 2 or not 0 < control < 1:
        return None
    q = t_value(0.95, units - 1) if units < n else z_value(0.95)
    alone = wilson_limits(float(row["value"]), n, q)
    return Design(RateClaim(control), _clustered(int(n), units, alone, ends), interest, given=SPREAD)


def of_auroc(row: Row, interest: float, *, family: int = 1) -> Design | None:
    """A probe's AUROC: as many independent examples as give the spread of its permutation null.

        se(1/2) = (null_hi - null_mean)/1.645/1.29,  n_effective = 1/(3 se²), as of two equal classes

    Args:
        family: layers that were searched.
    """
    from scipy.special import ndtri

    n, hi, mean = number(row, "n"), number(row, "null_hi"), number(row, "null_mean")
    if n is None or hi is None or mean is None or not hi > mean:
        return None
    se = (hi - mean) / float(ndtri(1 - _ALPHA_OF_NULL)) / NULL
    n_effective = max(round(1 / (3 * se**2)), 4)
    return Design(AurocClaim(family=max(family, 1)), StudySize(n_effective), interest, int(n), NULL_SPREAD)


def units_of(row: Row) -> int:
    """Independent units of a row: groups, or items."""
    return int(number(row, "n_groups") or number(row, "n") or 0)


def _counts(row: Row) -> tuple[float, float] | None:
    """Items that only the engaged member has right, and only the heuristic."""
    engaged, heuristic = number(row, "only_engaged"), number(row, "only_heuristic")
    return None if engaged is None or heuristic is None else (engaged, heuristic)


def _paired_size(row: Row) -> StudySize | None:
    """n, groups, and the intraclass correlation that the width of Newcombe's interval implies."""
    ends, n, units, counts = bounds(row), number(row, "n"), units_of(row), _counts(row)
    if ends is None or n is None or units < 2 or counts is None or sum(counts) > n:
        return None
    if units >= n:
        return StudySize(int(n))
    a, b = counts
    both = (n - a - b) * 0.9  # of items on which the members agree most are right; the width hardly depends on it
    _, *alone = paired_limits(both, a, b, n - a - b - both, z=t_value(0.95, units - 1))
    return _clustered(int(n), units, (alone[0], alone[1]), ends)


def _clustered(n: int, units: int, alone: tuple[float, float], ends: tuple[float, float]) -> StudySize:
    """The size whose design effect is (width/width as if items were independent)²."""
    if units >= n:
        return StudySize(n)
    width = max(alone[1] - alone[0], 1e-9)
    design_effect = ((ends[1] - ends[0]) / width) ** 2
    icc = (design_effect - 1) / (n / units - 1)
    return StudySize(n, units, min(max(icc, 0.0), 0.95))
