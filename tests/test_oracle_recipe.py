"""The recipe of an oracle: its windows of items, its rate, its partners and gaps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from interp.model import Model
from interp.oracle.encode import Encoder
from interp.oracle.items import TrainItem, mix
from interp.oracle.recipe import Recipe, rate
from interp.oracle.run import Processes, Run, length_of
from interp.oracle.train import add_adapter, best_of, train_oracle
from interp.oracle.validate import Validator, matched_partners
from tests.oracle_train_kit import SPEC, mixture, random_items, recipe, tiny_model
from tests.tiny import add_lora


def test_every_window_holds_every_task_and_every_item_is_used_once_per_epoch() -> None:
    model, items = tiny_model(), random_items(60)
    settings = recipe(epochs=2, batch_size=4, window=5)
    tuned = add_adapter(model, settings)
    run = Run(tuned, items, SPEC, settings, Encoder(SPEC, model.tokenizer), "oracle", Processes())
    windows = list(run.windows())
    assert [first for first, _ in windows] == [0, 5, 10, 15, 20, 25]
    assert all({i.task for batch in batches for i in batch} == {"word", "words"} for _, batches in windows)
    for epoch in (windows[:3], windows[3:]):
        used = [item for _, batches in epoch for batch in batches for item in batch]
        assert sorted(map(repr, used)) == sorted(map(repr, items))
    assert run.n_steps == 30
    for _, batches in windows:
        spans = sorted((min(map(length_of, batch)), max(map(length_of, batch))) for batch in batches)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))  # sorted by length inside the window
    assert [len(b) for b in windows[0][1]] == [4] * 5


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    settings = Recipe(lr=1.0, warmup=0.2)
    rates = [rate(step, steps=10, recipe=settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_partners_share_the_task_layers_and_count_and_are_of_other_problems() -> None:
    items = random_items(80)
    partners = matched_partners(items, seed=3)
    kept = [(items[i], items[j]) for i, j in enumerate(partners) if j is not None]
    assert len(kept) > 60
    assert all(a.matching == b.matching and a.problem != b.problem for a, b in kept)
    taken = [j for j in partners if j is not None]
    assert len(set(taken)) == len(taken)
    lonely = [replace(item, problem="one") for item in items[:6]]
    assert matched_partners(lonely) == [None] * 6


def test_a_gap_over_three_problems_has_the_interval_of_student() -> None:
    """The percentile bootstrap of three problems misses the truth far more often than one time in twenty."""
    model, items = tiny_model(), [replace(item, problem=f"p{k % 3}") for k, item in enumerate(random_items(30))]
    validator, missed = Validator(model, SPEC, items, Encoder(SPEC, model.tokenizer)), 0
    problems, rng = [item.problem for item in validator.items], np.random.default_rng(0)
    for _ in range(200):
        level = {f"p{k}": float(value) for k, value in enumerate(rng.normal(size=3))}
        found = validator._estimate("gap", torch.tensor([level[name] for name in problems]), range(len(problems)))
        missed += not found.lo <= 0 <= found.hi
    assert 0 < missed / 200 <= 0.09


def test_a_validation_gap_of_untrained_weights_is_no_reading() -> None:
    run = train_oracle(tiny_model(), mixture(96), SPEC, recipe(max_steps=1, lr=1e-6))
    assert any(f.name.endswith("ignores activations") and f.status == "fail" for f in run.findings)
    assert best_of(run.validations) == run.best


@pytest.mark.parametrize(
    ("field", "value"), [("lr", 0.0), ("batch_size", 0), ("warmup", 1.0), ("activations", "none"), ("save_every", 0)]
)
def test_a_recipe_outside_its_range_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"recipe.{field}: expected"):
        Recipe.of({field: value})


def test_an_unknown_key_of_a_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="recipe.learning_rat.*|Did you mean 'batch_size'"):
        Recipe.of({"batchsize": 4})


def test_what_cannot_be_trained_is_refused_before_the_first_step() -> None:
    deep = mix([replace(i, layers=(3,)) for i in random_items()], validation=4)
    with pytest.raises(ValueError, match=r"blocks 0-2 of .*layers \[3\]"):
        train_oracle(tiny_model(), deep, SPEC, recipe())
    with pytest.raises(ValueError, match="hook_layer: expected 0-1, got 2"):
        train_oracle(tiny_model(), mixture(), replace(SPEC, hook_layer=2), recipe())
    taken = Model(add_lora(tiny_model().module, name="oracle"), tiny_model().tokenizer)
    with pytest.raises(ValueError, match="adapter 'oracle' is already on the model"):
        train_oracle(taken, mixture(), SPEC, recipe())
    with pytest.raises(ValueError, match="expected the last one to be the last token of the context"):
        TrainItem("t", "p", (1, 2, 3), (1,), (0,), "q", "a")
