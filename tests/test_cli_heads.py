"""`diptych heads`: a sweep that resumes, tables, figures, and every definition for one head."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp.checkpoint import Checkpoint
from interp.heads import HeadSweep, LogitDiff, Mean
from interp.model import Model
from interp.prompt import Example
from interp.tasks.procedural import generate_records
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.pairs import pairs_of_examples
from study.analyses.heads.run import run_heads
from study.analyses.heads.store import done_of, put_norms, put_outcome, read_effects, sweep_store
from study.cli import main
from tests.test_heads_kinds import make_pairs
from tests.tiny import save_checkpoint, tiny, tiny_tokenizer

ARGS = ["--task", "interp.tasks.procedural", "--n", "4", "--slot", "Answer:", "--quiet", "--load-dtype", "float32"]


def run(*args: str) -> str:
    done = CliRunner().invoke(main, ["heads", *args])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"), max_position_embeddings=4096)


@pytest.mark.slow
def test_a_sweep_writes_tables_and_figures_and_shows_a_head(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "heads"
    common = ["--base", str(checkpoint), "--name", "b5", *ARGS, "--kind", "mean,patch", "--named", "L1.H2"]
    said = run(*common, "--out", str(out))
    assert f"tables: {out / 'table.csv'}" in said
    table = pd.read_csv(out / "table.csv")
    assert set(table["kind"]) == {"mean", "patch"}
    assert {"cma", "cma_frac", "abl_logit", "abl_frac", "abl_prob", "abl_acc", "flip_rate", "cohen_dz"} == set(
        table["metric"]
    )
    assert set(table.loc[table["kind"] == "patch", "pairs"]) >= {"flip", "keep"}
    assert set(table.loc[table["named"], "head"]) == {"L1.H2"}
    assert {"lo", "hi", "n", "n_groups", "control_value", "model", "dtype", "weights", "positions"} <= set(
        table.columns
    )
    assert (table.loc[table["kind"] == "mean", "n"] == 8).all()
    for name in ("mean-map", "mean-top", "patch-flip-map", "patch-keep-top", "cumulative"):
        assert (out / "figures" / f"b5-label-{name}.svg").read_text().startswith("<?xml")
    swaps = pd.read_csv(out / "order_swap.csv").set_index("metric")
    assert swaps.loc["acc_swapped_F", "n"] == 4
    assert "two heads" not in said and "does not make it unnecessary" in said
    shown = run("show", str(out), "--head", "L=2 H=3", "--base", "1")
    assert "L1.H2 (layers and heads count from 0; its block's output is hidden_states[2])" in shown
    for definition in ("cma ", "cliff", "abl_frac", "flip_rate"):
        assert definition in shown
    assert run("show", str(out)).count("patch cma") >= 10


@pytest.mark.slow
def test_an_interrupted_sweep_continues_and_another_one_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "heads"
    common = ["--base", str(checkpoint), *ARGS, "--kind", "zero", "--no-figures", "--out", str(out)]
    whole = HeadSweep.outcome
    seen: list[int] = []

    def stops(self, index, key=""):
        if len(seen) == 3 and index == 3:
            raise ValueError("the machine went away")
        seen.append(index)
        return whole(self, index, key)

    monkeypatch.setattr(HeadSweep, "outcome", stops)
    done = CliRunner().invoke(main, ["heads", *common])
    assert done.exit_code == 1 and "went away" in done.output
    items = [path for path in out.rglob("*.item") if path.stem != "pairs"]
    assert len(items) == 3
    stamps = {path: path.stat().st_mtime_ns for path in items}
    seen.clear()
    monkeypatch.setattr(HeadSweep, "outcome", lambda self, i, key="": seen.append(i) or whole(self, i, key))
    run(*common)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert seen[:5] == [3, 4, 5, 6, 7]
    refused = CliRunner().invoke(main, ["heads", *common, "--seed", "3"])
    assert refused.exit_code == 1 and "holds another head sweep (pairs_sha256" in refused.output


def test_a_task_without_twins_is_ablated_and_not_patched(checkpoint: Path, tmp_path: Path) -> None:
    given = ["--base", str(checkpoint), *ARGS, "--out", str(tmp_path / "x")]
    rows = generate_records(2, 0, rendering="plain", split="test")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(main, ["heads", *given, "--data", str(data)])
    assert done.exit_code == 1
    assert "kind patch needs pairs of prompts" in done.output
    assert "nothing to do" in CliRunner().invoke(main, ["heads"]).output
    missing = CliRunner().invoke(main, ["heads", "show", str(tmp_path)])
    assert "holds no head sweep" in missing.output


def test_what_is_stored_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(4)
    job = HeadSweep(model, pairs, Mean(), metrics=(LogitDiff(),))
    root, outcomes = tmp_path / "m" / "mean", dict(job.run())
    with sweep_store(root, job.plan, pairs) as store:
        for outcome in list(outcomes.values())[:3]:
            put_outcome(store, outcome)
        put_norms(store, np.ones(12), ["L1.H2"])
        with pytest.raises(ValueError, match="1 of 4 pairs are not done"):
            read_effects(root)
        put_outcome(store, outcomes[3])
    effects = read_effects(root)
    assert effects.pairs == tuple(pairs)
    assert effects.plan == job.plan
    assert np.array_equal(effects.values["margin"], np.stack([outcomes[i].values["margin"] for i in range(4)]))
    assert [str(unit[0]) for unit in effects.named] == ["L1.H2"]


def test_groups_that_change_are_renewed_and_outcomes_kept(tmp_path: Path) -> None:
    model, pairs = Model.wrap(tiny("qwen2")), make_pairs(4)
    job = HeadSweep(model, pairs, Mean(), metrics=(LogitDiff(),))
    for groups in ("aabb", "abcd"):
        renamed = [dataclasses.replace(pair, group=group) for pair, group in zip(pairs, groups, strict=True)]
        with sweep_store(tmp_path, job.plan, renamed) as store:
            for _, outcome in job.run(done=done_of(store)):
                assert groups == "aabb", "nothing is computed again"
                put_outcome(store, outcome)
            put_norms(store, np.ones(12), [])
        assert "".join(pair.unit for pair in read_effects(tmp_path).pairs) == groups


def grouped(n: int) -> list[Example]:
    """n items of n stories in two categories; the category comes first, as in BBQ."""
    groups = [{"category": f"c{k % 2}", "story": f"s{k}"} for k in range(n)]
    return [Example(f"e{k}", text="the dog ?", label="yes", groups=groups[k]) for k in range(n)]


def test_the_independent_unit_of_items_is_the_group_that_their_task_names() -> None:
    model = Model.wrap(tiny("qwen2", vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    for group, units in (("story", [f"s{k}" for k in range(6)]), (None, ["c0", "c1"] * 3)):
        task = SimpleNamespace(labels=lambda example: ("yes", "no"), GROUP=group)
        assert [pair.unit for pair in pairs_of_examples(model, task, grouped(6), "")] == units


def test_items_of_too_few_units_are_refused_before_any_model_is_loaded(tmp_path: Path) -> None:
    nowhere, options = Checkpoint("m", str(tmp_path / "no-such-model")), HeadsOptions(kinds=("mean",), slot="")
    with pytest.raises(ValueError, match=r"4 or more independent units \(story\).*got 3 in 3 items"):
        run_heads(nowhere, "tests.steer_task", grouped(3), out=tmp_path / "x", options=options)
    with pytest.raises(ValueError, match="kind patch needs pairs"):
        run_heads(nowhere, "tests.steer_task", grouped(8), out=tmp_path / "x", options=HeadsOptions())
    with pytest.raises(ValueError, match="no-such-model"):  # what stops enough items is the model
        run_heads(nowhere, "tests.steer_task", grouped(4), out=tmp_path / "x", options=options)
