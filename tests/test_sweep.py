"""The fast engine: every row of a sweep is what one hooked forward pass of its own gives, at a fraction of the work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import interp.sweep.engine as engine_module
from interp.edits import Add, ProjectOut, Replace
from interp.hooks import record
from interp.model import Model
from interp.positions import Span
from interp.prompt import Prompt
from interp.sweep import Change, Intervention, SweepItem, sweep, sweep_all
from interp.sweep.engine import row_bytes
from tests.sweep_kit import PROMPTS, all_heads, float64_models, naive
from tests.tiny import FAMILIES, tiny

STARTS = (
    0,
    3,
    36,
)  # of a prompt of 37 tokens: all positions, a suffix longer than Gemma's window of 16, the answer slot


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch):
    """Makes models that compute in float64 throughout."""
    return float64_models(monkeypatch)


# --- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["plain", "lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_has_the_effect_that_the_naive_loop_finds(wide, family: str, adapter: str) -> None:
    model = wide(family, adapter)
    cases = [(PROMPTS[0], 11), (PROMPTS[1], 5), *((PROMPTS[2], start) for start in STARTS)]
    for ids, start in cases if adapter == "plain" else cases[:3]:  # mid, last and 0, of three lengths
        rows = all_heads(model, range(start, len(ids)))
        fast, slow = sweep(model, ids, rows), naive(model, ids, rows)
        assert (fast.engine, fast.start) == ("staircase", start)
        assert (fast.rows - slow).abs().max() <= 1e-12
        assert fast.effects.abs().amax(dim=(1, 2)).min() > 1e-3  # no head is dead, so none can be right by accident
        assert (fast.clean[0] - model([ids]).logits[0, -1]).abs().max() <= 1e-12


def test_float32_agrees_to_1e_5_of_the_largest_effect(family: str) -> None:
    model = Model.wrap(tiny(family))
    ids = PROMPTS[0]
    for start in (0, 22):
        rows = all_heads(model, range(start, len(ids)))
        fast, slow = sweep(model, ids, rows), naive(model, ids, rows) - model([ids]).logits[0, -1]
        assert (fast.effects - slow).abs().max() <= 1e-5 * slow.abs().max()


def many_changes(model: Model, donor: dict[str, Tensor], rng: torch.Generator) -> list[Intervention]:
    """Every kind of change: sites, values with and without a token axis, ranks, several per row, odd positions."""
    vector, basis = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((32,), (2, 32)))
    mean, head = donor["z.1"].mean(dim=(0, 1)), donor["z.1"].shape[-1]
    last, layer = model.n_layers - 1, model.layout.head_layers[-1]
    has_mid = model.layout.mid_name is not None
    sites = ["resid_pre.0", "resid_pre.1", "resid_post.0", f"resid_post.{last}", "attn_out.1", "mlp_out.1", "embed"]
    sites += [f"mlp_out.{last}", *(["resid_mid.1", f"resid_mid.{last}"] if has_mid else [])]
    rows = [Intervention.at(site, Add(vector, 0.7), where) for site in sites for where in ([9, 20], range(8, 23))]
    rows += [Intervention.at(site, ProjectOut(basis), [12, 22]) for site in sites]
    rows += [Intervention.at(f"{kind}.{layer}", Replace(0.1), [11, 20]) for kind in "qkv"]
    rows += [
        Intervention.at("z.1", Replace(mean), [22]),  # the mean of all heads
        Intervention.at("z.1.2", Replace(mean[2]), [20, 22]),
        Intervention.at("z.1.2", Replace(donor["z.1"][:, :, 2]), [9, 14, 22]),  # another run's head, token by token
        Intervention.at("z.1.0", Replace(donor["z.1"][0, :, 0]), range(8, 23)),
        Intervention.at("resid_pre.1", Replace(donor["resid_pre.1"]), [21, 22]),
        Intervention.at("z.1.1", Add(torch.ones(head, dtype=torch.float64), -2.0), [22]),
        Intervention.at("resid_post.*", lambda acts: acts * 0.5, [16, 22]),
        Intervention.at("mlp_out.*", ProjectOut(basis), [22]),
        Intervention((Change("z.0.1", Replace(0.0), [10]), Change("z.2.3", Replace(0.3), [22]))),
        Intervention((Change("z.2.3", Replace(0.3), [22]), Change("resid_pre.1", Add(vector), [15, 16]))),
        Intervention((Change("resid_post.1", Add(vector), [22]), Change("resid_post.1", ProjectOut(basis), [22]))),
        Intervention((Change("resid_post.1", ProjectOut(basis), [22]), Change("resid_post.1", Add(vector), [22]))),
        Intervention((Change("resid_post.1", Add(vector), [22]), Change("resid_post.1", Add(vector[:1]), [22]))),
        Intervention((Change("resid_post.0", Replace(0.2), [18]), Change("resid_pre.1", Add(vector), [18]))),
        Intervention((Change("z.1.1", Replace(0.0), [22]), Change("z.1", Add(mean), [20, 22]))),
        Intervention(name="nothing"),
    ]
    return rows


def test_every_kind_of_change_means_what_it_means_in_the_reference_engine(wide, family: str, rng) -> None:
    model = wide(family)
    ids = PROMPTS[0]
    with record(model, ["z.1", "resid_pre.1"]) as donor:
        model([ids[::-1]])
    rows = many_changes(model, donor, rng)
    fast, slow = sweep(model, ids, rows, read_at=[20, 22]), naive(model, ids, rows, at=[20, 22])
    error = (fast.rows - slow).abs().amax(dim=(1, 2))
    worst = int(error.argmax())
    assert error[worst] <= 1e-12, (worst, rows[worst].changes)
    assert fast.effects[:-1].abs().amax(dim=(1, 2)).min() > 1e-3
    assert torch.equal(fast.effects[-1], torch.zeros_like(fast.effects[-1]))


@pytest.mark.parametrize("window", [1, 8, 100])
def test_a_sliding_window_hides_the_same_tokens(wide, window: int) -> None:
    model = wide("mistral")
    model.layout.config.sliding_window = window
    for start in (0, 5, 22):
        rows = all_heads(model, range(start, 23))
        assert (sweep(model, PROMPTS[0], rows).rows - naive(model, PROMPTS[0], rows)).abs().max() <= 1e-12


@pytest.mark.parametrize("start", [1, 2, 3, 21])
def test_a_recurrent_layer_resumes_from_any_token(wide, start: int) -> None:
    """A prefix shorter than the convolution, and suffixes of one and of several tokens."""
    model = wide("qwen3_5")
    rows = [Intervention.at("z.0.1", Replace(0.0), [22]), Intervention.at("z.3.2", Replace(0.0), [21, 22])]
    fast = sweep(model, PROMPTS[0], rows, start=start)
    assert (fast.rows - naive(model, PROMPTS[0], rows)).abs().max() <= 1e-12


# --- what is read --------------------------------------------------------------------------------------------------


def test_rows_are_read_at_any_tokens_and_only_the_answers_asked_for(wide, family: str) -> None:
    model = wide(family)
    rows = [*all_heads(model, [10, 15]), Intervention.at(f"mlp_out.{model.n_layers - 1}", Replace(0.0), [12, 15])]
    slow = naive(model, PROMPTS[0], rows, at=[12, 15, 22])
    fast = sweep(model, PROMPTS[0], rows, read_at=[22, 12, 15], answer_ids=[7, 120, 5])
    assert (fast.read_at, fast.start) == ((12, 15, 22), 10)
    assert (fast.rows - slow[..., [7, 120, 5]]).abs().max() <= 1e-12
    every = sweep(model, PROMPTS[0], rows, read_at="all")
    assert every.start == 0
    assert (every.rows[:, [12, 15, 22]] - slow).abs().max() <= 1e-12


def test_a_function_reads_the_normed_residual_stream(wide, family: str) -> None:
    model = wide(family)
    rows = all_heads(model, [22])
    final = sweep(model, PROMPTS[0], rows, read="final").rows
    assert torch.allclose(model.unembed(final), naive(model, PROMPTS[0], rows), atol=1e-12)
    direction = torch.linspace(-1, 1, 32, dtype=torch.float64)
    along = sweep(model, PROMPTS[0], rows, read=lambda resid: resid @ direction)
    assert torch.allclose(along.rows, final @ direction, atol=1e-12)
    assert along.effects.shape == (len(rows), 1)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma3", "olmo2"])
def test_half_precision_models_are_read_in_float32_against_an_equal_row(family: str) -> None:
    """A row without changes differs from its clean row by nothing, in any chunk; logits are not rounded to bf16."""
    model = Model.wrap(tiny(family, dtype=torch.bfloat16))
    rows = [*all_heads(model, [22]), Intervention()] * 2
    exact = sweep(Model.wrap(tiny(family, dtype=torch.float64)), PROMPTS[0], rows)
    for chunk_bytes in (1, None):
        got = sweep(model, PROMPTS[0], rows, chunk_bytes=chunk_bytes)
        assert got.rows.dtype == torch.float32
        assert not torch.equal(got.rows, got.rows.bfloat16().float())
        assert got.effects[len(rows) // 2 - 1].abs().max() == 0
        assert (got.effects - exact.effects).abs().max() < 0.05 * exact.effects.abs().max()  # bf16: 8 bits, 3 layers


def test_an_adapter_on_the_unembedding_is_read_too(wide) -> None:
    from peft import LoraConfig, get_peft_model

    from tests.tiny import randomise_lora

    config = LoraConfig(r=2, target_modules=["lm_head", "o_proj"], task_type="CAUSAL_LM")
    module = get_peft_model(wide("qwen2").module, config)
    randomise_lora(module, seed=3)
    model = Model.wrap(module.double().eval())
    rows = all_heads(model, [22])
    fast = sweep(model, PROMPTS[0], rows, answer_ids=[4, 9])
    assert (fast.rows - naive(model, PROMPTS[0], rows)[..., [4, 9]]).abs().max() <= 1e-12


def test_prompts_of_unequal_length_give_what_they_give_alone(wide) -> None:
    model = wide("qwen2")
    items = [SweepItem(ids, all_heads(model, [len(ids) - 1]), [i, 50]) for i, ids in enumerate(PROMPTS)]
    for item, got in zip(items, sweep_all(model, items, verify=0.3), strict=True):
        assert got.n_verified == 4  # of 12 heads
        slow = naive(model, item.prompt, item.interventions)[..., list(item.answer_ids)]
        assert (got.rows - slow).abs().max() <= 1e-12


def test_rules_are_resolved_on_the_prompts_own_text(wide) -> None:
    ids = PROMPTS[1]
    offsets = tuple((i, i + 1) for i in range(6))
    prompt = Prompt("a", text="abcdef", ids=tuple(ids), offsets=offsets, spans={"prompt": (0, 6), "step": (2, 4)})
    model = wide("qwen2")
    by_rule = sweep(model, prompt, [Intervention.at("z.1.0", Replace(0.0), Span("step", which="all"))])
    by_number = sweep(model, ids, [Intervention.at("z.1.0", Replace(0.0), [2, 3])])
    assert by_rule.start == 2
    assert torch.equal(by_rule.rows, by_number.rows)


# --- work and memory -----------------------------------------------------------------------------------------------


def tokens_through(model: Model, run) -> list[int]:
    """Rows times tokens that went through each layer's MLP."""
    counts = [0] * model.n_layers
    handles = []
    for layer in model.layout.layers:

        def count(module, args, at=layer.index):
            counts[at] += args[0].shape[:-1].numel()

        handles.append(layer.mlp.register_forward_pre_hook(count))
    run()
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("start", [0, 17, 22])
def test_a_row_costs_nothing_below_its_layer_nor_before_its_first_token(family: str, start: int) -> None:
    """MLP tokens at layer l: S of the clean pass (none at the last), and S - start per row that has joined and the
    un-edited one; at the last layer one per row, the one that is read."""
    model = Model.wrap(tiny(family))
    rows = all_heads(model, range(start, 23))
    got = tokens_through(model, lambda: sweep(model, PROMPTS[0], rows, answer_ids=[1]))
    heads = [layer.n_heads for layer in model.layout.layers]
    joined = [1 + sum(heads[: i + 1]) for i in range(model.n_layers)]
    assert got[:-1] == [23 + n * (23 - start) for n in joined[:-1]]
    assert got[-1] == joined[-1]


