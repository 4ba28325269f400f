"""Weight edits: the edited model is the hooked one, tied or not, adapted or not; and comes back from disk so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from interp.family import Family
from interp.hooks import edit
from interp.model import Model
from interp.site import Site
from steering import Direction, edit_weights, steer
from steering.operators import RemoveSpan, orthonormal_rows
from tests.tiny import COMMON, add_lora, randomise, tiny

pytestmark = pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
D = 32
BOUND = {"qwen3_5": 5e-5}  # its recurrent layers add up the rounding of every token before
EDITABLE = ("qwen2", "qwen3", "qwen3_5", "llama", "mistral", "gpt2", "gpt_neox")


def directions(n: int = 1, d: int = D) -> list[Direction]:
    rng = torch.Generator().manual_seed(4)
    return [Direction(torch.randn(d, generator=rng), Site("resid_post", 1), "a", "b") for _ in range(n)]


def hooked(module: nn.Module, ids: Tensor, found: list[Direction]) -> Tensor:
    with torch.no_grad(), steer(module, found, op="ablate_everywhere", positions="all"):
        return module(ids).logits


def error(module: nn.Module, want: Tensor, ids: Tensor) -> float:
    with torch.no_grad():
        return float((module(ids).logits - want).abs().max())


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", EDITABLE)
def test_edited_weights_are_the_hooks(family: str, tied: bool, rank: int, ids: Tensor) -> None:
    """Norm gains are random in every tiny model: with gains of 1 a tied head would pass by accident."""
    module, found = tiny(family, tie_word_embeddings=tied), directions(rank)
    bare, want = module(ids).logits, hooked(module, ids, found)
    assert (bare - want).abs().max() > 0.1
    done = edit_weights(module, found)
    assert error(module, want, ids) < BOUND.get(family, 2e-5)
    assert done.rank == rank and done.untied == is_tied(family, tied) and done.leftover < 1e-5


def is_tied(family: str, tied: bool) -> bool:
    module = tiny(family, tie_word_embeddings=tied)
    return module.get_output_embeddings().weight.data_ptr() == module.get_input_embeddings().weight.data_ptr()


def test_editing_the_shared_tensor_of_a_tied_head_gives_another_model(ids: Tensor) -> None:
    """A fault seen elsewhere; invisible as long as every norm gain is 1."""
    module, found = tiny("qwen2", tie_word_embeddings=True), directions()
    for gains, low, high in ((True, 0.05, 1e9), (False, 0.0, 2e-5)):
        wrong = copy.deepcopy(module)
        if not gains:
            for name, p in wrong.named_parameters():
                p.data = torch.ones_like(p) if "norm" in name else p.data
        want = hooked(wrong, ids, found)
        kept = wrong.lm_head.weight
        edit_weights(wrong, found)
        wrong.lm_head.weight = kept  # as it was: shared, and therefore ...
        rows = orthonormal_rows([d.vec for d in found])
        kept.data = kept.data - (kept.data @ rows.T) @ rows  # ... projected with the embedding
        assert low <= error(wrong, want, ids) < high


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "gpt2", "qwen3_5"])
def test_edited_weights_are_the_hooks_with_a_lora(family: str, merged: bool, tied: bool, ids: Tensor) -> None:
    module, found = add_lora(tiny(family, tie_word_embeddings=tied), rslora=True), directions(2)
    if merged:
        module = module.merge_and_unload()
    want = hooked(module, ids, found)
    done = edit_weights(module, found)
    assert error(module, want, ids) < BOUND.get(family, 2e-5)
    assert any("lora_B" in name for name in done.tensors) is not merged


def test_every_adapter_is_edited_and_so_is_the_base_under_them(ids: Tensor) -> None:
    module = add_lora(tiny("qwen2"), name="engaged")
    module.add_adapter("heuristic", copy.deepcopy(module.peft_config["engaged"]))
    rng = torch.Generator().manual_seed(9)
    for name, p in module.named_parameters():
        if "lora_B.heuristic" in name:
            p.data = 0.2 * torch.randn(p.shape, generator=rng)
    model, found = Model(module.eval()), directions()
    want = {}
    for role in ("engaged", "heuristic", None):
        with model.adapters.use(role):
            want[role] = hooked(module, ids, found)
    assert (want["engaged"] - want["heuristic"]).abs().max() > 0.1
    edit_weights(model, found)
    for role, logits in want.items():
        with model.adapters.use(role):
            assert error(module, logits, ids) < 2e-5


def test_a_lora_on_the_embedding_and_a_saved_module_are_edited_too(ids: Tensor) -> None:
    from peft import LoraConfig, get_peft_model

    found = directions()
    for options in (dict(target_modules=["embed_tokens", "down_proj"]), dict(target_modules=["q_proj"],
                    modules_to_save=["embed_tokens"])):  # fmt: skip
        peft = get_peft_model(tiny("qwen2", tie_word_embeddings=False), LoraConfig(r=2, **options)).eval()
        rng = torch.Generator().manual_seed(3)
        for name, p in peft.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                p.data = 0.2 * torch.randn(p.shape, generator=rng)
        want = hooked(peft, ids, found)
        edit_weights(peft, found)
        assert error(peft, want, ids) < 2e-5


@pytest.mark.parametrize("name", ["Qwen2Moe", "Qwen3Moe", "Mixtral"])
def test_every_expert_is_edited(name: str, ids: Tensor) -> None:
    import transformers

    moe = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
               shared_expert_intermediate_size=24, decoder_sparse_step=1, mlp_only_layers=[], head_dim=8)  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**COMMON, **moe)
    torch.manual_seed(0)
    module = getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)
    randomise(module, seed=1)
    model, found = Model(module, family=Family()), directions()
    want = None
    with torch.no_grad(), steer(model, found, op="ablate_everywhere", positions="all"):
        want = module(ids).logits
    done = edit_weights(model, found)
    assert error(module, want, ids) < 2e-5
    assert any("down_proj" in tensor and "mlp" in tensor for tensor in done.tensors)


def test_half_precision_weights_leave_no_more_than_their_rounding(ids: Tensor) -> None:
    module, found = tiny("qwen2", dtype=torch.bfloat16), directions()
    done = edit_weights(module, found)
    assert 0 < done.leftover < 0.02
    exact = tiny("qwen2")
    for p, q in zip(exact.parameters(), tiny("qwen2", dtype=torch.bfloat16).parameters(), strict=True):
        p.data = q.float()
    edit_weights(exact, found)
    weight, want = (m.model.layers[0].mlp.down_proj.weight for m in (module, exact))
    assert torch.equal(weight, want.bfloat16())


def test_an_edited_checkpoint_comes_back_from_disk_with_equal_logits(tmp_path, ids: Tensor) -> None:
    from transformers import AutoModelForCausalLM

    for tied in (False, True):
        module, found = tiny("qwen2", tie_word_embeddings=tied), directions()
        edit_weights(module, found)
        module.save_pretrained(tmp_path / str(tied))
        back = AutoModelForCausalLM.from_pretrained(tmp_path / str(tied))
        assert back.config.tie_word_embeddings is False
        assert torch.equal(back(ids).logits, module(ids).logits)


def test_a_model_with_other_weights_has_no_fingerprint(ids: Tensor) -> None:
    from interp.checkpoint import Fingerprint

    model = Model(tiny("qwen2"), fingerprint=Fingerprint("c", "w"))
    edit_weights(model, directions())
    assert model.fingerprint is None


# --- refusals: nothing is changed ----------------------------------------------------------------------------------


def assert_refused(module: nn.Module | Model, said: str, *, d: int = D, **options) -> None:
    inner = module.module if isinstance(module, Model) else module
    before = {name: p.detach().clone() for name, p in inner.named_parameters()}
    with pytest.raises(ValueError, match=said):
        edit_weights(module, directions(d=d), **options)
    assert all(torch.equal(p, before[name]) for name, p in inner.named_parameters())


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "olmo2"])
def test_a_norm_behind_the_writers_is_refused(family: str) -> None:
    assert_refused(tiny(family), "puts a norm between attention or MLP and the residual stream")


def test_what_cannot_hold_an_ablation_is_refused() -> None:
    from interp.checkpoint import Fingerprint

    assert_refused(add_lora(tiny("qwen2"), dora=True), "does not keep an ablation of its parts")
    assert_refused(tiny("qwen2"), "has 48 components", d=48)
    assert_refused(tiny("qwen2"), "no module of the MLP is called out; it has .*down_proj", mlp_writers=("out",))
    assert_refused(
        Model(tiny("qwen2"), fingerprint=Fingerprint("c", "w", quantization="bitsandbytes:1")), "is quantised"
    )
    packed = tiny("qwen2")
    weight = packed.model.layers[1].mlp.down_proj.weight
    packed.model.layers[1].mlp.down_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    assert_refused(packed, "layer 1 mlp.down_proj weight is quantised")


def test_a_writer_that_was_not_found_is_noticed(ids: Tensor) -> None:
    """Where a name fits another module than the one that writes, the probe of the edited model says so."""

    class Twice(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.down_proj, self.other = inner.down_proj, nn.Linear(D, D)
            self.gate_proj, self.up_proj, self.act_fn = inner.gate_proj, inner.up_proj, inner.act_fn

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) + self.other(x)

    module = tiny("qwen2")
    module.model.layers[1].mlp = Twice(module.model.layers[1].mlp)
    with pytest.raises(RuntimeError, match="something else writes into it"):
        edit_weights(module.eval(), directions())


def test_an_ablation_everywhere_by_hooks_on_the_writers_is_the_same_model(ids: Tensor) -> None:
    module, found = tiny("llama"), directions()
    rows = orthonormal_rows([d.vec for d in found])
    gone = RemoveSpan(rows, rows, torch.zeros(D))
    with torch.no_grad(), edit(module, {"embed": gone, "attn_out.*": gone, "mlp_out.*": gone}):
        want = module(ids).logits
    edit_weights(module, found)
    assert error(module, want, ids) < 2e-5
