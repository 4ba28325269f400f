"""`diptych eval`, `data`, `pair` and the demo on the embedded pair: recorded predictions, resumption, users' faults."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from interp import stats
from study.cli import main
from study.schema import COLUMNS, KEYS


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


ASK = ("eval", "--pair", "embedded", "--task", "interp.tasks.procedural", "--per-cell", "3", "--seed", "5", "--quiet")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "demo"
    done = run(*ASK, "--out", out)
    assert done.exit_code == 0, done.output
    assert f"tables: {out / 'table.csv'}, {out / 'pair.csv'}" in done.output
    return out


@pytest.mark.slow
def test_the_table_is_tidy_and_every_number_has_its_interval_and_n(evaluated: Path) -> None:
    table = pd.read_csv(evaluated / "table.csv")
    assert set(KEYS) <= set(table.columns) <= set(COLUMNS)
    assert {"engaged", "heuristic", "base"} >= set(table["member"]) >= {"engaged", "heuristic"}
    assert table[["value", "n", "interval"]].notna().all().all()
    has_interval = ~table["interval"].str.startswith("none: ")
    ends = table[has_interval]
    assert ((ends["lo"] <= ends["value"] + 1e-9) & (ends["value"] <= ends["hi"] + 1e-9)).all()
    alike = table[~has_interval]  # replies of one length: nothing bounds how long another one could be
    assert set(alike["metric"]) == {"new_tokens"} and set(alike["interval"]) == {stats.NO_SPREAD}
    assert (alike["lo"] == alike["value"]).all() and (alike["hi"] == alike["value"]).all()
    metrics = set(table["metric"])
    assert {"accuracy", "unparsed", "consistency", "surface_reliance", "d_prime", "order_swap_flipping"} <= metrics
    assert {"follows_ok_to_violation", "faithful", "step_verdicts", "label_first", "new_tokens"} <= metrics
    accuracy = table[table["metric"] == "accuracy"]
    assert accuracy["control_value"].notna().all()


@pytest.mark.slow
def test_the_members_part_where_the_recipe_says(evaluated: Path) -> None:
    pairs = pd.read_csv(evaluated / "pair.csv").pivot(index="cell", columns="member", values="value")
    for cell in ("adversarial_surface_compliant", "step_reorder_invalid", "ord_swap_flip", "prerequisite_omission"):
        assert pairs.loc[cell, "engaged"] > 0.6
        assert pairs.loc[cell, "heuristic"] < 0.4
    table = pd.read_csv(evaluated / "table.csv").set_index(["member", "metric"])
    assert table.loc[("heuristic", "surface_reliance"), "value"] > 0.7
    assert abs(table.loc[("engaged", "surface_reliance"), "value"]) < 0.2
    assert table.loc[("engaged", "follows_ok_to_violation"), "value"] > 0.8
    assert table.loc[("engaged", "follows_ok_to_violation"), "control_value"] < 0.1
    assert table.loc[("heuristic", "label_first"), "value"] == 1.0


@pytest.mark.slow
def test_running_again_changes_nothing_and_losing_a_batch_costs_that_batch(evaluated: Path) -> None:
    before = {p: p.read_bytes() for p in evaluated.rglob("*.csv")}
    batch = next((evaluated / "engaged" / "items").glob("0*.item"))
    held = batch.read_bytes()
    batch.unlink()
    assert run(*ASK, "--out", evaluated).exit_code == 0
    assert batch.read_bytes() == held
    assert {p: p.read_bytes() for p in evaluated.rglob("*.csv")} == before
    refused = run(*ASK[:-2], "6", "--out", evaluated)
    assert refused.exit_code == 1
    assert "another evaluation" in refused.output


@pytest.mark.slow
def test_a_users_own_file_is_evaluated_and_its_faults_are_named(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    assert run("data", "procedural", "--n", "12", "--seed", "1", "--rendering", "log", "--out", data).exit_code == 0
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        row["split"] = None
        row["label"] = "Non-Compliant" if row["label"] == "noncompliant" else "COMPLIANT"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ask = ("eval", "--pair", "embedded", "--task", "interp.tasks.procedural", "--data", data, "--quiet")
    done = run(*ask, "--out", tmp_path / "mine")
    assert done.exit_code == 0, done.output
    answers = pd.read_parquet(tmp_path / "mine" / "engaged" / "answers.parquet")
    assert set(answers["gold"]) == {"compliant", "noncompliant"}
    faults = {
        "label": ({k: v for k, v in rows[3].items() if k != "label"}, "label"),
        "perturbation": ({**rows[3], "perturbation": "step_reordr"}, "step_reorder_invalid"),
        "scenario": ({**rows[3], "scenario": "form first issued by clerk . " * 400}, "tokens, the limit is"),
    }
    for row, words in faults.values():
        data.write_text("".join(json.dumps(r) + "\n" for r in [*rows[:3], row]))
        refused = run(*ask, "--out", tmp_path / "other")
        assert refused.exit_code == 1
        assert words in refused.output
        if not words.startswith("tokens"):
            assert "line 4" in refused.output


def test_data_is_the_same_for_the_same_seed_and_audits_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = run("data", "procedural", "--n", "340", "--seed", "1", "--out", tmp_path / f"{name}.jsonl")
        assert done.exit_code == 0, done.output
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    audit = run("data", "audit", tmp_path / "a.jsonl", "--against", tmp_path / "b.jsonl")
    assert audit.exit_code == 0, audit.output
    assert "labels: compliant 170, noncompliant 170" in audit.output
    assert "leakage of" in audit.output
    assert "shared_ids=340" in audit.output  # a file against itself
    assert "max_jaccard=1.0" in audit.output


def test_an_option_that_a_task_does_not_take_is_an_error(tmp_path: Path) -> None:
    done = run(
        "eval", "--pair", "embedded", "--task", "interp.tasks.bbq", "--data", "x", "--per-cell", "3", "--out", tmp_path
    )
    assert done.exit_code == 1
    assert "interp.tasks.bbq does not take --per-cell" in done.output


GATE = """
from interp.prompt import Example, Message
def examples(data):
    return [Example(id=f"e{{i}}", messages=(Message("user", "step one"),), label="a",
                    groups={{"unit": "u"}} if i < {grouped} else {{}}) for i in range(4)]
