"""What cannot be the checkpoint that was asked for is refused, with the reason, before weights if it can be."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from interp.checkpoint import Checkpoint
from interp.loading import load
from tests.hub_folders import IDS, ck, copied, edit_json, expected, make_hub, perturb, saved
from tests.tiny import tiny


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def no_weights(monkeypatch):
    def fail(*args, **kw):
        raise AssertionError("weights were read before the check")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (dict(base="./nowhere"), r"base './nowhere' of 'a': no such folder"),
        (dict(base="org/absent"), r"neither a local folder nor a hub repository .*HF_HUB_OFFLINE is set"),
        (dict(base="{hub}/lora"), r"holds an adapter, not a model\. Name the adapter's folder as `adapter`"),
        (dict(base="{hub}"), r"has no config\.json, so it is not a Hugging Face model folder"),
        (dict(base="{hub}/base", revision="v2"), r"revision='v2', but a local folder has no revisions"),
        (dict(base="{hub}/base", adapter="{hub}/base"), r"no adapter_config\.json, so it is not a PEFT adapter"),
        (dict(base="{hub}/base", adapter="{hub}"), r"subfolders dora, lora, rslora, second: set `subfolder`"),
        (dict(base="{hub}/base", adapter="{hub}", subfolder="base"), r"subfolder 'base': .*no adapter_config\.json"),
        (dict(base="{hub}/other", adapter="{hub}/lora"), r"another shape, e\.g\. .*down_proj.* is \(4, 48\), the "
         r"model needs \(4, 64\)\. It names its base as '.*base'"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_there_or_does_not_fit_is_refused(hub, checkpoint, message):
    with pytest.raises(ValueError, match=message):
        load(Checkpoint("a", **{key: value.format(hub=hub) for key, value in checkpoint.items()}))


@pytest.mark.usefixtures("no_weights")
def test_pickled_weights_are_refused(hub, tmp_path):
    base, adapter = copied(hub, tmp_path, "base"), copied(hub, tmp_path, "lora")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"weights are pickles \(adapter_model\.bin\), which can run code"):
        load(ck(tmp_path, "lora"))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"weights are pickles \(pytorch_model\.bin\)"):
        load(ck(tmp_path))
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors and no model\.safetensors\.index\.json"):
        load(ck(tmp_path))
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-1.safetensors"}}')
    with pytest.raises(ValueError, match=r"1 of 1 shards are missing"):
        load(ck(tmp_path))


@pytest.mark.usefixtures("no_weights")
def test_an_adapter_inside_the_base_folder_is_refused_because_transformers_would_apply_it(hub, tmp_path):
    base = copied(hub, tmp_path, "base")
    for file in (hub / "lora").iterdir():
        shutil.copy(file, base)
    with pytest.raises(ValueError, match="would silently apply the adapter"):
        load(ck(tmp_path))


@pytest.mark.usefixtures("no_weights")
def test_tensors_that_match_nothing_or_are_absent_or_damaged_are_named(hub, tmp_path):
    path = copied(hub, tmp_path, "lora") / "adapter_model.safetensors"
    tensors = load_file(path)
    renamed = {key.replace("layers.1", "layers.7"): value for key, value in tensors.items()}
    save_file(renamed, path)
    with pytest.raises(ValueError, match=r"14 of 28 tensors match no module of Qwen2ForCausalLM, e\.g\. .*layers\.7"):
        load(ck(hub, tmp_path / "lora"))
    save_file({key: value for key, value in tensors.items() if "layers.0.mlp.up" not in key}, path)
    with pytest.raises(ValueError, match=r"2 tensors that adapter_config\.json asks for are not in the file"):
        load(ck(hub, tmp_path / "lora"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(ck(hub, tmp_path / "lora"))


@pytest.mark.usefixtures("no_weights")
def test_architectures_targets_and_kinds_that_cannot_work_are_refused(hub, tmp_path):
    folder = copied(hub, tmp_path, "lora")
    edit_json(folder / "adapter_config.json", auto_mapping={"base_model_class": "LlamaForCausalLM"})
    with pytest.raises(ValueError, match="was trained on a LlamaForCausalLM; its base here is a Qwen2ForCausalLM"):
        load(ck(hub, folder))
    edit_json(folder / "adapter_config.json", auto_mapping=None, target_modules=["query_key_value"])
    with pytest.raises(ValueError, match="does not fit Qwen2ForCausalLM: .*query_key_value.*not found"):
        load(ck(hub, folder))
    prompt = get_peft_model(tiny("qwen2"), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    prompt.save_pretrained(tmp_path / "prompt")
    with pytest.raises(ValueError, match="PROMPT_TUNING adds virtual tokens"):
        load(ck(hub, tmp_path / "prompt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dtype="half"), "dtype 'half': expected a torch.dtype, 'auto', or one of bfloat16"),
        (dict(device="cpu", device_map="auto"), "give one of the two"),
        (dict(merge=True, quantization="4bit"), "merge=True and quantization=: "),
        (dict(quantization="3bit"), "expected '4bit', '8bit' or a transformers quantization config"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_options_that_make_no_sense_are_refused(hub, options, message):
    with pytest.raises(ValueError, match=message):
        load(ck(hub), **options)


def test_an_adapter_of_another_base_of_the_same_shapes_warns_once_and_names_both(hub, tmp_path):
    shutil.copytree(hub / "base", tmp_path / "renamed")
    with pytest.warns(UserWarning, match=r"names '.*/base' as its base and is loaded on '.*/renamed'") as caught:
        load(ck(hub, "lora", base=tmp_path / "renamed"))
    assert sum("as its base" in str(w.message) for w in caught) == 1
    shutil.copytree(hub / "base", tmp_path / "copy" / "base")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*as its base")
        load(ck(hub, "lora", base=tmp_path / "copy" / "base"))


def test_an_untrained_adapter_is_refused(hub, tmp_path):
    path = copied(hub, tmp_path, "lora") / "adapter_model.safetensors"
    save_file({k: v * 0 if "lora_B" in k else v for k, v in load_file(path).items()}, path)
    with pytest.raises(ValueError, match="all 14 lora_B are zero"):
        load(ck(hub, tmp_path / "lora"))
    save_file({k: v * 1e-30 if "lora_B" in k else v for k, v in load_file(hub / "lora" / path.name).items()}, path)
    with pytest.raises(ValueError, match="are those of the base, bit for bit"):
        load(ck(hub, tmp_path / "lora"))


def test_tensors_that_peft_drops_on_the_way_are_found(hub, monkeypatch):
    import peft.peft_model as peft_model

    original = peft_model.load_peft_weights

    def lossy(*args, **kw):
        return {name: tensor for name, tensor in original(*args, **kw).items() if "layers.1" not in name}

    monkeypatch.setattr(peft_model, "load_peft_weights", lossy)
    with pytest.raises(ValueError, match=r"14 of 28 tensors were not loaded, e\.g\. .*layers\.1"):
        load(ck(hub, "lora"))


def test_a_base_with_parameters_in_no_file_is_refused_instead_of_random(hub, tmp_path):
    path = copied(hub, tmp_path, "base") / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "o_proj" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"2 parameters are in no file and would be random, e\.g\. .*o_proj"):
        load(ck(tmp_path))


def test_weights_that_are_not_finite_are_refused(hub, tmp_path):
    path = copied(hub, tmp_path, "base") / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="logits on a probe prompt are not finite"):
        load(ck(tmp_path))


def test_an_adapter_that_changes_the_base_is_refused_unless_it_is_merged(hub, tmp_path):
    config = LoraConfig(target_modules=["q_proj"], bias="lora_only", r=2, task_type="CAUSAL_LM")
    folder = saved(hub, tmp_path, config, perturb("q_proj.base_layer.bias"))
    with pytest.raises(ValueError, match=r"its own values for 2 parameters of the base, e\.g\. .*q_proj\.bias"):
        load(Checkpoint("a", str(hub / "base"), str(folder)))
    merged = load(Checkpoint("a", str(hub / "base"), str(folder)), merge=True)
    assert torch.allclose(merged(IDS).logits, expected(tmp_path, folder.name, base=hub / "base"), atol=1e-4)
    edit_json(copied(hub, tmp_path, "lora") / "adapter_config.json", init_lora_weights="pissa")
    with pytest.raises(ValueError, match=r"loading changed the base itself \(PiSSA"):
        load(ck(hub, tmp_path / "lora"))
