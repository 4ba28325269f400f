"""Operators and `steer`: what each does to an activation, and that generation is steered at the same tokens always."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from interp.cache import extract
from interp.edits import Add, ProjectOut
from interp.hooks import edit, record
from interp.model import Model
from interp.passes import pad
from interp.positions import From, Generated, Last, PromptTokens, parse_positions
from interp.prompt import Example
from interp.site import Site
from steering import (
    AddVector,
    Direction,
    Directions,
    DirectionStats,
    KeepNorm,
    RemoveSpan,
    SetCoordinate,
    difference_of_means,
    eraser,
    make_edit,
    orthonormal_rows,
    steer,
    steering_edits,
)
from tests.tiny import add_lora, tiny, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
TEXTS = [[5, 9, 77], [3, 14, 15, 92, 65, 35, 8, 97, 93], [31, 41, 59, 26, 53, 58]]
N_NEW = 6
D = 32


def direction(layer: int = 1, *, seed: int = 0, d: int = D, kind: str = "resid_post", means: bool = True) -> Direction:
    rng = torch.Generator().manual_seed(seed)
    vec, middle = torch.randn(d, generator=rng), torch.randn(d, generator=rng)
    both = torch.stack([middle + vec / 2, middle - vec / 2])
    made = Direction(vec, Site(kind, layer), "anti", "stereo", means=both if means else None)
    stats = DirectionStats(delta_norm=float(vec.norm()), resid_norm=10.0, sd_within=1.5, **made.class_projections())
    return Direction(vec, Site(kind, layer), "anti", "stereo", stats=stats, means=made.means)


# --- operators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["add", "clamp", "affine", "ablate", "ablate_everywhere"])
@pytest.mark.parametrize("keep_norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dose_of_zero_changes_no_bit(op, keep_norm: bool, dtype: torch.dtype, ids: Tensor) -> None:
    module = tiny("qwen2", dtype=dtype)
    bare = module(ids).logits
    with steer(module, direction(), 0.0, op=op, keep_norm=keep_norm, positions="all"):
        assert torch.equal(module(ids).logits, bare)
    with steer(module, direction(), 1.0, op=op, keep_norm=keep_norm, positions="all"):
        assert not torch.equal(module(ids).logits, bare)
    acts = torch.tensor([[[-0.0] * D]], dtype=dtype)
    if op != "ablate_everywhere":
        zero = make_edit([direction()], alpha=0.0, op=op, keep_norm=keep_norm)
        assert torch.equal(torch.signbit(zero(acts)), torch.signbit(acts))


def test_add_adds_the_dose_in_the_stated_unit(rng: torch.Generator) -> None:
    d, acts = direction(), torch.randn(2, 3, D, generator=rng)
    for unit, length in {"raw": 1.0, "delta": float(d.vec.norm()), "resid": 10.0, "sd": 1.5}.items():
        moved = make_edit([d], alpha=0.5, unit=unit)(acts) - acts  # type: ignore[arg-type]
        torch.testing.assert_close(moved, (0.5 * length * d.unit).expand_as(acts), rtol=1e-4, atol=1e-5)


def test_a_small_dose_is_not_lost_in_half_precision() -> None:
    """In bfloat16 the vector is summed in float32: rounding it first would add another one."""
    acts = torch.full((1, 1, 2), -1.0, dtype=torch.bfloat16)
    delta = torch.tensor([1.003, 0.5])
    want = (acts.float() + delta).bfloat16()
    assert float(want[0, 0, 0]) == pytest.approx(0.003, rel=1e-2)  # 1.003 itself rounds to 1
    assert torch.equal(AddVector(delta)(acts), want)


def test_clamp_sets_the_coordinate_to_the_class_mean_and_keeps_the_rest(rng: torch.Generator) -> None:
    d, acts = direction(), torch.randn(2, 3, D, generator=rng)
    new = make_edit([d], alpha=1.0, op="clamp")(acts)
    torch.testing.assert_close(new @ d.unit, torch.full((2, 3), d.stats.proj_toward), rtol=1e-4, atol=1e-4)
    rest = ProjectOut(d.vec[None])
    torch.testing.assert_close(rest(new), rest(acts), rtol=1e-4, atol=1e-5)
    half = SetCoordinate(d.unit, 4.0, share=0.5)(acts)
    torch.testing.assert_close(half @ d.unit, (acts @ d.unit + 4.0) / 2, rtol=1e-4, atol=1e-4)


def test_ablate_removes_the_whole_span_and_affine_moves_it_to_the_reference(rng: torch.Generator) -> None:
    several, acts = [direction(seed=s) for s in range(3)], 5 + torch.randn(2, 3, D, generator=rng)
    rows = orthonormal_rows([d.vec for d in several])
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), rtol=0, atol=1e-6)
    gone = make_edit(several, alpha=1.0, op="ablate")(acts)
    assert max(float((gone @ d.unit).abs().max()) for d in several) < 1e-5
    torch.testing.assert_close(gone, ProjectOut(torch.stack([d.vec for d in several]))(acts), rtol=1e-5, atol=1e-5)
    moved = make_edit(several[:1], alpha=1.0, op="affine")(acts)
    middle = (several[0].stats.proj_toward + several[0].stats.proj_away) / 2
    torch.testing.assert_close(moved @ several[0].unit, torch.full((2, 3), middle), rtol=1e-4, atol=1e-4)


def test_ablation_in_half_precision_does_its_dot_product_in_float32(rng: torch.Generator) -> None:
    d, acts = direction(), (20 * torch.randn(4, 8, D, generator=rng)).bfloat16()
    gone = make_edit([d], alpha=1.0, op="ablate")(acts)
    want = (acts.double() - (acts.double() @ d.unit.double())[..., None] * d.unit.double()).bfloat16()
    assert (gone != want).float().mean() < 0.01  # the two round apart only where float32 itself is on an edge


def test_keep_norm_keeps_the_length_and_the_direction_of_the_result(rng: torch.Generator) -> None:
    acts = torch.randn(2, 3, D, generator=rng)
    inner = Add(torch.ones(D), alpha=3.0)
    new = KeepNorm(inner)(acts)
    torch.testing.assert_close(new.norm(dim=-1), acts.norm(dim=-1))
    torch.testing.assert_close(torch.cosine_similarity(new, inner(acts), dim=-1), torch.ones(2, 3))


def test_the_eraser_of_known_moments_is_that_of_leace_fitted_on_examples(rng: torch.Generator) -> None:
    from probes.erase import fit_eraser

    root = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    shift = 3 * torch.randn(6, generator=rng, dtype=torch.float64)
    y = torch.arange(20_000) % 2
    rows = torch.randn(len(y), 6, generator=rng, dtype=torch.float64) @ root + y[:, None] * shift
    fitted = fit_eraser(rows, y.numpy())
    groups = [rows[y == c] for c in (0, 1)]
    within = sum(torch.cov(g.T) for g in groups) / 2
    made = eraser([groups[1].mean(0) - groups[0].mean(0)], cov=within, reference=rows.mean(dim=0))
    torch.testing.assert_close(made(rows[None, :50])[0], fitted(rows[:50]), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="positive definite"):
        eraser([shift], cov=torch.ones(6, 6), reference=shift)


def test_edits_leave_their_input_alone(rng: torch.Generator) -> None:
    acts = torch.randn(1, 4, D, generator=rng)
    for op in ("add", "clamp", "affine", "ablate"):
        before = acts.clone()
        for keep in (False, True):
            make_edit([direction()], alpha=1.0, op=op, keep_norm=keep)(acts)  # type: ignore[arg-type]
        assert torch.equal(acts, before)


def test_ablating_everywhere_is_ablating_all_that_is_written(ids: Tensor) -> None:
    """And is not the same as ablating what leaves each block, where the MLP has read what attention wrote."""
    d = direction()
    for family in ("qwen2", "llama"):
        module = tiny(family)
        bare = module(ids).logits
        with steer(module, d, op="ablate_everywhere", positions="all"):
            everywhere = module(ids).logits
        gone = ProjectOut(d.vec[None])
        with edit(module, {"embed": gone, "attn_out.*": gone, "mlp_out.*": gone}):
            written = module(ids).logits
        with steer(module, d, op="ablate", layers="all", positions="all"):
            blocks = module(ids).logits
        torch.testing.assert_close(everywhere, written, rtol=1e-4, atol=2e-4)
        assert (blocks - everywhere).abs().max() > 0.05 * (bare - everywhere).abs().max()


def test_after_ablation_everywhere_nothing_is_left_in_any_layer(family: str, ids: Tensor) -> None:
    module, d = tiny(family), direction()
    with steer(module, d, op="ablate_everywhere", positions="all"), record(module, "resid_pre.*, resid_post.*") as acts:
        module(ids)
    for site in acts:
        assert (acts[site] @ d.unit).abs().max() < 2e-5 * acts[site].norm(dim=-1).max(), site


# --- positions -----------------------------------------------------------------------------------------------------


def steered_at(module: nn.Module, positions, run) -> list[Tensor]:
    """For every pass inside the block, whether each [row, column] was changed at the site."""
    seen = []
    with record(module, "resid_post.1", stop=False) as before, steer(module, direction(2), 0.3, positions=positions):
        with record(module, "resid_post.2", stop=False) as after:
            run()
    with steer(module, direction(2), 0.0, positions=positions):
        with record(module, "resid_post.2", stop=False) as bare:
            run()
    for new, old, _ in zip(after.passes, bare.passes, before.passes, strict=True):
        site = after.sites[0]
        seen.append((new.acts[site] != old.acts[site]).any(dim=-1))
    return seen


@pytest.mark.parametrize(
    ("positions", "prompt", "step"),
    [
        ("last", [0, 0, 0, 0, 1], 0),
        ("generated", [0, 0, 0, 0, 1], 1),
        ("prompt", [0, 0, 1, 1, 1], 0),
        ("from:1", [0, 0, 0, 1, 1], 1),
        ("from:3", [0, 0, 0, 0, 0], 1),
        (Last(), [0, 0, 0, 0, 1], 1),
        ([[1], []], [0, 0, 0, 1, 0], 0),
        (torch.tensor([[True, False, True, False, False], [True] * 5]), [0, 0, 1, 0, 0], 0),
    ],
    ids=str,
)
def test_positions_mean_the_same_tokens_in_prefill_and_at_every_step(positions, prompt: list[int], step: int) -> None:
    """Row 0 has three tokens behind two pads; the second text is there to make them. Decoded by hand, with a cache."""
    module = tiny("qwen2")
    batch = pad([TEXTS[0], TEXTS[1][:5]], side="left")

    def run() -> None:
        mask, at = batch.attention_mask, batch.position_ids
        assert mask is not None and at is not None
        past = module(**batch.kwargs, use_cache=True).past_key_values
        for k in range(2):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
            new = torch.tensor([[11], [12]])
            module(new, attention_mask=mask, position_ids=at[:, -1:] + 1 + k, past_key_values=past)

    first, *steps = steered_at(module, positions, run)
    first[:, :2] &= batch.attention_mask[:, :2].bool()  # whatever stands at a pad does not matter
    assert first[0].int().tolist() == prompt
    assert [int(s[0, 0]) for s in steps] == [step, step]


def naive(module: nn.Module, text: list[int], d: Direction, alpha: float, positions: str) -> list[int]:
    """Greedy decoding of one text by whole passes, with a hook written out by hand: the meaning of `positions`."""
    ids, n = list(text), len(text)
    delta = alpha * d.scale("resid") * d.unit
    block = Model.wrap(module).layout.layers[d.site.layer].block

    def hook_for(width: int):
        def hook(mod, args, out):
            resid = (out[0] if isinstance(out, tuple) else out).clone()
            chosen = {"generated": range(n - 1, width), "last": range(n - 1, n), "prompt": range(n),
                      "all": range(width), "from:2": range(2, width)}[positions]  # fmt: skip
            resid[:, list(chosen)] += delta
            return (resid, *out[1:]) if isinstance(out, tuple) else resid

        return hook

    for _ in range(N_NEW):
        handle = block.register_forward_hook(hook_for(len(ids)))
        with torch.no_grad():
            ids.append(int(module(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        handle.remove()
    return ids[n:]


def generated(module: nn.Module, texts: list[list[int]], **options) -> list[list[int]]:
    batch = pad(texts, side="left")
    settings = dict(max_new_tokens=N_NEW, min_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
    out = module.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **settings | options)
    return out[:, batch.input_ids.shape[1] :].tolist()


@pytest.mark.parametrize("positions", ["generated", "last", "prompt", "all", "from:2"])
def test_generate_is_steered_at_the_same_tokens_with_and_without_cache_and_in_any_batch(positions: str) -> None:
    """The faults that others have here: decode steps left out, only the first row steered, pads counted as text."""
    module, d = tiny("qwen2"), direction()
    want = [naive(module, text, d, 1.5, positions) for text in TEXTS]
    assert want != [naive(module, text, d, 0.0, positions) for text in TEXTS]
    with steer(module, d, 1.5, positions=positions):
        for use_cache in (True, False):
            assert generated(module, TEXTS, use_cache=use_cache) == want
            assert [generated(module, [text], use_cache=use_cache)[0] for text in TEXTS] == want


def test_the_choices_of_positions_differ_in_what_is_written() -> None:
    module, d = tiny("qwen2"), direction()
    written = {p: [naive(module, text, d, 1.5, p) for text in TEXTS] for p in ("generated", "last", "prompt", "all")}
    assert len({str(w) for w in written.values()}) == 4


def test_generate_is_steered_alike_in_every_family(family: str) -> None:
    module, d = tiny(family), direction()
    want = [naive(module, text, d, 1.5, "generated") for text in TEXTS[:2]]
    with steer(module, d, 1.5, positions="generated"):
        assert [generated(module, [text])[0] for text in TEXTS[:2]] == want
        assert [generated(module, [text], use_cache=False)[0] for text in TEXTS[:2]] == want
        assert generated(module, TEXTS[:2]) == want
    assert generated(module, TEXTS[:1])[0] != want[0]


@pytest.mark.parametrize("positions", ["generated", "last", [[2], [0, 3], [5]]], ids=str)
def test_beams_of_a_batch_are_steered_as_each_text_alone(positions) -> None:
    module, d = tiny("qwen2"), direction()
    options = dict(num_beams=3, num_return_sequences=2)
    alone = []
    for i, text in enumerate(TEXTS):
        own = positions if isinstance(positions, str) else [positions[i]]
        with steer(module, d, 1.5, positions=own):
            alone += generated(module, [text], **options)
    with steer(module, d, 1.5, positions=positions):
        assert generated(module, TEXTS, **options) == alone
        assert generated(module, TEXTS, use_cache=False, **options) == alone
    assert generated(module, TEXTS, **options) != alone


def test_a_mask_over_prompt_columns_steers_beams_and_not_what_is_written() -> None:
    module, d = tiny("qwen2"), direction()
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 8], mask[1, 0], mask[1, 3], mask[2, 8] = True, True, True, True
    lists = [[2], [0, 3], [5]]  # the same tokens, counted from the first real one
    with steer(module, d, 1.5, positions=lists):
        want = generated(module, TEXTS, num_beams=2)
    with steer(module, d, 1.5, positions=mask):
        assert generated(module, TEXTS, num_beams=2) == want
        assert generated(module, TEXTS, num_beams=2, use_cache=False) == want


def test_a_static_cache_does_not_lose_the_padding() -> None:
    module, d = tiny("qwen2"), direction()
    with steer(module, d, 1.5, positions=[[0], [4], [1]]):
        want = generated(module, TEXTS)
        assert generated(module, TEXTS, cache_implementation="static") == want


def test_generate_of_an_adapted_model_is_steered() -> None:
    module, d = add_lora(tiny("qwen2")), direction()
    want = [naive(module, text, d, 1.5, "generated") for text in TEXTS]
    with steer(module, d, 1.5):
        assert generated(module, TEXTS) == want


def test_a_second_prompt_in_one_block_is_a_prompt_again() -> None:
    module, d = tiny("qwen2"), direction()
    want = [naive(module, text, d, 1.5, "last") for text in TEXTS]
    with steer(module, d, 1.5, positions="last"):
        assert [generated(module, [text])[0] for text in (*TEXTS, *TEXTS)] == want * 2


def test_where_a_prompt_given_in_pieces_ends_is_asked_and_not_guessed() -> None:
    module = tiny("qwen2")
    text = torch.tensor([TEXTS[1]])
    with steer(module, direction(), 0.5, positions="last"):
        past = module(text[:, :4], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="the prompt came in several passes"):
            module(text[:, 4:], past_key_values=past)
    with steer(module, direction(), 0.5, positions="from:6"):
        past = module(text[:, :4], use_cache=True).past_key_values
        pieces = module(text[:, 4:], past_key_values=past).logits
        torch.testing.assert_close(pieces, module(text).logits[:, 4:], rtol=1e-4, atol=1e-4)


def test_generate_is_the_models_own_again_after_the_block() -> None:
    module = tiny("qwen2")
    with pytest.raises(ZeroDivisionError), steer(module, direction(), 0.5), steer(module, direction(), 0.5):
        raise ZeroDivisionError
    assert "generate" not in vars(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    with steer(module, direction(), 0.5), pytest.raises(ValueError, match="expected a prompt"):
        module.generate(max_new_tokens=2)


def test_new_rules_have_names_that_parse() -> None:
    for rule in (Generated(), PromptTokens(), From(7)):
        assert parse_positions(rule.name) == [rule]
    with pytest.raises(ValueError, match="Did you mean 'generated'"):
        parse_positions("generate")


# --- reading and writing in one space ------------------------------------------------------------------------------


def test_the_last_layer_is_read_where_it_is_steered_and_not_behind_the_final_norm(tmp_path: Path) -> None:
    """A fault seen elsewhere: hidden_states[-1] has passed the final norm, so its differences live in another space."""
    tokenizer = tiny_tokenizer()
    module = tiny("qwen2", vocab_size=len(tokenizer))
    texts = [f"the quick brown fox {i} {'jumps' if i % 2 else 'lazy'}" for i in range(20)]
    examples = [Example(f"e{i}", (), text=t, label="ab"[i % 2], groups={"g": str(i)}) for i, t in enumerate(texts)]
    cache = extract(Model.wrap(module, tokenizer), examples, out=tmp_path, sites="resid_post.2", progress=False)
    d = difference_of_means(cache, toward="b", away_from="a", site="resid_post.2")
    plain, normed = [], []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with record(module, "resid_post.2", stop=False) as acts:
            out = module(ids, output_hidden_states=True)
        plain.append(acts["resid_post.2"][0, -1])
        normed.append(out.hidden_states[-1][0, -1])
    diff, behind = (torch.stack(x)[1::2].mean(0) - torch.stack(x)[0::2].mean(0) for x in (plain, normed))
    torch.testing.assert_close(d.vec, diff, rtol=1e-4, atol=1e-5)
    assert torch.cosine_similarity(d.vec, behind, dim=0) < 0.99
    with steer(module, d, 1.0, unit="raw", positions="last"), record(module, "resid_post.2", stop=False) as acts:
        module(ids)
    torch.testing.assert_close(acts["resid_post.2"][0, -1] - plain[-1], d.unit, rtol=1e-4, atol=1e-5)


# --- several directions, refusals ----------------------------------------------------------------------------------


def test_each_direction_of_several_layers_acts_at_its_own(ids: Tensor) -> None:
    module = tiny("qwen2")
    held = Directions({Site("resid_post", layer): direction(layer, seed=layer) for layer in (0, 2)})
    with steer(module, held, 0.3, positions="all"):
        both = module(ids).logits
    with steer(module, held["resid_post.0"], 0.3, positions="all"):
        with steer(module, held["resid_post.2"], 0.3, positions="all"):
            torch.testing.assert_close(module(ids).logits, both)
    assert set(steering_edits(Model.wrap(module), held, 0.3, layers=[1])) == {Site("resid_post", 1)}


def test_what_cannot_act_is_refused_before_any_hook_is_placed() -> None:
    module = tiny("qwen2")
    cases = [
        (dict(direction=direction(), alpha=None), "needs a strength"),
        (dict(direction=direction(), alpha=float("nan")), "expected a finite number"),
        (dict(direction=direction(5), alpha=0.1), r"the model has 3 layers \(0-2\)"),
        (dict(direction=direction(d=48), alpha=0.1), "has 48 components"),
        (dict(direction=direction(), alpha=0.1, layers=[3]), "has layers 0-2, got 3"),
        (dict(direction=[], alpha=0.1), "at least one, got none"),
        (dict(direction=[direction(seed=1), direction(seed=2)], op="clamp"), "sets one coordinate"),
        (dict(direction=direction(means=False), op="clamp"), "is not known"),
        (dict(direction=direction(means=False), op="affine"), "needs the class means"),
        (dict(direction=direction(), alpha=0.1, positions="middle"), "is not a rule"),
        (dict(direction=direction(), alpha=0.1, positions="last:2, all"), "expected one rule, got 2"),
        (dict(direction=direction(), op="ablate_everywhere", layers="all"), "leave layers out"),
    ]
    for options, said in cases:
        with pytest.raises(ValueError, match=said), steer(module, **options):
            raise AssertionError(f"{said}: nothing was refused")
        assert not any(m._forward_hooks for m in module.modules())


def test_steering_says_when_the_direction_comes_from_elsewhere(ids: Tensor) -> None:
    from steering import OtherCheckpointWarning

    with pytest.warns(OtherCheckpointWarning, match="cannot be checked"), steer(tiny("qwen2"), direction(), 0.1):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steering_edits(Model.wrap(tiny("qwen2")), direction(), 0.1)


def test_an_eraser_is_an_edit_like_any_other(ids: Tensor) -> None:
    module, rows = tiny("qwen2"), orthonormal_rows([direction().vec])
    with edit(module, {"resid_post.1": RemoveSpan(rows, rows, torch.zeros(D))}):
        with record(module, "resid_post.1") as acts:
            module(ids)
    assert (acts["resid_post.1"] @ rows.T).abs().max() < 1e-5
