"""The reference engine: what is recorded is what was computed, nothing is left behind, and faults are loud."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.edits import Add, ProjectOut, Replace
from interp.hooks import edit, record
from interp.model import Model
from interp.passes import pad
from interp.positions import All, Last, Span, Stride
from tests.tiny import add_lora, tiny

TEXTS = [[5, 9, 77], [3, 14, 15, 92, 65, 35, 8, 97, 93], [31, 41, 59, 26, 53, 58]]


def n_hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


# --- recording -----------------------------------------------------------------------------------------------------


def test_recording_changes_no_bit_of_the_logits(family: str, ids: torch.Tensor) -> None:
    module = tiny(family)
    bare = module(ids).logits
    with record(module, "resid_pre.*, resid_post.*, z.*, mlp_out.*, embed", stop=False):
        assert torch.equal(module(ids).logits, bare)
    assert torch.equal(module(ids).logits, bare)


@pytest.mark.parametrize("side", ["right", "left"])
def test_any_batch_gives_what_single_unpadded_texts_give(family: str, side: str) -> None:
    model = Model.wrap(tiny(family))
    sites = "resid_post.*, attn_out.*, z.*, logits"
    batch = pad(TEXTS, pad_id=0, side=side)
    with record(model, sites, positions=All()) as acts:
        model(TEXTS) if side == "right" else model(batch.input_ids, attention_mask=batch.attention_mask)
    for item, text in enumerate(TEXTS):
        with record(model, sites, positions=All()) as single:
            model([text])
        rows = [i for i, (b, _) in enumerate(acts.rows) if b == item]
        for site in acts:
            assert torch.allclose(acts[site][rows], single[site], atol=5e-5), (
                site
            )  # fp32; DeltaNet chunks move by padding


def test_positions_count_from_the_first_real_token() -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.1", positions=Last()) as last:
        model(TEXTS)
    assert last.rows == [(0, 2), (1, 8), (2, 5)]
    with record(model, "resid_post.1", positions=[[0, 2], [8], []]) as chosen:
        model(TEXTS)
    assert chosen.rows == [(0, 0), (0, 2), (1, 8)]
    assert torch.equal(chosen["resid_post.1"][1:], last["resid_post.1"][:2])
    with record(model, "resid_post.1", positions=Stride(4)) as strided:
        model(TEXTS)
    assert {b for b, _ in strided.rows} == {0, 1, 2}


def test_a_rule_that_needs_text_is_refused_on_bare_tokens() -> None:
    model = Model.wrap(tiny("qwen2"))
    with pytest.raises(ValueError, match="scenario"), record(model, "resid_post.0", positions=Span("scenario")):
        model(TEXTS)
    assert n_hooks(model.module) == 0


def test_a_position_outside_the_text_is_named() -> None:
    model = Model.wrap(tiny("qwen2"))
    with pytest.raises(ValueError, match="item 0: expected tokens 0-2 .*got 3"):
        with record(model, "resid_post.0", positions=[[3], [0], [0]]):
            model(TEXTS)


def test_one_head_is_a_slice_of_all_heads(family: str, ids: torch.Tensor) -> None:
    model = Model.wrap(tiny(family))
    with record(model, "z.1, z.1.2") as acts:
        model(ids)
    assert torch.equal(acts["z.1"][:, :, 2], acts["z.1.2"])
    assert not torch.equal(acts["z.1"][:, :, 1], acts["z.1.2"])


def test_what_is_kept_is_a_copy_of_just_the_rows(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.0, z.1, z.1.2, q.1", positions=[[10], [10]]) as acts:
        model(ids)
    for site in acts:
        kept = acts[site]
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size(), site


def test_the_pass_stops_after_the_last_layer_needed(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    ran: list[int] = []
    for i, layer in enumerate(model.decoder.layers):
        layer.register_forward_pre_hook(lambda m, a, i=i: ran.append(i))
    head: list[bool] = []
    model.causal_lm.lm_head.register_forward_hook(lambda m, a, o: head.append(True))
    with record(model, "resid_post.1"):
        out = model(ids)
    assert (ran, head) == ([0, 1], [])
    with pytest.raises(AttributeError, match="ended after the last recorded site"):
        _ = out.logits
    with record(model, "resid_post.1", stop=False):
        model(ids)
    assert ran == [0, 1, 0, 1, 2]
    assert head == []  # only the site `logits` asks for the vocabulary


def test_nested_recordings_end_when_the_last_is_done(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.0") as early, record(model, "resid_post.2") as late:
        model(ids)
    assert early["resid_post.0"].shape == late["resid_post.2"].shape


def test_several_passes_in_one_block_must_be_asked_for_by_number(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.0") as acts:
        model(ids)
        model(ids)
    with pytest.raises(ValueError, match="expected one forward pass in the record block, 2 ran"):
        _ = acts["resid_post.0"]
    assert torch.equal(*(p.acts[acts.sites[0]] for p in acts.passes))


def test_decoding_with_a_cache_gives_the_prompts_own_activations(ids: torch.Tensor) -> None:
    module = tiny("qwen2")
    with record(module, "resid_post.2", positions=All()) as steps:
        first = module(ids[:, :7], use_cache=True)
        module(ids[:, 7:], past_key_values=first.past_key_values)
    with record(module, "resid_post.2", positions=All()) as whole:
        module(ids)
    assert [row for p in steps.passes for row in p.rows] == [
        (b, t) for r in (range(7), range(7, 11)) for b in (0, 1) for t in r
    ]
    got = torch.cat([p.acts[steps.sites[0]].unflatten(0, (2, -1)) for p in steps.passes], dim=1).flatten(0, 1)
    assert torch.allclose(got, whole["resid_post.2"], atol=1e-5)


@pytest.mark.parametrize("where", ["before", "inside"])
def test_hooks_are_gone_after_any_exception(ids: torch.Tensor, where: str) -> None:
    model = Model.wrap(tiny("qwen2"))
    with pytest.raises((ValueError, ZeroDivisionError)):
        with record(model, "resid_post.1" if where == "inside" else "resid_post.1, z.7"):
            raise ZeroDivisionError
    with pytest.raises((ValueError, ZeroDivisionError)):
        with edit(model, {"resid_post.1": Add(torch.ones(32)), ("z.0" if where == "inside" else "z.7"): Replace()}):
            raise ZeroDivisionError
    assert n_hooks(model.module) == 0
    assert model(ids).logits.isfinite().all()


def test_a_failed_pass_does_not_poison_the_next(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.0") as acts:
        with pytest.raises(IndexError):
            model(torch.full((1, 3), 10_000))
        model(ids)
    assert acts["resid_post.0"].shape == (2, 11, 32)


# --- loud faults ---------------------------------------------------------------------------------------------------


def test_a_compiled_model_that_skips_hooks_is_an_error(ids: torch.Tensor) -> None:
    module = tiny("qwen2")
    compiled = torch.compile(module, backend="eager")
    compiled(ids)
    with pytest.raises((RuntimeError, ValueError), match="compiled"), record(module, "z.0, resid_post.1"):
        compiled(ids)


def test_a_site_that_is_bypassed_is_named(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    block = model.decoder.layers[1]
    block.mlp = type("Bypass", (nn.Module,), {"forward": lambda self, x: x})()
    with pytest.raises(RuntimeError, match=r"1 of 2 sites did not fire in this pass: mlp_out.1"):
        with record(model, "resid_post.2, mlp_out.1", stop=False):
            model(ids)


def test_a_module_in_training_mode_is_found_although_the_model_says_eval(ids: torch.Tensor) -> None:
    model = Model.wrap(add_lora(tiny("qwen2")))
    dropout = next(m for m in model.module.modules() if isinstance(m, nn.Dropout))
    dropout.train()
    assert not model.module.training
    with pytest.raises(RuntimeError, match=r"1 submodules are in training mode \(.*lora_dropout"):
        with record(model, "resid_post.0"):
            model(ids)


def test_nothing_ran_is_an_error() -> None:
    with pytest.raises(ValueError, match="no forward pass reached the hooks"), record(tiny("qwen2"), "resid_post.0"):
        pass


def test_a_padded_tensor_without_mask_or_lengths_is_refused() -> None:
    module = tiny("qwen2")
    batch = pad(TEXTS, pad_id=0).input_ids
    for run in (lambda: Model.wrap(module)(batch), lambda: module(batch)):
        with (
            pytest.raises(ValueError, match="attention_mask.*nor lengths came with it"),
            record(module, "resid_post.0"),
        ):
            run()
    model = Model.wrap(module)
    with record(model, "resid_post.0", positions=Last()) as acts:
        model(batch, lengths=[3, 9, 6])
    assert acts.rows == [(0, 2), (1, 8), (2, 5)]


def test_a_batch_says_once_which_tokens_are_real() -> None:
    model = Model.wrap(tiny("qwen2"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with pytest.raises(ValueError, match="row 0: expected one run of real tokens, found 2"):
        model(ids, attention_mask=torch.tensor([[1, 0, 1, 1]]))
    with pytest.raises(ValueError, match="give one of the two"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1, 1]]), lengths=[3])
    with pytest.raises(ValueError, match="token lists carry their own lengths"):
        model([[5, 6, 7]], lengths=[2])


def test_left_padding_without_position_ids_is_given_them() -> None:
    batch = pad(TEXTS, side="left")
    assert batch.position_ids[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 2]
    model = Model.wrap(tiny("qwen2", seed=1).to(torch.bfloat16))
    far = pad([[7] * 200, TEXTS[1]], side="left")

    def off(run) -> float:
        with record(model, "resid_post.2", positions=Last(), stop=False) as acts:
            run()
        with record(model, "resid_post.2", positions=Last()) as alone:
            model([TEXTS[1]])
        error = acts["resid_post.2"][1].float() - alone["resid_post.2"][0].float()
        return float(error.norm() / alone["resid_post.2"].float().norm())

    ours = off(lambda: model(far.input_ids, attention_mask=far.attention_mask))
    bare = off(lambda: model.module(far.input_ids, attention_mask=far.attention_mask))
    assert ours == off(lambda: model.module(**far.kwargs))
    assert ours < 0.6 * bare  # bf16: RoPE is shift-invariant in exact arithmetic only


def test_packing_works_for_attention_and_is_refused_for_hybrids() -> None:
    packed = torch.tensor([TEXTS[0] + TEXTS[1]])
    positions = torch.tensor([[*range(3), *range(9)]])
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.2") as acts:
        model(packed, position_ids=positions)
    with record(model, "resid_post.2") as alone:
        model([TEXTS[1]])
    assert torch.allclose(acts["resid_post.2"][:, 3:], alone["resid_post.2"], atol=1e-5)
    with pytest.raises(ValueError, match="packed rows.*qwen3_5.*separate token lists"):
        Model.wrap(tiny("qwen3_5"))(packed, position_ids=positions)


def test_prompt_learning_adapters_are_refused() -> None:
    from peft import PromptTuningConfig, get_peft_model

    module = get_peft_model(tiny("qwen2"), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="PROMPT_TUNING.*token positions would shift"):
        Model.wrap(module)


# --- edits ---------------------------------------------------------------------------------------------------------

EDITABLE = ("embed", "resid_pre.1", "resid_mid.1", "resid_post.1", "attn_out.1", "mlp_out.1", "z.1", "z.1.2")


def editable(model: Model) -> list[str]:
    sites = [s for s in EDITABLE if s != "resid_mid.1" or model.layout.mid_name]
    last = model.layout.head_layers[-1]
    return [*sites, *(f"{k}.{last}" for k in "qkv"), f"k.{last}.1"]


def test_writing_back_what_was_there_changes_nothing(family: str, ids: torch.Tensor) -> None:
    model = Model.wrap(tiny(family))
    bare = model(ids).logits
    for site in editable(model):
        with edit(model, {site: lambda acts: acts.clone()}):
            assert torch.allclose(model(ids).logits, bare, atol=1e-6), site


def test_an_edit_is_what_the_rest_of_the_network_sees(family: str, ids: torch.Tensor) -> None:
    """Patch every site at every position with another text's activations; the recording must hold just these."""
    model = Model.wrap(tiny(family))
    other = ids.flip(1)
    for site in editable(model):
        with record(model, [site]) as donor:
            model(other)
        for order in ("record first", "edit first"):
            recording, change = record(model, [site], stop=False), edit(model, {site: Replace(donor[site])})
            outer, inner = (recording, change) if order == "record first" else (change, recording)
            with outer as a, inner as b:
                model(ids)
            got = a if order == "record first" else b
            assert torch.equal(got[site], donor[site]), (site, order)


