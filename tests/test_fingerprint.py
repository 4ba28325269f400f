"""Options, tokenizers, the hub's cache and quantisation are what was asked for and part of the model's identity."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load, load_members, load_pair
from interp.loading.fingerprint import file_sha256, fingerprint_module, tokenizer_sha256
from tests.hub_folders import IDS, ck, copied, edit_json, expected, make_hub
from tests.tiny import add_lora, tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_hub(tmp_path_factory.mktemp("hub"))


def test_dtype_attention_and_device_are_what_was_asked_for(hub):
    assert load(ck(hub)).dtype == torch.float32
    model = load(ck(hub, "lora"), dtype=torch.bfloat16, attn_implementation="eager", device="cpu")
    assert model.dtype == torch.bfloat16
    assert model.layout.config._attn_implementation == "eager"
    assert load(ck(hub), device_map={"": "cpu"}).device.type == "cpu"


def test_the_adapters_own_tokenizer_is_used_and_members_that_differ_come_one_by_one(hub, tmp_path):
    first, second = copied(hub, tmp_path, "lora"), copied(hub, tmp_path, "second")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(second)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(first)
    model = load(ck(hub, first))
    assert model.tokenizer.chat_template == tokenizer.chat_template
    assert model.fingerprint.tokenizer_sha256 != load(ck(hub, "lora")).fingerprint.tokenizer_sha256
    pair = CheckpointPair(ck(hub, second, "e"), ck(hub, first, "h"))
    with pytest.raises(ValueError, match="engaged, heuristic have tokenizers that differ.*load_members"):
        load_pair(pair)
    seen = {}
    for roles, loaded in load_members(pair):
        seen |= dict.fromkeys(roles, loaded.tokenizer.chat_template)
    assert seen == {"engaged": tiny_tokenizer().chat_template, "heuristic": tokenizer.chat_template}


def test_one_changed_byte_or_adapter_setting_changes_the_fingerprint_and_a_copy_does_not(hub, tmp_path):
    one = load(ck(hub, "lora")).fingerprint
    base, adapter = copied(hub, tmp_path, "base"), copied(hub, tmp_path, "lora")
    assert load(ck(tmp_path, "lora", "x")).fingerprint.sha256 == one.sha256
    edit_json(adapter / "adapter_config.json", lora_alpha=9)
    assert load(ck(tmp_path, "lora")).fingerprint.sha256 != one.sha256
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert load(ck(tmp_path)).fingerprint.weights_sha256 != one.weights_sha256


def test_a_wrapped_model_in_memory_has_the_base_fingerprint_of_the_bare_one():
    bare = fingerprint_module(tiny("qwen2", num_hidden_layers=1), tokenizer=tiny_tokenizer())
    lora = fingerprint_module(add_lora(tiny("qwen2", num_hidden_layers=1), name="x"), tokenizer=tiny_tokenizer())
    assert lora.select(None).sha256 == bare.sha256
    other = fingerprint_module(add_lora(tiny("qwen2", num_hidden_layers=1), name="x", seed=8))
    assert other.adapters["x"] != lora.adapters["x"]
    assert fingerprint_module(tiny("qwen2", num_hidden_layers=1, seed=1)).weights_sha256 != bare.weights_sha256


def test_padding_a_batch_does_not_change_the_tokenizers_digest():
    tokenizer = tiny_tokenizer()
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a", "the quick fox"], padding=True, truncation=True, max_length=3)
    assert tokenizer_sha256(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_sha256(tokenizer) != before


def hub_cache(root, cache, repo, folder):
    """Lay `root/folder` out as the hub's cache does: blobs by digest, a snapshot of links, a ref."""
    home, commit = cache / f"models--{repo.replace('/', '--')}", "0123456789abcdef0123456789abcdef01234567"
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (home / name).mkdir(parents=True)
    for file in (root / folder).iterdir():
        is_large = file.suffix == ".safetensors"
        blob = home / "blobs" / (file_sha256(file) if is_large else file_sha256(file)[:40])
        shutil.copy(file, blob)
        (home / "snapshots" / commit / file.name).symlink_to(blob)
    (home / "refs" / "main").write_text(commit)


def test_hub_ids_load_from_the_cache_with_the_fingerprint_of_the_same_files_in_a_folder(hub, tmp_path, monkeypatch):
    hub_cache(hub, tmp_path, "org/base", "base")
    hub_cache(hub, tmp_path, "org/lora", "lora")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*as its base")
        model = load(Checkpoint("b5", "org/base", "org/lora", revision="main"))
    assert torch.equal(model(IDS).logits, expected(hub, "lora"))
    assert model.fingerprint.sha256 == load(ck(hub, "lora")).fingerprint.sha256
    with pytest.raises(ValueError, match="at revision 'v9'"):
        load(Checkpoint("b5", "org/base", revision="v9"))


def test_bitsandbytes_is_asked_for_by_name_where_it_is_missing(hub, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs bitsandbytes, which is not installed: pip install bitsandbytes"):
        load(ck(hub), quantization="4bit")


def test_a_quantised_base_warns_and_is_another_identity(hub, tmp_path, monkeypatch):
    from transformers import BitsAndBytesConfig

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    original = AutoModelForCausalLM.from_pretrained
    asked = []

    def without_kernels(*args, quantization_config=None, **kw):  # the 4-bit kernels themselves need a GPU
        asked.append(quantization_config)
        return original(*args, **kw)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", without_kernels)
    with pytest.warns(UserWarning, match=r"is quantised \(bitsandbytes:[0-9a-f]{12}\)"):
        four = load(ck(hub, "lora"), quantization="4bit")
    assert asked[0].load_in_4bit
    assert asked[0].bnb_4bit_compute_dtype == torch.float32
    with pytest.warns(UserWarning, match="is quantised"):
        eight = load(ck(hub, "lora"), quantization=BitsAndBytesConfig(load_in_8bit=True))
    assert len({four.fingerprint.sha256, eight.fingerprint.sha256, load(ck(hub, "lora")).fingerprint.sha256}) == 3
    settings = BitsAndBytesConfig(load_in_4bit=True).to_dict()
    edit_json(copied(hub, tmp_path, "base") / "config.json", quantization_config=settings)
    for options in ({"quantization": "4bit"}, {"merge": True}):
        with pytest.raises(ValueError, match="already quantised"):
            load(ck(tmp_path, hub / "lora"), **options)