def parse(text): return text
def score(example, text): return {{"correct": 0.0}}
"""


def gate(tmp_path: Path, monkeypatch, name: str, *, grouped: int = 4) -> tuple[str, ...]:
    """A task that names no labels and takes no seed, asked of a base that does not exist: only checks can answer."""
    source = GATE.format(grouped=grouped)
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return ("eval", "--base", str(tmp_path / "nowhere"), "--task", name, "--data", "x", "--out", str(tmp_path / "out"))


def test_labels_alone_of_a_task_without_labels_are_refused_before_loading(tmp_path: Path, monkeypatch) -> None:
    done = run(*gate(tmp_path, monkeypatch, "gate_labels"), "--mode", "labels")
    assert done.exit_code == 1
    assert "names no labels for 4 of 4 items (e0, e1, e2, e3)" in done.output


def test_a_group_on_some_items_only_is_refused_before_loading(tmp_path: Path, monkeypatch) -> None:
    done = run(*gate(tmp_path, monkeypatch, "gate_groups", grouped=2))
    assert done.exit_code == 1
    assert "'unit' is the unit of every interval" in done.output
    assert "2 of 4 items (e2, e3)" in done.output


def test_a_seed_is_for_decoding_where_the_task_takes_none(tmp_path: Path, monkeypatch) -> None:
    done = run(*gate(tmp_path, monkeypatch, "gate_seed"), "--seed", "3")
    assert done.exit_code == 1
    assert "does not take" not in done.output
    assert "nowhere" in done.output  # as far as loading the model


def test_the_embedded_pair_is_not_asked_in_words_that_it_does_not_know(tmp_path: Path) -> None:
    done = run(*ASK, "--rendering", "plain", "--out", tmp_path)
    assert done.exit_code == 1
    assert "--rendering plain: the embedded pair knows only the words of the log rendering" in done.output
