"""Directions: units of the dose, orthogonalization in three metrics, files, and whom a direction may act on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp.checkpoint import Checkpoint, Fingerprint
from interp.model import Model
from interp.site import Site
from steering import Direction, Directions, DirectionStats, ShortResidueWarning, orthogonalize, remove_span
from tests.tiny import add_lora, tiny

D = 64
SITE = Site("resid_post", 1)


def direction(vec: Tensor, *, site: Site = SITE, **options) -> Direction:
    stats = DirectionStats(delta_norm=float(vec.norm()), resid_norm=40.0, sd_within=2.0, d_prime=3.0, n_toward=10)
    return Direction(vec, site, "anti", "stereo", **{"stats": stats, "position": "last", **options})


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


# --- orthogonalization ---------------------------------------------------------------------------------------------


def test_nothing_is_left_along_the_span_and_a_second_time_changes_nothing(rng: torch.Generator) -> None:
    v, span = torch.randn(D, generator=rng), torch.randn(5, D, generator=rng)
    out = remove_span(v, span)
    assert max(map(abs, out.cosine_after)) < 1e-14
    torch.testing.assert_close(remove_span(out.vec, span).vec, out.vec, rtol=1e-12, atol=1e-12)
    q = torch.linalg.qr(span.double().T)[0]
    torch.testing.assert_close(out.vec, v.double() - q @ (q.T @ v.double()), rtol=1e-12, atol=1e-12)
    assert out.kept == pytest.approx(float(out.vec.norm() / v.norm())) and out.rank == 5


def test_subtracting_raw_projections_one_after_the_other_leaves_a_component(rng: torch.Generator) -> None:
    """A fault seen elsewhere: nuisances are not orthogonal to each other, so a later step undoes an earlier one."""
    common = torch.randn(D, generator=rng, dtype=torch.float64)
    span = torch.randn(3, D, generator=rng, dtype=torch.float64) + common
    v = torch.randn(D, generator=rng, dtype=torch.float64) + common
    wrong = v.clone()
    for n in span:
        wrong = wrong - (wrong @ n) / (n @ n) * n
    assert max(abs(cosine(wrong, n)) for n in span) > 1e-2
    assert max(abs(cosine(remove_span(v, span).vec, n)) for n in span) < 1e-14


def test_a_near_duplicate_removes_one_direction_and_not_the_noise_between(rng: torch.Generator) -> None:
    """QR keeps a third column that is only the difference of two estimates of one nuisance."""
    v, a, b, noise = torch.randn(4, D, generator=rng, dtype=torch.float64)
    twice = torch.stack([a, b, b + 1e-6 * noise])
    out = remove_span(v, twice)
    torch.testing.assert_close(out.vec, remove_span(v, twice[:2]).vec, rtol=1e-5, atol=1e-5)
    assert (out.rank, out.n_dropped) == (2, 1)
    q = torch.linalg.qr(twice.T)[0]
    by_qr = v - q @ (q.T @ v)
    assert float(by_qr.norm() / v.norm()) < out.kept - 0.001
    assert remove_span(v, twice, rtol=1e-9).rank == 3


def test_ridge_removes_softly_by_the_stated_formula(rng: torch.Generator) -> None:
    v, n = torch.randn(2, D, generator=rng, dtype=torch.float64)
    unit = n / n.norm()
    out = remove_span(v, n[None], ridge=1.0)
    torch.testing.assert_close(out.vec, v - unit * (unit @ v) / 2)
    assert abs(out.cosine_after[0]) < abs(out.cosine_before[0]) and out.cosine_after[0] * out.cosine_before[0] > 0
    torch.testing.assert_close(remove_span(v, n[None], ridge=1e-12).vec, remove_span(v, n[None]).vec)


def covariance(rng: torch.Generator, d: int = D) -> Tensor:
    root = torch.randn(d, d, generator=rng, dtype=torch.float64) * torch.linspace(0.2, 3, d, dtype=torch.float64)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def test_in_the_covariance_metric_scores_become_uncorrelated(rng: torch.Generator) -> None:
    cov, v, span = covariance(rng), torch.randn(D, generator=rng), torch.randn(3, D, generator=rng)
    out = remove_span(v, span, metric="cov", cov=cov)
    rows = torch.randn(200_000, D, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(cov).T
    before = torch.corrcoef(torch.stack([rows @ v.double(), rows @ span[0].double()]))[0, 1]
    after = torch.corrcoef(torch.stack([rows @ out.vec, rows @ span[0].double()]))[0, 1]
    assert max(map(abs, out.product_after)) < 1e-12 and abs(after) < 0.01 < 0.03 < abs(before)
    assert max(map(abs, out.cosine_after)) > 1e-3


def test_in_the_leace_metric_the_best_linear_readout_of_the_nuisance_does_not_move(rng: torch.Generator) -> None:
    from probes.erase import fit_eraser

    cov, v, n = covariance(rng, 12), *torch.randn(2, 12, generator=rng, dtype=torch.float64)
    out = remove_span(v, n[None], metric="leace", cov=cov)
    assert abs(float(out.vec @ torch.linalg.solve(cov, n))) < 1e-10
    rows = torch.randn(40_000, 12, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(cov).T
    y = torch.arange(len(rows)) % 2
    rows = rows + y[:, None] * n
    eraser = fit_eraser(rows, y.numpy())
    erased = eraser((eraser.mean + v)[None])[0] - eraser.mean
    assert cosine(out.vec, erased) > 0.999


def test_an_emptied_direction_is_an_error_and_a_short_one_a_warning(rng: torch.Generator) -> None:
    a, b = torch.randn(2, D, generator=rng)
    with pytest.raises(ValueError, match=r"in the span of against\[0\], against\[1\]"):
        remove_span(2 * a - b, torch.stack([a, b]))
    with pytest.warns(ShortResidueWarning, match="of the direction is left"):
        out = remove_span(a + 0.01 * b, a[None])
    assert out.kept < 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(against=torch.zeros(0, D)), "at least one direction"),
        (dict(against=torch.zeros(1, D)), r"against\[0\]: expected a finite vector other than zero"),
        (dict(against=[torch.ones(5)]), r"against\[0\]: expected a vector of width 64, got shape \(5,\)"),
        (dict(metric="cov"), "needs the covariance"),
        (dict(cov=torch.eye(D)), "takes no covariance"),
        (dict(metric="leace", cov=torch.ones(D, D)), "expected a positive definite matrix"),
        (dict(ridge=-1.0), "ridge >= 0"),
        (dict(rtol=2.0), "0 < rtol < 1"),
    ],
)
def test_what_cannot_be_removed_is_said(options, said) -> None:
    given = {"against": torch.eye(D)[:2], **options}
    with pytest.raises(ValueError, match=said):
        remove_span(torch.ones(D), given.pop("against"), **given)


def test_an_orthogonalized_direction_adds_the_norm_of_the_original(rng: torch.Generator) -> None:
    v, n, other = torch.randn(3, D, generator=rng)
    means = torch.stack([v, torch.zeros(D)]) + 1.0
    d = direction(v, means=means, name="bias")
    w = orthogonalize(d, against=[direction(n, name="abstain"), n + other])
    assert abs(cosine(w.vec, n)) < 1e-6 and w.removed is not None and w.removed.kept < 1
    for unit in ("raw", "delta", "resid", "sd"):
        assert w.scale(unit) == d.scale(unit)
    assert float(w.unit.norm()) == pytest.approx(1.0, abs=1e-6)
    assert w.label == "bias without abstain, against[1]" and w.stats.d_prime != w.stats.d_prime
    assert w.stats.proj_toward == pytest.approx(float(means[0] @ w.unit), abs=1e-4)
    report = w.report()
    assert f"kept {w.removed.kept:.4f}" in report and "cosine with abstain" in report


def test_directions_of_other_layers_are_not_removed(rng: torch.Generator) -> None:
    v, n = torch.randn(2, D, generator=rng)
    with pytest.raises(ValueError, match="it was fitted at resid_post.2, the direction at resid_post.1"):
        orthogonalize(direction(v), [direction(n, site=Site("resid_post", 2))])


def test_tensors_give_a_residue(rng: torch.Generator) -> None:
    v, n = torch.randn(2, D, generator=rng)
    assert torch.equal(orthogonalize(v, [n]).vec, remove_span(v, [n]).vec)
    assert "1 of 1 directions removed (euclidean, exact)" in orthogonalize(v, [n]).report()


# --- doses ---------------------------------------------------------------------------------------------------------


def test_a_dose_is_the_same_length_in_every_unit(rng: torch.Generator) -> None:
    d = direction(torch.randn(D, generator=rng))
    same = d.equivalents(0.1, "resid")
    assert same["resid"] == pytest.approx(0.1) and same["raw"] == pytest.approx(4.0) and same["sd"] == pytest.approx(2)
    for unit, alpha in same.items():
        assert alpha * d.scale(unit) == pytest.approx(4.0)  # type: ignore[arg-type]


def test_the_unit_vector_has_length_one_however_small_the_difference() -> None:
    for factor in (1e-20, 1e-3, 1e15):
        vec = factor * torch.ones(D)
        assert float(Direction(vec, SITE, "a", "b").unit.double().norm()) == pytest.approx(1.0, abs=1e-6)


def test_reversed_exchanges_the_classes_and_back() -> None:
    d = direction(torch.arange(D).float(), means=torch.stack([torch.arange(D).float(), torch.zeros(D)]))
    d = replace(d, stats=replace(d.stats, **d.class_projections(), n_toward=3, n_away=5))
    turned = d.reversed()
    assert torch.equal(turned.vec, -d.vec) and (turned.toward, turned.stats.n_toward) == ("stereo", 5)
    assert turned.class_projections()["proj_toward"] == pytest.approx(turned.stats.proj_toward)
    assert torch.equal(turned.reversed().vec, d.vec) and turned.reversed().stats == d.stats


@pytest.mark.parametrize(
    ("vec", "toward", "said"),
    [
        (torch.zeros(4), "anti", "other than zero"),
        (torch.tensor([1.0, float("nan")]), "anti", "other than zero"),
        (torch.ones(4), "stereo", "the sign of alpha has a meaning"),
        (torch.ones(4), "", "the sign of alpha has a meaning"),
    ],
)
def test_a_direction_without_length_or_sign_is_refused(vec, toward, said) -> None:
    with pytest.raises(ValueError, match=said):
        Direction(vec, SITE, toward, "stereo")


# --- files ---------------------------------------------------------------------------------------------------------


def saved(folder: Path) -> tuple[Path, Direction]:
    rng = torch.Generator().manual_seed(3)
    vec, means, other = torch.randn(D, generator=rng), torch.randn(2, D, generator=rng), torch.randn(D, generator=rng)
    d = direction(vec, means=means, name="bias", provenance={"checkpoint": "tiny", "tokens": {" ?": 3}, "seed": 0})
    w = orthogonalize(d, [other])
    return w.save(folder / "d.safetensors"), w


def test_a_direction_comes_back_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path, w = saved(tmp_path)
    back = Direction.load(path)
    assert torch.equal(back.vec, w.vec) and back.means is not None and torch.equal(back.means, w.means)
    for name in ("site", "toward", "away_from", "position", "name"):
        assert getattr(back, name) == getattr(w, name)
    assert dict(back.provenance) == dict(w.provenance) and back.report() == w.report()
    assert repr(back.stats) == repr(w.stats)


def test_every_layer_goes_into_one_file_and_one_table(tmp_path: Path, rng: torch.Generator) -> None:
    sites = [Site("resid_post", layer) for layer in (2, 10)]
    held = Directions({site: direction(torch.randn(D, generator=rng), site=site) for site in sites})
    back = Directions.load(held.save(tmp_path / "all.safetensors"))
    assert list(back) == sites
    assert all(torch.equal(back[s].vec, held[s].vec) for s in sites)
    table = back.table()
    assert table.layer.tolist() == [2, 10] and table.delta_norm.tolist() == [held[s].stats.delta_norm for s in sites]
    assert torch.equal(Direction.load(tmp_path / "all.safetensors", "resid_post.10").vec, held[sites[1]].vec)
    with pytest.raises(ValueError, match=r"has 2 directions; select one with site=: resid_post.2, resid_post.10"):
        Direction.load(tmp_path / "all.safetensors")
    with pytest.raises(ValueError, match=r"no direction at resid_post.3; sites: resid_post.2, resid_post.10"):
        back["resid_post.3"]


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    other = direction(torch.ones(D)).save(tmp_path / "other.safetensors")
    (tmp_path / "d.json").write_bytes((tmp_path / "other.json").read_bytes())
    with pytest.raises(ValueError, match=r"does not describe the vectors in d.safetensors"):
        Direction.load(path)
    (tmp_path / "other.json").unlink()
    with pytest.raises(ValueError, match=r"other.json is missing"):
        Direction.load(other)
    (tmp_path / "other.json").write_text(json.dumps({"format": "something"}))
    with pytest.raises(ValueError, match="expected format 'diptych-directions'"):
        Direction.load(other)
    with pytest.raises(ValueError, match=r"expected a name ending in .safetensors"):
        direction(torch.ones(D)).save(tmp_path / "d.pt")
    with pytest.raises(ValueError, match="no folder"):
        direction(torch.ones(D)).save(tmp_path / "no" / "d.safetensors")


# --- whom it acts on -----------------------------------------------------------------------------------------------


def fingerprint(**options) -> Fingerprint:
    return Fingerprint("c", "w", "t", **options)


def test_it_says_when_it_acts_on_another_checkpoint_and_refuses_another_width() -> None:
    module = tiny("qwen2")
    origin = {"checkpoint": "engaged", "model": {"weights_sha256": "w", "adapter_sha256": "a1"}}
    d = direction(torch.ones(32), provenance=origin)

    def said(**options) -> str | None:
        lora = add_lora(tiny("qwen2"), name="other")
        print_ = fingerprint(adapters={"other": options.pop("adapter", "a1")})
        model = Model(lora, checkpoint=Checkpoint("here", "base"), fingerprint=replace(print_, **options))
        return d.check_acts_on(model)

    assert said() is None
    assert "a sibling on the same base weights" in str(said(adapter="a2"))
    assert "which has different base weights" in str(said(weights_sha256="w2"))
    assert "cannot be checked" in str(d.check_acts_on(module))
    with pytest.raises(ValueError, match="has 32 components, Qwen2ForCausalLM a residual stream of 48"):
        d.check_acts_on(tiny("qwen2", hidden_size=48))
    with pytest.raises(ValueError, match=r"the model has 3 layers \(0-2\)"):
        replace(d, site=Site("resid_post", 7)).check_acts_on(module)
