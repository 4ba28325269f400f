"""How far answers follow the surface cue instead of the gold label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Values, group_codes, same_length
from interp.stats.clustered import rate_on
from interp.stats.estimate import Estimate, Sampling
from interp.stats.intervals import square_and_add
from interp.stats.logistic import LogisticFit, logistic_regression
from interp.stats.resample import resample_sums


@dataclass(frozen=True)
class SurfaceReliance:
    """Accuracy by agreement of cue and gold, and the weight of each in the answer.

    Attributes:
        congruent, incongruent: accuracy where the cue says the gold label, and where it says the other.
        reliance:   the first minus the second: 0 for a reader of the content, 1 for a reader of the cue.
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
    said, truth, cue = (np.asarray(values, dtype=object) for values in named.values())
    n = same_length(answer=said, gold=truth, surface_label=cue)
    parsed = np.array([label is not None for label in said.tolist()], dtype=bool)
    _check_vocabulary(set(truth.tolist()) | set(cue.tolist()) | set(said[parsed].tolist()), positive)
    right, congruent = _equal(said, truth), _equal(cue, truth)
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
        (said[parsed] == positive).astype(bool),
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


def _check_vocabulary(found: set[object], positive: object) -> None:
    if len(found) != 2 or positive not in found:
        raise ValueError(
            f"labels: expected two values with positive={positive!r} one of them, got {sorted(map(repr, found))}. "
            "Normalise the spelling first; use None for unparsed answers."
        )
