"""A loaded checkpoint computes what plain transformers and PEFT compute, alone, with siblings, in pairs, and merged."""

from __future__ import annotations

import pytest
import torch
from peft import IA3Config, LoraConfig, TrainableTokensConfig
from safetensors.torch import load_file

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import LoadOptions, load, load_members, load_pair
from tests.hub_folders import IDS, base_model, ck, expected, grow_ia3, make_hub, perturb, saved
from tests.tiny import save_checkpoint, tiny_tokenizer


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("adapter", [None, "lora", "dora", "rslora"])
def test_loaded_logits_are_those_of_plain_transformers_and_peft(hub, adapter):
    model = load(ck(hub, adapter))
    assert torch.equal(model(IDS).logits, expected(hub, adapter))
    assert model.adapters.names == (() if adapter is None else ("b5.1",))
    with model.adapters.use(None):
        assert torch.equal(model(IDS).logits, expected(hub))
    assert not any(m.training for m in model.module.modules())
    assert not any(p.requires_grad for p in model.module.parameters())
    assert model.tokenizer.encode("the fox") == tiny_tokenizer().encode("the fox")


def test_siblings_share_the_base_and_a_bare_one_is_the_base(hub):
    model = load(ck(hub, name="plain"), siblings=[ck(hub, "lora"), ck(hub, "second", "train")])
    assert model.adapters.names == ("plain", "b5.1", "train")
    assert model.adapters.active is None
    for role, adapter in {"plain": None, "b5.1": "lora", "train": "second"}.items():
        with model.adapters.use(role):
            assert torch.equal(model(IDS).logits, expected(hub, adapter))
    with pytest.raises(ValueError, match=r"names of their own, got \['b5\.1', 'b5\.1'\]"):
        load(ck(hub, "lora"), siblings=[ck(hub, "second")])
    with pytest.raises(ValueError, match=r"two: not on the base of 'b5\.1'"):
        load(ck(hub, "lora"), siblings=[ck(hub, name="two", base="other")])


def test_a_pair_of_one_base_holds_it_once(hub):
    pair = CheckpointPair(ck(hub, "lora", "e"), ck(hub, "second", "h"), base=str(hub / "base"))
    model = load_pair(pair)
    assert model.adapters.names == ("engaged", "heuristic", "base")
    assert model.adapters.active == "engaged"
    adapter_size = sum(p.numel() for n, p in model.module.named_parameters() if "lora_" in n)
    n_base = sum(p.numel() for p in base_model(hub).parameters())
    assert sum(p.numel() for p in model.module.parameters()) == n_base + adapter_size
    assert adapter_size == 2 * sum(t.numel() for t in load_file(hub / "lora" / "adapter_model.safetensors").values())
    with model.adapters.use("heuristic"):
        assert torch.equal(model(IDS).logits, expected(hub, "second"))
    assert model.fingerprint.select("engaged").sha256 == load(ck(hub, "lora")).fingerprint.sha256
    assert model.fingerprint.select("base").sha256 == load(ck(hub)).fingerprint.sha256


def test_members_of_two_bases_come_one_after_the_other_and_the_first_is_freed(hub, tmp_path):
    pair = CheckpointPair(ck(hub, "lora", "e"), ck(hub, name="h", base="other"), base=str(hub / "base"))
    with pytest.raises(ValueError, match=r"one Model holds one base\. Iterate over load_members"):
        load_pair(pair)
    seen = []
    for roles, model in load_members(pair, dtype="float32"):
        if seen:
            assert sum(p.numel() for p in seen[-1][1].module.parameters()) == 0
        adapter, base = (None, "other") if seen else ("lora", "base")
        assert torch.equal(model(IDS).logits, expected(hub, adapter, base))
        seen.append((roles, model))
    assert [roles for roles, _ in seen] == [("engaged", "base"), ("heuristic",)]


