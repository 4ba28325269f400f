"""Difference of means: the planted direction is found, by design and not by accident, and what is refused says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steering import (
    Direction,
    Directions,
    Moments,
    SignNotConfirmedWarning,
    confirmed,
    difference_of_means,
    direction_along,
    pooled_covariance,
    within_covariance,
)
from tests.steering_kit import cache_of

D = 48


def unit(v: Tensor) -> Tensor:
    return v.double() / v.double().norm()


def planted(
    n: int, *, seed: int = 0, gap: float = 4.0, share: float = 0.5, letter: float = 0.0
) -> tuple[Tensor, list[str], dict[str, list[str]], list[str], Tensor, Tensor]:
    """Rows = noise + class · gap/2 · e + letter · 3 · f; with `letter` the class goes with it (a confound)."""
    rng = torch.Generator().manual_seed(seed)
    e, f = torch.linalg.qr(torch.randn(D, 2, generator=rng))[0].T
    is_plus = torch.rand(n, generator=rng) < share
    says_a = torch.where(torch.rand(n, generator=rng) < letter, is_plus, torch.rand(n, generator=rng) < 0.5)
    feats = torch.randn(n, D, generator=rng) + 5.0
    feats += gap / 2 * (2 * is_plus.float() - 1)[:, None] * e + 3.0 * (2 * says_a.float() - 1)[:, None] * f
    labels = ["anti" if p else "stereo" for p in is_plus.tolist()]
    groups = {"story": [f"s{i // 4}" for i in range(n)]}
    return feats, labels, groups, ["A" if a else "B" for a in says_a.tolist()], e, f


def fitted(folder: Path, n: int = 600, *, dtype: torch.dtype = torch.float32, **options) -> tuple[Direction, tuple]:
    made = planted(n, **{k: options.pop(k) for k in ("seed", "gap", "share", "letter") if k in options})
    feats, labels, groups, letters, *_ = made
    cache = cache_of(folder, {"resid_post.3": feats.to(dtype)}, labels, groups=groups, metadata={"letter": letters})
    return difference_of_means(cache, toward="anti", away_from="stereo", site="resid_post.3", **options), made


# --- moments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_moments_of_blocks_merge_into_those_of_all_rows(full: bool, rng: torch.Generator) -> None:
    feats = 1e4 + torch.randn(101, 7, generator=rng, dtype=torch.float64)
    blocks = [Moments.of(part, full=full) for part in feats.split([1, 0, 40, 60])]
    merged = blocks[0] + blocks[1] + (blocks[2] + blocks[3])
    assert merged.n == 101
    torch.testing.assert_close(merged.mean, feats.mean(dim=0), rtol=1e-13, atol=0)
    want = (feats - feats.mean(dim=0)).T @ (feats - feats.mean(dim=0))
    torch.testing.assert_close(merged.scatter, want if full else want.diagonal(), rtol=1e-9, atol=1e-9)


def test_pooled_covariance_is_that_of_rows_around_their_own_class_mean(rng: torch.Generator) -> None:
    a, b = torch.randn(30, 5, generator=rng), torch.randn(50, 5, generator=rng) + 9
    got = pooled_covariance([Moments.of(x, full=True) for x in (a, b)], shrinkage=0.0)
    want = (29 * torch.cov(a.double().T) + 49 * torch.cov(b.double().T)) / 78
    torch.testing.assert_close(got, want)
    shrunk = pooled_covariance([Moments.of(x, full=True) for x in (a, b)], shrinkage=0.25)
    torch.testing.assert_close(shrunk.diagonal().mean(), want.diagonal().mean())
    torch.testing.assert_close(shrunk[0, 1], 0.75 * want[0, 1])


def test_moments_refuse_what_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="full=True on both sides"):
        Moments.of(torch.ones(3, 2)) + Moments.of(torch.ones(3, 2), full=True)
    with pytest.raises(ValueError, match="whole scatter"):
        pooled_covariance([Moments.of(torch.ones(3, 2))])
    with pytest.raises(ValueError, match="from 0 to 1"):
        pooled_covariance([Moments.of(torch.ones(3, 2), full=True)], shrinkage=2.0)


# --- the vector ----------------------------------------------------------------------------------------------------


def test_a_planted_direction_is_recovered(tmp_path: Path) -> None:
    d, (_, _, _, _, e, _) = fitted(tmp_path, 4000, gap=4.0)
    assert unit(d.vec) @ e.double() > 0.99
    assert d.stats.split_half_cosine > 0.95 and d.stats.held_out_gap > 3.5
    assert d.toward == "anti" and d.away_from == "stereo" and d.position == "last"


def test_unequal_unpaired_classes_give_the_difference_of_their_means(tmp_path: Path) -> None:
    d, (feats, labels, *_) = fitted(tmp_path, 400, share=0.2)
    plus = np.array([label == "anti" for label in labels])
    want = feats.double()[plus].mean(dim=0) - feats.double()[~plus].mean(dim=0)
    torch.testing.assert_close(d.vec.double(), want, rtol=1e-6, atol=1e-6)
    assert (d.stats.n_toward, d.stats.n_away) == (plus.sum(), (~plus).sum()) and plus.sum() < 120


def test_stored_half_precision_is_summed_in_float64(tmp_path: Path) -> None:
    d, (feats, labels, *_) = fitted(tmp_path, 400, dtype=torch.bfloat16)
    plus = np.array([label == "anti" for label in labels])
    held = feats.bfloat16().double()
    torch.testing.assert_close(d.vec, (held[plus].mean(dim=0) - held[~plus].mean(dim=0)).float())


def test_strata_remove_the_letter_that_goes_with_the_class(tmp_path: Path) -> None:
    plain, (*_, e, f) = fitted(tmp_path / "a", 3000, letter=0.7)
    balanced, _ = fitted(tmp_path / "b", 3000, letter=0.7, balance="strata", strata="letter")
    assert abs(unit(plain.vec) @ f.double()) > 0.6
    assert abs(unit(balanced.vec) @ f.double()) < 0.05 and unit(balanced.vec) @ e.double() > 0.99
    assert (balanced.stats.n_strata, balanced.stats.n_strata_skipped) == (2, 0)


@pytest.mark.parametrize("weighting", ["harmonic", "uniform"])
def test_stratum_weights_are_as_the_formula_says(tmp_path: Path, weighting) -> None:
    feats = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    labels = (["anti"] * 3 + ["stereo"] * 5) + (["anti"] * 10 + ["stereo"] * 2) + ["anti"] * 20
    strata = ["x"] * 8 + ["y"] * 12 + ["alone"] * 20
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups={"g": [str(i) for i in range(40)]},
                     metadata={"s": strata})  # fmt: skip
    d = difference_of_means(
        cache, toward="anti", away_from="stereo", site="resid_post.0", balance="strata", strata="s", groups=None,
        weighting=weighting, check_sign=False,
    )  # fmt: skip
    x = feats.double()
    in_x, in_y = x[:3].mean(0) - x[3:8].mean(0), x[8:18].mean(0) - x[18:20].mean(0)
    w = {"harmonic": (15 / 8, 20 / 12), "uniform": (1.0, 1.0)}[weighting]
    torch.testing.assert_close(d.vec.double(), (w[0] * in_x + w[1] * in_y) / sum(w), rtol=1e-6, atol=1e-6)
    assert (d.stats.n_strata, d.stats.n_strata_skipped) == (2, 1)
    want = np.mean([float(unit(part) @ unit(d.vec)) for part in (in_x, in_y)])
    assert d.stats.pair_agreement == pytest.approx(want, abs=1e-5)


def test_a_side_of_several_classes_weighs_them_equally_when_classes_balance(tmp_path: Path) -> None:
    feats = torch.randn(60, 6, generator=torch.Generator().manual_seed(2))
    labels = ["U"] * 20 + ["S"] * 30 + ["N"] * 10
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups={"g": [str(i) for i in range(60)]})
    options = dict(toward="U", away_from=["S", "N"], site="resid_post.0", groups=None, check_sign=False)
    x = feats.double()
    each = difference_of_means(cache, balance="classes", **options)
    torch.testing.assert_close(
        each.vec.double(), x[:20].mean(0) - (x[20:50].mean(0) + x[50:].mean(0)) / 2, rtol=1e-6, atol=1e-6
    )
    pooled = difference_of_means(cache, balance="none", **options)
    torch.testing.assert_close(pooled.vec.double(), x[:20].mean(0) - x[20:].mean(0), rtol=1e-6, atol=1e-6)
    assert each.away_from == "S+N"


def test_an_example_with_several_tokens_counts_by_their_mean(tmp_path: Path) -> None:
    feats = torch.randn(60, 3, 6, generator=torch.Generator().manual_seed(3))
    labels = ["a", "b"] * 30
    cache = cache_of(
        tmp_path, {"resid_post.0": feats}, labels, groups={"g": [str(i // 2) for i in range(60)]}, n_tokens=3
    )
    d = difference_of_means(cache, toward="a", away_from="b", site="resid_post.0", check_sign=False)
    pooled = feats.double().mean(dim=1)
    torch.testing.assert_close(d.vec.double(), pooled[0::2].mean(0) - pooled[1::2].mean(0), rtol=1e-6, atol=1e-6)
    along = pooled @ unit(d.vec)
    want = ((along[0::2].var() * 29 + along[1::2].var() * 29) / 58).sqrt()
    assert d.stats.sd_within == pytest.approx(float(want), rel=1e-5)


# --- statistics ----------------------------------------------------------------------------------------------------


def test_statistics_equal_those_computed_from_all_rows_at_once(tmp_path: Path) -> None:
    d, (feats, labels, groups, *_) = fitted(tmp_path, 400, gap=2.0)
    plus = np.array([label == "anti" for label in labels])
    x, s = feats.double(), d.stats
    along = (x @ unit(d.vec)).numpy()
    sd = np.sqrt((plus.sum() - 1) * along[plus].var(ddof=1) + ((~plus).sum() - 1) * along[~plus].var(ddof=1))
    sd /= np.sqrt(len(plus) - 2)
    assert s.delta_norm == pytest.approx(float(d.vec.norm()), rel=1e-6)
    assert s.sd_within == pytest.approx(sd, rel=1e-5) and s.d_prime == pytest.approx(s.delta_norm / sd, rel=1e-5)
    assert (s.proj_toward, s.proj_away) == pytest.approx((along[plus].mean(), along[~plus].mean()), rel=1e-5)
    assert s.resid_norm == pytest.approx(float(x.norm(dim=1).mean()), rel=1e-6)
    assert s.resid_norm_toward == pytest.approx(float(x[plus].norm(dim=1).mean()), rel=1e-6)
    assert s.n_groups == 100 and s.n_toward + s.n_away == 400
    story = np.array(groups["story"])
    agree = []
    for g in np.unique(story):
        a, b = x[plus & (story == g)], x[~plus & (story == g)]
        if len(a) and len(b):
            agree.append(float(unit(a.mean(0) - b.mean(0)) @ unit(d.vec)))
    assert s.pair_agreement == pytest.approx(np.mean(agree), abs=1e-5)


def test_halves_respect_groups(tmp_path: Path) -> None:
    """Noise shared by a whole group makes halves agree if rows are split, not if groups are: one bump per group."""
    rng = torch.Generator().manual_seed(4)
    n_groups, size = 10, 40
    labels = ["a" if g % 2 else "b" for g in range(n_groups) for _ in range(size)]
    bump = torch.randn(n_groups, D, generator=rng).repeat_interleave(size, dim=0)
    feats = bump + 0.1 * torch.randn(n_groups * size, D, generator=rng)
    groups = {"story": [f"s{g}" for g in range(n_groups) for _ in range(size)]}
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups=groups)
    options = dict(toward="a", away_from="b", site="resid_post.0", check_sign=False)
    by_group = difference_of_means(cache, groups="story", **options)
    by_row = difference_of_means(cache, groups=None, **options)
    assert by_row.stats.split_half_cosine > 0.95
    assert by_group.stats.split_half_cosine < 0.5


def test_the_first_token_is_left_out_of_the_residual_norm(tmp_path: Path) -> None:
    feats = torch.randn(20, 6, generator=torch.Generator().manual_seed(5))
    groups = {"g": [str(i) for i in range(20)]}
    options = dict(toward="a", away_from="b", site="resid_post.0", groups=None, check_sign=False)
    first = difference_of_means(
        cache_of(tmp_path / "0", {"resid_post.0": feats}, ["a", "b"] * 10, groups=groups, token=0), **options
    )
    later = difference_of_means(
        cache_of(tmp_path / "1", {"resid_post.0": feats}, ["a", "b"] * 10, groups=groups, token=1), **options
    )
    assert np.isnan(first.stats.resid_norm)
    assert later.stats.resid_norm == pytest.approx(float(feats.norm(dim=1).mean()))
    with pytest.raises(ValueError, match="unit 'resid': its scale is not known"):
        first.scale("resid")


def test_held_out_rows_give_no_part_of_the_vector_and_check_its_sign(tmp_path: Path) -> None:
    feats, labels, groups, _, e, _ = planted(400, gap=3.0)
    feats[200:] -= 1e3 * e
    split = ["train"] * 200 + ["test"] * 200
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups=groups, metadata={"split": split})
    d = difference_of_means(cache, toward="anti", away_from="stereo", site="resid_post.0", fit_on="split=train")
    plus = np.array([label == "anti" for label in labels])
    train, test = np.arange(400) < 200, np.arange(400) >= 200
    x = feats.double()
    torch.testing.assert_close(d.vec.double(), x[plus & train].mean(0) - x[~plus & train].mean(0), rtol=1e-5, atol=1e-5)
    held = float((x[plus & test].mean(0) - x[~plus & test].mean(0)) @ unit(d.vec))
    assert d.stats.held_out_gap == pytest.approx(held, rel=1e-5) and d.stats.n_held_out == 200


def test_a_sign_that_held_out_rows_contradict_is_an_error(tmp_path: Path) -> None:
    feats, labels, groups, *_ = planted(400, gap=3.0)
    turned = [{"anti": "stereo", "stereo": "anti"}[x] if i >= 200 else x for i, x in enumerate(labels)]
    split = ["train"] * 200 + ["test"] * 200
    sites = {"resid_post.0": feats, "resid_post.1": feats.clone()}
    sites["resid_post.1"][200:] *= -1
    cache = cache_of(tmp_path, sites, turned, groups=groups, metadata={"split": split})
    options = dict(toward="anti", away_from="stereo", fit_on="split=train")
    with pytest.raises(ValueError, match="the classes are not separable"):
        difference_of_means(cache, site="resid_post.0", **options)
    with pytest.warns(SignNotConfirmedWarning, match="1 of 2 sites have no direction; resid_post.0"):
        found = difference_of_means(cache, **options)
    assert [str(site) for site in found] == ["resid_post.1"] and found["resid_post.1"].stats.held_out_gap > 0
    found.save(tmp_path / "v.safetensors")
    for held in (found, Directions.load(tmp_path / "v.safetensors")):
        rows = held.table().set_index("site")
        assert "not separable" in rows.loc["resid_post.0", "refused"] and rows.loc["resid_post.1", "refused"] == ""
        with pytest.raises(ValueError, match="no direction at resid_post.0: on held-out rows"):
            held["resid_post.0"]
    kept = difference_of_means(cache, site="resid_post.0", check_sign=False, **options)
    assert kept.stats.held_out_gap < 0
    carried = direction_along(cache, kept.vec, site="resid_post.0", **options)  # a probe's weights follow the same rule
    with pytest.raises(ValueError, match="the classes are not separable"):
        confirmed(Directions({carried.site: carried}))


def test_shuffled_labels_give_halves_that_do_not_agree(tmp_path: Path) -> None:
    feats, labels, groups, *_ = planted(600, gap=4.0)
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups=groups)
    rng = np.random.default_rng(0)
    cosines = [
        difference_of_means(
            cache, toward="anti", away_from="stereo", site="resid_post.0", target=rng.permutation(labels),
            check_sign=False,
        ).stats.split_half_cosine
        for _ in range(10)
    ]  # fmt: skip
    assert abs(np.mean(cosines)) < 0.2


def test_within_covariance_streams_to_that_of_all_rows(tmp_path: Path) -> None:
    feats, labels, groups, *_ = planted(300)
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups=groups)
    got = within_covariance(cache, classes=["anti", "stereo"], site="resid_post.0", shrinkage=0.0)
    plus = np.array([label == "anti" for label in labels])
    parts = [Moments.of(feats[mask], full=True) for mask in (plus, ~plus)]
    torch.testing.assert_close(got, pooled_covariance(parts, shrinkage=0.0))


def test_the_leading_centred_component_of_pair_differences_is_not_their_mean(tmp_path: Path) -> None:
    """A fault seen elsewhere: PCA centres the differences first and so removes exactly the mean that is wanted."""
    rng = torch.Generator().manual_seed(6)
    n, shift = 400, torch.zeros(D)
    shift[0] = 3.0
    base = 0.2 * torch.randn(n, D, generator=rng)
    nuisance = torch.zeros(n, D)
    nuisance[:, 1] = 2.0 * torch.randn(n, generator=rng)
    feats = torch.stack([base + shift + nuisance, base], dim=1).flatten(0, 1) + 0.1 * torch.randn(
        2 * n, D, generator=rng
    )
    cache = cache_of(
        tmp_path, {"resid_post.0": feats}, ["a", "b"] * n, groups={"pair": [str(i // 2) for i in range(2 * n)]}
    )
    d = difference_of_means(cache, toward="a", away_from="b", site="resid_post.0")
    pairs = (feats[0::2] - feats[1::2]).double()
    leading = torch.linalg.svd(pairs - pairs.mean(dim=0), full_matrices=False)[2][0]
    assert d.unit[0] > 0.99 and abs(leading[0]) < 0.05
    torch.testing.assert_close(d.vec.double(), pairs.mean(dim=0), rtol=1e-5, atol=1e-6)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(toward="antii"), "class 'antii' has no example to fit on. Classes: 'anti' "),
        (dict(target="klass"), "target='klass': no such column"),
        (dict(groups="nobody"), "groups='nobody': no such column"),
        (dict(balance="strata", strata=None), "needs strata="),
        (dict(balance="strata"), "name the column with strata="),
        (dict(strata="letter"), None),
        (dict(away_from="anti"), "different class names on the two sides"),
        (dict(site="z.0"), "residual stream"),
        (dict(site="resid_post.9"), "resid_post.9' is not in"),
        (dict(position="first"), "position 'first' is not in the cache"),
        (dict(fit_on="split"), "fit_on split: no column"),
        (dict(fit_on="letter=C"), "no row is left. 'letter' holds A, B"),
        (dict(balance="strata", strata="label"), "none of 2 strata holds every class"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_the_users_words(tmp_path: Path, options, said) -> None:
    feats, labels, groups, letters, *_ = planted(80, gap=8.0)
    cache = cache_of(tmp_path, {"resid_post.0": feats}, labels, groups=groups, metadata={"letter": letters})
    given = {"toward": "anti", "away_from": "stereo", "site": "resid_post.0", **options}
    if said is None:
        assert difference_of_means(cache, **given).provenance["strata"] is None
        return
    with pytest.raises(ValueError, match=said):
        difference_of_means(cache, **given)
