"""Whether answers follow the content or a cue: surface reliance, and minimal pairs that differ in one respect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from interp.stats.check import Groups, Values, group_codes, same_length
from interp.stats.estimate import Estimate, Sampling
from interp.stats.intervals import square_and_add
from interp.stats.logistic import LogisticFit, logistic_regression
from interp.stats.means import rate_on, wilson_clustered
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class SurfaceReliance:
    """Accuracy by agreement of cue and gold, and the weight of each in the answer.

    Attributes:
        congruent, incongruent: accuracy where the cue is the gold label, and where it is the other.
        reliance:   the first minus the second: 0 for a model that uses only the content, 1 for one that uses only the
            cue.
        regression: log odds of the positive answer on gold and surface, over parsed answers.
        n_unparsed: answers left out of the regression; they count as wrong in the accuracies.
    """

    congruent: Estimate
    incongruent: Estimate
    reliance: Estimate
    regression: LogisticFit
    n_unparsed: int


def surface_reliance(
    answer: Values,
    gold: Values,
    surface_label: Values,
    *,
    positive: object,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> SurfaceReliance:
    """Congruent minus incongruent accuracy, and the regression of the answer on gold and surface label.

    The difference's interval leaves out groups in both accuracies together (`interp.stats.jackknife`); where one of
    them is 0 or 1 the groups show too little spread: the union with square-and-add of their clustered Wilson intervals.

    Args:
        answer, gold, surface_label: labels of the same two-valued vocabulary [example]; answer None = unparsed.
        positive: the label that counts as 1 in the regression (say, "noncompliant").
        groups: independent unit of each example (the procedure), or None.
    Raises:
        ValueError: lengths differ; gold and surface always agree or always differ; `positive` never occurs in
            gold; labels other than two values; one group.
    Source: definition in the procedural task's specification, §4; `logistic_regression` for the weights.
    """
    named = {"answer": answer, "gold": gold, "surface_label": surface_label}
    answers, truth, cue = (np.asarray(values, dtype=object) for values in named.values())
    n = same_length(answer=answers, gold=truth, surface_label=cue)
    parsed = np.array([label is not None for label in answers.tolist()], dtype=bool)
    _check_vocabulary(set(truth.tolist()) | set(cue.tolist()) | set(answers[parsed].tolist()), positive)
    right, congruent = _equal(answers, truth), _equal(cue, truth)
    if congruent.all() or not congruent.any():
        raise ValueError(
            f"surface_label: expected items on which the cue agrees with gold and items on which it does not, got "
            f"{int(congruent.sum())} of {n} congruent. Add the adversarial cells."
        )
    on = rate_on(right, congruent, groups=groups, confidence=sampling.confidence)
    off = rate_on(right, ~congruent, groups=groups, confidence=sampling.confidence)
    columns = np.column_stack([right & congruent, congruent, right & ~congruent, ~congruent]).astype(np.float64)
    draws = resample_sums(
        columns,
        lambda s: s[..., 0] / s[..., 1] - s[..., 2] / s[..., 3],
        groups=groups,
        sampling=sampling,
        bounds=(-1.0, 1.0),
    )
    reliance = _with_width(draws.estimates().at(), on, off)
    predictors = np.column_stack([truth == positive, cue == positive])[parsed].astype(np.float64)
    members = None if groups is None else group_codes(groups, n).code[parsed]
    regression = logistic_regression(
        (answers[parsed] == positive).astype(bool),
        predictors,
        names=("gold", "surface_label"),
        groups=members,
        confidence=sampling.confidence,
    )
    return SurfaceReliance(on, off, reliance, regression, int((~parsed).sum()))


def _with_width(reliance: Estimate, on: Estimate, off: Estimate) -> Estimate:
    if on.value not in (0.0, 1.0) and off.value not in (0.0, 1.0):
        return reliance
    closed = square_and_add(on, off)
    lo, hi = min(reliance.lo, closed.lo), max(reliance.hi, closed.hi)
    return Estimate(reliance.value, lo, hi, reliance.n, reliance.n_groups)


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([x is not None and x == y for x, y in zip(a.tolist(), b.tolist(), strict=True)], dtype=bool)


def _check_vocabulary(labels: set[object], positive: object) -> None:
    if len(labels) != 2 or positive not in labels:
        raise ValueError(
            f"labels: expected two values with positive={positive!r} one of them, got {sorted(map(repr, labels))}. "
            "Normalise the spelling first; use None for unparsed answers."
        )


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
