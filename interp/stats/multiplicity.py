"""Corrections for many tests: Holm, Benjamini–Hochberg, and the maximum over a permutation null."""

from __future__ import annotations

import numpy as np

from interp.stats._check import Real, Values, choice, numbers

ALTERNATIVES = ("two-sided", "greater", "less")


def holm(p_values: Values) -> np.ndarray:
    """Family-wise adjusted p: holm_(i) = max_{j <= i} min(1, (m - j + 1)·p_(j)), in the order given.

    Raises:
        ValueError: no p, NaN, or p outside [0, 1].
    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    return _restore(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Values) -> np.ndarray:
    """False-discovery-rate adjusted p: q_(i) = min_{j >= i} min(1, m·p_(j)/j), in the order given.

    With P permutations the smallest possible p is 1/(P+1), and m hypotheses need p <= 0.05/m for the first
    discovery: 784 heads need 20·784 permutations, or a parametric tail. Use the maximum statistic instead.

    Raises:
        ValueError: no p, NaN, or p outside [0, 1].
    Source: Benjamini & Hochberg, JRSS B 57 (1995) 289.
    """
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    ratio = len(p) * p[order] / np.arange(1, len(p) + 1)
    return _restore(np.minimum(np.minimum.accumulate(ratio[::-1])[::-1], 1.0), order)


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


def max_null_p(observed: Values, null: Values, *, alternative: str = "greater") -> np.ndarray:
    """Family-wise adjusted p of every hypothesis from the null of the maximum over hypotheses.

        p_j = (1 + #{ max over k of null[perm, k] >= observed_j }) / (1 + P)

    Args:
        observed: statistic of each hypothesis [hypothesis].
        null: the whole pipeline repeated on permuted labels [permutation, hypothesis], or already the maximum
            over hypotheses [permutation].
        alternative: "greater"; "less" uses minima; "two-sided" absolute values.
    Raises:
        ValueError: NaN, no permutations, or a number of hypotheses that differs.
    Source: Westfall & Young (1993), single step.
    """
    choice("alternative", alternative, ALTERNATIVES)
    observed, null = numbers("observed", observed), numbers("null", null, ndim=None)
    if null.ndim > 2 or (null.ndim == 2 and null.shape[1] != len(observed)):
        raise ValueError(f"null: expected shape (permutations, {len(observed)}), got {null.shape}.")
    if alternative == "two-sided":
        observed, null = np.abs(observed), np.abs(null)
    elif alternative == "less":
        observed, null = -observed, -null
    extreme = np.sort(null.max(axis=1) if null.ndim == 2 else null)
    below = np.searchsorted(extreme, observed - 1e-9 * np.maximum(np.abs(observed), 1e-300), side="left")
    return (1 + len(extreme) - below) / (1 + len(extreme))


def _p_values(p_values: Values) -> np.ndarray:
    p = numbers("p_values", p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values: expected numbers in [0, 1], got [{p.min():g}, {p.max():g}].")
    return p


def _restore(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out
