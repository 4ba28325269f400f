"""Operators and `steer`: what each does to an activation, several directions at once, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp.cache import extract
from interp.edits import Add, ProjectOut
from interp.hooks import edit, record
from interp.model import Model
from interp.prompt import Example
from interp.site import Site
from steering import (
    AddVector,
    Directions,
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
from tests.steering_kit import D, direction
from tests.tiny import tiny, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")


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
