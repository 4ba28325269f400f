"""Whether answers follow the activations: exchange them between two readings and see which label the answer takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interp.oracle.controls import variants
from interp.oracle.features import Features
from interp.oracle.reader import Oracle
from interp.stats import Estimate, wilson_clustered


@dataclass(frozen=True)
class SwapTest:
    """Readings of different labels exchanged their activations; the question stayed.

    Attributes:
        flipped: share whose answer became the label of the activations it got.
        stayed:  share whose answer remained the label of its own prompt.
        moved:   share whose answer changed at all.
        n_pairs: readings whose partner has another label; the others are left out.
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
    """Answers with a matched partner's activations, among partners of different labels.

    An oracle that reads its prompt keeps its answer; one that reads activations gives the partner's.

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
    got = oracle.choose(swapped[0].feats.select(pairs), question, choices, controls=())
    said = dict(zip(got.items, got.best, strict=True))
    groups = [feats.group(item) for item in pairs]
    units = None if len(set(groups)) == len(groups) else groups

    def share(hits: list[bool]) -> Estimate:
        return wilson_clustered([float(hit) for hit in hits], groups=units)

    return SwapTest(
        flipped=share([said[item] == targets[donors[item]] for item in pairs]),
        stayed=share([said[item] == targets[item] for item in pairs]),
        moved=share([said[item] != own[item] for item in pairs]),
        n_pairs=len(pairs),
    )
