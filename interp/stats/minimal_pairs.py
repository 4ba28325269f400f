"""Minimal pairs: does the answer follow gold when one thing changes, and stay when nothing that matters does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from interp.stats._check import Groups, Values, group_codes, same_length
from interp.stats.clustered import rate_on, wilson_clustered
from interp.stats.estimate import Estimate
from interp.stats.intervals import square_and_add


@dataclass(frozen=True)
class MinimalPairs:
    """What a system does on pairs that differ in one respect.

    Attributes:
        consistency:  share of pairs with both members right; two fair coins give 0.25, and a system that is
            blind to the edit gives 0 where the edit flips gold.
        flip_when_gold_flips: P(answer changes | gold changes), should be 1.
        flip_when_gold_keeps: P(answer changes | gold stays), should be 0.
        sensitivity:  the first minus the second, in [-1, 1]; 0 for a system that is blind to the edit.
        n_unparsed:   pairs with an unparsed answer: wrong in `consistency`, left out of the flip rates.
    """

    consistency: Estimate
    flip_when_gold_flips: Estimate
    flip_when_gold_keeps: Estimate
    sensitivity: Estimate
    n_unparsed: int


def minimal_pairs(
    gold_first: Values, gold_second: Values, answer_first: Values, answer_second: Values, *, groups: Groups
) -> MinimalPairs:
    """Consistency and flip rates of a system on minimal pairs, with clustered Wilson intervals.

    The difference of the two flip rates gets its interval by square-and-add of theirs.

    Args:
        gold_first, gold_second: gold labels of the two members of each pair [pair].
        answer_first, answer_second: answers in the same vocabulary [pair]; None for an unparsed one.
        groups: independent unit of each pair (the procedure), or None.
    Raises:
        ValueError: lengths differ, no pairs, a missing gold label, one group.
    Source: contrast sets, Gardner et al., arXiv 2004.02709 (consistency); worked by hand in the tests.
    """
    named = {
        "gold_first": gold_first,
        "gold_second": gold_second,
        "answer_first": answer_first,
        "answer_second": answer_second,
    }
    first, second, a, b = (np.asarray(values, dtype=object) for values in named.values())
    n = same_length(**dict(zip(named, (first, second, a, b), strict=True)))
    if n == 0:
        raise ValueError("minimal pairs: expected at least 1 pair, got 0. Check the join on pair_id.")
    if _is_none(first).any() or _is_none(second).any():
        raise ValueError("gold: expected a label for every pair, some are None. Drop those pairs and count them.")
    parsed = ~(_is_none(a) | _is_none(b))
    gold_flips, flips = _differ(first, second), _differ(a, b)
    flipping = rate_on(flips, parsed & gold_flips, groups=groups)
    keeping = rate_on(flips, parsed & ~gold_flips, groups=groups)
    n_groups = len(np.unique(group_codes(groups, n).code[parsed]))
    both = flipping.is_defined and keeping.is_defined
    return MinimalPairs(
        consistency=wilson_clustered(~_differ(a, first) & ~_differ(b, second), groups=groups),
        flip_when_gold_flips=flipping,
        flip_when_gold_keeps=keeping,
        sensitivity=replace(square_and_add(flipping, keeping), n_groups=n_groups) if both else Estimate.undefined(n),
        n_unparsed=int((~parsed).sum()),
    )


def _is_none(values: np.ndarray) -> np.ndarray:
    return np.array([value is None or value != value for value in values.tolist()], dtype=bool)


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([x != y for x, y in zip(a.tolist(), b.tolist(), strict=True)], dtype=bool)
