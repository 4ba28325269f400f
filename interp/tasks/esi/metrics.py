"""Triage scores of gold and predicted levels: pure functions of integers, 0 where a reply gave no level.

Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from interp import stats

NO_LEVEL = 0
Scorer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _share(hit: Callable[[np.ndarray, np.ndarray], np.ndarray], among: Scorer | None = None) -> Scorer:
    def score(gold: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keep = np.ones(len(gold), dtype=bool) if among is None else among(gold, said)[0]
        return np.asarray(hit(gold, said), dtype=bool), keep

    return score


def _parsed(said: np.ndarray) -> np.ndarray:
    return np.not_equal(said, NO_LEVEL)


def _urgent(gold: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.less_equal(gold, 2), np.ones(len(gold), dtype=bool)


RATES: Mapping[str, Scorer] = {
    "exact": _share(lambda g, p: np.equal(p, g)),
    "adjacent": _share(lambda g, p: _parsed(p) & (np.abs(p - g) <= 1)),
    "under_triage": _share(lambda g, p: _parsed(p) & np.greater(p, g)),
    "over_triage": _share(lambda g, p: _parsed(p) & np.less(p, g)),
    "d1_critical_under_triage": _share(lambda g, p: ~_parsed(p) | np.greater(p, g), _urgent),
    "d2_severe": _share(lambda g, p: np.where(_parsed(p), (p - g >= 2) | ((g <= 2) & (p >= 3)), g <= 2)),
    "no_parse": _share(lambda g, p: ~_parsed(p)),
}
"""Metric -> (gold, said) -> (hit, counted) [case].

exact, adjacent       said == gold; |said - gold| <= 1; no level is wrong in both
under_, over_triage   said less, or more, urgent than gold
d1                    of cases with gold <= 2: said > gold, or no level
d2                    said - gold >= 2, or gold <= 2 and (said >= 3 or no level)
"""


def rate(metric: str, gold: np.ndarray, said: np.ndarray, *, groups: np.ndarray | None) -> stats.Estimate:
    """One rate of `RATES` with its interval: Clopper-Pearson for d1 and d2, Wilson for others, clustered where grouped.

    An empty denominator (no urgent case) is undefined.
    """
    hit, counted = RATES[metric](gold, said)
    hit = hit[counted]
    if not len(hit):
        return stats.Estimate.undefined()
    units = None if groups is None else groups[counted]
    if units is not None and 1 < len(set(units)) < len(hit):
        return stats.wilson_clustered(hit.astype(float), groups=units)
    return (stats.clopper_pearson if metric.startswith("d") else stats.wilson)(int(hit.sum()), len(hit))


def constant(metric: str, gold: np.ndarray, level: int) -> float:
    """The metric of a reader that answers one level to every case; NaN where no case counts."""
    hit, counted = RATES[metric](gold, np.full_like(gold, level))
    return float(hit[counted].mean()) if counted.any() else float("nan")


def quadratic_kappa(gold: np.ndarray, said: np.ndarray, *, groups: np.ndarray | None) -> stats.Kappa:
    """QWK = 1 - sum w·O / sum w·E, w = (i - j)²/16 over levels 1-5, of the cases that got a level.

    0 for a constant reader; NaN where gold is constant too; interval by group.
    """
    keep = _parsed(said)
    units = None if groups is None else groups[keep]
    return stats.weighted_kappa(gold[keep], said[keep], levels=[1, 2, 3, 4, 5], groups=units)
