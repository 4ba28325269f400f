"""The wiring self-test on a reader that was trained in seconds: right passes, every published mistake is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.oracle import Oracle, OracleSpec, context_items, selftest
from interp.oracle.evidence import READ, UNDECIDED, verdict
from interp.oracle.paired import swap_test
from interp.oracle.wiring import NEXT, PREVIOUS, ContextItems, alternatives
from tests.oracle_kit import CLASSES, LAYER, chats, class_features, drawn, pair_with_oracle, trained_reader

TRUE = OracleSpec(layers=(LAYER,))
WRONG = {
    "block 0": replace(TRUE, hook_layer=0),
    "block 2": replace(TRUE, hook_layer=2),
    "replace": replace(TRUE, formula="replace"),
    "raw": replace(TRUE, formula="raw"),
    "coefficient 0.5": replace(TRUE, coefficient=0.5),
    "coefficient 2": replace(TRUE, coefficient=2.0),
    "coefficient -1": replace(TRUE, coefficient=-1.0),
}


@pytest.fixture(scope="module")
def items() -> ContextItems:
    """Held-out readings; at the layers below and above other vectors stand, as in any model."""
    feats, targets = class_features()
    others = {n: drawn(len(feats), torch.Generator().manual_seed(n))[1] for n in (LAYER - 1, LAYER + 1)}
    at = {LAYER: feats, **{n: feats.with_vectors(v) for n, v in others.items()}}
    return ContextItems(at, dict.fromkeys(feats.items, "?"), targets)


@pytest.fixture(scope="module")
def result(items):
    return selftest(Oracle(trained_reader(), adapter=None, spec=TRUE), items, layer=LAYER)


def test_the_right_wiring_ranks_first_before_every_mistake(result):
    assert result.passed
    assert result.best == "declared"
    assert result.zero_gap.lo > 0
    assert {*WRONG, "format B", "source layer 1", "source layer 3"} <= {wiring.name for wiring in result.wirings}
    assert all(wiring.worse.value > 0 for wiring in result.wirings)
    assert str(result).startswith("PASSED: the declared wiring ranks first")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_is_caught(name, items):
    caught = selftest(Oracle(trained_reader(), adapter=None, spec=WRONG[name]), items, layer=LAYER)
    assert not caught.passed
    assert "fits the adapter better than the declared spec" in caught.explanation
    rival = next(wiring for wiring in caught.wirings if wiring.name == caught.best)
    assert rival.worse.value < 0
    rows = caught.rows()
    assert rows[0]["wiring"] == "declared"
    assert all(row["lo"] <= row["worse"] <= row["hi"] for row in rows)


def test_an_oracle_that_sees_nothing_does_not_pass(items):
    blind = selftest(Oracle(trained_reader(), adapter=None, spec=replace(TRUE, coefficient=0.0)), items, layer=LAYER)
    assert not blind.passed


def test_items_are_the_tokens_around_a_position_of_the_base():
    model = pair_with_oracle()
    made = context_items(model, chats(4), layer=1, n=40)
    assert set(made.feats) == {0, 1, 2}
    for item in made.feats[1].items:
        k = int(made.questions[item].split(" tokens")[0].split()[-1])
        assert made.questions[item] in (NEXT.format(k), PREVIOUS.format(k))
        assert len(model.tokenizer.encode(made.targets[item], add_special_tokens=False)) <= k + 1
    assert made.feats[0].items == made.feats[1].items
    assert {slot.layer for slot in made.feats[2].slots} == {1}, "a neighbour is read under the declared layer's name"
    with pytest.raises(ValueError, match="401 tokens"):
        context_items(model, chats(2), layer=1, n_tokens=(1, 200))


def test_the_truth_is_among_the_alternatives_to_every_mistake():
    for wrong in WRONG.values():
        tried = alternatives(wrong, layer=LAYER, n_layers=8).values()
        assert any(spec == TRUE and layer == LAYER for spec, layer in tried)
    assert "format A'" not in alternatives(TRUE, layer=1, n_layers=8), "A' of one layer is A"


def test_too_few_items_are_refused(items):
    few = replace(items, feats={LAYER: items.feats[LAYER].select(items.feats[LAYER].items[:4])})
    with pytest.raises(ValueError, match="at least 16 items at layer 2, got 4"):
        selftest(Oracle(trained_reader(), adapter=None, spec=TRUE), few, layer=LAYER)


# ---- positive control: the trained reader reads --------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen(items):
    oracle = Oracle(trained_reader(), adapter=None, spec=TRUE)
    controls = ("shuffled", "zero", "mean", "gaussian")
    return oracle.choose(items.feats[LAYER], "?", CLASSES, controls=controls, n_partners=2)


def test_a_trained_reader_reads_and_its_controls_do_not(chosen, items):
    real = chosen.grade(items.targets)
    assert real.accuracy.lo > real.majority.hi
    assert real.accuracy.value > 0.85
    for control in chosen.controls:
        assert chosen.grade(items.targets, control).accuracy.value < real.accuracy.value - 0.3
        assert chosen.likelihoods(items.targets).gap(control).lo > 0
    assert chosen.likelihoods(items.targets).gap().n_groups == 48


def test_swapped_activations_take_the_answer_with_them(items):
    swap = swap_test(Oracle(trained_reader(), adapter=None, spec=TRUE), items.feats[LAYER], "?", CLASSES, items.targets)
    assert swap.flipped.lo > 0.6
    assert swap.stayed.value < 0.1
    blind = Oracle(trained_reader(), adapter=None, spec=replace(TRUE, coefficient=0.0))
    unmoved = swap_test(blind, items.feats[LAYER], "?", CLASSES, items.targets)
    assert unmoved.moved.value == 0.0


def test_answers_of_a_trained_reader_are_read_together_where_one_alone_shows_nothing(items):
    """A quarter of the partners of each reading are of its own class, so that no rank among them can be small."""
    feats = items.feats[LAYER].select(items.feats[LAYER].items[:48])
    answers = Oracle(trained_reader(), adapter=None, spec=replace(TRUE, max_new_tokens=1)).ask(feats, "?")
    assert verdict(answers.gap()) == READ
    assert answers.gap().lo > 0.5
    assert {answer.verdict for answer in answers} <= {UNDECIDED, READ}
    assert np.median([answer.p for answer in answers]) > 0.025
    assert answers.same_response_share() < 0.6
