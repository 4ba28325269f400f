"""Corrections for many tests: Holm, Benjamini-Hochberg, the maximum of a permutation null, a whole report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from interp.stats.check import Groups, Real, Values, choice, count, group_codes, numbers

ALTERNATIVES = ("two-sided", "greater", "less")
ALPHA = 0.05
"""Level of every test unless the caller names another."""


def rejects(p: Real | np.ndarray, *, alpha: float = ALPHA) -> np.ndarray:
    """Whether a p, or each of many, rejects: p <= alpha, never where it is NaN.

    The one place of this rule. With `<`, a permutation test of 19 draws, whose smallest p is 1/20, never rejected.

    Example:
        >>> from interp.stats import rejects
        >>> bool(rejects(1 / 20)), rejects(np.array([0.01, np.nan, 0.051])).tolist()
        (True, [True, False, False])
    """
    return np.asarray(np.asarray(p, dtype=float) <= alpha)


def holm(p_values: Values) -> np.ndarray:
    """Family-wise adjusted p: holm_(i) = max_{j <= i} min(1, (m - j + 1)·p_(j)), in the order given.

    Raises:
        ValueError: no p, NaN, or p outside [0, 1].
    Source: Holm, Scand. J. Stat. 6 (1979) 65.

    Example:
        >>> from interp.stats import holm
        >>> holm([0.01, 0.02, 0.2]).tolist()
        [0.03, 0.04, 0.2]
    """
    p = p_numbers(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    return restored(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Values) -> np.ndarray:
    """False-discovery-rate adjusted p: q_(i) = min_{j >= i} min(1, m·p_(j)/j), in the order given.

    With P permutations the smallest possible p is 1/(P+1), and m hypotheses need p <= 0.05/m for the first
    discovery: 784 heads need 20·784 permutations, or a parametric tail. Use the maximum statistic instead.

    Raises:
        ValueError: no p, NaN, or p outside [0, 1].
    Source: Benjamini & Hochberg, JRSS B 57 (1995) 289.
    """
    p = p_numbers(p_values)
    order = np.argsort(p, kind="stable")
    ratio = len(p) * p[order] / np.arange(1, len(p) + 1)
    return restored(np.minimum(np.minimum.accumulate(ratio[::-1])[::-1], 1.0), order)


def permutation_p(observed: Real, null: Values, *, alternative: str = "greater") -> float:
    """p of one observed statistic under a resampled null, never 0: (1 + #{null at least as extreme}) / (1 + P).

    `two-sided` compares absolute values, so the null must be centred at 0. Differences of 1e-9 relative count
    as ties, and ties as extreme.

    Raises:
        ValueError: an empty null, NaN, or an unknown alternative.
    Source: Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39.
    """
    null = numbers("null", null)
    return float(max_null_p([observed], null, alternative=alternative)[0])


def max_null_p(observed: Values, null: Values, *, alternative: str = "greater", step_down: bool = False) -> np.ndarray:
    """Family-wise adjusted p of every hypothesis from the null of the maximum over hypotheses.

        single step:  p_j = (1 + #{ max over all k of null[perm, k] >= observed_j }) / (1 + P)
        step-down:    the maximum runs over the hypotheses k whose observed_k <= observed_j only, and a p is never
                      smaller than that of a larger observed value

    The largest statistic has the same p either way; every other p of the step-down form is at most the single-step
    one. Both keep the family-wise error where the null is right for all true hypotheses jointly.

    Args:
        observed: statistic of each hypothesis [hypothesis].
        null: the whole pipeline repeated on permuted labels [permutation, hypothesis]; single step also takes the
            maximum over hypotheses [permutation].
        alternative: "greater"; "less" uses minima; "two-sided" absolute values.
    Raises:
        ValueError: NaN, no permutations, a number of hypotheses that differs; step-down with one axis only.
    Source: Westfall & Young, *Resampling-Based Multiple Testing* (1993), algorithms 2.5 (single step) and 2.8.
    """
    choice("alternative", alternative, ALTERNATIVES)
    observed, null = numbers("observed", observed), numbers("null", null, ndim=None)
    if null.ndim > 2 or (null.ndim == 2 and null.shape[1] != len(observed)):
        raise ValueError(f"null: expected shape (permutations, {len(observed)}), got {null.shape}.")
    if alternative == "two-sided":
        observed, null = np.abs(observed), np.abs(null)
    elif alternative == "less":
        observed, null = -observed, -null
    reach = observed - 1e-9 * np.maximum(np.abs(observed), 1e-300)
    if step_down:
        return _step_down(observed, reach, null)
    extreme = np.sort(null.max(axis=1) if null.ndim == 2 else null)
    return (1 + len(extreme) - np.searchsorted(extreme, reach, side="left")) / (1 + len(extreme))


def _step_down(observed: np.ndarray, reach: np.ndarray, null: np.ndarray) -> np.ndarray:
    if null.ndim == 1:
        raise ValueError(f"null: expected shape (permutations, {len(observed)}) for step_down=True, got {null.shape}.")
    order = np.argsort(-observed, kind="stable")
    # from the smallest observed value upwards: the maximum over it and everything smaller
    running = np.maximum.accumulate(null[:, order[::-1]], axis=1)[:, ::-1]
    stepped = (1 + (running >= reach[order]).sum(axis=0)) / (1 + len(null))
    return restored(np.maximum.accumulate(stepped), order)


def smallest_p(
    n_permutations: SupportsIndex, *, n_arrangements: SupportsIndex | None = None, alternative: str = "greater"
) -> float:
    """Smallest p that a permutation test can give; it follows from the design, before the test is run.

        max( 1/(n_permutations + 1),  s/n_arrangements ),   s = 2 if two-sided (an arrangement and its mirror), else 1

    A test can reject at alpha only if this is at most alpha (and a rule must then read p <= alpha: 19 permutations give
    p = 0.05). After Holm over m tests the smallest p is m times as large.

    Args:
        n_permutations: random arrangements drawn, or partners that a reading is ranked among; without any p is 1.
        n_arrangements: how many different ones exist, where they are few: 2^G signs of G groups, or
            `math.comb(G, k)` ways to give k of G groups of equal size the positive label.
    Raises:
        ValueError: a negative number of permutations, fewer than 1 arrangement, an unknown alternative.
    Source: Phipson & Smyth (2010).

    Example:
        >>> from interp.stats import smallest_p
        >>> smallest_p(19), smallest_p(10_000, n_arrangements=2**4, alternative="two-sided")
        (0.05, 0.125)
    """
    choice("alternative", alternative, ALTERNATIVES)
    floor = 1 / (count("n_permutations", n_permutations) + 1)
    if n_arrangements is None:
        return floor
    distinct = count("n_arrangements", n_arrangements)
    if distinct < 1:
        raise ValueError(f"n_arrangements: expected at least 1, got {distinct}.")
    return max(floor, min(1.0, (2 if alternative == "two-sided" else 1) / distinct))


def p_numbers(p_values: Values) -> np.ndarray:
    """p-values as float64, each in [0, 1]."""
    p = numbers("p_values", p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values: expected numbers in [0, 1], got [{p.min():g}, {p.max():g}].")
    return p


def restored(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Values that were computed in `order`, back in the order given."""
    out = np.empty_like(values)
    out[order] = values
    return out


METHODS = ("holm", "fdr")


@dataclass(frozen=True, eq=False)
class Hierarchical:
    """Adjusted p of every hypothesis, in the order given.

    Attributes:
        local:   within its own family [hypothesis].
        overall: across all families [hypothesis]; never smaller than `local`. What a report as a whole is judged by.
        family:  p of "something in this family" across all families, the same for its members [hypothesis].
        method:  "holm" (family-wise error) or "fdr" (false discovery rate).
    """

    local: np.ndarray
    overall: np.ndarray
    family: np.ndarray
    method: str
    n_families: int


def hierarchical(p_values: Values, families: Groups, *, method: str = "holm", adjusted: bool = False) -> Hierarchical:
    """Correct within every family (a question, an analysis) and then across families, each family weighing the same.

        holm: step down over the hypotheses left, R:  p*_i = p_i · #families in R · #hypotheses of i's family in R;
              the smallest is next, its overall p the largest p* so far.  P(any false rejection) <= alpha
        fdr:  a = BH over families of their smallest BH-adjusted p (Simes);  local_i = BH within the family;
              overall_i = min over r of max( a_family, a_(r), local_i · m/r ),  a_(r) the r-th smallest of m families.
              The expected share of false rejections, averaged over the families with a rejection, is <= alpha

    A family of 784 heads costs the others no more than a family of one. With one family, or families of one, `holm`
    is Holm's and `fdr` Benjamini and Hochberg's.

    Args:
        p_values: one p of each hypothesis.
        families: name of the family of each hypothesis; None: each hypothesis is its own.
        adjusted: the p were corrected inside their family already (a maximum over a permutation null): they are
            `local` as they are, and only the number of families is corrected for.
    Raises:
        ValueError: no p, NaN, p outside [0, 1], lengths differ, an unknown method.
    Source: holm: Bonferroni weights that grow as hypotheses are rejected, Hommel, Bretz & Maurer, Stat. Med. 26 (2007)
        4063; Goeman & Solari, Ann. Stat. 38 (2010) 3782. fdr: Benjamini & Bogomolov, JRSS B 76 (2014) 297.

    Example:
        >>> from interp.stats import hierarchical
        >>> found = hierarchical([0.001, 0.02, 0.03], ["heads", "heads", "probes"])
        >>> found.local.round(3).tolist(), found.overall.round(3).tolist()
        ([0.002, 0.02, 0.03], [0.004, 0.04, 0.04])
    """
    choice("method", method, METHODS)
    p = p_numbers(p_values)
    codes = group_codes(families, len(p), at_least=1)
    within = holm if method == "holm" else benjamini_hochberg
    local = p.copy()
    if not adjusted:
        for f in range(codes.n_groups):
            local[codes.code == f] = within(p[codes.code == f])
    if method == "holm":
        overall = _holm_over_families(p, codes.code, codes.n_groups, adjusted=adjusted)
        smallest = _smallest(overall, codes.code, codes.n_groups)
    else:
        smallest = benjamini_hochberg(_smallest(local, codes.code, codes.n_groups))
        overall = _selected_families(local, smallest, codes.code)
    return Hierarchical(local, overall, smallest[codes.code], method, codes.n_groups)


def _smallest(p: np.ndarray, code: np.ndarray, n_families: int) -> np.ndarray:
    out = np.ones(n_families)
    np.minimum.at(out, code, p)
    return out


def _holm_over_families(p: np.ndarray, code: np.ndarray, n_families: int, *, adjusted: bool) -> np.ndarray:
    """Only the smallest p of each family can be next, so one pass over families in their own order is enough."""
    queues = [list(np.flatnonzero(code == f)[np.argsort(p[code == f], kind="stable")]) for f in range(n_families)]
    out, reached = np.empty(len(p)), 0.0
    for _ in range(len(p)):
        waiting = [q for q in queues if q]
        costs = [p[q[0]] * len(waiting) * (1 if adjusted else len(q)) for q in waiting]
        best = int(np.argmin(costs))
        reached = max(reached, min(1.0, float(costs[best])))
        out[waiting[best].pop(0)] = reached
    return out


def _selected_families(local: np.ndarray, families: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Smallest level at which a family is selected and its hypothesis rejected at level · selected/families."""
    ordered, m = np.sort(families), len(families)
    share = m / np.arange(1, m + 1)
    levels = np.maximum(ordered, local[:, None] * share)
    return np.minimum(np.maximum(levels.min(axis=1), families[code]), 1.0)
