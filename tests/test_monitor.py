"""Scores of a probe while a model writes: those of a forward pass over the finished text, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.hooks import edit, record
from interp.model import Model
from interp.passes import pad
from interp.site import Site
from probes import Probe, monitor
from probes.result import RawDirection
from steering.direction import Direction
from tests.tiny import FAMILIES, add_lora, tiny

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [21, 22, 23, 24, 25, 26, 27, 28]]
GREEDY: dict[str, Any] = dict(do_sample=False, eos_token_id=None, pad_token_id=0)


def weights(n: int = 32) -> tuple[Tensor, float]:
    return torch.randn(n, generator=torch.Generator().manual_seed(3)), 0.25


def written(module: nn.Module, prompts: list[list[int]], **kwargs: Any) -> Tensor:
    batch = pad(prompts, side="left")
    generate: Any = module.generate
    return generate(batch.input_ids, attention_mask=batch.attention_mask, **{**GREEDY, **kwargs})


def by_hand(module: nn.Module, text: list[int], first: int, site: str) -> np.ndarray:
    """feats · w + b of a plain pass over one text without padding, from token `first` on."""
    w, b = weights()
    with record(module, site) as acts:
        Model.wrap(module)([text])
    return (acts[site][0, first:].flatten(1).double() @ w.double() + b).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_scores_are_those_of_a_pass_over_the_finished_text(family: str, use_cache: bool) -> None:
    module: Any = tiny(family)
    plain = written(module, PROMPTS, max_new_tokens=6, use_cache=use_cache)
    with monitor(module, weights(), site="resid_post.1") as m:
        out = written(module, PROMPTS, max_new_tokens=6, use_cache=use_cache)
    assert torch.equal(out, plain)
    width = max(map(len, PROMPTS))
    for row, (prompt, reply) in enumerate(zip(PROMPTS, m.replies, strict=True)):
        text = [*prompt, *out[row, width:].tolist()][:-1]  # the last token is written and never read
        expected = by_hand(module, text, len(prompt) - 1, "resid_post.1")
        assert len(reply.scores) == 6 and reply.ids == tuple(text[len(prompt) - 1 :])
        np.testing.assert_allclose(reply.scores, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


def test_an_adapter_a_head_and_an_edit_are_seen() -> None:
    module: Any = add_lora(tiny("qwen2"))
    w = torch.randn(8, generator=torch.Generator().manual_seed(3))
    batch = pad(PROMPTS, side="left")
    with monitor(module, (w, 0.0), site="z.1.2") as m, edit(module, {"z.1.2": lambda acts: 0 * acts + 2.0}):
        module.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=3, **GREEDY)
    for scores in m.scores:
        np.testing.assert_allclose(scores, float(2 * w.sum()), rtol=1e-5)


def test_a_row_ends_before_its_end_token() -> None:
    module: Any = tiny("llama")
    free = written(module, PROMPTS, max_new_tokens=8)
    width = max(map(len, PROMPTS))
    end = int(free[1, width + 3])  # the fourth new token of row 1 is declared the end token
    first = [(row[width:] == end).int() for row in free]
    n_before = [int(row.argmax()) if row.any() else 8 for row in first]
    with monitor(module, weights(), site="resid_post.1") as m:
        out = written(module, PROMPTS, max_new_tokens=8, eos_token_id=end)
    n_read = out.shape[1] - width
    # the last prompt token and the tokens before the end token; of a reply that is cut, the last one is never read
    assert [len(scores) for scores in m.scores] == [min(n + 1, n_read) for n in n_before]
    assert n_before[1] <= 3


def test_samples_are_replies_of_their_text() -> None:
    module: Any = tiny("qwen3")
    torch.manual_seed(0)
    with monitor(module, weights(), site="resid_post.2") as m:
        out = written(module, PROMPTS, max_new_tokens=4, do_sample=True, num_return_sequences=2)
    assert [(r.text, r.sample) for r in m.replies] == [(t, s) for t in range(3) for s in range(2)]
    width = max(map(len, PROMPTS))
    for row, reply in enumerate(m.replies):
        text = [*PROMPTS[row // 2], *out[row, width:-1].tolist()]
        expected = by_hand(module, text, len(PROMPTS[row // 2]) - 1, "resid_post.2")
        np.testing.assert_allclose(reply.scores, expected, rtol=1e-3, atol=1e-3)
    table = m.table()
    assert len(table) == 6 * 4 and set(table["token"]) == {0, 1, 2, 3}
    assert table.loc[table["text"] == 2, "token_id"].iloc[0] == 28


def test_a_callback_ends_its_row_and_no_other() -> None:
    module: Any = tiny("qwen2")
    steps: list[int] = []

    def stop(step: Any) -> Tensor:
        steps.append(step.scores.shape[1])
        wants = torch.zeros(3, dtype=torch.bool)
        wants[1] = step.scores.shape[1] == 2
        assert torch.equal(step.newest, step.scores[:, -1])
        return wants

    free = written(module, PROMPTS, max_new_tokens=6)
    with monitor(module, weights(), site="resid_post.1", stop=stop) as m:
        out = written(module, PROMPTS, max_new_tokens=6, eos_token_id=99)  # an end token that is never written
    width = max(map(len, PROMPTS))
    assert 99 not in free
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [r.stopped for r in m.replies] == [False, True, False]
    assert [len(r.scores) for r in m.replies] == [6, 2, 6]
    assert torch.equal(out[[0, 2]], free[[0, 2]])
    assert torch.equal(out[1, : width + 2], free[1, : width + 2]) and not out[1, width + 2 :].any()


def test_if_every_row_is_stopped_generation_ends() -> None:
    module: Any = tiny("qwen2")
    with monitor(module, weights(), site="resid_post.1", stop=lambda step: step.newest > -1e9) as m:
        out = written(module, PROMPTS, max_new_tokens=50)
    assert out.shape[1] == max(map(len, PROMPTS)) + 1
    assert [len(scores) for scores in m.scores] == [1, 1, 1]


def test_probes_of_every_sort_give_the_same_scores() -> None:
    module: Any = tiny("qwen2")
    w, b = weights()
    estimator = Probe("ridge").fit(np.random.default_rng(0).normal(size=(30, 32)), np.arange(30) % 2)
    estimator.coef_, estimator.intercept_ = w[None].numpy(), np.array([b])
    unit = w / w.norm()
    sorts = [
        ((w, b), "resid_post.1"),
        (lambda feats: feats @ w + b, "resid_post.1"),
        (estimator, "resid_post.1"),
        (RawDirection(unit, float(w.norm()), b, 0.0, 1.0), Site("resid_post", 1)),
    ]
    seen = []
    for probe, site in sorts:
        with monitor(module, probe, site=site) as m:
            written(module, PROMPTS, max_new_tokens=3)
        seen.append(np.concatenate(m.scores))
    for one in seen[1:]:
        np.testing.assert_allclose(one, seen[0], rtol=1e-5, atol=1e-5)
    direction = Direction(w, Site("resid_post", 1), toward="a", away_from="b")
    with monitor(module, direction) as m:
        written(module, PROMPTS, max_new_tokens=3)
    np.testing.assert_allclose(np.concatenate(m.scores) * float(w.norm()) + b, seen[0], rtol=1e-5, atol=1e-5)


def test_embeddings_as_prompt() -> None:
    module: Any = tiny("qwen2")
    embeds = module.get_input_embeddings()(torch.tensor([PROMPTS[0]]))
    with monitor(module, weights(), site="resid_post.1") as m:
        out = module.generate(inputs_embeds=embeds, max_new_tokens=4, **GREEDY)
    expected = by_hand(module, [*PROMPTS[0], *out[0, :-1].tolist()], len(PROMPTS[0]) - 1, "resid_post.1")
    np.testing.assert_allclose(m.scores[0], expected, rtol=1e-3, atol=1e-4)
    assert m.replies[0].ids == (None, *out[0, :-1].tolist())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(num_beams=2), "num_beams=2: beams are reordered"),
        (dict(prompt_lookup_num_tokens=3), "prompt_lookup_num_tokens=3: drafted tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_a_pass(kwargs: dict[str, Any], message: str) -> None:
    module: Any = tiny("qwen2")
    passes: list[int] = []
    module.model.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(ValueError, match=message), monitor(module, weights(), site="resid_post.1"):
        written(module, PROMPTS, max_new_tokens=3, **kwargs)
    assert not passes


def test_right_padding_is_refused() -> None:
    module: Any = tiny("qwen2")
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(ValueError, match="padded on the right"), monitor(module, weights(), site="resid_post.1"):
        module.generate(torch.tensor([[5, 6, 7], [8, 9, 0]]), attention_mask=mask, max_new_tokens=2, **GREEDY)


@pytest.mark.parametrize(
    ("probe", "site", "message"),
    [
        (weights(), None, "does not say where it reads; pass site="),
        (weights(31), "resid_post.1", "31 weights, 'resid_post.1' of this model 32 components"),
        (weights(), "resid_post.9", "the model has 3 layers"),
        (weights(), "logits", "a probe cannot read 'logits'"),
        (Direction(weights()[0], Site("resid_post", 1), toward="a", away_from="b"), "resid_post.2", "Leave site out"),
        (3.0, "resid_post.1", "expected a SweepResult, a Probe"),
    ],
)
def test_a_probe_that_does_not_fit_is_refused(probe: Any, site: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message), monitor(tiny("qwen2"), probe, site=site):
        pass


def test_a_block_without_generate_is_an_error() -> None:
    module: Any = tiny("qwen2")
    with pytest.raises(ValueError, match="no call to `generate`"), monitor(module, weights(), site="resid_post.1"):
        module(torch.tensor([[5, 6, 7]]))


def test_a_callback_or_probe_of_the_wrong_shape_is_an_error() -> None:
    module: Any = tiny("qwen2")
    for kwargs in (dict(stop=lambda step: [True]), {}):
        probe = weights() if kwargs else (lambda feats: feats)
        with pytest.raises(ValueError, match="expected one"), monitor(module, probe, site="resid_post.1", **kwargs):
            written(module, PROMPTS, max_new_tokens=3)
    assert "generate" not in vars(module)


def test_steps_that_skip_the_hook_are_an_error() -> None:
    module: Any = tiny("qwen2")
    layer = module.model.layers[1]
    with pytest.raises(RuntimeError, match="saw 1 steps"), monitor(module, weights(), site="resid_post.1"):
        calls: list[int] = []

        def drop(*_: Any) -> None:
            calls.append(1)
            if len(calls) == 2:  # as after a compilation: later passes call no hook of this layer
                layer._forward_hooks.clear()

        handle = module.model.register_forward_pre_hook(drop)
        try:
            written(module, PROMPTS, max_new_tokens=3)
        finally:
            handle.remove()
