"""A sweep checks itself: verification, models that it does not know, what it leaves behind and what it refuses."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import interp.sweep.staircase as staircase_module
from interp.edits import Replace
from interp.family import FAMILIES as LAYOUTS
from interp.hooks import edit
from interp.model import Model
from interp.sweep import Change, Intervention, sweep
from tests.sweep_kit import PROMPTS, all_heads, float64_models, naive
from tests.tiny import tiny


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch):
    """Makes models that compute in float64 throughout."""
    return float64_models(monkeypatch)


def test_verification_recomputes_the_share_asked_for(family: str) -> None:
    model = Model.wrap(tiny(family))
    rows = all_heads(model, [20, 22])
    got = sweep(model, PROMPTS[0], rows, verify=0.25, seed=3, answer_ids=[3, 4])
    assert got.n_verified == round(len(rows) / 4)
    assert sweep(model, PROMPTS[0], rows[:2], verify=1e-6).n_verified == 1


def broken_attention(module, query, key, value, mask, *, rows_prefix=None, **kwargs):
    """Forgets the first half of the prefix."""
    from interp.sweep.attention import rows_attention

    return rows_attention(
        module, query, key, value, mask, rows_prefix=tuple(p[:, :, 11:] for p in rows_prefix), **kwargs
    )


@pytest.mark.parametrize("what", ["attention", "changes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verification_raises_when_the_engine_is_broken(monkeypatch, what: str, dtype: torch.dtype) -> None:
    model = Model.wrap(tiny("qwen2", dtype=dtype))
    rows = all_heads(model, [22])
    sweep(model, PROMPTS[0], rows, verify=1.0)
    if what == "attention":
        monkeypatch.setattr("transformers.AttentionInterface.register", lambda name, function: None)
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "diptych_rows", broken_attention)
    else:
        monkeypatch.setattr(staircase_module, "apply_ops", lambda *args, **kwargs: None)
    with pytest.raises(
        RuntimeError, match=r"row L\d.H\d disagrees with the reference engine by .* of the largest value"
    ):
        sweep(model, PROMPTS[0], rows, verify=1.0)


def test_an_unknown_model_type_falls_back_to_the_reference_engine_with_one_warning(wide) -> None:
    module = wide("llama").module
    module.config.model_type = "novel"
    model = Model(module, family=LAYOUTS["llama"])
    rows = all_heads(model, [20, 22])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = sweep(model, PROMPTS[0], rows, verify=0.5)
    assert [str(w.message)[:38] for w in caught] == ["model type 'novel' is not supported by"]
    assert (got.engine, got.n_verified) == ("reference", 0)
    assert (got.rows - naive(model, PROMPTS[0], rows)).abs().max() <= 1e-12
    assert torch.equal(got.effects, got.rows - got.clean)


def n_hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("fault", [False, True])
def test_nothing_is_left_on_the_model(family: str, fault: bool) -> None:
    model = Model.wrap(tiny(family))
    before, bare = model.layout.config._attn_implementation, model([PROMPTS[1]]).logits
    hooks = n_hooks(model.module)

    def change(acts: Tensor) -> Tensor:
        if fault:
            raise ZeroDivisionError
        return acts * 2

    row = Intervention((Change("z.1", change, [3]), Change("mlp_out.2", Replace(0.0), [5])))
    try:
        sweep(model, PROMPTS[1], [row])
    except ZeroDivisionError:
        assert fault
    assert n_hooks(model.module) == hooks
    assert model.layout.config._attn_implementation == before
    assert torch.equal(model([PROMPTS[1]]).logits, bare)


@pytest.mark.parametrize(
    ("change", "kwargs", "words"),
    [
        (Change("logits", Replace()), {}, "site 'logits' cannot be changed in a sweep"),
        (Change("pattern.0", Replace()), {}, "site 'pattern.0' cannot be changed in a sweep"),
        (Change("z.9.0", Replace()), {}, r"3 layers \(0-2\)"),
        (Change("z.0.0", Replace(), [6]), {}, "expected tokens 0-5 .*got 6"),
        (Change("z.0.0", Replace(), [2]), {"start": 3}, "start: token 2 is changed or read.*got 3"),
        (Change("z.0.0", Replace(torch.ones(7)), [2]), {}, r"value of shape \(7,\) does not broadcast"),
        (Change("z.0.0", Replace(torch.ones(5, 8)), [2]), {}, r"value of shape \(5, 8\) does not broadcast"),
        (Change("z.0.0", Replace(torch.ones(1, 2, 8)), [2, 3]), {}, r"value of shape \(1, 2, 8\) does not broadcast"),
        (Change("z.0.0", lambda acts: acts.mul_(2), [2]), {}, "changed its input in place"),
        (Change("z.0.0", lambda acts: acts[..., :3], [2]), {}, r"returned \(1, 1, 3\), expected \(1, 1, 8\)"),
        (Change("z.0.0", Replace(), [2]), {"verify": 2.0}, "verify: expected a share.*got 2.0"),
        (Change("z.0.0", Replace(), [2]), {"read_at": []}, "read_at: expected at least one token"),
    ],
)
def test_a_bad_request_says_what_was_expected(change: Change, kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sweep(tiny("qwen2"), PROMPTS[1], [Intervention((change,))], **kwargs)


def test_a_sweep_inside_an_open_block_or_in_training_mode_is_refused() -> None:
    model = Model.wrap(tiny("qwen2"))
    with edit(model, {"z.0": Replace(0.0)}), pytest.raises(ValueError, match="record or edit block"):
        sweep(model, PROMPTS[1], [Intervention()])
    with pytest.raises(ValueError, match="at least one"):
        sweep(model, PROMPTS[1], [])
    model.module.train()
    with pytest.raises(RuntimeError, match="training mode"):
        sweep(model, PROMPTS[1], [Intervention()])
