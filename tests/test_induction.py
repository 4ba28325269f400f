"""Prefix-matching scores: patterns made by hand, a planted induction head, and the experiments' own arithmetic."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.known_results.induction import matched_sets
from benchmarks.known_results.lens import _slopes, answer_ranks
from benchmarks.known_results.number import Settings, examples
from interp.heads import HeadId, induction_scores, prefix_matching
from interp.heads.induction import followers
from interp.model import Model
from tests.tiny import tiny

TWICE = [5, 6, 7, 5, 6, 7]


def test_a_head_that_attends_to_the_token_after_the_copy_scores_1_and_its_neighbours_score_0() -> None:
    pattern = torch.zeros(3, 6, 6)
    for query in (3, 4, 5):
        pattern[0, query, query - 2] = 1.0  # the token after the copy
        pattern[1, query, query - 3] = 1.0  # the copy itself
        pattern[2, query, query] = 1.0
    assert prefix_matching(pattern, followers(TWICE)).tolist() == [1.0, 0.0, 0.0]


def test_attention_is_summed_over_all_earlier_copies_and_averaged_over_tokens_that_have_one() -> None:
    pattern = torch.zeros(1, 5, 5)
    ids = [5, 6, 5, 7, 5]  # the third 5 was followed by 6 and by 7; the second one by 6
    pattern[0, 2, 1] = 0.5
    pattern[0, 4, 1], pattern[0, 4, 3] = 0.25, 0.5
    assert prefix_matching(pattern, followers(ids)).item() == pytest.approx((0.5 + 0.75) / 2)


def test_the_future_is_no_follower_and_a_text_without_repeats_is_refused() -> None:
    assert not followers(TWICE)[:3].any()
    assert not followers([5, 5, 6]).triu(diagonal=1).any()
    with pytest.raises(ValueError, match="no token occurs twice"):
        prefix_matching(torch.zeros(1, 3, 3), followers([5, 6, 7]))


def test_scores_of_a_model_are_those_of_its_eager_attention_by_a_plain_loop() -> None:
    module: Any = tiny("qwen2")
    model = Model.wrap(module)
    heads, scores = induction_scores(model, [TWICE, [9, 8, 9, 8, 9, 3]])
    module.set_attn_implementation("eager")
    attentions = module(torch.tensor([TWICE]), output_attentions=True).attentions
    expected = [
        float(np.mean([attentions[head.layer][0, head.head, query, query - 2].item() for query in (3, 4, 5)]))
        for head in heads
    ]
    assert scores.shape == (2, len(heads))
    assert scores[0] == pytest.approx(expected, abs=1e-6)
    assert np.ptp(scores[0]) > 1e-4, "heads differ"


def test_a_planted_induction_head_has_the_highest_score_of_all_heads() -> None:
    """Layer 0 copies the token before into a free subspace; L1.H0 matches it with the present token."""
    model = Model.wrap(planted())
    heads, scores = induction_scores(model, [[*range(1, 9), *range(1, 9)]])
    best = int(scores[0].argmax())
    assert heads[best] == HeadId(1, 0)
    # 7 tokens at 1, and half for the token at place 0, which has no token before it and copies itself
    assert scores[0, best] == pytest.approx(7.5 / 8, abs=1e-4)
    assert np.delete(scores[0], best).max() < 0.3


def test_without_repeats_at_the_same_places_the_planted_head_matches_nothing() -> None:
    model = Model.wrap(planted())
    _, blank = induction_scores(model, [list(range(1, 17))], repeats=[[*range(1, 9), *range(1, 9)]])
    assert blank[0].max() < 0.3
    with pytest.raises(ValueError, match="same lengths"):
        induction_scores(model, [[1, 2]], repeats=[[1, 2, 1]])


N_TOKENS, N_PLACES, WIDTH = 17, 16, 32


@torch.no_grad()
def planted() -> Any:
    """A GPT-2 of two layers and two heads, all other weights 0: tokens and places are one-hot in 64 dimensions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = dict(vocab_size=N_TOKENS, n_positions=N_PLACES, n_embd=2 * WIDTH, n_layer=2, n_head=2)
    config = GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    token, place, before = 0, N_TOKENS, N_TOKENS + N_PLACES  # first dimension of each part of the residual stream
    core: Any = model.transformer
    core.wte.weight[:, token:place] = torch.eye(N_TOKENS)
    core.wpe.weight[:, place:before] = torch.eye(N_PLACES)
    first, second = (block.attn for block in core.h)
    query, key, value = 0, 2 * WIDTH, 4 * WIDTH  # columns of the fused projection; head 0 has the first 32 of each
    for i in range(1, N_PLACES):
        first.c_attn.weight[place + i, query + i - 1] = 20.0
    for i in range(N_PLACES):
        first.c_attn.weight[place + i, key + i] = 1.0
    for i in range(N_TOKENS):
        first.c_attn.weight[token + i, value + i] = 1.0
        first.c_proj.weight[i, before + i] = 1.0
        second.c_attn.weight[token + i, query + i] = 20.0
        second.c_attn.weight[before + i, key + i] = 1.0
    return model


def test_control_sets_have_as_many_heads_of_each_layer_and_none_of_the_best() -> None:
    heads = [HeadId(layer, head) for layer in range(3) for head in range(6)]
    best = [HeadId(0, 1), HeadId(2, 0), HeadId(2, 5)]
    sets = matched_sets(best, heads, n=30, seed=0)
    for one in sets:
        assert Counter(head.layer for head in one) == {0: 1, 2: 2}
        assert len(set(one)) == 3
        assert not set(one) & set(best)
    assert len({tuple(sorted(one)) for one in sets}) > 10
    with pytest.raises(ValueError, match=r"layers \[0\]"):
        matched_sets([HeadId(0, head) for head in range(4)], heads, n=1, seed=0)


def test_ranks_count_from_1_and_slopes_are_minus_1_for_a_rank_that_always_falls() -> None:
    logits = np.array([[3.0, 1.0, 2.0, 2.0], [0.0, 5.0, 1.0, 4.0]])
    assert answer_ranks(logits, np.array([0, 2])).tolist() == [[1, 3], [4, 3]]  # of a tie the worse rank
    ranks = np.array([[9.0, 1.0, 5.0], [4.0, 2.0, 5.0], [1.0, 3.0, 5.0]])
    assert _slopes(ranks) == pytest.approx([-1.0, 1.0, 0.0])


def test_number_of_subject_and_distractor_are_balanced_in_every_subject() -> None:
    items = examples(Settings())
    cells = Counter((item.groups["subject"], item.label, item.metadata["distractor"]) for item in items)
    assert len({item.text for item in items}) == len(items) == 640
    assert set(cells.values()) == {4}
