"""The wiring self-test: answers made under one wiring are likeliest under that one, so a wrong declaration is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interp.oracle import Decoding, Oracle, OracleSpec, context_items, selftest
from interp.oracle.prompt import turn_end
from interp.oracle.wiring import NEXT, PREVIOUS, ContextItems, alternatives
from tests.oracle_kit import chats, pair_with_oracle

TRUE = OracleSpec(layers=(1,), coefficient=1.0)
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
def model():
    return pair_with_oracle(seed=5)


@pytest.fixture(scope="module")
def items(model) -> ContextItems:
    """Readings whose answers are what this model samples under TRUE, so that TRUE is right by construction."""
    made = context_items(model, chats(8), layer=1, n=48)
    oracle = Oracle(model, spec=TRUE)
    feats, targets = made.feats[1], {}
    decoding = Decoding(max_new_tokens=12, n=1, temperature=1.0, top_p=1.0, seed=1)
    for question in sorted(set(made.questions.values())):
        some = feats.select([item for item in feats.items if made.questions[item] == question])
        targets |= {a.item: a.text for a in oracle.ask(some, question, decoding=decoding, controls=())}
    return replace(made, targets={item: text or "yes" for item, text in targets.items()})


def loud(model, spec):
    """An oracle whose injection weighs: the residual at block 1 is amplified by a large coefficient of the same sign."""
    return Oracle(model, spec=spec)


def test_items_are_the_tokens_around_a_position_of_the_base(model):
    made = context_items(model, chats(4), layer=1, n=40)
    assert set(made.feats) == {0, 1, 2}
    for item in made.feats[1].items:
        k = int(made.questions[item].split(" tokens")[0].split()[-1])
        assert made.questions[item] in (NEXT.format(k), PREVIOUS.format(k))
        assert len(model.tokenizer.encode(made.targets[item], add_special_tokens=False)) <= k + 1
    assert made.feats[0].items == made.feats[1].items
    assert {slot.layer for slot in made.feats[2].slots} == {1}, "a neighbour is read under the declared layer's name"
    with pytest.raises(ValueError, match="shorter than 401 tokens"):
        context_items(model, chats(2), layer=1, n_tokens=(1, 200))


def test_every_published_mistake_is_among_the_alternatives():
    names = alternatives(TRUE, layer=1, n_layers=8)
    assert set(WRONG) <= set(names)
    assert {"format B", "source layer 0", "source layer 2"} <= set(names)
    assert "format A" not in names
    assert "format A'" not in names, "A' of one layer is A"
    for wrong in WRONG.values():  # the truth is one of the alternatives to every mistake
        assert any(spec == TRUE and layer == 1 for spec, layer in alternatives(wrong, layer=1, n_layers=8).values())


def test_a_spec_needs_enough_items_of_its_layer(model, items):
    with pytest.raises(ValueError, match="at least 16 items at layer 1, came 4"):
        selftest(
            Oracle(model, spec=TRUE),
            replace(items, feats={1: items.feats[1].select(items.feats[1].items[:4])}),
            layer=1,
        )


def test_the_end_of_a_turn_is_part_of_what_is_scored(model):
    assert turn_end(model.tokenizer) == "<|im_end|>\n"
