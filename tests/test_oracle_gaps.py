"""What the answers of an oracle show: gaps over controls, ranks among partners, accuracies, and pairs."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from interp.oracle import (
    Features,
    Oracle,
    compare,
)
from interp.oracle.answers import Choices, Likelihoods
from interp.oracle.controls import FewDonorsWarning
from interp.oracle.evidence import (
    FEW_PARTNERS,
    NO_CONTROL,
    NO_GAP,
    NOT_READ,
    READ,
    UNDECIDED,
    FewPartnersWarning,
    rank_answers,
    reach,
    verdict,
)
from interp.stats import Estimate, compare_paired
from study.figures import oracle as figure
from tests.oracle_kit import SPEC, collected, made_features, pair_with_oracle


@pytest.fixture(scope="module")
def model():
    return pair_with_oracle()


@pytest.fixture(scope="module")
def oracle(model):
    return Oracle(model, spec=SPEC)


@pytest.fixture(scope="module")
def read(model):
    return collected(model)


def test_an_answer_carries_its_gap_and_its_origin(oracle):
    feats = made_features(6)
    answers = oracle.ask(feats, ["what?", "who is it?"], controls=("shuffled", "zero"), n_partners=3)
    assert [(a.item, a.question) for a in answers] == [(i, q) for q in ("what?", "who is it?") for i in feats.items]
    first = answers[0]
    assert first.n_partners == 3
    assert first.gap == pytest.approx(first.controls["shuffled"])
    assert set(first.controls) == {"shuffled", "zero"}
    assert first.provenance["tokens"] == "0+1"
    assert first.logp < 0
    table = answers.table()
    assert len(table) == 12
    assert {"gap", "p", "p_adjusted", "n_partners", "verdict", "gap.zero", "source", "layers"} <= set(table.columns)
    assert (table["smallest_p"] == 1 / 4).all()
    assert answers.gap("what?").n_groups == 6
    with pytest.raises(ValueError, match="several questions were asked"):
        answers.gap()


def test_an_oracle_that_cannot_see_the_vectors_is_reported_as_not_reading(model):
    blind = Oracle(model, spec=replace(SPEC, coefficient=0.0))
    answers = blind.ask(made_features(6), "what?")
    assert {a.verdict for a in answers} == {NOT_READ}
    assert answers.gap().value == pytest.approx(0.0, abs=1e-6)
    assert answers.same_response_share() == 1.0
    assert NOT_READ in str(answers)


def test_a_reading_is_ranked_among_its_partners_and_corrected_over_readings():
    """Worked by hand: 40 partners, so the smallest p is 1/41; Benjamini-Hochberg over those that have any."""
    partners = np.full((40, 5), 3.0)
    partners[0, 1] = 1.0  # one partner makes the second answer as likely as its own activations do
    partners[:, 2] = 1.0 + NO_GAP / 2  # no partner moves the third
    partners[:, 3] = np.nan
    partners[3:, 4] = np.nan  # three partners are too few, whatever they give
    got = rank_answers(np.ones(5), partners)
    assert got.p[[0, 1, 2, 4]].tolist() == [1 / 41, 2 / 41, 1.0, 1 / 4]
    assert math.isnan(got.p[3])
    assert got.p_adjusted[[0, 1, 2, 4]].tolist() == pytest.approx([4 / 41, 4 / 41, 1.0, 1 / 3])
    assert [got.verdict(i) for i in range(5)] == [UNDECIDED, UNDECIDED, NOT_READ, NO_CONTROL, FEW_PARTNERS]
    alone = rank_answers(np.ones(1), partners[:, :1])
    assert alone.p_adjusted.tolist() == [1 / 41]
    assert alone.verdict(0) == READ


def test_what_single_answers_can_show_is_said_before_the_run(model, oracle):
    assert "no single answer can be called read" in reach(38, 1)
    assert "39 partners or more" in reach(38, 1)
    assert reach(39, 1).endswith("one answer can be read")
    assert reach(99, 20).endswith("at least 8 of them are")  # 20 · 0.01 / 0.025
    with pytest.warns(FewPartnersWarning, match="5 partners per reading, smallest p 0.167"):
        oracle.ask(made_features(6), "what?")


def test_a_gap_counts_from_a_hundredth_of_a_nat():
    assert verdict(Estimate(0.5, 0.02, 1.0, 9, 9)) == READ
    assert verdict(Estimate(0.5, 0.005, 1.0, 9, 9)) == UNDECIDED
    assert verdict(Estimate(0.001, -0.004, 0.006, 9, 9)) == NOT_READ
    assert verdict(Estimate.undefined()) == NO_CONTROL
    assert NO_GAP == sys.modules[figure.__module__].NO_GAP


def test_an_accuracy_is_compared_with_a_control_pair_by_pair():
    """Worked by hand: of four readings that both answered, three are right here and two under the control."""
    logp = np.log([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1]])
    under = np.log([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]])[None]
    choices = Choices(tuple("abcde"), tuple("vwxyz"), "q", ("yes", "no"), logp, np.ones(2), {"text_only": under})
    targets = dict(zip("abcde", ("yes", "yes", "no", "no", "yes"), strict=True))
    got = choices.over(targets, "text_only")
    want = compare_paired([1, 1, 1, 0], [1, 0, 0, 1], groups=None).difference
    assert (got.value, got.lo, got.hi, got.n) == (0.25, want.lo, want.hi, 4)
    assert not replace(choices, groups=("p",) * 5).over(targets, "text_only").is_defined


def test_gap_is_the_mean_of_paired_differences_with_problems_as_the_unit():
    nll, n = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)
    under = {"shuffled": np.array([[2.0, 2.0, 5.0, np.nan], [2.0, 4.0, 5.0, np.nan]])}
    got = Likelihoods(tuple("abcd"), ("p", "p", "q", "r"), tuple("wxyz"), nll, n, under)
    assert got.gaps().tolist()[:3] == [1.0, 1.0, 2.0]
    assert math.isnan(got.gaps()[3])
    gap = got.gap()
    assert (gap.value, gap.n, gap.n_groups) == (pytest.approx(4 / 3), 3, 2)
    with pytest.raises(ValueError, match="control 'zero' was not run; controls: shuffled"):
        got.gap("zero")


def test_a_member_compared_with_itself_shows_no_difference(oracle, read):
    feats = _layer_one(read["engaged"])
    got = compare(oracle, feats, feats, "which?", ["yes", "no"], targets=dict.fromkeys(feats.items, "yes"))
    assert got.difference["yes"].value == 0
    assert got.same.value == 1.0
    assert got.same_shuffled.value <= 1.0
    assert got.same_shuffled.n == len(feats)
    assert got.comparison is not None
    assert got.comparison.difference.value == 0


def test_a_difference_is_that_of_the_probabilities_and_its_signs_agree(oracle, read):
    a, b = _layer_one(read["engaged"]), _layer_one(read["heuristic"])
    got = compare(oracle, a, b, "which?", ["yes", "no"], names=("one", "other"))
    want = oracle.choose(a, "which?", ["yes", "no"]).p - oracle.choose(b, "which?", ["yes", "no"]).p
    assert got.difference["yes"].value == pytest.approx(want[:, 0].mean())
    assert got.difference["no"].value == pytest.approx(-want[:, 0].mean())
    assert got.difference["yes"].n_groups == 4
    assert {row["choice"] for row in got.rows()} == {"yes", "no"}
    assert "one - other" in str(got)
    with pytest.raises(ValueError, match="same readings in the same order"):
        compare(oracle, a, b.select(b.items[:3]), "which?", ["yes", "no"])


def _layer_one(feats: Features) -> Features:
    at = [i for i, slot in enumerate(feats.slots) if slot.layer == 1]
    return replace(feats, vectors=feats.vectors[at], slots=tuple(feats.slots[i] for i in at))


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDonorsWarning)
        yield
