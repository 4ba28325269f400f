"""`diptych probes mdl|erase|recall` and `sweep --base`: one site's checks against a planted signal, and its control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from interp.cache import extract
from interp.model import Model
from probes import SweepConfig, sweep
from study.cli import main
from tests.test_cli_probes import examples
from tests.tiny import tiny, tiny_tokenizer

AT = ["--target", "label", "--groups", "procedure_id", "--sites", "resid_post.*"]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("caches")
    for name, seed in (("engaged", 1), ("base", 2)):
        model = Model.wrap(tiny("qwen2", vocab_size=len(tiny_tokenizer()), seed=seed), tiny_tokenizer())
        extract(model, examples(), out=folder / name, sites="resid_post.*", progress=False)
    return {name: folder / name for name in ("engaged", "base")}


def test_code_length_is_shorter_than_that_of_frequencies_and_of_its_control(caches, tmp_path) -> None:
    done = run("probes", "mdl", caches["engaged"], *AT, "--out", tmp_path / "mdl.csv")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "mdl.csv")
    assert table["site"].str.startswith("resid_post.").all() and (table["n_groups"] == 30).all()
    assert (table["uniform"] == table["n"]).all()  # one bit per binary label
    np.testing.assert_allclose(table["compression"], table["prior"] / table["bits"], rtol=1e-9)
    assert (table["lo"] > 1.05).all() and (table["control_hi"] < table["lo"]).all() and (table["p"] == 0.05).all()


def test_erasure_takes_the_last_word_away(caches, tmp_path) -> None:
    done = run("probes", "erase", caches["engaged"], *AT, "--out", tmp_path / "erase.csv")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "erase.csv")
    assert (table["train_before"] > 0.9).all()
    np.testing.assert_allclose(table["train_after"], 0.5, atol=0.1)  # weights are 0 by theorem: rounding is ranked
    assert (table["after_lo"] <= table["after"]).all() and (table["after"] <= table["after_hi"]).all()


def test_recall_at_a_bound_beats_that_of_permuted_labels(caches, tmp_path) -> None:
    done = run("probes", "recall", caches["engaged"], *AT, "--max-fpr", "0.2", "--out", tmp_path / "recall.csv")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "recall.csv")
    assert (table["recall"] > 0.8).all() and (table["control"] < 0.6).all() and (table["p"] == 0.01).all()
    assert (table["n_positive"] == 60).all() and (table["groups_positive"] == 30).all()
    assert (table["lo"] <= table["recall"]).all() and (table["recall"] <= table["hi"]).all()


def test_the_base_checkpoint_stands_beside_every_site_and_a_stranger_is_refused(caches, tmp_path) -> None:
    quick = ["--kinds", "ridge", "--cs", "0.01,1", "--perm", "19", "--boot", "100"]
    columns = ["--target", "label", "--groups", "procedure_id"]
    done = run(
        "probes", "sweep", caches["engaged"], *columns, *quick, "--base", caches["base"], "--out", tmp_path / "a"
    )
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(tmp_path / "a" / "table.parquet")
    base = table[table["role"] == "base"]
    layers = table[(table["role"] == "layer") & (table["split"] == "oof") & (table["metric"] == "auroc")]
    gain = base[base["metric"] == "auroc_gain"].set_index("site")
    assert set(gain.index) == set(layers["site"]) and not base["selected"].any()
    own = layers.set_index("site")["value"] - base[base["metric"] == "auroc"].set_index("site")["value"]
    np.testing.assert_allclose(gain["value"], own[gain.index], atol=1e-12)
    again = run("probes", "sweep", caches["engaged"], *columns, *quick, "--out", tmp_path / "a")
    assert again.exit_code == 1 and "holds another sweep of probes" in again.output


def test_a_checkpoint_gains_nothing_over_itself_and_other_rows_are_refused() -> None:
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(40), 3), np.tile([0, 1, 1], 40)
    feats = {"resid_post.0": rng.normal(size=(120, 8)).astype(np.float32)}
    config = SweepConfig(kinds=("ridge",), Cs=(0.1,), n_perm=19, n_boot=100)
    table = sweep(feats, target=labels, groups=groups, base=feats, config=config).table
    gain = table[table["metric"] == "auroc_gain"].iloc[0]
    assert gain["value"] == 0.0 and -0.1 < gain["lo"] < 0 < gain["hi"] < 0.1  # narrow, and not a point
    with pytest.raises(ValueError, match="none of the swept sites"):
        sweep(feats, target=labels, groups=groups, base={"z.9": feats["resid_post.0"]}, config=config)
    with pytest.raises(ValueError, match="expected 120 rows"):
        sweep(feats, target=labels, groups=groups, base={"resid_post.0": feats["resid_post.0"][:60]}, config=config)


def test_a_missing_optional_package_is_named_with_the_extra_that_brings_it() -> None:
    import click

    from study.cli.common import user_errors_as_messages

    @click.command()
    @user_errors_as_messages
    def draw() -> None:
        raise ModuleNotFoundError("No module named 'matplotlib.figure'", name="matplotlib.figure")

    done = CliRunner().invoke(draw, [])
    assert done.exit_code == 1 and "pip install 'diptych[report]'" in done.output
