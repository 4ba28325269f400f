"""Norm-matched injection against the original's own output, bit for bit, and against what it did silently wrong."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from interp.edits import InjectNormMatched
from interp.injection import Slots, check_vectors, inject_at
from interp.model import Model
from interp.oracle import OracleSpec, inject, norm_matched_injection
from interp.oracle.engine import Decoding, generate
from interp.oracle.jobs import Job
from interp.oracle.prompt import OraclePrompt
from interp.passes import positions_from_mask
from tests.tiny import FAMILIES, tiny

COMPARABLE = (
    "single_fp32", "multi_pos_fp32", "tuple_output_fp32", "coef2_fp32", "coef0_fp32", "scale_invariance_small_fp32",
    "scale_invariance_big_fp32", "zero_vector_fp32", "zero_residual_fp32", "tiny_vector_fp32", "bf16_resid_bf16_vec",
)  # fmt: skip
NAN, INF = float("nan"), float("inf")
REFUSED = {  # rows of the batch, slots of each of them, vectors, a number in the first (None: as drawn), the error
    "nan_vector_fp32": (1, [[3, 6]], 2, NAN, "not finite.*slot"),
    "inf_vector_fp32": (1, [[1, 4]], 2, INF, "not finite.*slot"),
    "duplicate_position_fp32": (1, [[4, 4]], 2, None, "row 0: column 4 is named twice"),
    "batch_mismatch": (3, [[1], [8]], 2, None, r"one list per row of the batch \(3\), got 2"),
    "len_mismatch_broadcast": (1, [[2, 0, 1]], 1, None, "3 slots .* got 1 vectors"),
}
"""What the original did silently; the names are those of its cases in the reference."""


@pytest.fixture(scope="module")
def reference(shared):
    cases = json.loads((shared / "vectors" / "oracle.json").read_text())["cases"]
    return cases, load_file(shared / "vectors" / "oracle.safetensors")


def run(reference, name, **options):
    cases, tensors = reference
    case = cases[name]
    before, vectors = tensors[f"{name}.residual_before"], tensors[f"{name}.vectors"]
    return norm_matched_injection(before, vectors, case["positions"], case["coefficient"], **options)


@pytest.mark.parametrize("name", COMPARABLE)
def test_wire_precision_equals_the_original_bit_for_bit(reference, name):
    before = reference[1][f"{name}.residual_before"].clone()
    assert torch.equal(run(reference, name), reference[1][f"{name}.residual_after"])
    assert torch.equal(reference[1][f"{name}.residual_before"], before), "the input was changed in place"


def test_every_case_of_the_reference_is_tested_here(reference):
    special = {"fp16_zero_vector", "decode_step_len1_fp32", "negative_replacement_fp32"}
    models = {name for name, case in reference[0].items() if case["kind"] == "model"}
    assert set(reference[0]) == {*COMPARABLE, *REFUSED, *special, *models}
    for name, (*_, message) in REFUSED.items():
        with pytest.raises(ValueError, match=message):
            run(reference, name)
    name = "decode_step_len1_fp32"
    assert torch.equal(reference[1][f"{name}.residual_after"], reference[1][f"{name}.residual_before"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_original_did_silently_is_refused(rng, name):
    n_rows, positions, n_vectors, number, message = REFUSED[name]
    resid, vectors = torch.randn(n_rows, 9, 8, generator=rng), torch.randn(n_vectors, 8, generator=rng)
    if number is not None:
        vectors[0, 3] = number
    with pytest.raises(ValueError, match=message):
        norm_matched_injection(resid, vectors, positions)


def test_replacement_is_another_formula(reference):
    name = "negative_replacement_fp32"
    after = reference[1][f"{name}.residual_after"]
    assert not torch.allclose(run(reference, name), after, atol=0.1)
    assert torch.allclose(run(reference, name, formula="replace"), after, atol=1e-6)


def test_fp16_equals_the_original_where_it_was_finite_and_leaves_a_zero_vector_alone(reference):
    name = "fp16_zero_vector"
    after, before = reference[1][f"{name}.residual_after"], reference[1][f"{name}.residual_before"]
    got = run(reference, name)
    finite = torch.isfinite(after)
    assert not finite.all(), "the case no longer shows the fault of the original"
    assert torch.equal(got[finite], after[finite])
    assert torch.equal(got[~finite], before[~finite])


def test_fp32_rounds_once(reference):
    name = "bf16_resid_bf16_vec"
    case, t = reference[0][name], reference[1]
    exact = norm_matched_injection(
        t[f"{name}.residual_before"].double(), t[f"{name}.vectors"].double(), case["positions"]
    )
    once = run(reference, name, precision="fp32")
    assert torch.equal(once, exact.to(torch.bfloat16))
    assert not torch.equal(once, run(reference, name)), "wire precision rounds more often, so they must differ"


def test_a_column_outside_the_batch_and_a_wrong_width_are_refused():
    resid, vectors = torch.randn(2, 5, 8), torch.randn(2, 8)
    with pytest.raises(ValueError, match="row 1, slot 0: expected a column in .*got 5"):
        norm_matched_injection(resid, vectors, [[0], [5]])
    with pytest.raises(ValueError, match=r"expected \[slots, 8\], one per slot; got \[2, 4\]"):
        check_vectors(vectors[:, :4], d_model=8)
    with pytest.raises(ValueError, match="expected a floating dtype"):
        check_vectors(vectors.long(), d_model=8)


def test_gradient_goes_through_the_residual_and_through_the_vectors_only_when_asked(rng):
    for grad, reaches in (("residual", False), ("vector", True)):
        resid = torch.randn(1, 3, 8, generator=rng, requires_grad=True)
        vectors = torch.randn(1, 8, generator=rng, requires_grad=True)
        norm_matched_injection(resid, vectors, [[1]], grad=grad).sum().backward()
        assert (vectors.grad is not None) is reaches
        if not reaches:
            assert torch.equal(resid.grad, torch.ones_like(resid)), "the identity path must keep its gradient exactly"


def test_raw_adds_the_vector_at_its_own_length(rng):
    resid, vectors = torch.randn(1, 3, 8, generator=rng), torch.randn(1, 8, generator=rng)
    new = norm_matched_injection(resid, vectors, [[1]], 0.5, formula="raw")
    assert torch.allclose(new[0, 1] - resid[0, 1], 0.5 * vectors[0], atol=1e-6)


def test_the_edit_injects_at_its_columns_alone(rng):
    resid, vectors = torch.randn(2, 4, 8, generator=rng), torch.randn(3, 8, generator=rng)
    edited = InjectNormMatched(vectors, ((1, 2), (3,)), coefficient=2.0)(resid)
    assert torch.equal(edited, norm_matched_injection(resid, vectors, [[1, 2], [3]], 2.0))
    assert torch.equal(edited[0, [0, 3]], resid[0, [0, 3]])
    with pytest.raises(ValueError, match="one vector per slot"):
        InjectNormMatched(vectors, ((1,), (2,)))


def test_no_slots_change_nothing(rng):
    resid = torch.randn(1, 3, 8, generator=rng)
    assert torch.equal(inject_at(resid, torch.empty(0, 8), Slots.of([[]], n_vectors=0, batch=1)), resid)


@pytest.fixture(scope="module")
def qwen(reference):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def build(name):
        config = dict(reference[0][name]["config"])
        config.pop("architecture")
        model = Qwen3ForCausalLM._from_config(Qwen3Config(**config), attn_implementation="sdpa").eval()
        weights = {k.split(".weights.")[1]: v for k, v in reference[1].items() if k.startswith(f"{name}.weights.")}
        source = weights or {
            k.split(".weights.")[1]: v for k, v in reference[1].items() if k.startswith("model_left_pad_fp32.weights.")
        }
        model.load_state_dict(source)
        return Model(model.requires_grad_(False))

    return build


def model_case(reference, qwen, name):
    case, t = reference[0][name], {k.removeprefix(f"{name}."): v for k, v in reference[1].items()}
    return case, t, qwen(name)


@pytest.mark.parametrize("name", ["model_left_pad_fp32", "model_single_fp32"])
def test_logits_and_greedy_tokens_equal_the_original_in_a_model(reference, qwen, name):
    case, t, model = model_case(reference, qwen, name)
    ids, mask = t["input_ids"], t["attention_mask"].long()
    seen = {}
    keep = model.layout.layers[case["layer"] + 1].block.register_forward_pre_hook(
        lambda m, a, k: seen.update(resid=a[0].clone()), with_kwargs=True
    )
    with inject(model, t["vectors"], case["positions"], OracleSpec(hook_layer=case["layer"])), torch.no_grad():
        logits = model.module(input_ids=ids, attention_mask=mask).logits
    keep.remove()
    real = mask.bool()
    assert torch.allclose(seen["resid"][real], t["residual_after"][real], rtol=1e-6, atol=1e-6)
    assert torch.allclose(logits[real], t["logits_injected"][real], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[real], t["logits_base"][real], atol=1e-2)
    new = case["new_tokens"]
    jobs = [
        Job(
            OraclePrompt("", tuple(row[m].tolist()), tuple(p - int((~m).sum()) for p in at), (), int(m.sum())),
            v,
            number,
        )
        for number, (row, m, at, v) in enumerate(
            zip(ids, real, case["positions"], t["vectors"].split(case["vector_counts"]), strict=True)
        )
    ]
    made = generate(model, jobs, OracleSpec(hook_layer=case["layer"]), Decoding(max_new_tokens=new))
    assert [list(answers[0]) for answers in made] == t["generated"][:, -new:].tolist()
    assert t["generated"].tolist() != t["generated_base"].tolist()


def _greedy_by_whole_prompts(model, ids, vectors, positions, spec, n):
    """The plain path: the whole prompt again for every token, injected every time."""
    for _ in range(n):
        with inject(model, vectors, positions, spec), torch.no_grad():
            logits = model.module(input_ids=ids, use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.mark.parametrize("cuts", [(4,), (1, 3, 8), (6, 7)])
def test_chunked_prefill_injects_each_slot_once_in_the_chunk_that_holds_it(cuts, rng):
    from transformers import DynamicCache

    model, spec = Model(tiny("qwen3")), OracleSpec()
    ids = torch.randint(3, 128, (2, 10), generator=rng)
    vectors, positions = torch.randn(5, 32, generator=rng), [[2, 3, 7], [0, 6]]
    with inject(model, vectors, positions, spec), torch.no_grad():
        whole = model.module(input_ids=ids).logits
    cache, parts = DynamicCache(config=model.layout.config), []
    with inject(model, vectors, positions, spec), torch.no_grad():
        for a, b in zip((0, *cuts), (*cuts, 10), strict=True):
            parts.append(model.module(input_ids=ids[:, a:b], past_key_values=cache, use_cache=True).logits)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


def test_a_cached_continuation_is_left_alone(rng):
    from transformers import DynamicCache

    model, spec = Model(tiny("qwen3")), OracleSpec()
    ids = torch.randint(3, 128, (1, 9), generator=rng)
    vectors, cache = torch.randn(1, 32, generator=rng), DynamicCache(config=model.layout.config)
    with torch.no_grad():
        model.module(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        plain = model.module(input_ids=ids).logits[:, 4:]
        with inject(model, vectors, [[1]], spec):  # the slot is in the cached part: nothing here is to be changed
            got = [model.module(input_ids=ids[:, a:b], past_key_values=cache).logits for a, b in ((4, 8), (8, 9))]
    assert torch.allclose(torch.cat(got, dim=1), plain, atol=1e-5)


def test_a_batch_of_another_size_is_refused_and_the_hooks_are_gone(rng):
    model, spec, ids = Model(tiny("qwen3")), OracleSpec(), torch.randint(3, 128, (4, 9), generator=rng)
    plain = model.module(input_ids=ids).logits
    with (
        pytest.raises(ValueError, match="expected a pass of 2 rows, got 4"),
        inject(model, torch.randn(2, 32), [[1], [2]], spec),
    ):
        model.module(input_ids=ids)
    assert torch.equal(model.module(input_ids=ids).logits, plain)


def test_a_slot_that_no_pass_reaches_is_an_error(rng):
    model, ids = Model(tiny("qwen3")), torch.randint(3, 128, (1, 5), generator=rng)
    with pytest.raises(ValueError, match="column.* 7"), inject(model, torch.randn(1, 32), [[7]], OracleSpec()):
        model.module(input_ids=ids)


def test_names_of_slots_are_in_the_error():
    vectors = torch.zeros(2, 32)
    vectors[1, 3] = torch.nan
    with (
        pytest.raises(ValueError, match="slot 1 .item 'b', layer 4"),
        inject(Model(tiny("qwen3")), vectors, [[0, 1]], OracleSpec(), names=["item 'a'", "item 'b', layer 4"]),
    ):
        pass


def test_gradients_are_equal_with_and_without_gradient_checkpointing(rng):
    ids, vectors = torch.randint(3, 128, (2, 9), generator=rng), torch.randn(3, 32, generator=rng)
    grads = []
    for is_on in (False, True):
        module = tiny("qwen3").train().requires_grad_(True)
        if is_on:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with inject(module, vectors, [[1, 4], [8]], OracleSpec()):
            module(input_ids=ids, use_cache=False).logits.logsumexp(-1).sum().backward()
        grads.append(module.model.embed_tokens.weight.grad.clone())
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-4)
    assert grads[0].abs().max() > 0


def ragged_jobs(model, rng):
    """Three sources with 1, 3 and 5 slots, three questions each, of different lengths."""
    jobs = []
    for source, k in enumerate((1, 3, 5)):
        vectors = torch.randn(k, 32, generator=rng)
        head = torch.randint(3, 128, (6 + source + k,), generator=rng).tolist()
        for n in (2, 5, 3):
            ids = (*head, *torch.randint(3, 128, (n,), generator=rng).tolist())
            jobs.append(Job(OraclePrompt("", ids, tuple(range(4, 4 + k)), (), len(ids)), vectors, source))
    return jobs


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prefix_beams_and_ragged_batches_give_the_tokens_of_the_plain_path(family, rng):
    model, spec = Model(tiny(family)), OracleSpec()
    jobs, n = ragged_jobs(model, rng), 5
    greedy = generate(model, jobs, spec, Decoding(max_new_tokens=n))
    plain = []
    for job in jobs:
        ids = _greedy_by_whole_prompts(model, torch.tensor([job.ids]), job.vectors, [job.prompt.slots], spec, n)
        new = ids[0, len(job.ids) :].tolist()
        plain.append([tuple(new[: new.index(2)] if 2 in new else new)])
    assert greedy == plain
    beams = Decoding(max_new_tokens=n, num_beams=3, n=2)
    alone = [generate(model, [job], spec, beams, share=False)[0] for job in jobs]
    assert generate(model, jobs, spec, beams) == alone
    assert all(len(answers) == 2 for answers in alone)


def test_samples_are_reproducible_and_follow_the_vectors(rng):
    model, spec = Model(tiny("qwen3")), OracleSpec()
    jobs = ragged_jobs(model, rng)[:3]
    draw = Decoding(max_new_tokens=4, n=5, temperature=1.0, seed=3)
    assert generate(model, jobs, spec, draw) == generate(model, jobs, spec, draw)
    assert len(set(generate(model, jobs, spec, draw)[0])) > 1
    with pytest.raises(ValueError, match="5 greedy answers would be the same"):
        Decoding(n=5)


def test_the_position_ids_of_a_left_padded_batch_count_real_tokens_only():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert positions_from_mask(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
