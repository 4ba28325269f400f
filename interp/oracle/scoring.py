"""Scoring of an oracle's answers: exact labels, partial credit, agreement between answers. Pure functions of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats import CONFIDENCE, Estimate, Sampling, resample_sums, wilson_clustered

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> tuple[str, ...]:
    """Lower-case runs of letters and digits: "Active_computation." -> ("active", "computation")."""
    return tuple(_WORD.findall(text.casefold()))


def parse_label(text: str, labels: Sequence[str], *, aliases: Mapping[str, str] | None = None) -> str | None:
    """The label that a text names; None where it names none, or two of equal length at the same place.

    The earliest match of a label's words wins, and among matches at one place the longest: "Active computation. The
    model computes" is `active_computation`. A label inside a longer word is no match.

    Args:
        aliases: other spellings -> label.
    """
    text_words = words(text)
    spelled = {words(label): label for label in labels} | {words(a): label for a, label in (aliases or {}).items()}
    matches = [
        (start, -len(form), label)
        for form, label in spelled.items()
        for start in range(len(text_words) - len(form) + 1)
        if form and text_words[start : start + len(form)] == form
    ]
    if not matches:
        return None
    best = min(matches)[:2]
    named = {label for start, n, label in matches if (start, n) == best}
    return next(iter(named)) if len(named) == 1 else None


def exact_match(text: str, target: str) -> float:
    """1 where both are the same words."""
    return float(words(text) == words(target))


def token_f1(text: str, target: str) -> float:
    """Harmonic mean of precision and recall over words, repeats counted.

        F1 = 2 · |common| / (|text| + |target|)                       1 where both are empty

    Source: the token F1 of SQuAD, Rajpurkar et al., arXiv 1606.05250, without removing articles.
    """
    answer_words, target_words = Counter(words(text)), Counter(words(target))
    total = answer_words.total() + target_words.total()
    return 1.0 if total == 0 else 2 * (answer_words & target_words).total() / total


def fuzzy_match(text: str, target: str) -> float:
    """Similarity of two texts in [0, 1]: twice the matching characters over all, on normalised words.

    Source: `difflib.SequenceMatcher.ratio` (Ratcliff and Obershelp).
    """
    from difflib import SequenceMatcher

    return SequenceMatcher(None, " ".join(words(text)), " ".join(words(target)), autojunk=False).ratio()


def tiered(text: str, target: str, tiers: Sequence[Sequence[str]]) -> float:
    """Partial credit on an ordered scale: 1 for the target's tier, less by equal steps, 0 at the far end.

        score = 1 - |tier(text) - tier(target)| / (n_tiers - 1)        0 where the text names no tier

    Args:
        tiers: spellings of each tier, from one end of the scale to the other.
    Raises:
        ValueError: fewer than 2 tiers, or a target that is in none.
    """
    if len(tiers) < 2:
        raise ValueError(f"tiers: expected at least 2, got {len(tiers)}.")
    at = {spelling: number for number, spellings in enumerate(tiers) for spelling in spellings}
    target_tier, text_tier = parse_label(target, list(at)), parse_label(text, list(at))
    if target_tier is None:
        raise ValueError(f"target {target!r} names no tier; tiers: {[list(t) for t in tiers]}.")
    return 0.0 if text_tier is None else 1 - abs(at[text_tier] - at[target_tier]) / (len(tiers) - 1)


def within(text: str, target: float, *, tolerance: float) -> float:
    """1 where the first number of the text lies within `tolerance` of the target."""
    match = re.search(r"-?\d+(?:\.\d+)?", text)
    return float(match is not None and abs(float(match.group()) - target) <= tolerance)


def mode_frequency(answers: Sequence[str]) -> tuple[str, float]:
    """(most frequent answer, its share), answers compared by their words; the first of equally frequent ones.

    The share over samples, positions or paraphrases is a confidence; measured on published oracles it is calibrated
    better than the probability of the answer (ECE 5.7 % against 25.5 %).

    Raises:
        ValueError: no answers.
    Source: arXiv 2605.26045.
    """
    if not answers:
        raise ValueError("mode_frequency: expected at least one answer.")
    counts = Counter(map(words, answers))
    best = max(counts.values())
    text = next(answer for answer in answers if counts[words(answer)] == best)
    return text, best / len(answers)


@dataclass(frozen=True)
class Classified:
    """How well labels were named.

    Attributes:
        accuracy: share right, unparsed counted as wrong; clustered Wilson interval.
        balanced: mean recall over the classes that occur, interval by group.
        macro_f1: mean F1 over the classes that occur, interval by group.
        majority: accuracy of always naming the most frequent class, on the same items.
        modal_share: share of the most frequent answer; near 1 it answers everything the same.
        unparsed: share of answers that name no label.
        confusion: (target, answer) -> count; answer "" is unparsed.
    """

    accuracy: Estimate
    balanced: Estimate
    macro_f1: Estimate
    majority: Estimate
    modal_share: float
    unparsed: float
    confusion: Mapping[tuple[str, str], int]


def classified(
    answers: Sequence[str | None],
    targets: Sequence[str],
    *,
    groups: Sequence[str] | None,
    confidence: float = CONFIDENCE,
) -> Classified:
    """Score parsed labels against targets.

    Args:
        answers: label of each item, None where none could be parsed.
        groups: problem of each item; None where items are independent.
    Raises:
        ValueError: lengths differ, no items, a single group.
    """
    if len(answers) != len(targets) or not targets:
        raise ValueError(f"classified: expected as many answers as targets, got {len(answers)} and {len(targets)}.")
    predicted = ["" if a is None else a for a in answers]
    right = np.array([a == t for a, t in zip(predicted, targets, strict=True)], dtype=float)
    names = sorted(set(targets))
    common = Counter(targets).most_common(1)[0][0]
    return Classified(
        accuracy=wilson_clustered(right, groups=groups, confidence=confidence),
        balanced=_over_classes(predicted, targets, names, _recall, groups, confidence),
        macro_f1=_over_classes(predicted, targets, names, _f1, groups, confidence),
        majority=wilson_clustered([float(t == common) for t in targets], groups=groups, confidence=confidence),
        modal_share=Counter(predicted).most_common(1)[0][1] / len(predicted),
        unparsed=predicted.count("") / len(predicted),
        confusion=dict(Counter(zip(targets, predicted, strict=True))),
    )


def _over_classes(
    predicted: Sequence[str],
    targets: Sequence[str],
    names: Sequence[str],
    score: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[str] | None,
    confidence: float,
) -> Estimate:
    """Mean over classes of a score of (hits, answered so, truly so), with its interval by group."""
    pairs = list(zip(predicted, targets, strict=True))
    columns = [[[t == a == c, a == c, t == c] for c in names] for a, t in pairs]
    table = np.array(columns, dtype=float).reshape(len(predicted), -1)
    draws = resample_sums(
        table,
        lambda sums: score(sums.reshape(*sums.shape[:-1], -1, 3)),
        groups=groups,
        sampling=Sampling(confidence=confidence),
        bounds=(0.0, 1.0),
    )
    return draws.estimate()


def _recall(sums: np.ndarray) -> np.ndarray:
    hits, _, truly = np.moveaxis(sums, -1, 0)
    return _mean_where(hits, truly, truly > 0)


def _f1(sums: np.ndarray) -> np.ndarray:
    hits, answered, truly = np.moveaxis(sums, -1, 0)
    return _mean_where(2 * hits, answered + truly, truly > 0)


def _mean_where(top: np.ndarray, bottom: np.ndarray, has_value: np.ndarray) -> np.ndarray:
    """Mean of top/bottom over the classes that a draw holds."""
    return np.asarray((np.where(has_value, top, 0) / np.where(has_value, bottom, 1)).sum(-1) / has_value.sum(-1))