@pytest.mark.parametrize("site", ["resid_pre.0", "resid_mid.1", "resid_post.1"])
def test_a_patched_residual_stream_carries_the_donors_answer(family: str, ids: torch.Tensor, site: str) -> None:
    """Theorem: the residual stream at all positions of one depth determines the logits."""
    model = Model.wrap(tiny(family))
    if site.startswith("resid_mid") and model.layout.mid_name is None:
        with pytest.raises(ValueError, match="has no 'resid_mid'"), edit(model, {site: Replace()}):
            pass
        return
    other = ids.flip(1)
    with record(model, [site]) as donor:
        model(other)
    with edit(model, {site: Replace(donor[site])}):
        patched = model(ids).logits
    assert torch.allclose(patched, model(other).logits, atol=1e-5)


def test_untouched_positions_keep_every_bit_before_the_edit(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with record(model, "resid_post.1") as bare:
        model(ids)
    with (
        edit(model, {"resid_post.1": Add(torch.ones(32), alpha=3.0)}, positions=[[7], []]),
        record(model, "resid_post.1") as acts,
    ):
        model(ids)
    moved = acts["resid_post.1"] - bare["resid_post.1"]
    assert torch.allclose(moved[0, 7], torch.full((32,), 3.0), atol=1e-5)
    moved[0, 7] = 0
    assert moved.abs().max() == 0


def test_edits_act_on_the_right_tokens_under_cache_and_left_padding() -> None:
    module = tiny("qwen2")
    text = TEXTS[1]
    change = {"resid_post.1": Add(torch.ones(32))}
    with edit(module, change, positions=[[6]]), record(module, "resid_post.2", positions=[[8]], stop=False) as whole:
        module(torch.tensor([text]))
    batch = pad([text, TEXTS[0]], side="left")
    with edit(module, change, positions=[[6], []]), record(module, "resid_post.2", positions=Last()) as padded:
        module(**batch.kwargs)
    with edit(module, change, positions=[[6]]), record(module, "resid_post.2", positions=Last()) as steps:
        past = module(torch.tensor([text[:5]]), use_cache=True).past_key_values
        module(torch.tensor([text[5:]]), past_key_values=past)
    assert torch.allclose(padded["resid_post.2"][0], whole["resid_post.2"][0], atol=1e-5)
    assert torch.allclose(steps.passes[1].acts[steps.sites[0]][0], whole["resid_post.2"][0], atol=1e-5)


def test_nested_edits_act_in_the_order_in_which_they_were_opened(ids: torch.Tensor) -> None:
    model = Model.wrap(tiny("qwen2"))
    with edit(model, {"resid_post.1": Replace(0.0)}), edit(model, {"resid_post.1": Add(torch.ones(32), alpha=2.0)}):
        with record(model, "resid_post.1") as acts:
            model(ids)
    assert torch.equal(acts["resid_post.1"], torch.full((2, 11, 32), 2.0))


def test_project_out_leaves_no_component_and_is_idempotent(rng: torch.Generator) -> None:
    basis = torch.randn(3, 16, generator=rng)
    basis = torch.cat([basis, basis[:1] + basis[1:2]])  # a dependent row
    acts = torch.randn(2, 5, 16, generator=rng)
    once = ProjectOut(basis)(acts)
    assert (once @ basis.T).abs().max() < 1e-5
    assert torch.allclose(ProjectOut(basis)(once), once, atol=1e-6)
    with pytest.raises(ValueError, match="spans nothing"):
        ProjectOut(torch.zeros(2, 16))


@pytest.mark.parametrize(
    ("site", "change", "words"),
    [
        ("logits", Replace(), "'logits' cannot be edited"),
        ("pattern.0", Replace(), "edit 'z', 'q', 'k' or 'v' instead"),
        ("resid_post.1", lambda acts: acts.add_(1), "changed its input in place"),
        ("resid_post.1", lambda acts: acts[:, :3], r"returned \(2, 3, 32\), expected \(2, 11, 32\)"),
        ("z.9", Replace(), r"3 layers \(0-2\)"),
    ],
)
def test_a_bad_edit_says_why_and_leaves_no_hook(ids: torch.Tensor, site: str, change, words: str) -> None:
    model = Model.wrap(tiny("qwen2"))
    with pytest.raises(ValueError, match=words), edit(model, {site: change}):
        model(ids)
    assert n_hooks(model.module) == 0


def test_an_edit_inside_an_adapter_keeps_the_adapters_own_part(ids: torch.Tensor) -> None:
    """Zeroing z of one head removes W_eff z, the LoRA part included: the same as masking the input of o_proj."""
    model = Model.wrap(add_lora(tiny("qwen2")))
    with edit(model, {"z.1.2": Replace(0.0)}):
        ours = model(ids).logits

    def mask(module, args):
        z = args[0].clone()
        z[..., 16:24] = 0
        return (z,)

    with model.layout.layers[1].out_proj.register_forward_pre_hook(mask):
        assert torch.equal(model.module(ids).logits, ours)
