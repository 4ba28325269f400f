"""Scores of an oracle's answers, worked by hand."""

from __future__ import annotations

import pytest

from interp.oracle.cot_items import TAXONOMY8
from interp.oracle.scoring import (
    classified,
    exact_match,
    fuzzy_match,
    mode_frequency,
    parse_label,
    tiered,
    token_f1,
    within,
)

TIERS = (("very low",), ("low",), ("high",), ("very high", "extreme"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Active computation", "active_computation"),
        ("active_computation. The model computes 3 + 4.", "active_computation"),
        ("This is: ACTIVE-COMPUTATION!", "active_computation"),
        ("self_checking, not active_computation", "self_checking"),
        ("interactive computations", None),
        ("", None),
    ],
)
def test_a_label_is_found_in_any_spelling_with_text_around_it(text, label):
    assert parse_label(text, TAXONOMY8) == label


def test_the_longest_label_at_the_earliest_place_wins():
    labels = ("anchor", "not_anchor", "anchor point")
    assert parse_label("not anchor", labels) == "not_anchor"
    assert parse_label("an anchor point", labels) == "anchor point"
    assert parse_label("final answer emission", ("final_answer",), aliases={"final_answer_emission": "final_answer"})
    assert parse_label("yes", ("yes",), aliases={"Yes": "no"}) in ("no", "yes")


def test_token_f1_by_hand():
    assert token_f1("the cat sat", "the cat ran") == pytest.approx(2 * 2 / 6)
    assert token_f1("a a", "a") == pytest.approx(2 / 3), "repeats count"
    assert token_f1("", "") == 1.0
    assert token_f1("", "a") == 0.0
    assert exact_match("Yes.", "yes") == 1.0
    assert exact_match("Yes indeed", "yes") == 0.0


def test_fuzzy_match_is_between_exact_and_nothing():
    assert fuzzy_match("The answer!", "the ANSWER") == 1.0
    assert 0.5 < fuzzy_match("the answr", "the answer") < 1.0
    assert fuzzy_match("zzz", "the answer") == 0.0


def test_tiers_give_partial_credit_by_distance():
    assert [tiered(t, "low", TIERS) for t in ("low", "High.", "extreme", "none")] == [
        1.0,
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
        0.0,
    ]
    with pytest.raises(ValueError, match="'middling' names no tier"):
        tiered("low", "middling", TIERS)
    with pytest.raises(ValueError, match="at least 2"):
        tiered("low", "low", TIERS[:1])


def test_numbers_within_a_tolerance():
    assert within("about 0.512 perhaps", 0.5, tolerance=0.02) == 1.0
    assert within("about 0.53", 0.5, tolerance=0.02) == 0.0
    assert within("none", 0.5, tolerance=9.0) == 0.0
    assert within("-3", -3.0, tolerance=0.0) == 1.0


def test_mode_frequency_counts_answers_by_their_words():
    assert mode_frequency(["Yes.", "no", "yes"]) == ("Yes.", 2 / 3)
    assert mode_frequency(["a", "b"]) == ("a", 0.5)
    with pytest.raises(ValueError, match="at least one"):
        mode_frequency([])


def test_classified_by_hand():
    targets = ["a"] * 6 + ["b"] * 2
    answers = ["a", "a", "a", "a", "a", "b", "b", None]
    got = classified(answers, targets, groups=None)
    assert got.accuracy.value == pytest.approx(6 / 8)
    assert got.balanced.value == pytest.approx((5 / 6 + 1 / 2) / 2)
    f1_a, f1_b = 2 * 5 / (5 + 6), 2 * 1 / (2 + 2)
    assert got.macro_f1.value == pytest.approx((f1_a + f1_b) / 2)
    assert got.majority.value == pytest.approx(6 / 8)
    assert got.unparsed == pytest.approx(1 / 8)
    assert got.modal_share == pytest.approx(5 / 8)
    assert got.confusion == {("a", "a"): 5, ("a", "b"): 1, ("b", "b"): 1, ("b", ""): 1}


def test_answering_everything_the_same_has_the_balanced_accuracy_of_chance():
    targets = ["a", "b", "c", "a"] * 5
    got = classified(["a"] * 20, targets, groups=[str(i // 4) for i in range(20)])
    assert got.balanced.value == pytest.approx(1 / 3)
    assert got.accuracy.value == got.majority.value == pytest.approx(0.5)
    assert got.modal_share == 1.0
    assert got.accuracy.n_groups == 5


def test_groups_widen_the_interval():
    targets, answers = ["a", "b"] * 20, ["a", "b"] * 10 + ["b", "a"] * 10
    alone = classified(answers, targets, groups=None).accuracy
    grouped = classified(answers, targets, groups=[str(i // 10) for i in range(40)]).accuracy
    assert grouped.hi - grouped.lo > alone.hi - alone.lo
    with pytest.raises(ValueError, match="as many answers as targets"):
        classified(["a"], ["a", "b"], groups=None)
