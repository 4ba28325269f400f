"""Letter scores from one forward per item, and what prompts share computed once: equal to whole plain passes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.evaluate import Decoding, evaluate, plan_batches
from interp.evaluate.labels import letter_scores, next_token_logp
from interp.evaluate.prefix import can_share, common, shared_prefix_logp
from interp.model import Model
from interp.prompt import render
from interp.tasks import bbq
from tests.tiny import add_lora, tiny, tiny_tokenizer

SHARING = ("qwen2", "qwen3", "llama", "mistral", "gpt2", "gpt_neox", "olmo2")


def model_of(family: str) -> Model:
    module = tiny(family, vocab_size=len(tiny_tokenizer()), max_position_embeddings=2048)
    return Model.wrap(add_lora(module) if family == "qwen2" else module, tiny_tokenizer())


def plain(model: Model, row: tuple[int, ...]) -> torch.Tensor:
    return model.module(torch.tensor([row]), use_cache=False).logits[0, -1].float().log_softmax(-1)


@pytest.mark.parametrize("family", SHARING)
def test_rows_that_share_a_beginning_get_the_logits_of_whole_passes(family: str, rng: torch.Generator) -> None:
    model = model_of(family)
    assert can_share(model)

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 250, (n,), generator=rng).tolist())

    start, rows, units = some(9), [], []
    for unit, n in enumerate((6, 11, 1)):
        begin = start + some(n)
        for tail in (3, 8, 1, 5) if unit < 2 else (4,):
            rows.append(begin + some(tail))
            units.append(unit)
    rows.append(rows[0])  # the same row twice
    units.append(0)
    for which in (units, [0] * len(rows), list(range(len(rows)))):
        found = shared_prefix_logp(model, rows, which)
        want = torch.stack([plain(model, row) for row in rows])
        assert (found - want).abs().max() < 5e-5, which  # float32, other order of summation
    nothing = [(7, *some(4)), (9, *some(6))]
    assert (
        shared_prefix_logp(model, nothing, [0, 1]) - torch.stack([plain(model, r) for r in nothing])
    ).abs().max() < 5e-5


@pytest.mark.parametrize("family", ["qwen3_5", "gemma2", "gemma3"])
def test_models_with_windows_or_recurrent_layers_are_not_shared(family: str) -> None:
    model = model_of(family)
    assert not can_share(model)
    with pytest.raises(ValueError, match="full attention in every layer"):
        shared_prefix_logp(model, [(5, 6), (5, 7)], [0, 0])


def test_a_row_of_one_token_and_units_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 tokens"):
        shared_prefix_logp(model_of("qwen2"), [(5,), (6, 7)], [0, 0])
    with pytest.raises(ValueError, match="one key per row"):
        shared_prefix_logp(model_of("qwen2"), [(5, 6), (6, 7)], [0])


def test_the_common_beginning_leaves_every_row_its_last_token() -> None:
    assert common([(1, 2, 3), (1, 2, 4, 5)]) == 2
    assert common([(1, 2, 3), (1, 2, 3)]) == 2
    assert common([(1,), (1, 2)]) == 0
    assert common([(1, 2), (3, 2)]) == 0


@pytest.fixture(scope="module")
def items(bbq_folder: Path) -> list:
    return bbq.examples(bbq_folder, categories=["Religion"], limit=24)


@pytest.mark.parametrize("family", ["qwen2", "qwen3_5"])
def test_a_letter_is_the_sum_of_its_one_token_spellings_and_the_mass_that_of_all(family: str, items: list) -> None:
    model = model_of(family)
    answers = {
        a.example_id: a for _, part in evaluate(model, bbq, items, decoding=Decoding(generate=False)) for a in part
    }
    single = {x: [i[0] for s in bbq.spellings(x) if len(i := model.tokenizer.encode(s)) == 1] for x in "ABC"}
    for example in items[:8]:
        p = plain(model, render(example, model.tokenizer).ids).exp()
        want = {x: float(p[single[x]].sum()) for x in "ABC"}
        got = answers[example.id]
        assert got.label_mass == pytest.approx(sum(want.values()), rel=1e-3)
        for x in "ABC":
            assert math.exp(got.logp[x]) == pytest.approx(want[x], rel=1e-3)
            assert got.p[x] == pytest.approx(want[x] / sum(want.values()), rel=1e-3)
        assert got.label == max(want, key=lambda x: want[x])
        assert (got.rule, got.text) == ("labels", None)


def test_quads_run_together_and_batches_keep_the_budget(items: list) -> None:
    model = model_of("qwen2")
    decoding = Decoding(generate=False, tokens_per_batch=3000)
    plan = plan_batches(model, bbq, items, decoding)
    assert sorted(i for batch in plan.batches for i in batch) == list(range(len(items)))
    for batch in plan.batches:
        assert len(batch) * max(len(plan.prompts[i].ids) for i in batch) <= 3000 or len(batch) == 1
    order = [items[i].groups["quad"] for batch in plan.batches for i in batch]
    assert len([q for i, q in enumerate(order) if i == 0 or order[i - 1] != q]) == len(set(order))


def test_a_label_that_is_no_single_token_or_shares_one_is_refused() -> None:
    model = model_of("qwen2")
    with pytest.raises(ValueError, match="no one-token spelling"):
        letter_scores(model, [((5, 6), ["quite unsure"])], lambda label: [label])
    with pytest.raises(ValueError, match="share a one-token spelling"):
        letter_scores(model, [((5, 6), ["A", "B"])], lambda label: ["A"])


def test_equal_rows_are_computed_once_and_come_back_in_order() -> None:
    model, seen = model_of("qwen2"), []
    hook = model.decoder.register_forward_pre_hook(lambda m, a, k: seen.append(len(k["input_ids"])), with_kwargs=True)
    rows = [(5, 6, 7), (8, 9), (5, 6, 7)]
    found = next_token_logp(model, rows)
    hook.remove()
    assert seen == [2]
    assert torch.equal(found[0], found[2])
    assert (found[1] - plain(model, rows[1])).abs().max() < 5e-5


def test_generation_records_the_rule_and_letter_scores_are_read_at_the_end_of_the_prompt(items: list) -> None:
    model = model_of("qwen2")
    written = {a.example_id: a for _, b in evaluate(model, bbq, items[:4]) for a in b}
    scored = {a.example_id: a for _, b in evaluate(model, bbq, items[:4], decoding=Decoding(generate=False)) for a in b}
    for name, answer in written.items():
        assert answer.rule in ("letter", "only_letter", "option_text", "unparsed")
        assert answer.p == pytest.approx(scored[name].p, rel=1e-3)
    assert replace(Decoding(), generate=False).score_labels
