"""Every family, plain, with LoRA and with DoRA: sites are what they are called, proved against independent engines."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from interp.family import Layout, head_output_weights
from interp.hooks import record
from interp.model import Model
from tests.tiny import FAMILIES, add_lora, tiny

IDS = torch.randint(3, 128, (2, 11), generator=torch.Generator().manual_seed(5))
ADAPTERS = ("plain", "lora", "dora")
BLOCK = ("resid_pre", "resid_post", "attn_out", "mlp_out")


def build(family: str, adapter: str = "plain", **kw) -> Model:
    module = tiny(family, **kw)
    return Model.wrap(module if adapter == "plain" else add_lora(module, dora=adapter == "dora"))


def parts(model: Model) -> list[str]:
    kinds = (*BLOCK, "resid_mid", "z", "q", "k", "v")
    return [f"{k}.{i}" for k in kinds for i in range(model.n_layers) if model.layout.has(k, i)]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_heads_sum_to_attn_out_with_the_adapter_in(family: str, adapter: str) -> None:
    model = build(family, adapter)
    with record(model, "z.*, attn_out.*") as acts:
        model(IDS)
    for layer in model.layout.layers:
        weights, bias = head_output_weights(layer)
        heads = torch.einsum("bphd,hdm->bphm", acts[f"z.{layer.index}"], weights)
        assert torch.allclose(heads.sum(2) + bias, acts[f"attn_out.{layer.index}"], atol=2e-5)  # fp32, 64 terms
        assert heads.abs().amax(dim=(0, 1, 3)).min() > 1e-3  # every head writes something: no head is a copy of zeros


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_block_leaves_what_the_next_one_reads(family: str, adapter: str) -> None:
    model = build(family, adapter)
    with record(model, "embed, resid_pre.*, resid_post.*") as acts:
        model(IDS)
    for i in range(model.n_layers - 1):
        assert torch.equal(acts[f"resid_post.{i}"], acts[f"resid_pre.{i + 1}"])
    if family not in ("gpt2", "gemma2"):  # these add positions, or scale, between the embedding and the first block
        assert torch.equal(acts["embed"], acts["resid_pre.0"])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_residual_stream_is_the_sum_of_its_branches(family: str, adapter: str) -> None:
    """resid_mid = resid_pre + attention branch; resid_post = resid_mid + MLP branch (post-norms included)."""
    model = build(family, adapter)
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for layer in model.layout.layers:
        for which in ("attn", "mlp"):
            tap = model.layout.branch(layer, which)

            def keep(module, args, out, key=f"{which}.{layer.index}"):
                seen[key] = out[0] if isinstance(out, tuple) else out

            handles.append(tap.module.register_forward_hook(keep))
    has_mid = model.layout.mid_name is not None
    with record(model, "resid_pre.*, resid_post.*" + (", resid_mid.*" if has_mid else "")) as acts:
        model(IDS)
    for i in range(model.n_layers):
        attn, mlp = acts[f"resid_pre.{i}"] + seen[f"attn.{i}"], seen[f"mlp.{i}"]
        if has_mid:
            assert torch.allclose(acts[f"resid_mid.{i}"], attn, atol=1e-5)
        assert torch.allclose(acts[f"resid_post.{i}"], attn + mlp, atol=2e-5)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_logits_are_hugging_faces_own(family: str, adapter: str) -> None:
    model = build(family, adapter)
    with record(model, "logits, resid_post.0") as acts:
        model(IDS)
    assert torch.equal(acts["logits"], model.module(IDS).logits)


def test_resid_post_equals_hidden_states_but_for_the_last_which_is_normed(family: str) -> None:
    model = build(family)
    with record(model, "resid_post.*", stop=False) as acts:
        hidden = model.module(IDS, output_hidden_states=True).hidden_states
    for i in range(model.n_layers - 1):
        assert torch.equal(acts[f"resid_post.{i}"], hidden[i + 1])
    last = acts[f"resid_post.{model.n_layers - 1}"]
    assert torch.allclose(model.layout.final_norm(last), hidden[-1], atol=1e-6)
    assert not torch.allclose(last, hidden[-1], atol=0.1)


def test_pattern_is_hugging_faces_attention_and_eager_is_switched_back(family: str) -> None:
    model = build(family)
    before = model.layout.config._attn_implementation
    with record(model, "pattern.*") as acts:
        model(IDS)
    assert model.layout.config._attn_implementation == before
    eager = tiny(family, attn="eager")
    expected = [a for a in eager(IDS, output_attentions=True).attentions if a is not None]
    got = [acts[f"pattern.{i}"] for i in model.layout.head_layers]
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
        assert torch.allclose(ours.sum(-1), torch.ones(()), atol=1e-5)


# --- independent engines -------------------------------------------------------------------------------------------

# TransformerLens's `hook_attn_out` and `hook_mlp_out` are the branches (after a post-norm where there is one); our
# words name the modules' outputs, which the heads sum to: `attn.hook_out` and `mlp.hook_out` there.
LENS_NAMES = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post",
    "attn_out": "attn.hook_out", "mlp_out": "mlp.hook_out",
    "z": "attn.hook_z", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v",
}  # fmt: skip
FUSED = ("gpt2", "gpt_neox")


def structural_copy(module: nn.Module) -> nn.Module:
    """A copy that shares every weight: TransformerLens replaces submodules of what it is given."""
    shared = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, memo={id(p): p for p in shared})


def lens_bridge(model: Model):
    bridge = pytest.importorskip("transformer_lens.model_bridge", reason="extra 'bridges' is not installed")
    from tests.tiny import tiny_tokenizer

    return bridge.TransformerBridge.boot_transformers(
        "tiny", hf_model=structural_copy(model.causal_lm), tokenizer=tiny_tokenizer(), device="cpu"
    )


def lens_value(cache, site: str, ours: torch.Tensor) -> torch.Tensor | None:
    kind, layer = site.split(".")
    theirs = cache.cache_dict.get(f"blocks.{layer}.{LENS_NAMES[kind]}")
    if theirs is not None and theirs.numel() == 2 * ours.numel():
        return theirs.unflatten(-2, (-1, 2))[..., 0, :]  # Qwen3.5 queries: [query | gate] within each head
    return theirs if theirs is None else theirs.reshape(ours.shape)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ("plain", "lora"))
def test_sites_equal_transformer_lens(family: str, adapter: str) -> None:
    model = build(family, adapter, attn="eager")
    _, cache = lens_bridge(model).run_with_cache(IDS)
    with record(model, parts(model)) as acts:
        model(IDS)
    if adapter == "lora" and family in FUSED:
        # The bridge splits a fused projection's base weight and drops the adapter's part: it cannot be a witness here.
        assert not torch.allclose(cache["blocks.0.attn.hook_v"], acts["v.0"], atol=0.1)
        return
    compared = set()
    for site in parts(model):
        theirs = lens_value(cache, site, acts[site])
        if theirs is not None:
            assert torch.allclose(theirs, acts[site], atol=2e-5), site  # fp32; the bridge recomputes some products
            compared.add(site.split(".")[0])
    expected = set(LENS_NAMES) - (set() if model.layout.mid_name else {"resid_mid"})
    assert compared == expected


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_sites_equal_nnsight(family: str, adapter: str) -> None:
    nnsight = pytest.importorskip("nnsight", reason="extra 'bridges' is not installed")
    model = build(family, adapter)
    with record(model, "resid_pre.*, attn_out.*, mlp_out.*, resid_post.*, z.*") as acts:
        model(IDS)
    names = {id(m): n for n, m in model.decoder.named_modules()}
    tracer = nnsight.NNsight(model.decoder)
    got = {}
    for layer in model.layout.layers:
        block, attn, out, mlp = (
            _at(tracer, names[id(m)]) for m in (layer.block, layer.attn, layer.out_proj, layer.mlp)
        )
        with torch.no_grad(), tracer.trace(IDS, use_cache=False):
            pre = block.input.save()
            z = out.input.save()
            attn_out = attn.output.save()
            mlp_out = mlp.output.save()
            post = block.output.save()
        i = layer.index
        got.update(
            {
                f"resid_pre.{i}": pre,
                f"z.{i}": z,
                f"attn_out.{i}": attn_out,
                f"mlp_out.{i}": mlp_out,
                f"resid_post.{i}": post,
            }
        )
    for site, value in got.items():
        theirs = value[0] if isinstance(value, tuple) else value
        assert torch.equal(theirs.reshape(acts[site].shape), acts[site]), site


def _at(root, path: str):
    for part in path.split("."):
        root = root[int(part)] if part.isdigit() else getattr(root, part)
    return root


# --- the layout itself ---------------------------------------------------------------------------------------------


def test_layout_knows_head_geometry_per_layer() -> None:
    layers = Layout(tiny("qwen3_5").get_decoder()).layers
    assert [layer.kind for layer in layers] == ["linear_attention"] * 3 + ["full_attention"]
    assert [(layer.n_heads, layer.d_head) for layer in layers] == [(4, 8)] * 3 + [(4, 16)]


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    decoder = tiny("qwen2").get_decoder()
    decoder.config.model_type = "novel"
    with pytest.raises(ValueError, match=r"'novel'.*not a known family.*qwen2.*interp.Family"):
        Layout(decoder)


def test_a_module_that_is_not_where_the_family_says_is_named() -> None:
    decoder = tiny("qwen2").get_decoder()
    decoder.config.model_type = "gpt2"
    with pytest.raises(ValueError, match="expected a submodule 'wte' in Qwen2Model; it has: embed_tokens"):
        Layout(decoder)


def test_qwen2_has_biases_on_q_k_v_but_not_on_o() -> None:
    attn = tiny("qwen2").get_decoder().layers[0].self_attn
    assert attn.q_proj.bias is not None
    assert attn.k_proj.bias is not None
    assert attn.v_proj.bias is not None
    assert attn.o_proj.bias is None


def test_every_supported_family_is_exercised() -> None:
    from interp.family import FAMILIES as ENTRIES

    covered = {tiny(f).get_decoder().config.model_type for f in FAMILIES}
    aliases = {"qwen3_5", "gemma3"}  # composite checkpoints whose text decoder is the entry beside them
    assert covered | aliases >= set(ENTRIES)
