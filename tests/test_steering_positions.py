"""Positions of `steer`: generation is steered at the same tokens always, with a cache, beams and padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from interp.hooks import record
from interp.model import Model
from interp.passes import pad
from interp.positions import From, Generated, Last, PromptTokens, parse_positions
from steering import (
    Direction,
    steer,
)
from tests.steering_kit import direction
from tests.tiny import add_lora, tiny

pytestmark = pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
TEXTS = [[5, 9, 77], [3, 14, 15, 92, 65, 35, 8, 97, 93], [31, 41, 59, 26, 53, 58]]
N_NEW = 6


def steered_at(module: nn.Module, positions, run) -> list[Tensor]:
    """For every pass inside the block, whether each [row, column] was changed at the site."""
    seen = []
    with record(module, "resid_post.1", stop=False) as before, steer(module, direction(2), 0.3, positions=positions):
        with record(module, "resid_post.2", stop=False) as after:
            run()
    with steer(module, direction(2), 0.0, positions=positions):
        with record(module, "resid_post.2", stop=False) as bare:
            run()
    for new, old, _ in zip(after.passes, bare.passes, before.passes, strict=True):
        site = after.sites[0]
        seen.append((new.acts[site] != old.acts[site]).any(dim=-1))
    return seen


@pytest.mark.parametrize(
    ("positions", "prompt", "step"),
    [
        ("last", [0, 0, 0, 0, 1], 0),
        ("generated", [0, 0, 0, 0, 1], 1),
        ("prompt", [0, 0, 1, 1, 1], 0),
        ("from:1", [0, 0, 0, 1, 1], 1),
        ("from:3", [0, 0, 0, 0, 0], 1),
        (Last(), [0, 0, 0, 0, 1], 1),
        ([[1], []], [0, 0, 0, 1, 0], 0),
        (torch.tensor([[True, False, True, False, False], [True] * 5]), [0, 0, 1, 0, 0], 0),
    ],
    ids=str,
)
def test_positions_mean_the_same_tokens_in_prefill_and_at_every_step(positions, prompt: list[int], step: int) -> None:
    """Row 0 has three tokens behind two pads; the second text is there to make them. Decoded by hand, with a cache."""
    module = tiny("qwen2")
    batch = pad([TEXTS[0], TEXTS[1][:5]], side="left")

    def run() -> None:
        mask, at = batch.attention_mask, batch.position_ids
        assert mask is not None and at is not None
        past = module(**batch.kwargs, use_cache=True).past_key_values
        for k in range(2):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
            new = torch.tensor([[11], [12]])
            module(new, attention_mask=mask, position_ids=at[:, -1:] + 1 + k, past_key_values=past)

    first, *steps = steered_at(module, positions, run)
    first[:, :2] &= batch.attention_mask[:, :2].bool()  # whatever stands at a pad does not matter
    assert first[0].int().tolist() == prompt
    assert [int(s[0, 0]) for s in steps] == [step, step]


def naive(module: nn.Module, text: list[int], d: Direction, alpha: float, positions: str) -> list[int]:
    """Greedy decoding of one text by whole passes, with a hook written out by hand: the meaning of `positions`."""
    ids, n = list(text), len(text)
    delta = alpha * d.scale("resid") * d.unit
    block = Model.wrap(module).layout.layers[d.site.layer].block

    def hook_for(width: int):
        def hook(mod, args, out):
            resid = (out[0] if isinstance(out, tuple) else out).clone()
            chosen = {"generated": range(n - 1, width), "last": range(n - 1, n), "prompt": range(n),
                      "all": range(width), "from:2": range(2, width)}[positions]  # fmt: skip
            resid[:, list(chosen)] += delta
            return (resid, *out[1:]) if isinstance(out, tuple) else resid

        return hook

    for _ in range(N_NEW):
        handle = block.register_forward_hook(hook_for(len(ids)))
        with torch.no_grad():
            ids.append(int(module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        handle.remove()
    return ids[n:]


def generated(module: nn.Module, texts: list[list[int]], **options) -> list[list[int]]:
    batch = pad(texts, side="left")
    settings = dict(max_new_tokens=N_NEW, min_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
    out = module.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **settings | options)
    return out[:, batch.input_ids.shape[1] :].tolist()


@pytest.mark.parametrize("positions", ["generated", "last", "prompt", "all", "from:2"])
def test_generate_is_steered_at_the_same_tokens_with_and_without_cache_and_in_any_batch(positions: str) -> None:
    """The faults that others have here: decode steps left out, only the first row steered, pads counted as text."""
    module, d = tiny("qwen2"), direction()
    want = [naive(module, text, d, 1.5, positions) for text in TEXTS]
    assert want != [naive(module, text, d, 0.0, positions) for text in TEXTS]
    with steer(module, d, 1.5, positions=positions):
        for use_cache in (True, False):
            assert generated(module, TEXTS, use_cache=use_cache) == want
            assert [generated(module, [text], use_cache=use_cache)[0] for text in TEXTS] == want


def test_the_choices_of_positions_differ_in_what_is_written() -> None:
    module, d = tiny("qwen2"), direction()
    written = {p: [naive(module, text, d, 1.5, p) for text in TEXTS] for p in ("generated", "last", "prompt", "all")}
    assert len({str(w) for w in written.values()}) == 4


def test_generate_is_steered_alike_in_every_family(family: str) -> None:
    module, d = tiny(family), direction()
    want = [naive(module, text, d, 1.5, "generated") for text in TEXTS[:2]]
    with steer(module, d, 1.5, positions="generated"):
        assert [generated(module, [text])[0] for text in TEXTS[:2]] == want
        assert [generated(module, [text], use_cache=False)[0] for text in TEXTS[:2]] == want
        assert generated(module, TEXTS[:2]) == want
    assert generated(module, TEXTS[:1])[0] != want[0]


@pytest.mark.parametrize("positions", ["generated", "last", [[2], [0, 3], [5]]], ids=str)
def test_beams_of_a_batch_are_steered_as_each_text_alone(positions) -> None:
    module, d = tiny("qwen2"), direction()
    options = dict(num_beams=3, num_return_sequences=2)
    alone = []
    for i, text in enumerate(TEXTS):
        own = positions if isinstance(positions, str) else [positions[i]]
        with steer(module, d, 1.5, positions=own):
            alone += generated(module, [text], **options)
    with steer(module, d, 1.5, positions=positions):
        assert generated(module, TEXTS, **options) == alone
        assert generated(module, TEXTS, use_cache=False, **options) == alone
    assert generated(module, TEXTS, **options) != alone


def test_a_mask_over_prompt_columns_steers_beams_and_not_what_is_written() -> None:
    module, d = tiny("qwen2"), direction()
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 8], mask[1, 0], mask[1, 3], mask[2, 8] = True, True, True, True
    lists = [[2], [0, 3], [5]]  # the same tokens, counted from the first real one
    with steer(module, d, 1.5, positions=lists):
        want = generated(module, TEXTS, num_beams=2)
    with steer(module, d, 1.5, positions=mask):
        assert generated(module, TEXTS, num_beams=2) == want
        assert generated(module, TEXTS, num_beams=2, use_cache=False) == want


def test_a_static_cache_does_not_lose_the_padding() -> None:
    module, d = tiny("qwen2"), direction()
    with steer(module, d, 1.5, positions=[[0], [4], [1]]):
        want = generated(module, TEXTS)
        assert generated(module, TEXTS, cache_implementation="static") == want


def test_generate_of_an_adapted_model_is_steered() -> None:
    module, d = add_lora(tiny("qwen2")), direction()
    want = [naive(module, text, d, 1.5, "generated") for text in TEXTS]
    with steer(module, d, 1.5):
        assert generated(module, TEXTS) == want


def test_a_second_prompt_in_one_block_is_a_prompt_again() -> None:
    module, d = tiny("qwen2"), direction()
    want = [naive(module, text, d, 1.5, "last") for text in TEXTS]
    with steer(module, d, 1.5, positions="last"):
        assert [generated(module, [text])[0] for text in (*TEXTS, *TEXTS)] == want * 2


def test_where_a_prompt_given_in_pieces_ends_is_asked_and_not_guessed() -> None:
    module = tiny("qwen2")
    text = torch.tensor([TEXTS[1]])
    with steer(module, direction(), 0.5, positions="last"):
        past = module(text[:, :4], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="the prompt came in several passes"):
            module(text[:, 4:], past_key_values=past)
    with steer(module, direction(), 0.5, positions="from:6"):
        past = module(text[:, :4], use_cache=True).past_key_values
        pieces = module(text[:, 4:], past_key_values=past).logits
        torch.testing.assert_close(pieces, module(text).logits[:, 4:], rtol=1e-4, atol=1e-4)


def test_generate_is_the_models_own_again_after_the_block() -> None:
    module = tiny("qwen2")
    with pytest.raises(ZeroDivisionError), steer(module, direction(), 0.5), steer(module, direction(), 0.5):
        raise ZeroDivisionError
    assert "generate" not in vars(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    with steer(module, direction(), 0.5), pytest.raises(ValueError, match="expected a prompt"):
        module.generate(max_new_tokens=2)


def test_new_rules_have_names_that_parse() -> None:
    for rule in (Generated(), PromptTokens(), From(7)):
        assert parse_positions(rule.name) == [rule]
    with pytest.raises(ValueError, match="Did you mean 'generated'"):
        parse_positions("generate")
