"""Which figures of a block are shown and which are folded away: first those that show its best claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

from study.figures.drawn import stem
from study.figures.frame import spec_of
from study.ledger import VERDICTS, Claim
from study.report.run_folder import SavedFigure

SHOWN_FIRST = 4


def ranked(
    figures: Sequence[SavedFigure], claims: Sequence[Claim]
) -> tuple[tuple[SavedFigure, ...], tuple[SavedFigure, ...]]:
    """(shown, folded): of each sort the figure of the claim with the best verdict is shown, the others are folded.

    Args:
        figures: the figures of one block.
        claims: the claims of the same block.
    """
    verdicts = best_verdicts([figure.stem for figure in figures], claims)

    def place(figure: SavedFigure) -> tuple[int, int, str]:
        return verdicts[figure.stem], _lateness(figure.stem), figure.stem

    ordered = sorted(figures, key=place)
    first = {_sort(figure.stem): figure for figure in reversed(ordered)}
    by_claim = sorted(first, key=lambda sort: (verdicts[first[sort].stem], sort))
    shown = [first[sort] for sort in by_claim][:SHOWN_FIRST]
    return tuple(shown), tuple(figure for figure in ordered if figure not in shown)


def best_verdicts(stems: Sequence[str], claims: Sequence[Claim]) -> dict[str, int]:
    """Place in `VERDICTS` of the best claim that each figure shows; after them all for a figure of no claim.

    A figure shows a claim if its name has every part of the claim's key that names of figures here have: that of
    `heads/necessary/L1.H0/step_lookup/engaged` has the site and the member, because each has figures of its own, and
    neither the head nor the kind of evidence.

    Args:
        stems: names of figures, as `study.figures.drawn.stem` writes them.
        claims: claims of the same analysis.
    """
    words = {name: name.split("-") for name in stems}
    best = dict.fromkeys(stems, len(VERDICTS))
    for claim in claims:
        keys = [stem(part) for part in claim.key.split("/")[1:]]
        parts = [part for part in keys if any(_has(named, part) for named in words.values())]
        for name, named in words.items():
            if parts and all(_has(named, part) for part in parts):
                best[name] = min(best[name], VERDICTS.index(claim.verdict))
    return best


def _has(words: Sequence[str], part: str) -> bool:
    """Whether a figure's name has `part`, alone or as the column of a class (`surface_label_noncompliant`)."""
    return any(word == part or word.startswith(f"{part}_") for word in words)


def _lateness(name: str) -> int:
    """0 for the main kind of the engaged member; more for bases, other kinds and subsets."""
    later = ("base", "solved", "keep", "zero", "patch", "heuristic", "span")
    return sum(word in name for word in later)


def _sort(name: str) -> tuple[float, str]:
    """Place and name of the figure that the files hold; what no figure of the package is stands last."""
    spec = spec_of(name)
    return (spec.rank, spec.name) if spec else (math.inf, "")