def test_members_with_kinds_of_adapters_that_one_model_cannot_hold_come_apart(hub, tmp_path):
    ia3 = saved(hub, tmp_path, IA3Config(task_type="CAUSAL_LM"), grow_ia3)
    pair = CheckpointPair(ck(hub, "lora", "e"), Checkpoint("h", str(hub / "base"), str(ia3)), base=str(hub / "base"))
    with pytest.raises(ValueError, match="engaged is LORA, heuristic is IA3"):
        load_pair(pair)
    assert [roles for roles, _ in load_members(pair)] == [("engaged", "base"), ("heuristic",)]
    assert [roles for roles, _ in load_members(pair, merge=True)] == [("engaged",), ("heuristic",), ("base",)]


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (IA3Config(task_type="CAUSAL_LM"), grow_ia3),
        (TrainableTokensConfig(token_indices=[100]), perturb("trainable_tokens_delta")),
        (LoraConfig(target_modules=["embed_tokens", "q_proj"], r=2), perturb("lora_embedding")),
        (LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], r=2), perturb("modules_to_save")),
        (LoraConfig(target_modules=["q_proj"], trainable_token_indices=[100], r=2), perturb("trainable_tokens_delta")),
        (LoraConfig(target_modules=["q_proj", "v_proj"], layers_to_transform=[1], r=2), lambda peft: None),
    ],
    ids=["ia3", "only tokens", "embedding", "modules_to_save", "tokens", "one layer"],
)  # fmt: skip
def test_every_kind_of_adapter_is_consumed_and_equals_peft(hub, tmp_path, config, change):
    folder = saved(hub, tmp_path, config, change)
    model = load(Checkpoint("a", str(hub / "base"), str(folder)))
    assert torch.equal(model(IDS).logits, expected(tmp_path, folder.name, base=hub / "base"))
    with model.adapters.use(None):
        assert torch.equal(model(IDS).logits, expected(hub))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_merging_rounds_once_from_float32_and_is_another_identity(hub, adapter, dtype):
    merged, apart = load(ck(hub, adapter), merge=True, dtype=dtype), load(ck(hub, adapter), dtype=dtype)
    name = "model.layers.1.mlp.up_proj"
    layer = apart.module.base_model.model.get_submodule(name)
    with torch.no_grad():
        exact = layer.weight.double() + layer.get_delta_weight("b5_1").double()
        if adapter == "dora":
            exact *= (layer.lora_magnitude_vector["b5_1"].weight.double() / exact.norm(dim=1))[:, None]
    got = merged.module.get_submodule(name).weight
    assert got.dtype == merged.dtype == LoadOptions(dtype=dtype).torch_dtype
    rounding = 2**-8 if dtype == "bfloat16" else 2**-21  # half a unit in the last place; some float32 operations
    assert ((got.double() - exact).abs() <= rounding * exact.abs() + 1e-7).all()
    assert merged.fingerprint.merged
    assert merged.fingerprint.sha256 != apart.fingerprint.sha256
    with merged.adapters.use("b5.1"):
        assert merged.adapters.active == "b5.1"
    with pytest.raises(ValueError, match="the base is gone"):
        with merged.adapters.use(None):
            pass
    with pytest.raises(ValueError, match="merge=True allows only one checkpoint"):
        load(ck(hub, adapter), siblings=[ck(hub, "second", "two")], merge=True)


def test_merging_into_tied_embeddings_is_refused_because_it_would_move_the_output_too(tmp_path):
    save_checkpoint(tmp_path / "base", num_hidden_layers=1, tie_word_embeddings=True)
    config = LoraConfig(target_modules=["embed_tokens"], r=2, task_type="CAUSAL_LM")
    folder = saved(tmp_path, tmp_path, config, perturb("lora_embedding"))
    with pytest.raises(ValueError, match=r"merging is not faithful here \(tied embeddings"):
        load(Checkpoint("a", str(tmp_path / "base"), str(folder)), merge=True)
