"""Paired comparisons: two members at the same positions, and readings whose activations are exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.oracle.answers import Choices, mean_over_problems
from interp.oracle.controls import HEADLINE, variants
from interp.oracle.features import Features
from interp.oracle.reader import Oracle
from interp.stats import Comparison, Estimate, Sampling, compare_paired, holm, mean_test, wilson_clustered


@dataclass(frozen=True, eq=False)
class PairedReading:
    """An oracle's answers about two members at the same positions.

    Attributes:
        a, b: label probabilities of each, with their controls.
        names: names of the members.
        difference: choice -> p_a - p_b, mean over readings, interval over problems.
        p: choice -> p value of the paired difference over problems (`mean_test`), Holm-corrected over the choices.
        same: share of readings with the same best choice.
        same_shuffled: the same share with the second member read at a matched partner of each reading: agreement that
            comes from common answers, not from these positions. (A shuffle does not change the mean difference; its
            control is the paired test.)
        comparison: accuracies and their paired test, if targets were given.
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
            {
                "choice": choice,
                "a": self.names[0],
                "b": self.names[1],
                "difference": d.value,
                "lo": d.lo,
                "hi": d.hi,
                "p_holm": self.p[choice],
                "n": d.n,
                "n_groups": d.n_groups,
            }
            for choice, d in self.difference.items()
        ]

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
        choices: answers to compare.
        targets: reading -> right choice, for a paired test of accuracy as well.
        options: options of `Oracle.choose`.
    Raises:
        ValueError: the two have different readings, tokens or layers; fewer than 2 problems.
    """
    _check_same(a, b)
    controls = tuple(dict.fromkeys((HEADLINE, *options.pop("controls", ()))))
    one, other = (oracle.choose(feats, question, choices, controls=controls, **options) for feats in (a, b))
    diff = one.p - other.p
    if len(set(one.groups)) < 2:
        raise ValueError("compare: expected readings of at least 2 problems; one problem says nothing about others.")
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
    right = [
        [float(answer == targets[item]) for item, answer in zip(c.items, c.best, strict=True)] for c in (one, other)
    ]
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
            raise ValueError(f"compare: the members were read at different positions: {left} against {right}.")


@dataclass(frozen=True)
class SwapTest:
    """Result of exchanging the activations of readings with different labels, under the same question.

    Attributes:
        flipped: share whose answer became the partner's label.
        stayed:  share whose answer remained the reading's own label.
        moved:   share whose answer changed at all.
        n_pairs: number of readings whose partner has another label; the others are left out.
    """

    flipped: Estimate
    stayed: Estimate
    moved: Estimate
    n_pairs: int


def swap_test(
    oracle: Oracle,
    feats: Features,
    question: str,
    choices: Sequence[str],
    targets: Mapping[str, str],
    *,
    tasks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> SwapTest:
    """Answers with a matched partner's activations, among partners with different labels.

    An oracle that only reads its prompt keeps its answer; one that reads activations gives the partner's.

    Raises:
        ValueError: no two partners of different labels.
    """
    own = dict(zip(feats.items, oracle.choose(feats, question, choices, controls=()).best, strict=True))
    swapped = variants(feats, "shuffled", seed=seed, tasks=tasks)
    if not swapped:
        raise ValueError("swap test: no reading has a matched partner.")
    donors = swapped[0].donors
    pairs = [item for item in swapped[0].feats.items if targets[item] != targets[donors[item]]]
    if not pairs:
        raise ValueError("swap test: all partners have the same label; ask about readings of different labels.")
    answers = oracle.choose(swapped[0].feats.select(pairs), question, choices, controls=())
    best = dict(zip(answers.items, answers.best, strict=True))
    groups = [feats.group(item) for item in pairs]
    units = None if len(set(groups)) == len(groups) else groups

    def share(hits: list[bool]) -> Estimate:
        return wilson_clustered([float(hit) for hit in hits], groups=units)

    return SwapTest(
        flipped=share([best[item] == targets[donors[item]] for item in pairs]),
        stayed=share([best[item] == targets[item] for item in pairs]),
        moved=share([best[item] != own[item] for item in pairs]),
        n_pairs=len(pairs),
    )
