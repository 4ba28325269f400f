"""`diptych probes` end to end: arrays of a cache to tables, directions and figures; errors in the user's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from interp.cache import ActivationCache, extract
from interp.model import Model
from interp.prompt import Example
from study.analyses.probes.store import read_settings, read_sweep, sweep_store, write_sweep
from study.cli import main
from tests.tiny import tiny, tiny_tokenizer

N_GROUPS, SIZE = 30, 4
COLUMNS = ["--target", "label", "--groups", "procedure_id", "--control", "entity", "--cohort", "style"]
COLUMNS += ["--confounds", "length"]
QUICK = ["--kinds", "ridge,massmean", "--cs", "0.01,1", "--perm", "19", "--boot", "100"]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def examples(seed: int = 0) -> list[Example]:
    """Prompts whose last word is the label, nearly; groups are procedures, entities cross them."""
    rng = np.random.default_rng(seed)
    out = []
    for g in range(N_GROUPS):
        for k in range(SIZE):
            label = int((g + k) % 2)
            word = "fox" if label ^ int(rng.random() < 0.1) else "dog"
            more = {"entity": f"e{(g * SIZE + k) % 11}", "style": "ab"[k % 2], "length": float(rng.random())}
            text = f"the quick brown {g * SIZE + k} {word}"
            out.append(
                Example(f"i{g}-{k}", (), text=text, label=label, groups={"procedure_id": f"p{g}"}, metadata=more)
            )
    return out


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("caches")
    for name, seed, d_model in (("engaged", 1, 32), ("heuristic", 2, 32), ("wide", 3, 64)):
        module = tiny("qwen2", vocab_size=len(tiny_tokenizer()), seed=seed, hidden_size=d_model)
        extract(
            Model.wrap(module, tiny_tokenizer()), examples(), out=folder / name, sites="resid_post.*", progress=False
        )
    return {name: folder / name for name in ("engaged", "heuristic", "wide")}


@pytest.fixture(scope="module")
def swept(caches: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("probes")
    for name in caches:
        done = run("probes", "sweep", caches[name], *COLUMNS, "--out", folder / name, *QUICK)
        assert done.exit_code == 0, done.output
    return {name: folder / name for name in caches}


def test_a_sweep_writes_its_table_scores_directions_and_settings(caches, swept) -> None:
    out = swept["engaged"]
    table, text = pd.read_parquet(out / "table.parquet"), pd.read_csv(out / "table.csv")
    assert text.columns.tolist() == table.columns.tolist()
    np.testing.assert_allclose(text.value, table.value, rtol=1e-12)
    assert set(table.member) == {"engaged"} and set(table.target) == {"1"}
    assert {"layer", "control", "residual", "calibration"} <= set(table.role)
    estimates = table[table.value.notna()]
    assert (estimates.lo <= estimates.hi).all() and (estimates.n > 0).all() and estimates.interval.notna().all()
    settings = read_settings(out)
    assert settings["identity"]["cache"] == ActivationCache.open(caches["engaged"]).plan_id
    assert settings["sweep"]["n_perm"] == {"ridge": 19, "massmean": 19}
    assert str(out.parent) not in (out / "plan.json").read_text()


def test_directions_on_disk_give_the_scores_of_test_rows(caches, swept) -> None:
    result, cache = read_sweep(swept["engaged"]), ActivationCache.open(caches["engaged"])
    for key, direction in result.directions.items():
        if key[2] == "shuffled":
            continue
        logits = direction(cache.read(key[2], key[1]).float()).double().numpy()
        test = result.split.is_test
        # float32 products of 32 terms
        np.testing.assert_allclose(logits[test], result.scores[key][test], atol=1e-4 * max(1, direction.norm))
        assert float(direction.unit.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_finished_sweep_is_not_run_again_and_another_one_is_refused(caches, swept, monkeypatch) -> None:
    same = ["probes", "sweep", caches["engaged"], *COLUMNS, "--out", swept["engaged"], *QUICK]
    before = (swept["engaged"] / "table.parquet").stat().st_mtime_ns
    monkeypatch.setattr("study.analyses.probes.run.sweep_cache", lambda *a, **k: pytest.fail("was run again"))
    done = run(*same)
    assert done.exit_code == 0 and "nothing was run again" in done.output
    assert (swept["engaged"] / "table.parquet").stat().st_mtime_ns == before
    other = run(*same, "--seed", "3")
    assert other.exit_code == 1 and "holds another sweep of probes (seed: 0 != 3)" in other.output


def test_a_sweep_that_was_killed_before_its_end_is_not_taken_for_one(swept, tmp_path) -> None:
    result = read_sweep(swept["engaged"])
    with sweep_store(tmp_path / "a", {"x": 1}) as store:
        write_sweep(store, result)
    (tmp_path / "a" / "items" / "sweep.item").unlink()
    done = run("probes", "transfer", tmp_path / "a", tmp_path)
    assert done.exit_code == 1 and "no finished sweep" in done.output
    again = read_sweep(swept["engaged"])
    assert again.selected == result.selected and again.ids == result.ids
    for key, direction in result.directions.items():
        assert torch.equal(direction.unit, again.directions[key].unit) and direction.bias == again.directions[key].bias


def test_transfer_is_beside_its_ceilings_and_refused_between_widths(caches, swept) -> None:
    done = run("probes", "transfer", swept["engaged"], caches["heuristic"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(swept["engaged"] / "transfer" / "heuristic.csv")
    assert {"raw", "recenter", "bias", "A->A", "B->B"} == set(table.variant)
    assert set(table.test_checkpoint) == {"heuristic"} and set(table.train_checkpoint) == {"engaged"}
    refused = run("probes", "transfer", swept["engaged"], caches["wide"])
    assert refused.exit_code == 1 and "32 features and B's activations 64" in refused.output
    aligned = run("probes", "transfer", swept["engaged"], caches["wide"], "--align", "ridge")
    assert aligned.exit_code == 0 and "aligned-shuffled" in aligned.output
    compared = run("probes", "compare", swept["engaged"], swept["wide"])
    assert compared.exit_code == 0 and "mcnemar_p" in compared.output


def test_all_layers_cross_in_four_directions_and_are_drawn(caches, swept, monkeypatch) -> None:
    monkeypatch.chdir(swept["engaged"].parent)
    done = run("probes", "transfer", "engaged", caches["heuristic"], "--all-layers")
    assert done.exit_code == 0, done.output
    table = pd.read_csv("engaged/transfer/heuristic.csv")
    raw = table[(table.variant == "raw") & (table.metric == "auroc") & (table.kind == "massmean") & ~table.selected]
    n_layers = raw.test_layer.nunique()
    assert raw.groupby(["train_checkpoint", "test_checkpoint"]).size().tolist() == [n_layers**2] * 4
    own = raw[(raw.train_checkpoint == raw.test_checkpoint) & (raw.train_layer == raw.test_layer)]
    assert own["drop"].abs().max() < 1e-6  # a probe read where it was fitted is the ceiling
    drawn = run("probes", "figures", "engaged*", "heuristic", "--out", "figures")
    assert drawn.exit_code == 0, drawn.output
    names = {path.stem.split("-")[0] for path in Path("figures").glob("*.png")}
    assert {"layers", "selectivity", "transfer", "cosines", "reliability"} <= names
    assert "heuristic" in next(Path("figures").glob("layers-*.txt")).read_text()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--groups", "none"], "--groups none says that rows are independent: say why"),
        (
            ["--groups", "procedur_id"],
            "--groups procedur_id: no such column of the cache's examples. Columns: id, label",
        ),
        (["--groups", "procedure_id", "--control", "procedure_id"], "is the split group"),
        (["--groups", "procedure_id", "--sites", "mlp_out.*"], "resid_post.0"),
        (["--groups", "procedure_id", "--positive", "yes"], "--positive yes: not a label. Labels: 0, 1."),
        (["--groups", "procedure_id", "--kinds", "svm"], "svm"),
        (["--groups", "procedure_id", "--positions", "answer"], "answer"),
    ],
)
def test_what_cannot_be_swept_is_said_in_the_users_words(caches, tmp_path, extra, words) -> None:
    done = run("probes", "sweep", caches["engaged"], "--target", "label", "--out", tmp_path / "x", *QUICK, *extra)
    assert done.exit_code == 1 and words in done.output, done.output
    assert not (tmp_path / "x" / "items" / "sweep.item").exists()


def test_rows_may_be_called_independent_with_a_reason(caches, tmp_path) -> None:
    done = run("probes", "sweep", caches["engaged"], "--target", "label", "--groups", "none", "--kinds", "massmean",
               "--independent-because", "every row is another document", "--perm", "19", "--boot", "100",
               "--surface", "length,style", "--out", tmp_path / "x")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert read_sweep(tmp_path / "x").settings["independent_because"] == "every row is another document"
    assert "surface" in set(read_sweep(tmp_path / "x").table.site)
    assert run("probes", "figures", tmp_path / "nothing").exit_code == 1


def test_caches_of_a_pair_name_the_member_that_each_was_made_from(tmp_path) -> None:
    from interp.cache import extract_pair
    from interp.tasks import procedural
    from study.embedded import embedded_pair

    items = procedural.examples(per_cell=2, seed=0, rendering="log")[:2]
    made = extract_pair(embedded_pair(), items, out=tmp_path, sites="resid_post.0", progress=False)
    named = {role: cache.manifest["environment"]["checkpoint"]["name"] for role, cache in made.items()}
    assert named == {role: role for role in made} and {"engaged", "heuristic"} <= set(named)
