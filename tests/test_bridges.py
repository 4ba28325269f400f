"""TransformerLens and nnsight see what we record; the logit lens ends at the model's own output."""

from __future__ import annotations

import pytest
import torch

from interp import record
from interp.bridges import logit_lens, read_nnsight, read_transformer_lens, to_transformer_lens
from interp.model import Model
from tests.tiny import add_lora, tiny, tiny_tokenizer

IDS = torch.tensor([[5, 9, 11, 3, 8, 2], [7, 4, 4, 9, 1, 3]])


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(add_lora(tiny("qwen2", attn="eager")), tokenizer=tiny_tokenizer())


def test_a_site_is_the_same_tensor_in_transformer_lens(model):
    pytest.importorskip("transformer_lens", reason="extra 'bridges' is not installed")
    sites = ["resid_pre.1", "resid_mid.0", "attn_out.1", "mlp_out.0", "resid_post.1", "z.1", "pattern.0"]
    before = {name: id(module) for name, module in model.causal_lm.named_modules()}
    theirs = read_transformer_lens(to_transformer_lens(model), IDS, sites)
    assert {name: id(module) for name, module in model.causal_lm.named_modules()} == before, "ours is left as it was"
    with record(model, sites) as acts:
        model(IDS)
    assert list(theirs) == sites
    for site in sites:
        ours = acts[site] if site != "pattern.0" else acts[site].reshape(theirs[site].shape)
        assert torch.allclose(theirs[site].reshape(ours.shape), ours, atol=2e-5), site  # fp32, products recomputed


def test_a_site_is_the_same_bits_in_nnsight(model):
    pytest.importorskip("nnsight", reason="extra 'bridges' is not installed")
    sites = ["resid_post.1", "resid_pre.0", "z.1", "attn_out.0", "mlp_out.1"]
    theirs = read_nnsight(model, IDS, sites)
    with record(model, sites) as acts:
        model(IDS)
    assert list(theirs) == sites
    for site in sites:
        assert torch.equal(theirs[site].reshape(acts[site].shape), acts[site]), site


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2", "llama"])
def test_the_lens_of_the_last_layer_is_the_model_s_own_output(family):
    model = Model(tiny(family))
    last = f"resid_post.{model.n_layers - 1}"
    with record(model, [last, "resid_post.0", "logits"]) as acts:
        model(IDS)
    assert torch.allclose(logit_lens(model, acts[last]), acts["logits"], atol=1e-5)  # fp32, one norm and one matmul
    assert not torch.allclose(logit_lens(model, acts["resid_post.0"]), acts["logits"], atol=1e-2)


def test_what_a_bridge_does_not_have_is_named(model):
    with pytest.raises(ValueError, match="logit_lens: the residual stream of .* is 32 wide, got 8"):
        logit_lens(model, torch.zeros(2, 8))
    with pytest.raises(ValueError, match="not q.0. Use interp.record"):
        read_nnsight(model, IDS, ["q.0"])
    with pytest.raises(ValueError, match="no name for logits"):
        read_transformer_lens(None, IDS, ["logits"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no tokenizer"):
        to_transformer_lens(Model(tiny("qwen2")))
