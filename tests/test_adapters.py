"""`adapters.use` switches exactly what it says, puts everything back, and tells the truth about what is active."""

from __future__ import annotations

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from interp.adapters import MERGED, Adapters, name_roles, peft_names
from tests.tiny import add_lora, randomise_lora, tiny

IDS = torch.tensor([[5, 9, 17, 3]])


def snapshot(module):
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in module.modules() if isinstance(m, BaseTunerLayer)]
    return (
        [(list(m.active_adapters), m.disable_adapters) for m in layers],
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        module.active_adapter,
        module._adapters_disabled,
    )


def two_adapters(**kw):
    """A model with adapters "engaged" and "heuristic", and its logits by role."""
    base = tiny("qwen2", num_hidden_layers=2)
    logits = {None: base(IDS).logits}
    module = add_lora(base, name="engaged", **kw)
    module.add_adapter("heuristic", LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    randomise_lora(module, seed=11)
    module.eval().requires_grad_(False)
    for name in ("engaged", "heuristic"):
        module.set_adapter(name)
        logits[name] = module(IDS).logits.detach()
    module.set_adapter("engaged")
    module.requires_grad_(False)
    return module, logits


@pytest.mark.parametrize("dora", [False, True])
def test_each_role_gives_its_own_logits_bit_for_bit(dora):
    module, logits = two_adapters(dora=dora)
    adapters = Adapters(module)
    assert adapters.names == ("engaged", "heuristic")
    assert not torch.equal(logits["engaged"], logits["heuristic"])
    for role in (None, "heuristic", "engaged", None, "engaged"):
        with adapters.use(role):
            assert adapters.active == role
            assert torch.equal(module(IDS).logits, logits[role])
        assert adapters.active == "engaged"


@pytest.mark.parametrize("disabled", [False, True])
def test_use_restores_active_enabled_modes_and_gradients_after_nesting_and_exceptions(disabled):
    module, _ = two_adapters()
    adapters = Adapters(module)
    module.set_adapter("heuristic")  # turns gradients on
    if disabled:
        adapters.activate(None)
    next(iter(module.base_model.model.modules())).training = True
    module.base_model.model.lm_head.weight.requires_grad_(True)
    before = snapshot(module)
    with pytest.raises(KeyError), adapters.use("engaged"):
        with adapters.use(None):
            with adapters.use("heuristic"):
                assert adapters.active == "heuristic"
                module.train()
                module.requires_grad_(True)
            assert adapters.active is None
        assert adapters.active == "engaged"
        raise KeyError("from the user's block")
    assert snapshot(module) == before


def test_switching_turns_no_gradient_on_where_peft_would():
    module, _ = two_adapters()
    with Adapters(module).use("heuristic"):
        assert not any(p.requires_grad for p in module.parameters())
    module.set_adapter("heuristic")
    assert any(p.requires_grad for p in module.parameters())  # why use() has to keep them


def test_a_nested_disable_of_peft_stays_disabled_and_use_inside_it_is_honoured():
    module, logits = two_adapters()
    adapters = Adapters(module)
    with module.disable_adapter():
        with adapters.use("heuristic"):
            assert torch.equal(module(IDS).logits, logits["heuristic"])
        assert adapters.active is None
        assert torch.equal(module(IDS).logits, logits[None])
    assert adapters.active == "engaged"


def test_active_is_read_from_the_layers_and_refuses_to_name_a_mixture():
    module, _ = two_adapters()
    adapters = Adapters(module)
    module.active_adapter = "heuristic"  # the wrapper says one thing, the layers another
    assert adapters.active == "engaged"
    module.base_model.model.model.layers[0].self_attn.q_proj.set_adapter("heuristic")
    with pytest.raises(RuntimeError, match="disagree on what is active: engaged; heuristic"):
        _ = adapters.active
    with adapters.use("heuristic"):
        assert adapters.active == "heuristic"


def test_entering_fails_when_a_layer_does_not_switch(monkeypatch):
    module, _ = two_adapters()
    stuck = module.base_model.model.model.layers[1].mlp.down_proj
    before = snapshot(module)
    monkeypatch.setattr(stuck, "set_adapter", lambda *args, **kw: None, raising=False)
    with pytest.raises(RuntimeError, match=r"1 layers did not switch, the first is '.*layers\.1\.mlp\.down_proj'"):
        with Adapters(module).use("heuristic"):
            pass
    monkeypatch.undo()
    assert snapshot(module) == before


def test_unknown_roles_are_errors_that_list_the_known_ones():
    module, _ = two_adapters()
    with pytest.raises(ValueError, match="adapter 'oracle' is not loaded; adapters: engaged, heuristic"):
        with Adapters(module).use("oracle"):
            pass
    plain = Adapters(tiny("qwen2", num_hidden_layers=1))
    with plain.use(None):
        assert plain.active is None
    assert plain.names == ()
    with pytest.raises(ValueError, match=r"adapters: none \(or None\)"):
        with plain.use("engaged"):
            pass


def test_deleting_the_active_adapter_is_refused_where_peft_switches_silently():
    module, logits = two_adapters()
    adapters = Adapters(module)
    with pytest.raises(ValueError, match="'engaged' is the active one"):
        adapters.delete("engaged")
    adapters.delete("heuristic")
    assert adapters.names == ("engaged",)
    assert torch.equal(module(IDS).logits, logits["engaged"])


def test_an_adapter_deleted_inside_use_is_an_error_afterwards_not_a_silent_base():
    module, _ = two_adapters()
    adapters = Adapters(module)
    with pytest.raises(RuntimeError, match="adapter engaged was active before use"):
        with adapters.use("heuristic"):
            module.delete_adapter("engaged")
    assert adapters.names == ("heuristic",)


def test_names_with_dots_reach_peft_without_and_come_back_with_them():
    names = peft_names(["b5.1", "b5_1", "train", "keys", "lora", "engaged"])
    assert len(set(names.values())) == 6
    assert names["engaged"] == "engaged"
    assert names["lora"] not in "lora_"
    assert not any("." in name or hasattr(torch.nn.ModuleDict(), name) for name in names.values())
    module = add_lora(tiny("qwen2", num_hidden_layers=1), name=names["b5.1"])
    name_roles(module, {"b5.1": names["b5.1"], "bare": None})
    adapters = Adapters(module)
    assert adapters.names == ("b5.1", "bare")
    assert adapters.active == "b5.1"
    with adapters.use("bare"):
        assert adapters.active is None
    with pytest.raises(KeyError):  # why: PEFT makes the name a module name
        add_lora(tiny("qwen2", num_hidden_layers=1), name="b5.1")


def test_modules_to_save_and_other_kinds_switch_too():
    base = tiny("qwen2", num_hidden_layers=1)
    bare, head = base(IDS).logits, base.lm_head.weight.clone()
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    module = get_peft_model(base, config, adapter_name="head")
    with torch.no_grad():
        module.base_model.model.lm_head.modules_to_save["head"].weight.mul_(2.0)
    module.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    randomise_lora(module, seed=3)
    adapters = Adapters(module.eval())
    with adapters.use("head"):
        assert (module(IDS).logits - bare).abs().max() > 0.1
    with adapters.use("other"):
        assert not torch.equal(module(IDS).logits, bare)
        assert torch.equal(module.base_model.model.lm_head(bare[..., :32]), bare[..., :32] @ head.T)
    with adapters.use(None):
        assert torch.equal(module(IDS).logits, bare)
    ia3 = get_peft_model(
        tiny("qwen2", num_hidden_layers=1), IA3Config(task_type="CAUSAL_LM"), adapter_name="ia3"
    ).eval()
    for parameter in [p for n, p in ia3.named_parameters() if "ia3" in n]:
        parameter.data.mul_(1.5)
    assert not torch.equal(ia3(IDS).logits, bare)
    with Adapters(ia3).use(None):
        assert torch.equal(ia3(IDS).logits, bare)


def test_adapters_in_the_weights_cannot_be_switched_off():
    module, _ = two_adapters()
    module.merge_adapter()
    with pytest.raises(ValueError, match=r"engaged are merged in place; call unmerge_adapter\(\)"):
        with Adapters(module).use(None):
            pass
    plain = tiny("qwen2", num_hidden_layers=1)
    name_roles(plain, {"b5": MERGED})
    with Adapters(plain).use("b5"):
        assert Adapters(plain).active == "b5"
    with pytest.raises(ValueError, match="'b5' was merged into the weights, the base is gone"):
        with Adapters(plain).use(None):
            pass
