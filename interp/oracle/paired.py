"""Paired reading: the same question at the same positions of two members, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.oracle.answers import Choices, mean_over_problems
from interp.oracle.controls import HEADLINE
from interp.oracle.features import Features
from interp.oracle.reader import Oracle
from interp.stats import Comparison, Estimate, Sampling, compare_paired, holm, mean_test, wilson_clustered


@dataclass(frozen=True, eq=False)
class PairedReading:
    """What an oracle says of two members at the same places.

    Attributes:
        a, b: label probabilities of each, with their controls.
        names: what the members are called.
        difference: choice -> p_a - p_b, mean over readings, interval over problems.
        p: choice -> p value of the paired difference over problems (`mean_test`), Holm-corrected over the choices.
        same: share of readings with the same best choice.
        same_shuffled: that share where the second member was read at a matched partner of each reading: what two
            members agree on because some answers are common, not because they are alike at these places. (The mean
            difference itself is the same under any shuffle; its control is the paired test.)
        comparison: accuracies and their paired test, where targets were given.
    """

    a: Choices
    b: Choices
    names: tuple[str, str]
    difference: Mapping[str, Estimate]
    p: Mapping[str, float]
    same: Estimate
    same_shuffled: Estimate
    comparison: Comparison | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row per choice: difference with interval, Holm p, n."""
        return [
            {"choice": choice, "a": self.names[0], "b": self.names[1], "difference": d.value, "lo": d.lo, "hi": d.hi,
             "p_holm": self.p[choice], "n": d.n, "n_groups": d.n_groups}
            for choice, d in self.difference.items()
        ]  # fmt: skip

    def __str__(self) -> str:
        head = (
            f"{self.names[0]} - {self.names[1]}, p(choice); same best choice on {self.same}, "
            f"with a partner's activations on {self.same_shuffled.value:.3f}"
        )
        lines = [f"  {c:<26} {d}  p {self.p[c]:.3g}" for c, d in self.difference.items()]
        return "\n".join([head, *lines])


def compare(
    oracle: Oracle,
    a: Features,
    b: Features,
    question: str,
    choices: Sequence[str],
    *,
    names: tuple[str, str] = ("engaged", "heuristic"),
    targets: Mapping[str, str] | None = None,
    seed: int = 0,
    **options: Any,
) -> PairedReading:
    """Ask both members the same question at the same places and test the paired difference over problems.

    Args:
        a, b: features of the two members, the same readings in the same order.
        choices: answers to weigh.
        targets: reading -> right choice, for a paired test of accuracy as well.
        options: of `Oracle.choose`.
    Raises:
        ValueError: readings, tokens or layers of the two differ; fewer than 2 problems.
    """
    _check_same(a, b)
    controls = tuple(dict.fromkeys((HEADLINE, *options.pop("controls", ()))))
    one, other = (oracle.choose(feats, question, choices, controls=controls, **options) for feats in (a, b))
    diff = one.p - other.p
    if len(set(one.groups)) < 2:
        raise ValueError("compare: expected readings of at least 2 problems; one says nothing about others.")
    test = mean_test(diff, groups=list(one.groups), seed=seed)
    adjusted = holm(np.atleast_1d(test.p_single))
    partners = [(x, y, g) for x, y, g in zip(one.best, other.best_under(HEADLINE), one.groups, strict=True) if y]
    return PairedReading(
        one,
        other,
        names,
        {c: mean_over_problems(diff[:, i], one.groups) for i, c in enumerate(choices)},
        {c: float(adjusted[i]) for i, c in enumerate(choices)},
        _share([x == y for x, y in zip(one.best, other.best, strict=True)], one.groups),
        _share([x == y for x, y, _ in partners], [g for _, _, g in partners]),
        None if targets is None else _accuracies(one, other, targets, seed),
    )


def _accuracies(one: Choices, other: Choices, targets: Mapping[str, str], seed: int) -> Comparison:
    right = [[float(said == targets[item]) for item, said in zip(c.items, c.best, strict=True)] for c in (one, other)]
    independent = len(set(one.groups)) == len(one.groups)
    return compare_paired(
        right[0], right[1], groups=None if independent else list(one.groups), sampling=Sampling(seed=seed)
    )


def _share(hits: Sequence[bool], groups: Sequence[str]) -> Estimate:
    if len(set(groups)) < 2:
        return Estimate.undefined(len(hits), len(set(groups)))
    units = None if len(set(groups)) == len(groups) else list(groups)
    return wilson_clustered([float(hit) for hit in hits], groups=units)


def _check_same(a: Features, b: Features) -> None:
    if a.items != b.items:
        only = sorted(set(a.items) ^ set(b.items)) or ["(the same readings in another order)"]
        raise ValueError(
            f"compare: both members must hold the same readings in the same order; not shared: {only[:3]}."
        )
    for left, right in zip(a.slots, b.slots, strict=True):
        if (left.layer, left.token, left.text) != (right.layer, right.token, right.text):
            raise ValueError(f"compare: the members differ in where they were read: {left} against {right}.")
