"""The sweep as a whole: what is planted is found, what leaks is not believed, and the null keeps its promise."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp.cache import ActivationCache
from interp.stats import FewGroupsWarning
from probes import SweepConfig, SweepResult, cosines, group_split, row_split, sweep, unite_groups
from probes.controls import UnlearnableControlWarning, crossing_share
from probes.kinds import score_labels
from probes.metrics import auroc_many
from probes.null import exchange, null_labels, summarise
from probes.splits import RowSplitWarning
from tests.cache_kit import build, make_examples, tiny_plan

N_GROUPS, SIZE, D, LAYERS = 60, 6, 24, 6
QUICK = SweepConfig(kinds=("ridge",), Cs=(1e-3, 1e-1), n_perm=99, n_boot=200)


def activations(rng, groups, *, share: float = 0.5, d: int = D, layers: int = LAYERS) -> dict[str, np.ndarray]:
    """Layers that drift slowly apart; part of the variance belongs to the group."""
    out, base = {}, rng.normal(size=(len(groups), d))
    offsets = rng.normal(size=(groups.max() + 1, d))
    for layer in range(layers):
        base = 0.8 * base + 0.6 * rng.normal(size=base.shape)
        out[f"resid_post.{layer}"] = (np.sqrt(1 - share) * base + np.sqrt(share) * offsets[groups]).astype(np.float32)
    return out


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(N_GROUPS), SIZE)
    labels = (rng.random(N_GROUPS) < 0.5)[groups].astype(int)
    return activations(rng, groups), labels, groups, rng


def plant(feats: dict[str, np.ndarray], labels: np.ndarray, rng, *, layer: int = 3, strength: float = 2.0) -> None:
    unit = rng.normal(size=D) / np.sqrt(D)
    for at, fraction in ((layer - 1, 0.4), (layer, 1.0), (layer + 1, 0.4)):
        feats[f"resid_post.{at}"] += strength * fraction * np.outer(labels - 0.5, unit).astype(np.float32)


def test_a_planted_signal_is_found_at_its_layer_by_every_kind_and_said_in_words(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng)
    config = SweepConfig(
        kinds=("logistic", "ridge", "massmean", "massmean-iid"), Cs=(1e-3, 1e-1), n_boot=200,
        n_perm={"ridge": 99, "massmean": 99, "logistic": 19, "massmean-iid": 19},
    )  # fmt: skip
    result = sweep(feats, target=labels, groups=groups, config=config, checkpoint="A")
    for cell in result.selected:
        assert abs(int(cell.site.split(".")[1]) - 3) <= 1, cell
    t = result.table
    test = t[(t.split == "test") & (t.metric == "auroc")]
    assert len(test) == 4 and (test.value > 0.8).all() and (test.lo > 0.5).all() and (test.p <= 0.05).all()
    assert (test.n == 360).all() and (test.n_groups == 60).all()  # every group is tested once
    best = t[(t.split == "oof") & (t.metric == "auroc") & t.selected]
    assert (
        (best.p_adjusted <= 0.05).all() and (best.p_adjusted >= best.p).all() and (best.value > best.null_max95).all()
    )
    assert dict(zip(best.kind, best.n_perm, strict=True)) == {
        "ridge": 99, "massmean": 99, "logistic": 19, "massmean-iid": 19,
    }  # fmt: skip
    assert best.p.min() >= 0.01  # (1 + 0)/(1 + 99): never 0
    shuffled = t[(t.site == "shuffled") & (t.metric == "auroc")]
    assert (shuffled.lo < 0.6).all() and set(shuffled.role) == {"control"}
    assert all("is linearly decodable" in s and "used" not in s for s in result.sentences)
    cell = result.pick(kind="logistic")
    for i, part in enumerate(result.split.looks()):
        direct, raw = result.looks[cell.looks[i]][i].direction, feats[cell.looks[i][2]]
        by_hand = direct(torch.from_numpy(raw)).numpy()
        np.testing.assert_allclose(by_hand[part.is_test], result.tested(cell)[part.is_test], atol=1e-4)


def test_out_of_fold_and_test_scores_are_those_of_refitted_pipelines(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng)
    x = feats["resid_post.3"]
    split = group_split(labels, groups=groups, test_share=0.25, seed=0)
    for balanced in (False, True):
        scored = score_labels(
            "logistic",
            torch.from_numpy(x),
            torch.from_numpy(labels[None]),
            split,
            Cs=(0.1,),
            balanced=balanced,
            tol=1e-5,
        )
        weight = "balanced" if balanced else None
        for f in (*range(5), -1):
            train, held = split.is_dev & (split.fold_of != f), split.fold_of == f
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-10, class_weight=weight))
            wide = x.astype(np.float64)  # scikit-learn would fit in single precision
            expected = model.fit(wide[train], labels[train]).decision_function(wide[held])
            np.testing.assert_allclose(scored.scores[0, held], expected, atol=1e-3)


def leaky(rng, *, n_groups: int = 40, size: int = 15, d: int = 64):
    """Labels 80 % determined by the template, activations that know the template and nothing else."""
    groups = np.repeat(np.arange(n_groups), size)
    tendency = (rng.random(n_groups) < 0.5)[groups]
    labels = np.where(rng.random(len(groups)) < 0.8, tendency, ~tendency).astype(int)
    return activations(rng, groups, share=0.7, d=d, layers=4), labels, groups


def test_planted_leakage_is_significant_by_rows_and_not_by_groups() -> None:
    feats, labels, groups = leaky(np.random.default_rng(2))
    result = sweep(feats, target=labels, groups=groups, config=SweepConfig(
        kinds=("ridge",), Cs=(1e-3, 1e-1), n_perm=199, n_boot=200, scheme="between"))  # fmt: skip
    t = result.table
    best = t[(t.split == "oof") & (t.metric == "auroc") & t.selected].iloc[0]
    test = t[(t.split == "test") & (t.metric == "auroc")].iloc[0]
    assert best.p_adjusted > 0.05 and test.p > 0.05
    assert "is not shown to be linearly decodable" in result.sentences[0]
    with pytest.warns(RowSplitWarning, match="40 of 40 groups have rows on both sides"):
        torn = row_split(labels, groups=groups, seed=0)
    null = np.stack([np.random.default_rng(i).permutation(labels) for i in range(99)])
    everything = np.concatenate([labels[None], null])
    dev = torn.is_dev
    areas = [
        auroc_many(
            score_labels("ridge", torch.from_numpy(x), torch.from_numpy(everything), torn, Cs=QUICK.Cs).scores[:, dev],
            everything[:, dev],
        )
        for x in feats.values()
    ]  # fmt: skip
    naive = summarise(np.stack(areas, axis=1), None)
    assert naive.p_max.min() <= 0.01  # the row pipeline believes the leak


@pytest.mark.slowest
@pytest.mark.long
def test_under_the_full_null_200_sweeps_keep_their_error_rate_and_intervals_their_coverage() -> None:
    n_false, n_false_test, n_covered, n_sims = 0, 0, 0, 200
    for sim in range(n_sims):
        rng = np.random.default_rng(5000 + sim)
        groups = np.repeat(np.arange(100), 3)
        labels = (rng.permutation(100) < 50)[groups].astype(int)
        config = SweepConfig(kinds=("ridge",), Cs=(1e-2, 1e-1), n_perm=99, n_boot=200, test_share=0.5, seed=sim)
        t = sweep(activations(rng, groups, d=10, layers=4), target=labels, groups=groups, config=config).table
        areas = t[(t.metric == "auroc") & (t.role == "layer")]
        n_false += areas[areas.split == "oof"].p_adjusted.min() <= 0.05
        test = areas[areas.split == "test"].iloc[0]
        n_false_test += test.p <= 0.05
        n_covered += test.lo <= 0.5 <= test.hi  # a probe of noise has a true AUROC of 1/2
    # 2,000 sweeps of this design gave 0.0535 and 0.055: the bounds leave room for the noise of 200
    assert n_false / n_sims <= 0.07 and n_false_test / n_sims <= 0.09
    assert 0.92 <= n_covered / n_sims <= 0.98


def test_null_labels_move_whole_groups_inside_their_fold(data) -> None:
    _, labels, groups, rng = data
    split = group_split(labels, groups=groups, seed=0)
    null = null_labels(labels, exchange(labels, split, scheme="auto", unit=None), n=20, seed=1)
    for rows in split.strata():
        assert (null[:, rows].sum(axis=1) == labels[rows].sum()).all()  # groups are of one size here
    assert all((null[:, groups == g] == null[:, groups == g][:, :1]).all() for g in range(N_GROUPS))
    mixed = rng.integers(0, 2, len(labels))
    split = group_split(mixed, groups=groups, seed=0)
    within = null_labels(mixed, exchange(mixed, split, scheme="within", unit=None), n=20, seed=1)
    assert all((within[:, groups == g].sum(axis=1) == mixed[groups == g].sum()).all() for g in range(N_GROUPS))
    assert (within != mixed).any() and (null != labels).any()
    between = null_labels(mixed, exchange(mixed, split, scheme="auto", unit=None), n=20, seed=1)
    vectors = {tuple(mixed[groups == g]) for g in range(N_GROUPS)}  # groups of one size: whole vectors change places
    assert all(tuple(row[groups == g]) in vectors for row in between for g in range(N_GROUPS))
    assert any((row[groups == 0] != mixed[groups == 0]).any() for row in between)


def test_controls_of_a_sweep_are_in_its_table(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng)
    entity = rng.integers(0, 30, len(labels))
    length = labels * 3.0 + rng.normal(size=len(labels))  # the label is mostly readable from the length
    for x in feats.values():
        x[:, 0] = length
    result = sweep(
        feats, target=labels, groups=groups, control=entity, confounds={"length": length},
        surface=torch.from_numpy(length[:, None]).float(), cohort=np.where(groups % 2, "odd", "even"), config=QUICK,
    )  # fmt: skip
    t = result.table
    real = t[(t.metric == "auroc") & (t.role == "layer")]
    best = real[real.selected & (real.split == "oof")].iloc[0]
    assert best.selectivity > 0.2 and best.selectivity_lo > 0
    assert best.text_difference == pytest.approx(
        best.value - t[(t.site == "surface") & (t.metric == "auroc") & (t.split == "oof")].value.iloc[0]
    )
    assert best.text_difference_lo <= best.text_difference <= best.text_difference_hi
    surface = t[(t.site == "surface") & (t.metric == "auroc")].iloc[0]
    assert surface.value > 0.9
    residual = t[(t.role == "residual") & (t.metric == "auroc") & (t.site == "resid_post.0")].iloc[0]
    raw = t[(t.role == "layer") & (t.metric == "auroc") & (t.site == "resid_post.0") & (t.split == "oof")].iloc[0]
    assert raw.value > 0.9 and residual.value < 0.75
    assert set(t[t.split == "test"].cohort) == {"all", "odd", "even"}


def test_control_labels_that_no_probe_can_have_seen_are_no_control(data) -> None:
    feats, labels, groups, _ = data
    inside = groups * 3 + np.arange(len(groups)) % 3
    arrays = {"resid_post.0": feats["resid_post.0"]}
    with pytest.warns(UnlearnableControlWarning, match="only 0% of the rows"):
        table = sweep(arrays, target=labels, groups=groups, control=inside, config=QUICK).table
    assert table.selectivity.isna().all()
    assert crossing_share(np.array(["a", "a", "b", "b", "c"]), np.array([0, 1, 2, 2, 3])) == 0.4


def test_several_classes_are_each_against_the_rest_and_positions_are_swept(data) -> None:
    feats, _, groups, _ = data
    names = np.array(["a", "b", "c"])[np.random.default_rng(1).integers(0, 3, N_GROUPS)][groups]
    arrays = {name: feats[name] for name in ("resid_post.0", "resid_post.1")}
    result = sweep(arrays, target=names, groups=groups, positions=["last", "answer"], config=QUICK)
    assert set(result.table.target) == {"a", "b", "c"} and set(result.table.position) == {"last", "answer"}
    one = sweep(arrays, target=names, positive="b", groups=groups, config=QUICK)
    assert set(one.table.target) == {"b"}
    assert one.labels["b"].sum() == (names == "b").sum()


def test_a_result_survives_the_round_trip_through_arrays(data) -> None:
    feats, labels, groups, _ = data
    result = sweep(feats, target=labels, groups=groups, config=QUICK, sites=["resid_post.1", "resid_post.2"])
    back = SweepResult.from_arrays(result.table, result.arrays(), result.settings)
    assert back.ids == result.ids and back.selected == result.selected
    assert np.array_equal(back.split.fold_of, result.split.fold_of)
    for key, scores in result.scores.items():
        assert np.array_equal(back.scores[key], scores)
        assert torch.equal(back.directions[key].unit, result.directions[key].unit)
        assert back.directions[key].bias == pytest.approx(result.directions[key].bias, rel=1e-6)


def test_what_cannot_be_swept_is_refused_in_words(data) -> None:
    feats, labels, groups, _ = data
    with pytest.raises(ValueError, match="i_know="):
        sweep(feats, target=labels, groups=None, config=QUICK)
    with pytest.raises(ValueError, match="at least 2 groups"):
        sweep(feats, target=labels, groups=np.zeros(len(labels)), config=QUICK)
    with pytest.raises(ValueError, match="at least 2 classes"):
        sweep(feats, target=np.ones(len(labels)), groups=groups, config=QUICK)
    with pytest.raises(ValueError, match="of which 1 contain 1"):
        sweep(feats, target=(groups == 7).astype(int), groups=groups, config=QUICK)
    with pytest.raises(ValueError, match="rows 5 and 355 .*same activations at every site.*unite_groups"):
        twice = {site: np.concatenate([x[:355], x[5:6], x[356:]]) for site, x in feats.items()}
        sweep(twice, target=labels, groups=groups, config=QUICK)
    with pytest.raises(ValueError, match="18 permutations of ridge give no p below 0.0526"):
        SweepConfig(kinds=("ridge",), n_perm=18)
    with pytest.raises(ValueError, match="sites 'resid_post.9' match none"):
        sweep(feats, target=labels, groups=groups, sites=["resid_post.9"], config=QUICK)
    with pytest.raises(ValueError, match="no such column"):
        sweep(feats, target="label", groups=groups, config=QUICK)
    with pytest.raises(ValueError, match="positive='z'"):
        sweep(feats, target=labels, positive="z", groups=groups, config=QUICK)
    with pytest.raises(ValueError, match="same id 'x'"):
        sweep(feats, target=labels, groups=groups, ids=["x"] * len(labels), config=QUICK)
    feats["resid_post.2"][17, 3] = np.nan
    with pytest.raises(ValueError, match="'last': NaN or infinity in 1 of 360 rows, first 'row-17'"):
        sweep(feats, target=labels, groups=groups, config=QUICK)


def test_few_groups_are_swept_with_a_warning() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 10)
    labels = (np.arange(16) % 2)[groups]
    with pytest.warns(FewGroupsWarning, match="fewer than 20"):
        sweep(activations(rng, groups, layers=2), target=labels, groups=groups, config=QUICK)


def test_cosines_of_the_same_signal_stand_far_above_the_random_band(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng, strength=6.0)
    config = SweepConfig(kinds=("logistic", "massmean"), Cs=(1e-3, 1e-1), n_perm=0, n_boot=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sweep(feats, target=labels, groups=groups, config=config)
    noise = torch.from_numpy(rng.normal(size=D))
    sigma = torch.from_numpy(np.cov(feats["resid_post.3"].T))
    table = cosines(result, {("steering", "resid_post.3"): noise}, covariance={"resid_post.3": sigma})
    row = table[(table.site == "resid_post.3") & ~table.b.eq("steering")].iloc[0]
    assert row.cosine > 0.7 > row.random_hi and row.cosine_data > 0.7
    assert abs(table[table.b == "steering"].cosine).max() < 0.8
    assert result.table.p.isna().all() and "no null was run" in result.sentences[0]
    with pytest.raises(ValueError, match="length 0"):
        cosines(result, {("nothing", "resid_post.3"): torch.zeros(D)})


@pytest.mark.filterwarnings("ignore::interp.stats.FewGroupsWarning")
def test_a_cache_is_swept_like_the_arrays_it_holds(tmp_path: Path) -> None:
    plan = tiny_plan(120, examples=make_examples(120), target_bytes=50_000)
    cache = ActivationCache.open(build(tmp_path / "cache", plan))
    config = SweepConfig(kinds=("massmean", "ridge"), Cs=(1e-2,), n_perm=19, n_boot=100, n_folds=2, test_share=0.0)
    with pytest.raises(ValueError, match="same content .* 'item-000' .* 'item-005' .*Join their groups"):
        sweep(cache, target="label", groups=[i // 4 for i in range(120)], config=config)
    kinds = unite_groups([f"g{i}" for i in range(120)], cache.examples["text_sha256"].tolist())
    result = sweep(cache, target="label", groups=kinds, positive="yes", config=config, checkpoint="tiny")
    assert {"resid_post.0", "resid_post.1", "z.1", "mlp_out.1"} <= set(result.table.site)
    assert result.ids == tuple(cache.examples["id"]) and list(result.labels) == ["yes"]
    arrays = {site: cache.read(site, "last").float().flatten(1).numpy() for site in cache.sites}
    same = sweep(arrays, target=cache.examples["label"].to_numpy(), groups=kinds, positive="yes", config=config)
    for key, scores in result.scores.items():
        if key[2] != "shuffled":
            np.testing.assert_allclose(scores, same.scores[key], atol=1e-6)
    with pytest.raises(ValueError, match="no such column of the examples. Known columns: id, label"):
        sweep(cache, target="lable", groups=kinds, config=config)


@pytest.mark.slow
def test_more_processes_give_the_same_table_and_their_warnings(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng)
    options = dict(target=labels, groups=groups, control=rng.integers(0, 30, len(labels)), config=QUICK)
    sites = ["resid_post.2", "resid_post.3"]
    one, two = (sweep(feats, sites=sites, jobs=jobs, **options) for jobs in (1, 2))
    # threads differ between parent and worker: float32 sums in another order
    for name in ("value", "lo", "hi", "p", "selectivity"):
        np.testing.assert_allclose(one.table[name], two.table[name], atol=1e-4)
    assert one.selected == two.selected and list(one.directions) == list(two.directions)
    broken = {**feats, "resid_post.3": np.full_like(feats["resid_post.3"], np.nan)}
    with pytest.raises(ValueError, match="NaN or infinity in 360 of 360 rows"):
        sweep(broken, sites=sites, jobs=2, **options)
    with pytest.raises(ValueError, match="jobs: expected"):
        sweep(feats, sites=sites, jobs=0, **options)


def test_random_directions_and_calibration_are_in_the_table(data) -> None:
    feats, labels, groups, rng = data
    plant(feats, labels, rng, strength=5.0)
    config = SweepConfig(kinds=("logistic", "massmean"), Cs=(1e-2,), n_perm=19, n_boot=100)
    t = sweep(feats, target=labels, groups=groups, config=config).table
    random = t[t.kind == "random"]
    assert sorted(random.site) == sorted(feats) and (random.role == "control").all()
    at_signal = t[(t.site == "resid_post.3") & (t.metric == "auroc") & (t.kind == "logistic") & (t.split == "oof")]
    assert (random[random.site == "resid_post.3"].hi < at_signal.value.iloc[0]).all()
    found = t[t.role == "calibration"].set_index(["kind", "metric"]).sort_index()
    # mass-mean scores are no logits: the sigmoid fitted out of fold makes them probabilities
    constant = float(np.log(2))
    assert found.loc[("massmean", "platt_log_loss"), "value"] < constant
    assert ("massmean", "reliability") not in found.index and ("logistic", "reliability") in found.index
    bins = found.loc[("massmean", "platt_reliability")]
    assert bins.n.sum() == (t[(t.split == "test") & (t.metric == "auroc")].n.iloc[0])
    assert bins.p_mean.is_monotonic_increasing and (bins.p_lo <= bins.p_mean).all() and (bins.p_mean <= bins.p_hi).all()


def test_a_notebook_shows_at_most_twelve_rows_without_scripts(data) -> None:
    feats, _, groups, _ = data
    feats = {"resid_post.0": feats["resid_post.0"]}
    many = np.array(list("abcdefg<"))[np.arange(N_GROUPS) % 8][groups]
    config = SweepConfig(kinds=("massmean", "ridge"), Cs=(1e-2,), n_perm=19, n_boot=100)
    result = sweep(feats, target=many, groups=groups, config=config)
    shown = result._repr_html_()
    assert shown.count("<tr>") == 13 and "4 more in" in shown and len(result.selected) == 16
    assert (
        "<script" not in shown
        and "<td style='text-align:left'>&lt;</td>"
        in sweep(feats, target=many, positive="<", groups=groups, config=config)._repr_html_()
    )
    assert repr(result).count("\n") == 15


def test_pairs_won_with_any_ties_are_those_counted_one_by_one() -> None:
    from probes.metrics import pairs_won

    for n_values in (1, 2, 4, 10**6):
        scores = np.random.default_rng(n_values).integers(0, n_values, (6, 23)).astype(float)
        scores[0] = np.arange(23)  # a row without ties among rows with many
        labels = np.random.default_rng(7).integers(0, 2, (6, 23))
        strata = np.arange(23) % 3
        won, pairs = pairs_won(scores, labels, strata)
        for k in range(6):
            compared = [
                (scores[k, i] > scores[k, j]) + 0.5 * (scores[k, i] == scores[k, j])
                for i in range(23)
                for j in range(23)
                if labels[k, i] and not labels[k, j] and strata[i] == strata[j]
            ]
            assert (won[k], pairs[k]) == (sum(compared), len(compared))
