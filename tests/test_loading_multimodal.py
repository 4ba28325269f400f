"""Adapters of the text and the multimodal class of one model load on either, where PEFT silently loads nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from interp.adapters.attach import attach_adapters
from interp.adapters.plan import plan_adapter
from interp.loading import load
from interp.loading.files import read_adapter
from tests.hub_folders import IDS, base_model, ck, expected
from tests.tiny import _qwen35, add_lora, randomise_lora


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory):
    """A composite Qwen3.5 checkpoint like the hub's, with adapters trained on its text and on its multimodal class."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    root = tmp_path_factory.mktemp("multimodal")
    vision = dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=24, out_hidden_size=32, patch_size=4,
                  num_position_embeddings=16)  # fmt: skip
    torch.manual_seed(0)
    config = Qwen3_5Config(text_config=_qwen35().to_dict(), vision_config=vision)
    Qwen3_5ForConditionalGeneration(config).save_pretrained(root / "base")
    add_lora(base_model(root)).save_pretrained(root / "text")
    whole = add_lora(Qwen3_5ForConditionalGeneration.from_pretrained(root / "base"))
    whole.save_pretrained(root / "whole")
    return root


def multimodal_model(root):
    from transformers import Qwen3_5ForConditionalGeneration

    return Qwen3_5ForConditionalGeneration.from_pretrained(root / "base").eval()


def test_a_composite_checkpoint_loads_as_its_text_class_with_a_text_adapter(multimodal):
    model = load(ck(multimodal, "text"))
    assert type(model.causal_lm).__name__ == "Qwen3_5ForCausalLM"
    assert torch.equal(model(IDS).logits, expected(multimodal, "text"))
    with model.adapters.use(None):
        reference = multimodal_model(multimodal)(input_ids=torch.tensor(IDS)).logits
        assert torch.allclose(model(IDS).logits, reference, atol=1e-5)  # float32, another position path


def test_an_adapter_of_the_multimodal_class_is_mapped_to_text_where_peft_loads_nothing(multimodal):
    reference = PeftModel.from_pretrained(multimodal_model(multimodal), multimodal / "whole", torch_device="cpu").eval()
    logits = reference(input_ids=torch.tensor(IDS)).logits
    with pytest.warns(UserWarning, match="tensors of the vision tower are left out"):
        model = load(ck(multimodal, "whole"))
    assert torch.allclose(model(IDS).logits, logits, atol=1e-5)  # float32, another position path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(expected(multimodal, "whole"), expected(multimodal))  # the silent failure this prevents


def test_an_adapter_of_the_text_class_is_mapped_to_the_multimodal_model(multimodal):
    from transformers import Qwen3_5ForConditionalGeneration

    base = multimodal_model(multimodal)
    with torch.device("meta"):
        skeleton = Qwen3_5ForConditionalGeneration(base.config)
    peft = attach_adapters(base, {"a": plan_adapter(skeleton, read_adapter(ck(multimodal, "text")))})
    logits = peft(input_ids=torch.tensor(IDS)).logits
    assert torch.allclose(logits, expected(multimodal, "text"), atol=1e-5)  # float32, another position path


def test_patterns_in_the_adapters_config_are_mapped_like_its_tensors(multimodal, tmp_path):
    config = LoraConfig(
        r=2, target_modules=r"model\.language_model\.layers\.\d+\.mlp\.up_proj", task_type="CAUSAL_LM",
        alpha_pattern={"model.language_model.layers.0.mlp.up_proj": 64}, rank_pattern={"layers.1.mlp.up_proj": 3},
    )  # fmt: skip
    whole = get_peft_model(multimodal_model(multimodal), config).eval()
    randomise_lora(whole, seed=5)
    whole.save_pretrained(tmp_path / "a")
    model = load(ck(multimodal, tmp_path / "a"))
    assert torch.allclose(model(IDS).logits, whole(input_ids=torch.tensor(IDS)).logits, atol=1e-5)
