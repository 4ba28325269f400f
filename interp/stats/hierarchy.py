"""Correction across a whole report: within each question first, then across questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Values, choice, group_codes
from interp.stats.multiplicity import benjamini_hochberg, holm, p_numbers

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
        overall = _step_down(p, codes.code, codes.n_groups, adjusted=adjusted)
        smallest = _smallest(overall, codes.code, codes.n_groups)
    else:
        smallest = benjamini_hochberg(_smallest(local, codes.code, codes.n_groups))
        overall = _selected_families(local, smallest, codes.code)
    return Hierarchical(local, overall, smallest[codes.code], method, codes.n_groups)


def _smallest(p: np.ndarray, code: np.ndarray, n_families: int) -> np.ndarray:
    out = np.ones(n_families)
    np.minimum.at(out, code, p)
    return out


def _step_down(p: np.ndarray, code: np.ndarray, n_families: int, *, adjusted: bool) -> np.ndarray:
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
