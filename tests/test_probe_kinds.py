"""A probe kind from outside the library is one function: swept, tested by its null, drawn, an option, claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from interp.cache import extract
from interp.model import Model
from interp.prompt import Example
from probes import Kind, Probe, SweepConfig, sweep, transfer
from probes.kinds import KINDS, carried, in_order, kind_of, kinds_of, score_labels
from probes.splits import group_split
from study.analyses.probes.claims import probes as claims_of
from study.analyses.probes.figures import by_layer, figures
from study.analyses.probes.options import ProbesOptions
from study.analyses.probes.store import read_sweep
from study.analyses.probes.tables import probe_table
from study.cli import main
from study.config.sections import SmallestEffects
from tests.tiny import tiny, tiny_tokenizer

NAME = "tests.test_probe_kinds:nearest_centroid"


def nearest_centroid(feats: Tensor, labels: Tensor, weights: Tensor, C: float) -> tuple[Tensor, Tensor]:  # noqa: N803
    """Nearest shrunken centroid: the smaller C is, the fewer features tell the class means apart."""
    one, other = labels * weights, (1 - labels) * weights
    up, down = (part @ feats / part.sum(dim=1, keepdim=True) for part in (one, other))
    gap = (up - down) / 2
    shrunk = gap.sign() * (gap.abs() - 0.01 / C).clamp_min(0)
    return 2 * shrunk, -2 * (shrunk * (up + down) / 2).sum(dim=1)


def data(seed: int = 0, n_groups: int = 40) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng, groups = np.random.default_rng(seed), np.repeat(np.arange(n_groups), 4)
    labels = rng.permutation(np.arange(len(groups)) % 2)
    feats = {f"resid_post.{k}": rng.normal(size=(len(groups), 6)) + k * labels[:, None] for k in range(2)}
    return feats, labels, groups


CONFIG = SweepConfig(Cs=(0.1, 1.0, 10.0), n_perm=39, n_boot=100, n_control=3, n_seeds=2)


@pytest.fixture(scope="module")
def swept():
    feats, labels, groups = data()
    units = np.tile(np.arange(8), len(labels) // 8)
    return sweep(feats, target=labels, groups=groups, control=units, kinds=["ridge", nearest_centroid], config=CONFIG)


def test_a_function_is_swept_with_null_spread_and_selectivity_like_any_kind(swept) -> None:
    table = swept.table
    own = table[(table.kind == NAME) & (table.role == "layer") & (table.metric == "auroc") & (table.split == "oof")]
    assert own.value.iloc[1] > 0.8 > own.value.iloc[0]
    assert own[["null_mean", "p_adjusted", "selectivity", "seed_sd", "lo", "C"]].notna().all().all()
    assert swept.pick(kind=NAME).site == "resid_post.1"
    assert swept.settings["kinds"] == ("ridge", NAME)


def test_its_scores_are_those_of_the_function_fitted_by_hand(swept) -> None:
    feats, labels, _ = data()
    x, split = torch.tensor(feats["resid_post.1"], dtype=torch.float32), swept.split
    cell = swept.pick(kind=NAME)
    dev = torch.from_numpy(split.is_dev)
    rows = (x - x.mean(dim=0)) / x[dev].std(dim=0, correction=0)
    scores = np.zeros(len(labels))
    for fold in range(split.n_folds):
        train, held_out = (torch.from_numpy(m) for m in ((split.fold_of != fold) & split.is_dev, split.fold_of == fold))
        y = torch.tensor(labels, dtype=torch.float32)[None, train]
        coef, intercept = nearest_centroid(rows[train], y, torch.ones(int(train.sum())), cell.C)
        scores[held_out] = (rows[held_out] @ coef[0] + intercept[0]).numpy()
    np.testing.assert_allclose(swept.scores[cell.key][split.is_dev], scores[split.is_dev], rtol=1e-4, atol=1e-5)


def test_noise_has_no_small_p_under_its_null() -> None:
    feats, labels, groups = data(seed=3)
    noise = {"resid_post.0": feats["resid_post.0"]}
    found = sweep(noise, target=labels, groups=groups, kinds=[nearest_centroid], config=CONFIG)
    assert "is not shown" in found.sentences[0]


def test_the_shrinkage_is_chosen_out_of_fold() -> None:
    feats, labels, groups = data()
    split = group_split(labels, groups=groups, test_share=0.0, n_folds=4, seed=0)
    y = torch.tensor(labels)[None]
    x = torch.tensor(feats["resid_post.1"])
    chosen = score_labels(nearest_centroid, x, y, split, Cs=(0.01, 1.0)).chosen
    assert chosen[0] == 1, "at C = 0.01 every centroid is shrunk to nothing"


def test_a_kind_that_is_no_function_of_c_has_no_c_in_the_table() -> None:
    feats, labels, groups = data()
    plain = Kind("centroid", fit=lambda f, y, w, c: nearest_centroid(f, y, w, 100.0), has_penalty=False, loss="log")
    table = sweep(feats, target=labels, groups=groups, kinds=[plain], config=CONFIG).table
    assert table[table.kind == "centroid"].C.isna().all()
    assert (table.metric == "log_loss").any(), "its scores are logits"


def test_it_is_read_on_another_checkpoint_and_spread_over_processes(swept) -> None:
    feats, labels, groups = data()
    other = {site: rows + 0.1 for site, rows in feats.items()}
    table = transfer(swept, other, kinds=[NAME])
    assert {"raw", "A->A", "B->B"} <= set(table.variant) and set(table.kind) == {NAME}
    again = sweep(feats, target=labels, groups=groups, kinds=[NAME], config=CONFIG, jobs=2)
    assert again.pick(kind=NAME).site == "resid_post.1"


def test_it_is_drawn_and_claimed(swept) -> None:
    drawn = by_layer([swept], kind=NAME)
    assert drawn.rows.kind.unique().tolist() == ["nearest_centroid"]
    tables = {"probes": probe_table(swept.table.assign(member="engaged"), target="label", model="tiny")}
    assert any(not isinstance(figure, str) for _, figure in figures(tables))
    tables["probes"] = tables["probes"][tables["probes"].kind == NAME]
    (claim,) = claims_of(tables, SmallestEffects())[:1]
    assert claim.measured is not None and claim.measured.value > 0.7


def test_the_estimator_takes_it(swept) -> None:
    feats, labels, _ = data()
    x = feats["resid_post.1"]
    assert (Probe(nearest_centroid).fit(x, labels).predict(x) == labels).mean() > 0.8
    three = np.arange(len(labels)) % 3
    assert Probe(nearest_centroid, C=10.0).fit(x + 4 * three[:, None], three).coef_.shape == (3, 6)


def test_the_command_line_takes_its_import_path(tmp_path: Path) -> None:
    rng, examples = np.random.default_rng(0), []
    for g in range(24):
        for k in range(4):
            label = int((g + k) % 2)
            text = f"the quick brown {g * 4 + k} {'fox' if label ^ int(rng.random() < 0.1) else 'dog'}"
            examples.append(Example(f"i{g}-{k}", (), text=text, label=label, groups={"procedure_id": f"p{g}"}))
    model = Model.wrap(tiny("qwen2", vocab_size=len(tiny_tokenizer())), tiny_tokenizer())
    extract(model, examples, out=tmp_path / "cache", sites="resid_post.*", progress=False)
    args = ["probes", "sweep", str(tmp_path / "cache"), "--target", "label", "--groups", "procedure_id", "--perm", "19",
            "--boot", "100", "--cs", "0.1,1", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(main, [*args, "--kinds", NAME])
    assert done.exit_code == 0, done.output
    assert pd.read_parquet(tmp_path / "out" / "table.parquet").kind.isin([NAME, "random"]).all()
    carried_over = read_sweep(tmp_path / "out")
    assert carried(key[3] for key in carried_over.directions) == [NAME]
    wrong = CliRunner().invoke(
        main, [*args[:-1], str(tmp_path / "no"), "--kinds", "ridge,tests.test_probe_kinds:nobody"]
    )
    assert wrong.exit_code != 0 and "nobody" in wrong.output


def test_a_study_section_takes_names_and_import_paths_and_nothing_else() -> None:
    assert ProbesOptions(groups="g", kinds=("ridge", NAME)).kinds == ("ridge", NAME)
    with pytest.raises(ValueError, match="ridgy"):
        ProbesOptions(groups="g", kinds=("ridgy",))


def test_names_lead_back_to_functions() -> None:
    assert kind_of(nearest_centroid).name == NAME and kind_of(NAME).fit is nearest_centroid
    assert kind_of(lambda feats, labels, weights, c: None).name == "<lambda>"
    assert list(kinds_of(["massmean", nearest_centroid])) == ["massmean", NAME]
    assert in_order([NAME, *reversed(list(KINDS))]) == [*KINDS, NAME]
    with pytest.raises(ValueError, match="ridge"):
        kinds_of(["ridge", "ridge"])
    with pytest.raises(ValueError, match="labels"):
        kind_of(lambda feats: feats)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_the_library_has_a_fit_or_a_pipeline_and_says_what_it_is(name: str) -> None:
    assert KINDS[name].name == name and KINDS[name].help
    assert KINDS[name].function or KINDS[name].pipeline
