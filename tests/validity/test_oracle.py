"""What an oracle is said to read: false readings of single answers, of the gap over readings, and of accuracies."""

from __future__ import annotations

import numpy as np
import pytest

from interp import stats
from interp.oracle.answers import Choices, Likelihoods
from interp.oracle.evidence import READ

BEFORE = {2: "0.047", 3: "0.089", 5: "0.142", 10: "0.260"}


def likelihoods(real: np.ndarray, under: np.ndarray, groups: np.ndarray | None = None) -> Likelihoods:
    names = tuple(f"i{k}" for k in range(len(real)))
    problems = names if groups is None else tuple(f"p{g}" for g in groups)
    return Likelihoods(names, problems, names, real, np.ones(len(real)), {"shuffled": under})


@pytest.mark.parametrize("n_partners", [2, 3, 5, 10, 39, 99])
def test_one_reading_without_signal_is_seldom_called_read(n_partners: int, studies: int, record_rate) -> None:
    """Its activations are exchangeable with those of its partners, the likelihoods skewed."""
    rng = np.random.default_rng(n_partners)
    found = [likelihoods(x[:1], x[1:, None]).ranks() for x in rng.lognormal(size=(studies, n_partners + 1))]
    record_rate(
        [ranks.verdict(0) == READ for ranks in found],
        kind="level",
        name="oracle: one answer read",
        design=f"one reading, {n_partners} exchangeable partners, skewed",
        at_most=0.025,
        before=BEFORE.get(n_partners, ""),
    )


def test_any_of_twenty_readings_without_signal_is_seldom_called_read(studies: int, record_rate) -> None:
    rng = np.random.default_rng(20)
    found = [likelihoods(x[0], x[1:]).ranks() for x in rng.normal(size=(studies, 1000, 20))]
    record_rate(
        [any(ranks.verdict(i) == READ for i in range(20)) for ranks in found],
        kind="level",
        name="oracle: any answer read",
        design="20 readings, 999 exchangeable partners, gaussian",
        at_most=0.025,
    )


def test_answers_that_only_their_own_activations_give_are_read(studies: int, record_rate) -> None:
    """Half of 20 answers: likelihood 4 standard deviations above that under partners."""
    rng = np.random.default_rng(21)
    x = rng.normal(size=(studies, 100, 20))
    x[:, 0, :10] -= 4
    found = [likelihoods(one[0], one[1:]).ranks() for one in x]
    record_rate(
        [ranks.verdict(0) == READ for ranks in found],
        kind="power",
        name="oracle: one answer read",
        design="10 of 20 readings 4 sd above 99 partners",
        at_least=0.8,
    )


@pytest.mark.parametrize("n_groups", [6, 10, 20, 40])
@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_an_equal_accuracy_seldom_beats_the_text(n_groups: int, rate: float, studies: int, record_rate) -> None:
    design = stats.Design(stats.group_sizes(n_groups, 6, equal=False), shape="binary", mean=rate)
    rng, names = np.random.default_rng([n_groups, round(10 * rate)]), tuple(f"p{g}" for g in design.groups)
    found = []
    for _ in range(studies):
        real, text = (np.log(np.clip(np.stack([x, 1 - x], axis=1), 0.1, 0.9)) for x in design.draw(rng, 2).T)
        items = tuple(f"i{k}" for k in range(len(real)))
        choices = Choices(items, names, "q", ("yes", "no"), real, np.ones(2), {"text_only": text[None]})
        found.append(choices.over(dict.fromkeys(items, "yes"), "text_only"))
    record_rate(
        [e.lo > 0 for e in found],
        kind="level",
        name="oracle: beats the text (one side)",
        design=f"accuracy {rate:g} of both, {n_groups} unequal groups, ICC 0.3",
        at_most=0.025,
        before="0.09–0.11",
    )
