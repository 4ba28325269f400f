"""Contrasts, matching and evidence: what is built in is found, what is not there is not, at the promised error rate."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from interp import stats
from interp.heads import (
    HeadEffects,
    Plan,
    TokenPair,
    contrast,
    evidence,
    four_cells,
    match_heads,
    order_swap_table,
    retrieval_score,
)
from interp.heads.estimates import halves
from interp.heads.ids import HeadId
from interp.heads.metrics import FIELDS
from tests.heads_kit import retrieval_model, retrieval_pairs


def made(
    effects: np.ndarray, *, layers: int, clean: float = 4.0, base: float = 4.0, groups=None, **plan
) -> HeadEffects:
    """A patching sweep with these effects [example, layer * head] on pairs p0, p1, ..."""
    n, width = effects.shape
    names = tuple(f"L{i // (width // layers)}.H{i % (width // layers)}" for i in range(width))
    given = dict(model="m", adapter=None, weights="unknown", dtype="float32", kind="patch", effect="total",
                 positions="answer", metrics=("LogitDiff",), units=names, pairs_sha256="0" * 64)  # fmt: skip
    pairs = [TokenPair((1,), (i + 2,), 5, 6, id=f"p{i}", group=groups and groups[i]) for i in range(n)]
    whole = np.full((n, width), clean)
    values = dict.fromkeys(FIELDS, whole) | {"margin": whole - effects}
    units = tuple((HeadId.parse(name),) for name in names)
    return HeadEffects(Plan(**{**given, **plan}), tuple(pairs), units, values, np.full(n, base), np.ones(n),
                       sampling=stats.Sampling(n_resamples=50))  # fmt: skip


# --- statistics (error rate and power of 784 heads: tests/test_stats_signflip.py)


def test_the_null_limit_is_where_significance_begins() -> None:
    rng = np.random.default_rng(1)
    effects = made(rng.normal(size=(30, 24)) + np.linspace(0, 1.2, 24), layers=6)
    for stat in ("t", "mean"):
        tested = effects.tested(stat=stat)
        beyond = np.abs(tested.estimates.value) > tested.null_max95
        assert 0 < beyond.sum() < 24
        assert np.array_equal(beyond, tested.p <= 0.05)


def test_a_ratio_is_one_of_means_and_is_refused_where_the_whole_may_be_zero() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(1.0, 0.5, size=(30, 4))
    share = made(values, layers=2).estimates("cma_frac")
    assert np.allclose(share.value, values.mean(0) / 8.0)
    effects = made(values, layers=2, clean=0.0, base=0.0)
    effects.base_margin[:] = rng.normal(size=30)
    with pytest.warns(stats.UnstableRatioWarning, match="ratio refused"):
        assert np.isnan(effects.estimates("cma_frac").value).all()


def test_heads_are_chosen_on_other_pairs_than_they_are_reported_on() -> None:
    rng = np.random.default_rng(3)
    groups = [f"g{i // 2}" for i in range(40)]
    effects = made(rng.normal(size=(40, 60)), layers=10, groups=groups)
    forest = effects.forest()
    assert set(forest["half"]) == {"select", "report"}
    sizes = forest.groupby("half")["n"].first()
    assert sizes.sum() == 40
    top, every = effects.top(6), effects.heatmap()["value"].abs()
    assert (top["half"] == "report").all()
    assert top["value"].abs().max() < every.max() * 1.5
    select = forest[forest["half"] == "select"].set_index("head")["value"].abs()
    assert list(top["head"]) == list(select.sort_values(ascending=False).index[:6])
    with pytest.raises(ValueError, match="at least 4 groups"):
        made(rng.normal(size=(6, 4)), layers=2, groups=["a", "a", "b", "b", "c", "c"]).top(1)


def test_cliff_compares_with_heads_of_the_same_layer_and_length() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(50, 8))
    values[:, 1] += 5.0
    effects = made(values, layers=2)
    object.__setattr__(effects, "write_norms", np.array([1.0, 1.1, 9.0, 1.2, 1, 1, 1, 1]))
    assert effects.controls[1][:2] == [3, 0]
    assert effects.cliff(1).value > 0.99
    assert abs(effects.cliff(0).value) > 0.2  # head 1 is among the controls of head 0
    assert "cliff" in set(effects.at("L0.H1")["metric"])


# --- contrasts -----------------------------------------------------------------------------------------------------


def test_a_contrast_pairs_items_by_id_and_finds_the_head_that_changed() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=(40, 12)) * 3
    engaged, heuristic = common + rng.normal(size=(40, 12)) * 0.1, common + rng.normal(size=(40, 12)) * 0.1
    engaged[:, 7] += 0.5
    order = rng.permutation(40)
    b = made(heuristic, layers=3)
    values = {k: v[order] for k, v in b.values.items()}
    moved = tuple(b.pairs[i] for i in order)
    shuffled = HeadEffects(
        b.plan, moved, b.units, values, b.base_margin[order], b.base_right, sampling=stats.Sampling(n_resamples=50)
    )
    table = contrast(made(engaged, layers=3), shuffled).set_index("head")
    assert table.loc["L1.H3", "value"] == pytest.approx(0.5, abs=0.1)
    assert list(table.index[table["p_adjusted"] < 0.05]) == ["L1.H3"]
    assert (table["same_input"] == 1.0).all()
    assert table["n"].iloc[0] == 40


def test_a_contrast_of_unlike_sweeps_is_refused() -> None:
    a = made(np.zeros((10, 12)), layers=3)
    with pytest.raises(ValueError, match="match_heads"):
        contrast(a, made(np.zeros((10, 8)), layers=2))
    with pytest.raises(ValueError, match="kind is 'patch' on one side and 'mean'"):
        contrast(a, made(np.zeros((10, 12)), layers=3, kind="mean"))


def test_four_cells_subtract_each_base_in_units_without_scale() -> None:
    rng = np.random.default_rng(6)
    shares = {"engaged": 0.7, "engaged_base": 0.2, "heuristic": 0.4, "heuristic_base": 0.3}
    cells, heads = {}, {}
    for index, (name, share) in enumerate(shares.items()):
        scale = 10.0**index  # logits of different sizes do not matter
        values = rng.normal(0, 0.02, size=(60, 8)) * scale
        values[:, index] = scale * (share + rng.normal(0, 0.05, size=60))
        cells[name] = made(values, layers=2, clean=scale / 2, base=scale / 2)
        heads[name] = f"L{index // 4}.H{index % 4}"
    table = four_cells(cells, heads).set_index("cell")
    for name, share in shares.items():
        assert table.loc[name, "value"] == pytest.approx(share, abs=0.03)
        assert table.loc[name, "percentile"] > 0.85
    assert table.loc["contrast", "value"] == pytest.approx(0.4, abs=0.05)
    assert table.loc["contrast", "lo"] > 0.3
    with pytest.raises(ValueError, match="heuristic_base is missing"):
        four_cells({k: v for k, v in cells.items() if k != "heuristic_base"}, heads)


# --- matching ------------------------------------------------------------------------------------------------------


def test_heads_of_models_of_different_sizes_are_matched_by_what_they_do() -> None:
    """8 layers x 4 against 12 x 6, and where every head of the small one has a counterpart at the same depth."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(80, 32)), rng.normal(size=(80, 72))
    where = {}
    for head in range(8, 24):
        layer = round((head // 4 + 0.5) / 8 * 12 - 0.5)
        where[head] = layer * 6 + head % 4 + (head // 4) % 2
        b[:, where[head]] = 50 * a[:, head] + 10 * rng.normal(size=80)  # another scale, some noise
    matching = match_heads(made(a, layers=8), made(b, layers=12), n_permutations=200)
    table = matching.table()
    strong = table[table["p"] < 0.05]
    names = made(b, layers=12).names
    found = dict(zip(strong["head_a"], strong["head_b"], strict=True))
    wanted = {f"L{h // 4}.H{h % 4}": names[k] for h, k in where.items()}
    assert found == wanted
    assert (strong["similarity"] > matching.threshold).all()
    assert matching.of("L4.H1")["head_b"].iloc[0] == wanted["L4.H1"]
    far = np.isnan(matching.similarity)
    assert far[0, -1] and not far[0, 0]  # outside the depth window nothing is compared


def test_noise_is_not_matched() -> None:
    rng = np.random.default_rng(8)
    beyond = 0
    for _ in range(20):
        a, b = made(rng.normal(size=(30, 16)), layers=4), made(rng.normal(size=(30, 24)), layers=4)
        beyond += bool((match_heads(a, b, n_permutations=99).table()["p"] < 0.05).any())
    assert beyond <= 4  # 5 % of 20, within its 99.7 % limit


def test_two_copies_of_one_model_match_themselves_and_permuted_items_do_not() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(size=(60, 24))
    again = values + 0.2 * rng.normal(size=values.shape)
    one, two = made(values, layers=6), made(again, layers=6)
    assert match_heads(one, two, n_permutations=99).self_match_rate == 1.0
    assert match_heads([one, one], [two, two], n_permutations=99).self_match_rate == 1.0
    shuffled = made(again[rng.permutation(60)], layers=6)
    assert not match_heads(one, shuffled, n_permutations=99).self_match_rate > 0.5


# --- evidence ------------------------------------------------------------------------------------------------------


def test_a_head_that_copies_the_answer_holds_on_every_level_and_its_sibling_on_none() -> None:
    model, pairs = retrieval_model(1.0, 0.0), retrieval_pairs(16)
    with torch.no_grad():  # answers of different strength: effects that are equal in every item have no interval
        model.lm_head.weight *= torch.linspace(0.9, 1.1, len(model.lm_head.weight), dtype=torch.float64)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NoWidthWarning)  # of the sibling, which does nothing
        table = evidence(model, pairs, "L1.H0").set_index("level")
        sibling = evidence(model, pairs, "L1.H1").set_index("level")
    assert table["holds"].all()
    assert table.loc["decodable", "value"] == pytest.approx(1.0)
    assert abs(table.loc["transfers", "control"]) < 1e-6  # a donor with the same answer changes nothing
    assert table.loc["restores", "value"] == pytest.approx(table.loc["transfers", "value"])
    assert not sibling.loc[["necessary", "restores", "transfers"], "holds"].any()


def test_evidence_needs_pairs_that_flip_and_answers_that_recur() -> None:
    model = retrieval_model(1.0, 0.0)
    with pytest.raises(ValueError, match="no other item has the answer"):
        evidence(model, retrieval_pairs(2), "L1.H0")
    keep = [
        TokenPair(p.base_ids, p.exp_ids, p.answer, p.foil, base_answer=p.answer, id=p.id) for p in retrieval_pairs(4)
    ]
    with pytest.raises(ValueError, match="pairs that flip the answer, got 0 of 4"):
        evidence(model, keep, "L1.H0")


# --- retrieval score and order swaps -------------------------------------------------------------------------------


def test_the_retrieval_score_counts_steps_at_which_a_head_looks_at_the_token_it_copies() -> None:
    """Generated by the model itself, so that copies are known: every step is recomputed by hand from the pattern."""
    from interp.hooks import record
    from tests.tiny import tiny

    module = tiny("qwen2")
    ids = torch.randint(3, 20, (30,), generator=torch.Generator().manual_seed(3)).tolist()
    module.lm_head.weight[:] *= 0
    module.lm_head.weight[ids[12]] = 1.0
    module.lm_head.weight[ids[13]] = -1.0  # generates one of two tokens of the needle
    heads, score = retrieval_score(module, ids, (10, 16), max_new_tokens=6)
    whole = list(ids)
    want = np.zeros(len(heads))
    for _ in range(6):
        with record(module, ["pattern.*"]) as acts:
            module(torch.tensor([whole]))
        token = int(module(torch.tensor([whole])).logits[0, -1].argmax())
        for index, head in enumerate(heads):
            at = int(acts[f"pattern.{head.layer}"][0, head.head, -1].argmax())
            want[index] += (10 <= at < 16 and whole[at] == token) / 6
        whole.append(token)
    assert np.allclose(score, want)
    assert score.max() > 0
    with pytest.raises(ValueError, match="needle"):
        retrieval_score(module, ids, (28, 31))


def test_order_swap_metrics_tell_a_binder_from_readers_of_the_bag_of_words() -> None:
    labels = ["yes", "no"] * 20
    pairs = [
        TokenPair((1,), (2,), 5, 6, base_answer=6 if i % 2 else 5, id=f"s{i}", label=labels[i // 2], group=f"g{i // 2}")
        for i in range(80)
    ]
    flips = np.array([pair.flips for pair in pairs])
    binder = order_swap_table(pairs, np.ones(80, bool), np.ones(80, bool)).set_index("metric")
    assert binder.loc["pair_acc_F", "value"] == binder.loc["order_sensitivity", "value"] == 1.0
    blind = np.ones(80, bool)  # right on the original; says the same of the twin, so wrong where the label flips
    found = order_swap_table(pairs, blind, ~flips).set_index("metric")
    assert found.loc["pair_acc_F", "value"] == found.loc["flip_rate_F", "value"] == 0.0
    assert found.loc["flip_rate_K", "value"] == 0.0
    assert found.loc["mcnemar_F", "p"] < 1e-6
    jumpy = order_swap_table(pairs, np.ones(80, bool), flips).set_index("metric")  # flips always, whatever the swap
    assert jumpy.loc["flip_rate_K", "value"] == 1.0
    assert jumpy.loc["order_sensitivity", "value"] == pytest.approx(0.0)


# --- controls with their own intervals -----------------------------------------------------------------------------


def test_the_difference_from_control_heads_is_paired_over_items() -> None:
    """What all heads share cancels: its interval is far narrower than that of the effect."""
    rng = np.random.default_rng(20)
    shared = rng.normal(size=(40, 1)) * 5
    values = shared + rng.normal(size=(40, 8)) * 0.1
    values[:, 1] += 0.5
    effects = made(values, layers=2, groups=[f"g{i // 2}" for i in range(40)])
    table = effects.table(["cma", "cma_frac"]).set_index(["metric", "head"])
    others = np.delete(values[:, :4], 1, axis=1).mean(axis=1)
    row = table.loc[("cma", "L0.H1")]
    assert row["control_difference"] == pytest.approx((values[:, 1] - others).mean())
    assert row["control_difference"] == pytest.approx(row["value"] - row["control_value"])
    want = stats.cluster_mean(values[:, 1] - others, groups=effects.groups, sampling=stats.Sampling(n_resamples=50))
    assert (row["control_difference_lo"], row["control_difference_hi"]) == pytest.approx((want.lo, want.hi))
    assert row["control_difference_hi"] - row["control_difference_lo"] < (row["hi"] - row["lo"]) / 10
    share = table.loc[("cma_frac", "L0.H1")]
    assert share["control_difference"] == pytest.approx((values[:, 1] - others).mean() / 8.0)
    assert effects.table(["cohen_dz"])["control_difference"].isna().all()


def test_a_head_without_others_has_no_control_difference() -> None:
    alone = made(np.random.default_rng(21).normal(size=(12, 1)), layers=1)
    assert alone.control_difference().value.tolist() == pytest.approx([np.nan], nan_ok=True)


def test_the_same_answer_control_is_a_difference_with_its_own_interval() -> None:
    rng = np.random.default_rng(22)
    groups = [f"g{i // 2}" for i in range(40)]
    flip = made(rng.normal(size=(40, 4)) + np.array([2.0, 2.0, 2.0, 0.0]), layers=2, groups=groups)
    keep = made(rng.normal(size=(20, 4)) + np.array([0.0, 2.0, -2.0, 0.0]), layers=2, groups=groups[:20])
    found = flip.keep_difference(keep)
    f, k = flip.per_example().mean(axis=0), keep.per_example().mean(axis=0)
    assert found.value == pytest.approx(f - np.abs(k))
    assert (found.lo > 0).tolist() == [True, False, False, False]  # the other way is as bad as the same way
    assert found.n == 60 and found.n_groups == 20
    table = flip.table(keep=keep)
    assert table.loc[table["metric"] == "cma", "keep_difference"].tolist() == pytest.approx(list(found.value))
    assert table.loc[table["metric"] == "cma_frac", "keep_difference"].isna().all()
    assert "keep_difference" not in flip.table()
    with pytest.raises(ValueError, match="same 4 units"):
        flip.keep_difference(made(np.zeros((4, 8)), layers=2))


def test_the_same_answer_control_of_a_half_is_of_the_same_groups() -> None:
    rng = np.random.default_rng(23)
    groups = [f"g{i // 2}" for i in range(40)]
    flip, keep = (made(rng.normal(size=(40, 4)), layers=2, groups=groups) for _ in range(2))
    forest = flip.forest(keep=keep)
    report = forest[forest["half"] == "report"]
    chosen = halves(groups, seed=0)
    want = flip.per_example()[~chosen].mean(axis=0) - np.abs(keep.per_example()[~chosen].mean(axis=0))
    assert report["keep_difference"].tolist() == pytest.approx(list(want))


def test_the_largest_difference_has_an_interval_that_holds_for_whichever_is_largest() -> None:
    """Wider than that of a head named beforehand, and the same as the band of the differences themselves."""
    rng = np.random.default_rng(24)
    a, b = rng.normal(size=(40, 12)), rng.normal(size=(40, 12))
    engaged = made(a, layers=3)
    table = contrast(engaged, made(b, layers=3))
    assert (table["band_lo"] <= table["lo"]).all() and (table["band_hi"] >= table["hi"]).all()
    wider = (table["band_hi"] - table["band_lo"]) / (table["hi"] - table["lo"])
    assert wider.median() > 1.2  # t of 0.05/12 to that of 0.05 is 1.5; a skewed head is widened by itself already
    want = stats.simultaneous_band(a - b, groups=engaged.groups, sampling=stats.Sampling(n_resamples=50))
    assert table["band_lo"].tolist() == pytest.approx(list(want.lo))


def test_identical_models_match_whatever_the_sizes_of_their_groups() -> None:
    """Groups of 1 to 9 items: none can change places with another, and without signs every permutation is the data."""
    rng = np.random.default_rng(25)
    groups = [f"g{size}" for size in range(1, 10) for _ in range(size)]
    values = rng.normal(size=(45, 12))
    one, other = (made(values, layers=3, groups=groups) for _ in range(2))
    found = match_heads(one, other, n_permutations=400, seed=0)
    assert found.self_match_rate == 1.0 and (np.diag(found.p) <= 0.05).all()
    assert found.threshold < 1.0
    unlike = match_heads(one, made(rng.normal(size=(45, 12)), layers=3, groups=groups), n_permutations=400, seed=0)
    assert np.nanmin(unlike.p) > 0.05