def test_what_leaves_a_block_costs_nothing_in_that_block() -> None:
    """A steered stream joins as the next block is entered; after the last block it costs no block at all."""
    model = Model.wrap(tiny("qwen2"))
    rows = [Intervention.at(f"resid_post.{layer}", Add(torch.ones(32)), [22]) for layer in (0, 2, 2)]
    got = tokens_through(model, lambda: sweep(model, PROMPTS[0], rows, answer_ids=[1]))
    assert got == [23, 23 + 2, 2]  # the chunk begins where its first row joins; the clean pass leaves out the last MLP


def test_the_prefix_is_shared_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows bring their own token's key only; the prefix reaches attention as one item, a view of what the pass kept."""
    seen = []

    def spy(module, query, key, value, mask, **kwargs):
        seen.append(
            (tuple(key.shape[::2]), tuple(kwargs["rows_prefix"][0].shape[::2]), kwargs["rows_prefix"][0]._is_view())
        )
        return attention(module, query, key, value, mask, **kwargs)

    from interp.sweep import attention as attention_module

    attention = attention_module.rows_attention
    monkeypatch.setattr(attention_module, "rows_attention", spy)
    model = Model.wrap(tiny("qwen2"))
    sweep(model, PROMPTS[0], all_heads(model, [22]))
    assert seen == [((rows, 1), (1, 22), True) for rows in (1, 5, 9)]


