"""Adapters and configs as the world saves them: loaded as they are meant, or refused with the file and the remedy."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from interp.checkpoint import Checkpoint
from interp.loading import load, open_skeleton
from tests.hub_folders import IDS, base_model, ck, copied, edit_json, expected, make_hub, saved
from tests.tiny import add_lora, randomise_lora, save_checkpoint, tiny

PREFIX = "base_model.model."


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_hub(tmp_path_factory.mktemp("hub"))


def renamed(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file({change(key): tensor for key, tensor in load_file(file).items()}, file)
    return folder


def between(key, wrapper):
    """The wrapper's name in front of every layer's part of the path."""
    return key.replace("layers.0.", f"layers.0.{wrapper}.").replace("layers.1.", f"layers.1.{wrapper}.")


def with_adapter_name(key, name):
    """As a raw state dict has it: `lora_A.default.weight`."""
    stem, _, end = key.rpartition(".")
    return f"{stem}.{name}.{end}" if end == "weight" else f"{key}.{name}"


WILD = {
    "fsdp": lambda key: between(PREFIX + "_fsdp_wrapped_module." + key.removeprefix(PREFIX), "_fsdp_wrapped_module"),
    "compiled": lambda key: "_orig_mod." + key,
    "compiled layers": lambda key: between(key, "_orig_mod"),
    "ddp": lambda key: "module." + key,
    "ddp of compiled": lambda key: "module._orig_mod." + key,
    "adapter name": lambda key: with_adapter_name(key, "default"),
    "other adapter name": lambda key: with_adapter_name(key, "engaged"),
    "no prefix": lambda key: key.removeprefix(PREFIX),
    "inner model": lambda key: key.removeprefix(PREFIX + "model."),
    "base_model alone": lambda key: "base_model." + key.removeprefix(PREFIX),
    "all of it": lambda key: "module." + between(with_adapter_name(key.removeprefix(PREFIX), "default"), "_orig_mod"),
}


@pytest.mark.parametrize("kind", WILD)
@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_names_of_training_wrappers_are_read_as_peft_s_own_and_said(hub, tmp_path, kind, adapter):
    folder = renamed(copied(hub, tmp_path, adapter), WILD[kind])
    with pytest.warns(UserWarning, match="tensors carry names of a training wrapper"):
        model = load(ck(hub, folder))
    assert torch.equal(model.module(torch.tensor(IDS)).logits, expected(hub, adapter))


def test_clean_names_are_left_alone_without_a_word(hub):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*its tokenizer.json is loaded")
        warnings.filterwarnings("ignore", category=FutureWarning)
        load(ck(hub, "dora"))


def test_two_names_of_one_tensor_are_refused(hub, tmp_path):
    folder = copied(hub, tmp_path, "lora")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(iter(tensors))
    save_file({**tensors, f"module.{key}": tensors[key] + 1}, file)
    with pytest.raises(ValueError, match="the same tensor under two names"):
        load(ck(hub, folder))


def sharded(folder, *, index=True, n=3):
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    keys, weight_map = sorted(tensors), {}
    for part in range(n):
        name = f"adapter_model-{part + 1:05d}-of-{n:05d}.safetensors"
        save_file({key: tensors[key] for key in keys[part::n]}, folder / name)
        weight_map |= dict.fromkeys(keys[part::n], name)
    if index:
        content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "adapter_model.safetensors.index.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("index", [True, False])
def test_a_sharded_adapter_is_read(hub, tmp_path, index):
    model = load(ck(hub, sharded(copied(hub, tmp_path, "lora"), index=index)))
    assert torch.equal(model.module(torch.tensor(IDS)).logits, expected(hub, "lora"))
    assert model.fingerprint.adapters["b5.1"] != load(ck(hub, "second")).fingerprint.adapters["b5.1"]


def test_a_missing_shard_of_an_adapter_is_named(hub, tmp_path):
    folder = sharded(copied(hub, tmp_path, "lora"))
    (folder / "adapter_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 shards are missing .*adapter_model-00002-of-00003"):
        load(ck(hub, folder))
    (folder / "adapter_model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="has 2 shards"):
        load(ck(hub, folder))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../../etc/passwd"}}', "[" * 100_000]
)
def test_a_damaged_index_is_named(hub, tmp_path, content):
    folder = sharded(copied(hub, tmp_path, "lora"))
    (folder / "adapter_model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json"):
        load(ck(hub, folder))


def grown_adapter(hub, tmp_path, n=5, **config):
    model = base_model(hub)
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows + n)
    peft = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **config))
    randomise_lora(peft, seed=3)
    peft.save_pretrained(tmp_path / "grown", save_embedding_layers=True if "modules_to_save" not in config else "auto")
    return tmp_path / "grown", rows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    "config",
    [{"target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "embed_tokens"]},
     {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
     {"target_modules": ["q_proj", "lm_head"]}],
)  # fmt: skip
def test_an_adapter_of_a_grown_vocabulary_says_how_to_make_its_base_and_that_works(hub, tmp_path, config, merge):
    folder, rows = grown_adapter(hub, tmp_path, **config)
    with pytest.raises(
        ValueError, match=rf"vocabulary of {rows + 5} tokens .*its base has {rows}.*resize_token_embeddings"
    ):
        load(ck(hub, folder), merge=merge)
    model = base_model(hub)
    model.resize_token_embeddings(rows + 5)
    model.save_pretrained(tmp_path / "bigger")
    if "modules_to_save" not in config and not merge:  # the file brings embeddings of the base itself
        with pytest.raises(ValueError, match="merge=True"):
            load(Checkpoint("a", str(tmp_path / "bigger"), str(folder)))
        return
    made = load(Checkpoint("a", str(tmp_path / "bigger"), str(folder)), merge=merge)
    assert made.module(torch.tensor(IDS)).logits.shape[-1] == rows + 5


@pytest.mark.filterwarnings("ignore")
def test_lora_bias_that_cannot_be_merged_says_to_leave_merging(hub, tmp_path):
    folder = saved(hub, tmp_path, LoraConfig(r=4, target_modules=["o_proj"], lora_bias=True, task_type="CAUSAL_LM"))
    assert load(ck(hub, folder)).adapters.active == "b5.1"
    with pytest.raises(ValueError, match=r"cannot be merged: .*Leave merge= out"):
        load(ck(hub, folder), merge=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_one_tensor_of_an_adapter_is_blamed_on_the_adapter(hub, tmp_path, value):
    folder = copied(hub, tmp_path, "lora")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(k for k in tensors if "lora_B" in k)
    tensors[key][0, 0] = value
    save_file(tensors, file)
    with pytest.raises(
        ValueError, match=rf"1 of \d+ tensors hold NaN or infinities, e\.g\. {key}: its training diverged"
    ):
        load(ck(hub, folder))


def test_layer_replication_is_named_and_not_taken_for_pissa(hub, tmp_path):
    folder = copied(hub, tmp_path, "lora")
    edit_json(folder / "adapter_config.json", layer_replication=[[0, 2], [1, 2]])
    with pytest.raises(ValueError, match="layer_replication: it builds a deeper model") as error:
        load(ck(hub, folder))
    assert "PiSSA" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [dict(r="four"), dict(r=None), dict(r=-1), dict(peft_type="MAGIC"), dict(peft_type=None), dict(target_modules=5),
     dict(target_modules=[]), dict(target_modules=None), dict(lora_alpha="x"), dict(rank_pattern=[1]),
     dict(task_type=7), dict(use_dora="yes", use_rslora=3, r=[4]), dict(no_such_key=1, r={}), dict(target_modules="(")],
)  # fmt: skip
def test_an_adapter_config_of_any_content_loads_or_is_refused_with_the_adapter_s_name(hub, tmp_path, change):
    folder = copied(hub, tmp_path, "lora")
    edit_json(folder / "adapter_config.json", **change)
    text = "adapter lora"
    try:
        load(ck(hub, folder))
    except ValueError as error:
        text = str(error)
    assert "adapter" in text
    assert "lora" in text


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\x00\x01"])
def test_an_adapter_config_that_is_no_object_names_the_file(hub, tmp_path, content):
    folder = copied(hub, tmp_path, "lora")
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        load(ck(hub, folder))


# --- configs of bases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_config_that_asks_for_flash_attention_loads_with_sdpa_and_says_so(hub, tmp_path, key, adapter):
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is visible, where flash attention may be installed")
    base = copied(hub, tmp_path, "base")
    edit_json(base / "config.json", **{key: "flash_attention_2"})
    checkpoint = Checkpoint("a", str(base), adapter and str(hub / adapter))
    with pytest.warns(UserWarning, match=r"config\.json asks for 'flash_attention_2'.*sdpa is used instead"):
        model = load(checkpoint)
    assert model.layout.config._attn_implementation == "sdpa"
    assert torch.allclose(model.module(torch.tensor(IDS)).logits, expected(hub, adapter), atol=1e-5)
    assert open_skeleton(checkpoint).module.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="attn_implementation 'flash_attention_2' needs the package flash_attn"):
        load(checkpoint, attn_implementation="flash_attention_2")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            dict(rope_parameters={"rope_type": "magic", "rope_theta": 1e4}),
            "config.json .*rope type 'magic' is not known",
        ),
        (dict(rope_scaling={"type": "magic", "factor": 2}), "config.json .*rope type 'magic' is not known"),
        (
            dict(vocab_size=100),
            r"another shape than config\.json asks for, e\.g\. .* is \(\d+, 32\), the config gives \(100, 32\)",
        ),
        (dict(hidden_size=16), r"another shape than config\.json"),
        (dict(hidden_act="magic"), "cannot build a model from its config.json .*magic"),
        (dict(num_hidden_layers="two"), r"config\.json.*num_hidden_layers"),
        (dict(num_attention_heads=0), r"config\.json"),
        (dict(model_type="nope"), r"config\.json.*nope"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_with_its_file(hub, tmp_path, change, words):
    base = copied(hub, tmp_path, "base")
    edit_json(base / "config.json", **change)
    with pytest.raises(ValueError, match=words):
        load(ck(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"model_type": 3}', "{}"])
def test_a_config_that_is_no_config_names_the_file(hub, tmp_path, content):
    (copied(hub, tmp_path, "base") / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load(ck(tmp_path))


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, -1])
def test_truncated_weights_are_named_before_anything_is_read(hub, tmp_path, keep, monkeypatch):
    file = copied(hub, tmp_path, "base") / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep])
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable safetensors file .*[Cc]opy it again"):
        load(ck(tmp_path))


def test_a_header_that_lies_about_its_length_is_refused_at_once(hub, tmp_path):
    file = copied(hub, tmp_path, "base") / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(ck(tmp_path))


def test_a_token_beyond_the_embedding_is_named_before_the_pass(hub):
    model = load(ck(hub))
    rows = model.layout.config.vocab_size
    with pytest.raises(ValueError, match=rf"token id {rows}.*{rows} rows"):
        model([[3, rows]])
    with pytest.raises(ValueError, match=r"token id -1"):
        model([[3, -1]])


def test_a_base_and_its_adapter_through_a_full_save_of_peft_still_load(tmp_path):
    save_checkpoint(tmp_path / "base", "llama", num_hidden_layers=2)
    add_lora(base_model(tmp_path)).save_pretrained(tmp_path / "lora")
    model = load(ck(tmp_path, "lora"))
    assert torch.equal(model.module(torch.tensor(IDS)).logits, expected(tmp_path, "lora"))
    assert tiny("llama").config.model_type == "llama"