@pytest.mark.parametrize("family", ["qwen2", "qwen3_5", "gpt_neox"])
def test_the_size_of_chunks_does_not_matter(wide, family: str) -> None:
    model = wide(family)
    rows = [*all_heads(model, [20, 22]), Intervention.at("resid_post.0", Add(torch.ones(32)), [21])]
    whole = sweep(model, PROMPTS[0], rows)
    per_row = row_bytes(model.layout, n_new=3, n_past=20, itemsize=8)
    for chunk_bytes in (1, 2 * per_row, 5 * per_row):
        assert torch.allclose(sweep(model, PROMPTS[0], rows, chunk_bytes=chunk_bytes).rows, whole.rows, atol=1e-12)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("can't allocate memory: 9 bytes")])
def test_chunks_are_halved_until_they_fit_and_stay_so(wide, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    model = wide("qwen2")
    rows = all_heads(model, [22])
    whole = sweep(model, PROMPTS[0], rows)
    sizes: list[int] = []
    run_rows = engine_module.run_rows

    def limited(layout, clean, chunk, *, read, most=3):
        sizes.append(len(chunk))
        if len(chunk) > most:
            raise error
        return run_rows(layout, clean, chunk, read=read)

    monkeypatch.setattr(engine_module, "run_rows", limited)
    assert torch.allclose(sweep(model, PROMPTS[0], rows).rows, whole.rows, atol=1e-12)
    assert sizes == [12, 6, 3, 3, 3, 3]
    monkeypatch.setattr(engine_module, "run_rows", lambda *a, **k: limited(*a, **k, most=0))
    with pytest.raises(type(error)):
        sweep(model, PROMPTS[0], rows)
    assert sizes[6:] == [12, 6, 3, 1]
